"""The servers that are compared: how each is started, and where its answer is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Endpoint = Literal["classify", "gradient"]
Role = Literal["ours", "as documented", "same graph", "tuned by hand", "sketch"]

# One thread each in processes of which there are as many as cores.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Server:
    """One way of serving. ``{python}``, ``{port}`` and ``{workers}`` in a command are filled in.

    ``role`` decides what it is compared as: a peer as its documentation shows it runs the network
    in eager PyTorch; a peer on the same graph runs the very ONNX file that we serve, and so does
    plain FastAPI when it is tuned by hand. A sketch is shown but is no peer.

    ``found`` takes the top-1 index, or the list of derivatives, out of an answer; ``points`` makes
    the JSON that asks for f′ at some x; at ``details`` ours says which graph it serves. ``quick``
    servers are also part of ``make bench-quick``.
    """

    name: str
    endpoint: Endpoint
    role: Role
    command: tuple[str, ...]
    found: Callable[[Any], Any]
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = "/classify"
    quick: bool = False
    details: str | None = None
    points: Callable[[list[float]], Any] = lambda x: {"x": x}


def _uvicorn(app: str, workers: str = "{workers}") -> tuple[str, ...]:
    return (
        *("{python}", "-m", "uvicorn", f"bench.peers.{app}:app", "--host", "127.0.0.1"),
        *("--port", "{port}", "--workers", workers, "--log-level", "warning", "--no-access-log"),
    )


def _module(name: str) -> tuple[str, ...]:
    return ("{python}", "-m", f"bench.peers.{name}")


def _index(answer: Any) -> int:
    return int(answer["index"])


def _top(answer: Any) -> int:
    return int(answer["results"][0]["top"][0]["index"])


def _gradient(answer: Any) -> list[float]:
    return list(answer["gradient"])


def _umbridge_points(x: list[float]) -> Any:
    config = {"points": len(x)}
    return {
        "name": "curve",
        "outWrt": 0,
        "inWrt": 0,
        "input": [x],
        "sens": [1.0] * len(x),
        "config": config,
    }


EAGER = {"BENCH_BACKEND": "eager"}
GRAPH = {"BENCH_BACKEND": "onnx"}
BENTOML = (
    *("{python}", "-m", "bentoml", "serve", "bench.peers.bentoml_service:Classifier"),
    *("--host", "127.0.0.1", "--port", "{port}"),
)
OURS = ("{python}", "-m", "service", "--host", "127.0.0.1", "--port", "{port}")
OUR_WORKERS = ("--workers", "{workers}")

SERVERS = (
    Server(
        "gradserve",
        "classify",
        "ours",
        (*OURS, *OUR_WORKERS),
        _top,
        path="/classify?model={classifier}",
        quick=True,
        details="/models/{classifier}",
    ),
    Server(
        "FastAPI, as its tutorial shows",
        "classify",
        "as documented",
        _uvicorn("fastapi_app", workers="1"),
        _index,
        EAGER,
        quick=True,
    ),
    Server(
        "LitServe", "classify", "as documented", _module("litserve_api"), _index, EAGER | ONE_THREAD
    ),
    Server(
        "LitServe, batched",
        "classify",
        "as documented",
        _module("litserve_api"),
        _index,
        EAGER | ONE_THREAD | {"BENCH_BATCH": "16"},
        quick=True,
    ),
    Server("BentoML", "classify", "as documented", BENTOML, _index, EAGER | ONE_THREAD),
    Server(
        "FastAPI, 2 workers",
        "classify",
        "tuned by hand",
        _uvicorn("fastapi_app"),
        _index,
        GRAPH,
        quick=True,
    ),
    Server(
        "LitServe", "classify", "same graph", _module("litserve_api"), _index, GRAPH, quick=True
    ),
    Server(
        "LitServe, batched",
        "classify",
        "same graph",
        _module("litserve_api"),
        _index,
        GRAPH | {"BENCH_BATCH": "16"},
    ),
    Server("BentoML", "classify", "same graph", BENTOML, _index, GRAPH, quick=True),
    Server(
        "Ray Serve",
        "classify",
        "same graph",
        _module("ray_serve_app"),
        _index,
        GRAPH | {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1"},
    ),
    Server(
        "sketch: FastAPI, all inline",
        "classify",
        "sketch",
        _uvicorn("fastapi_sketch"),
        _index,
        GRAPH,
    ),
    Server(
        "gradserve",
        "gradient",
        "ours",
        (*OURS, *OUR_WORKERS),
        _gradient,
        path="/gradient",
        quick=True,
    ),
    Server(
        "UM-Bridge",
        "gradient",
        "same graph",
        _module("umbridge_model"),
        lambda answer: list(answer["output"]),
        GRAPH,
        path="/Gradient",
        quick=True,
        points=_umbridge_points,
    ),
    Server(
        "FastAPI, 2 workers",
        "gradient",
        "tuned by hand",
        _uvicorn("fastapi_gradient"),
        _gradient,
        GRAPH,
        path="/gradient",
        quick=True,
    ),
    Server(
        "FastAPI, 2 workers, eager autograd",
        "gradient",
        "as documented",
        _uvicorn("fastapi_gradient"),
        _gradient,
        EAGER | ONE_THREAD,
        path="/gradient",
    ),
)

FLOOR = Server(
    "floor: gradserve reads the upload, answers a constant",
    "classify",
    "sketch",
    (*_module("our_floor"), "--host", "127.0.0.1", "--port", "{port}", *OUR_WORKERS),
    _top,
)
