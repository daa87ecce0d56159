"""Our own CNN: a frozen whitening convolution and three groups of convolutions.

In the spirit of K. Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv 2404.00498.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

SIDE = 32  # pixels that the widths and depths were found at; see ``ImprovedCNN``
# Directions that the whitening keeps: all 12 of a 2×2 patch, the strongest of larger ones.
KEPT_DIRECTIONS = {1: 12, 2: 24}
KEPT_OF_LARGER = 48
WHITENED_PIXELS = 20_000_000  # of the images that whitening is computed from, at most
LOGIT_SCALE = 1 / 9  # keeps early logits small; section 3 of the paper


class ConvGroup(nn.Module):
    """Convolution, 2×2 max-pooling, then ``depth - 1`` further convolutions at the lower size.

    Every convolution is followed by BatchNorm and ``activation``. The third and later ones are
    bypassed by the identity, so that depth does not slow the start of training.
    """

    def __init__(
        self, channels_in: int, channels: int, depth: int, activation: type[nn.Module] = nn.GELU
    ) -> None:
        super().__init__()
        self.conv1 = _conv(channels_in, channels)
        self.pool = nn.MaxPool2d(2)
        self.norm1: nn.Module = _norm(channels)
        self.activation1 = activation()
        self.activation_first = False
        self.convs = nn.ModuleList(_conv(channels, channels) for _ in range(depth - 1))
        self.norms = nn.ModuleList(_norm(channels) for _ in range(depth - 1))
        self.activations = nn.ModuleList(activation() for _ in range(depth - 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        if self.activation_first:
            x = self.pool(self.activation1(x))
        else:
            x = self.activation1(self.norm1(self.pool(x)))
        for index, (conv, norm, activation) in enumerate(
            zip(self.convs, self.norms, self.activations, strict=True)
        ):
            y = norm(conv(x))
            x = activation(y + x if index else y)
        return x

    def fold(self) -> None:
        """Put every BatchNorm, as it is in eval mode, into the convolution before it."""
        self.conv1, self.norm1 = _fold(self.conv1, self.norm1), nn.Identity()
        # ReLU and max-pooling commute. In this order an int8 runtime merges the ReLU into the
        # convolution: without that it takes a fifth of the time of a small network.
        self.activation_first = isinstance(self.activation1, nn.ReLU)
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            self.convs[index], self.norms[index] = _fold(conv, norm), nn.Identity()


class ImprovedCNN(nn.Module):
    """Input: float [n, 3, height, width], normalised; output: logits [n, classes].

    Height and width are those of ``side`` × ``side`` or any other multiple of ``side // 32``. Of a
    picture larger than 32 × 32 the whitening convolution takes overlapping patches with a stride
    that leaves 32 × 32 of them: 64 pixels take 1.1 times, 224 some 1.9 times the multiply-adds of
    32 (of the widths below).

    ``widths`` are the channels of the three groups, ``depths`` their numbers of convolutions,
    ``activation`` what follows each of them (GELU fits better, ReLU is faster in int8). One
    reflected row and column keep the whitened image at the size of the input, so that the pools
    (32, 16, 8, 4) drop no edge.
    """

    def __init__(
        self,
        classes: int = 10,
        widths: tuple[int, ...] = (64, 128, 320),
        depths: tuple[int, ...] = (2, 3, 3),
        activation: type[nn.Module] = nn.GELU,
        side: int = SIDE,
    ) -> None:
        super().__init__()
        self.stride = max(1, side // SIDE)
        kernel = 2 * self.stride
        whitened = 2 * KEPT_DIRECTIONS.get(self.stride, KEPT_OF_LARGER)
        self.pad = nn.ReflectionPad2d((0, self.stride, 0, self.stride))
        self.whitening = nn.Conv2d(3, whitened, kernel, stride=self.stride)
        self.whitening.weight.requires_grad_(False)
        self.activation = activation()
        inputs = (whitened, *widths[:-1])
        self.groups = nn.Sequential(
            *(
                ConvGroup(i, o, depth, activation)
                for i, o, depth in zip(inputs, widths, depths, strict=True)
            )
        )
        self.pool = nn.AdaptiveMaxPool2d(1)
        self.flatten = nn.Flatten()
        self.head = nn.Linear(widths[-1], classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.groups(self.activation(self.whitening(self.pad(x))))
        return self.head(self.flatten(self.pool(x))) * LOGIT_SCALE

    def early_layer(self) -> nn.Module:
        """The first group: what it puts out shows colours and textures."""
        return self.groups[0]

    def folded(self) -> "ImprovedCNN":
        """A copy in eval mode that computes the same with its BatchNorms folded into convolutions.

        Batch statistics are fixed by then, so that each BatchNorm is y = a·x + b with a > 0, which
        goes into the convolution's weights and bias; max-pooling in between lets a > 0 through.
        """
        duplicate = copy.deepcopy(self).eval()
        for group in duplicate.groups:
            group.fold()  # type: ignore[operator]
        return duplicate

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Set the whitening convolution from normalised training images [n, 3, h, w].

        Its filters are the eigenvectors of the covariance of the patches, each divided by the root
        of its eigenvalue, and their negatives: of 2×2 patches the 24 outputs before GELU keep all
        of the image, with equal variance; of larger ones the strongest directions are kept. Leaving
        this out costs more accuracy than anything else.
        """
        k = self.whitening.kernel_size[0]
        images = images[: max(1, WHITENED_PIXELS // (images.shape[2] * images.shape[3]))]
        patches = images.float().unfold(2, k, self.stride).unfold(3, k, self.stride)
        patches = patches.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * k * k).double()
        patches = patches - patches.mean(0)
        covariance = patches.T @ patches / len(patches)
        eigenvalues, eigenvectors = torch.linalg.eigh(covariance)
        scaled = eigenvectors.T.flip(0) / (eigenvalues.flip(0)[:, None] + 5e-4).sqrt()
        filters = scaled[: self.whitening.out_channels // 2].reshape(-1, 3, k, k)
        self.whitening.weight.copy_(torch.cat((filters, -filters)))
        nn.init.zeros_(self.whitening.bias)  # type: ignore[arg-type]


def _conv(channels_in: int, channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels_in, channels, 3, padding="same", bias=False)
    # The first filters start as the identity, so that features pass through an untrained layer.
    nn.init.dirac_(conv.weight[: min(channels_in, channels)].data)
    return conv


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, eps=1e-12, momentum=0.4)
    norm.weight.requires_grad_(False)
    return norm


@torch.no_grad()
def _fold(conv: Any, norm: Any) -> nn.Conv2d:
    """The convolution ``norm(conv(x))`` is: y = a·x + b per channel goes into weights and bias."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, padding="same")
    folded.weight.copy_(conv.weight * scale[:, None, None, None])
    folded.bias.copy_(norm.bias - norm.running_mean * scale)  # type: ignore[union-attr]
    return folded
