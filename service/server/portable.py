"""What supervised workers need of the operating system; Windows and macOS lack some of it."""

import os
import signal

_NEEDED = (
    (os, "fork"),
    (signal, "pthread_sigmask"),
    (signal, "sigtimedwait"),
    (signal, "SIGCHLD"),
)
# The last three end a process as well, if it doesn't expect them; batch systems send some of them
# before they kill.
_ENDING = (
    *("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGBREAK"),
    *("SIGUSR1", "SIGUSR2", "SIGALRM"),
)


def missing_parts() -> list[str]:
    """Names of what is missing; none where workers can be supervised."""
    return [f"{module.__name__}.{name}" for module, name in _NEEDED if not hasattr(module, name)]


def shutdown_signals() -> tuple[signal.Signals, ...]:
    """The signals that end the service. Not SIGHUP if its caller ignores that, as nohup does."""
    known = [getattr(signal, name) for name in _ENDING if hasattr(signal, name)]
    return tuple(
        number
        for number in known
        if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN
    )
