"""``python -m training curve``: what it publishes, and that it publishes nothing when it fails."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from contract.manifest import CurveManifest
from contract.store import Artifact, list_versions, newest_good, verify
from service.web.markdown import to_html
from training.__main__ import main
from training.data import stand_in
from training.data.points import read_points
from training.fit import mlp as fits
from training.jobs import curve as job
from training.networks.curve import CurveMLP, Polynomial
from training.publish import curve_artifact, slopes
from training.publish.agreement import GraphRunner
from training.publish.derivatives import derivative, frozen

COMMITTED = Path(__file__).parents[2] / "artifacts"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the stand-in, its cross-validation cut short."""
    root = tmp_path_factory.mktemp("artifacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fits, "HIDDEN", ((8,),))
        patch.setattr(fits, "RESTARTS", 1)
        assert main(["curve", "--artifacts", str(root)]) == 0
    return root


def quickly(monkeypatch: pytest.MonkeyPatch, *suffixes: str) -> None:
    """A small search, and as few functions as do: exporting takes long. Of the models only those
    with these ``suffixes``, if there are any."""
    monkeypatch.setattr(fits, "HIDDEN", ((8,),))
    monkeypatch.setattr(fits, "RESTARTS", 1)
    monkeypatch.setattr(curve_artifact, "ORDERS", {"value": 0})
    monkeypatch.setattr(curve_artifact, "DEVIATIONS", {})
    fitters = job._fitters
    if suffixes:
        monkeypatch.setattr(
            job,
            "_fitters",
            lambda *given: [each for each in fitters(*given) if each[0] in suffixes],
        )


def checkpoint_network(artifact: Artifact) -> torch.nn.Module:
    """The network as anyone would load it from the checkpoint."""
    state = load_file(artifact.folder / "checkpoint.safetensors")
    if artifact.manifest.model == "curve-mlp":
        layers = sum(name.endswith("bias") for name in state) - 1
        hidden = [len(state[f"dense{layer}.bias"]) for layer in range(1, layers + 1)]
        network: torch.nn.Module = CurveMLP((0, 1), (0, 1), hidden)
    else:
        network = Polynomial([0.0] * len(state["coefficients"]), (0, 1))
    network.load_state_dict(state)
    return frozen(network)


@pytest.mark.parametrize("model", ["curve-mlp", "curve-poly", "curve-gp"])
def test_the_artifact_is_whole(published: Path, model: str) -> None:
    artifact = verify(published / model / "1")
    manifest = artifact.manifest
    assert isinstance(manifest, CurveManifest)
    points = read_points(stand_in.PATH)
    assert manifest.domain == (points.x.min(), points.x.max())
    assert manifest.data.sha256 == points.sha256
    assert manifest.metrics["points"] == np.stack([points.x, points.y], axis=1).tolist()
    assert json.loads((artifact.folder / "metrics.json").read_text()) == manifest.metrics
    assert float(str(manifest.metrics["mse"])) < 0.1
    deviations = {"value_sd", "gradient_sd", "gradient2_sd"}
    derivatives = {"gradient", "gradient2", "gradient3"}
    assert set(manifest.functions) == {"value"} | derivatives | deviations
    assert manifest.degrees_of_freedom is not None
    for name, function in manifest.functions.items():
        assert [tensor.name for tensor in function.inputs] == ["x"]
        outputs = ["y"] if name == "value" else [name, "y"] if name in derivatives else [name]
        assert [tensor.name for tensor in function.outputs] == outputs
        assert function.graph.agreement.relative_tolerance == 1e-9
    with (artifact.folder / "history.csv").open() as stream:
        assert len(list(csv.DictReader(stream))) > 1
    report = (artifact.folder / "report.md").read_text()
    for picture in artifact.folder.glob("*.png"):
        assert f"({picture.name})" in report
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert (manifest.coefficients is None) == (model != "curve-poly")
    assert (manifest.scaled_coefficients is None) == (model != "curve-poly")


@pytest.mark.parametrize("model", ["curve-mlp", "curve-poly", "curve-gp"])
def test_samples_replay(published: Path, model: str) -> None:
    """What the service does at load: each graph gives the samples' outputs."""
    artifact = verify(published / model / "1")
    samples = np.load(artifact.folder / "samples.npz", allow_pickle=False)
    for name, function in artifact.manifest.functions.items():
        run = GraphRunner(artifact.folder / function.graph.file)
        found = run({"x": samples[f"{name}.x"]})
        assert set(found) == {tensor.name for tensor in function.outputs}
        for output, values in found.items():
            np.testing.assert_allclose(values, samples[f"{name}.{output}"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("model", ["curve-mlp", "curve-poly"])
def test_what_is_committed_is_the_checkpoints_own_derivative(model: str) -> None:
    """The shipped graphs against PyTorch's autograd on the shipped checkpoint."""
    artifact, refused = newest_good(COMMITTED, model)
    assert refused == []
    network = checkpoint_network(artifact)
    manifest = artifact.manifest
    assert isinstance(manifest, CurveManifest)
    low, high = manifest.domain
    x = torch.linspace(low - 0.5, high + 0.5, 101, dtype=torch.float64)
    for order, name in enumerate(("value", "gradient", "gradient2", "gradient3")):
        expected = derivative(network, order)(x) if order else network(x)
        output = "y" if name == "value" else name
        found = GraphRunner(artifact.folder / f"{name}.onnx")({"x": x.numpy()})[output]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    points = np.array(manifest.metrics["points"])
    mse = np.mean((network(torch.from_numpy(points[:, 0])).numpy() - points[:, 1]) ** 2)
    assert mse == pytest.approx(float(str(manifest.metrics["mse"])), rel=1e-9)
    assert mse < 0.1
    if manifest.coefficients:
        y = np.polyval(manifest.coefficients, x)
        np.testing.assert_allclose(y, network(x), rtol=1e-9, atol=1e-9)


def test_the_report_tells_of_the_network_that_was_trained(published: Path) -> None:
    artifact = verify(published / "curve-mlp" / "1")
    state = load_file(artifact.folder / "checkpoint.safetensors")
    hidden = artifact.manifest.training.config["hidden"]
    assert hidden == [len(state["dense1.bias"])] == [8]
    report = (artifact.folder / "report.md").read_text()
    assert "Dense 1→8, tanh, 8→1," in report
    (row,) = [line for line in report.splitlines() if line.endswith("| chosen |")]
    held_out = float(str(artifact.manifest.metrics["held_out_mse"]))
    assert row.startswith("| 8 |") and f"{held_out:.4g}" in row


@pytest.mark.parametrize("model", ["curve-mlp", "curve-poly"])
def test_formulas_of_the_report_are_latex_that_is_set(published: Path, model: str) -> None:
    text = (verify(published / model / "1").folder / "report.md").read_text()
    formulas = re.findall(r"\$([^$]+)\$", text)
    assert len(formulas) >= (8 if model == "curve-poly" else 3)
    words = re.sub(r"\$[^$]+\$|`[^`]+`", "", text.partition("## Parameters")[0])
    assert not re.search("[Σε^_·]", words)
    page = to_html(text)
    assert page.count("<math ") == len(formulas)


def test_derivatives_are_printed_each_way(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    derivatives = verify(published / "curve-poly" / "1").manifest.metrics["derivatives"]
    assert isinstance(derivatives, list)
    assert [entry["x"] for entry in derivatives if isinstance(entry, dict)] == [3.0, 0.1, -0.5]
    for entry in derivatives:
        assert isinstance(entry, dict)
        assert entry["autograd"] == pytest.approx(entry["analytic"], rel=1e-9)
        assert entry["autograd"] == pytest.approx(entry["central"], rel=1e-6)
        assert entry["autograd"] == pytest.approx(entry["truth"], abs=0.5)
        # The truth lies inside the interval, where it is known.
        assert abs(entry["autograd"] - entry["truth"]) < 2.2 * entry["standard_error"]


def test_own_data_have_their_own_name_unless_they_replace(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """40 points of a parabola, few and plain: beside the homework's models, or in their place."""
    x = np.linspace(-2, 2, 40)
    data = tmp_path / "Été 1.csv"
    data.write_text("".join(f"{a},{a * a}\n" for a in x.tolist()))
    given = ["curve", "--artifacts", str(published), "--data", str(data), "--degree", "2"]
    with pytest.MonkeyPatch.context() as patch:
        quickly(patch)
        assert main([*given, "--at", "0.5,3"]) == 0
        out = capsys.readouterr().out
        assert "f′(0.5) = 1.000" in out and "f′(3) = " in out and "f′(0.1)" not in out
        assert main([*given, "--name", "curve"]) == 2
        assert "add --replace" in capsys.readouterr().err
        assert list_versions(published, "curve-poly") == [1]
        assert main([*given, "--name", "curve", "--replace"]) == 0
    assert list_versions(published, "ete-1-gp") == list_versions(published, "ete-1-mlp") == [1]
    artifact, refused = newest_good(published, "curve-poly")
    assert (artifact.manifest.version, refused) == (2, [])
    assert isinstance(artifact.manifest, CurveManifest)
    np.testing.assert_allclose(artifact.manifest.coefficients, [1, 0, 0], atol=1e-12)
    report = (artifact.folder / "report.md").read_text()
    assert "stand-in" not in report and "(required: under 0.1)" in report
    assert verify(published / "curve-poly" / "1").manifest.version == 1


def test_averaging_many_points_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    quickly(monkeypatch, "gp")
    monkeypatch.setattr("training.fit.process.MOST_POINTS", 30)
    x = np.linspace(-2, 2, 40)
    data = tmp_path / "sine.csv"
    data.write_text("".join(f"{a},{np.sin(a)}\n" for a in x))
    assert main(["curve", "--data", str(data), "--artifacts", str(tmp_path / "artifacts")]) == 0
    assert "40 points averaged to 30, neighbours together" in capsys.readouterr().out


def test_into_a_file_of_few_letters_each_line_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a job's output goes into a file, on Windows or in an old locale."""
    quickly(monkeypatch, "poly")
    data = tmp_path / "line.csv"
    data.write_text("1,2\n2,4\n3,6\n4,8.1\n5,10\n")
    with (tmp_path / "log").open("w", encoding="ascii") as log:
        monkeypatch.setattr("sys.stdout", log)
        assert main(["curve", "--data", str(data), "--artifacts", str(tmp_path / "out")]) == 0
        written = (tmp_path / "log").read_text()
        assert "f\\u2032(3) = " in written and "published" in written


def test_years_get_no_coefficients_that_are_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """x from 2000 to 2024: in x the coefficients would be off by billions at the data."""
    quickly(monkeypatch, "poly")
    data = tmp_path / "years.csv"
    data.write_text("".join(f"{2000 + n},{np.sin(n / 3):.4f}\n" for n in range(25)))
    assert main(["curve", "--data", str(data), "--artifacts", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert "f′(2006) = " in out  # the quartiles
    assert "  c_1 = " in out and "  w_1 = " not in out and "t = (x − 2012.0) / 12.0" in out
    artifact = verify(tmp_path / "out" / "years-poly" / "1")
    manifest = artifact.manifest
    assert isinstance(manifest, CurveManifest)
    assert manifest.coefficients is None
    assert manifest.scaling == (2012.0, 12.0)
    assert manifest.scaled_coefficients is not None
    y = np.polyval(manifest.scaled_coefficients, (np.array([2003.0]) - 2012) / 12)
    assert y == pytest.approx(np.sin(1), abs=1e-3)
    assert "Coefficients in x are not given" in (artifact.folder / "report.md").read_text()
    assert float(str(manifest.metrics["coefficients_in_x_off"])) > 1e-6


def test_other_peoples_scale_is_not_the_homeworks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """MSE is 0.1's business only for curve-…; else R² is told, and a useless fit warned of."""
    quickly(monkeypatch, "poly", "gp")
    data = tmp_path / "bends.csv"
    data.write_text("".join(f"{a},{100 * np.sin(3 * a)}\n" for a in np.linspace(0, 30, 120)))
    out = str(tmp_path / "out")
    assert main(["curve", "--data", str(data), "--artifacts", out]) == 0
    text = capsys.readouterr().out
    assert "warning: the polynomial explains little of y" in text and "bends more often" in text
    # Each is judged for itself: the polynomial fails, the process is published.
    assert main(["curve", "--data", str(data), "--artifacts", out, "--mse", "0.5"]) == 2
    complaint = capsys.readouterr().err
    assert "bends-poly: the polynomial reaches" in complaint and "bends-gp" not in complaint
    assert list_versions(tmp_path / "out", "bends-gp") == [2, 1]
    assert list_versions(tmp_path / "out", "bends-poly") == [1]


def fails(arguments: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a job that must fail; returns what it says on stderr."""
    assert main([*arguments, "--artifacts", str(root)]) == 2
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert all(list_versions(root, f"curve-{kind}") == [] for kind in ("mlp", "poly", "gp"))
    return complaint


def test_bad_data_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "bad.csv"
    data.write_text("x,y\n1,2\n2,oops\n")
    complaint = fails(["curve", "--data", str(data)], tmp_path, capsys)
    assert "bad.csv: row 3, column 2 (y): 'oops' is not a number" in complaint


def test_too_few_points_for_the_degree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    complaint = fails(["curve", "--degree", "25"], tmp_path, capsys)
    assert "26 coefficients" in complaint and "20 different x" in complaint


def test_a_poor_fit_is_not_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are: each is judged for itself."""
    quickly(monkeypatch, "poly", "gp")
    assert main(["curve", "--degree", "2", "--artifacts", str(tmp_path)]) == 2
    complaint = capsys.readouterr().err
    assert "polynomial reaches a mean squared error of 0.6755" in complaint
    assert "the degree is too low" in complaint
    assert list_versions(tmp_path, "curve-poly") == []
    assert list_versions(tmp_path, "curve-gp") == [1]


def test_an_error_in_the_second_model_keeps_back_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The polynomial's check fails: then nothing is published of the others either."""
    quickly(monkeypatch)
    monkeypatch.setattr(slopes, "analytic", lambda _, x: np.zeros(len(x)))
    complaint = fails(["curve"], tmp_path, capsys)
    assert "by the analytic derivative" in complaint
    assert not list(tmp_path.glob("*/.draft-*"))


@pytest.mark.parametrize("option", ["--mse=0", "--mse=nan", "--mse=inf", "--at=1,,2", "--at=nan"])
def test_limits_and_places_are_numbers(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["curve", option])
    assert stopped.value.code == 2
    assert "give " in capsys.readouterr().err


@pytest.mark.parametrize("degree", ["-1", "2.5", "many", "31"])
def test_a_degree_is_a_small_number(degree: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["curve", f"--degree={degree}"])
    assert stopped.value.code == 2
    assert "give a number from 0 to 30" in capsys.readouterr().err
