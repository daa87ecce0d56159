"""What stays loaded, what goes, and what is said, whatever befalls the artifacts folder."""

import asyncio
import errno
import os
import shutil
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from service.runtime.loader import Verdict, verify_version
from service.runtime.observer import Observer
from service.runtime.registry import Registry
from service.runtime.verifier import Refused
from service.settings import Settings
from tests.tiny_artifacts import publish_classifier, publish_curve

WAIT = 60.0  # seconds; verifying takes a fraction of one


class Told(Observer):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.readable: list[bool] = []
        self.versions: list[tuple[str, int]] = []

    def folder_readable(self, readable: bool) -> None:
        self.readable.append(readable)

    def version_in_service(self, model: str, version: int) -> None:
        self.versions.append((model, version))


def registry(root: Path, **settings: Any) -> Registry:
    made = Registry(Settings(artifacts=root, **settings), Told())
    made.refresh(WAIT)
    return made


def serving(found: Registry) -> dict[str, int]:
    return {name: model.manifest.version for name, model in found.models.items()}


def test_foreign_files_change_nothing(tmp_path, monkeypatch) -> None:
    folder = publish_curve(tmp_path, "a").folder
    found = registry(tmp_path)
    loaded = found.get("a")
    monkeypatch.setattr(found.verifier, "submit", lambda *_: pytest.fail("verified again"))
    for name in (".DS_Store", "._value.onnx", ".nfs0001", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    (folder / "@eaDir").mkdir()
    found.refresh()
    assert found.get("a") is loaded


def test_what_is_loaded_stays_though_its_files_change(tmp_path, caplog) -> None:
    """A file that no graph needs, a graph, the manifest: the model in memory is as it was."""
    publish_curve(tmp_path, "a")
    folder = publish_curve(tmp_path, "a", offset=1.0).folder
    found = registry(tmp_path)
    loaded = found.get("a")
    for name in ("report.md", "value.onnx", "manifest.json"):
        (folder / name).write_bytes(b"damaged")
        found.refresh(WAIT)
        assert found.get("a") is loaded and found.missing() == []
    (folder / "manifest.json").unlink()
    found.refresh(WAIT)
    assert found.get("a") is loaded
    assert caplog.text.count("version 2 has changed on disk and would be refused now") == 4
    publish_curve(tmp_path, "a", offset=2.0)
    found.refresh(WAIT)
    assert serving(found) == {"a": 3}


@pytest.mark.parametrize(
    ("agrees", "precision", "said"),
    [(True, "auto", "int8"), (False, "auto", "fp32"), (True, "fp32", "fp32")],
)
def test_the_log_says_which_of_several_graphs_serves(
    tmp_path, caplog, agrees, precision, said
) -> None:
    publish_classifier(tmp_path, "a", int8_agrees=agrees)
    publish_curve(tmp_path, "b")
    with caplog.at_level("INFO"):
        found = registry(tmp_path, precision=precision)
    messages = [record.getMessage() for record in caplog.records]
    assert f"serving a version 1: probabilities in {said}" in messages
    assert "serving b version 1" in messages
    assert found.get("a").functions["probabilities"].graph.precision == said


@pytest.mark.parametrize("module", ["verifier.VerifyingProcess", "registry.load"])
def test_what_the_system_has_no_room_for_is_tried_again(tmp_path, monkeypatch, module) -> None:
    """Without descriptors nothing can be said of a version: it is not refused."""
    publish_curve(tmp_path, "a")

    def no_room(*_: Any) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(f"service.runtime.{module}", no_room)
        found = Registry(Settings(artifacts=tmp_path))
        found.refresh(0.5)
        assert serving(found) == {} and found.refused["a"] == {}
    found.refresh(WAIT)
    assert serving(found) == {"a": 1}
    found.close()


def test_a_refusal_is_said_once_though_newer_versions_are_verified(tmp_path, caplog) -> None:
    publish_curve(tmp_path, "a")
    for version in (2, 3):
        damaged = publish_curve(tmp_path, "a", offset=version).folder
        (damaged / "value.onnx").write_bytes(b"damaged")
    found = registry(tmp_path)
    publish_curve(tmp_path, "a", offset=4.0)
    found.refresh()  # version 4 is only begun
    assert serving(found) == {"a": 1}
    assert found.refused["a"].keys() == {2, 3}
    found.refresh(WAIT)
    assert serving(found) == {"a": 4}
    for version in (2, 3):
        assert caplog.text.count(f"refused a version {version}:") == 1


def test_what_is_plainly_bad_is_refused_without_a_process(tmp_path, monkeypatch) -> None:
    """A process for each of thousands of bad ones would hold back the good one for hours."""
    publish_curve(tmp_path, "a")
    damaged = [publish_curve(tmp_path, "a", offset=offset).folder for offset in range(1, 5)]
    (damaged[0] / "manifest.json").write_text("{}")
    (damaged[1] / "value.onnx").unlink()
    (damaged[2] / "value.onnx").write_bytes(b"cut short")
    (damaged[3] / "notes").write_bytes(b"")
    found = Registry(Settings(artifacts=tmp_path))
    submit = found.verifier.submit
    asked: list[str] = []

    def noted(folder: Path, key: str) -> "Future[Verdict]":
        asked.append(folder.name)
        return submit(folder, key)

    monkeypatch.setattr(found.verifier, "submit", noted)
    found.refresh(WAIT)
    found.close()
    assert serving(found) == {"a": 1} and asked == ["1"]
    words = ("schema version", "not there", "9 bytes", "does not list")
    for version, word in enumerate(words, 2):
        reason = found.refused["a"][version].reason
        assert word in reason and str(tmp_path) not in reason


class Asked:
    """In place of a verifier: its verdicts come when the test says so."""

    def __init__(self, found: Registry, patch: pytest.MonkeyPatch) -> None:
        self.futures: dict[int, Future[Verdict]] = {}
        patch.setattr(found.verifier, "submit", self._submit)

    def _submit(self, folder: Path, _key: str) -> "Future[Verdict]":
        future = self.futures[int(folder.name)] = Future()
        return future

    def waiting(self) -> list[int]:
        """The versions that have no verdict yet, in the order in which they were asked for."""
        return [version for version, future in self.futures.items() if not future.done()]


def test_the_more_were_refused_the_more_are_verified_at_a_time(tmp_path, monkeypatch) -> None:
    for _ in range(24):
        publish_curve(tmp_path, "a")
    found = Registry(Settings(artifacts=tmp_path))
    asked = Asked(found, monkeypatch)
    at_a_time = []
    while 1 not in asked.futures:
        found._look()
        at_a_time.append(len(asked.waiting()))
        for version in asked.waiting():
            asked.futures[version].set_exception(Refused("bad"))
    assert at_a_time[:5] == [1, 1, 1, 1, 2] and max(at_a_time) > 4
    assert list(asked.futures) == list(range(24, 0, -1))


@pytest.mark.parametrize("patience", [600.0, 0.0])
def test_the_newest_good_one_serves_though_an_older_one_is_known_first(
    tmp_path, monkeypatch, patience
) -> None:
    for offset in range(6):
        publish_curve(tmp_path, "a", offset=offset)
    monkeypatch.setattr("service.runtime.registry.PATIENCE_SECONDS", patience)
    settings = Settings(artifacts=tmp_path)
    found = Registry(settings)
    asked = Asked(found, monkeypatch)
    for version in (6, 5, 4, 3):
        found._look()
        asked.futures[version].set_exception(Refused("bad"))
    found._look()
    assert {1, 2} <= set(asked.waiting())
    for version in (1, 2):
        asked.futures[version].set_result(verify_version(tmp_path / "a" / str(version), settings))
        found._look()
        # Who has waited long for the newer one is content with the older one meanwhile.
        early = {} if version == 1 and patience else {"a": version}
        assert serving(found) == early
    assert found.refused["a"].keys() == {3, 4, 5, 6}


def test_another_version_under_the_same_number_takes_its_place(tmp_path) -> None:
    folder = publish_curve(tmp_path / "one", "a").folder
    other = publish_curve(tmp_path / "two", "a", offset=5.0).folder
    found = registry(tmp_path / "one")
    shutil.rmtree(folder)
    shutil.copytree(other, folder)
    found.refresh(WAIT)
    assert found.get("a").manifest.coefficients[-1] == 5.0


def vanish(root: Path, _: pytest.MonkeyPatch) -> str:
    root.rename(root.with_name("gone"))
    return "is missing"


def empty(root: Path, _: pytest.MonkeyPatch) -> str:
    for model in root.iterdir():
        shutil.rmtree(model)
    (root / "lost+found").mkdir()
    return "is empty"


def unreadable(root: Path, patch: pytest.MonkeyPatch) -> str:
    list_folder = Path.iterdir

    def refuse(path: Path) -> Any:
        if path == root:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return list_folder(path)

    patch.setattr(Path, "iterdir", refuse)
    return "cannot be read (Permission denied)"


def replaced(root: Path, _: pytest.MonkeyPatch) -> str:
    for model in root.iterdir():
        shutil.rmtree(model)
    (root / "Downloads").mkdir()
    return "is no artifacts folder: nothing in it is <model>/<version>/manifest.json"


@pytest.mark.parametrize("befall", [vanish, empty, unreadable, replaced])
def test_the_folder_may_vanish_and_the_cause_is_said_once(
    tmp_path, monkeypatch, caplog, befall
) -> None:
    root = tmp_path / "artifacts"
    publish_curve(root, "a")
    found = registry(root)
    words = befall(root, monkeypatch)
    for _ in range(3):
        found.refresh(WAIT)
    assert serving(found) == {"a": 1} and found.missing() == []
    assert found.observer.readable == [False]
    assert caplog.text.count(words) == 1 and "goes on serving" in caplog.text
    anew = registry(root)  # nothing is loaded, and the sentence names the path
    assert words in anew.missing()[0].reason and str(root) in anew.missing()[0].reason


def test_only_what_is_removed_on_purpose_goes(tmp_path, caplog) -> None:
    for version in range(3):
        publish_curve(tmp_path, "a", offset=version)
    publish_curve(tmp_path, "b")
    found = registry(tmp_path)
    shutil.rmtree(tmp_path / "a" / "3")
    found.refresh(WAIT)
    assert serving(found) == {"a": 2, "b": 1}
    shutil.rmtree(tmp_path / "b")
    found.refresh(WAIT)
    assert serving(found) == {"a": 2} and found.missing() == []
    assert "b" not in found.refused and "b" not in found.versions
    assert ("b", 0) in found.observer.versions
    assert "b no longer serves: the artifacts folder has no version of it" in caplog.text


def test_a_slow_copy_is_not_ready_at_its_first_model(tmp_path) -> None:
    publish_curve(tmp_path, "a")
    whole = publish_curve(tmp_path / "source", "b").folder
    shutil.copytree(whole, tmp_path / "b" / "1", ignore=shutil.ignore_patterns("manifest.json"))
    slow = registry(tmp_path, copy_seconds=30)
    slow._expected.clear()  # as if the folder had been empty when it started
    assert [(m.model, "manifest.json" in m.reason) for m in slow.missing()] == [("b", True)]
    shutil.copy(whole / "manifest.json", tmp_path / "b" / "1")
    slow.refresh(WAIT)
    assert slow.missing() == [] and serving(slow) == {"a": 1, "b": 1}
    # Once ready, a copy that begins later is nothing to wait for; nor is one that broke off.
    (tmp_path / "c" / "1").mkdir(parents=True)
    slow.refresh(WAIT)
    assert slow.missing() == []
    time.sleep(0.3)
    broken_off = registry(tmp_path, copy_seconds=0.2)
    broken_off._expected.clear()
    assert broken_off.missing() == []
    required = registry(tmp_path, copy_seconds=30, require="a")
    assert [m.model for m in required.missing()] == ["c"]  # it was there at the start


def test_a_hidden_change_of_the_manifest_after_verification_is_refused(tmp_path) -> None:
    """What is loaded is what was verified, by the hash of the manifest."""
    folder = publish_curve(tmp_path, "a").folder
    found = Registry(Settings(artifacts=tmp_path))
    found._look()
    (pending,) = found._pending.values()
    pending.future.result(WAIT)
    stat = (folder / "manifest.json").stat()
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace('"mse": 0.01', '"mse": 0.02'))
    os.utime(folder / "manifest.json", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found._look()
    assert found.models == {}
    assert "changed since it was verified" in found.refused["a"][1].reason


def test_a_look_that_waited_does_not_put_off_the_next_one(tmp_path, monkeypatch) -> None:
    """Looks are spaced by the processor time that they take, not by how long a look waited."""
    registry = Registry(Settings(artifacts=tmp_path, watch_seconds=0.05))
    looks = []

    def waits(wait_seconds: float = 0.0) -> None:
        looks.append(wait_seconds)
        time.sleep(2)

    monkeypatch.setattr(registry, "refresh", waits)

    async def watch() -> None:
        task = asyncio.create_task(registry.watch())
        async with asyncio.timeout(15):
            while len(looks) < 2:
                await asyncio.sleep(0.05)
        task.cancel()

    asyncio.run(watch())
    registry.close()
