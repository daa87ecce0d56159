"""/homework: every question, answered by the models that serve, in two languages."""

import csv
import io
import json
import re
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from service.api.homework import CELL, _preferred, _truth, code_lines
from service.api.w10 import EXAMPLE
from service.app import create_app
from service.settings import Settings
from service.web.markdown import to_html
from tests.tiny_artifacts import publish_expected

ROOT = Path(__file__).parents[3]
SHIPPED = ROOT / "artifacts"
QUESTIONS = {
    "en": ["1 (a)", "1 (b)(i)", "1 (b)(ii)", "2 (a)", "2 (b)", "2 (c)", "3 "],
    "zh-Hant": [
        "（一）(a)",
        "（一）(b)(i)",
        "（一）(b)(ii)",
        "（二）(a)",
        "（二）(b)",
        "（二）(c)",
        "（三）",
    ],
}


@pytest.fixture(scope="module")
def shipped() -> Iterator[TestClient]:
    with TestClient(create_app(Settings(artifacts=SHIPPED, access_log=False))) as client:
        deadline = time.monotonic() + 60
        while client.get("/health/ready").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield client


@pytest.mark.parametrize("language", QUESTIONS)
def test_every_question_is_answered_in_order(shipped: TestClient, language: str) -> None:
    page = shipped.get(f"/homework?lang={language}")
    assert page.status_code == 200
    headings = re.findall(r"<h2>(.*?)</h2>", page.text)
    assert len(headings) == len(QUESTIONS[language])
    for heading, expected in zip(headings, QUESTIONS[language], strict=True):
        assert heading.startswith(expected)
    assert "3,177,418" in page.text
    assert page.text.count("<math ") > 10
    assert "$" not in re.sub(r"<(pre|code)>.*?</\1>", "", page.text, flags=re.S)


