"""The models panel, and the report pages it leads to."""

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import MODELS, PHONE, Visit, Visitor
from tests.server_process import ServerProcess


def test_every_model_with_its_parameters(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("#models-list article")).to_have_count(len(MODELS))
    for model in MODELS:
        _, details = visit.server.get(f"/models/{model}")
        _, summary = visit.server.get(f"/models/{model}/summary")
        card = page.locator(f"#models-list [data-model='{model}']")
        expect(card.locator("h3")).to_contain_text(f"version {details['version']}")
        for version in details["versions"]:
            expect(card).to_contain_text(f"ersion {version['version']} is {version['state']}")
        card.get_by_text("parameters,").click()
        rows = card.locator("tbody tr")
        expect(rows).to_have_count(len(summary["layers"]))
        written = [row.split("\t") for row in rows.all_inner_texts()]
        for cells, layer in zip(written, summary["layers"], strict=True):
            assert cells[0] == layer["name"]
            assert cells[4] == layer["formula"]
            assert int(cells[5].replace(",", "")) == layer["count"]
            assert int(cells[6].replace(",", "")) == layer["multiply_adds"]
        expect(card.locator("tfoot")).to_contain_text(f"{summary['total']:,}")


def test_accuracy_stands_beside_chance(visit: Visit) -> None:
    page = visit.open()
    for model in ("cifar-baseline", "cifar-fast", "cifar-improved"):
        _, details = visit.server.get(f"/models/{model}")
        figures = page.locator(f"#models-list [data-model='{model}'] .figures > div")
        texts = dict(
            zip(
                figures.locator("dt").all_text_contents(),
                figures.locator("dd").all_text_contents(),
                strict=True,
            )
        )
        top1, top5 = details["metrics"]["top1"]["test"], details["metrics"]["top5"]["test"]
        assert texts["top-1, test images (chance: 10 %)"] == f"{top1 * 100:.2f} %"
        assert texts["top-5, test images (chance: 50 %)"] == f"{top5 * 100:.2f} %"
        for split in ("train", "validation"):
            expected = f"{details['metrics']['top1'][split] * 100:.2f} %"
            assert texts[f"top-1, {split} images (chance: 10 %)"] == expected
            loss = details["metrics"]["loss"][split]
            assert float(texts[f"loss, {split} images"]) == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("width", [PHONE, 768, 1280, 1920])
def test_no_column_of_a_table_is_hidden(
    visitor: Visitor, server: ServerProcess, width: int
) -> None:
    with visitor(server, width=width) as visit:
        for path in ("/", "/homework", *(f"/models/{model}/report" for model in MODELS)):
            page = visit.open(path)
            assert page.locator("table").count() > 0
            page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            hidden = page.evaluate(
                """() => [...document.querySelectorAll("table, .scroll")]
                  .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1)
                  .map((e) => e.textContent.slice(0, 80))"""
            )
            assert hidden == [], path


@pytest.mark.parametrize("model", ["curve-poly", "cifar-improved"])
def test_a_link_leads_to_the_report(visit: Visit, model: str) -> None:
    page = visit.open()
    page.get_by_role("link", name=f"Report of {model}").click()
    expect(page.locator("main h1").first).to_be_visible()
    plots = page.locator("main img")
    assert plots.count() > 0
    loaded = plots.evaluate_all("images => images.map(i => i.complete && i.naturalWidth)")
    assert all(loaded)
