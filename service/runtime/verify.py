"""A process that verifies versions within limits: ``python -m service.runtime.verify``.

A graph may loop for ever, and samples may unpack to gigabytes: then this process ends, not the
service. It reads lines of JSON and answers each with one: first how to run graphs and the limits,
then one folder after another. ``service.runtime.verifier`` starts it and understands its end.

The limits are the system's own (setrlimit): processor time for each version, and memory above what
the imports take. Where the system has none (Windows), only the time that the verifier waits limits
it.
"""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from contract.errors import ArtifactError
from contract.system import memory_used
from service.runtime.loader import verify_version

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


class Options(NamedTuple):
    """How to run graphs, as the service's settings have it, and the limits."""

    precision: str
    providers: tuple[str, ...]
    session_threads: int
    seconds: float  # of processor time, for each version
    bytes: int  # of memory, above what this process has at its start


def main() -> None:
    """Answer until the input ends."""
    # What libraries print must not get among the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if hasattr(signal, "pthread_sigmask"):  # blocked where this process was started early
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the service's to handle
    first = sys.stdin.readline()
    if not first:  # started early, and not needed
        return
    options = Options(**json.loads(first))
    options = options._replace(providers=tuple(options.providers))
    if options.providers == ("CPUExecutionProvider",):  # others map much that they never use
        _limit_memory(options.bytes)
    for line in sys.stdin:
        _limit_time(options.seconds)
        print(json.dumps(_answer(Path(json.loads(line)), options)), file=answers, flush=True)


def _answer(folder: Path, options: Options) -> dict[str, Any]:
    try:
        return {"verdict": asdict(verify_version(folder, options))}
    except MemoryError:
        return {"reason": f"{folder.name}: it takes more than {options.bytes >> 20} MiB to verify"}
    except (ArtifactError, OSError) as error:
        return {"reason": str(error)}
    except Exception as error:
        return {"reason": repr(error)[:300]}


def _limit_memory(size: int) -> None:
    used = memory_used()
    if used is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = used[0] + size
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def _limit_time(seconds: float) -> None:
    if resource is None:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 1
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))


if __name__ == "__main__":
    main()
