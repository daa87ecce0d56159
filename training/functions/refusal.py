"""Why a function or a derivative can't be published, in words and with what to do about it."""

import re
import traceback
from pathlib import Path

import torch

from training.errors import JobError
from training.publish.record import RandomNumbers

NO_RULE = "no ONNX rule"
NO_KERNEL = "no float64 kernel in ONNX Runtime"
BRANCH = "branches on data"
BAKED_IN = "a size baked in"
RANDOM = "random"
NOT_FINITE = "not finite"
DISAGREES = "the graph disagrees with PyTorch"
WRONG_DERIVATIVE = "not the derivative"
LEAVES_PYTORCH = "leaves PyTorch"
ROWS_MIX = "rows influence one another"
TOO_LARGE = "over 2 GiB"
TOO_MANY = "too large"
TOO_LONG = "too long"
NO_DERIVATIVE = "no derivative in PyTorch"
FAILS_CHECKS = "the map fails its checks"
OTHER = "can't be exported"


class Refusal(JobError):
    """One function of a publication that can't be published.

    ``function`` is its name in the artifact, ``kind`` one of the classes above.
    """

    def __init__(self, function: str, kind: str, detail: str) -> None:
        super().__init__(f"{function}: {kind}: {detail}")
        self.function, self.kind, self.detail = function, kind, detail


# PyTorch, all of `training`, Python itself.
_NOT_THEIRS = (
    Path(torch.__file__).parent,
    Path(__file__).parents[1],
    Path(traceback.__file__).parent,
)
_NUMPY = (
    "data pointer of Tensor",
    "numel() on tensor with symbolic",
    ".numpy() is not supported",
)
_SPECTRA = ("_eig", "_svd")
_SPECTRAL = (
    "eigenvalues and singular values are iterated until the numbers have settled, which no graph "
    "does; write a fixed number of steps (of power iteration, say), or compute them before and "
    "pass them as an input"
)
# The advice for a derivative inside a function; no kind of refusal.
differentiating_inside = (
    "a function that differentiates inside takes torch.func.grad, or x.requires_grad_(True) before "
    "torch.autograd.grad(…, create_graph=True)"
)
_OPERATOR = re.compile(r"OpOverload\(op='([\w.]+)'")
_BARE = re.compile(r"aten\.\w+\.\w+")  # what PyTorch says of one that it can't record
_KERNEL = re.compile(r"implementation for (\w+)\(\d+\)")


def from_tracing(  # noqa: PLR0911, PLR0912 — a return for each class
    function: str, error: BaseException, message: str
) -> Refusal:
    """What recording or exporting raised, by class. ``message`` is its innermost cause."""
    chain = " ".join(f"{type(each).__name__}: {each}" for each in _causes(error))
    operator = _OPERATOR.search(chain)
    if (
        "GuardOnDataDependent" in chain
        or "data-dependent" in chain.lower()
        or "calling .item() on a Tensor" in chain
        or "DataDependentOutput" in chain
    ):
        return Refusal(
            function,
            BRANCH,
            f"an `if`, `while`, float() or .item(){_place(error)} depends on the numbers in a "
            "tensor; write it with torch.where, or a fixed number of steps",
        )
    if "Inference tensors" in chain:
        return Refusal(
            function, NO_DERIVATIVE, "it is under torch.inference_mode(); leave that out"
        )
    if isinstance(error, RandomNumbers):
        return Refusal(
            function,
            RANDOM,
            f"it draws random numbers ({error}), and a seed gives others outside PyTorch; draw "
            "them before and keep them, or pass them as an input",
        )
    if any(words in chain for words in _NUMPY):
        return Refusal(
            function, LEAVES_PYTORCH, "it turns tensors into NumPy arrays; use PyTorch's functions"
        )
    if "data is not allocated" in chain:
        return Refusal(
            function,
            LEAVES_PYTORCH,
            "torch.tensor([…]) copies the numbers of tensors; use torch.stack, which keeps them",
        )
    if "Sparse" in chain:
        return Refusal(
            function, OTHER, "it computes with sparse tensors; use their .to_dense(), ONNX has none"
        )
    if "No ONNX function found" in chain or "No decompositions registered" in chain:
        name = operator.group(1) if operator else "an operator"
        advice = _SPECTRAL if any(each in name for each in _SPECTRA) else ""
        return Refusal(function, NO_RULE, f"{name}; {advice or 'write it in other operations'}")
    if "mutate a captured Tensor" in chain:
        return Refusal(
            function,
            OTHER,
            "it changes a tensor that it was not given, such as a buffer that counts calls; leave "
            "that out when not self.training",
        )
    if "saved tensor hooks" in chain:
        return Refusal(
            function,
            OTHER,
            "it calls torch.utils.checkpoint, which only saves memory in training; leave that out "
            "when not self.training",
        )
    if "functorch transform" in chain:
        return Refusal(
            function,
            OTHER,
            "it calls torch.autograd.grad, or a torch.autograd.Function without setup_context(), "
            "which can't be followed beside parameters= or in a classifier; use torch.func.grad, "
            "and write forward(x) and setup_context(ctx, inputs, output)",
        )
    if "entirely functional graph" in chain:
        return Refusal(
            function,
            OTHER,
            "PyTorch's formula for the derivative of an operator writes into a view (that of "
            "linalg.qr does), which ONNX can't; write the operator in others",
        )
    if "INTERNAL ASSERT" in chain:
        return Refusal(
            function,
            OTHER,
            "PyTorch itself can't record one of its operators (interpolate with antialias=True is "
            "one whose derivative it can't); write that in other operations",
        )
    if "dynamo-optimized" in chain:
        return Refusal(function, OTHER, "torch.compile was applied to it; give what it was before")
    if "does not require grad" in chain:
        return Refusal(function, NO_DERIVATIVE, f"{message}; {differentiating_inside}")
    if "derivative for" in chain:
        return Refusal(function, NO_DERIVATIVE, message)
    if "2147483648" in chain or "2GB" in chain or "2 GiB" in chain or "exceeds maximum" in chain:
        return Refusal(function, TOO_LARGE, "an ONNX file holds at most 2 GiB")
    if "list index out of range" in chain:
        return Refusal(
            function,
            BAKED_IN,
            "a loop over the rows (for row in x) has as many steps as there were rows; write it "
            "for all rows at once, or with torch.vmap",
        )
    if "inferred ranges" in chain or "specialized" in chain or "ConstraintViolation" in chain:
        return Refusal(
            function, BAKED_IN, "an operation works for the batch size of the examples only"
        )
    if _BARE.fullmatch(message):
        return Refusal(function, NO_RULE, f"{message}; write it in other operations")
    return Refusal(function, OTHER, message)


def from_runtime(function: str, message: str) -> Refusal:
    """What ONNX Runtime says to a graph that it can't load."""
    kernel = _KERNEL.search(message)
    if kernel:
        return Refusal(
            function, NO_KERNEL, f"{kernel.group(1)}; publish the module in float32 instead"
        )
    return Refusal(function, OTHER, message)


def _place(error: BaseException) -> str:
    """Where in the user's own files it was raised; nothing if nowhere."""
    found = [
        f" ({Path(frame.filename).name}, line {frame.lineno})"
        for each in _causes(error)
        for frame in traceback.extract_tb(each.__traceback__)
        if not any(map(Path(frame.filename).is_relative_to, _NOT_THEIRS))
        and Path(frame.filename).is_file()
    ]
    return found[-1] if found else ""


def _causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        if cause in chain:
            break
        chain.append(cause)
    return chain
