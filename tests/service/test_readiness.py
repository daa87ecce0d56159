"""What loads, what is refused and why, and what readiness says meanwhile."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.app import create_app
from service.lifecycle import Board, Lifecycle
from service.runtime.loader import load
from service.runtime.registry import Registry
from service.settings import Settings
from tests.tiny_artifacts import graph, node, png, publish_all, publish_classifier, publish_curve
from tests.tiny_artifacts import tensor as tiny_tensor

WAIT = 60.0  # seconds; verifying takes a fraction of one


def registry(root: Path, **settings: object) -> Registry:
    made = Registry(Settings(artifacts=root, **settings))
    made.refresh(WAIT)
    return made


def test_without_artifacts_it_is_live_not_ready_and_says_what_to_do(serve, tmp_path) -> None:
    client = serve(tmp_path / "none")
    assert client.get("/health/live").json() == {"status": "live"}
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    assert "python -m training cifar --network improved" in ready.text
    folder, *models = (error["detail"] for error in ready.json()["errors"])
    assert folder == (
        f"the artifacts folder {tmp_path / 'none'} is missing; GRADSERVE_ARTIFACTS names another"
    )
    assert len(models) == 6  # and how to get each
    predict = client.post("/predict", json={"x": 1})
    assert predict.status_code == 503
    assert "python -m training curve" in predict.json()["detail"]
    assert client.get("/models/curve-mlp/summary").status_code == 503


def test_ready_names_the_versions(client) -> None:
    ready = client.get("/health/ready")
    assert ready.json()["models"] == {"curve-mlp": 1, "cifar-improved": 1, "sigmoid-conv": 1}


def test_it_is_ready_once_every_worker_has_its_models(tmp_path) -> None:
    """Any of them may get the request that follows."""
    publish_all(tmp_path)
    board = Board(2)
    with TestClient(create_app(Settings(artifacts=tmp_path), Lifecycle(board))) as client:
        wait_for(lambda: client.get("/models/curve-mlp/summary").status_code == 200)
        wait_for(lambda: board.others_loaded(besides=1))
        ready = client.get("/health/ready")
        assert (ready.status_code, "another worker" in ready.json()["detail"]) == (503, True)
        assert client.get("/v2/health/ready").status_code == 503
        board.set_loaded(1)
        assert client.get("/health/ready").status_code == 200
        assert client.get("/v2/health/ready").status_code == 200


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_version_is_not_said_to_be_absent_while_it_is_loaded(tmp_path, monkeypatch) -> None:
    publish_curve(tmp_path)
    found = Registry(Settings(artifacts=tmp_path, require="curve-mlp"))
    said = []

    def load_and_ask(*arguments: object) -> object:
        said.extend(missing.reason for missing in found.missing())
        return load(*arguments)

    monkeypatch.setattr("service.runtime.registry.load", load_and_ask)
    found.refresh()
    found.refresh(WAIT)
    assert said == ["version 1 is being loaded"]
    assert found.missing() == []


def test_the_newest_good_version_serves(tmp_path) -> None:
    publish_curve(tmp_path)
    publish_curve(tmp_path, offset=1.0)
    found = registry(tmp_path)
    assert found.get("curve-mlp").manifest.version == 2
    shutil.rmtree(tmp_path / "curve-mlp" / "2")
    found.refresh(WAIT)
    assert found.get("curve-mlp").manifest.version == 1


def test_a_pinned_version_is_held(tmp_path) -> None:
    publish_curve(tmp_path)
    publish_curve(tmp_path, offset=1.0)
    assert registry(tmp_path, pin="curve-mlp=1").get("curve-mlp").manifest.version == 1
    absent = registry(tmp_path, pin={"curve-mlp": 7})
    assert [m.model for m in absent.missing()] == ["curve-mlp"]
    assert "no version 7 of it, which is pinned" in absent.missing()[0].reason


def test_a_required_model_keeps_it_from_being_ready(tmp_path) -> None:
    publish_curve(tmp_path)
    found = registry(tmp_path, require="curve-mlp, special")
    assert [m.model for m in found.missing()] == ["special"]
    publish_curve(tmp_path, "special")
    found.refresh(WAIT)
    assert found.missing() == []


def damage_hash(folder: Path) -> None:
    path = folder / "value.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def damage_truncate(folder: Path) -> None:
    path = folder / "value.onnx"
    path.write_bytes(path.read_bytes()[:10])


def damage_schema(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 3}))


def damage_half_written(folder: Path) -> None:
    (folder / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (damage_hash, "value.onnx"),
        (damage_truncate, "value.onnx"),
        (damage_schema, "schema version 3"),
        (damage_half_written, "manifest"),
    ],
)
def test_a_damaged_newest_version_is_refused_and_not_tried_again(
    tmp_path, damage, reason, monkeypatch
) -> None:
    publish_curve(tmp_path)
    newest = publish_curve(tmp_path, offset=1.0).folder
    damage(newest)
    found = registry(tmp_path)
    assert found.get("curve-mlp").manifest.version == 1
    assert reason in found.refused["curve-mlp"][2].reason

    def untouched(*_: object) -> None:
        pytest.fail("tried again although nothing changed")

    monkeypatch.setattr(found.verifier, "submit", untouched)
    found.refresh(WAIT)
    monkeypatch.undo()
    shutil.rmtree(newest)
    publish_curve(tmp_path, offset=2.0)
    found.refresh(WAIT)
    assert found.get("curve-mlp").manifest.version == 2


X, Y = tiny_tensor("x", "float64", "n"), tiny_tensor("y", "float64", "n")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"not a graph", "it is not an ONNX graph"),
        (graph([node("NoSuchOperator", "x", "y")], (X,), (Y,)), "cannot load"),
        (graph([node("Identity", "x", "y")], (X,), (Y,)), "differs from PyTorch's"),
        (graph([node("Log", "x", "y")], (X,), (Y,)), "differs from PyTorch's"),
        (graph([node("Identity", "x", "z")], (X,), (tiny_tensor("z", "float64", "n"),)), "outputs"),
        (
            graph([node("ReduceSum", "x", "y")], (X,), (tiny_tensor("y", "float64", 1),)),
            "y is tensor(double)[1] in the graph, but the manifest says float64[n]",
        ),
    ],
)
def test_a_graph_that_is_not_what_it_says_is_refused(tmp_path, content, reason) -> None:
    publish_curve(tmp_path)
    publish_curve(tmp_path, offset=1.0, **{"value.onnx": content})
    found = registry(tmp_path)
    assert found.get("curve-mlp").manifest.version == 1
    assert reason in found.refused["curve-mlp"][2].reason


def test_samples_that_are_missing_or_unreadable_refuse_the_version(tmp_path) -> None:
    artifact = publish_curve(tmp_path, "a", **{"samples.npz": b"PK"})
    assert "npz" in registry(tmp_path).refused["a"][artifact.manifest.version].reason


@pytest.mark.parametrize(
    ("agrees", "precision", "served"),
    [(True, "auto", "int8"), (False, "auto", "fp32"), (True, "fp32", "fp32")],
)
def test_int8_serves_only_where_it_agrees(tmp_path, agrees, precision, served) -> None:
    publish_classifier(tmp_path, int8_agrees=agrees)
    function = (
        registry(tmp_path, precision=precision).get("cifar-improved").functions["probabilities"]
    )
    assert function.graph.precision == served
    assert bool(function.refused) == (not agrees)


def test_models_says_what_was_refused(serve, tmp_path) -> None:
    publish_all(tmp_path)
    publish_curve(tmp_path, **{"value.onnx": b"junk"})
    client = serve(tmp_path)
    assert client.get("/health/ready").status_code == 200
    newest, older = client.get("/models/curve-mlp").json()["versions"]
    assert (newest["version"], newest["state"]) == (2, "refused")
    assert "value.onnx" in newest["reason"]
    assert older["state"] == "serving"
    assert client.post("/classify", files={"file": png((9, 0, 0))}).status_code == 200
