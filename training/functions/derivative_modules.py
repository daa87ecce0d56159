"""Recordings over rows, arranged into the tensors that an artifact's functions take and give.

A row that is asked about in k directions becomes k rows; results are folded back. What has no batch
of its own is repeated for every row, and its results are summed over the rows (vjp, hvp) or kept
for each (jacobian, hessian).
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from training.functions.function_spec import FunctionSpec, TensorSpec


def repeated(tensor: Tensor, tensor_spec: TensorSpec, rows: int | None, times: int) -> Tensor:
    """Every row ``times`` times in turn: [n, …] → [n·times, …]; without a batch […] → the same."""
    if tensor_spec.batched:
        spread = tensor.unsqueeze(1).expand(-1, times, *tensor_spec.shape)
        return spread.reshape(-1, *tensor_spec.shape)
    count = times if rows is None else rows * times
    return tensor.unsqueeze(0).expand(count, *tensor_spec.shape)


class Directions(nn.Module):
    """vjp, jvp or hvp for k directions a row: inputs and [n, k, …] vectors → [n, k, …] results."""

    def __init__(
        self,
        recorded: nn.Module,
        spec: FunctionSpec,
        vectors: Sequence[TensorSpec],
        results: Sequence[TensorSpec],
    ) -> None:
        super().__init__()
        self.recorded = recorded
        self.spec, self.vectors, self.results = spec, vectors, results

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Inputs, then vectors, in order."""
        count = len(self.spec.inputs)
        inputs, vectors = arguments[:count], arguments[count:]
        rows = _rows(self.spec, inputs)
        times = vectors[0].shape[1 if self.vectors[0].batched else 0]
        spread = [
            repeated(tensor, tensor_spec, rows, times)
            for tensor, tensor_spec in zip(inputs, self.spec.inputs, strict=True)
        ]
        flat = [
            self._flat(vector, tensor_spec, rows, times)
            for vector, tensor_spec in zip(vectors, self.vectors, strict=True)
        ]
        found = self.recorded(*spread, *flat)
        return tuple(
            self._folded(result, tensor_spec, rows, times)
            for result, tensor_spec in zip(found, self.results, strict=True)
        )

    def _flat(
        self, vector: Tensor, tensor_spec: TensorSpec, rows: int | None, times: int
    ) -> Tensor:
        if rows is not None and not tensor_spec.batched:
            vector = vector.unsqueeze(0).expand(rows, times, *tensor_spec.shape)
        return vector if rows is None else vector.reshape(-1, *tensor_spec.shape)

    def _folded(
        self, result: Tensor, tensor_spec: TensorSpec, rows: int | None, times: int
    ) -> Tensor:
        if rows is None:
            return result
        folded = result.reshape(rows, times, *tensor_spec.shape)
        return folded if tensor_spec.batched else folded.sum(0)


class WithUnitCotangent(nn.Module):
    """hvp of the only number a row: its cotangent is 1."""

    def __init__(self, recorded: nn.Module, spec: FunctionSpec) -> None:
        super().__init__()
        self.recorded, self.tensor_spec = recorded, spec.outputs[spec.of[0]]

    def forward(self, *arguments: Tensor) -> tuple[Tensor, ...]:
        """Inputs and tangents, by row."""
        rows = arguments[0].shape[0]
        one = torch.ones((), dtype=self.tensor_spec.dtype).expand(rows, *self.tensor_spec.shape)
        found: tuple[Tensor, ...] = self.recorded(*arguments, one)
        return found


class Jacobian(nn.Module):
    """∂ output / ∂ input for every pair: [n, *output, *input], or [n, *input] where ``bare``.

    ``recorded`` has the pullback of each output, by its place.
    """

    def __init__(
        self, recorded: Mapping[int, nn.Module], spec: FunctionSpec, *, bare: bool = False
    ) -> None:
        super().__init__()
        self.spec, self.bare, self.places = spec, bare, tuple(recorded)
        self.pullbacks = nn.ModuleList(recorded.values())
        for place in self.places:
            self.register_buffer(f"unit{place}", _units(spec.outputs[place]))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Every pair, outputs first."""
        rows = _rows(self.spec, inputs)
        results = []
        for place, pullback in zip(self.places, self.pullbacks, strict=True):
            output = self.spec.outputs[place]
            spread = [
                repeated(tensor, tensor_spec, rows, output.size)
                for tensor, tensor_spec in zip(inputs, self.spec.inputs, strict=True)
            ]
            unit = getattr(self, f"unit{place}")
            found = pullback(*spread, _each_row(unit, rows))
            shape = () if self.bare else output.shape
            for wanted, result in zip(self.spec.wrt, found, strict=True):
                sizes = (*shape, *self.spec.inputs[wanted].shape)
                results.append(result.reshape(sizes if rows is None else (rows, *sizes)))
        return tuple(results)


class Hessian(nn.Module):
    """∂² output / ∂ a ∂ b for every output and ordered pair of inputs: [n, *output, *a, *b]."""

    def __init__(self, recorded: Mapping[int, nn.Module], spec: FunctionSpec) -> None:
        super().__init__()
        self.spec, self.places = spec, tuple(recorded)
        self.products = nn.ModuleList(recorded.values())
        for place in self.places:
            output = spec.outputs[place]
            for wanted in spec.wrt:
                tensor_spec = spec.inputs[wanted]
                # All pairs of a unit cotangent and a unit tangent, the tangent's place last.
                self.register_buffer(
                    f"cotangent{place}_{wanted}",
                    _units(output).repeat_interleave(tensor_spec.size, 0),
                )
                tangents = _units(tensor_spec).repeat(output.size, *[1] * len(tensor_spec.shape))
                self.register_buffer(f"tangent{place}_{wanted}", tangents)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """By output, then a, then b."""
        rows = _rows(self.spec, inputs)
        wrt = self.spec.wrt
        results = []
        for place, product in zip(self.places, self.products, strict=True):
            output = self.spec.outputs[place]
            columns = {b: self._column(product, place, b, inputs, rows) for b in wrt}
            for a in wrt:
                first = self.spec.inputs[a]
                for b in wrt:
                    second = self.spec.inputs[b]
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
            repeated(tensor, tensor_spec, rows, times)
            for tensor, tensor_spec in zip(inputs, self.spec.inputs, strict=True)
        ]
        tangents = [
            _each_row(getattr(self, f"tangent{place}_{wanted}"), rows)
            if other == wanted
            else torch.zeros_like(spread[other])
            for other in self.spec.wrt
        ]
        return product(*spread, *tangents, _each_row(cotangent, rows))


def _rows(spec: FunctionSpec, inputs: Sequence[Tensor]) -> int | None:
    """n, or None if no input has a batch."""
    for tensor, tensor_spec in zip(inputs, spec.inputs, strict=True):
        if tensor_spec.batched:
            return tensor.shape[0]
    return None


def _units(tensor_spec: TensorSpec) -> Tensor:
    """Every unit vector of a row: [size, *shape]."""
    return torch.eye(tensor_spec.size, dtype=tensor_spec.dtype).reshape(
        tensor_spec.size, *tensor_spec.shape
    )


def _each_row(vectors: Tensor, rows: int | None) -> Tensor:
    """The same vectors for every row: [m, …] → [n·m, …]."""
    if rows is None:
        return vectors
    shape = vectors.shape[1:]
    return vectors.unsqueeze(0).expand(rows, *vectors.shape).reshape(-1, *shape)
