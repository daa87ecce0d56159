"""The image panel: chosen, dropped, pasted, photographed; what it shows against the API."""

import base64
import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from contract import pictures as imaging
from service.web.templating import STATIC
from tests.browser.conftest import Visit, Visitor
from tests.server_process import ROOT, ServerProcess
from tests.tiny_artifacts import png, publish_all, publish_classifier

EXAMPLES = STATIC / "playground" / "examples"
PHOTO = ROOT / "examples" / "cat.jpg"
NETWORKS = ("cifar-baseline", "cifar-fast", "cifar-improved")

# Gives the page a file as a drop or a paste would.
HAND_OVER = """
async ([kind, encoded, type]) => {
  const bytes = Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "given.png", { type }));
  const place = document.getElementById("image-drop");
  const event = kind === "drop"
    ? new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })
    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
  place.dispatchEvent(event);
}
"""


def post(visit: Visit, path: str, image: bytes) -> dict[str, Any]:
    status, answer = visit.server.request("POST", path, image, {"Content-Type": "image/png"})
    assert status == 200, answer
    return json.loads(answer)


def check(visit: Visit, image: bytes, label: str | None = None) -> None:
    """The networks' bars and maps are those that the API gives for ``image``."""
    for model in NETWORKS:
        wanted = f"&label={label}" if label else ""
        answer = post(visit, f"/explain?model={model}&top_k=5{wanted}", image)
        place = visit.page.locator(f"#image-networks [data-model='{model}']")
        expect(place.locator(".map")).to_have_attribute("src", answer["saliency"]["png"])
        expect(place.locator("figcaption")).to_contain_text(answer["saliency"]["label"])
        sure = f"probability is {answer['saliency']['probability'] * 100:.1f} %"
        expect(place.locator("figcaption")).to_contain_text(sure)
        expect(place.locator(".map-scale")).to_be_visible()
        assert place.locator(".label").all_text_contents() == [t["label"] for t in answer["top"]]
        percents = [float(t.rstrip(" %")) for t in place.locator(".percent").all_text_contents()]
        probabilities = [t["probability"] * 100 for t in answer["top"]]
        assert percents == pytest.approx(probabilities, abs=0.051)
        widths = place.locator(".bar span").evaluate_all(
            "bars => bars.map(b => b.getBoundingClientRect().width / b.parentNode.clientWidth)"
        )
        assert [width * 100 for width in widths] == pytest.approx(probabilities, abs=1)
        expect(place.locator(".time")).to_contain_text("ms")


def seen(page: Page) -> np.ndarray:
    """The pixels that the page shows as what the networks see, [32, 32, 3]."""
    source = page.locator("#image-seen").get_attribute("src")
    assert source is not None
    assert page.locator("#image-seen").evaluate("image => image.decode().then(() => true)")
    encoded = source.removeprefix("data:image/png;base64,")
    return np.asarray(Image.open(BytesIO(base64.b64decode(encoded))))


def test_an_example_is_named_by_both_networks(visit: Visit) -> None:
    page = visit.open()
    expect(page.locator("[data-example]")).to_have_count(len(list(EXAMPLES.glob("*.png"))))
    page.get_by_role("button", name="ship").click()
    image = (EXAMPLES / "ship.png").read_bytes()
    check(visit, image)
    expect(page.locator("#image-facts")).to_contain_text("PNG of 256×256")
    # Any class can be explained.
    page.get_by_label("Explain the class").select_option("truck")
    check(visit, image, "truck")
    page.get_by_role("button", name="airplane").click()
    check(visit, (EXAMPLES / "airplane.png").read_bytes())
    expect(page.get_by_label("Explain the class")).to_have_value("")


def test_shows_what_the_networks_see(visit: Visit) -> None:
    page = visit.open()
    wide = Image.new("RGBA", (300, 200), (0, 0, 0, 0))  # its corners are cut off; clear is white
    wide.paste(Image.open(EXAMPLES / "cat.png").resize((150, 150)), (60, 20))
    stream = BytesIO()
    wide.save(stream, "PNG")
    for name, image in (("wide", stream.getvalue()), ("cat", (EXAMPLES / "cat.png").read_bytes())):
        page.locator("#image-file").set_input_files(
            {"name": f"{name}.png", "mimeType": "image/png", "buffer": image}
        )
        expect(page.locator("#image-facts")).to_contain_text(f"{name}.png")
        expected = imaging.decode(imaging.open_image(image, 10**6, 10**4), 32).pixels
        np.testing.assert_array_equal(seen(page), expected)


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_of_ones_own(visit: Visit, way: str) -> None:
    page = visit.open()
    if way == "choose":
        page.get_by_label("Choose a picture").set_input_files(PHOTO)
    else:
        page.evaluate(HAND_OVER, [way, base64.b64encode(PHOTO.read_bytes()).decode(), "image/jpeg"])
    expect(page.locator("#image-result")).to_be_visible()
    expect(page.locator("#image-name")).to_have_text("cat.jpg" if way == "choose" else "given.png")
    check(visit, PHOTO.read_bytes())
    expect(page.locator("#image-facts")).to_contain_text("JPEG of 451×300")


def test_a_picture_from_the_camera(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("button", name="Use the camera").click()
    video = page.locator("#image-shot video")
    video.evaluate("video => new Promise((done) => video.requestVideoFrameCallback(done))")
    page.get_by_role("button", name="Take the picture").click()
    expect(page.locator("#image-facts")).to_contain_text("camera.jpg")
    expect(page.locator("#image-shot")).to_be_hidden()
    # What was taken can be saved, and it is what the API was asked about.
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the file").click()
    check(visit, download.value.path().read_bytes())


def test_an_error_is_said_and_the_picture_stays(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("button", name="frog").click()
    expect(page.locator("#image-networks article")).to_have_count(len(NETWORKS))
    page.locator("#image-file").set_input_files(
        {"name": "notes.png", "mimeType": "image/png", "buffer": b"no picture"}
    )
    expect(page.locator("#image-problem")).to_contain_text("not an image")
    # The old result is of another picture.
    expect(page.locator("#image-result")).to_be_hidden()
    expect(page.locator("#image-networks article")).to_have_count(0)
    # A refusal that passes: the picture need not be chosen again.
    page.route("**/classify*", lambda route: route.abort())
    page.get_by_role("button", name="horse").click()
    expect(page.locator("#image-problem")).to_contain_text("did not answer")
    expect(page.locator("#image-name")).to_have_text("horse.png")
    page.unroute("**/classify*")
    visit.expect_refusals()
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator("#image-problem")).to_be_hidden()
    check(visit, (EXAMPLES / "horse.png").read_bytes())


def test_how_familiar_a_picture_is_where_the_model_tells(visitor: Visitor, tmp_path: Path) -> None:
    root = tmp_path / "artifacts"
    publish_all(root)
    publish_classifier(root, "telling", familiar=True)
    with ServerProcess(root) as process, visitor(process.wait_ready()) as visit:
        page = visit.open()
        said = page.locator("#image-networks [data-model='telling'] .familiar")
        # Its red over 255 is how familiar a picture is.
        for red, text in ((51, "than 80 % of the pictures"), (5, "98 %"), (5, "of none of its")):
            page.locator("#image-file").set_input_files(
                {"name": f"{red}.png", "mimeType": "image/png", "buffer": png((red, 60, 60))}
            )
            expect(page.locator("#image-name")).to_have_text(f"{red}.png")
            expect(said).to_contain_text(text)
        expect(page.locator("#image-networks .network")).to_have_count(2)
        expect(page.locator("#image-networks .familiar")).to_have_count(1)
