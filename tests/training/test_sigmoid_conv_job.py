"""``python -m training sigmoid-conv``: the gradients, the artifact, and that checks can fail."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from contract.store import list_versions, newest_good, verify
from training.__main__ import main
from training.jobs import sigmoid_conv as job
from training.networks.sigmoid_conv import INPUTS, OUTPUTS, loss_gradient
from training.publish.agreement import GraphRunner
from training.publish.sigmoid_conv_checks import by_autograd, central_differences, closed_form
from training.publish.sigmoid_conv_report import EXAMPLE

COMMITTED = Path(__file__).parents[2] / "artifacts"
SHAPES = {"x": (4, 4), "kernel": (3, 3), "weights": (4,), "label": ()}

SAMPLE = st.fixed_dictionaries(
    {
        name: arrays.arrays(np.float64, shape, elements=st.floats(-5, 5))
        for name, shape in SHAPES.items()
    }
)


def run_function(sample: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    batch = [torch.from_numpy(np.asarray(sample[name])[np.newaxis]) for name in INPUTS]
    return {
        name: tensor[0].numpy() for name, tensor in zip(OUTPUTS, loss_gradient(*batch), strict=True)
    }


@given(SAMPLE)
@settings(deadline=None)
def test_the_function_is_the_closed_form_and_autograd(
    sample: dict[str, NDArray[np.float64]],
) -> None:
    found = run_function(sample)
    for expected in (closed_form(sample), by_autograd(sample)):
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


def test_by_hand() -> None:
    """Zero kernel: z = 0, a = ½, so that everything is a number one can do in one's head."""
    sample = {
        "x": np.arange(16.0).reshape(4, 4),
        "kernel": np.zeros((3, 3)),
        "weights": np.array([1.0, 2.0, 3.0, 4.0]),
        "label": np.array(3.0),
    }
    found = run_function(sample)
    assert found["prediction"] == 5  # (1 + 2 + 3 + 4) / 2
    assert found["loss"] == 4
    assert found["prediction_gradient"] == 4
    assert found["weights_gradient"].tolist() == [2, 2, 2, 2]
    assert found["activation_gradient"].tolist() == [[4, 8], [12, 16]]
    assert found["preactivation_gradient"].tolist() == [[1, 2], [3, 4]]
    # w10 read as kernel[1][0] sees x_10, x_11, x_20, x_21 = 4, 5, 8, 9.
    assert found["kernel_gradient"][1, 0] == 1 * 4 + 2 * 5 + 3 * 8 + 4 * 9
    assert found["input_gradient"].tolist() == np.zeros((4, 4)).tolist()


def test_central_differences_on_the_worked_example() -> None:
    expected = closed_form(EXAMPLE)
    found = central_differences(EXAMPLE, lambda sample: float(closed_form(sample)["loss"]))
    for name, value in found.items():
        np.testing.assert_allclose(value, expected[name], atol=1e-9)


def test_the_committed_graph_is_the_closed_form() -> None:
    artifact, refused = newest_good(COMMITTED, "sigmoid-conv")
    assert refused == []
    run = GraphRunner(artifact.folder / "loss_gradient.onnx")
    random = np.random.default_rng(99)
    given = {name: random.normal(0, 2, (50, *shape)) for name, shape in SHAPES.items()}
    found = run(given)
    for index in range(50):
        expected = closed_form({name: value[index] for name, value in given.items()})
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][index], value, rtol=1e-10, atol=1e-12)


def test_the_job_publishes_what_it_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sigmoid-conv", "--artifacts", str(tmp_path), "--seed", "5"]) == 0
    printed = capsys.readouterr().out
    for means in ("closed form", "autograd", "central differences"):
        assert f"loss_gradient against {means}: largest difference" in printed
    artifact = verify(tmp_path / "sigmoid-conv" / "1")
    function = artifact.manifest.functions["loss_gradient"]
    assert tuple(tensor.name for tensor in function.inputs) == INPUTS
    assert tuple(tensor.name for tensor in function.outputs) == OUTPUTS
    assert {tensor.name: tensor.shape for tensor in function.inputs} == {
        name: ("n", *shape) for name, shape in SHAPES.items()
    }
    assert artifact.manifest.parameters.total == 13
    report = (artifact.folder / "report.md").read_text()
    results = closed_form(EXAMPLE)
    assert f"**{results['kernel_gradient'][1, 0]:.6f}**" in report
    assert f"**{results['weights_gradient'][0]:.6f}**" in report
    samples = np.load(artifact.folder / "samples.npz", allow_pickle=False)
    assert set(samples) == {f"loss_gradient.{name}" for name in (*INPUTS, *OUTPUTS)}


def test_a_graph_that_disagrees_is_not_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(sample: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        return {**closed_form(sample), "kernel_gradient": np.zeros((3, 3))}

    monkeypatch.setattr(job, "closed_form", wrong)
    assert main(["sigmoid-conv", "--artifacts", str(tmp_path)]) == 2
    assert "kernel_gradient differs from closed form" in capsys.readouterr().err
    assert list_versions(tmp_path, "sigmoid-conv") == []


def test_it_is_published_to_an_object_store(tmp_path: Path, capsys) -> None:
    store = tmp_path / "store"
    address = f"file://{store}"
    assert main(["sigmoid-conv", "--artifacts", address]) == 0
    assert f"published {address}/sigmoid-conv/1" in capsys.readouterr().out
    assert verify(store / "sigmoid-conv" / "1").manifest.model == "sigmoid-conv"
    with pytest.raises(SystemExit):
        main(["sigmoid-conv", "--artifacts", "nonsense://there"])
    assert "nonsense:// is no object store that is known" in capsys.readouterr().err
