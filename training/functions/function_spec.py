"""A function with its tensors specified: names, types, sizes of a row, and which can be varied."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import JobError
from training.functions.publication import OUTPUT_TYPES, Publication
from training.functions.refusal import (
    BAKED_IN,
    NOT_FINITE,
    RANDOM,
    ROWS_MIX,
    Refusal,
    differentiating_inside,
)
from training.publish.derivatives import frozen
from training.publish.record import traceable


@dataclass(frozen=True)
class TensorSpec:
    """An input or output. ``shape`` is a row's, without the batch."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    batched: bool

    @property
    def differentiable(self) -> bool:
        """Real numbers have derivatives, integers don't."""
        return self.dtype.is_floating_point

    @property
    def size(self) -> int:
        """Numbers a row."""
        return int(torch.Size(self.shape).numel())


@dataclass(frozen=True)
class FunctionSpec:
    """A function from tensors, in the order of ``inputs``, to a tuple of ``outputs``."""

    function: Callable[..., tuple[Tensor, ...]]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def batched(self) -> bool:
        """Has any input a batch? Without one, no output has."""
        return any(tensor_spec.batched for tensor_spec in self.inputs)

    @property
    def wrt(self) -> tuple[int, ...]:
        """Places of the inputs that can be varied."""
        return tuple(i for i, tensor_spec in enumerate(self.inputs) if tensor_spec.differentiable)

    @property
    def of(self) -> tuple[int, ...]:
        """Places of the outputs that have derivatives."""
        return tuple(i for i, tensor_spec in enumerate(self.outputs) if tensor_spec.differentiable)

    @property
    def scalars(self) -> tuple[int, ...]:
        """Places of the outputs that are one number a row."""
        return tuple(i for i in self.of if self.outputs[i].size == 1)

    @property
    def one_number(self) -> bool:
        """Is one number a row all there is to differentiate? Then hvp needs no cotangent."""
        return len(self.of) == 1 and self.of == self.scalars

    @property
    def double(self) -> bool:
        """Does it compute in float64?"""
        return any(
            tensor_spec.dtype == torch.float64 for tensor_spec in (*self.inputs, *self.outputs)
        )


def describe(publication: Publication) -> FunctionSpec:
    """Run the function on its examples and describe what comes out.

    Raises Refusal for random functions, rows that mix and numbers that aren't finite; JobError if
    the function itself fails.
    """
    function = publication.function
    if isinstance(function, nn.Module):
        function = frozen(function)
    called = _tuple_of(function)
    inputs = list(publication.inputs.values())
    given = [tensor.clone() for tensor in inputs]
    outputs = _call(called, given)
    for name, before, after in zip(publication.inputs, inputs, given, strict=True):
        if not torch.equal(before, after):
            raise JobError(f"the function writes into its input {name}; start with {name}.clone()")
    names = list(publication.outputs)
    if len(outputs) != len(names):
        raise JobError(
            f"the function gives {len(outputs)} outputs, but outputs= names {len(names)}: {names}"
        )
    rows = len(next(iter(publication.examples.values()), ()))
    tensor_specs = []
    for name, output in zip(names, outputs, strict=True):
        if not isinstance(output, Tensor) or output.dtype not in OUTPUT_TYPES:
            kind = output.dtype if isinstance(output, Tensor) else type(output).__name__
            raise JobError(
                f"output {name} is {kind}; the service knows float64, float32, int64 and uint8"
            )
        if rows and (output.dim() == 0 or output.shape[0] != rows):
            raise JobError(
                f"output {name} has shape {list(output.shape)} for {rows} rows; its first size "
                "should be the number of rows"
            )
        if output.layout != torch.strided:
            raise JobError(f"output {name} is sparse; return {name}.to_dense()")
        if not output.numel():
            raise JobError(f"output {name} has no elements: its shape is {list(output.shape)}")
        if output.is_floating_point() and not output.isfinite().all():
            raise Refusal("value", NOT_FINITE, f"{name} isn't, for one of the examples")
        tensor_specs.append(
            TensorSpec(name, output.dtype, tuple(output.shape[1 if rows else 0 :]), bool(rows))
        )
    _require_repeatable(called, inputs, outputs, names)
    if rows:
        _require_separate_rows(called, publication, outputs, names)
    return FunctionSpec(
        called,
        tuple(
            TensorSpec(
                name,
                tensor.dtype,
                tuple(tensor.shape[1:] if name in publication.examples else tensor.shape),
                name in publication.examples,
            )
            for name, tensor in publication.inputs.items()
        ),
        tuple(tensor_specs),
    )


def in_float64(publication: Publication) -> Callable[..., tuple[Tensor, ...]] | None:
    """The function computed in float64; None if it can't be (it holds float32 tensors)."""
    function = publication.function
    if isinstance(function, nn.Module):
        function = frozen(function).double()
    called = _tuple_of(function)
    try:
        outputs = called(*(widened(tensor.detach()) for tensor in publication.inputs.values()))
    except (RuntimeError, TypeError):
        return None
    floating = [output for output in outputs if output.is_floating_point()]
    return called if all(output.dtype == torch.float64 for output in floating) else None


