"""Ask whether every lock can be installed, from wheels alone, where it should be.

    make platforms

uv looks up the wheels of each pinned version for each platform and Python; nothing is downloaded.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

LOCKS = Path(__file__).parent
UV = Path(sysconfig.get_path("scripts"), "uv")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PLATFORMS = {
    "Linux, x86_64": "x86_64-manylinux_2_28",
    "Linux, aarch64": "aarch64-manylinux_2_28",
    "macOS 14, arm64": "aarch64-apple-darwin",
    "macOS 14, Intel": "x86_64-apple-darwin",
    "Windows, x86_64": "x86_64-pc-windows-msvc",
}
# Neither PyTorch nor ONNX Runtime are made for Macs with an Intel processor any more; the last ONNX
# Runtime that was is for Python 3.13 and older. locks/install.py says so before it installs.
NOWHERE = {
    ("macOS 14, Intel", "3.14", "service"),
    ("macOS 14, Intel", "3.14", "s3"),
    *(("macOS 14, Intel", p, "dev") for p in PYTHONS),
}
LISTS = {"service": ("service",), "s3": ("s3",), "dev": ("dev", "torch")}


def missing(platform: str, python: str, locks: tuple[str, ...]) -> str:
    """What has no wheel there; empty if all do."""
    command = [UV, "pip", "compile", "--quiet", "--no-config", "--no-deps", "--only-binary=:all:"]
    command += ["--python-platform", PLATFORMS[platform], "--python-version", python]
    done = subprocess.run(  # noqa: S603
        [*map(str, command), *(str(LOCKS / f"{lock}.txt") for lock in locks)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"},
        check=False,
    )
    if done.returncode == 0:
        return ""
    return (done.stderr.strip() or f"uv ended with {done.returncode}")[:500]


def main() -> int:
    """Print a line for each lock and platform; 1 if one can't be installed that should be."""
    wrong = 0
    for name, locks in LISTS.items():
        for platform in PLATFORMS:
            found = {p: missing(platform, p, locks) for p in PYTHONS}
            unexpected = {
                p: m for p, m in found.items() if m and (platform, p, name) not in NOWHERE
            }
            can = ", ".join(p for p, m in found.items() if not m) or "no Python"
            print(f"{name:8} {platform:16} {can}", flush=True)
            for python, message in unexpected.items():
                print(f"  Python {python}: {message}", file=sys.stderr)
            wrong += len(unexpected)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
