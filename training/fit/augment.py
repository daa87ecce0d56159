"""Augmentation of whole batches as tensors, on whatever device they are."""

import torch
from torch import Tensor
from torch.nn import functional


def alternating_flip(images: Tensor, first: Tensor, epoch: int) -> Tensor:
    """Mirror half of the images, and the other half in the next epoch.

    ``first`` [n] is true for the images that are mirrored in even epochs. Two consecutive epochs
    then show every image both ways; independent coin flips would show half of them one way twice
    (arXiv 2404.00498, section 3.6).
    """
    mirrored = first if epoch % 2 == 0 else ~first
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def translate(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shift each of images [n, c, h, w] by up to ``pixels`` each way, filling by reflection."""
    n, _, height, width = images.shape
    padded = functional.pad(images, (pixels,) * 4, mode="reflect")
    shifts = _random(2 * pixels + 1, (2, n), images.device, generator)
    rows = shifts[0][:, None] + torch.arange(height, device=images.device)
    columns = shifts[1][:, None] + torch.arange(width, device=images.device)
    index = torch.arange(n, device=images.device)[:, None, None]
    # Advanced indices around the channel slice put the channels last.
    return padded[index, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def cutout(images: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Blank a square of ``size`` pixels in each image to 0, the mean of normalised images.

    Its centre may lie anywhere in the image, so that part of it may fall outside (DeVries and
    Taylor, arXiv 1708.04552).
    """
    n, _, height, width = images.shape
    rows = _random(height, (n, 1), images.device, generator) - size // 2
    columns = _random(width, (n, 1), images.device, generator) - size // 2
    y = torch.arange(height, device=images.device)[None]
    x = torch.arange(width, device=images.device)[None]
    in_rows = (y >= rows) & (y < rows + size)
    in_columns = (x >= columns) & (x < columns + size)
    return images.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0.0)


def cutmix(images: Tensor, generator: torch.Generator) -> tuple[Tensor, float]:
    """Paste a rectangle of its neighbour in the batch into each image.

    The rectangle is the same for the whole batch; its area is uniform between none and all (Yun et
    al., arXiv 1905.04899). Returns the images and the share of their pixels that is the
    neighbour's, which is that of row i - 1 for row i.
    """
    _, _, height, width = images.shape
    side = float(torch.rand((), generator=generator)) ** 0.5
    rows, columns = round(height * side), round(width * side)
    top = int(torch.randint(0, height - rows + 1, (), generator=generator))
    left = int(torch.randint(0, width - columns + 1, (), generator=generator))
    box = (..., slice(top, top + rows), slice(left, left + columns))
    mixed = images.clone()
    mixed[box] = images.roll(1, 0)[box]
    return mixed, rows * columns / (height * width)


def _random(
    below: int, shape: tuple[int, ...], device: torch.device, generator: torch.Generator
) -> Tensor:
    """Whole numbers from 0, drawn on the CPU, so that every device gets the same ones."""
    drawn = torch.randint(0, below, shape, generator=generator)
    # Blocking, it would wait until a GPU has done all its work.
    return drawn.to(device, non_blocking=True)
