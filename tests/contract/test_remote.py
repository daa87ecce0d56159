"""Artifacts in an object store: fetching and publishing, with fsspec's ``file://`` as the store.

What only a real store shows (conditions, credentials, lost connections) is in tests/deploy.
"""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from contract_examples import FILES, MODEL, manifest, publish, write_files

from contract.errors import ArtifactError, HashMismatch, StoreUnavailable
from contract.remote import CLAIM, Remote, manifests, on_this_machine, open_draft, root_of
from contract.store import list_versions, verify

pytest.importorskip("fsspec", reason="fsspec comes with PyTorch, or with the extra s3")


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(f"file://{tmp_path}/store")


def put(remote: Remote, note: str = "") -> str:
    with open_draft(remote, MODEL) as draft:
        write_files(draft.folder)
        (draft.folder / "report.md").write_text(note)
        draft.publish(manifest())
        return draft.published


def test_what_was_published_is_fetched(remote: Remote, tmp_path: Path) -> None:
    assert put(remote) == f"{remote}/{MODEL}/1"
    assert put(remote, "two").endswith("/2")
    found = remote.look()
    assert {v: stored.complete for v, stored in found[MODEL].items()} == {1: True, 2: True}
    fetched = remote.fetch(MODEL, 2, tmp_path / "here")
    assert verify(fetched.folder) == fetched
    assert fetched.read("report.md") == b"two"
    assert [each.version for each in manifests(remote, MODEL)] == [2, 1]
    assert fetched.folder.stat().st_mode & 0o777 == 0o755


def test_the_layout_is_that_of_a_folder(remote: Remote, tmp_path: Path) -> None:
    put(remote)
    assert verify(tmp_path / "store" / MODEL / "1").manifest.files.keys() == {*FILES, "report.md"}


@pytest.mark.parametrize("name", ["report.md", "manifest.json"])
def test_a_tampered_file_is_refused_and_leaves_nothing(
    remote: Remote, tmp_path: Path, name: str
) -> None:
    put(remote, "good")
    (tmp_path / "store" / MODEL / "1" / name).write_bytes(b"evil")
    with pytest.raises(ArtifactError, match=f"{MODEL}/1/{name}"):
        remote.fetch(MODEL, 1, tmp_path / "here")
    assert list((tmp_path / "here").rglob("*")) == []


def test_a_file_longer_than_published_is_not_read_to_its_end(
    remote: Remote, tmp_path: Path
) -> None:
    put(remote, "good")
    with (tmp_path / "store" / MODEL / "1" / "report.md").open("ab") as stream:
        stream.truncate(200 << 20)
    with pytest.raises(HashMismatch, match=r"its 10\d{5} bytes"):
        remote.fetch(MODEL, 1, tmp_path / "here")


def test_half_an_upload_is_no_version_and_keeps_its_number(remote: Remote, tmp_path: Path) -> None:
    put(remote)
    assert remote.claim(MODEL) == 2
    (tmp_path / "store" / MODEL / "2" / "report.md").write_text("half")
    assert not remote.look()[MODEL][2].complete
    with on_this_machine(remote, MODEL) as root:
        assert list_versions(root, MODEL) == [1]
    assert put(remote).endswith("/3")


def test_publishers_at_once_get_different_numbers(remote: Remote) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(lambda _: remote.claim(MODEL), range(40)))
    assert sorted(numbers) == list(range(1, 41))


def test_nobody_overwrites_a_published_manifest(remote: Remote, tmp_path: Path) -> None:
    local = publish(tmp_path / "local")
    remote.claim(MODEL)
    remote.put(local.folder)
    remote.put(local.folder)  # the very same: a request that was repeated
    path = local.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"created_utc": "2020-01-01"}))
    with pytest.raises(ArtifactError, match="another publisher"):
        remote.put(local.folder)


def test_a_claim_says_whose_it_is(remote: Remote, tmp_path: Path) -> None:
    remote.claim(MODEL)
    assert "process" in (tmp_path / "store" / MODEL / "1" / CLAIM).read_text()


def test_what_can_not_be_opened_is_said() -> None:
    with pytest.raises(StoreUnavailable, match="nonsense:// is no object store"):
        root_of("nonsense://bucket/prefix")
    assert root_of("artifacts") == Path("artifacts")


def test_fsspec_is_imported_only_for_an_address() -> None:
    program = (
        "import sys, gradserve, service.app, contract.remote; "
        "contract.remote.root_of('artifacts'); "
        "sys.exit(any(name.partition('.')[0] in {'fsspec', 's3fs'} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
