"""``loss_gradient``: a loss of the outputs and its gradient by every weight and parameter."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from training.errors import JobError
from training.functions.function_spec import FunctionSpec, TensorSpec
from training.functions.plans import Plan, graph_input
from training.functions.publication import Publication
from training.functions.pullbacks import Pullback, either_way
from training.functions.refusal import NO_DERIVATIVE, Refusal
from training.publish.derivatives import frozen
from training.publish.record import functional, record, traceable

NAME = "loss_gradient"
Tensors = tuple[Tensor, ...]


class Loss:
    """A publication's loss as a function of its inputs, targets, weights and parameters."""

    def __init__(self, publication: Publication, spec: FunctionSpec) -> None:
        self.publication, self.spec = publication, spec
        function = publication.function
        self.network = frozen(function) if isinstance(function, nn.Module) else None
        self.weights: dict[str, Tensor] = {}
        if self.network is not None:
            self.weights = {
                name: weight.detach()
                for name, weight in self.network.named_parameters()
                if weight.is_floating_point()
            }
        self.parameters = [
            place
            for place, tensor_spec in enumerate(spec.inputs)
            if not tensor_spec.batched and tensor_spec.differentiable
        ]
        if not self.weights and not self.parameters:
            raise Refusal(
                NAME, NO_DERIVATIVE, "there is no weight and no parameters= to differentiate by"
            )
        self.targets = [
            TensorSpec(name, tensor.dtype, tuple(tensor.shape[1:]), True)
            for name, tensor in publication.targets.items()
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """What the gradients are by: weights, then parameters."""
        return (*self.weights, *(self.spec.inputs[place].name for place in self.parameters))

    def value(self, arguments: Sequence[Tensor], varied: Sequence[Tensor]) -> Tensor:
        """The loss for inputs and targets, at other weights and parameters."""
        count = len(self.spec.inputs)
        inputs, targets = list(arguments[:count]), arguments[count:]
        weights = dict(zip(self.weights, varied[: len(self.weights)], strict=True))
        for place, value in zip(self.parameters, varied[len(self.weights) :], strict=True):
            inputs[place] = value
        outputs = self._outputs(weights, inputs)
        assert self.publication.loss is not None  # noqa: S101 — plan_of has looked
        result: Tensor = self.publication.loss(*outputs, *targets)
        return result

    def _outputs(self, weights: dict[str, Tensor], inputs: Sequence[Tensor]) -> Tensors:
        network = self.network
        if network is None:
            return self.spec.function(*inputs)
        found = functional_call(network, weights, tuple(inputs))
        return (found,) if isinstance(found, Tensor) else tuple(found)

    def start(self, arguments: Sequence[Tensor]) -> Tensors:
        """The published weights, and the parameters among the inputs."""
        return (*self.weights.values(), *(arguments[place] for place in self.parameters))

    def traced(self, *arguments: Tensor) -> Tensors:
        """Loss and gradients of its sum, as functions that can be recorded."""

        def sloped(pullback: Pullback, given: Sequence[Tensor]) -> Tensors:
            computed = functional(lambda *varied: self.value(given, varied))
            loss, pull = pullback(computed, *self.start(given))
            return (loss, *pull(torch.ones_like(loss)))

        return either_way(sloped)(*arguments)

    def eager(self, arguments: Sequence[Tensor]) -> Tensors:
        """The same by ``torch.autograd``."""
        leaves = [each.detach().clone().requires_grad_(True) for each in self.start(arguments)]
        with traceable(), torch.enable_grad():
            loss = self.value(arguments, leaves)
            slopes = torch.autograd.grad(loss.sum(), leaves, allow_unused=True)
        return (
            loss.detach(),
            *(
                torch.zeros_like(leaf) if slope is None else slope
                for slope, leaf in zip(slopes, leaves, strict=True)
            ),
        )


def _require_numbers(loss: Loss, publication: Publication) -> None:
    arguments = [*publication.inputs.values(), *publication.targets.values()]
    try:
        with torch.enable_grad(), traceable():
            found: object = loss.value(arguments, loss.start(arguments))
    except Exception as error:  # it is the user's own
        raise JobError(f"loss= fails on the examples: {type(error).__name__}: {error}") from error
    rows = [tuple(tensor.shape[:1]) for tensor in publication.examples.values()]
    if not isinstance(found, Tensor) or tuple(found.shape) not in ((), *rows):
        shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise JobError(f"loss= gives {shape}; it should give one number a row, or one in all")


def plan_of(publication: Publication, spec: FunctionSpec) -> Plan:
    """The plan of ``loss_gradient``. Raises Refusal where there is nothing to differentiate by."""
    loss = Loss(publication, spec)
    _require_numbers(loss, publication)
    tensor_specs = [*spec.inputs, *loss.targets]

    def build() -> nn.Module:
        examples = [
            torch.zeros(2, *tensor_spec.shape, dtype=tensor_spec.dtype)
            if tensor_spec.batched
            else publication.parameters[tensor_spec.name]
            for tensor_spec in tensor_specs
        ]
        return record(loss.traced, examples, [tensor_spec.batched for tensor_spec in tensor_specs])

    return Plan(
        NAME,
        {tensor_spec.name: graph_input(tensor_spec) for tensor_spec in tensor_specs},
        {},
        ("loss", *(f"gradient_loss_{name}" for name in loss.names)),
        build,
        lambda arguments, _: loss.eager(arguments),
    )
