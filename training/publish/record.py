"""Record a function as ATen operators, with a batch of any size.

``make_fx`` runs the function on stand-ins without data and writes down every operator, those of a
backward pass inside it included. Four things are then put right in the recording: operators that
ONNX can't express (``rules``), batch sizes that PyTorch's own formulas wrote down as numbers,
complex numbers, and float64 constants, which the ONNX exporter would round to float32.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.fx.node import map_aggregate
from torch.nn.attention import SDPBackend, sdpa_kernel

from training.publish.recordable import recordable
from training.publish.rules import RULES, complex_numbers

# Batch sizes to record at. Large enough that a size of the network is rarely a multiple of one.
PRIMES = (97, 101, 103, 107, 109, 113, 127, 131, 137, 139)
TO_THE_END = 2**63 - 1
aten = torch.ops.aten


def record(
    function: Callable[..., Any], examples: Sequence[Tensor], batched: Sequence[bool]
) -> fx.GraphModule:
    """``function`` as a graph of ATen operators over its tensor arguments.

    ``examples`` give types and sizes, their numbers don't matter. Where ``batched``, the first size
    is the batch, the same of any size for all such; every other size is fixed.

    Raises what tracing raises: the caller says it in words.
    """
    rows = _recording_batch(examples, batched)
    sample = [
        torch.empty(rows, *example.shape[1:], dtype=example.dtype) if has_batch else example.clone()
        for example, has_batch in zip(examples, batched, strict=True)
    ]
    with traceable(), recordable():
        recorded = _operators_of(function, sample, batched)
        if complex_numbers.occur_in(recorded):
            in_pairs = complex_numbers.OnPairs(recorded)
            recorded = _operators_of(in_pairs.run, sample, batched)
    if any(batched):
        _restore_batch(recorded, rows, batched.index(True))
    _require_no_chance(recorded)
    _drop_checks(recorded)
    _forget_strides(recorded)
    _lift_float64(recorded)
    # Remove dead code: what only the backward pass of a weight would have used.
    recorded.graph.eliminate_dead_code()
    recorded.recompile()
    recorded.eval()
    return recorded


class RandomNumbers(RuntimeError):
    """The function draws random numbers."""


def _require_no_chance(recorded: fx.GraphModule) -> None:
    """Raise RandomNumbers if an operator draws some: a seed gives others outside PyTorch."""
    for node in recorded.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise RandomNumbers(str(node.target).removesuffix(".default"))


def _operators_of(
    function: Callable[..., Any], sample: Sequence[Tensor], batched: Sequence[bool]
) -> fx.GraphModule:
    """What the function executes, its batch a symbol."""
    return make_fx(
        function, decomposition_table=RULES, tracing_mode="symbolic", _allow_non_fake_inputs=True
    )(*_symbolic(sample, batched))


def functional(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without in-place writes: each becomes a new tensor.

    Around what is differentiated, and not around its derivative: autograd's derivative of a write
    through a view is made of strides, which ONNX doesn't have. PyTorch can't rewrite a
    ``torch.autograd.Function``, nor what differentiates by ``torch.autograd.grad``; a function that
    calls one stays as it is.
    """
    written: Callable[..., Any] = functionalize(function, remove="mutations")

    def called(*inputs: Tensor) -> Any:
        try:
            return written(*inputs)
        except RuntimeError as error:
            if "custom_function_call" not in str(error) and not bars_transforms(error):
                raise
            return function(*inputs)

    return called


def bars_transforms(error: BaseException) -> bool:
    """Did a transform of ``torch.func`` meet what only autograd itself can go through?

    ``requires_grad_``, ``backward()``, an ``autograd.Function`` without ``setup_context``.
    """
    return "functorch transform" in str(error)


@contextmanager
def traceable() -> Iterator[None]:
    """Kernels that are written in ATen operators, instead of fused ones that can't be taken apart.

    Attention by its definition (the fused one has no second derivative), LSTM without oneDNN.
    """
    with (
        sdpa_kernel(SDPBackend.MATH),
        torch.backends.mkldnn.flags(enabled=False, allow_tf32=None),
    ):
        yield


def _recording_batch(examples: Sequence[Tensor], batched: Sequence[bool]) -> int:
    """A prime batch size of which no fixed size of the examples is a multiple."""
    fixed = {
        size
        for example, has_batch in zip(examples, batched, strict=True)
        for size in example.shape[1 if has_batch else 0 :]
    }
    return next(
        (prime for prime in PRIMES if not any(size and size % prime == 0 for size in fixed)),
        PRIMES[0],
    )


def _symbolic(examples: Sequence[Tensor], batched: Sequence[bool]) -> list[Tensor]:
    """Stand-ins for the examples, without data, whose batch is a symbol.

    Left to itself, make_fx would make every size a symbol, and the same symbol for equal sizes: a
    batch of 3 RGB images would tie n to the number of channels. Here all else is a plain number.
    """
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    return [
        mode.from_tensor(
            example,
            source=ConstantSource(f"input{index}"),
            symbolic_context=StatelessSymbolicContext(
                dynamic_sizes=[
                    DimDynamic.DUCK if has_batch and axis == 0 else DimDynamic.STATIC
                    for axis in range(example.dim())
                ]
            ),
        )
        for index, (example, has_batch) in enumerate(zip(examples, batched, strict=True))
    ]


