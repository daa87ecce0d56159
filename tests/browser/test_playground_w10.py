"""The w10 panel: edited, differentiated, descended; what it shows against the API."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from service.api.w10 import EXAMPLE
from tests.browser.conftest import Visit, shown


def figure(page: Page, name: str) -> str:
    return page.locator(f"#w10-figures [data-figure='{name}']").text_content() or ""


def cell(page: Page, path: str) -> Any:
    return page.locator(f"[data-path='{path}']")


def check(page: Page, answer: dict[str, Any]) -> None:
    """The page shows the API's numbers: figures, every gradient, the derivation's results."""
    assert shown(figure(page, "prediction")) == pytest.approx(answer["prediction"], rel=1e-5)
    assert shown(figure(page, "loss")) == pytest.approx(answer["loss"], rel=1e-5)
    assert shown(figure(page, "gradient")) == pytest.approx(answer["w10"]["gradient"], rel=1e-5)
    assert answer["w10"]["parameter"] in figure(page, "parameter")
    gradients = answer["gradients"]
    expected = {f"weights/{i}": value for i, value in enumerate(gradients["weights"])}
    for grid in ("kernel", "input"):
        for i, row in enumerate(gradients[grid]):
            expected |= {f"{grid}/{i}/{j}": value for j, value in enumerate(row)}
    heat = page.locator("#w10-maps td").evaluate_all(
        "cells => cells.map(c => [c.dataset.gradient, c.lastChild.textContent, c.className])"
    )
    assert {path for path, _, _ in heat} == set(expected)
    for path, text, colour in heat:
        assert shown(text) == pytest.approx(expected[path], rel=6e-3)
        assert ("negative" in colour) == (expected[path] < 0)
    lines = page.locator("#w10-derivation .formula p").all_text_contents()
    parts = re.split("[=≈]", lines[-1])
    result = shown(parts[-1])
    assert result == pytest.approx(answer["w10"]["gradient"], rel=1e-3)
    found = {line.partition(" ")[0]: shown(re.split("[=≈]", line)[-1]) for line in lines}
    for n, (i, j) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        steps = answer["steps"]
        assert found[f"z{i}{j}"] == pytest.approx(steps["preactivation"][i][j], rel=1e-3), n
        assert found[f"a{i}{j}"] == pytest.approx(steps["activation"][i][j], rel=1e-3), n
    # The arithmetic of the last line, done anew from the numbers it shows.
    names_gone = parts[-2]
    terms = [re.findall(r"−?[\d.]+(?:e[−-]?\d+)?", part) for part in names_gone.split(" + ")]
    total = sum(shown(pair[0]) * shown(pair[1]) for pair in terms)
    assert total == pytest.approx(result, rel=2e-3, abs=2e-3)


def test_shows_the_answer_to_the_example(visit: Visit) -> None:
    page = visit.open()
    check(page, visit.server.post("/w10-gradient", EXAMPLE)[1])
    marked = page.locator("#w10-form .cell.marked [data-path]")
    expect(marked).to_have_attribute("data-path", "kernel/1/0")
    expect(page.locator("#w10-maps td.marked")).to_have_attribute("data-gradient", "kernel/1/0")


def test_w10_under_the_other_reading(visit: Visit) -> None:
    page = visit.open()
    page.get_by_label("the tenth weight, v0").check()
    expect(page.locator("#w10-maps td.marked")).to_have_attribute("data-gradient", "weights/0")
    marked = page.locator("#w10-form .cell.marked")
    expect(marked).to_have_text(re.compile("w10"))
    expect(marked.locator("input")).to_have_attribute("data-path", "weights/0")
    check(page, visit.server.post("/w10-gradient", {**EXAMPLE, "naming": "sequential"})[1])


def test_editing_changes_everything(visit: Visit) -> None:
    page = visit.open()
    cell(page, "input/1/0").fill("-2.5")
    cell(page, "label").fill("0.25")
    query = {**EXAMPLE, "label": 0.25, "input": [row[:] for row in EXAMPLE["input"]]}
    query["input"][1][0] = -2.5
    answer = visit.server.post("/w10-gradient", query)[1]
    expect(page.locator("#w10-figures [data-figure=loss]")).to_have_text(f"{answer['loss']:.6g}")
    check(page, answer)


def test_a_step_of_gradient_descent(visit: Visit) -> None:
    page = visit.open()
    start = visit.server.post("/w10-gradient", EXAMPLE)[1]
    page.get_by_label("Learning rate").fill("0.2")
    page.get_by_role("button", name="Take one gradient-descent step").click()
    descent = page.locator("#w10-figures [data-figure=descent]")
    expect(descent).to_contain_text("step 1")
    stepped = {
        **EXAMPLE,
        "kernel": [
            [w - 0.2 * g for w, g in zip(*rows, strict=True)]
            for rows in zip(EXAMPLE["kernel"], start["gradients"]["kernel"], strict=True)
        ],
        "weights": [
            w - 0.2 * g
            for w, g in zip(EXAMPLE["weights"], start["gradients"]["weights"], strict=True)
        ],
    }
    after = visit.server.post("/w10-gradient", stepped)[1]
    assert after["loss"] < start["loss"]
    check(page, after)
    assert float(cell(page, "kernel/1/0").input_value()) == pytest.approx(stepped["kernel"][1][0])
    page.get_by_role("button", name="Back to the start").click()
    expect(descent).to_have_text("no step taken yet")
    check(page, start)


def test_the_loss_falls_at_the_default_rate_and_a_rise_is_said(visit: Visit) -> None:
    page = visit.open()
    descent = page.locator("#w10-figures [data-figure=descent]")
    step = page.get_by_role("button", name="Take one gradient-descent step")
    losses = [shown(figure(page, "loss"))]
    for n in range(1, 9):
        step.click()
        expect(descent).to_contain_text(f"step {n}:")
        losses.append(shown(figure(page, "loss")))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 100
    expect(descent).not_to_contain_text("rose")
    page.get_by_role("button", name="Back to the start").click()
    expect(descent).to_have_text("no step taken yet")
    page.get_by_label("Learning rate").fill("0.5")
    step.click()
    expect(descent).to_contain_text("step 1:")
    expect(descent).to_contain_text("it rose: take a smaller learning rate")


def test_twenty_steps_and_the_plot_of_the_loss(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("#w10-losses")).to_be_hidden()
    page.get_by_role("button", name="20 steps").click()
    descent = page.locator("#w10-figures [data-figure=descent]")
    expect(descent).to_contain_text("step 20:")
    dots = page.locator("#w10-losses circle")
    expect(dots).to_have_count(21)
    heights = [float(y) for y in dots.evaluate_all("all => all.map(c => c.getAttribute('cy'))")]
    assert heights == sorted(heights)  # downwards on the screen
    assert shown(figure(page, "loss")) < 1e-10
    # So near the label the line still gives what it says, and doesn't read 2 · (1 − 1).
    line = page.locator(
        "#w10-derivation .formula p", has_text="∂loss/∂ŷ = 2 ·"
    ).first.text_content()
    found = re.fullmatch(r"∂loss/∂ŷ = 2 · \((.+) − (.+)\) ≈ (.+)", line or "")
    assert found is not None, line
    prediction, label, slope = (shown(part) for part in found.groups())
    assert 2 * (prediction - label) == pytest.approx(slope, rel=1e-3)
    page.get_by_role("button", name="Back to the start").click()
    expect(page.locator("#w10-losses")).to_be_hidden()


def test_the_slider_sets_a_rate_at_which_it_diverges(visit: Visit) -> None:
    page = visit.open()
    slider = page.locator("#w10-slider")
    slider.focus()
    slider.press("End")
    rate = float(page.locator("#w10-rate").input_value())
    assert rate == pytest.approx(10**0.5, rel=0.05)
    page.get_by_role("button", name="20 steps").click()
    descent = page.locator("#w10-figures [data-figure=descent]")
    expect(descent).to_contain_text("step 20:")
    dots = page.locator("#w10-losses circle")
    heights = [float(y) for y in dots.evaluate_all("all => all.map(c => c.getAttribute('cy'))")]
    assert heights[1] < heights[0]  # the loss rose
    page.locator("#w10-rate").fill("0.01")
    expect(slider).to_have_value("-2")


def test_where_numbers_grow_too_large_the_last_good_ones_stay(visit: Visit) -> None:
    page = visit.open()
    page.locator("#w10-rate").fill("1e60")
    page.get_by_role("button", name="20 steps").click()
    expect(page.locator("#w10-problem")).to_contain_text("It diverges")
    assert all(float(page.locator(f"[data-path='weights/{i}']").input_value()) for i in range(4))
    visit.expect_refusals()


def test_an_answer_of_ones_own_is_marked_as_the_api_does(visit: Visit) -> None:
    page = visit.open()
    right = visit.server.post("/w10-gradient", EXAMPLE)[1]
    page.get_by_text("Check my own answer").click()
    mine, check_it = (
        page.locator("[data-own=gradient]"),
        page.get_by_role("button", name="Check it"),
    )
    check_it.click()
    marks = page.locator("#w10-marks")
    expect(marks).to_have_text("Type a number first.")
    mine.fill(str(round(right["w10"]["gradient"], 4)).replace(".", ","))
    check_it.click()
    expect(marks.locator("p")).to_have_text("Right.")
    half = right["w10"]["gradient"] / 2
    mine.fill(str(half))
    expect(marks).to_be_empty()
    page.locator("[data-own='activation/0/1']").fill("0.07")
    check_it.click()
    marking = visit.server.post(
        "/w10-gradient",
        {**EXAMPLE, "answer": {"gradient": half, "activation": [[None, 0.07], [None, None]]}},
    )[1]["marking"]
    expect(marks.locator("p")).to_have_text(marking["message"])
    expect(marks).to_contain_text("the sigmoid was forgotten")
    assert [each["message"] in (marks.text_content() or "") for each in marking["steps"]] == [
        True
    ] * 2
    expect(page.locator("[data-own='activation/0/1']")).to_have_attribute("aria-invalid", "true")
    # Another network: what was marked is of the old one.
    cell(page, "label").fill("0.5")
    expect(marks).to_be_empty()
    mine.fill("half")
    check_it.click()
    expect(marks).to_contain_text("valid number")
    expect(mine).to_have_attribute("aria-invalid", "true")
    visit.expect_refusals()


def test_an_error_is_said_and_the_input_stays(visit: Visit) -> None:
    page = visit.open()
    cell(page, "kernel/2/1").fill("one")
    expect(page.locator("#w10-problem")).to_contain_text("kernel, 2, 1")
    expect(page.locator("#w10-problem")).to_contain_text("valid number")
    expect(cell(page, "kernel/2/1")).to_have_value("one")
    expect(cell(page, "kernel/2/1")).to_have_attribute("aria-invalid", "true")
    page.get_by_role("button", name="Take one gradient-descent step").click()
    expect(cell(page, "kernel/2/1")).to_have_value("one")
    visit.expect_refusals()
    cell(page, "kernel/2/1").fill("1")
    for rate in ("fast", "-1", "0", "1e999"):
        expect(page.locator("#w10-problem")).to_be_hidden()
        page.get_by_label("Learning rate").fill(rate)
        page.get_by_role("button", name="Take one gradient-descent step").click()
        expect(page.locator("#w10-problem")).to_contain_text("rate is no positive number")
        expect(page.get_by_label("Learning rate")).to_have_value(rate)
        expect(page.locator("[data-figure=descent]")).to_have_text("no step taken yet")
        cell(page, "kernel/2/2").fill("0.1")


def test_each_step_has_its_rule_as_a_formula(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("#w10-derivation li")).to_have_count(8)
    expect(page.locator("#w10-derivation li math")).to_have_count(8)
    last = page.locator("#w10-derivation li").last.locator("math")
    assert last.evaluate("math => [...math.querySelectorAll('msub')].map(e => e.textContent)") == [
        "k10", "∑i,j", "zij", "xi+1,j",
    ]  # fmt: skip
    page.get_by_label("the tenth weight, v0").check()
    expect(page.locator("#w10-derivation li math")).to_have_count(6)
