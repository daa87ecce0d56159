"""The page as a whole: for everybody, on a phone, without models, and as commands."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, expect

from service.api.w10 import EXAMPLE
from service.web.templating import STATIC
from tests.browser.conftest import PHONE, Visit, Visitor
from tests.server_process import ServerProcess
from tests.tiny_artifacts import publish_function

AXE = Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js"
REPORTS = (
    "/models/curve-mlp/report",
    "/models/cifar-improved/report",
    "/homework?lang=en",
    "/homework?lang=zh-Hant",
)


def use_everything(page: Page) -> None:
    """Bring every part of the page up, errors too."""
    page.get_by_label("f′", exact=True).check()
    page.get_by_label("f″", exact=True).check()
    page.get_by_role("button", name="Take an example").click()
    page.get_by_role("button", name="20 steps").click()
    expect(page.locator("[data-figure=descent]")).to_contain_text("step 20")
    page.get_by_role("button", name="frog").click()
    expect(page.locator("#image-networks article")).to_have_count(3)
    page.locator("[data-path=label]").fill("one")
    expect(page.locator("#w10-problem")).to_be_visible()
    page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    expect(page.locator("#curve-derivatives svg")).to_have_count(2)


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong, with the elements."""
    # By the debugger, not as a script of the page, which the content policy would refuse.
    page.evaluate(AXE.read_text())
    found = page.evaluate("async () => (await axe.run()).violations")
    return [f"{v['id']}: {v['help']}: {[n['html'][:160] for n in v['nodes']]}" for v in found]


def overflow(page: Page) -> list[Any]:
    """Elements that make the page scroll sideways."""
    return page.evaluate(
        """() => {
          const width = document.documentElement.clientWidth;
          if (document.documentElement.scrollWidth <= width) return [];
          return [...document.querySelectorAll("body *")]
            .filter((e) => e.getBoundingClientRect().right > width + 0.5)
            .map((e) => e.outerHTML.slice(0, 120));
        }"""
    )


@pytest.mark.parametrize(("scheme", "width"), [("light", 1180), ("dark", PHONE)])
def test_everybody_can_use_it_at_any_width(
    visitor: Visitor, server: ServerProcess, scheme: str, width: int
) -> None:
    with visitor(server, width=width, color_scheme=scheme) as visit:
        page = visit.open()
        use_everything(page)
        assert overflow(page) == []
        assert violations(page) == []
        visit.expect_refusals()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", REPORTS)
def test_reports_can_be_read_on_a_phone(
    visitor: Visitor, server: ServerProcess, path: str, scheme: str
) -> None:
    with visitor(server, width=PHONE, color_scheme=scheme) as visit:
        page = visit.open(path)
        assert overflow(page) == []
        assert violations(page) == []


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_documentation_needs_no_other_host(visit: Visit, path: str) -> None:
    page = visit.open(path)
    expect(page.get_by_text("/w10-gradient").first).to_be_visible()


def test_the_policy_forbids_everything_inline(visit: Visit) -> None:
    _, html = visit.server.request("GET", "/")
    text = html.decode()
    assert "style=" not in text
    assert "<style" not in text
    assert "onclick" not in text
    assert text.count("<script") == text.count('<script type="module" src="static/')
    answer = visit.page.goto(visit.address + "/")
    assert answer
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


def test_keys_alone_reach_every_control(visit: Visit) -> None:
    page = visit.open()
    wanted = page.evaluate(
        """() => [...document.querySelectorAll(
            "a, button, input, select, textarea, summary, [tabindex='0']")]
          .filter((e) => e.checkVisibility() && !e.disabled && e.type !== "radio").length"""
    )
    reached = set()
    for _ in range(wanted + 20):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                """() => {
                  const e = document.activeElement;
                  return e === document.body || e.type === "radio"
                    ? null : [...document.querySelectorAll("*")].indexOf(e);
                }"""
            )
        )
    assert len(reached - {None}) == wanted


