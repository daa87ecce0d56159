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
        rows = card.locator(".scroll tbody tr")
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
        metrics = visit.server.get(f"/models/{model}")[1]["metrics"]
        table = page.locator(f"#models-list [data-model='{model}'] .scores")
        head, *rows = [row.split("\t") for row in table.locator("tr").all_inner_texts()]
        assert head == ["images", "top-1 (chance 10 %)", "top-5 (chance 50 %)", "loss"]
        assert [row[0] for row in rows] == ["test", "validation", "train"]
        for split, top1, top5, loss in rows:
            assert top1 == f"{metrics['top1'][split] * 100:.2f} %"
            assert top5 == f"{metrics['top5'][split] * 100:.2f} %"
            assert float(loss) == pytest.approx(metrics["loss"][split], abs=1e-4)


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
