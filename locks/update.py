"""Write the lock files: every package that an environment needs, at one version, with its hashes.

    python locks/update.py               keep the versions that are locked, add what is missing
    python locks/update.py --upgrade     take the newest versions (make lock)

uv resolves each environment from pyproject.toml for all platforms and Python versions at once;
what only some of them need carries a marker. pip then installs with ``--require-hashes``: nothing
but the very files that were resolved.

PyTorch and the packages that only its CUDA build needs are in a lock of their own, torch.txt: it
holds PyPI's builds. Another index's builds (``make … TORCH_INDEX=…``) have other hashes; they are
installed at the same version, and checked against that index's own hashes.
"""

import argparse
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

LOCKS = Path(__file__).parent
ROOT = LOCKS.parent
UV = Path(sysconfig.get_path("scripts"), "uv")
ENTRY = re.compile(r"^([a-z0-9.-]+)==.*\n(?:    --hash=.*\n)+", re.MULTILINE)
OF_TORCH = re.compile(r"torch|torchvision|triton|nvidia-.*|cuda-.*")
# Name → what uv is asked to resolve.
ENVIRONMENTS = {
    "service": ("pyproject.toml",),
    "s3": ("pyproject.toml", "--extra", "s3", "--extra", "otel"),
    "dev": ("pyproject.toml", "--extra", "test"),
    "bench": ("bench/requirements.txt",),
    "audit": ("locks/audit.in",),
    "build": ("locks/build.in",),
}
# The tests of the service, run with its lowest versions; these themselves are those of dev.txt.
TEST_TOOLS = ("pytest", "httpx", "httpx2", "hypothesis", "schemathesis", "openapi-spec-validator",
              "onnx")  # fmt: skip


def resolve(*arguments: str) -> str:
    """The entries of a lock: ``name==version ; marker`` and hashes, in the order of names."""
    command = [UV, "pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate"]
    command += ["--universal", "--python-version", "3.11", "--fork-strategy", "fewest"]
    done = subprocess.run(  # noqa: S603 nothing in it comes from outside
        [*map(str, command), "--generate-hashes", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    return "".join(match.group() for match in ENTRY.finditer(done.stdout))


def write(name: str, made_from: str, entries: str) -> None:
    """Write one lock."""
    text = f"# Made by `make lock` from {made_from}\n{entries}"
    (LOCKS / f"{name}.txt").write_text(text, encoding="utf-8")
    print(f"locks/{name}.txt: {len(ENTRY.findall(entries))} packages")


def locked(name: str) -> str:
    """The entries of a lock that is there; empty if it isn't."""
    path = LOCKS / f"{name}.txt"
    return path.read_text("utf-8") if path.exists() else ""


def pins(text: str) -> str:
    """``name==version ; marker`` of every entry, without hashes."""
    return "\n".join(re.findall(r"^[a-z0-9.-]+==[^\\\n]*", text, re.MULTILINE))


def main() -> None:
    """Resolve every environment, dev first: the others keep to its versions."""
    parser = argparse.ArgumentParser(description="Write the lock files.")
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    upgrade = parser.parse_args().upgrade
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder, "constraints.txt")
        kept.write_text("" if upgrade else pins(locked("dev") + locked("torch")))
        dev = resolve(*ENVIRONMENTS["dev"], "--constraint", str(kept))
        of_torch = [m.group() for m in ENTRY.finditer(dev) if OF_TORCH.fullmatch(m[1])]
        others = [m.group() for m in ENTRY.finditer(dev) if not OF_TORCH.fullmatch(m[1])]
        write(
            "dev", "pyproject.toml, with the extra test; PyTorch is in torch.txt", "".join(others)
        )
        write("torch", "pyproject.toml, with the extra test: PyTorch from PyPI", "".join(of_torch))
        for name in ("service", "s3", "audit", "build", "bench"):
            # The peers of the benchmark want versions of their own, but the same PyTorch, and what
            # builds gradserve is installed beside them; what the object store's client needs
            # contradicts dev, but not the service.
            entries = {
                "bench": "".join([*of_torch, locked("build")]),
                "s3": locked("service"),
            }
            given = pins(entries.get(name, dev))
            before = [] if upgrade or name == "service" else pins(locked(name)).splitlines()
            there = {line.split("==")[0] for line in given.splitlines()}
            before = [line for line in before if line.split("==")[0] not in there]
            kept.write_text("\n".join([given, *before]))
            write(name, ENVIRONMENTS[name][0], resolve(*ENVIRONMENTS[name], "-c", str(kept)))
        tools = Path(folder, "tools.in")
        tools.write_text(
            "\n".join(p for p in pins(dev).splitlines() if p.split("==")[0] in TEST_TOOLS)
        )
        kept.write_text(pins(locked("build")))  # installed beside them
        lowest = resolve(
            "pyproject.toml", str(tools), "--resolution", "lowest-direct", "-c", str(kept)
        )
        write("lowest", "pyproject.toml: the lowest versions that it allows", lowest)


if __name__ == "__main__":
    if not UV.exists():
        sys.exit(f"{UV} is not there: make lock installs it")
    main()
