"""Write the lock files: every package that an environment needs, at one version.

    python locks/update.py

pip resolves each environment afresh from pyproject.toml, without installing it. The locks are
used as constraints (``pip install -c``), so a machine that needs fewer packages, such as one with
the CPU build of PyTorch, installs fewer. A local build tag (``2.9.0+cpu``) is left out: a pin
without one admits every build of that version.
"""

import json
import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = {"service": ".", "dev": ".[test]"}


def resolve(requirement: str) -> list[str]:
    """``name==version`` for the requirement's packages, sorted; gradserve itself left out."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
    report = subprocess.run(  # noqa: S603 nothing in it comes from outside
        [*command, "--quiet", "--report", "-", requirement],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[1],
    ).stdout
    packages = (item["metadata"] for item in json.loads(report)["install"])
    return sorted(
        f"{package['name'].lower().replace('_', '-')}=={package['version'].partition('+')[0]}"
        for package in packages
        if package["name"] != "gradserve"
    )


def main() -> None:
    for name, requirement in ENVIRONMENTS.items():
        lines = [f"# Made by `make lock` from pyproject.toml: {requirement}", *resolve(requirement)]
        target = Path(__file__).with_name(f"{name}.txt")
        target.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{target}: {len(lines) - 1} packages")


if __name__ == "__main__":
    main()
