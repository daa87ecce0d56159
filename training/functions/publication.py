"""What a user publishes: a function, examples of its inputs, the derivatives that are wanted."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from training.errors import JobError

Derivative = Literal["gradient", "jacobian", "vjp", "jvp", "hvp", "hessian", "saliency"]
DERIVATIVES: tuple[str, ...] = get_args(Derivative)
LEAST_ROWS = 8
LONGEST = 2000  # characters of a description
LARGEST_SIDE = 1024  # of pictures; it is checked on dozens of them at once
INPUT_TYPES = (torch.float64, torch.float32, torch.int64, torch.uint8)
OUTPUT_TYPES = INPUT_TYPES
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
# What the artifact's own tensors are called, so that a user's name is never taken for one.
_RESERVED = re.compile(r"(tangent|cotangent|gradient|jacobian|vjp|jvp|hvp|hessian)_.*|loss")


@dataclass(frozen=True)
class Publication:
    """A function to publish.

    ``function`` is a module or any function of tensors; it is called with the ``examples``, then
    the ``parameters``, in their order, and returns a tensor or a tuple of them, named ``outputs``.
    Every example has the batch first, at least 8 rows; each row's outputs depend on that row alone.
    They become the artifact's ``samples.npz``, so give what the function is meant for.

    ``parameters`` are inputs without a batch, such as physical constants. ``derivatives`` are any
    of ``DERIVATIVES``. ``loss`` is a function of the outputs and then the ``targets`` (batch
    first), one number a row or one in all; it gives ``loss_gradient`` by every weight of the
    module and every one of ``parameters``.

    A classifier of one's own has ``classes`` as well: ``function`` then maps float32
    [n, 3, side, side], normalised by ``mean`` and ``std`` (of pixels in 0…1), to logits
    [n, classes]; needs no ``examples``.
    """

    function: Callable[..., Any]
    examples: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Sequence[str] = ("y",)
    derivatives: Sequence[str] = ()
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    loss: Callable[..., Tensor] | None = None
    targets: Mapping[str, Tensor] = field(default_factory=dict)
    description: str | None = None
    classes: Sequence[str] | None = None
    image_side: int | None = None
    mean: Sequence[float] = (0.0, 0.0, 0.0)
    std: Sequence[float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        """Raises JobError for what can't be right, whatever the function does."""
        for given, what in ((self.outputs, "outputs"), (self.derivatives, "derivatives")):
            if isinstance(given, str):
                raise JobError(f'{what}="{given}": give a tuple of names, such as ("{given}",)')
        if not callable(self.function):
            raise JobError(
                f"Publication takes a module or a function, not {type(self.function).__name__}"
            )
        if isinstance(self.function, torch.jit.ScriptModule | torch.jit.ScriptFunction):
            raise JobError("the function is TorchScript's; give what it was before torch.jit")
        if self.description is not None and len(self.description) > LONGEST:
            raise JobError(
                f"description= has {len(self.description)} characters; {LONGEST} is the most"
            )
        for name in self.derivatives:
            if name not in DERIVATIVES:
                raise JobError(
                    f"there is no derivative {name!r}; there are: {', '.join(DERIVATIVES)}"
                )
        for what in ("examples", "parameters", "targets"):
            if not isinstance(getattr(self, what), Mapping):
                raise JobError(f'{what}= should be tensors by name, such as {{"x": tensor}}')
        if self.classes is not None:
            self._check_classifier()
            return
        if "saliency" in self.derivatives:
            raise JobError("saliency is of classifiers: give classes= and image_side= as well")
        _check_names("input", [*self.examples, *self.parameters, *self.targets])
        _check_names("output", self.outputs)
        self._check_tensors()
        if self.targets and self.loss is None:
            raise JobError("targets= are inputs of a loss: give loss= as well")

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Examples, then parameters: what the function is called with."""
        given = {**self.examples, **self.parameters}
        return {name: tensor.detach() for name, tensor in given.items()}

    def _check_tensors(self) -> None:
        if not self.examples and not self.parameters:
            raise JobError('give examples={"x": tensor}, at least 8 rows, or parameters=')
        batched = {**self.examples, **self.targets}
        for name, tensor in {**batched, **self.parameters}.items():
            if not isinstance(tensor, Tensor):
                kind = type(tensor).__name__
                raise JobError(f"{name} should be a tensor, not {kind}: torch.as_tensor({name})")
            if tensor.device.type != "cpu":
                raise JobError(
                    f"{name} is on {tensor.device}; give {name}.cpu(), and the module so"
                )
            if tensor.dtype not in INPUT_TYPES:
                kinds = ", ".join(str(kind).removeprefix("torch.") for kind in INPUT_TYPES)
                raise JobError(f"{name} is {tensor.dtype}; the service knows {kinds}")
            if 0 in tensor.shape[1 if name in batched else 0 :]:
                raise JobError(f"{name} has no elements: its shape is {list(tensor.shape)}")
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise JobError(f"{name} has numbers that are not finite among its examples")
        rows = {name: tensor.shape[0] if tensor.dim() else 0 for name, tensor in batched.items()}
        if len(set(rows.values())) > 1:
            text = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise JobError(f"all examples should have the same number of rows; there are: {text}")
        for name, count in rows.items():
            if count < LEAST_ROWS:
                raise JobError(
                    f"{name} has {count} rows; give at least {LEAST_ROWS}, the batch first "
                    "(an input without a batch goes into parameters=)"
                )

    def _check_classifier(self) -> None:
        if isinstance(self.classes, str) or len(self.classes or ()) < 2:
            raise JobError("classes= should be a list of two names or more")
        if not all(isinstance(name, str) and name for name in self.classes or ()):
            raise JobError("classes= are names: give strings, such as map(str, numbers)")
        if self.image_side is None or self.image_side < 1:
            raise JobError("a classifier needs image_side=, the width and height of its input")
        if self.image_side > LARGEST_SIDE:
            raise JobError(f"image_side= is {self.image_side}; {LARGEST_SIDE} is the most")
        if not isinstance(self.function, nn.Module):
            raise JobError("a classifier is a torch.nn.Module, so that its weights can be frozen")
        other = [name for name in self.derivatives if name != "saliency"]
        if other or self.parameters or self.loss or self.targets or self.examples:
            raise JobError(
                "a classifier has the derivative saliency only, and no examples, parameters or "
                "loss; publish it without classes= for others"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise JobError(
                "mean= and std= are three numbers each (red, green, blue); std is above 0"
            )


def _check_names(what: str, names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise JobError(
                f"{what} {name!r}: a name has letters, digits and _, at most 63, no digit first"
            )
        if _RESERVED.fullmatch(name):
            raise JobError(f"{what} {name!r}: derivatives are called so; choose another name")
    doubled = sorted({name for name in names if list(names).count(name) > 1})
    if doubled:
        raise JobError(f"two {what}s are called {doubled[0]!r}; names must differ")
