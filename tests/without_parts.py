"""Python that takes away what Windows and macOS lack, to be run before anything else."""

WITHOUT_PARTS = """
import ctypes, os, signal, sys
for module, names in {os: ["fork", "sched_getaffinity", "posix_fallocate", "getuid", "O_NOFOLLOW",
        "O_DIRECTORY", "O_NONBLOCK", "fchmod"],
    signal: ["sigtimedwait", "SIGCHLD", "pthread_sigmask", "SIGHUP", "SIGQUIT"]}.items():
    for name in names:
        delattr(module, name)
for package in ("uvloop", "fcntl", "resource", "grp", "pwd"):
    sys.modules[package] = None
class NoHandle(ctypes.CDLL):
    def __init__(self, name, *more, **options):
        if name is None:
            raise TypeError("Windows has no such handle")
        super().__init__(name, *more, **options)
ctypes.CDLL = NoHandle
"""