def run_copied(page: Page, panel: str, language: str, folder: Path) -> str:
    """Press the copy button, run what it copied in ``folder``; what that printed."""
    button = {"curl": "Copy as curl", "python": "Copy as Python (httpx)"}[language]
    page.locator(f"#{panel}-request").get_by_role("button", name=button).click()
    expect(page.locator(f"#{panel}-request [role=status]")).to_have_text("Copied.")
    text = page.evaluate("navigator.clipboard.readText()")
    if language == "curl" and not shutil.which("curl"):
        pytest.skip("curl is missing")
    command = ["bash", "-ec", text] if language == "curl" else [sys.executable, "-c", text]
    done = subprocess.run(
        command, check=False, cwd=folder, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_was_asked_is_copied_as_curl(visit: Visit, tmp_path: Path) -> None:
    page = visit.open()
    printed = run_copied(page, "curve", "curl", tmp_path)
    asked = {"x": 3, "order": 1, "uncertainty": True}
    answers = [visit.server.post("/gradient", asked)[1]]
    answers.append(visit.server.post("/predict", {"x": 3, "uncertainty": True})[1])
    assert printed == "".join(
        json.dumps(a, separators=(",", ":"), ensure_ascii=False) for a in answers
    )
    answer = json.loads(run_copied(page, "w10", "curl", tmp_path))
    assert answer == visit.server.post("/w10-gradient", EXAMPLE)[1]
    page.get_by_role("button", name="truck").click()
    expect(page.locator("#image-networks article")).to_have_count(3)
    ship = STATIC / "playground" / "examples" / "truck.png"
    (tmp_path / "truck.png").write_bytes(ship.read_bytes())
    printed = run_copied(page, "image", "curl", tmp_path)
    first = json.loads(printed[: printed.index("}]}") + 3])
    model = f"?model={first['model']}&top_k=5"
    assert first == visit.server.classify(ship.read_bytes(), model)[1]


def test_what_was_asked_is_copied_as_python(visit: Visit, tmp_path: Path) -> None:
    page = visit.open()
    printed = run_copied(page, "curve", "python", tmp_path)
    first, second = printed.splitlines()
    asked = {"x": 3, "order": 1, "uncertainty": True}
    assert first == str(visit.server.post("/gradient", asked)[1])
    assert second == str(visit.server.post("/predict", {"x": 3, "uncertainty": True})[1])
    printed = run_copied(page, "models", "python", tmp_path)
    assert printed.splitlines()[0] == str(visit.server.get("/models")[1])
    page.get_by_role("button", name="truck").click()
    expect(page.locator("#image-networks article")).to_have_count(3)
    truck = (STATIC / "playground" / "examples" / "truck.png").read_bytes()
    (tmp_path / "truck.png").write_bytes(truck)
    printed = run_copied(page, "image", "python", tmp_path)
    query = "?model=cifar-baseline&top_k=5"
    assert printed.splitlines()[0] == str(visit.server.classify(truck, query)[1])


def test_without_models_it_says_so(visitor: Visitor, tmp_path: Path) -> None:
    (tmp_path / "artifacts").mkdir()
    with ServerProcess(tmp_path / "artifacts") as empty, visitor(empty.wait_listening()) as visit:
        page = visit.open()
        expect(page.locator("#curve-problem")).to_have_text("No curve model is serving here.")
        expect(page.locator("#image-problem")).to_have_text("No image classifier is serving here.")
        expect(page.locator("#w10-problem")).to_contain_text("No model called sigmoid-conv")
        visit.expect_refusals()  # of the models panel, which asks how to make those of the homework


def test_with_other_models_only_it_asks_for_none_that_it_lacks(
    visitor: Visitor, tmp_path: Path
) -> None:
    publish_function(tmp_path / "artifacts")
    with ServerProcess(tmp_path / "artifacts") as other, visitor(other.wait_ready()) as visit:
        asked = []
        visit.page.on("request", lambda request: asked.append(urlsplit(request.url).path))
        page = visit.open()
        for panel in ("curve", "image", "w10"):
            expect(page.locator(f"#{panel}-problem")).to_contain_text("quadratic (function)")
        expect(page.locator("[data-output='y']")).to_be_visible()
        assert not {"/w10-gradient", "/predict", "/gradient", "/classify"} & set(asked)