def widened(tensor: Tensor) -> Tensor:
    """Real numbers as float64."""
    return tensor.double() if tensor.is_floating_point() else tensor


@contextmanager
def constant_weights(function: Callable[..., Any]) -> Iterator[None]:
    """Modules that a plain function uses are in eval mode and ask for no gradient meanwhile."""
    with ExitStack() as stack:
        for module in modules_of(function):
            training = {each: each.training for each in module.modules()}
            asking = {each: each.requires_grad for each in module.parameters()}
            module.eval().requires_grad_(False)
            stack.callback(_restore, training, asking)
        yield


def _restore(training: Mapping[nn.Module, bool], asking: Mapping[nn.Parameter, bool]) -> None:
    for module, mode in training.items():
        module.training = mode
    for parameter, asked in asking.items():
        parameter.requires_grad_(asked)


def modules_of(function: Callable[..., Any]) -> list[nn.Module]:
    """Modules that a plain function uses; none of a module.

    Found where Python keeps them: in its closure, its ``self``, the globals that it names.
    """
    if isinstance(function, nn.Module):
        return []  # a copy of it is published
    found: list[Any] = [getattr(function, "__self__", None), *getattr(function, "args", ())]
    plain = inspect.unwrap(getattr(function, "func", function))
    code = getattr(plain, "__code__", None)
    if code is not None:
        used = getattr(plain, "__globals__", {})
        found += [used.get(name) for name in code.co_names]
        for cell in getattr(plain, "__closure__", None) or ():
            found.append(cell.cell_contents)
    return [value for value in found if isinstance(value, nn.Module)]


def _tuple_of(function: Callable[..., Any]) -> Callable[..., tuple[Tensor, ...]]:
    def called(*inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = function(*inputs)
        if isinstance(outputs, Tensor):
            return (outputs,)
        if not isinstance(outputs, tuple | list):
            kind = type(outputs).__name__
            raise TypeError(f"it should return a tensor or a tuple of tensors, not {kind}")
        return tuple(outputs)

    return called


_ONE_TYPE = "give examples, parameters= and weights one type: .double() or .float()"
_ADVICE = {
    "does not require grad": differentiating_inside,
    "same dtype": _ONE_TYPE,
    "scalar type": _ONE_TYPE,
    "should be the same": _ONE_TYPE,
    "same device": "a tensor or the module is not on the CPU: .cpu()",
}


def _call(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    what: str = "its examples",
) -> tuple[Tensor, ...]:
    try:
        with torch.enable_grad(), traceable():  # for a function that itself differentiates
            outputs = function(*(each.detach() for each in inputs))
    except Exception as error:  # it is the user's own
        text = f"{type(error).__name__}: {error}"
        found = [advice for words, advice in _ADVICE.items() if words in text][:1]
        raise JobError("; ".join([f"the function fails on {what}: {text}", *found])) from error
    return tuple(each.detach() if isinstance(each, Tensor) else each for each in outputs)


def _require_repeatable(
    function: Callable[..., tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    names: Sequence[str],
) -> None:
    for name, first, again in zip(names, outputs, _call(function, inputs), strict=True):
        if not torch.allclose(first, again, rtol=1e-5, atol=1e-8):
            raise Refusal(
                "value",
                RANDOM,
                f"two calls with the same inputs gave different {name}; a dropout that is active, "
                "or a tensor of its own that each call changes?",
            )


def _require_separate_rows(
    function: Callable[..., tuple[Tensor, ...]],
    publication: Publication,
    outputs: Sequence[Tensor],
    names: Sequence[str],
) -> None:
    """The first three rows, the first and the last, by themselves give what they give among all."""
    for kept, which in (
        (slice(3), "the first 3"),
        (slice(1), "the first"),
        (slice(-1, None), "the last"),
    ):
        few = [tensor[kept] for tensor in publication.examples.values()]
        alone = _call(function, [*few, *publication.parameters.values()], f"{which} of its rows")
        for name, whole, part in zip(names, outputs, alone, strict=True):
            expected = whole[kept]
            if part.shape != expected.shape:
                raise Refusal(
                    "value",
                    BAKED_IN,
                    f"{name} has shape {list(part.shape)} for {which} of its rows, not "
                    f"{list(expected.shape)}; a squeeze() without a dimension, a reshape to a "
                    "fixed number of rows?",
                )
            tolerance = 1e-9 if whole.dtype == torch.float64 else 1e-4
            scale = float(whole.abs().max()) if whole.is_floating_point() else 1.0
            if not torch.allclose(
                part.double(), expected.double(), rtol=tolerance, atol=tolerance * scale
            ):
                raise Refusal(
                    "value",
                    ROWS_MIX,
                    f"{name} changes when all rows but {which} are left out; each row's outputs "
                    "should depend on that row alone (BatchNorm in train mode?)",
                )
