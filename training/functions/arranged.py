"""Recordings over rows, arranged into the tensors that an artifact's functions take and give.

A row that is asked about in k directions becomes k rows; results are folded back. What has no batch
of its own is repeated for every row, and its results are summed over the rows (vjp, hvp) or kept
for each (jacobian, hessian).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from training.functions.described import Described, Port


def repeated(tensor: Tensor, port: Port, rows: int | None, times: int) -> Tensor:
    """Every row ``times`` times in turn: [n, …] → [n·times, …]; without a batch […] → the same."""
    if port.batched:
        spread = tensor.unsqueeze(1).expand(-1, times, *port.shape)
        return spread.reshape(-1, *port.shape)
    count = times if rows is None else rows * times
    return tensor.unsqueeze(0).expand(count, *port.shape)


class Directions(nn.Module):
    """vjp, jvp or hvp for k directions a row: inputs and [n, k, …] vectors → [n, k, …] results."""

    def __init__(
        self,
        recorded: nn.Module,
        described: Described,
        vectors: Sequence[Port],
        results: Sequence[Port],
    ) -> None:
        super().__init__()
        self.recorded = recorded
        self.described, self.vectors, self.results = described, vectors, results

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Inputs, then vectors, in order."""
        count = len(self.described.inputs)
        inputs, vectors = arguments[:count], arguments[count:]
        rows = _rows(self.described, inputs)
        times = vectors[0].shape[1 if self.vectors[0].batched else 0]
        spread = [
            repeated(tensor, port, rows, times)
            for tensor, port in zip(inputs, self.described.inputs, strict=True)
        ]
        flat = [
            self._flat(vector, port, rows, times)
            for vector, port in zip(vectors, self.vectors, strict=True)
        ]
        found = self.recorded(*spread, *flat)
        return tuple(
            self._folded(result, port, rows, times)
            for result, port in zip(found, self.results, strict=True)
        )

    def _flat(self, vector: Tensor, port: Port, rows: int | None, times: int) -> Tensor:
        if rows is not None and not port.batched:
            vector = vector.unsqueeze(0).expand(rows, times, *port.shape)
        return vector if rows is None else vector.reshape(-1, *port.shape)

    def _folded(self, result: Tensor, port: Port, rows: int | None, times: int) -> Tensor:
        if rows is None:
            return result
        folded = result.reshape(rows, times, *port.shape)
        return folded if port.batched else folded.sum(0)


class WithUnitCotangent(nn.Module):
    """hvp of the only number a row: its cotangent is 1."""

    def __init__(self, recorded: nn.Module, described: Described) -> None:
        super().__init__()
        self.recorded, self.port = recorded, described.outputs[described.of[0]]

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Inputs and tangents, by row."""
        rows = arguments[0].shape[0]
        one = torch.ones((), dtype=self.port.dtype).expand(rows, *self.port.shape)
        found: tuple[Tensor, ...] = self.recorded(*arguments, one)
        return found


class Jacobian(nn.Module):
    """∂ output / ∂ input for every pair: [n, *output, *input], or [n, *input] where ``bare``.

    ``recorded`` has the pullback of each output, by its place.
    """

    def __init__(
        self, recorded: Mapping[int, nn.Module], described: Described, *, bare: bool = False
    ) -> None:
        super().__init__()
        self.described, self.bare, self.places = described, bare, tuple(recorded)
        self.pullbacks = nn.ModuleList(recorded.values())
        for place in self.places:
            self.register_buffer(f"unit{place}", _units(described.outputs[place]))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Every pair, outputs first."""
        rows = _rows(self.described, inputs)
        results = []
        for place, pullback in zip(self.places, self.pullbacks, strict=True):
            output = self.described.outputs[place]
            spread = [
                repeated(tensor, port, rows, output.size)
                for tensor, port in zip(inputs, self.described.inputs, strict=True)
            ]
            unit = getattr(self, f"unit{place}")
            found = pullback(*spread, _each_row(unit, rows))
            shape = () if self.bare else output.shape
            for wanted, result in zip(self.described.wrt, found, strict=True):
                sizes = (*shape, *self.described.inputs[wanted].shape)
                results.append(result.reshape(sizes if rows is None else (rows, *sizes)))
        return tuple(results)


class Hessian(nn.Module):
    """∂² output / ∂ a ∂ b for every output and ordered pair of inputs: [n, *output, *a, *b]."""

    def __init__(self, recorded: Mapping[int, nn.Module], described: Described) -> None:
        super().__init__()
        self.described, self.places = described, tuple(recorded)
        self.products = nn.ModuleList(recorded.values())
        for place in self.places:
            output = described.outputs[place]
            for wanted in described.wrt:
                port = described.inputs[wanted]
                # All pairs of a unit cotangent and a unit tangent, the tangent's place last.
                self.register_buffer(
                    f"cotangent{place}_{wanted}", _units(output).repeat_interleave(port.size, 0)
                )
                tangents = _units(port).repeat(output.size, *[1] * len(port.shape))
                self.register_buffer(f"tangent{place}_{wanted}", tangents)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """By output, then a, then b."""
        rows = _rows(self.described, inputs)
        wrt = self.described.wrt
        results = []
        for place, product in zip(self.places, self.products, strict=True):
            output = self.described.outputs[place]
            columns = {b: self._column(product, place, b, inputs, rows) for b in wrt}
            for a in wrt:
                first = self.described.inputs[a]
                for b in wrt:
                    second = self.described.inputs[b]
                    lead = () if rows is None else (rows,)
                    block = columns[b][wrt.index(a)].reshape(
                        *lead, output.size, second.size, first.size
                    )
                    results.append(
                        block.transpose(-1, -2).reshape(
                            *lead, *output.shape, *first.shape, *second.shape
                        )
                    )
        return tuple(results)

    def _column(
        self,
        product: Callable[..., tuple[Tensor, ...]],
        place: int,
        wanted: int,
        inputs: Sequence[Tensor],
        rows: int | None,
    ) -> tuple[Tensor, ...]:
        """Hessian times every unit tangent of one input."""
        cotangent = getattr(self, f"cotangent{place}_{wanted}")
        times = cotangent.shape[0]
        spread = [
            repeated(tensor, port, rows, times)
            for tensor, port in zip(inputs, self.described.inputs, strict=True)
        ]
        tangents = [
            _each_row(getattr(self, f"tangent{place}_{wanted}"), rows)
            if other == wanted
            else torch.zeros_like(spread[other])
            for other in self.described.wrt
        ]
        return product(*spread, *tangents, _each_row(cotangent, rows))


def _rows(described: Described, inputs: Sequence[Tensor]) -> int | None:
    """n, or None if no input has a batch."""
    for tensor, port in zip(inputs, described.inputs, strict=True):
        if port.batched:
            return tensor.shape[0]
    return None


def _units(port: Port) -> Tensor:
    """Every unit vector of a row: [size, *shape]."""
    return torch.eye(port.size, dtype=port.dtype).reshape(port.size, *port.shape)


def _each_row(vectors: Tensor, rows: int | None) -> Tensor:
    """The same vectors for every row: [m, …] → [n·m, …]."""
    if rows is None:
        return vectors
    shape = vectors.shape[1:]
    return vectors.unsqueeze(0).expand(rows, *vectors.shape).reshape(-1, *shape)
