"""From the bytes of an uploaded file to the pixels a classifier takes: uint8 [side, side, 3].

The format is found by content, never by name. The picture is shown as a person sees it (first
frame, EXIF orientation, alpha over white), cropped to its central square and resized with
antialiasing. Size limits are checked before anything is decoded.
"""

import hashlib
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO, RawIOBase

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError, WebPImagePlugin

from contract.containers import (
    MAX_READS,
    TOO_MANY_READS,
    Content,
    check_webp,
    is_other_jpeg,
    jpeg_scans,
    lean,
    without_bad_chunks,
    without_metadata,
)
from contract.errors import PictureDamaged, PictureError, PictureTooLarge, PictureUnsupported
from contract.pixels import STRIP_PIXELS, Box, Resize, source_of, to_square

# By the names of Pillow's readers: that of JPEG also reads MPO, a JPEG of several pictures. The
# reader of WebP is not among those that Pillow imports by itself.
FORMATS = ("PNG", "JPEG", WebPImagePlugin.WebPImageFile.format, "GIF", "BMP")

JPEGS = {"JPEG", "MPO"}  # as Pillow names them in its answers
END_OF_IMAGE = b"\xff\xd9"

# A progressive JPEG may repeat scans without end, each of which costs a pass over all pixels.
MAX_JPEG_SCANS = 100
COPIED_BYTES = 64 * 1024

# Bytes of memory for each pixel while it is decoded, as measured with Pillow 13: by format, else by
# mode. They are Pillow's own 4, or 1 for grey and palettes, and what its readers hold beside them.
FORMAT_BYTES = {"WEBP": 18.5, "GIF": 1.4}
MODE_BYTES = {"1": 1.4, "L": 1.4, "P": 1.4, "I;16": 2.5}
OTHER_BYTES = 4.6
COEFFICIENT_BYTES = 2.1  # for each channel of a JPEG of several scans
# The rest (buffers of the decoder, the strip that is worked on), whatever the size.
BASE_BYTES = 2 * 1024 * 1024
STRIP_BYTES = 16  # for each of up to ``STRIP_PIXELS``
MAX_FULL_PIXELS = 4_000_000  # of a JPEG that only decodes at full size; not in the estimate
# Time to decode a pixel, relative to one of an 8-bit RGB PNG (some 40 ns).
FORMAT_TIME = {"WEBP": 1.0, "GIF": 0.4, "BMP": 0.15}
JPEG_TIME, JPEG_FULL_TIME, JPEG_SCAN_TIME = 0.1, 0.25, 0.15
SIXTEEN_BIT_TIME = 1.5
# Bytes beyond those that a photo has for each pixel take time as well, whatever comes of them: a
# PNG may be packed in a million empty blocks. In megapixels for a megabyte.
USUAL_BYTES = 2
SURPLUS_TIME = {"PNG": 2.5, "GIF": 1.0}
OTHER_SURPLUS_TIME = 0.5
# Megapixels for a profile that is new: LittleCMS works one with a table of colours out at 36,000
# points.
PROFILE_TIME, COLOUR_TABLE_TIME = 0.125, 0.5
COLOUR_TABLE = b"A2B0"
PROFILE_TAGS = 128 + 4 + 12 * 100  # the bytes of a profile that name its parts

# Pillow's own limit warns first and refuses at twice that; ours, checked at the same moment,
# refuses at once. Its global is switched off so that the two can't disagree.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Header:
    """A file that has been recognised and whose size is within limits, not yet decoded.

    ``image`` is None where opening it would make room for the whole picture already, as Pillow's
    reader of WebP does, twice; then ``content`` is opened only to be decoded. ``scans`` are the
    passes over all pixels of a JPEG whose coefficients are kept until the last; 0 for others.
    """

    image: ImageFile.ImageFile | None
    content: Content
    format: str
    width: int
    height: int
    scans: int = 0

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    def megapixels(self, side: int) -> float:
        """Cost of decoding to ``side`` × ``side``, in megapixels of an RGB PNG."""
        surplus = max(0, len(self.content) - USUAL_BYTES * self.pixels)
        of_bytes = surplus / 1e6 * SURPLUS_TIME.get(self.format, OTHER_SURPLUS_TIME)
        return self.pixels / 1e6 * self._time(side) + of_bytes + self._profile_time

    def memory(self, side: int) -> int:
        """Upper bound of the bytes that decoding to ``side`` × ``side`` takes at its peak."""
        strip = STRIP_BYTES * min(self.pixels, STRIP_PIXELS)
        return int(self.pixels * self._pixel_bytes(side)) + strip + len(self.content) + BASE_BYTES

    def _time(self, side: int) -> float:
        if self.format in JPEGS:
            full = JPEG_FULL_TIME / self._jpeg_scale(side) + JPEG_SCAN_TIME * self.scans
            return JPEG_TIME + full
        sixteen = self.image is not None and any("16" in str(t[3]) for t in self.image.tile)
        return FORMAT_TIME.get(self.format, 1.0) * (SIXTEEN_BIT_TIME if sixteen else 1.0)

    @cached_property
    def _profile_time(self) -> float:
        if self.image is None:  # of WebP: not packed, and may stand anywhere
            return COLOUR_TABLE_TIME if COLOUR_TABLE in bytes(self.content) else 0.0
        profile = self.image.info.get("icc_profile")
        if not isinstance(profile, bytes):
            return 0.0
        return COLOUR_TABLE_TIME if COLOUR_TABLE in profile[:PROFILE_TAGS] else PROFILE_TIME

    def _pixel_bytes(self, side: int) -> float:
        if self.image is None:
            return FORMAT_BYTES[self.format]
        if self.format in JPEGS:
            kept = COEFFICIENT_BYTES * len(self.image.getbands()) if self.scans else 0.2
            return kept + OTHER_BYTES / self._jpeg_scale(side) ** 2
        return FORMAT_BYTES.get(self.format, MODE_BYTES.get(self.image.mode, OTHER_BYTES))

    def _jpeg_scale(self, side: int) -> int:
        """Factor by which libjpeg reduces both sides, see ``_decode``."""
        shorter = min(self.width, self.height) // (2 * side)
        return next((scale for scale in (8, 4, 2) if scale <= shorter), 1)


