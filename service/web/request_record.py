"""The record of a request, filled in while it is answered, for its log line, metrics and trace.

``current`` holds that of the request being handled: any code can add to them without having the
request passed in. Outside a request it is None, and ``Stage`` does nothing.
"""

import time
from contextvars import ContextVar
from types import TracebackType

# In order of execution.
STAGES = ("read", "parse", "decode", "queue", "infer", "write")


class RequestRecord:
    """One request: who asked, which model answered, and where its time went."""

    __slots__ = (
        "model",
        "request_id",
        "rows",
        "runs",
        "seconds",
        "starts",
        "trace",
        "version",
        "warnings",
    )

    def __init__(self, request_id: str = "", trace: str = "") -> None:
        self.request_id = request_id
        self.trace = trace  # the client's traceparent, if it sent a valid one
        self.model = ""
        self.version = 0
        self.rows = 0
        self.runs = 0
        self.warnings = 0  # of libraries, logged so far
        self.seconds: dict[str, float] = {}  # by stage, added up
        self.starts: dict[str, float] = {}  # when each stage first began, by ``perf_counter``

    def add(self, stage: str, seconds: float) -> None:
        """Note that so many seconds, which end now, went into ``stage``."""
        if stage in self.seconds:
            self.seconds[stage] += seconds
        else:
            self.seconds[stage] = seconds
            self.starts[stage] = time.perf_counter() - seconds


current: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


class Stage:
    """``with Stage("parse"):`` adds the time inside to the current request."""

    __slots__ = ("_name", "_started")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        request_record = current.get()
        if request_record is not None:
            request_record.add(self._name, time.perf_counter() - self._started)
