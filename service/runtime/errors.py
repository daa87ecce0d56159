"""What can go wrong with a model, free of HTTP. ``service.web.errors`` gives each its status."""


class ModelError(Exception):
    """Base of the errors here. ``detail`` tells a person what was wrong and what to do."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class NoSuchModel(ModelError):
    """No model has that name, or it does not compute what was asked for."""


class ModelNotReady(ModelError):
    """The model is expected but not loaded."""


class QueueFull(ModelError):
    """Too many requests wait already."""

    def __init__(self, detail: str = "Too many requests wait already; try again shortly") -> None:
        super().__init__(detail)


class BadTensor(ModelError):
    """An input that a model can't take, or an output that it doesn't have.

    ``tensor`` is its name, where one is to blame.
    """

    def __init__(self, detail: str, tensor: str | None = None) -> None:
        super().__init__(detail)
        self.tensor = tensor


class TooManyNumbers(ModelError):
    """The answer would be larger than one request may ask for."""
