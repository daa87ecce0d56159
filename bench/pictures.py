"""Pictures to send: smooth random scenes, made here, so that nobody's data is needed.

Each is a sum of random fields at several scales plus a little grain, which compresses much as a
photograph does: 2 KB as a 32×32 PNG, 3 MB as a 12-megapixel JPEG.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

CANDIDATES = 32


@dataclass(frozen=True)
class Picture:
    """One kind of picture to send."""

    name: str
    width: int
    height: int
    format: str
    quality: int = 88


CIFAR_SIZE = Picture("2 KB PNG, 32×32", 32, 32, "PNG")
WEB_SIZE = Picture("640×480 JPEG", 640, 480, "JPEG")
PHOTO_SIZE = Picture("12-megapixel JPEG, 4000×3000", 4000, 3000, "JPEG")
# A small file that takes long to decode: the server is the bottleneck, not who sends it.
DENSE = Picture("3 KB WebP, 400×400", 400, 400, "WEBP", quality=30)
PICTURES = (CIFAR_SIZE, WEB_SIZE, PHOTO_SIZE)


def scene(seed: int, width: int, height: int) -> Image.Image:
    """The random scene of a seed at any size: RGB, the same composition at every size."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((2, 90), (4, 60), (8, 35), (16, 18)):
        field = random.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        for channel in range(3):
            coarse = Image.fromarray(field[:, :, channel])
            total[:, :, channel] += np.asarray(
                coarse.resize((width, height), Image.Resampling.BICUBIC)
            )
    grain = random.standard_normal((height, width, 1), np.float32) * 4
    return Image.fromarray(np.clip(total + grain + 128, 0, 255).astype(np.uint8))


def encode(picture: Picture, seed: int) -> bytes:
    """The scene as a file of the picture's size and format."""
    content = io.BytesIO()
    scene(seed, picture.width, picture.height).save(
        content, picture.format, quality=picture.quality
    )
    return content.getvalue()


def clearest_seed(picture: Picture, confidence: Callable[[Image.Image], float]) -> int:
    """The seed whose scene the network is surest of, so that a rounding can't change its answer.

    The candidates are looked at in a small size with the picture's aspect ratio.
    """
    scale = 64 / max(picture.width, picture.height, 64)
    size = (round(picture.width * scale), round(picture.height * scale))
    return max(range(CANDIDATES), key=lambda seed: confidence(scene(seed, *size)))
