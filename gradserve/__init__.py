"""What users import: ``create_app`` to serve, ``Publication`` and ``publish`` to publish.

No logic lives here. Each name is imported when it is asked for: serving needs no PyTorch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from service.app import create_app
    from training.functions.publication import Publication
    from training.functions.publisher import publish

__all__ = ["Publication", "create_app", "publish"]
_HOMES = {
    "create_app": "service.app",
    "Publication": "training.functions.publication",
    "publish": "training.functions.publisher",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradserve' has no attribute {name!r}")
    import importlib

    from gradserve.names import require_own

    require_own()
    return getattr(importlib.import_module(_HOMES[name]), name)
