"""The process that verifies versions, as it is seen from outside: started, asked, ended.

It takes longer to import than anything else at a start. So ``service.__main__`` starts it first of
all, and this module imports nothing but the standard library.
"""

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

from service.runtime.own_process import command

# A process that waits (for a disk, for a processor) uses no processor time; after so many times the
# limit of that it is ended all the same.
PATIENCE = 4
STARTING_SECONDS = 30  # more for its imports, on a busy machine

Answer = dict[str, Any]


class VerifyingProcess:
    """A running ``service.runtime.verify``."""

    def __init__(self) -> None:
        self.running = True
        self._told = False
        self._late = False
        environment = os.environ | {
            "MALLOC_ARENA_MAX": "2",
            "OMP_NUM_THREADS": "1",
            "PYDANTIC_DISABLE_PLUGINS": "__all__",  # finding that there are none takes long
        }
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(  # noqa: S603 - this very interpreter, our own code
            command("service.runtime.verify"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
            start_new_session=True,
        )
        # Both are there: they were asked for.
        self._questions = cast(IO[bytes], self._process.stdin)
        self._answers = cast(IO[bytes], self._process.stdout)

    def ask(self, folder: Path, options: Mapping[str, Any]) -> Answer:
        """What it says of the version in ``folder``; if it ends over that, why.

        ``options`` are those of ``service.runtime.verify``, the same each time.
        """
        patience = PATIENCE * options["seconds"] + STARTING_SECONDS
        timer = threading.Timer(patience, self._end_late)
        timer.daemon = True
        timer.start()
        if not self._told:
            self._told = True
            self._write(options)
        self._write(os.fspath(folder.absolute()))
        line = self._answers.readline()
        timer.cancel()
        if line.endswith(b"\n"):
            answer: Answer = json.loads(line)
            return answer
        self.running = False
        return {"reason": self._why_it_ended(patience, options)}

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def close(self) -> None:
        """Let it end; it has nothing left to do."""
        self.running = False
        for stream in (self._questions, self._answers):
            with suppress(OSError):  # it has ended already
                stream.close()
        self._process.wait()
        self._errors.close()

    def _write(self, message: object) -> None:
        with suppress(OSError):  # it has ended, which reading its answer will show
            self._questions.write(json.dumps(message).encode() + b"\n")
            self._questions.flush()

    def _end_late(self) -> None:
        self._late = True
        self._process.kill()

    def _why_it_ended(self, patience: float, options: Mapping[str, Any]) -> str:
        code = self._process.wait()
        if self._late:
            return f"verifying it takes longer than {patience:g} s"
        if code == -getattr(signal, "SIGXCPU", 0):
            return f"verifying it takes more than {options['seconds']:g} s of processor time"
        if code < 0:
            name = signal.Signals(-code).name
            return (
                f"the process that verified it was ended by {name}: it needs more than "
                f"{options['bytes'] >> 20} MiB, or its graph crashes ONNX Runtime"
            )
        self._errors.seek(0)
        lines = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return f"the process that verifies it failed: {(lines or ['no message'])[-1][:200]}"