def test_it_is_laid_out_once_and_beside_the_event_loop(
    artifacts: Path, serve: Callable[..., TestClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    laid_out: list[str] = []

    def watched(text: str, plot: Callable[[str], str | None]) -> str:
        laid_out.append(threading.current_thread().name)
        return to_html(text, plot)

    monkeypatch.setattr("service.web.rendered.to_html", watched)
    client = serve(artifacts)
    pages = [client.get(f"/homework?lang={language}").text for language in (*QUESTIONS, *QUESTIONS)]
    assert pages[:2] == pages[2:]
    assert len(laid_out) == 2
    assert all(name.startswith("pages") for name in laid_out)


def test_its_figures_are_the_services(shipped: TestClient) -> None:
    text = shipped.get("/homework/homework.md").text
    answer = shipped.post("/gradient", json={"x": [3.0, 0.1, -0.5], "model": "curve-poly"}).json()
    for slope in answer["gradient"]:
        assert f"**{slope:.6f}**" in text
    w10 = shipped.post("/w10-gradient", json=EXAMPLE).json()["w10"]["gradient"]
    assert f"**{w10:.8f}**" in text
    for weight in shipped.get("/models/curve-poly").json()["coefficients"]:
        assert f"{weight:.10g}" in text


@pytest.mark.parametrize("language", QUESTIONS)
def test_w10_by_hand_step_by_step(shipped: TestClient, language: str) -> None:
    """What a person gets who works the example on paper stands there, each sum written out."""
    text = shipped.get("/homework/homework.md", params={"lang": language}).text
    steps = re.findall(r"^\d\. .*(?:\n +.*)?", text.rpartition("## ")[2], re.M)
    assert len(steps) == 8
    x, k = np.array(EXAMPLE["input"]), np.array(EXAMPLE["kernel"])
    v, y = np.array(EXAMPLE["weights"]), EXAMPLE["label"]
    z = np.array([[np.sum(k * x[p : p + 3, q : q + 3]) for q in (0, 1)] for p in (0, 1)])
    a = 1 / (1 + np.exp(-z))
    prediction = float(v @ a.ravel())
    by_prediction = 2 * (prediction - y)
    by_activation = by_prediction * v.reshape(2, 2)
    by_z = by_activation * a * (1 - a)
    by_kernel = float(np.sum(by_z * x[1:3, 0:2]))
    wanted = [
        [z[0, 0], *z.ravel()],
        [a[0, 0], *a.ravel()],
        [prediction],
        [(prediction - y) ** 2, by_prediction],
        list(by_activation.ravel()),
        list(by_z.ravel()),
        [by_kernel],
        [by_prediction * a[0, 0]],
    ]
    for step, values in zip(steps, wanted, strict=True):
        numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", step)]
        for value in values:
            assert any(abs(number - value) < 1e-5 for number in numbers), (step, value)
    # The sums add up as they are written.
    for step in (steps[0], steps[2], steps[6], steps[7]):
        sum_of = re.search(r"= ([^=]*cdot[^=]*) = (-?[\d.]+)", step.replace("$", ""))
        assert sum_of
        written, total = sum_of.groups()
        terms = [
            np.prod([float(factor.strip(" ()")) for factor in term.split("\\cdot")])
            for term in written.split(" + ")
        ]
        assert sum(terms) == pytest.approx(float(total), abs=1e-5)


def test_intervals_and_scaled_coefficients_are_the_services(shipped: TestClient) -> None:
    text = shipped.get("/homework/homework.md").text
    for model in ("curve-mlp", "curve-poly", "curve-gp"):
        query = {"x": [3.0, 0.1, -0.5], "model": model, "uncertainty": True}
        for low, high in shipped.post("/gradient", json=query).json()["interval"]:
            assert f"{low:.3f} … {high:.3f}" in text
    folder = max((SHIPPED / "curve-poly").iterdir(), key=lambda path: int(path.name))
    manifest = json.loads((folder / "manifest.json").read_text())
    for value in manifest["scaled_coefficients"]:
        assert f"| {value:.10g} |" in text


def test_the_summary_adds_up(shipped: TestClient) -> None:
    text = shipped.get("/homework/homework.md").text
    printed = text.partition("```text\n")[2].partition("```")[0]
    _, layers, totals = printed.split("=" * 66)
    counts = [int(line.split()[-1].replace(",", "")) for line in layers.strip().splitlines()]
    assert sum(counts) == 3_177_418
    assert "Trainable params: 3,177,418\nNon-trainable params: 0" in totals


def test_pictures_are_there(shipped: TestClient) -> None:
    page = shipped.get("/homework").text
    addresses = re.findall(r'<img src="([^"]+)"', page)
    assert len(addresses) >= 5
    for address in addresses:
        assert shipped.get(f"/{address}").status_code == 200, address


def test_code_that_it_names_is_there(shipped: TestClient) -> None:
    text = shipped.get("/homework/homework.md").text
    named = re.findall(r"`(training/[a-z0-9_/]+\.py)`(?: \(`(\w+)`, lines (\d+)–(\d+)\))?", text)
    assert len(named) >= 10
    for path, symbol, first, last in named:
        lines = (ROOT / path).read_text().splitlines()
        assert re.match(rf"(def|class) {symbol}\b", lines[int(first) - 1]), (path, symbol)
        assert lines[int(last) - 1].startswith(" ")
        assert all(not line or line[0] in " )" for line in lines[int(first) : int(last)])


def test_without_the_training_code_it_is_named_without_lines(tmp_path: Path) -> None:
    assert code_lines(tmp_path / "mlp.py", "fit_mlp") is None
    (tmp_path / "other.py").write_text("fit_mlp = 1\n")
    assert code_lines(tmp_path / "other.py", "fit_mlp") is None


@pytest.mark.parametrize("file", ["homework.md", "homework.ipynb"])
def test_what_is_downloaded_leads_back_here(shipped: TestClient, file: str) -> None:
    """A file elsewhere has no page beside it: its links and pictures name the service."""
    text = shipped.get(f"/homework/{file}").text
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) >= 14
    for link in links:
        assert link.startswith("http://testserver/"), link
        assert shipped.get(link).status_code == 200, link
    assert "curl -s http://testserver/models/cifar-baseline/summary" in text


def test_its_code_runs_against_the_service(
    shipped: TestClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = shipped.get("/homework/homework.ipynb").json()
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) == 2

    def urlopen(request: urllib.request.Request) -> io.BytesIO:
        assert isinstance(request.data, bytes)
        return io.BytesIO(
            shipped.post(request.full_url, content=request.data, headers=request.headers).content
        )

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    for source in code:
        exec(source, {})  # each by itself, as it is copied from the page
    printed = capsys.readouterr().out
    slopes = shipped.post("/gradient", json={"x": [3.0, 0.1, -0.5], "model": "curve-mlp"}).json()
    assert str(slopes["gradient"]) in printed
    assert str(shipped.post("/w10-gradient", json=EXAMPLE).json()["w10"]) in printed
    assert CELL not in json.dumps(notebook)
    assert (notebook["nbformat"], len({cell["id"] for cell in notebook["cells"]})) == (
        4,
        len(notebook["cells"]),
    )


@pytest.mark.parametrize("language", QUESTIONS)
def test_the_network_that_it_describes_is_the_one_that_serves(
    shipped: TestClient, language: str
) -> None:
    text = shipped.get("/homework/homework.md", params={"lang": language}).text
    summary = shipped.get("/models/curve-mlp/summary").json()
    hidden = [layer["output_shape"][-1] for layer in summary["layers"] if layer["type"] == "Tanh"]
    units = {"en": f"of {' and '.join(map(str, hidden))} tanh units", "zh-Hant": "個 tanh 單元"}
    assert units[language] in text
    assert re.search(rf"\b{summary['total']} (parameters|個參數)", text)


def test_without_models_it_says_how_to_make_them(
    serve: Callable[..., TestClient], tmp_path: Path
) -> None:
    page = serve(tmp_path / "none").get("/homework")
    assert page.status_code == 200
    assert page.text.count("not in service here") == 4
    assert "Neither classifier is in service" in page.text
    assert "<img" not in page.text.replace('<img src="static/homework/network.svg"', "")


@pytest.mark.parametrize("language", QUESTIONS)
def test_what_a_manifest_lacks_is_a_dash(
    serve: Callable[..., TestClient], tmp_path: Path, language: str
) -> None:
    publish_expected(tmp_path)  # classifiers without any metrics
    for path in tmp_path.glob("cifar-baseline/*/manifest.json"):
        manifest = json.loads(path.read_text())
        manifest["metrics"] = {"top1": {"test": "high", "train": 0.5}, "top5": 0.9, "loss": None}
        manifest["parameters"] = None
        path.write_text(json.dumps(manifest))
    client = serve(tmp_path)
    assert client.get("/homework", params={"lang": language}).status_code == 200
    text = client.get("/homework/homework.md", params={"lang": language}).text
    train, test = {"en": ("train", "test"), "zh-Hant": ("訓練", "測試")}[language]
    assert f"| cifar-baseline | {train} | 50.00 % | – | – |" in text
    assert f"| cifar-baseline | {test} | – | – | – |" in text
    assert f"| cifar-improved | {test} | – | – | – |" in text
    # It serves, so it isn't said not to.
    absent = {
        "en": "`cifar-baseline` is not in service",
        "zh-Hant": "`cifar-baseline` 目前未在服務",
    }
    assert absent[language] not in text
    assert {"en": "without its table", "zh-Hant": "未附參數表"}[language] in text


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        ([{"x": 3, "truth": 1.5}, {"x": 0.1}], {3.0: 1.5, 0.1: None}),
        ([{"truth": 1.5}, {"x": "3"}, 7, None], {}),
        ([{"x": 10**400, "truth": 1}, {"x": 1, "truth": True}], {1.0: None}),
        ({"x": 3}, {}),
        (None, {}),
    ],
)
def test_slopes_of_any_manifest_can_be_read(metrics: object, found: dict[float, object]) -> None:
    assert _truth(metrics) == found


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-TW,zh;q=0.9,en;q=0.8", "zh-Hant"),
        ("en;q=0.5, zh-Hant", "zh-Hant"),
        ("de, en;q=0.1, zh;q=0.05", "en"),
        ("fr;q=x, *", "en"),
    ],
)
def test_the_browsers_language_is_heeded(header: str, language: str) -> None:
    assert _preferred(header) == language


