"""Measurements run rarely and type checking passes over them; so a renamed name is found here."""

import importlib
import pkgutil

import pytest

import bench

OURS = ("bench", "clients", "contract", "deploy", "gradserve", "service", "tests", "training")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(bench.__path__, "bench.")
    if not module.name.startswith("bench.peers")  # scripts for environments of their own
]


@pytest.mark.parametrize("name", MODULES)
def test_every_measurement_can_be_imported(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in OURS:
            raise
        pytest.skip(f"needs {missing.name}: see bench/requirements*.txt")
