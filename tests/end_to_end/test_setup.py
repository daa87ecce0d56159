"""What a clone is set up by: the Makefile's checks, and locks that fit pyproject.toml."""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from service.settings import Settings

ROOT = Path(__file__).parents[2]
_spec = spec_from_file_location("install", ROOT / "locks" / "install.py")
install = module_from_spec(_spec)
_spec.loader.exec_module(install)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def pins(*locks: str) -> dict[str, str]:
    """Package → version, of the entries that hold on this machine; each has its hashes."""
    found = {}
    for lock in locks:
        text = (ROOT / "locks" / f"{lock}.txt").read_text("utf-8")
        entries = re.findall(
            r"^[a-z].*\n(?:    --hash=sha256:[0-9a-f]{64}.*\n)+", text, re.MULTILINE
        )
        assert len(entries) == len(re.findall(r"^[^#\s]", text, re.MULTILINE)), lock
        for entry in entries:
            requirement = Requirement(entry.splitlines()[0].rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate():
                found[requirement.name] = str(requirement.specifier).removeprefix("==")
    return found


def wanted(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for on this machine, gradserve itself left out."""
    texts = [*PROJECT["dependencies"]]
    for extra in extras:
        texts += PROJECT["optional-dependencies"][extra]
    found = [r for r in map(Requirement, texts) if r.name != PROJECT["name"]]
    return [r for r in found if r.marker is None or r.marker.evaluate()]


@pytest.mark.parametrize(
    ("locks", "extras"),
    [
        (("service",), ()),
        (("s3",), ("s3", "otel")),
        (("dev", "torch"), ("training", "otel", "test")),
        (("bench",), ("training",)),
        (("lowest",), ()),
    ],
    ids="-".join,
)
def test_a_lock_has_what_pyproject_asks_for(locks: tuple[str], extras: tuple[str]) -> None:
    locked = pins(*locks)
    for requirement in wanted(*extras):
        name = canonicalize_name(requirement.name)
        assert name in locked, f"run python locks/update.py: {name} is new"
        assert requirement.specifier.contains(locked[name]), f"run make lock: {requirement}"


@pytest.mark.parametrize("name", install.LOCKS)
def test_the_locks_of_one_environment_agree(name: str) -> None:
    """pip refuses to install two versions of one package."""
    together = pins(*install.LOCKS[name])
    for lock in install.LOCKS[name]:
        assert pins(lock).items() <= together.items(), f"run make lock: {lock}"


def test_the_lowest_versions_are_those_that_are_tested() -> None:
    locked = pins("lowest")
    for requirement in wanted():
        floor = next(s.version for s in requirement.specifier if s.operator == ">=")
        assert SpecifierSet(f"=={floor}.*").contains(locked[requirement.name]), requirement


def test_the_service_and_the_tests_have_the_same_versions() -> None:
    service, dev = pins("service"), pins("dev", "torch")
    assert {name: dev.get(name) for name in service} == service
    assert service.items() <= pins("s3").items()


def test_the_service_needs_neither_pytorch_nor_onnx() -> None:
    assert not pins("service").keys() & {"torch", "torchvision", "onnx", "onnxscript", "matplotlib"}


def test_what_is_imported_is_declared() -> None:
    """Not only what happens to come with something else."""
    declared = {canonicalize_name(r.name) for r in wanted("training", "otel")}
    declared.add("pydantic-core")  # pydantic names its exact version
    declared.add("fsspec")  # as s3fs does, and PyTorch needs it too
    distributions = packages_distributions()
    for room in ("contract", "service", "training", "gradserve"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_bytes())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [str(node.module)]
                for top in {name.partition(".")[0] for name in names} - set(
                    sys.stdlib_module_names
                ):
                    owners = {canonicalize_name(owner) for owner in distributions.get(top, [])}
                    ours = (ROOT / top).is_dir()
                    assert ours or not owners or owners & declared, f"{path}: {top} of {owners}"


def test_what_has_no_wheels_is_refused_in_words(monkeypatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.36"))
    assert [install.unsupported(name) for name in install.LOCKS] == [None] * len(install.LOCKS)
    monkeypatch.setattr("platform.libc_ver", lambda: ("", ""))
    assert "musl" in install.unsupported("service")
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert install.unsupported("service") is None
    assert "Intel" in install.unsupported("dev")
    monkeypatch.setattr("sys.version_info", (3, 15, 0))
    assert "3.14" in install.unsupported("service")


def test_an_environment_is_made_anew_when_it_must_be(tmp_path: Path, monkeypatch) -> None:
    """For new locks, another Python, or when its interpreter is gone; and only then."""
    environment = tmp_path / "venv"
    python = environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.setattr(install, "python_of", lambda _: python)
    wanted = {"locks": "a", "python": "3.11.7 of /usr"}
    assert not install.up_to_date(environment, wanted, any_python=True)  # no stamp
    (environment / "installed").write_text("locks: a\npython: 3.11.7 of /usr\n")
    assert install.up_to_date(environment, wanted, any_python=False)
    assert not install.up_to_date(environment, wanted | {"locks": "b"}, any_python=True)
    other = wanted | {"python": "3.13.0 of /usr"}
    assert not install.up_to_date(environment, other, any_python=False)
    assert install.up_to_date(environment, other, any_python=True)
    python.unlink()
    python.symlink_to(tmp_path / "gone")
    assert not install.up_to_date(environment, wanted, any_python=True)


def test_a_failed_step_shows_why(tmp_path: Path) -> None:
    with pytest.raises(install.Failed, match="the reason"):
        install.run([sys.executable, "-c", "raise SystemExit('the reason')"], tmp_path / "log")


@pytest.mark.parametrize("target", ["serve", "test", "train", "lint"])
def test_an_old_python_is_refused_in_words(tmp_path: Path, target: str) -> None:
    python = tmp_path / "python3.9"
    python.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 || exit 1\n')
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if "MAKE" not in name}
    done = subprocess.run(
        ["make", target, f"PYTHON={python}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert "gradserve needs Python 3.11 or newer" in done.stderr
    assert "Python 3.9.2" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_clone_on_windows_has_the_bytes_that_were_committed(tmp_path: Path) -> None:
    """Git for Windows changes line ends by default; artifacts would then fail their checksums."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "-c", "core.autocrlf=true", "clone", "-q", "--depth=1", f"file://{ROOT}", clone],
        check=True,
        timeout=120,
    )
    manifests = sorted((clone / "artifacts").glob("*/*/manifest.json"))
    assert manifests
    for manifest in manifests:
        for name, file in json.loads(manifest.read_text("utf-8"))["files"].items():
            content = (manifest.parent / name).read_bytes()
            assert hashlib.sha256(content).hexdigest() == file["sha256"], f"{manifest}: {name}"
    for script in (".ci/run", "Makefile", "Dockerfile", "training/data/HW1-1.csv"):
        assert b"\r\n" not in (clone / script).read_bytes(), script


COMPOSE_FILES = ("docker-compose.yml", "deploy/compose-proxy.yml")


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_compose_passes_every_setting_by_name(name: str) -> None:
    """A setting that is not passed on is ignored in silence: a key file, at worst."""
    import yaml

    document = yaml.safe_load((ROOT / name).read_text("utf-8"))
    extended = document["services"]["api"].pop("extends")
    base = (ROOT / name).parent / extended["file"]
    services = yaml.safe_load(base.read_text("utf-8"))["services"]
    api = services[extended["service"]] | document["services"]["api"]
    # The container's own address, port and folder are given by the image and the mounts.
    wanted = set(Settings.model_fields) - {"host", "port", "artifacts"}
    assert sorted(api["environment"]) == sorted(f"GRADSERVE_{name.upper()}" for name in wanted)
    assert api["secrets"][0]["target"].startswith("${GRADSERVE_API_KEY_FILE:-")
    default = re.fullmatch(
        r"\$\{GRADSERVE_API_KEY_FILE:-(.+)\}", document["secrets"]["api_keys"]["file"]
    )
    # Compose 1.29 warns of one that is no regular file.
    assert default and ((ROOT / name).parent / default[1]).is_file()
    assert {"mem_limit", "cpus", "pids_limit", "logging"} <= api.keys()
