"""The same picture in every encoding that is accepted, and the files that are not."""

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache

import numpy as np
from PIL import Image, ImageChops

from tests.hostile.wire import CANARY
from tests.tiny_artifacts import encoded

ORIENTATION = 0x0112
# What undoes each EXIF orientation is done to the stored pixels.
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
# First column, first row, and steps of each pass (PNG specification, 8.2).
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2))  # fmt: skip
GREY, COLOUR, PALETTE, GREY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6


# Two blocks of deflate (RFC 1951, 3.2.7) with tables of their own and nothing in them.
EMPTY_BLOCKS = bytes.fromhex("04c0810800000000207feb47001c880000000000f2b77e")


def padded_zlib(content: bytes, size: int) -> bytes:
    """A zlib stream of ``content``, under 64 KiB, that takes ``size`` bytes and long to unpack."""
    stored = struct.pack("<BHH", 1, len(content), len(content) ^ 0xFFFF) + content
    empty = EMPTY_BLOCKS * (size // len(EMPTY_BLOCKS))
    return b"\x78\x01" + empty + stored + struct.pack(">I", zlib.adler32(content))


def png_of_stream(size: tuple[int, int], stream: bytes, *before: bytes) -> bytes:
    """An RGB PNG with this zlib stream for its pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, 8, COLOUR, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (header, *before, chunk(b"IDAT", stream), chunk(b"IEND", b""))
    )


def colour_table_profile(seed: int) -> bytes:
    """An ICC profile with a table of colours, other for each ``seed``: LittleCMS takes it long."""
    one = struct.pack(">i", 65536)
    identity = b"".join(one if i % 4 == 0 else bytes(4) for i in range(9))
    curve = struct.pack(">HH", 0, 65_535) * 3
    table = np.random.default_rng(seed).integers(0, 256, 9**3 * 3 * 2, np.uint8).tobytes()
    lut = b"mft2" + bytes(4) + bytes((3, 3, 9, 0)) + identity + struct.pack(">HH", 2, 2)
    parts = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 2) + b"x" + bytes(80),
        b"cprt": b"text" + bytes(4) + b"x" + bytes(3),
        b"wtpt": b"XYZ " + bytes(4) + struct.pack(">iii", 63_190, 65_536, 54_061),
        b"A2B0": lut + curve + table + curve,
    }
    tags, content = struct.pack(">I", len(parts)), b""
    start = 128 + 4 + 12 * len(parts)
    for name, part in parts.items():
        padded = part + bytes(-len(part) % 4)
        tags += name + struct.pack(">II", start + len(content), len(part))
        content += padded
    body = tags + content
    head = struct.pack(
        ">I4s4s4s4s4s", 128 + len(body), b"lcms", b"\2\x40", b"scnr", b"RGB ", b"Lab "
    )
    head += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    return head + struct.pack(">iii", 63_190, 65_536, 54_061) + bytes(48) + body


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def segment(marker: int, content: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def exif_of_tags(count: int) -> bytes:
    """A TIFF directory of ``count`` tags that all have the same 60,000 bytes, and no others."""
    tags = (struct.pack("<HHII", 0x300 + i & 0xFFFF or 1, 7, 60_000, 8) for i in range(count))
    return b"II*\0" + struct.pack("<IH", 8, count) + b"".join(tags) + bytes(4)


def raw_png(
    size: tuple[int, int], depth: int, colour: int, data: bytes, *before: bytes, interlace: int = 0
) -> bytes:
    """A PNG of rows that are filtered already, with chunks before them."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlace)
    chunks = (chunk(b"IHDR", header), *before, chunk(b"IDAT", zlib.compress(data, 1)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def rows(pixels: np.ndarray) -> bytes:
    """Rows [height, width, channels] without a filter; big-endian, as PNG has them."""
    big = pixels.astype(pixels.dtype.newbyteorder(">"))
    return b"".join(b"\0" + row.tobytes() for row in big)


def interlaced(image: Image.Image) -> bytes:
    """An RGB picture as an interlaced PNG, which Pillow does not write."""
    pixels = np.asarray(image)
    passes = (pixels[y::dy, x::dx] for x, y, dx, dy in ADAM7)
    return raw_png(image.size, 8, COLOUR, b"".join(map(rows, passes)), interlace=1)


def ycck(image: Image.Image) -> bytes:
    """A JPEG in YCCK: Pillow writes CMYK, so convert before, and change the marker after."""
    *inks, black = image.convert("CMYK").split()
    converted = Image.merge("RGB", inks).convert("YCbCr").split()
    stored = Image.merge("CMYK", [*map(ImageChops.invert, converted), black])
    content = bytearray(encoded(stored, "JPEG", quality=95))
    content[content.index(b"Adobe") + 11] = 2
    return bytes(content)


def turned(image: Image.Image, orientation: int, kind: str = "JPEG") -> bytes:
    """The picture stored turned, with the EXIF that turns it back."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = image.transpose(STORED[orientation]) if orientation in STORED else image
    best = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    return encoded(stored, kind, exif=exif, **best.get(kind, {}))


def colour_encodings(image: Image.Image) -> dict[str, bytes]:
    """An RGB picture in every accepted encoding that keeps its colours."""
    other = ImageChops.invert(image)
    frames = {"save_all": True, "append_images": [other] * 3}
    opaque = image.convert("RGBA")
    cut_out = opaque.copy()
    cut_out.putpixel((0, 0), (0, 0, 0, 0))
    sixteen = np.asarray(image).astype(np.uint16) * 257
    palette = image.quantize(255, method=Image.Quantize.FASTOCTREE)
    return {
        "PNG": encoded(image, "PNG"),
        "PNG, interlaced": interlaced(image),
        "PNG, 16 bits": raw_png(image.size, 16, COLOUR, rows(sixteen)),
        "PNG, opaque alpha": encoded(opaque, "PNG"),
        "PNG, alpha": encoded(cut_out, "PNG"),
        "PNG, palette": encoded(palette, "PNG"),
        "PNG, palette with transparency": encoded(palette, "PNG", transparency=255),
        "PNG, animated": encoded(image, "PNG", **frames),
        "PNG, text within": encoded(image, "PNG") + CANARY.encode(),
        "JPEG": encoded(image, "JPEG", quality=95),
        "JPEG, progressive": encoded(image, "JPEG", quality=95, progressive=True),
        "JPEG, whole colours": encoded(image, "JPEG", quality=95, subsampling=0),
        "JPEG, CMYK": encoded(image.convert("CMYK"), "JPEG", quality=95),
        "JPEG, YCCK": ycck(image),
        "MPO": encoded(image, "MPO", **frames, quality=95),
        "WebP": encoded(image, "WEBP", quality=95),
        "WebP, lossless": encoded(image, "WEBP", lossless=True),
        "WebP, animated": encoded(image, "WEBP", **frames, lossless=True),
        "WebP, alpha": encoded(cut_out, "WEBP", lossless=True),
        "GIF": encoded(palette, "GIF"),
        "GIF, animated": encoded(palette, "GIF", save_all=True, append_images=[palette] * 3),
        "BMP": encoded(image, "BMP"),
        "BMP, palette": encoded(palette, "BMP"),
        **{f"JPEG, orientation {n}": turned(image, n) for n in range(1, 9)},
        **{f"PNG, orientation {n}": turned(image, n, "PNG") for n in range(1, 9)},
        **{f"WebP, orientation {n}": turned(image, n, "WEBP") for n in (3, 6)},
    }


def grey_encodings(image: Image.Image) -> dict[str, bytes]:
    """The same for a picture of mode L."""
    pixels = np.asarray(image)
    sixteen = pixels.astype(np.uint16) * 257
    with_alpha = np.stack([sixteen, np.full_like(sixteen, 65_535)], axis=-1)
    return {
        "PNG": encoded(image, "PNG"),
        "PNG, RGB": encoded(image.convert("RGB"), "PNG"),
        "PNG, 16 bits": encoded(Image.fromarray(sixteen), "PNG"),
        "PNG, 16 bits with alpha": raw_png(image.size, 16, GREY_ALPHA, rows(with_alpha)),
        "PNG, alpha": encoded(image.convert("LA"), "PNG"),
        "PNG, palette": encoded(image.convert("P"), "PNG"),
        "JPEG": encoded(image, "JPEG", quality=95),
        "JPEG, progressive": encoded(image, "JPEG", quality=95, progressive=True),
        "WebP": encoded(image.convert("RGB"), "WEBP", lossless=True),
        "GIF": encoded(image, "GIF"),
        "BMP": encoded(image, "BMP"),
    }


def two_tone_encodings(image: Image.Image) -> dict[str, bytes]:
    """The same for a picture of mode 1."""
    return {
        "PNG, 1 bit": encoded(image, "PNG"),
        "PNG, 8 bits": encoded(image.convert("L"), "PNG"),
        "PNG, RGB": encoded(image.convert("RGB"), "PNG"),
        "GIF": encoded(image, "GIF"),
        "BMP, 1 bit": encoded(image, "BMP"),
    }


@cache
def refused() -> tuple[tuple[str, bytes, set[int]], ...]:
    """Name, file, and the statuses that are right."""
    return tuple(_refused())


def _refused() -> Iterator[tuple[str, bytes, set[int]]]:
    image = Image.effect_noise((96, 96), 80).convert("RGB")
    png, jpeg = encoded(image, "PNG"), encoded(image, "JPEG")
    gif, webp = encoded(image, "GIF"), encoded(image, "WEBP")
    bmp = encoded(image, "BMP")
    for name, content in (("PNG", png), ("JPEG", jpeg), ("GIF", gif), ("WebP", webp), ("BMP", bmp)):
        yield f"{name}, half of it", content[: len(content) // 2], {400, 415}
        yield f"{name}, its first bytes", content[:16], {400, 415}
        yield f"{name}, one byte", content[:1], {415}
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    yield "PNG, bad CRC", bytes(flipped), {400}
    flipped = bytearray(png)
    flipped[29] ^= 0xFF
    yield "PNG, bad CRC of the header", bytes(flipped), {400, 415}
    yield "PNG, header only", png[:33], {400, 415}
    yield "PNG, no pixels", raw_png((8, 8), 8, COLOUR, b""), {400}
    yield "PNG, of no size", raw_png((0, 0), 8, COLOUR, b""), {400, 415}
    yield "PNG, one side too long", raw_png((1, 100_000), 8, COLOUR, bytes(400_000)), {413}
    yield "PNG, the other too", raw_png((100_000, 1), 8, COLOUR, bytes(300_001)), {413}
    yield "PNG, 10 gigapixels", raw_png((100_000, 100_000), 8, COLOUR, b""), {413}
    yield "PNG, 2**62 pixels", raw_png((2**31 - 1, 2**31 - 1), 8, COLOUR, b""), {400, 413, 415}
    # Sixty megabytes of zeros in sixty kilobytes: a picture over the limit, whole and valid.
    yield "PNG, 60 megapixels", raw_png((8000, 7500), 8, GREY, bytes(8001 * 7500)), {413}
    bomb = zlib.compress(bytes(100_000_000), 9)
    for kind, prefix in ((b"iTXt", b"a\0\1\0\0\0"), (b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0")):
        name = f"PNG, 100 MB in {kind.decode()}"
        # Without a picture it's damaged whatever comes before; with one the text may be passed by.
        yield name, raw_png((8, 8), 8, COLOUR, b"", chunk(kind, prefix + bomb)), {400}
        pixels = bytes(25 * 8)
        many = [chunk(kind, prefix + bomb)] * 8
        yield f"{name}, 8 times", raw_png((8, 8), 8, COLOUR, pixels, *many), {200, 400}
    yield (
        "PNG, more pixels than it has room for",
        raw_png((8, 8), 8, COLOUR, bytes(100_000_000)),
        {200, 400},
    )
    wide = struct.pack("<HH", 65_535, 65_535)
    yield "GIF, 4 gigapixels", gif[:6] + wide + gif[10:], {400, 413}
    wide = struct.pack("<ii", 2**31 - 1, 2**31 - 1)
    yield "BMP, 2**62 pixels", bmp[:18] + wide + bmp[26:], {400, 413, 415}
    size = jpeg.index(b"\xff\xc0") + 5
    yield "JPEG, 4 gigapixels", jpeg[:size] + b"\xff\xff\xff\xff" + jpeg[size + 4 :], {413}
    scans = encoded(image, "JPEG", progressive=True)
    scan = scans.rindex(b"\xff\xda")
    endless = scans[:-2] + scans[scan:-2] * 500 + scans[-2:]
    yield "JPEG, 500 scans", endless, {413}
    yield from _of_metadata(jpeg, raw_png((8, 8), 8, COLOUR, bytes(25 * 8)))
    svg = (
        f'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY x SYSTEM "file:///{CANARY}">]><svg>&x;</svg>'
    )
    yield "SVG", svg.encode(), {415}
    yield "PDF", b"%PDF-1.7\n" + jpeg, {415}
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", {415}
    yield "HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), {415}
    yield "AVIF", b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(100), {415}
    for kind in ("TIFF", "PPM", "ICO", "TGA", "PCX", "SGI", "JPEG2000"):
        yield kind, encoded(image, kind), {415}
    yield "text", CANARY.encode() * 100, {415}
    yield "HTML", b"<html><script>alert(1)</script>", {415}
    yield "ZIP", b"PK\x03\x04" + bytes(100), {415}
    yield "ELF", b"\x7fELF\x02\x01\x01" + bytes(100), {415}
    yield "nothing", b"", {400}
    script = b"GIF89a/*" + CANARY.encode() + b"*/=1;alert(1)//"
    yield "GIF that is a script", script, {400, 413, 415}
    yield "PNG behind a script", b"#!/bin/sh\nexit\n" + png, {415}


def _riff(chunks: bytes) -> bytes:
    """A WebP of these chunks."""
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WEBP" + chunks


def _of_metadata(jpeg: bytes, png: bytes) -> Iterator[tuple[str, bytes, set[int]]]:
    """Metadata that takes seconds or much memory to read, in files of 8 MB at most."""
    frame = segment(0xC0, struct.pack(">BHHB", 8, 96, 96, 3) + bytes(60_000))
    tables = segment(0xDB, (b"\0" + bytes(64)) * 1000)
    blocks = segment(0xED, b"Photoshop 3.0\0" + (b"8BIM" + bytes(8)) * 5000)
    exif = segment(0xE1, b"Exif\0\0" + bytes(3000))
    yield "JPEG, 8 MB of frames", jpeg[:2] + frame * 130 + jpeg[2:], {413}
    yield "JPEG, 8 MB of tables", jpeg[:2] + tables * 120 + jpeg[2:], {413}
    yield "JPEG, 8 MB of image resources", jpeg[:2] + blocks * 130 + jpeg[2:], {200}
    yield "JPEG, EXIF in 2400 pieces", jpeg[:2] + exif * 2400 + jpeg[2:], {200}
    tags = exif_of_tags(5000)
    yield "JPEG, 5000 tags", jpeg[:2] + segment(0xE1, b"Exif\0\0" + tags) + jpeg[2:], {200}
    yield "PNG, 60,000 tags", png[:33] + chunk(b"eXIf", exif_of_tags(60_000)) + png[33:], {200}
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1_000_000), 9))
    packed = padded_zlib(b"x", 7_000_000)
    for kind, prefix in ((b"iTXt", b"a\0\1\0\0\0"), (b"zTXt", b"a\0\0"), (b"iCCP", b"a\0\0")):
        slow = chunk(kind, prefix + packed)
        yield f"PNG, 7 MB of empty blocks in {kind.decode()}", png[:33] + slow + png[33:], {200}
    scan = jpeg.index(b"\xff\xda")
    fill = b"\xff" * 15_000_000
    yield "JPEG, 15 MB of fill bytes", jpeg[:-2] + fill + jpeg[-2:], {200}
    yield "JPEG, the same in its head", jpeg[:scan] + fill + jpeg[scan:], {413}
    webp = encoded(Image.new("RGB", (8, 8)), "WEBP", lossless=True)
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + b"\7\0\0\7\0\0"
    yield (
        "WebP, 15 MB of empty chunks",
        _riff(extended + webp[12:] + b"none\0\0\0\0" * 1_900_000),
        {413},
    )
    frame = bytes(6) + b"\7\0\0\7\0\0" + bytes(4) + webp[12:] + b"none\0\0\0\0" * 1_900_000
    animated = extended.replace(bytes(4) + b"\7", b"\2\0\0\0\7")
    animation = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    frames = b"ANMF" + struct.pack("<I", len(frame)) + frame
    yield "WebP, the same in a frame", _riff(animated + animation + frames), {413}
    yield "PNG, 3000 profiles", png[:33] + profile * 3000 + png[33:], {200}


def polyglots(image: Image.Image) -> dict[str, bytes]:
    """Pictures that are something else as well: only their pixels are read."""
    png, gif = encoded(image, "PNG"), encoded(image, "GIF")
    jpeg = encoded(image, "JPEG", quality=95)
    archive = b"PK\x03\x04" + CANARY.encode() + b"PK\x05\x06" + bytes(18)
    script = f"<script>{CANARY}</script><?php {CANARY} ?>".encode()
    comment = b"\xff\xfe" + struct.pack(">H", len(script) + 2) + script
    return {
        "PNG and ZIP": png + archive,
        "PNG and PDF": png + b"%PDF-1.7\n" + script,
        "PNG with a script in its text": png[:33] + chunk(b"tEXt", b"a\0" + script) + png[33:],
        "JPEG and ZIP": jpeg + archive,
        "JPEG with a script as its comment": jpeg[:2] + comment + jpeg[2:],
        "GIF and ZIP": gif + archive,
    }


def many_frames(count: int) -> dict[str, bytes]:
    """Animations whose first frame is red."""
    red = Image.new("RGB", (32, 32), "red").quantize(2)
    blue = Image.new("RGB", (32, 32), "blue").quantize(2)
    one = encoded(red, "GIF")
    stream = io.BytesIO()
    red.save(stream, "GIF", save_all=True, append_images=[blue, red])
    whole = stream.getvalue()
    # The frame between the first and the last, over and over.
    starts = [i for i in range(len(one) - 20, len(whole)) if whole[i : i + 4] == b"!\xf9\x04\x08"]
    starts = starts or [i for i in range(len(whole)) if whole[i : i + 3] == b"!\xf9\x04"]
    middle = whole[starts[-2] : starts[-1]]
    frames = [Image.new("RGB", (8, 8), "red"), *[Image.new("RGB", (8, 8), "blue")] * 2]
    webp = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    start = webp.rindex(b"ANMF")
    body = webp[12:] + webp[start:] * count
    return {
        "GIF": whole[: starts[-1]] + middle * count + whole[starts[-1] :],
        "WebP": b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body,
    }
