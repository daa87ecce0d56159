"""/models, the summary and the report page."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.web import rendered
from service.web.markdown import to_html
from tests.tiny_artifacts import REPORT, publish_curve


def test_lists_what_serves(client: TestClient) -> None:
    models = {m["model"]: m for m in client.get("/models").json()["models"]}
    assert models["curve-mlp"] == {
        "model": "curve-mlp",
        "kind": "curve",
        "state": "serving",
        "version": 1,
        "functions": ["value", "gradient", "gradient2", "gradient3"],
    }
    assert models["cifar-improved"]["kind"] == "classifier"


def test_describes_a_model(client: TestClient) -> None:
    curve = client.get("/models/curve-mlp").json()
    assert curve["versions"] == [{"version": 1, "state": "serving", "reason": None}]
    assert curve["coefficients"] == [1.0, 0.0, -2.0, 0.0]
    assert curve["domain"] == [-1.0, 4.0]
    assert curve["functions"]["gradient"]["precision"] == "fp64"
    assert client.get("/models/cifar-improved").json()["classes"] == ["red", "green", "blue"]


def test_summary_adds_up(client: TestClient) -> None:
    summary = client.get("/models/curve-mlp/summary").json()
    assert summary["total"] == sum(layer["count"] for layer in summary["layers"]) == 4


def test_report_is_a_page_with_its_own_plots_only(client: TestClient) -> None:
    page = client.get("/models/curve-mlp/report")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "<td>-1</td>" in page.text
    assert 'src="report/fit.png"' in page.text
    assert "elsewhere.example" not in page.text
    assert "<script" not in page.text
    plot = client.get("/models/curve-mlp/report/fit.png")
    assert plot.headers["content-type"] == "image/png"
    assert plot.content.startswith(b"\x89PNG")


def test_the_data_of_a_report_can_be_downloaded(
    serve: Callable[..., TestClient], tmp_path: Path
) -> None:
    written = {"history.csv": b"degree,mse\n1,0.5\n", "metrics.json": b'{"mse": 0.5}'}
    publish_curve(tmp_path, **written)
    client = serve(tmp_path)
    page = client.get("/models/curve-mlp/report").text
    for name, content in (written | {"report.md": REPORT.encode()}).items():
        assert f'<a href="report/{name}" download>' in page
        answer = client.get(f"/models/curve-mlp/report/{name}")
        assert answer.content == content
        assert answer.headers["content-disposition"] == f'attachment; filename="curve-mlp-1-{name}"'
    assert '<a href="report/fit.png" download>' in page
    # Nothing else of the artifact is given away, and only what there is is offered.
    for name in ("value.onnx", "manifest.json", "samples.npz", "..%2Fmanifest.json"):
        assert client.get(f"/models/curve-mlp/report/{name}").status_code == 404


def test_a_report_says_which_graph_serves(serve: Callable[..., TestClient], tmp_path: Path) -> None:
    publish_curve(tmp_path)
    page = serve(tmp_path).get("/models/curve-mlp/report").text
    assert "gradient in fp64" in page


HOSTILE = {
    "brackets": ("![" * 30_000, True),
    "a wide table": ("|a" * 250 + "|\n" + "|-" * 250 + "|\n" + "|\n" * 30_000, True),
    "text": ("a <b>\n" * 100_000, False),
}


def test_hostile_reports_are_rendered_once_off_the_loop_and_bounded(
    tmp_path: Path, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, (text, _) in HOSTILE.items():
        publish_curve(tmp_path, name.replace(" ", "-"), **{"report.md": text.encode()})
    publish_curve(tmp_path, "huge", **{"report.md": b"a" * 1_100_000})
    rendered_in: list[str] = []

    def watched(text: str, picture: Callable[[str], str | None]) -> str:
        rendered_in.append(threading.current_thread().name)
        return to_html(text, picture)

    monkeypatch.setattr(rendered, "to_html", watched)
    client = serve(tmp_path)
    for name, (_, laid_out) in HOSTILE.items():
        address = f"/models/{name.replace(' ', '-')}/report"
        pages = [client.get(address) for _ in range(3)]
        assert {page.status_code for page in pages} == {200}, name
        assert ("Too long to be laid out" not in pages[0].text) == laid_out, name
        assert len(pages[0].text) < 1_300_000, name
        assert "<b>" not in pages[0].text
    assert len(rendered_in) == 2
    assert all(name.startswith("pages") for name in rendered_in)
    assert client.get("/models/huge/report").status_code == 404


def test_report_serves_no_other_file(client: TestClient) -> None:
    for name in ("manifest.json", "value.onnx", "nope.png", "..%2Fmanifest.json", "%2e%2e"):
        assert client.get(f"/models/curve-mlp/report/{name}").status_code == 404


def test_a_model_without_a_report_says_so(client: TestClient) -> None:
    answer = client.get("/models/sigmoid-conv/report")
    assert answer.status_code == 404
    assert "report" in answer.json()["detail"]


def test_unknown_models(client: TestClient) -> None:
    for path in ("/models/nope", "/models/nope/summary", "/models/nope/report", "/models/..%2f.."):
        answer = client.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
    assert client.get("/models/" + "x" * 100).status_code == 422


def test_ten_thousand_models_and_versions_fit_on_a_page(
    tmp_path: Path, serve: Callable[..., TestClient]
) -> None:
    """They lie there without a manifest, as a copy that broke off leaves them."""
    publish_curve(tmp_path)
    for version in range(2, 10_002):
        (tmp_path / "curve-mlp" / str(version)).mkdir()
    for number in range(10_000):
        (tmp_path / f"a-{number:05}" / "1").mkdir(parents=True)
    client = serve(tmp_path, copy_seconds=0)
    until = time.monotonic() + 60
    while client.get("/models/curve-mlp").json()["state"] != "serving":
        assert time.monotonic() < until
        time.sleep(0.1)
    answer = client.get("/models")
    page = answer.json()
    assert len(answer.content) < 100_000 and page["total"] == 10_001
    assert [m["state"] for m in page["models"][:2]] == ["serving", "not ready"]
    last = client.get("/models", params={"offset": 10_000, "limit": 5}).json()["models"]
    assert [m["model"] for m in last] == ["a-09999"]
    assert client.get("/models", params={"limit": 101}).status_code == 422
    answer = client.get("/models/curve-mlp")
    details = answer.json()
    assert len(answer.content) < 100_000
    assert details["version_counts"] == {"all": 10_001, "refused": 10_000}
    assert [v["version"] for v in details["versions"]] == [*range(10_001, 9_901, -1), 1]
    assert details["versions"][-1]["state"] == "serving"
    assert len(client.get("/health/ready").content) < 4096