# Read, not imported: the service's tests run without PyTorch.
LADDER = (ROOT / "training" / "fit" / "ladder.py").read_text().partition("CHANGES: ")[2]
STEPS = re.findall(r'^ {4}\(\s*"(\w+)"', LADDER, re.M)
ROW = {
    "step": "table", "parameters": "3177418", "multiply_adds": "6400000", "epochs": "8",
    "train_images": "10000", "validation_images": "5000", "seed": "0", "validation_top1": "0.5",
}  # fmt: skip


@pytest.mark.parametrize("language", QUESTIONS)
def test_every_step_of_the_ablation_has_its_words(
    shipped: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    table = tmp_path / f"{language}.csv"
    shares = [0.5 + (-1) ** number * number / 50 for number in range(len(STEPS))]
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROW))
        writer.writeheader()
        for name, share in zip(STEPS, shares, strict=True):
            writer.writerow(ROW | {"step": name, "validation_top1": str(share)})
    monkeypatch.setattr("service.api.homework.ABLATION", table)
    text = shipped.get("/homework/homework.md", params={"lang": language}).text
    lines = [line.split(" | ") for line in text.splitlines() if line.endswith(" |")]
    steps = [line for line in lines if len(line) == 6 and line[3] == "6.4 M"]
    assert len({line[1] for line in steps}) == len(STEPS) == 10
    assert all(line[1] for line in steps)
    assert [line[4] for line in steps] == [f"{100 * share:.2f} %" for share in shares]
    assert [line[5] for line in steps[:3]] == ["– |", "−2.00 |", "+6.00 |"]
    assert "0.7" in text  # the standard error of 0.5 of 5,000, in points
    assert "python -m training ablation --epochs 8 --train-images 10000" in text


@pytest.mark.parametrize("language", QUESTIONS)
def test_without_an_ablation_nothing_is_said_of_it(
    shipped: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.setattr("service.api.homework.ABLATION", tmp_path / "none.csv")
    text = shipped.get("/homework/homework.md", params={"lang": language}).text
    assert "ablation" not in text
    assert "`training/networks/cnn_improved.py` (`ImprovedCNN`" in text
