"""The curve panel, used with mouse and keyboard; what it shows against the API."""

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.conftest import Visit, Visitor, shown
from tests.server_process import ServerProcess


def figure(page: Page, name: str) -> Locator:
    return page.locator(f"#curve-figures [data-figure='{name}']")


def check(visit: Visit, x: float, model: str = "curve-mlp") -> None:
    """The page shows at ``x`` what the API answers."""
    _, answer = visit.server.post("/gradient", {"x": x, "model": model})
    handle = visit.page.locator("#curve-plot [role=slider]")
    expect(handle).to_have_attribute("aria-valuenow", str(x).removesuffix(".0"))
    value, slope = answer["y"][0], answer["gradient"][0]
    assert shown(figure(visit.page, "value").text_content()) == pytest.approx(value, rel=1e-5)
    assert shown(figure(visit.page, "1").text_content()) == pytest.approx(slope, rel=1e-5)
    label = visit.page.locator("#curve-plot .slope").text_content() or ""
    assert shown(label.removeprefix("slope ")) == pytest.approx(slope, rel=1e-3)


def test_shows_the_data_every_fit_and_the_equation(visit: Visit) -> None:
    page = visit.open()
    _, poly = visit.server.get("/models/curve-poly")
    points = page.locator("#curve-plot circle.data")
    expect(points).to_have_count(len(poly["metrics"]["points"]))
    curves = [m for m in visit.server.get("/models")[1]["models"] if m["kind"] == "curve"]
    assert len(curves) >= 3
    expect(page.locator("#curve-plot path.fit.solid")).to_have_count(len(curves))
    expect(page.locator("#curve-plot path.fit.dashed")).to_have_count(len(curves))
    expect(page.locator("#curve-plot .domain")).to_have_count(1)
    page.get_by_text("Coefficients in full").click()
    cells = page.locator("#curve-equation td").all_text_contents()
    assert [float(cell) for cell in cells] == poly["coefficients"]
    # The points lie where the axes say: two of them fix the scale, a third one checks it.
    ((x0, _), (x1, _), (x2, _)) = (poly["metrics"]["points"][i] for i in (0, 10, 19))
    p0, p1, p2 = (float(points.nth(i).get_attribute("cx") or "nan") for i in (0, 10, 19))
    assert (p1 - p0) / (p2 - p0) == pytest.approx((x1 - x0) / (x2 - x0), rel=1e-6)


def test_arrow_keys_move_the_point(visit: Visit) -> None:
    visit.open()
    check(visit, 3)
    handle = visit.page.locator("#curve-plot [role=slider]")
    handle.focus()
    handle.press("ArrowRight")
    check(visit, 3.05)
    handle.press("PageDown")
    check(visit, 2.55)
    handle.press("Home")
    check(visit, -1)


def test_the_point_is_dragged(visit: Visit) -> None:
    visit.open()
    check(visit, 3)
    point = visit.page.locator("#curve-plot [role=slider]")
    box, handle = visit.page.locator("#curve-plot svg").bounding_box(), point.bounding_box()
    assert box
    assert handle
    y = handle["y"] + handle["height"] / 2
    visit.page.mouse.move(handle["x"] + handle["width"] / 2, y)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + box["width"] * 0.4, y, steps=8)
    visit.page.mouse.up()
    x = visit.page.locator("#curve-x")
    expect(x).not_to_have_value("3")
    check(visit, float(x.input_value()))
    middle = point.get_attribute("cx")
    assert float(middle or "nan") == pytest.approx(box["width"] * 0.4, abs=1)


def test_the_tangent_has_the_slope_on_the_screen(visit: Visit) -> None:
    page = visit.open()
    page.locator("#curve-model").select_option("curve-poly")
    page.locator("#curve-x").fill("0.5")
    check(visit, 0.5, "curve-poly")
    ends = page.locator("#curve-plot .tangent").evaluate(
        "line => ['x1', 'x2', 'y1', 'y2'].map(name => Number(line.getAttribute(name)))"
    )
    # One unit of x and of y in pixels, from the distance of two data points.
    _, poly = visit.server.get("/models/curve-poly")
    (xa, ya), (xb, yb) = poly["metrics"]["points"][0], poly["metrics"]["points"][8]
    dots = page.locator("#curve-plot circle.data")
    a, b = (dots.nth(i).evaluate("c => [c.cx.baseVal.value, c.cy.baseVal.value]") for i in (0, 8))
    across, up = (b[0] - a[0]) / (xb - xa), (a[1] - b[1]) / (yb - ya)
    slope = (ends[2] - ends[3]) / up / ((ends[1] - ends[0]) / across)
    _, answer = visit.server.post("/gradient", {"x": 0.5, "model": "curve-poly"})
    assert slope == pytest.approx(answer["gradient"][0], rel=1e-4)


def test_higher_derivatives_on_demand(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("#curve-derivatives")).to_be_hidden()
    page.get_by_label("f′", exact=True).check()
    page.get_by_label("f″", exact=True).check()
    expect(page.locator("#curve-derivatives svg")).to_have_count(2)
    _, answer = visit.server.post("/gradient", {"x": 3.0, "order": 2})
    expect(figure(page, "2")).to_be_visible()
    assert shown(figure(page, "2").text_content()) == pytest.approx(answer["gradient"][0], rel=1e-5)
    page.get_by_label("f″", exact=True).uncheck()
    expect(page.locator("#curve-derivatives svg")).to_have_count(1)
    expect(figure(page, "2")).to_be_hidden()


