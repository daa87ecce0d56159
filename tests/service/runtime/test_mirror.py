"""Copies of an object store on this machine: what is copied, what is kept, what befalls them.

The store is a folder behind ``file://``; tests/deploy/test_object_store.py has one that speaks S3.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from contract.errors import StoreUnavailable
from contract.remote import Remote
from contract.store import list_models, list_versions
from service.runtime.cache import Cache
from service.runtime.mirror import Mirror, Options, read_state
from service.runtime.observer import Observer
from service.runtime.registry import Registry
from service.settings import Settings
from tests.server_process import ServerProcess
from tests.tiny_artifacts import publish_curve, publish_function

pytest.importorskip("fsspec", reason="fsspec comes with PyTorch, or with the extra s3")

MODEL = "curve-mlp"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store with four versions of one model and one of another."""
    root = tmp_path / "store"
    for offset in range(4):
        publish_curve(root, offset=float(offset))
    publish_function(root)
    return root


def mirror(tmp_path: Path, keep: int = 2, **pin: int) -> Mirror:
    pins = {name.replace("_", "-"): version for name, version in pin.items()}
    folder = tmp_path / "cache"
    folder.mkdir(exist_ok=True)
    return Mirror(Options(f"file://{tmp_path}/store", str(folder), keep, pins, 0.1))


def settings(tmp_path: Path, **changes: Any) -> Settings:
    return Settings(
        artifacts=f"file://{tmp_path}/store",
        cache=tmp_path / "caches",
        store_seconds=0.2,
        watch_seconds=0.2,
        **changes,
    )


def versions(tmp_path: Path) -> list[int]:
    return list_versions(tmp_path / "cache", MODEL)


def test_the_newest_versions_are_copied_and_the_pinned_one(store: Path, tmp_path: Path) -> None:
    assert mirror(tmp_path, curve_mlp=1).look().trouble == ""
    assert versions(tmp_path) == [4, 3, 1]
    assert len(list_models(tmp_path / "cache")) == 2


def test_old_versions_go_unless_one_is_loaded(store: Path, tmp_path: Path) -> None:
    copies = mirror(tmp_path)
    copies.look()
    cache = Cache("file:///nowhere", settings(tmp_path), Observer())
    cache.hold({MODEL: tmp_path / "cache" / MODEL / "3"})
    for _ in range(2):
        publish_curve(store)
    copies.look()
    assert versions(tmp_path) == [6, 5, 3]
    cache.hold({MODEL: tmp_path / "cache" / MODEL / "6"})
    copies.look()
    assert versions(tmp_path) == [6, 5]


def test_what_is_deleted_in_the_store_goes_though_it_is_loaded(store: Path, tmp_path: Path) -> None:
    copies = mirror(tmp_path)
    copies.look()
    cache = Cache("file:///nowhere", settings(tmp_path), Observer())
    cache.hold({MODEL: tmp_path / "cache" / MODEL / "4"})
    shutil.rmtree(store / MODEL / "4")
    copies.look()
    assert versions(tmp_path) == [3, 2]


@pytest.mark.parametrize("how", ["gone", "empty", "unreadable"])
def test_the_absence_of_the_store_takes_nothing_away(store: Path, tmp_path: Path, how: str) -> None:
    copies = mirror(tmp_path)
    copies.look()
    shutil.rmtree(store)
    if how == "empty":
        store.mkdir()
    if how == "unreadable":
        store.write_text("a file")
    state = copies.look()
    assert state.trouble
    assert 0 < state.succeeded < state.looked
    assert versions(tmp_path) == [4, 3]


def test_a_damaged_version_is_skipped_until_it_changes(store: Path, tmp_path: Path) -> None:
    file = store / MODEL / "4" / "value.onnx"
    good = file.read_bytes()
    file.write_bytes(b"evil")
    copies = mirror(tmp_path, keep=1)
    state = copies.look()
    assert "value.onnx" in state.refused[f"{MODEL}/4"]
    assert state.trouble == ""
    assert versions(tmp_path) == [3]
    reads = []
    fetch = Remote.fetch
    copies._remote.fetch = lambda *given: reads.append(given) or fetch(copies._remote, *given)
    copies.look()
    assert reads == []
    file.write_bytes(good)
    assert copies.look().refused == {}
    assert versions(tmp_path)[0] == 4