@dataclass(frozen=True)
class Picture:
    """A decoded picture. ``width`` and ``height`` are the file's, in pixels, as displayed."""

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int


class _Reader(BytesIO):
    """A copy of a small file that allows ``MAX_READS`` reads; one more raises PictureTooLarge."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """The next ``size`` bytes, or all that are left."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise PictureTooLarge(TOO_MANY_READS)
        return super().read(size)


class _Viewer(RawIOBase):
    """The same for a large file: without a copy, but some microseconds slower."""

    def __init__(self, content: Content) -> None:
        self._content = memoryview(content)
        self._at = 0
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """The next ``size`` bytes, or all that are left."""
        self._reads += 1
        if self._reads > MAX_READS:
            raise PictureTooLarge(TOO_MANY_READS)
        end = None if size is None or size < 0 else self._at + size
        part = bytes(self._content[self._at : end])
        self._at += len(part)
        return part

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Read on from there."""
        self._at = max(0, offset + (0, self._at, len(self._content))[whence])
        return self._at

    def tell(self) -> int:
        """Where it reads on."""
        return self._at


def open_image(
    content: Content, max_pixels: int, max_side: int, max_bytes: int | None = None, side: int = 1
) -> Header:
    """Recognise the format and read the size.

    Raises PictureUnsupported if it is none of FORMATS, PictureTooLarge if it has more than
    ``max_pixels``, a side longer than ``max_side``, or would take more than ``max_bytes`` of memory
    to be decoded to ``side`` × ``side``; PictureDamaged if it is damaged.
    """
    if not content:
        raise PictureDamaged("The file is empty")
    header = _webp_header(content) or _header(content)
    width, height = header.width, header.height
    if width * height > max_pixels:
        raise PictureTooLarge(f"The image has more than {max_pixels} pixels")
    if max(width, height) > max_side:
        raise PictureTooLarge(f"The image has a side of more than {max_side} pixels")
    if header.scans > MAX_JPEG_SCANS:
        raise PictureTooLarge(f"The JPEG has more than {MAX_JPEG_SCANS} scans")
    if max_bytes is not None and header.memory(side) > max_bytes:
        most = max_bytes / header.memory(side) * width * height / 1e6
        raise PictureTooLarge(
            f"Decoding the image would take too much memory: of this kind of {header.format} "
            f"at most {int(most)} megapixels are read"
        )
    return header


def largest(max_bytes: int) -> dict[str, float]:
    """Megapixels that ``max_bytes`` are enough to decode, by kind of picture; for documentation."""
    rest = (max_bytes - BASE_BYTES - STRIP_BYTES * STRIP_PIXELS) / 1e6
    return {
        "WebP": rest / FORMAT_BYTES["WEBP"],
        "progressive CMYK JPEG": rest / (4 * COEFFICIENT_BYTES + OTHER_BYTES / 64),
        "PNG in colour": rest / OTHER_BYTES,
        "GIF": rest / FORMAT_BYTES["GIF"],
    }


def decode(header: Header, side: int, resize: Resize = "crop") -> Picture:
    """Decode to ``side`` × ``side`` RGB, then release the file and its decoded pixels.

    ``resize`` says what becomes of a picture that isn't square, see ``contract.pixels.to_square``.
    Raises PictureDamaged if the file is damaged, PictureUnsupported if it is of a variant of its
    format that isn't read.
    """
    try:
        with closing(header.image or _open(header.content)) as image:
            if image.size != (header.width, header.height):
                raise PictureDamaged("The image file gives two sizes")
            square, turned = _decode(image, side, resize)
    except PictureError:
        raise
    except Exception as error:  # Pillow's readers raise anything at all on damaged files
        square, turned = _decode_anyway(header, side, resize, error)
    width, height = header.width, header.height
    if turned:
        width, height = height, width
    return Picture(np.asarray(square), header.format, width, height)


def _open(content: Content) -> ImageFile.ImageFile:
    try:
        return _open_strictly(content)
    except PictureTooLarge:
        raise
    except PictureError as error:
        kind = _kind(content)
        mended = None
        if kind == "PNG":
            mended = without_bad_chunks(content)
        elif kind == "JPEG":
            mended = without_metadata(content)
        if mended is None:
            raise
        try:
            return _open_strictly(mended)
        except PictureError:
            raise error from None


def _open_strictly(content: Content) -> ImageFile.ImageFile:
    reader = _Reader(content) if len(content) <= COPIED_BYTES else _Viewer(content)
    try:
        return Image.open(reader, formats=FORMATS)  # type: ignore[arg-type]
    except UnidentifiedImageError:
        kind = _kind(content)
        if kind is None:
            raise PictureUnsupported(
                f"The file is not an image of a supported format ({', '.join(FORMATS)})"
            ) from None
        if kind == "JPEG" and is_other_jpeg(content):
            raise _problem(ValueError("unsupported"), kind) from None
        raise PictureDamaged(f"The {kind} file is damaged and not readable") from None
    except PictureError:
        raise
    except Exception as error:  # as in ``decode``
        raise _problem(error, _kind(content) or "image") from None


def _kind(content: Content) -> str | None:
    """The format that the first bytes promise, None for any other than ``FORMATS``."""
    head = bytes(content[:12])
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return "WEBP"
    starts = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"GIF8": "GIF", b"BM": "BMP"}
    return next((kind for start, kind in starts.items() if head.startswith(start)), None)


def _header(content: Content) -> Header:
    content = lean(content, _kind(content))
    image = _open(content)
    kind = image.format or ""
    scans = jpeg_scans(content) if kind in JPEGS else 0
    return Header(image, content, kind, *image.size, scans)


def _webp_header(content: Content) -> Header | None:
    """The size of a WebP as its first chunk has it (RFC 9649); None for any other file."""
    head = bytes(content[:30])
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return None
    match head[12:16]:
        case b"VP8X":
            width = int.from_bytes(head[24:27], "little") + 1
            height = int.from_bytes(head[27:30], "little") + 1
        case b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width = int.from_bytes(head[26:28], "little") & 0x3FFF
            height = int.from_bytes(head[28:30], "little") & 0x3FFF
        case _:
            return None
    check_webp(content)
    return Header(None, content, "WEBP", width, height)


def _decode(
    image: ImageFile.ImageFile, side: int, resize: Resize, draft: bool = True
) -> tuple[Image.Image, bool]:
    """The square, and whether its orientation swaps width and height."""
    source = source_of(image)
    box: Box = (0, 0, *image.size)
    if image.format in JPEGS and draft:
        # Lets libjpeg decode at 1/2, 1/4 or 1/8: at twice the size wanted, no detail is lost that
        # the last resizing would keep. A side that is no multiple of that ends within a pixel: the
        # box tells where.
        drafted = image.draft(None, (2 * side, 2 * side))
        box = drafted[1] if drafted is not None else box
    image.load()
    return to_square(image, source, box, side, resize)


def _decode_anyway(
    header: Header, side: int, resize: Resize, error: Exception
) -> tuple[Image.Image, bool]:
    """Decode a file that was rejected for a harmless fault. Raises PictureError for any other."""
    if header.format == "PNG":
        mended = without_bad_chunks(header.content)
        if mended is not None:
            with suppress(Exception), closing(_open(mended)) as image:
                return _decode(image, side, resize)
    small = header.pixels <= MAX_FULL_PIXELS
    if header.format in JPEGS and small and "truncated" not in str(error).lower():
        # Lossless JPEGs can't be decoded at a fraction; of all that others take less memory.
        with suppress(Exception), closing(_open(header.content)) as image:
            return _decode(image, side, resize, draft=False)
    if header.format in JPEGS:
        whole = _lacks_only_its_end(header.content, side)
        if whole is not None:
            with suppress(Exception), closing(_open(whole)) as image:
                return _decode(image, side, resize)
    raise _problem(error, header.format) from None


def _lacks_only_its_end(content: Content, side: int) -> bytes | None:
    """A JPEG with an end marker added, if nothing else is missing; else None.

    Where pixels are missing, the decoder makes them of whatever follows: then two continuations
    give two pictures.
    """
    begun = bytes(content).removesuffix(END_OF_IMAGE[:1])
    found = set()
    for filler in (b"\x00", b"\x55"):
        continued = begun + filler * 1024 + END_OF_IMAGE
        try:
            with closing(_open(continued)) as image:
                image.draft(None, (2 * side, 2 * side))
                image.load()
                found.add(hashlib.sha256(image.tobytes()).digest())
        except Exception:
            return None
    return begun + END_OF_IMAGE if len(found) == 1 else None


def _problem(error: Exception, kind: str) -> PictureError:
    """The PictureError for an ``error`` of Pillow's reader of a ``kind`` of file."""
    words = str(error).lower()
    if any(word in words for word in ("unsupported", "not supported", "cannot handle")):
        return PictureUnsupported(
            f"This variant of {kind} is not supported; save the picture as JPEG or plain PNG"
        )
    if "truncated" in words:
        return PictureDamaged("The image file is cut short")
    return PictureDamaged("The image file is damaged and not readable")
