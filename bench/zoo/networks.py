"""Networks of the collection: small, of every kind of layer."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class Residual(nn.Module):
    """LayerNorm and a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.middle = nn.Linear(3, 16), nn.LayerNorm(16), nn.Linear(16, 16)
        self.dropout, self.last = nn.Dropout(0.3), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden = hidden + self.dropout(functional.silu(self.middle(self.norm(hidden))))
        return self.last(hidden)


class BatchNormed(nn.Module):
    """BatchNorm with running statistics of its own."""

    def __init__(self) -> None:
        super().__init__()
        norms = nn.BatchNorm1d(16), nn.BatchNorm1d(16)
        for norm in norms:
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
        self.layers = nn.Sequential(
            nn.Linear(3, 16), norms[0], nn.ReLU(), nn.Linear(16, 16), norms[1], nn.Tanh(),
            nn.Linear(16, 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Embedded(nn.Module):
    """An integer input beside a real one."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.layers = nn.Sequential(nn.Linear(7, 16), nn.Tanh(), nn.Linear(16, 2))

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        return self.layers(torch.cat([x, self.embedding(index)], 1))


def cnn() -> nn.Module:
    """Grouped and strided convolutions, pooling, BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.GELU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(8), nn.SiLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
    )  # fmt: skip


class Recurrent(nn.Module):
    """LSTM or GRU over a sequence."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.recurrent = getattr(nn, kind)(3, 16, 1, batch_first=True)
        self.last = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.recurrent(x)[0][:, -1])


class Cells(nn.Module):
    """An LSTM cell in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.last = nn.LSTMCell(3, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = x.new_zeros(x.shape[0], 16)
        state = hidden
        for step in range(x.shape[1]):
            hidden, state = self.cell(x[:, step], (hidden, state))
        return self.last(hidden)


class Encoder(nn.Module):
    """PyTorch's own transformer encoder."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.first, self.encoder = nn.Linear(3, 16), nn.TransformerEncoder(layer, 2)
        self.last = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.encoder(self.first(x)).mean(1))


class Attention(nn.Module):
    """Attention written out by hand around ``scaled_dot_product_attention``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 16), nn.Linear(16, 2)
        self.heads, self.project, self.norm = nn.Linear(16, 48), nn.Linear(16, 16), nn.LayerNorm(16)
        self.feed = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        rows, length, width = hidden.shape
        heads = self.heads(self.norm(hidden)).reshape(rows, length, 3, 2, 8)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value)
        hidden = hidden + self.project(seen.transpose(1, 2).reshape(rows, length, width))
        return self.last((hidden + self.feed(self.norm(hidden))).mean(1))


class Flow(nn.Module):
    """Log density of a normalising flow with affine couplings."""

    def __init__(self, size: int = 4, layers: int = 4) -> None:
        super().__init__()
        self.half = size // 2
        self.networks = nn.ModuleList(
            nn.Sequential(nn.Linear(self.half, 16), nn.Tanh(), nn.Linear(16, size))
            for _ in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = x[:, : self.half], x[:, self.half :]
        log_det = x.new_zeros(x.shape[0])
        for network in self.networks:
            scale, shift = network(first).chunk(2, 1)
            scale = torch.tanh(scale)
            second = second * torch.exp(scale) + shift
            log_det = log_det + scale.sum(1)
            first, second = second, first
        z = torch.cat([first, second], 1)
        return log_det - 0.5 * (z * z).sum(1) - self.half * math.log(2 * math.pi)


def mlp(activation: type[nn.Module]) -> nn.Module:
    """3 → 32 → 32 → 2."""
    return nn.Sequential(
        nn.Linear(3, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, 2)
    )
