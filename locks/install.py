"""Make one of the environments under .venv, from its locks, unless it is there already.

    python locks/install.py service                    what `make serve` does first
    python locks/install.py dev --torch-index URL      PyTorch from another index

It is made anew when its locks change, when it was made by another Python than the one that is
asked for (``--any`` takes what is there), and when its Python is gone. Only packages whose hashes
the locks hold are installed; the exception is PyTorch from another index, at the locked version.
"""

import argparse
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = {
    "service": ("build", "service"),
    "dev": ("build", "dev", "torch"),
    "bench": ("build", "bench"),
    "audit": ("audit",),
    "lowest": ("build", "lowest"),
}
LARGE = {"dev", "bench"}
NEWEST = (3, 14)
SHOWN_LINES = 30


def unsupported(name: str) -> str | None:
    """Why this environment has no wheels on this machine; None if it has."""
    if sys.version_info[:2] > NEWEST:
        return (
            f"Python {platform.python_version()} is newer than what the packages have wheels for; "
            "name one from 3.11 to 3.14: make PYTHON=python3.14 …"
        )
    if sys.platform == "linux" and not platform.libc_ver()[0]:
        return (
            "ONNX Runtime has no wheel for musl (Alpine); use a system with glibc, such as Debian"
        )
    if sys.maxsize < 2**32:
        return "ONNX Runtime has no wheel for 32-bit Python; use a 64-bit one"
    intel_mac = sys.platform == "darwin" and platform.machine() == "x86_64"
    if intel_mac and name in LARGE:
        return (
            "PyTorch has no wheel for Macs with an Intel processor; the service itself runs there"
        )
    if intel_mac and sys.version_info[:2] > (3, 13):
        return "ONNX Runtime for Macs with an Intel processor needs Python 3.13 or older"
    return None


def python_of(environment: Path) -> Path:
    """Where the interpreter of an environment lies."""
    windows = os.name == "nt"
    return environment / ("Scripts/python.exe" if windows else "bin/python")


def stamp(name: str, torch_index: str) -> dict[str, str]:
    """What an environment was made from: compared to decide whether it is up to date."""
    digest = hashlib.sha256(torch_index.encode())
    for path in ("pyproject.toml", *(f"locks/{lock}.txt" for lock in LOCKS[name])):
        digest.update((ROOT / path).read_bytes())
    python = f"{platform.python_version()} of {Path(sys.base_prefix).resolve()}"
    return {"locks": digest.hexdigest(), "python": python}


def up_to_date(environment: Path, wanted: dict[str, str], any_python: bool) -> bool:
    """Whether the environment was made from ``wanted``, and still runs."""
    try:
        lines = (environment / "installed").read_text("utf-8").splitlines()
        subprocess.run(  # noqa: S603
            [python_of(environment), "-c", "pass"], check=True, capture_output=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return False
    found = dict(line.split(": ", 1) for line in lines if ": " in line)
    if not found:  # made by hand: as long as it is newer than its locks, it is taken
        made = (environment / "installed").stat().st_mtime
        sources = [ROOT / "pyproject.toml", *(ROOT / "locks").glob("*.txt")]
        return any_python and made > max(path.stat().st_mtime for path in sources)
    return found["locks"] == wanted["locks"] and (any_python or found["python"] == wanted["python"])


class Failed(Exception):
    """A step failed; the message says what to do."""


def run(command: Sequence[object], log: Path) -> None:
    """Run one step; its output goes to ``log``. Raises Failed with the end of that."""
    words = [str(word) for word in command]
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n$ {shlex.join(words)}\n")
        file.flush()
        done = subprocess.run(words, cwd=ROOT, stdout=file, stderr=file, check=False)  # noqa: S603
    if done.returncode:
        shown = log.read_text("utf-8", "replace").splitlines()[-SHOWN_LINES:]
        raise Failed("\n".join([*shown, "", f"That did not work; {log} has all of it."]))


def install(name: str, torch_index: str, pip_arguments: list[str]) -> None:
    """Make the environment. Raises Failed."""
    environment = ROOT / ".venv" / name
    log = ROOT / ".venv" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("", "utf-8")
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        raise Failed(
            "This Python has no ensurepip, which environments are made with. On Debian and Ubuntu: "
            "apt-get install python3-venv"
        ) from None
    if environment.is_dir() and not environment.is_symlink():
        shutil.rmtree(environment)
    run([getattr(sys, "_base_executable", sys.executable), "-m", "venv", environment], log)
    pip = [python_of(environment), "-m", "pip", "install", "--disable-pip-version-check"]
    pip += ["--progress-bar", "off", *pip_arguments]
    locks = [lock for lock in LOCKS[name] if not (torch_index and lock == "torch")]
    # The locks are whole. Were pip to look for dependencies as well, it would trip over the next
    # release of one that is wanted with an extra (coverage[toml]): pypa/pip issue 9644.
    exactly = [*pip, "--no-deps", "--require-hashes"]
    run([*exactly, *(f"--requirement=locks/{lock}.txt" for lock in locks)], log)
    if torch_index and "torch" in LOCKS[name]:
        text = (ROOT / "locks/torch.txt").read_text("utf-8")
        builds = re.findall(r"^(?:torch|torchvision)==[^ ;]+", text, re.MULTILINE)
        # With its dependencies: a CUDA build of that index wants packages of that index.
        run([*pip, "--extra-index-url", torch_index, "--prefer-binary", *builds], log)
    if "build" in locks:
        run([*pip, "--no-deps", "--no-build-isolation", "--editable", "."], log)
    run([*pip[:3], "check"], log)  # that nothing is missing from the locks


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description="Make one of the environments under .venv.")
    parser.add_argument("name", choices=LOCKS)
    parser.add_argument("--torch-index", default="", help="an index to take PyTorch from")
    parser.add_argument("--pip", default="", help="further arguments for pip install")
    parser.add_argument("--any", action="store_true", help="whatever Python the present one has")
    options = parser.parse_args()
    environment = ROOT / ".venv" / options.name
    wanted = stamp(options.name, options.torch_index)
    if up_to_date(environment, wanted, options.any):
        return 0
    reason = unsupported(options.name)
    if reason:
        print(reason, file=sys.stderr)
        return 1
    large = ": with PyTorch, a large download the first time" if options.name in LARGE else ""
    print(f"Installing into .venv/{options.name}{large} …", flush=True)
    try:
        install(options.name, options.torch_index, shlex.split(options.pip))
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    lines = [f"{key}: {value}" for key, value in wanted.items()]
    (environment / "installed").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
