"""From the bytes of an uploaded file to the pixels a classifier takes: uint8 [side, side, 3].

The format is found by content, never by name. The picture is shown as a person sees it (first
frame, EXIF orientation, alpha over white), cropped to its central square and resized with
antialiasing. Size limits are checked before anything is decoded.
"""

from contextlib import closing
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError, WebPImagePlugin

from contract.errors import PictureDamaged, PictureError, PictureTooLarge, PictureUnsupported

Content = bytes | bytearray | memoryview

# By the names of Pillow's readers: that of JPEG also reads MPO, a JPEG of several pictures. The
# reader of WebP is not among those that Pillow imports by itself.
FORMATS = ("PNG", "JPEG", WebPImagePlugin.WebPImageFile.format, "GIF", "BMP")

JPEGS = {"JPEG", "MPO"}  # as Pillow names them in its answers
START_OF_SCAN = 0xDA

EXIF_ORIENTATION = 0x0112
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A progressive JPEG may repeat scans without end, each of which costs a pass over all pixels.
MAX_JPEG_SCANS = 100
# A file may consist of empty blocks, each of which costs some microseconds of Python: 16 MiB of
# them take 8 s to open. A 12-megapixel photo takes 60 reads, a PNG in small chunks thousands.
MAX_READS = 20_000

