"""How a module of the service is started in a process of its own."""

import json
import sys

_START = (
    "import importlib, json, sys; sys.path[:] = json.loads(sys.argv[2]); "
    "importlib.import_module(sys.argv[1]).main()"
)


def command(module: str) -> list[str]:
    """The command that calls ``main`` of ``module`` in another process.

    The module is found where this process would find it, whatever folder the other one starts in.
    """
    return [sys.executable, "-c", _START, module, json.dumps(sys.path)]
