"""The models that answer the homework, listed once, and how a person gets them."""

from importlib.util import find_spec

# What trains each of them.
COMMANDS = {
    "curve-mlp": "python -m training curve",
    "curve-poly": "python -m training curve",
    "curve-gp": "python -m training curve",
    "cifar-baseline": "python -m training cifar --network baseline",
    "cifar-improved": "python -m training cifar --network improved",
    "sigmoid-conv": "python -m training sigmoid-conv",
}


def makers() -> dict[str, str]:
    """For each model what to do to have it, in words that hold where this runs."""
    return {name: _advice(command) for name, command in COMMANDS.items()}


def _advice(command: str) -> str:
    if find_spec("training") is None:  # the image of the service
        return "publish one there from a checkout of gradserve"
    if find_spec("torch") is None:
        return f"make one with: pip install 'gradserve[training]', then {command}"
    return f"make one with: {command}"
