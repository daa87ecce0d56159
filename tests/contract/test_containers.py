"""Metadata that takes long to read is left out before Pillow sees it; what shows stays."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageCms

from contract.containers import (
    HEAD_BYTES,
    LARGEST_PACKED_PROFILE,
    LARGEST_PROFILE,
    LONGEST_FILL,
    lean,
    orientation,
)
from contract.errors import PictureError, PictureTooLarge
from contract.pictures import decode, open_image
from tests.hostile.pictures import chunk, exif_of_tags, padded_zlib, segment
from tests.tiny_artifacts import encoded

PICTURE = Image.effect_noise((96, 64), 80).convert("RGB")
JPEG, PNG = encoded(PICTURE, "JPEG"), encoded(PICTURE.resize((80, 60)), "PNG")
EXIF = segment(0xE1, b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, 6) + bytes(4))
FRAME = segment(0xC0, struct.pack(">BHHB", 8, 64, 96, 3) + bytes(60_000))
TABLES = segment(0xDB, (b"\0" + bytes(64)) * 900)
BLOCKS = segment(0xED, b"Photoshop 3.0\0" + (b"8BIM" + bytes(8)) * 5000)
XMP = segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(60_000))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def headed(*segments: bytes) -> bytes:
    return JPEG[:2] + b"".join(segments) + JPEG[2:]


def pixels(content: bytes) -> np.ndarray:
    return decode(open_image(content, 10**7, 10**5), 32).pixels


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        ([BLOCKS] * 20, b""),
        ([XMP] * 20, b""),
        ([segment(0xFE, b"a comment")] * 9000, b""),
        ([EXIF, *[EXIF] * 3000], EXIF),
        ([XMP, EXIF, XMP, b"\xff\xff\xff", b"\0between\xd9"], EXIF),
    ],
)
def test_a_large_head_has_what_the_picture_needs(head: list[bytes], kept: bytes) -> None:
    assert lean(headed(*head), "JPEG") == headed(kept)
    assert (pixels(headed(*head)) == pixels(headed(kept))).all()


def test_a_profile_stays() -> None:
    pieces = [b"ICC_PROFILE\0" + bytes((n, 2)) for n in (1, 2)]
    half = len(SRGB) // 2
    profile = [segment(0xE2, pieces[0] + SRGB[:half]), segment(0xE2, pieces[1] + SRGB[half:])]
    found = lean(headed(XMP, profile[0], XMP, profile[1]), "JPEG")
    assert found == headed(*profile)
    assert Image.open(BytesIO(found)).info["icc_profile"] == SRGB
    huge = [segment(0xE2, pieces[0] + bytes(65_000))] * (LARGEST_PROFILE // 65_000 + 1)
    assert lean(headed(*huge), "JPEG") == JPEG


@pytest.mark.parametrize(
    "head",
    [
        [FRAME] * 20,
        [TABLES] * 20,
        [b"\xff\xf0\xff\xff", FRAME, FRAME],  # a marker that has a length for some readers
        [b"\xff\xdb\0\0", FRAME, FRAME],
        [b"\xff\xd0", FRAME, FRAME],
        [segment(0xFE, b"x" * 10)] * 10_001,
    ],
)
def test_tables_without_end_are_refused(head: list[bytes]) -> None:
    with pytest.raises(PictureTooLarge):
        open_image(headed(*head), 10**7, 10**5)


def test_pillow_sees_no_more_than_was_weighed() -> None:
    """Whatever stands in a head: other segments than ours would hide some from us."""
    random = np.random.default_rng(5)
    pieces = [FRAME, TABLES, BLOCKS, XMP, EXIF, SRGB, JPEG[2:40], b"\xff", b"\0", b"\xff\xf0\x20\0"]
    opened = 0
    for _ in range(300):
        head = b"".join(
            pieces[i] if i < len(pieces) else b"\xff" + random.bytes(3)
            for i in random.integers(0, len(pieces) + 6, random.integers(1, 20))
        )
        try:
            image = Image.open(BytesIO(bytes(lean(headed(head), "JPEG"))), formats=["JPEG"])
        except (PictureError, OSError, SyntaxError):
            continue
        opened += 1
        seen = sum(len(content) for _, content in image.applist)  # type: ignore[attr-defined]
        assert seen + 3 * len(image.layer) < 3 * HEAD_BYTES  # type: ignore[attr-defined]
    assert opened > 30


def test_profiles_that_are_repeated_and_texts_are_left_out_of_a_png() -> None:
    bomb = zlib.compress(bytes(1_000_000))
    head, rest = PNG[:33], PNG[33:]
    first = chunk(b"iCCP", b"a\0\0" + zlib.compress(SRGB))
    gamma = chunk(b"gAMA", struct.pack(">I", 45_455))
    texts = [chunk(b"iCCP", b"b\0\0" + bomb), chunk(b"zTXt", b"a\0\0" + bomb)] * 50
    content = b"".join((head, first, *texts, gamma, rest, *texts))
    assert lean(content, "PNG") == head + first + gamma + rest
    assert (pixels(content) == pixels(head + first + gamma + rest)).all()


def test_what_is_packed_in_a_png_may_take_no_longer_than_its_pixels() -> None:
    """A kilobyte may take a tenth of a millisecond to unpack, whatever it unpacks to."""
    head, rest = PNG[:33], PNG[33:]
    for kind, prefix in ((b"iCCP", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"zTXt", b"a\0\0")):
        slow = chunk(kind, prefix + padded_zlib(SRGB, LARGEST_PACKED_PROFILE))
        assert lean(head + slow + rest, "PNG") == head + rest
    usual = chunk(b"iCCP", b"a\0\0" + padded_zlib(SRGB, LARGEST_PACKED_PROFILE // 2))
    assert lean(head + usual + rest, "PNG") == head + usual + rest


def test_fill_bytes_without_end_are_left_out_of_a_jpeg() -> None:
    """Any number of them may stand before a marker; Pillow looks at each of them again and again.

    No segment may lose one that is its own.
    """
    scans = encoded(PICTURE, "JPEG", progressive=True)
    second = scans.index(b"\xff\xda", scans.index(b"\xff\xda") + 2)
    comment = segment(0xFE, b"\xff" * 65_533)
    for before in (b"", comment):
        content = scans[:second] + before + b"\xff" * 3_000_001 + scans[second:]
        assert len(lean(content, "JPEG")) - len(scans + before) < 3 * LONGEST_FILL
        assert (pixels(content) == pixels(scans)).all()


def test_most_files_stay_as_they_are() -> None:
    for content, kind in ((JPEG, "JPEG"), (PNG, "PNG"), (headed(EXIF) + bytes(90_000), "JPEG")):
        assert lean(content, kind) == content


def test_the_orientation_in_all_its_forms() -> None:
    for order, mark in (("<", b"II"), (">", b"MM")):
        for kind, form in ((1, "B"), (3, "H"), (4, "I")):
            value = struct.pack(order + form, 7).ljust(4, b"\0")
            tag = struct.pack(order + "HHI", 0x0112, kind, 1) + value
            other = struct.pack(order + "HHII", 0x010F, 2, 9, 900)
            whole = mark + struct.pack(order + "HIH", 42, 8, 2) + other + tag
            assert orientation(b"Exif\0\0" + whole) == orientation(whole) == 7
            for end in range(len(whole) - 4):
                assert orientation(whole[:end]) == 1
    assert orientation(exif_of_tags(65_535)) == 1