def test_a_copy_that_was_damaged_is_fetched_anew(store: Path, tmp_path: Path) -> None:
    mirror(tmp_path).look()
    (tmp_path / "cache" / MODEL / "4" / "value.onnx").write_bytes(b"rotten")
    (tmp_path / "cache" / ".fetch-left").mkdir()
    again = mirror(tmp_path)
    again.tidy()
    assert versions(tmp_path) == [3]
    assert not (tmp_path / "cache" / ".fetch-left").exists()
    again.look()
    assert versions(tmp_path) == [4, 3]


def test_a_full_disk_is_said(store: Path, tmp_path: Path) -> None:
    def fetch(*_: object) -> None:
        raise OSError(28, "No space left on device", "/cache/x")

    copies = mirror(tmp_path)
    copies._remote = Remote(f"file://{store}")
    copies._remote.fetch = fetch
    assert copies.look().trouble == "/cache/x: No space left on device"


def test_one_process_copies_for_all(store: Path, tmp_path: Path) -> None:
    first, second = (Registry(settings(tmp_path)) for _ in range(2))
    try:
        first.refresh(5)
        second.refresh(5)
        assert first.models.keys() == second.models.keys() == {*list_models(store)}
        assert first.cache._process is not None
        assert second.cache._process is None
        first.close()
        second.cache.run_once()
        assert second.cache._process is not None
    finally:
        first.close()
        second.close()


def test_a_cache_that_can_not_be_written_is_said(store: Path, tmp_path: Path) -> None:
    (tmp_path / "caches").write_text("a file")
    registry = Registry(settings(tmp_path))
    registry.refresh()
    registry.close()
    assert "GRADSERVE_CACHE" in registry.missing()[0].reason


def test_the_process_ends_with_whoever_started_it(store: Path, tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from service.settings import Settings; "
        "from service.runtime.cache import Cache; from service.runtime.observer import Observer; "
        "s = Settings(); c = Cache(s.store, s, Observer()); c.first_look(); "
        "print(c._process.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            "GRADSERVE_ARTIFACTS": f"file://{store}",
            "GRADSERVE_CACHE": str(tmp_path / "caches"),
            "PATH": "",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    child = Path(f"/proc/{int(done.stdout)}/stat")
    for _ in range(100):
        if not child.exists() or child.read_text().split()[2] == "Z":
            return
        time.sleep(0.1)
    pytest.fail("it still runs")


def test_a_service_follows_the_store_and_outlives_it(store: Path, tmp_path: Path) -> None:
    with ServerProcess(
        tmp_path / "unused", artifacts=f"file://{store}", cache=tmp_path / "caches", workers=2,
        store_seconds=0.3, watch_seconds=0.2,
    ) as server:  # fmt: skip
        server.wait_ready()
        served = lambda: server.post("/predict", {"x": 0})[1]  # noqa: E731
        assert (served()["version"], served()["y"]) == (4, [3.0])
        publish_curve(store, offset=9.0)
        server.wait_until(lambda: served()["version"] == 5, "version 5 serves")
        store.rename(tmp_path / "elsewhere")

        def metric(name: str) -> float:
            text = server.request("GET", "/metrics")[1].decode()
            return float(next(x for x in text.splitlines() if x.startswith(name + " ")).split()[1])

        server.wait_until(lambda: metric("gradserve_store_reached") == 0, "the store is missed")
        assert metric("gradserve_store_last_success_seconds") > 0
        assert server.is_ready()
        assert served()["version"] == 5
        (tmp_path / "elsewhere").rename(store)
        server.wait_until(lambda: metric("gradserve_store_reached") == 1, "the store is back")
    # With the store away, a new start serves what is in the cache.
    store.rename(tmp_path / "elsewhere")
    with ServerProcess(
        tmp_path / "unused", artifacts=f"file://{store}", cache=tmp_path / "caches"
    ) as server:
        server.wait_ready()
        assert server.post("/predict", {"x": 0})[1]["version"] == 5


def test_state_that_is_no_state_is_no_look(tmp_path: Path) -> None:
    (tmp_path / ".state.json").write_text(json.dumps({"other": 1}))
    assert read_state(tmp_path).looked == 0


def test_a_start_that_finds_no_store_says_why(tmp_path: Path) -> None:
    registry = Registry(settings(tmp_path))
    registry.refresh()
    registry.close()
    assert not registry.models
    (missing, *_) = registry.missing()
    assert f"{tmp_path}/store" in missing.reason
    with pytest.raises(StoreUnavailable):
        Remote("s4://bucket")
