"""Every format and mode that people have, and the files that are refused."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from contract import pictures as imaging
from contract import pixels
from contract.containers import EXIF_ORIENTATION
from contract.errors import PictureDamaged, PictureError, PictureTooLarge, PictureUnsupported
from contract.pixels import TRANSPOSITIONS, Resize
from tests.tiny_artifacts import encoded, png

SIDE = 32


def decode(
    content: bytes, max_pixels: int = 50_000_000, max_side: int = 65_535, resize: Resize = "crop"
) -> imaging.Picture:
    return imaging.decode(imaging.open_image(content, max_pixels, max_side), SIDE, resize)


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
        stored = upright.transpose(TRANSPOSITIONS[undo[orientation]])
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
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


def of_chunks(header: tuple[int, ...], rows: bytes, *between: bytes) -> bytes:
    """A PNG with these fields of IHDR, chunks and uncompressed rows, filter bytes included."""
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", *header)),
            *between,
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        )
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_level_is_white_at_every_depth(bits: int) -> None:
    """Left half the transparent level 1, right half the level 0: black."""
    half = 16 * bits // 8
    level = {1: b"\xff", 2: b"\x55", 4: b"\x11", 8: b"\x01", 16: b"\0\1"}[bits]
    row = b"\0" + level * (half // len(level)) + b"\0" * half
    transparent = chunk(b"tRNS", struct.pack(">H", 1))
    found = decode(of_chunks((32, 32, bits, 0, 0, 0, 0), row * 32, transparent)).pixels
    assert (found[:, :16] == 255).all()
    assert (found[:, 16:] == 0).all()


def test_a_transparent_colour_of_16_bits() -> None:
    row = b"\0" + struct.pack(">3H", 0x1234, 0x5678, 0x9ABC) * 16 + struct.pack(">3H", 0, 0, 0) * 16
    transparent = chunk(b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC))
    found = decode(of_chunks((32, 32, 16, 2, 0, 0, 0), row * 32, transparent)).pixels
    assert (found[:, :16] == 255).all()
    assert (found[:, 16:] == 0).all()


def test_what_the_first_frame_of_a_gif_leaves_is_white() -> None:
    content = bytearray(encoded(Image.new("P", (32, 32), 0), "GIF"))
    descriptor = content.index(b"\x2c")
    content[6:10] = struct.pack("<HH", 64, 64)  # the canvas
    content[descriptor + 1 : descriptor + 5] = struct.pack("<HH", 16, 16)
    found = decode(bytes(content)).pixels
    assert (found[:7] == 255).all()
    assert (found[:, 25:] == 255).all()
    assert (found[10:22, 10:22] == 0).all()


def test_a_jpeg_that_lacks_its_end_is_answered_and_one_that_lacks_more_is_not() -> None:
    for more in ({}, {"progressive": True}):
        content = encoded(corners(451, 300), "JPEG", **more)
        whole = decode(content).pixels
        for variant in (content[:-2], content[:-1], content[:-2] + b"junk" * 125):
            assert (decode(variant).pixels == whole).all()
    for left in (0.3, 0.6, 0.9):
        with pytest.raises(PictureDamaged, match="cut short"):
            decode(content[: int(left * len(content))])


def test_the_ends_of_a_drafted_jpeg_are_where_they_were() -> None:
    """Each side 8·k + 1: without libjpeg's box everything moves by up to half a pixel of 32."""
    ramp = np.linspace(0, 255, 521).astype(np.uint8)
    image = Image.fromarray(np.repeat(ramp[None], 521, 0))
    exact = decode(encoded(image, "PNG")).pixels.astype(int)
    assert np.abs(decode(encoded(image, "JPEG", quality=95)).pixels - exact).max() <= 2


def test_a_bad_checksum_of_what_is_not_needed_is_passed_over() -> None:
    content = encoded(corners(), "PNG")
    text = bytearray(chunk(b"tEXt", b"Comment\0hello"))
    text[-1] ^= 1
    for position in (33, len(content) - 12):  # after IHDR, before IEND
        broken = content[:position] + bytes(text) + content[position:]
        assert (decode(broken).pixels == decode(content).pixels).all()


def lossless_jpeg() -> bytes:
    """8×8 grey of level 128, in the lossless process (ITU-T T.81, annex H): all differences 0."""

    def segment(marker: int, content: bytes) -> bytes:
        return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content

    return b"".join(
        (
            b"\xff\xd8",
            segment(0xC3, struct.pack(">BHHB3B", 8, 8, 8, 1, 1, 0x11, 0)),
            segment(0xC4, bytes([0, 1, *[0] * 15, 0])),  # the code 0 stands for a difference of 0
            segment(0xDA, bytes([1, 1, 0, 1, 0, 0])),
            b"\0" * 8,
            b"\xff\xd9",
        )
    )


def test_variants_are_read_or_said_not_to_be() -> None:
    assert (decode(lossless_jpeg()).pixels == 128).all()
    bmp = bytearray(encoded(corners(), "BMP"))
    bmp[30] = 4  # compression: a JPEG inside
    twelve = bytearray(encoded(corners(), "JPEG"))
    twelve[twelve.index(b"\xff\xc0") + 4] = 12
    for content in (bytes(bmp), bytes(twelve)):
        with pytest.raises(PictureUnsupported, match="variant"):
            decode(content)


