"""From a decoded picture, in whatever mode, to RGB pixels of the size that a network takes.

The steps, in order: cut out what is wanted, in strips, so that there never is a second copy of a
large picture; 8 bits a channel; transparent colours to alpha; resize with antialiasing,
premultiplied by alpha; colours to sRGB; alpha over white; turn as EXIF says.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image, ImageCms

from contract.containers import LARGEST_PROFILE, orientation

Resize = Literal["crop", "pad", "squash"]
Box = tuple[float, float, float, float]

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PADDING = 128  # grey level of the bars beside a padded picture
STRIP_PIXELS = 500_000
# Averaging blocks of pixels first is much faster than one resizing, and at three times the size
# wanted makes no visible difference.
REDUCING_GAP = 3.0
BICUBIC_REACH = 1.5  # pixels of the result, beyond the half that is its own

KEPT_PROFILE = 64 * 1024
USUAL_GAMMA = 1 / 2.2
MULTI_PROCESS = b"mpet"  # ICC.1:2022, 10.16: the type of tags that hardly any profile has
_SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True)
class Source:
    """What must be read from a picture before its pixels are loaded.

    ``key`` is the transparent colour: a grey level, or (r, g, b). ``frame`` is the part of the
    canvas that the first frame of a GIF covers, None for all of it.
    """

    key: int | tuple[int, ...] | None = None
    frame: tuple[int, int, int, int] | None = None


def source_of(image: Image.Image) -> Source:
    """Read it from an opened picture, before ``load``."""
    tile = getattr(image, "tile", None)
    extents = tuple(tile[0][1]) if tile and tile[0][1] else None
    if image.format == "GIF" and extents is not None and extents != (0, 0, *image.size):
        return Source(_key(image, ""), extents)
    return Source(_key(image, str(tile[0][3]) if tile else ""))


def _key(image: Image.Image, raw: str) -> int | tuple[int, ...] | None:
    """The transparent colour in the scale of the loaded pixels.

    PNG gives it in that of the file (PNG specification, section 11.3.2.1); ``raw`` is Pillow's name
    for how pixels are stored there. Of RGB with 16 bits only the upper 8 are loaded.
    """
    value = image.info.get("transparency")
    if isinstance(value, int) and image.mode in {"1", "L", "I;16"}:
        return value * {"1": 255, "L;2": 85, "L;4": 17}.get(raw, 1)
    if isinstance(value, tuple) and image.mode == "RGB":
        return tuple(level >> 8 for level in value) if "16" in raw else value
    return None


def to_square(
    image: Image.Image, source: Source, box: Box, side: int, resize: Resize
) -> tuple[Image.Image, bool]:
    """``box`` of a loaded picture as RGB, ``side`` × ``side``; and whether it was turned sideways.

    ``crop`` takes the central square, ``pad`` adds grey bars, ``squash`` changes the proportions.
    """
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    size = (side, side)
    if resize == "crop":
        edge = min(width, height)
        left, top = left + (width - edge) / 2, top + (height - edge) / 2
        box = (left, top, left + edge, top + edge)
    elif resize == "pad":
        edge = max(width, height)
        size = (max(1, round(side * width / edge)), max(1, round(side * height / edge)))
    square = _over_white(_to_srgb(_resized(image, source, box, size), image))
    exif = image.info.get("exif")
    turn = orientation(exif) if isinstance(exif, bytes) else 1
    if turn in TRANSPOSITIONS:
        square = square.transpose(TRANSPOSITIONS[turn])
    if square.size != (side, side):
        padded = Image.new("RGB", (side, side), (PADDING, PADDING, PADDING))
        padded.paste(square, ((side - square.width) // 2, (side - square.height) // 2))
        square = padded
    return square, turn >= 5


def _resized(image: Image.Image, source: Source, box: Box, size: tuple[int, int]) -> Image.Image:
    """``box`` as L, LA, RGB, RGBA or CMYK of ``size``."""
    if image.size == size and box == (0, 0, *size):
        return _plain_mode(image, source, 0)
    scale_x, scale_y = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    left = int(max(0, box[0] - BICUBIC_REACH * scale_x))
    top = int(max(0, box[1] - BICUBIC_REACH * scale_y))
    right = min(image.width, math.ceil(box[2] + BICUBIC_REACH * scale_x))
    bottom = min(image.height, math.ceil(box[3] + BICUBIC_REACH * scale_y))
    across, down = max(1, int(scale_x / REDUCING_GAP)), max(1, int(scale_y / REDUCING_GAP))
    rows = max(1, STRIP_PIXELS // ((right - left) * down)) * down

    def strip(start: int) -> Image.Image:
        part = image.crop((left, start, right, min(start + rows, bottom)))
        part = _plain_mode(part, source, start, left)
        if part.mode in {"LA", "RGBA"}:  # a transparent pixel's colour must not bleed
            part = part.convert({"LA": "La", "RGBA": "RGBa"}[part.mode])
        return part.reduce((across, down)) if across > 1 or down > 1 else part

    small = strip(top)
    if top + rows < bottom:
        first = small
        small = Image.new(first.mode, (first.width, math.ceil((bottom - top) / down)))
        small.paste(first)
        for start in range(top + rows, bottom, rows):
            small.paste(strip(start), (0, (start - top) // down))
    inner = (
        (box[0] - left) / across,
        (box[1] - top) / down,
        min((box[2] - left) / across, small.width),
        min((box[3] - top) / down, small.height),
    )
    small = small.resize(size, Image.Resampling.BICUBIC, inner)
    return small.convert({"La": "LA", "RGBa": "RGBA"}.get(small.mode, small.mode))


def _plain_mode(image: Image.Image, source: Source, top: int, left: int = 0) -> Image.Image:
    """A part of the picture, whose corner is at (left, top), as L, LA, RGB, RGBA or CMYK."""
    if source.frame is not None:
        image = image.convert("RGBA") if source.key is None else _keyed(image, source.key)
        return _only_inside(image.convert("RGBA"), source.frame, left, top)
    if source.key is not None:
        return _keyed(image, source.key)
    if image.mode in {"L", "RGB", "LA", "RGBA", "CMYK"}:
        return image
    if image.mode.startswith("I"):
        return _eight_bits(image)
    alpha = image.mode in {"PA", "La", "RGBa"} or "transparency" in image.info
    return image.convert("RGBA" if alpha else "L" if image.mode == "1" else "RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey, scaled: ``convert`` would clip it at 255."""
    values = np.clip(np.asarray(image), 0, 65_535)
    return Image.fromarray((values // 257).astype(np.uint8))


def _keyed(image: Image.Image, key: int | tuple[int, ...]) -> Image.Image:
    """The same with alpha: 0 where a pixel has the transparent colour."""
    if isinstance(key, tuple):
        transparent = (np.asarray(image) == np.array(key)).all(-1)
    elif image.mode == "1":
        image = image.convert("L")
        transparent = np.asarray(image) == key
    else:
        transparent = np.asarray(image) == key
        image = _eight_bits(image) if image.mode.startswith("I") else image
    alpha = Image.fromarray(np.where(transparent, 0, 255).astype(np.uint8))
    keyed = image.convert("LA" if image.mode == "L" else "RGBA")
    keyed.putalpha(alpha)
    return keyed


def _only_inside(
    image: Image.Image, frame: tuple[int, int, int, int], left: int, top: int
) -> Image.Image:
    """RGBA that is transparent outside of ``frame``; ``image`` begins at (left, top)."""
    inside = (frame[0] - left, frame[1] - top, frame[2] - left, frame[3] - top)
    clear = Image.new("RGBA", image.size, (255, 255, 255, 0))
    box = (
        max(0, inside[0]),
        max(0, inside[1]),
        min(image.width, inside[2]),
        min(image.height, inside[3]),
    )
    if box[0] < box[2] and box[1] < box[3]:
        clear.paste(image.crop(box), box)
    return clear


def _to_srgb(square: Image.Image, image: Image.Image) -> Image.Image:
    """The colours as the file's ICC profile or PNG ``gAMA`` says; broken ones are passed over.

    Done on the resized picture: on all of a photo it would take longer than decoding it.
    """
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and len(profile) <= LARGEST_PROFILE:
        make = _kept_transform if len(profile) <= KEPT_PROFILE else _transform
        colours = {"LA": "L", "RGBA": "RGB"}.get(square.mode, square.mode)
        transform = make(profile, colours)
        if transform is not None:
            plain = transform(square.convert(colours))
            if colours != square.mode:
                plain.putalpha(square.getchannel("A"))
            return plain
    gamma = image.info.get("gamma")
    if isinstance(gamma, float) and "srgb" not in image.info and square.mode != "CMYK":
        return _with_gamma(square, gamma)
    return square


def _transform(profile: bytes, mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """From the colours of a profile to sRGB; None where it is broken or of other colours.

    Also where it computes by multi-process elements, of which a profile may have any number: 64 KB
    are enough for 8,000, each worked out at 36,000 points.
    """
    if MULTI_PROCESS in profile:
        return None
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
        transform = ImageCms.buildTransform(opened, _SRGB, mode, "RGB")
    except Exception:  # LittleCMS says no more than that it can't
        return None

    def apply(picture: Image.Image) -> Image.Image:
        return ImageCms.applyTransform(picture, transform) or picture

    return apply


_kept_transform = lru_cache(maxsize=16)(_transform)


def _with_gamma(square: Image.Image, gamma: float) -> Image.Image:
    """PNG's ``gAMA``: levels are light to the power of ``gamma``; sRGB's is nearly 1/2.2."""
    if not 0.1 <= gamma <= 2 or abs(gamma - USUAL_GAMMA) < 0.02:
        return square
    table = [round(255 * (level / 255) ** (USUAL_GAMMA / gamma)) for level in range(256)]
    colours = len(square.getbands()) - (square.mode in {"LA", "RGBA"})
    keep = list(range(256)) if square.mode in {"LA", "RGBA"} else []
    return square.point(table * colours + keep)


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode in {"RGB", "L", "CMYK"}:
        return image.convert("RGB")
    coloured = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, coloured).convert("RGB")
