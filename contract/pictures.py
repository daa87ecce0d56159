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

# By the names of Pillow's readers: that of JPEG also reads MPO, a JPEG of several pictures. The
# reader of WebP is not among those that Pillow imports by itself.
FORMATS = ("PNG", "JPEG", WebPImagePlugin.WebPImageFile.format, "GIF", "BMP")

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

# Pillow's own limit warns first and refuses at twice that; ours, checked at the same moment,
# refuses at once. Its global is switched off so that the two can't disagree.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Header:
    """A file that has been recognised and whose size is within limits, not yet decoded."""

    image: ImageFile.ImageFile
    format: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """How many there are to decode."""
        return self.width * self.height


@dataclass(frozen=True)
class Picture:
    """A decoded picture. ``width`` and ``height`` are the file's, in pixels, as displayed."""

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int


def opens_whole(content: bytes | bytearray | memoryview) -> bool:
    """Does opening it make room for the whole picture? Pillow's reader of WebP does, twice."""
    return bytes(content[8:12]) == b"WEBP"


def open_image(content: bytes | bytearray | memoryview, max_pixels: int, max_side: int) -> Header:
    """Recognise the format and read the size.

    Raises PictureUnsupported if it is none of FORMATS, PictureTooLarge if it has more than
    ``max_pixels`` or a side longer than ``max_side``, PictureDamaged if it is damaged.
    """
    if not content:
        raise PictureDamaged("The file is empty")
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError:
        raise PictureUnsupported(
            f"The file is not an image of a supported format ({', '.join(FORMATS)}), or is damaged"
        ) from None
    except Exception as error:  # Pillow's readers raise anything at all on damaged files
        raise _damaged(error) from None
    width, height = image.size
    if width * height > max_pixels:
        raise PictureTooLarge(f"The image has more than {max_pixels} pixels")
    if max(width, height) > max_side:
        raise PictureTooLarge(f"The image has a side of more than {max_side} pixels")
    if "progressive" in image.info and bytes(content).count(b"\xff\xda") > MAX_JPEG_SCANS:
        raise PictureTooLarge(f"The JPEG has more than {MAX_JPEG_SCANS} scans")
    return Header(image, image.format or "", width, height)


def decode(header: Header, side: int) -> Picture:
    """Decode to ``side`` × ``side`` RGB, and let go of the file and of its decoded pixels.

    Raises PictureDamaged if the file is damaged.
    """
    try:
        with closing(header.image) as image:
            pixels, swapped = _decode(image, side)
    except PictureError:
        raise
    except Exception as error:  # as above
        raise _damaged(error) from None
    width, height = header.width, header.height
    if swapped:
        width, height = height, width
    return Picture(pixels, header.format, width, height)


def _decode(image: Image.Image, side: int) -> tuple[NDArray[np.uint8], bool]:
    """Pixels, and whether the orientation swaps width and height."""
    if image.format in {"JPEG", "MPO"}:
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