def test_profiles_and_gamma_become_srgb() -> None:
    """Levels of linear light: 55 of 255 are sRGB's 128. A broken profile is passed over."""
    grey = Image.new("RGB", (64, 64), (55, 55, 55))
    linear = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    profile = bytearray(linear.tobytes())
    start = profile.index(b"para")  # a parametric curve: make it y = x
    profile[start : start + 16] = b"curv" + bytes(12)
    for kind in ("PNG", "JPEG", "WEBP"):
        more = {"quality": 95} if kind != "PNG" else {}
        found = decode(encoded(grey, kind, icc_profile=bytes(profile), **more)).pixels
        assert np.abs(found.astype(int) - 128).max() <= 3, kind
        broken = decode(encoded(grey, kind, icc_profile=b"no profile", **more)).pixels
        assert np.abs(broken.astype(int) - 55).max() <= 3, kind
    plain = encoded(grey, "PNG")
    gamma = plain[:33] + chunk(b"gAMA", struct.pack(">I", 100_000)) + plain[33:]
    assert np.abs(decode(gamma).pixels.astype(int) - 127).max() <= 2


def with_tag(profile: bytes, name: bytes, content: bytes) -> bytes:
    """An ICC profile with one tag more (ICC.1:2022, 7.3)."""
    (count,) = struct.unpack_from(">I", profile, 128)
    old = [struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(count)]
    entries = [(tag, at + 12, size) for tag, at, size in old]
    entries.append((name, len(profile) + 12, len(content)))
    table = b"".join(struct.pack(">4sII", *entry) for entry in entries)
    rest = profile[132 + 12 * count :] + content
    size = struct.pack(">I", 132 + len(table) + len(rest))
    return size + profile[4:128] + struct.pack(">I", count + 1) + table + rest


def test_a_profile_of_any_number_of_elements_is_passed_over() -> None:
    """LittleCMS works each of them out at 36,000 points: 8,000 take seconds, in 64 KB."""
    darker = b"matf" + struct.pack(">IHH12f", 0, 3, 3, 0.2, 0, 0, 0, 0.2, 0, 0, 0, 0.2, 0, 0, 0)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for count in (1, 8000):
        places = struct.pack(">II", 16 + 8 * count, len(darker)) * count
        elements = b"mpet" + struct.pack(">IHHI", 0, 3, 3, count) + places + darker
        content = encoded(corners(), "PNG", icc_profile=with_tag(profile, b"D2B0", elements))
        assert_same(decode(content).pixels, corners(), 1)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_a_damaged_exif_block_changes_nothing_but_the_orientation(kind: str) -> None:
    """Fuzzed: whatever stands there, the picture is read, upright or turned."""
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 1
    exif[0x010F] = "maker" * 4
    exif[0x011A] = 300.0
    content = encoded(corners(40, 40), kind, exif=exif)
    start, end = content.index(b"MM\0*"), content.index(b"makermaker") + 24
    upright = Image.fromarray(decode(content).pixels)
    turns = [upright, *map(upright.transpose, TRANSPOSITIONS.values())]
    allowed = {picture.tobytes() for picture in turns}
    random = np.random.default_rng(11)
    for _ in range(300):
        broken = bytearray(content)
        for position in random.integers(start, end, 3):
            broken[position] = random.integers(256)
        if kind == "PNG":  # its checksum covers the block
            length = struct.unpack(">I", content[start - 8 : start - 4])[0]
            checksum = zlib.crc32(bytes(broken[start - 4 : start + length]))
            broken[start + length : start + length + 4] = struct.pack(">I", checksum)
        assert decode(bytes(broken)).pixels.tobytes() in allowed


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA", "P", "I;16", "1", "CMYK"])
def test_strips_change_nothing(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (403, 307, 4), np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., 0].astype(np.uint16) * 250)
    else:
        image = Image.fromarray(noise).convert("RGBA" if mode == "RGBA" else "RGB").convert(mode)
    content = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    resizes: tuple[Resize, ...] = ("crop", "pad", "squash")
    whole = [decode(content, resize=resize).pixels for resize in resizes]
    monkeypatch.setattr(pixels, "STRIP_PIXELS", 5_000)
    for resize, expected in zip(resizes, whole, strict=True):
        assert (decode(content, resize=resize).pixels == expected).all()


def test_pad_and_squash_keep_what_crop_cuts_off() -> None:
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    content = encoded(wide, "PNG")
    padded = decode(content, resize="pad").pixels
    assert (padded[[0, 9, 22, 31]] == pixels.PADDING).all()
    assert (padded[12:20, 13:19] == (0, 0, 255)).all()
    assert (padded[12:20, :8] == (255, 0, 0)).all()
    squashed = decode(content, resize="squash").pixels
    assert (squashed[:, 14:18] == (0, 0, 255)).all()
    assert (squashed[:, :8] == (255, 0, 0)).all()


def test_the_estimate_of_memory_holds() -> None:
    """The picture as Pillow keeps it is what decoding needs at least."""
    for kind, mode, kept in (
        ("PNG", "RGB", 4),
        ("PNG", "L", 1),
        ("GIF", "P", 1),
        ("BMP", "RGB", 4),
    ):
        content = encoded(Image.new(mode, (1500, 1000)), kind)
        header = imaging.open_image(content, 10**7, 10**4)
        assert (
            kept * header.pixels
            <= header.memory(32)
            <= (kept + 1) * header.pixels + len(content) + 11e6
        )
    progressive = encoded(Image.new("CMYK", (1500, 1000)), "JPEG", progressive=True)
    assert imaging.open_image(progressive, 10**7, 10**4).memory(32) >= 8 * 1.5e6
    webp = encoded(Image.new("RGB", (1500, 1000)), "WEBP", lossless=True)
    with pytest.raises(PictureTooLarge, match="at most 1 megapixels"):
        imaging.open_image(webp, 10**7, 10**4, 36_000_000, 32)
