"""Publishing while processes are killed, race each other, or are being watched."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from contract_examples import MODEL, publish

from contract.store import list_versions, newest_good, verify, version_folder

HERE = Path(__file__).parent


def start(*arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, HERE / "publishers.py", *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1])},
    )


def test_killed_at_every_moment_the_old_version_or_the_whole_new_one_is_there(
    tmp_path: Path,
) -> None:
    assert start("killed", tmp_path).wait(timeout=300) == 0
    first = verify(version_folder(tmp_path / "seed", MODEL, 1)).manifest
    seen: list[int] = []
    for home in sorted(tmp_path.glob("[0-9]*"), key=lambda path: int(path.name)):
        artifact, refused = newest_good(home, MODEL)
        assert refused == [], f"killed at moment {home.name}: half a version could be seen"
        assert verify(version_folder(home, MODEL, 1)).manifest == first
        if artifact.manifest.version == 2:
            assert artifact.read("report.md").endswith(b"second")
        seen.append(artifact.manifest.version)

        following = publish(home)  # the lock died with its holder, and the draft is swept away
        assert following.manifest.version == seen[-1] + 1
        assert not list((home / MODEL).glob(".draft-*"))
    assert len(seen) > 100
    assert set(seen) == {1, 2}
    assert seen == sorted(seen), "once the new version was in place, it stays"


def test_killed_at_random_moments_all_that_can_be_seen_is_whole(tmp_path: Path) -> None:
    moments = random.Random(7)
    deaths = 12
    for _ in range(deaths):
        before = list_versions(tmp_path, MODEL)
        process = start("looping", tmp_path)
        try:
            deadline = time.monotonic() + 60
            while list_versions(tmp_path, MODEL) == before and process.poll() is None:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.05))
        finally:
            process.kill()
        assert process.wait() == -9
    versions = list_versions(tmp_path, MODEL)
    assert versions == list(range(len(versions), 0, -1))
    assert len(versions) >= deaths
    for version in versions:
        verify(version_folder(tmp_path, MODEL, version))


def test_a_reader_never_sees_half_a_version(tmp_path: Path) -> None:
    process = start("looping", tmp_path)
    try:
        newest, deadline = 0, time.monotonic() + 60
        while newest < 50:
            assert time.monotonic() < deadline
            for version in list_versions(tmp_path, MODEL):
                if version > newest:
                    verify(version_folder(tmp_path, MODEL, version))
            newest = max(list_versions(tmp_path, MODEL), default=0)
    finally:
        process.kill()
        process.wait()


def test_concurrent_publishers_each_get_versions_of_their_own(tmp_path: Path) -> None:
    processes = [start("counted", tmp_path, 10) for _ in range(3)]
    assert [process.wait(timeout=90) for process in processes] == [0, 0, 0]
    assert list_versions(tmp_path, MODEL) == list(range(30, 0, -1))
    for version in range(1, 31):
        verify(version_folder(tmp_path, MODEL, version))
    assert {path.name for path in (tmp_path / MODEL).iterdir()} == {".lock"} | {
        str(version) for version in range(1, 31)
    }