def test_extrapolation_is_said(visit: Visit) -> None:
    page = visit.open()
    expect(figure(page, "where")).to_contain_text("inside the data")
    page.locator("#curve-x").fill("4.5")
    expect(figure(page, "where")).to_contain_text("extrapolated")
    check(visit, 4.5)
    expect(figure(page, "interval-1")).to_have_text("no interval: too far outside the data")
    page.locator("#curve-x").fill("4.2")
    expect(figure(page, "interval-1")).to_contain_text("95 %: ")


def test_the_band_is_the_services(visit: Visit) -> None:
    page = visit.open()
    page.get_by_label("f′", exact=True).check()
    page.locator("#curve-model").select_option("curve-gp")
    page.locator("#curve-x").fill("0.5")
    check(visit, 0.5, "curve-gp")
    expect(page.locator("#curve-legend .key-band")).to_have_text("95 % band of curve-gp")
    for order, place, path in (
        (0, "#curve-plot", "/predict"),
        (1, "#curve-derivatives", "/gradient"),
    ):
        answer = visit.server.post(path, {"x": 0.5, "model": "curve-gp", "uncertainty": True})[1]
        low, high = answer["interval"][0]
        words = figure(page, f"interval-{order}").text_content() or ""
        found = [shown(part) for part in words.removeprefix("95 %: ").split(" to ")]
        assert found == pytest.approx([low, high], rel=1e-3)
        # On the screen: the band's height at x, in units of the distance of two lines of the axis.
        expect(page.locator(f"{place} path.band")).to_have_count(1)
        heights = page.locator(f"{place} svg").evaluate(
            """svg => {
              const band = svg.querySelector("path.band");
              const cx = Number(svg.querySelector("circle.handle").getAttribute("cx"));
              const ys = [...band.getAttribute("d").matchAll(/([-\\d.]+) ([-\\d.]+)/g)]
                .map((m) => [Number(m[1]), Number(m[2])]);
              const half = ys.length / 2;
              const away = (point) => Math.abs(point[0] - cx);
              const at = (part) => part.reduce((a, b) => away(a) < away(b) ? a : b)[1];
              const ticks = [...svg.querySelectorAll(".axes text[text-anchor=end]")]
                .map((t) => [t.textContent.replace("−", "-"), t.getAttribute("y") - 4])
                .map(([text, y]) => [Number(text), y]);
              return [at(ys.slice(0, half)), at(ys.slice(half)), ticks[0], ticks[1]];
            }"""
        )
        bottom, top, (first, y_first), (second, y_second) = heights
        scale = (second - first) / (y_first - y_second)
        drawn = [first + (y_first - y) * scale for y in (bottom, top)]
        assert drawn == pytest.approx([low, high], abs=0.06 * (high - low) + 0.03)


def test_a_comma_is_a_decimal_mark_and_nothing_is_said_to_be_missing(visit: Visit) -> None:
    page = visit.open()
    page.locator("#curve-x").fill("0,5")
    check(visit, 0.5)
    page.locator("#curve-x").fill("1,000")
    expect(page.locator("#curve-problem")).to_contain_text("0.5 with a point")
    page.locator("#curve-x").fill("")
    expect(page.locator("#curve-problem")).to_contain_text("There is no x")
    expect(page.locator("#curve-x")).to_have_attribute("aria-invalid", "true")


def test_a_point_outside_the_plot_is_not_drawn_in_it(visit: Visit) -> None:
    page = visit.open()
    handle = page.locator("#curve-plot [role=slider]")
    for x, words in (("100", "right of this plot"), ("-100", "left of this plot")):
        page.locator("#curve-x").fill(x)
        expect(page.locator("#curve-plot text.slope")).to_contain_text(words)
        expect(handle).to_have_css("opacity", "0")
    page.locator("#curve-x").fill("2")
    check(visit, 2)
    expect(handle).to_have_css("opacity", "1")


def test_on_a_phone_the_slope_hides_no_curve(visitor: Visitor, server: ServerProcess) -> None:
    with visitor(server, width=375) as visit:
        visit.open()
        check(visit, 3)
        label = visit.page.locator("#curve-plot .slope").bounding_box()
        clip = visit.page.locator("#curve-plot .domain").bounding_box()
        assert label
        assert clip
        assert label["y"] + label["height"] <= clip["y"] + 2


def test_an_error_is_said_and_the_input_stays(visit: Visit) -> None:
    page = visit.open()
    page.locator("#curve-x").fill("three")
    expect(page.locator("#curve-problem")).to_have_text("x is not a number: write it as 0.5.")
    expect(page.locator("#curve-x")).to_have_value("three")
    expect(page.locator("#curve-x")).to_have_attribute("aria-invalid", "true")
    page.route("**/gradient", lambda route: route.abort())
    page.locator("#curve-x").fill("2")
    expect(page.locator("#curve-problem")).to_contain_text("did not answer")
    expect(page.locator("#curve-x")).to_have_value("2")
    visit.expect_refusals()
    page.unroute("**/gradient")
    page.locator("#curve-x").fill("1")
    expect(page.locator("#curve-problem")).to_be_hidden()
    check(visit, 1)
