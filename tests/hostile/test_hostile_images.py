"""Pictures in every encoding, and files that are no pictures, sent to the real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.hostile import pictures
from tests.hostile.process import forget_peak, peak_mib, resident_mib
from tests.hostile.wire import check_good, check_rule, exchange, post
from tests.server_process import ROOT, ServerProcess

SIDE = 96
SECONDS = 5  # for what takes milliseconds, on a machine that does other things
# A refusal may need the file twice over and a few buffers, but never what it expands to.
MEBIBYTES = 96


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """The server over the artifacts of the repository."""
    if not (ROOT / "artifacts" / "cifar-improved").is_dir():
        pytest.skip("the repository has no cifar-improved yet")
    root = tmp_path_factory.mktemp("shipped") / "artifacts"
    root.symlink_to(ROOT / "artifacts")
    with ServerProcess(root).wait_ready() as running:
        yield running


@pytest.fixture(scope="session")
def photo(shipped: ServerProcess) -> Image.Image:
    """A picture that the classifier is sure of, whichever way it is written."""
    newest = shipped.get("/models/cifar-improved")[1]["version"]
    file = ROOT / "artifacts" / "cifar-improved" / str(newest) / "samples.npz"
    with np.load(file, allow_pickle=False) as samples:
        images = [Image.fromarray(pixels) for pixels in samples["probabilities.image"]]
    larger = [image.resize((SIDE, SIDE), Image.Resampling.BICUBIC) for image in images]

    def least_sure(image: Image.Image) -> float:
        """The lowest probability of its class in colour, in grey and in few colours."""
        kinds = [image, image.convert("L"), image.convert("1"), image.quantize(64)]
        answers = [top(shipped, pictures.encoded(kind, "PNG")) for kind in kinds]
        return min(probability for _, probability, _ in answers)

    return max(larger, key=least_sure)


def top(server: ServerProcess, content: bytes) -> tuple[str, float, dict[str, object]]:
    """The likeliest class, its probability, and what the file was."""
    answer = exchange(server.port, post("/classify?top_k=1", content, "image/any"))
    assert answer.status == 200, answer.body
    (result,) = json.loads(answer.body)["results"]
    return result["top"][0]["label"], result["top"][0]["probability"], result["image"]


@pytest.mark.parametrize("family", ["colour", "grey", "two tones"])
def test_the_same_picture_in_every_encoding_has_the_same_class(
    shipped: ServerProcess, photo: Image.Image, family: str
) -> None:
    files = {
        "colour": lambda: pictures.colour_encodings(photo),
        "grey": lambda: pictures.grey_encodings(photo.convert("L")),
        "two tones": lambda: pictures.two_tone_encodings(photo.convert("1")),
    }[family]()
    found = {name: top(shipped, content) for name, content in files.items()}
    reference, probability, _ = next(iter(found.values()))
    assert {name: label for name, (label, _, _) in found.items() if label != reference} == {}
    # Lossless ones are the same pixels, and so have the same probability to the last digit.
    exact = {"PNG, interlaced", "PNG, 16 bits", "PNG, opaque alpha", "PNG, animated", "PNG, RGB",
             "PNG, 8 bits", "WebP, lossless", "WebP, animated", "BMP", "BMP, 1 bit"}  # fmt: skip
    for name in exact & found.keys():
        assert found[name][1] == pytest.approx(probability, abs=1e-6), name
    # Those stored turned are resized first, which rounds otherwise.
    for name in (name for name in found if name.startswith("PNG, orientation")):
        assert found[name][1] == pytest.approx(probability, abs=0.05), name
    assert all((f["width"], f["height"]) == (SIDE, SIDE) for _, _, f in found.values())


def test_polyglots_are_the_picture_that_they_start_as(
    shipped: ServerProcess, photo: Image.Image
) -> None:
    wanted = top(shipped, pictures.encoded(photo, "PNG"))[0]
    for name, content in pictures.polyglots(photo).items():
        assert top(shipped, content)[0] == wanted, name


def test_one_pixel(server: ServerProcess) -> None:
    for colour in ("red", "green", "blue"):
        bright = {"green": "lime"}.get(colour, colour)
        for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP"):
            content = pictures.encoded(Image.new("RGB", (1, 1), bright), kind)
            assert top(server, content)[0] == colour, kind


REFUSED = {name: (content, statuses) for name, content, statuses in pictures.refused()}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_in_bounded_time_and_memory(server: ServerProcess, name: str) -> None:
    content, statuses = REFUSED[name]
    (worker,) = server.workers()
    forget_peak(worker)
    before = resident_mib(worker)
    answer = exchange(server.port, post("/classify", content, "image/png"))
    check_rule(answer)
    assert answer.status in statuses, answer.body
    assert answer.seconds < SECONDS
    assert peak_mib(worker) - before < MEBIBYTES
    check_good(server)


@pytest.mark.parametrize("kind", ["GIF", "WebP"])
def test_ten_thousand_frames_cost_no_more_than_one(server: ServerProcess, kind: str) -> None:
    content = pictures.many_frames(10_000)[kind]
    (worker,) = server.workers()
    forget_peak(worker)
    before = resident_mib(worker)
    answer = exchange(server.port, post("/classify", content, "image/png"))
    check_rule(answer)
    assert answer.status == 200
    assert json.loads(answer.body)["results"][0]["top"][0]["label"] == "red"
    assert answer.seconds < SECONDS
    assert peak_mib(worker) - before < MEBIBYTES
    check_good(server)


def test_a_full_form_of_bombs(server: ServerProcess) -> None:
    (worker,) = server.workers()
    forget_peak(worker)
    before = resident_mib(worker)
    bomb = REFUSED["PNG, 60 megapixels"][0]
    part = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + bomb + b"\r\n"
    answer = exchange(
        server.port, post("/classify", part * 64 + b"--b--", "multipart/form-data; boundary=b")
    )
    check_rule(answer)
    assert answer.status == 413
    assert peak_mib(worker) - before < MEBIBYTES
    check_good(server)


def test_memory_comes_back_after_the_largest_picture_allowed(
    hostile_artifacts: Path, server: ServerProcess
) -> None:
    (worker,) = server.workers()
    largest = pictures.raw_png((7000, 7000), 8, pictures.COLOUR, bytes(21_001 * 7000))
    for _ in range(2):
        assert exchange(server.port, post("/classify", largest, "image/png")).status == 200
    before = resident_mib(worker)
    for _ in range(3):
        assert exchange(server.port, post("/classify", largest, "image/png")).status == 200
    assert resident_mib(worker) - before < MEBIBYTES