def _restore_batch(recorded: fx.GraphModule, rows: int, first_batched: int) -> None:
    """Multiples of the recording's batch size, where they stand as numbers, as the batch again.

    PyTorch's C++ formulas for some derivatives (BatchNorm, attention, second derivatives of
    convolution) turn the symbol into the number it stands for. A fixed size that happens to be a
    multiple is mistaken for the batch; the graph then fails its checks at other batch sizes.
    """
    graph = recorded.graph
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    with graph.inserting_after(inputs[-1]):
        size = graph.call_function(aten.sym_size.int, (inputs[first_batched], 0))
    multiples: dict[int, fx.Node] = {1: size}
    last = size

    def restored(argument: Any) -> Any:
        nonlocal last
        # The largest integer is the end of a slice, and means "to the end".
        number = type(argument) is int and rows <= argument < TO_THE_END
        if not number or argument % rows:
            return argument
        factor = argument // rows
        if factor not in multiples:
            with graph.inserting_after(last):
                last = multiples[factor] = graph.call_function(operator.mul, (size, factor))
        return multiples[factor]

    for node in list(graph.nodes):
        if node.op == "call_function" and node not in multiples.values():
            node.args = map_aggregate(node.args, restored)


def _drop_checks(recorded: fx.GraphModule) -> None:
    """Remove operators that only raise errors, such as that of a singular matrix."""
    for node in reversed(list(recorded.graph.nodes)):
        if node.op == "call_function" and "_linalg_check_errors" in str(node.target):
            recorded.graph.erase_node(node)


def _forget_strides(recorded: fx.GraphModule) -> None:
    """Views that depend on how a tensor lies in memory become reshapes: ONNX has no strides."""
    for node in recorded.graph.nodes:
        if node.target in (aten.view.default, aten._unsafe_view.default):
            node.target = aten.reshape.default


# With a Python number, and the same with a tensor.
_TENSOR_FORMS = {
    aten.mul_.Scalar: aten.mul_.Tensor,
    aten.add_.Scalar: aten.add_.Tensor,
    aten.sub_.Scalar: aten.sub_.Tensor,
    aten.div_.Scalar: aten.div_.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.add.Scalar: aten.add.Tensor,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.div.Scalar: aten.div.Tensor,
    aten.pow.Tensor_Scalar: aten.pow.Tensor_Tensor,
    aten.pow.Scalar: aten.pow.Tensor_Tensor,
    aten.lt.Scalar: aten.lt.Tensor,
    aten.le.Scalar: aten.le.Tensor,
    aten.gt.Scalar: aten.gt.Tensor,
    aten.ge.Scalar: aten.ge.Tensor,
    aten.eq.Scalar: aten.eq.Tensor,
    aten.ne.Scalar: aten.ne.Tensor,
    aten.where.ScalarSelf: aten.where.self,
    aten.where.ScalarOther: aten.where.self,
    aten.where.Scalar: aten.where.self,
    aten.remainder.Scalar: aten.remainder.Tensor,
    aten.clamp.default: aten.clamp.Tensor,
    aten.clamp_min.default: aten.clamp_min.Tensor,
    aten.clamp_max.default: aten.clamp_max.Tensor,
}
_LIFTED = {*_TENSOR_FORMS, *_TENSOR_FORMS.values(), aten.div.Tensor_mode}


def _lift_float64(recorded: fx.GraphModule) -> None:
    """Python numbers beside float64 tensors become float64 tensors, which stay as they are.

    The exporter writes a Python number as float32 and casts it: 2/√π would be off by 5e-8.
    """
    constants = _Constants(recorded)
    for node in list(recorded.graph.nodes):
        if node.op != "call_function":
            continue
        if node.target in _LIFTED and _is_float64(node):
            if not any(type(argument) is float for argument in node.args):
                continue
            node.target = _TENSOR_FORMS.get(node.target, node.target)
            for index, argument in enumerate(node.args):
                if type(argument) in (int, float):  # a form of tensors takes no number at all
                    node.update_arg(index, constants[float(argument)])
        elif node.target in _FILLED and _value_dtype(node) == torch.float64:
            _fill_exactly(recorded, node, constants)


class _Constants:
    """Numbers as float64 tensors of the recording, one for all uses: long loops have thousands."""

    def __init__(self, recorded: fx.GraphModule) -> None:
        self.recorded = recorded
        nodes = recorded.graph.nodes
        self._first = next(node for node in nodes if node.op != "placeholder")
        self._known: dict[str, fx.Node] = {}

    def __getitem__(self, number: float) -> fx.Node:
        key = number.hex()  # 0 and -0 differ
        if key not in self._known:
            name = f"_number{len(self._known)}"
            self.recorded.register_buffer(name, torch.tensor(number, dtype=torch.float64))
            with self.recorded.graph.inserting_before(self._first):
                self._known[key] = self.recorded.graph.get_attr(name)
        return self._known[key]


def _is_float64(node: fx.Node) -> bool:
    """Does the operator compute in float64? A comparison does if what it compares is float64."""
    values = (node, *node.all_input_nodes)
    return any(_value_dtype(value) == torch.float64 for value in values)


def _value_dtype(node: fx.Node) -> torch.dtype | None:
    return getattr(node.meta.get("val"), "dtype", None)


# Tensors full of one number, with the place of that number.
_FILLED = {
    aten.full.default: 1,
    aten.full_like.default: 1,
    aten.new_full.default: 2,
    aten.scalar_tensor.default: 0,
}


def _fill_exactly(recorded: fx.GraphModule, node: fx.Node, constants: _Constants) -> None:
    place = _FILLED[node.target]  # type: ignore[index]
    number = node.args[place]
    if type(number) is not float or float(torch.tensor(number)) == number:
        return  # float32 holds it
    node.update_arg(place, 1.0)
    with recorded.graph.inserting_after(node):
        scaled = recorded.graph.call_function(aten.mul.Tensor, (node, number))
    node.replace_all_uses_with(scaled, lambda user: user is not scaled)
    scaled.meta = dict(node.meta)
    scaled.update_arg(1, constants[number])
