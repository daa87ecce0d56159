"""The function panel over functions known by heart: values, tangent, Jacobian, copied commands."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, Visit, Visitor, shown
from tests.server_process import ServerProcess
from tests.tiny_artifacts import publish_all, publish_function, publish_mixed, publish_scalar

expect.set_options(timeout=15_000)


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    root = tmp_path_factory.mktemp("functions") / "artifacts"
    publish_all(root)
    for publish in (publish_function, publish_scalar, publish_mixed):
        publish(root)
    with ServerProcess(root) as process:
        yield process.wait_ready()


def jacobian(page: Page) -> dict[str, float]:
    cells = page.locator("#function-jacobian [data-jacobian]").evaluate_all(
        "cells => cells.map(c => [c.dataset.jacobian, c.textContent])"
    )
    return {place: shown(text) for place, text in cells}


def choose(visit: Visit, model: str, **inputs: str) -> Page:
    page = visit.open()
    page.select_option("#function-model", model)
    for name, text in inputs.items():
        page.fill(f"#function-inputs [data-input='{name}']", text)
    return page


def test_values_tangent_and_jacobian(functions: ServerProcess, visitor: Visitor) -> None:
    with visitor(functions, width=PHONE) as visit:
        page = choose(visit, "quadratic", x="1, 2, 3")
        expect(page.locator("[data-output='y']")).to_have_text("3, 28")
        expected = {"0/0": 4, "0/1": 1, "0/2": 0, "1/0": 0, "1/1": 7, "1/2": 14}
        assert jacobian(page) == expected
        page.select_option("#function-along", "0/2")
        page.select_option("#function-output", "0/1")
        expect(page.locator("#function-plot .slope")).to_have_text("slope 14")
        page.fill("[data-input='x']", "1 2 −3")
        expect(page.locator("#function-plot .slope")).to_have_text("slope −10")
        page.fill("[data-input='x']", "1, two, 3")
        expect(page.locator("#function-problem")).to_contain_text("3 for x")
        page.fill("[data-input='x']", "1, 2, 3")
        expect(page.locator("#function-problem")).to_be_hidden()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE


def test_other_kinds_of_models(functions: ServerProcess, visitor: Visitor) -> None:
    with visitor(functions) as visit:
        # No Jacobian among its functions: vjp with a cotangent for each element of the output.
        page = choose(visit, "mixed", x="1, 2", m="3", theta="5, 6")
        expect(page.locator("[data-output='y']")).to_have_text("51")
        expect(page.locator("[data-output='inverse']")).to_have_text("1, 0.5")
        assert jacobian(page) == {"0/0": 15, "0/1": 18}
        page.select_option("#function-output", "1/1")
        expect(page.locator("#function-jacobian [data-jacobian='1/1']")).to_have_text("−0.25")
        page.fill("[data-input='x']", "1, 0")
        expect(page.locator("#function-problem")).to_contain_text("not a finite number")
        page = choose(visit, "curve-mlp", x="2")
        expect(page.locator("#function-jacobian [data-jacobian='0/0']")).to_have_text("10")
        visit.expect_refusals()  # at the end, when the browser has noted all of them


def test_a_slice_along_an_input_without_rows(functions: ServerProcess, visitor: Visitor) -> None:
    with visitor(functions) as visit:
        page = choose(visit, "mixed", x="1, 2", m="3", theta="5, 6")
        page.select_option("#function-along", "2/1")
        expect(page.locator("#function-plot .slope")).to_have_text("slope 6")
        assert jacobian(page) == {"0/0": 3, "0/1": 6}
        # y is linear in theta: all of the slice is on the tangent.
        tangent = page.locator("#function-plot .tangent")
        ends = [float(tangent.get_attribute(name) or "nan") for name in ("x1", "y1", "x2", "y2")]
        path = page.locator("#function-plot .fit-0").first.get_attribute("d") or ""
        numbers = [float(number) for number in re.findall(r"-?[0-9.]+", path)]
        assert numbers[:2] == pytest.approx(ends[:2], abs=0.2)
        assert numbers[-2:] == pytest.approx(ends[2:], abs=0.2)


@pytest.mark.parametrize("button", ["Copy as curl", "Copy as Python (httpx)", "Copy as UM-Bridge"])
def test_what_is_copied_runs(
    functions: ServerProcess, visitor: Visitor, tmp_path: Path, button: str
) -> None:
    with visitor(functions) as visit:
        page = choose(visit, "quadratic", x="1, 2, 3")
        expect(page.locator("[data-output='y']")).to_have_text("3, 28")
        page.locator("#function-request").get_by_role("button", name=button).click()
        expect(page.locator("#function-request [role=status]")).to_have_text("Copied.")
        text = page.evaluate("navigator.clipboard.readText()")
    if "UM-Bridge" in button:
        # Its client has an environment of its own; as much of it as the program uses stands in.
        (tmp_path / "umbridge.py").write_text(
            "import httpx\n"
            "class HTTPModel:\n"
            "    def __init__(self, url, name): self.url, self.name = url, name\n"
            "    def ask(self, path, **given):\n"
            "        given = {'name': self.name, **given}\n"
            "        return httpx.post(f'{self.url}/{path}', json=given).json()['output']\n"
            "    def __call__(self, at): return self.ask('Evaluate', input=at)\n"
            "    def gradient(self, y, x, at, sens):\n"
            "        return self.ask('Gradient', input=at, outWrt=y, inWrt=x, sens=sens)\n"
        )
    command = ["sh", "-c", text] if "curl" in button else [sys.executable, "-c", text]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = done.stdout.replace(" ", "").replace(".0", "")
    assert "[[3,28]]" in found and "4,1,0" in found