# Bytes of memory for each pixel while it is decoded, as measured with Pillow 12: its own 4 (1 for a
# palette), and the copies that its readers and conversions make. By format, else by mode.
FORMAT_BYTES = {"WEBP": 18.5, "GIF": 9.3}
MODE_BYTES = {"RGB": 4.3, "1": 2.3, "L": 1.3, "P": 5.3}
OTHER_BYTES = 8.2
TRANSPARENT_BYTES = 9.3  # of a transparent colour that becomes alpha
# The rest (buffers of the decoder, small copies), whatever the size.
BASE_BYTES = 2 * 1024 * 1024
# How long a pixel takes, in those of an 8-bit RGB PNG (some 40 ns).
FORMAT_TIME = {"WEBP": 1.0, "GIF": 0.4, "BMP": 0.15}
JPEG_TIME, JPEG_FULL_TIME, JPEG_SCAN_TIME = 0.1, 0.25, 0.15
SIXTEEN_BIT_TIME = 1.5

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
        """How many there are."""
        return self.width * self.height

    def megapixels(self, side: int) -> float:
        """What decoding to ``side`` × ``side`` costs: as many megapixels of an RGB PNG."""
        return self.pixels / 1e6 * self._time(side)

    def memory(self, side: int) -> int:
        """Bytes that decoding to ``side`` × ``side`` takes at its peak, from above."""
        return int(self.pixels * self._pixel_bytes(side)) + len(self.content) + BASE_BYTES

    def _time(self, side: int) -> float:
        if self.format in JPEGS:
            full = JPEG_FULL_TIME / self._jpeg_scale(side) + JPEG_SCAN_TIME * self.scans
            return JPEG_TIME + full
        sixteen = self.image is not None and any("16" in str(t[3]) for t in self.image.tile)
        return FORMAT_TIME.get(self.format, 1.0) * (SIXTEEN_BIT_TIME if sixteen else 1.0)

    def _pixel_bytes(self, side: int) -> float:
        if self.image is None:
            return FORMAT_BYTES[self.format]
        if self.format in JPEGS:
            # Two bytes for each coefficient of each channel, if they are all kept.
            kept = 2.1 * len(self.image.getbands()) if self.scans else 0.2
            return kept + OTHER_BYTES / self._jpeg_scale(side) ** 2
        if self.format in FORMAT_BYTES:
            return FORMAT_BYTES[self.format]
        if "transparency" in self.image.info:
            return TRANSPARENT_BYTES
        return MODE_BYTES.get(self.image.mode, OTHER_BYTES)

    def _jpeg_scale(self, side: int) -> int:
        """By how much libjpeg divides both sides, see ``_decode``."""
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
    """The content of a file, which may be read in so many pieces only."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """The next ``size`` bytes. Raises PictureTooLarge if it is asked too often."""
        self.reads += 1
        if self.reads > MAX_READS:
            raise PictureTooLarge("The file has too many small blocks; save the picture anew")
        return super().read(size)


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
    """Megapixels that ``max_bytes`` suffice to decode, by kinds of pictures, for documents."""
    rest = (max_bytes - BASE_BYTES) / 1e6
    return {
        "WebP": rest / FORMAT_BYTES["WEBP"],
        "GIF": rest / FORMAT_BYTES["GIF"],
        "PNG with a transparent colour": rest / TRANSPARENT_BYTES,
        "PNG with alpha": rest / OTHER_BYTES,
    }


def decode(header: Header, side: int) -> Picture:
    """Decode to ``side`` × ``side`` RGB, and let go of the file and of its decoded pixels.

    Raises PictureDamaged if the file is damaged.
    """
    try:
        with closing(header.image or _open(header.content)) as image:
            if image.size != (header.width, header.height):
                raise PictureDamaged("The image file gives two sizes")
            pixels, swapped = _decode(image, side)
    except PictureError:
        raise
    except Exception as error:  # Pillow's readers raise anything at all on damaged files
        raise _damaged(error) from None
    width, height = header.width, header.height
    if swapped:
        width, height = height, width
    return Picture(pixels, header.format, width, height)


def _open(content: Content) -> ImageFile.ImageFile:
    try:
        return Image.open(_Reader(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise PictureUnsupported(
            f"The file is not an image of a supported format ({', '.join(FORMATS)}), or is damaged"
        ) from None
    except PictureError:
        raise
    except Exception as error:  # as in ``decode``
        raise _damaged(error) from None


def _header(content: Content) -> Header:
    image = _open(content)
    kind = image.format or ""
    scans = _jpeg_scans(content) if kind in JPEGS else 0
    return Header(image, content, kind, *image.size, scans)


def _jpeg_scans(content: Content) -> int:
    """Scans of a JPEG whose coefficients are kept until the last; 0 if it has one scan of all
    channels, which needs no more memory than its rows.
    """
    whole = bytes(content)
    position, channels, progressive = 2, 0, False
    for _ in range(MAX_READS):
        position = whole.find(b"\xff", position)
        if position < 0 or position + 10 > len(whole):
            break
        if whole[position + 1] in {0x00, 0xFF}:
            position += 1
            continue
        marker, length = whole[position + 1], int.from_bytes(whole[position + 2 : position + 4])
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            channels, progressive = whole[position + 9], marker & 3 == 2
        if marker == START_OF_SCAN:
            if not progressive and whole[position + 4] >= channels:
                return 0
            break
        position += 2 + length
    return whole.count(b"\xff\xda")


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
    return Header(None, content, "WEBP", width, height)


def _decode(image: Image.Image, side: int) -> tuple[NDArray[np.uint8], bool]:
    """Pixels, and whether the orientation swaps width and height."""
    if image.format in JPEGS:
        # Lets libjpeg decode at 1/2, 1/4 or 1/8: at twice the size wanted, no detail is lost that
        # the last resizing would keep.
        image.draft(None, (2 * side, 2 * side))
    image.load()
    # Reading EXIF costs more than decoding a thumbnail: only where there is any.
    orientation = _orientation(image) if "exif" in image.info else 1
    square = _square(_plain_mode(image), side)
    if square.mode != "RGB":
        square = _over_white(square)
    if orientation in TRANSPOSITIONS:
        square = square.transpose(TRANSPOSITIONS[orientation])
    return np.asarray(square), orientation >= 5


def _plain_mode(image: Image.Image) -> Image.Image:
    """The same picture as L, RGB, LA or RGBA, 8 bits a channel."""
    if "transparency" in image.info and image.mode in {"P", "L", "RGB"}:
        return image.convert("RGBA")
    if image.mode in {"L", "RGB", "LA", "RGBA"}:
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode.startswith("I"):
        # 16-bit grey: convert() would clip at 255 instead of scaling.
        values = np.clip(np.asarray(image), 0, 65_535)
        return Image.fromarray((values // 257).astype(np.uint8))
    if image.mode in {"PA", "La", "RGBa"}:
        return image.convert("RGBA")
    return image.convert("RGB")


def _square(image: Image.Image, side: int) -> Image.Image:
    """The central square, resized; premultiplied by alpha on the way, as Pillow does."""
    width, height = image.size
    if width == height == side:
        return image
    crop = min(width, height)
    left, top = (width - crop) / 2, (height - crop) / 2
    box = (left, top, left + crop, top + crop)
    return image.resize((side, side), Image.Resampling.BICUBIC, box, reducing_gap=3.0)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode == "L":
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, coloured).convert("RGB")


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # damaged EXIF is common, and no reason to refuse the picture
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _damaged(error: Exception) -> PictureDamaged:
    truncated = "truncated" in str(error).lower()
    return PictureDamaged(
        "The image file is cut short" if truncated else "The image file is damaged and not readable"
    )
