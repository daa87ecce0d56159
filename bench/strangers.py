"""Pictures that are of none of CIFAR-10's classes, made here or found in installed packages.

scikit-image and scikit-learn bring photographs, faces and digits with them; the rest is drawn.
Nothing is downloaded. ``chelsea`` (a cat) and ``horse`` are left out: they are of CIFAR-10's kinds.
"""

from collections.abc import Callable, Iterator

import numpy as np
import skimage.data
import sklearn.datasets
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Pixels = NDArray[np.uint8]
Random = np.random.Generator

SIDE = 32
DRAWN = 128  # pixels a side while drawing: edges come out as smooth as a camera's
LEAST_SQUARE = 48  # pixels a side of what is cut out of a photograph
SCENES = ("astronaut", "camera", "coffee", "rocket", "coins")
SURFACES = ("brick", "grass", "gravel", "moon", "hubble_deep_field", "immunohistochemistry")
TILE = 8
LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;()+-=")


def strangers(count: int, test_images: Pixels, seed: int = 0) -> Iterator[tuple[str, Pixels]]:
    """Name and pictures uint8 [count, 32, 32, 3] of each kind; of the faces there are 100.

    ``test_images`` uint8 [n, 32, 32, 3] are those that are scrambled.
    """
    makers: dict[str, Callable[[Random], Pixels]] = {
        "photographs, squares of": _from(_scenes()),
        "surfaces, the sky, a microscope": _from(_surfaces()),
        "shapes": _shapes,
        "diagrams": _diagram,
        "text": _text,
        "noise": _noise,
        "test images, scrambled": lambda random: _scrambled(random, test_images),
    }
    for number, (name, make) in enumerate(makers.items()):
        random = np.random.default_rng([seed, number])
        yield name, np.stack([make(random) for _ in range(count)])
    yield "faces", _faces()
    yield "digits", _digits(count)


def _scenes() -> list[Pixels]:
    found = [_colour(getattr(skimage.data, name)()) for name in SCENES]
    found += [_colour(image) for image in skimage.data.stereo_motorcycle()[:1]]
    return found + [_colour(image) for image in sklearn.datasets.load_sample_images().images]


def _surfaces() -> list[Pixels]:
    return [_colour(getattr(skimage.data, name)()) for name in SURFACES]


def _colour(image: NDArray[np.generic]) -> Pixels:
    pixels: Pixels = np.asarray(image, np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, 2)


def _from(photographs: list[Pixels]) -> Callable[[Random], Pixels]:
    def square(random: Random) -> Pixels:
        photograph = photographs[random.integers(len(photographs))]
        height, width = photograph.shape[:2]
        side = int(random.integers(LEAST_SQUARE, min(height, width) + 1))
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        return _small(Image.fromarray(photograph[top : top + side, left : left + side]))

    return square


def _small(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def _faces() -> Pixels:
    grey = skimage.data.lfw_subset()[:100]  # the other half are squares without a face
    images = [Image.fromarray((255 * face).astype(np.uint8)) for face in grey]
    return np.stack([_small(image) for image in images])


def _digits(count: int) -> Pixels:
    images = sklearn.datasets.load_digits().images[:count]  # 8×8, from 0 to 16
    grey = [Image.fromarray((image * 15.9).astype(np.uint8)) for image in images]
    return np.stack([_small(image) for image in grey])


def _any_colour(random: Random) -> tuple[int, int, int]:
    red, green, blue = random.integers(0, 256, 3).tolist()
    return red, green, blue


def _canvas(random: Random) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (DRAWN, DRAWN), _any_colour(random))
    return image, ImageDraw.Draw(image)


def _shapes(random: Random) -> Pixels:
    image, draw = _canvas(random)
    for _ in range(random.integers(1, 5)):
        corners = random.integers(0, DRAWN, (random.integers(3, 7), 2))
        if random.random() < 0.5:
            draw.polygon([tuple(corner) for corner in corners.tolist()], _any_colour(random))
        else:
            low, high = corners[:2].min(0), corners[:2].max(0) + 1
            draw.ellipse([*low.tolist(), *high.tolist()], _any_colour(random))
    return _small(image)


def _diagram(random: Random) -> Pixels:
    """Bars or a curve with axes, or boxes joined by lines, dark on white."""
    image = Image.new("RGB", (DRAWN, DRAWN), "white")
    draw = ImageDraw.Draw(image)
    kind = random.integers(3)
    if kind < 2:
        draw.line([(12, 8), (12, 116), (122, 116)], "black", 3)
    if kind == 0:
        bars = int(random.integers(3, 8))
        width = 104 // bars
        for bar in range(bars):
            left, top = 16 + bar * width, int(random.integers(12, 110))
            draw.rectangle([left, top, left + width - 4, 114], _any_colour(random))
    elif kind == 1:
        for _ in range(random.integers(1, 4)):
            steps = random.normal(0, 12, 24).cumsum() + random.integers(30, 100)
            xs = np.linspace(14, 120, 24)
            points = list(zip(xs.tolist(), steps.clip(8, 114).tolist(), strict=True))
            draw.line(points, _any_colour(random), 4)
    else:
        centres = random.integers(20, DRAWN - 20, (random.integers(3, 6), 2)).tolist()
        draw.line([tuple(centre) for centre in centres], "black", 3)
        for x, y in centres:
            draw.rectangle([x - 16, y - 10, x + 16, y + 10], _any_colour(random), "black", 2)
    return _small(image)


def _text(random: Random) -> Pixels:
    dark, light = random.integers(0, 90, 3), random.integers(166, 256, 3)
    ink, paper = (dark, light) if random.random() < 0.7 else (light, dark)
    image = Image.new("RGB", (DRAWN, DRAWN), tuple(paper.tolist()))
    size = int(random.integers(16, 56))
    font = ImageFont.load_default(size)
    for top in range(int(random.integers(0, size)) - size // 2, DRAWN, int(size * 1.2)):
        line = "".join(random.choice(LETTERS, 16))
        ImageDraw.Draw(image).text((-4, top), line, tuple(ink.tolist()), font)
    return _small(image)


def _noise(random: Random) -> Pixels:
    """Uniform or normal, in colour or grey, some of it blurred."""
    grey = random.random() < 0.3
    shape = (SIDE, SIDE, 1 if grey else 3)
    if random.random() < 0.5:
        values = random.uniform(0, 255, shape)
    else:
        values = random.normal(random.uniform(60, 196), random.uniform(15, 70), shape)
    image = Image.fromarray(np.broadcast_to(values.clip(0, 255), (SIDE, SIDE, 3)).astype(np.uint8))
    if random.random() < 0.4:
        image = image.filter(ImageFilter.GaussianBlur(float(random.uniform(0.5, 2))))
    return np.asarray(image)


def _scrambled(random: Random, test_images: Pixels) -> Pixels:
    """A test image cut into 16 tiles, which are put together in another order."""
    image = test_images[random.integers(len(test_images))]
    across = SIDE // TILE
    tiles = image.reshape(across, TILE, across, TILE, 3).swapaxes(1, 2).reshape(-1, TILE, TILE, 3)
    mixed = tiles[random.permutation(len(tiles))].reshape(across, across, TILE, TILE, 3)
    return mixed.swapaxes(1, 2).reshape(SIDE, SIDE, 3)
