"""Every format and mode that people have, and the files that are refused."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from contract import pictures as imaging
from contract.errors import PictureDamaged, PictureError, PictureTooLarge, PictureUnsupported
from tests.tiny_artifacts import encoded, png

SIDE = 32


def decode(content: bytes, max_pixels: int = 50_000_000, max_side: int = 65_535) -> imaging.Picture:
    return imaging.decode(imaging.open_image(content, max_pixels, max_side), SIDE)


def corners(width: int = 96, height: int = 96) -> Image.Image:
    """Four quarters of four colours: any flip or turn shows."""
    image = Image.new("RGB", (width, height))
    colours = [(250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10)]
    for index, colour in enumerate(colours):
        left, top = (index % 2) * width // 2, (index // 2) * height // 2
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    return image


def assert_same(found: np.ndarray, image: Image.Image, tolerance: int = 12) -> None:
    expected = decode(encoded(image, "PNG")).pixels.astype(int)
    assert found.shape == (SIDE, SIDE, 3)
    assert found.dtype == np.uint8
    assert np.abs(found - expected).mean() < tolerance


def test_an_image_of_the_right_size_is_left_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (decode(encoded(Image.fromarray(pixels), "PNG")).pixels == pixels).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "MPO"])
def test_formats(kind: str) -> None:
    picture = decode(encoded(corners(), kind))
    assert picture.format in {kind, "JPEG"}  # an MPO of one picture is a JPEG
    assert (picture.width, picture.height) == (96, 96)
    assert_same(picture.pixels, corners())


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("1", "PNG"), ("L", "PNG"), ("L", "JPEG"), ("P", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"),
     ("RGBA", "WEBP"), ("CMYK", "JPEG"), ("I;16", "PNG"), ("1", "BMP"), ("P", "GIF")],
)  # fmt: skip
def test_modes(mode: str, kind: str) -> None:
    image = corners().convert("L") if mode in {"1", "L", "LA", "I;16"} else corners()
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    else:
        stored = image.convert(mode)
    assert_same(decode(encoded(stored, kind)).pixels, image, 25 if mode == "1" else 12)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    grey = Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))
    assert (decode(encoded(grey, "PNG")).pixels == 128).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_is_white(mode: str) -> None:
    if mode == "P":
        image = Image.new("L", (64, 64), 3).convert("P")
        content = encoded(image, "PNG", transparency=3)
    else:
        content = encoded(Image.new(mode, (64, 64)), "PNG")
    assert (decode(content).pixels == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(orientation: int) -> None:
    upright = corners(120, 80)
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    stored = upright
    if orientation > 1:
        stored = upright.transpose(imaging.TRANSPOSITIONS[undo[orientation]])
    exif = Image.Exif()
    exif[imaging.EXIF_ORIENTATION] = orientation
    picture = decode(encoded(stored, "JPEG", exif=exif, quality=95))
    assert (picture.width, picture.height) == (120, 80)
    assert_same(picture.pixels, upright)


def test_crops_the_centre() -> None:
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    pixels = decode(encoded(wide, "PNG")).pixels
    assert (pixels[:, 2:-2] == (0, 0, 255)).all()


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (64, 64), c) for c in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, blue = decode(content).pixels[16, 16]
        assert red > 240
        assert max(green, blue) < 15


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (31, 33)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    assert (decode(png((9, 8, 7), size)).pixels == (9, 8, 7)).all()


def test_interlaced_and_progressive() -> None:
    assert_same(decode(encoded(corners(), "JPEG", progressive=True)).pixels, corners())
    size = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 1)
    interlaced = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", size)
        + chunk(b"IDAT", zlib.compress(b"\0\1\2\3"))
        + chunk(b"IEND", b"")
    )
    assert (decode(interlaced).pixels == (1, 2, 3)).all()


def test_large_jpegs_are_decoded_at_a_fraction() -> None:
    assert_same(decode(encoded(corners(2000, 1500), "JPEG")).pixels, corners(2000, 1500))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A PNG chunk."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_of_size(width: int, height: int, *before: bytes) -> bytes:
    """A PNG that says it is that large, with no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *before,
            chunk(b"IDAT", b""),
            chunk(b"IEND", b""),
        )
    )


GOOD_PNG = encoded(corners(), "PNG")
GOOD_JPEG = encoded(corners(), "JPEG")
BOMB = zlib.compress(b"\0" * 100_000_000, 9)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", PictureDamaged),
        (b"hello, I am a picture.png", PictureUnsupported),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", PictureUnsupported),
        (b"%PDF-1.7", PictureUnsupported),
        (encoded(corners(), "TIFF"), PictureUnsupported),
        (encoded(corners(), "PPM"), PictureUnsupported),
        (encoded(corners(), "ICO"), PictureUnsupported),
        (b"\0\0\0\x18ftypheic", PictureUnsupported),
        (GOOD_PNG[: len(GOOD_PNG) // 2], PictureDamaged),
        (GOOD_PNG[:60], PictureDamaged),
        (GOOD_JPEG[: len(GOOD_JPEG) // 2], PictureDamaged),
        (png_of_size(100_000, 100_000), PictureTooLarge),
        (png_of_size(1, 100_000), PictureTooLarge),
        (png_of_size(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)), PictureDamaged),
        (png_of_size(8, 8, chunk(b"zTXt", b"a\0\0" + BOMB)), PictureDamaged),
        (png_of_size(8, 8, chunk(b"iCCP", b"a\0\0" + BOMB)), PictureDamaged),
    ],
)
def test_refuses(content: bytes, error: type[PictureError]) -> None:
    with pytest.raises(error):
        decode(content)


def test_refuses_a_bad_checksum() -> None:
    broken = bytearray(GOOD_PNG)
    broken[len(broken) // 2] ^= 0xFF
    with pytest.raises((PictureDamaged, PictureUnsupported)):
        decode(bytes(broken))


def test_refuses_a_jpeg_with_endless_scans() -> None:
    content = encoded(corners(), "JPEG", progressive=True)
    scan = content.rindex(b"\xff\xda")
    with pytest.raises(PictureTooLarge):
        decode(content[:-2] + content[scan:-2] * 200 + content[-2:])


def test_the_limit_is_checked_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(PictureTooLarge):
        imaging.open_image(GOOD_PNG, 1000, 65_535)


def test_any_damage_is_a_problem_and_never_another_error() -> None:
    random = np.random.default_rng(7)
    files = [encoded(corners(48, 40), kind) for kind in imaging.FORMATS]
    for _ in range(150):
        for content in files:
            broken = bytearray(content)
            for position in random.integers(0, len(broken), 4):
                broken[position] = random.integers(256)
            try:
                assert decode(bytes(broken), max_pixels=4_000_000).pixels.shape == (SIDE, SIDE, 3)
            except PictureError as error:
                assert error.detail


def test_reads_from_a_view_without_copying_it_first() -> None:
    assert_same(decode(memoryview(BytesIO(GOOD_PNG).getbuffer())).pixels, corners())
