"""Load from wrk: bounded in time and in connections, and to this machine only."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("post.lua")
SLOWEST_ANSWER = 60  # seconds until wrk counts a request as timed out


@dataclass(frozen=True)
class Body:
    """A request body on disk, ready to be sent by wrk."""

    file: Path
    content_type: str


@dataclass(frozen=True)
class Measured:
    """What one run of wrk measured. Only answers with a status below 400 count as served."""

    connections: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    served: int
    refused: int
    broken: int


def wrk_path() -> str:
    """Where wrk is. Raises SystemExit with what to do if it isn't installed."""
    path = shutil.which("wrk")
    if path is None:
        raise SystemExit("The benchmark needs wrk, which is not installed: apt-get install wrk")
    return path


def run(url: str, body: Body, connections: int, seconds: float) -> Measured:
    """Load ``url`` from ``connections`` kept-open connections, each asking again once answered.

    Raises RuntimeError with wrk's own words if wrk could not run.
    """
    whole_seconds = max(1, round(seconds))
    command = [
        wrk_path(),
        "--threads=1",
        f"--connections={connections}",
        f"--duration={whole_seconds}s",
        f"--timeout={SLOWEST_ANSWER}s",
        f"--script={SCRIPT}",
        url,
        "--",
        str(body.file),
        body.content_type,
    ]
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=whole_seconds + 60, check=False
    )
    for line in finished.stdout.splitlines():
        if line.startswith("RESULT "):
            # Lua prints a percentile of no answers at all as nan, which is no JSON.
            result = json.loads(
                line.removeprefix("RESULT ").replace("-nan", "0").replace("nan", "0")
            )
            served = result["responses"] - result["refused"]
            return Measured(
                connections=connections,
                requests_per_s=served / result["seconds"],
                p50_ms=result["p50_ms"],
                p99_ms=result["p99_ms"],
                max_ms=result["max_ms"],
                served=served,
                refused=result["refused"],
                broken=result["broken"] + result["timeouts"],
            )
    raise RuntimeError(f"wrk failed: {(finished.stderr or finished.stdout).strip()[-300:]}")
