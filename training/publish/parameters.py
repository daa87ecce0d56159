"""Count the parameters of a network, layer by layer, with the arithmetic written out."""

from math import prod

import torch
import torchinfo
from torch import Tensor, nn

from contract.manifest import Layer, Parameters
from training.errors import JobError

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def summarise(network: nn.Module, example_input: Tensor) -> Parameters:
    """Layers of ``network`` in the order they run on ``example_input`` [1 or more, ...].

    A layer is a module without submodules, or one that has parameters of its own. Frozen
    parameters count, and are marked if others are trained; a shared one counts where it is first
    used. Running statistics of a BatchNorm are buffers, not parameters. Multiply-adds are those of
    convolutions and linear layers, for one example; a BatchNorm has none of its own, as it folds
    into the convolution before it. A module with an integer ``multiply_adds`` states its own.

    Raises JobError if the counts of torchinfo or of ``sum(p.numel())`` differ.
    """
    shapes = _shapes(network, example_input)
    mixed = any(parameter.requires_grad for parameter in network.parameters())
    counted: set[int] = set()
    layers = []
    modules = dict(network.named_modules())
    for name, calls in shapes.items():
        module = modules[name]
        own = [
            (key, parameter)
            for key, parameter in module.named_parameters(recurse=False)
            if id(parameter) not in counted
        ]
        counted.update(id(parameter) for _, parameter in own)
        layers.append(
            Layer(
                name=name or "network",
                type=type(module).__name__,
                kernel=_kernel(module),
                output_shape=calls[-1],
                formula=_formula(module, own, mixed),
                count=sum(parameter.numel() for _, parameter in own),
                multiply_adds=sum(_multiply_adds(module, shape) for shape in calls),
            )
        )
    total = sum(layer.count for layer in layers)
    compared = {
        "torchinfo": int(
            torchinfo.summary(network, input_data=example_input, verbose=0).total_params
        ),
        "sum(p.numel())": sum(parameter.numel() for parameter in network.parameters()),
    }
    for means, count in compared.items():
        if count != total:
            raise JobError(f"the layers have {total:,} parameters, but {means} counts {count:,}")
    return Parameters(
        total=total,
        trainable=sum(p.numel() for p in network.parameters() if p.requires_grad),
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        layers=tuple(layers),
        compared=compared,
    )


def _shapes(network: nn.Module, example_input: Tensor) -> dict[str, list[tuple[int, ...]]]:
    """Output shape, without the batch, of each call of each layer, in the order of first calls."""
    shapes: dict[str, list[tuple[int, ...]]] = {}
    handles = []
    for name, module in network.named_modules():
        if next(module.children(), None) is None or any(True for _ in module.parameters(False)):

            def record(_: nn.Module, __: object, output: Tensor, name: str = name) -> None:
                shapes.setdefault(name, []).append(tuple(output.shape[1:]))

            handles.append(module.register_forward_hook(record))
    training = network.training
    try:
        network.eval()
        with torch.no_grad():
            network(example_input)
    finally:
        network.train(training)
        for handle in handles:
            handle.remove()
    return shapes


def _formula(module: nn.Module, own: list[tuple[str, nn.Parameter]], mixed: bool) -> str:
    """``3·3·3·32 weights + 32 biases = 896``: factors in the order a course writes them."""
    if not own:
        return "no parameters"
    terms = []
    for key, parameter in own:
        factors = list(parameter.shape)
        if isinstance(module, nn.modules.conv._ConvNd) and key == "weight":
            # stored as [out, in / groups, height, width]; written height · width · in · out
            factors = [*factors[2:], factors[1], factors[0]]
        elif isinstance(module, nn.Linear) and key == "weight":
            factors = factors[::-1]
        product = "·".join(f"{factor:,}" for factor in factors) or "1"
        state = " (frozen)" if mixed and not parameter.requires_grad else ""
        terms.append(f"{product} {_noun(module, key, parameter.numel())}{state}")
    return f"{' + '.join(terms)} = {sum(parameter.numel() for _, parameter in own):,}"


def _noun(module: nn.Module, key: str, count: int) -> str:
    if isinstance(module, _NORMS):
        noun = {"weight": "scale", "bias": "shift"}.get(key, key)
    else:
        noun = key.replace("_", " ")
    plural = {"bias": "biases"}.get(noun, noun if noun.endswith("s") else f"{noun}s")
    return noun if count == 1 else plural


def _kernel(module: nn.Module) -> str | None:
    """``3×3, stride 1×2, padding 1×1`` for what slides a window; None for anything else."""
    if not isinstance(module, nn.modules.conv._ConvNd | nn.MaxPool2d | nn.AvgPool2d):
        return None
    text = f"{_by(module.kernel_size)}, stride {_by(module.stride)}"
    if isinstance(module.padding, str):
        text += f", padding {module.padding}"
    elif any(_pair(module.padding)):
        text += f", padding {_by(module.padding)}"
    return text


def _pair(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _by(size: int | tuple[int, ...]) -> str:
    return "×".join(str(length) for length in _pair(size))


def _multiply_adds(module: nn.Module, output_shape: tuple[int, ...]) -> int:
    if isinstance(module, nn.modules.conv._ConvNd):
        positions = prod(output_shape[1:])
        return positions * module.weight.numel()
    if isinstance(module, nn.Linear):
        positions = prod(output_shape[:-1])
        return positions * module.weight.numel()
    counted_by_itself = getattr(module, "multiply_adds", 0)
    return counted_by_itself if isinstance(counted_by_itself, int) else 0
