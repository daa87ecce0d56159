"""Publishing, listing and verifying: the good path, and a typed error for every bad one."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract_examples import FILES, MODEL, manifest, publish, write_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract import errors, store
from contract.errors import ArtifactError
from contract.store import (
    Draft,
    list_models,
    list_versions,
    newest_good,
    open_version,
    read_manifest,
    verify,
)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def edit(folder: Path, **changes: Any) -> None:
    """Change fields of a published manifest in place."""
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Publishing -------------------------------------------------------------------------------------


def test_publish_gives_a_verified_version(tmp_path: Path) -> None:
    published = publish(tmp_path)
    assert published.folder == tmp_path / MODEL / "1"
    assert verify(published.folder) == published
    assert names(published.folder) == FILES.keys() | {"manifest.json"}
    assert published.manifest.files.keys() == FILES.keys()
    for name, content in FILES.items():
        assert published.read(name) == content
        assert published.manifest.files[name].bytes == len(content)


def test_versions_count_up_and_old_ones_stay_as_they_were(tmp_path: Path) -> None:
    first = publish(tmp_path, note="one")
    before = {path.name: path.read_bytes() for path in first.folder.iterdir()}
    second = publish(tmp_path, note="two")
    assert (first.manifest.version, second.manifest.version) == (1, 2)
    assert {path.name: path.read_bytes() for path in first.folder.iterdir()} == before
    assert second.read("report.md").endswith(b"two")
    assert list_versions(tmp_path, MODEL) == [2, 1]


def test_a_removed_version_number_below_the_newest_is_not_used_again(tmp_path: Path) -> None:
    for _ in range(3):
        publish(tmp_path)
    shutil.rmtree(tmp_path / MODEL / "1")
    assert publish(tmp_path).manifest.version == 4


def test_published_files_can_be_read_by_another_user(tmp_path: Path) -> None:
    previous = os.umask(0o077)
    try:
        published = publish(tmp_path)
    finally:
        os.umask(previous)
    assert published.folder.stat().st_mode & 0o777 == 0o755
    for path in published.folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o644, path.name


def test_leaving_without_publish_leaves_nothing(tmp_path: Path) -> None:
    with Draft(tmp_path, MODEL) as draft:
        write_files(draft.folder)
    assert names(tmp_path / MODEL) == {".lock"}


@pytest.mark.parametrize("interrupt", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_inside_removes_the_draft(tmp_path: Path, interrupt: type[BaseException]) -> None:
    publish(tmp_path)
    with pytest.raises(interrupt), Draft(tmp_path, MODEL) as draft:
        write_files(draft.folder)
        raise interrupt
    assert names(tmp_path / MODEL) == {".lock", "1"}
    assert publish(tmp_path).manifest.version == 2


@pytest.mark.parametrize("call", ["fsync", "rename", "chmod", "write"])
def test_a_full_disk_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    first = publish(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"), Draft(tmp_path, MODEL) as draft:
        write_files(draft.folder)
        if call == "fsync":
            monkeypatch.setattr(os, "fsync", fail)
        elif call == "write":
            monkeypatch.setattr(type(manifest()), "model_dump_json", fail)
        else:
            monkeypatch.setattr(Path, call, fail)
        draft.publish(manifest())
    monkeypatch.undo()
    assert names(tmp_path / MODEL) == {".lock", "1"}
    assert verify(first.folder) == first


def test_a_draft_left_by_a_killed_process_is_cleaned_up(tmp_path: Path) -> None:
    stale = tmp_path / MODEL / ".draft-killed"
    stale.mkdir(parents=True)
    write_files(stale)
    assert list_versions(tmp_path, MODEL) == []
    assert publish(tmp_path).manifest.version == 1
    assert names(tmp_path / MODEL) == {".lock", "1"}


def test_a_second_draft_of_the_same_model_is_refused(tmp_path: Path) -> None:
    with Draft(tmp_path, MODEL) as draft:
        write_files(draft.folder)
        with pytest.raises(errors.PublishConflict, match="another process is publishing"):
            publish(tmp_path)
        assert publish(tmp_path, "other-model").manifest.version == 1
        draft.publish(manifest())
    assert publish(tmp_path).manifest.version == 2


def test_publish_fills_in_model_version_and_files(tmp_path: Path) -> None:
    publish(tmp_path, "other-model")
    second = publish(tmp_path, "other-model").manifest
    assert (second.model, second.version) == ("other-model", 2)
    assert second.files.keys() == FILES.keys()


@pytest.mark.parametrize("model", ["", ".", "..", "../up", "a/b", "Curve", "-a", "a" * 64, "é"])
def test_a_model_name_cannot_be_a_path(tmp_path: Path, model: str) -> None:
    root = tmp_path / "root"
    with pytest.raises(errors.UnsafePath, match="lower-case"):
        Draft(root, model)
    assert names(tmp_path) == set()


def put_hidden(folder: Path) -> None:
    (folder / ".hidden").write_text("x")


def put_space(folder: Path) -> None:
    (folder / "two words.md").write_text("x")


def put_link(folder: Path) -> None:
    (folder / "link.md").symlink_to("/etc/hostname")


def put_folder(folder: Path) -> None:
    (folder / "sub").mkdir()


def put_fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def put_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("{}")


@pytest.mark.parametrize(
    "put", [put_hidden, put_space, put_link, put_folder, put_fifo, put_manifest]
)
def test_a_draft_holds_plain_files_only(tmp_path: Path, put: Callable[[Path], None]) -> None:
    with pytest.raises(errors.UnsafePath), Draft(tmp_path, MODEL) as draft:
        write_files(draft.folder)
        put(draft.folder)
        draft.publish(manifest())
    assert names(tmp_path / MODEL) == {".lock"}


def test_a_function_without_its_graph_is_not_published(tmp_path: Path) -> None:
    with (
        pytest.raises(errors.ManifestInvalid, match=r"value needs value\.onnx"),
        Draft(tmp_path, MODEL) as draft,
    ):
        (draft.folder / "report.md").write_text("no graph")
        draft.publish(manifest())
    assert list_versions(tmp_path, MODEL) == []


def test_an_oversized_manifest_is_not_published(tmp_path: Path) -> None:
    with (
        pytest.raises(errors.ManifestInvalid, match="larger"),
        Draft(tmp_path, MODEL) as draft,
    ):
        write_files(draft.folder)
        draft.publish(manifest(metrics={"text": "x" * store.MANIFEST_LIMIT}))
    assert list_versions(tmp_path, MODEL) == []


# Verifying: what is wrong, on which file --------------------------------------------------------


def truncate_manifest(folder: Path) -> Path:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes()[:-20])
    return path


def empty_manifest(folder: Path) -> Path:
    (folder / "manifest.json").write_bytes(b"")
    return folder / "manifest.json"


def binary_manifest(folder: Path) -> Path:
    (folder / "manifest.json").write_bytes(b"\xff\xfe\x00{")
    return folder / "manifest.json"


def deep_manifest(folder: Path) -> Path:
    (folder / "manifest.json").write_bytes(b"[" * 200_000)
    return folder / "manifest.json"


def list_manifest(folder: Path) -> Path:
    (folder / "manifest.json").write_bytes(b"[]")
    return folder / "manifest.json"


def oversized_manifest(folder: Path) -> Path:
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes() + b" " * store.MANIFEST_LIMIT)
    return path


def unknown_field(folder: Path) -> Path:
    edit(folder, surprise=1)
    return folder / "manifest.json"


def another_version(folder: Path) -> Path:
    edit(folder, version=7)
    return folder / "manifest.json"


def another_model(folder: Path) -> Path:
    edit(folder, model="another")
    return folder / "manifest.json"


def nan_metric(folder: Path) -> Path:
    edit(folder, metrics={"mse": float("nan")})
    return folder / "manifest.json"


def no_manifest(folder: Path) -> Path:
    (folder / "manifest.json").unlink()
    return folder / "manifest.json"


def manifest_is_a_folder(folder: Path) -> Path:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()
    return folder / "manifest.json"


def manifest_is_a_link(folder: Path) -> Path:
    (folder / "manifest.json").rename(folder.parent / "elsewhere.json")
    (folder / "manifest.json").symlink_to(folder.parent / "elsewhere.json")
    return folder / "manifest.json"


def missing_file(folder: Path) -> Path:
    (folder / "value.onnx").unlink()
    return folder / "value.onnx"


def extra_file(folder: Path) -> Path:
    (folder / "extra.onnx").write_bytes(b"x")
    return folder / "extra.onnx"


def extra_folder(folder: Path) -> Path:
    (folder / "extra").mkdir()
    return folder / "extra"


def flipped_bit(folder: Path) -> Path:
    path = folder / "value.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def truncated_file(folder: Path) -> Path:
    os.truncate(folder / "value.onnx", 100)
    return folder / "value.onnx"


def longer_file(folder: Path) -> Path:
    with (folder / "value.onnx").open("ab") as stream:
        stream.write(b"\0")
    return folder / "value.onnx"


def emptied_file(folder: Path) -> Path:
    os.truncate(folder / "report.md", 0)
    return folder / "report.md"


def file_is_a_link(folder: Path) -> Path:
    path = folder / "value.onnx"
    path.rename(folder.parent / "moved.onnx")
    path.symlink_to(folder.parent / "moved.onnx")
    return path


def file_is_a_folder(folder: Path) -> Path:
    (folder / "value.onnx").unlink()
    (folder / "value.onnx").mkdir()
    return folder / "value.onnx"


def file_is_a_pipe(folder: Path) -> Path:
    (folder / "value.onnx").unlink()
    os.mkfifo(folder / "value.onnx")
    return folder / "value.onnx"


@pytest.mark.parametrize(
    ("damage", "error", "word"),
    [
        (truncate_manifest, errors.ManifestInvalid, "not valid JSON"),
        (empty_manifest, errors.ManifestInvalid, "not valid JSON"),
        (binary_manifest, errors.ManifestInvalid, "not valid JSON"),
        (deep_manifest, errors.ManifestInvalid, "not valid JSON"),
        (list_manifest, errors.ManifestInvalid, "not a JSON object"),
        (oversized_manifest, errors.ManifestInvalid, "larger than"),
        (unknown_field, errors.ManifestInvalid, "surprise"),
        (another_version, errors.ManifestInvalid, "version 7"),
        (another_model, errors.ManifestInvalid, "another"),
        (nan_metric, errors.ManifestInvalid, "metrics"),
        (no_manifest, errors.ManifestMissing, "never published"),
        (manifest_is_a_folder, errors.UnsafePath, "plain file"),
        (manifest_is_a_link, errors.UnsafePath, "plain file"),
        (missing_file, errors.FileMissing, "not there"),
        (extra_file, errors.FileUnlisted, "does not list"),
        (extra_folder, errors.FileUnlisted, "does not list"),
        (flipped_bit, errors.HashMismatch, "sha256"),
        (truncated_file, errors.HashMismatch, "100 bytes"),
        (longer_file, errors.HashMismatch, "7001 bytes"),
        (emptied_file, errors.HashMismatch, "0 bytes"),
        (file_is_a_link, errors.UnsafePath, "plain file"),
        (file_is_a_folder, errors.UnsafePath, "plain file"),
        (file_is_a_pipe, errors.UnsafePath, "plain file"),
    ],
)
def test_damage_is_named_and_the_version_before_serves(
    tmp_path: Path, damage: Callable[[Path], Path], error: type[ArtifactError], word: str
) -> None:
    good = publish(tmp_path, note="good")
    folder = publish(tmp_path, note="bad").folder
    path = damage(folder)
    with pytest.raises(error, match=word) as caught:
        verify(folder)
    assert type(caught.value) is error
    assert caught.value.path == path
    assert str(path) in str(caught.value)
    assert newest_good(tmp_path, MODEL)[0] == good


@pytest.mark.parametrize("schema", [3, 0, -1, "1", None, True, [1], 10**300])
def test_an_unknown_schema_is_refused_before_the_rest_is_read(
    tmp_path: Path, schema: object
) -> None:
    folder = publish(tmp_path).folder
    (folder / "manifest.json").write_text(json.dumps({"schema_version": schema, "new": {}}))
    with pytest.raises(errors.UnknownSchema, match="only 1 and 2 are") as caught:
        verify(folder)
    assert len(caught.value.reason) < 120


@pytest.mark.parametrize(
    "name",
    ["../1/value.onnx", "/etc/passwd", "..", ".", "", "a/b", ".hidden", "a\0b", "a\nb", "\ud800"],
)
def test_a_listed_name_cannot_escape_the_folder(tmp_path: Path, name: str) -> None:
    published = publish(tmp_path)
    files = json.loads(published.manifest.model_dump_json())["files"]
    edit(published.folder, files=files | {name: files["value.onnx"]})
    with pytest.raises(errors.UnsafePath, match="not a plain file name") as caught:
        verify(published.folder)
    str(caught.value).encode()  # can be logged and sent, whatever the name was


def test_a_file_name_that_is_not_utf8_is_shown_all_the_same(tmp_path: Path) -> None:
    folder = publish(tmp_path).folder
    (folder / os.fsdecode(b"caf\xe9")).write_text("x")
    with pytest.raises(errors.FileUnlisted) as caught:
        verify(folder)
    assert rb"caf\xe9" in str(caught.value).encode()


def test_an_escaping_graph_is_refused_even_if_it_exists(tmp_path: Path) -> None:
    published = publish(tmp_path)
    (tmp_path / "secret.onnx").write_bytes(b"x")
    functions = json.loads(published.manifest.model_dump_json())["functions"]
    functions["value"]["graph"]["file"] = "../../secret.onnx"
    edit(published.folder, functions=functions)
    with pytest.raises(errors.ManifestInvalid, match=r"functions\.value\.graph\.file"):
        verify(published.folder)


def test_a_link_to_a_version_is_followed_within_the_root_and_refused_in_words_without(
    tmp_path: Path,
) -> None:
    root = tmp_path / "root"
    good = publish(root)
    kept = publish(root, note="kept elsewhere").folder
    within = root / ".kept" / "2"
    within.parent.mkdir()
    kept.rename(within)
    kept.symlink_to(within)
    assert verify(kept).manifest.version == 2
    outside = tmp_path / "outside"
    within.rename(outside)
    kept.unlink()
    kept.symlink_to(outside)
    artifact, refused = newest_good(root, MODEL)
    assert artifact == good
    assert "symbolic link that leads out of the artifacts folder" in str(refused[0])
    (root / MODEL / "3").symlink_to(good.folder)
    with pytest.raises(errors.ManifestInvalid, match="version 1, not of this folder"):
        verify(root / MODEL / "3")


def test_what_operating_systems_leave_in_folders_does_not_matter(tmp_path: Path) -> None:
    folder = publish(tmp_path).folder
    for place in (folder, folder.parent, tmp_path):
        for name in (".DS_Store", "._value.onnx", ".nfs0001", "Thumbs.db", "desktop.ini"):
            (place / name).write_bytes(b"x")
        for name in ("@eaDir", "lost+found"):
            (place / name).mkdir()
    assert verify(folder).manifest.version == 1
    assert list_models(tmp_path) == [MODEL]
    assert list_versions(tmp_path, MODEL) == [1]


def test_a_version_over_the_largest_number_is_refused_and_ends_publishing(tmp_path: Path) -> None:
    folder = publish(tmp_path).folder
    huge = folder.with_name(str(2**31))
    shutil.copytree(folder, huge)
    edit(huge, version=2**31)
    with pytest.raises(errors.ManifestInvalid, match="over 2147483647"):
        verify(huge)
    with pytest.raises(errors.PublishConflict, match="no number left"):
        publish(tmp_path)


def test_a_version_that_vanishes_while_it_is_verified_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = publish(tmp_path).folder

    def read_then_remove(path: Path) -> store.Artifact:
        found = open_version(path)
        shutil.rmtree(path)
        return found

    monkeypatch.setattr(store, "open_version", read_then_remove)
    with pytest.raises(errors.VersionNotFound, match="cannot be listed"):
        verify(folder)


@given(data=st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_to_any_byte_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    root = tmp_path / "root"
    shutil.rmtree(root, ignore_errors=True)
    published = publish(root)
    name = data.draw(st.sampled_from([name for name, content in FILES.items() if content]))
    content = bytearray(published.read(name))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    (published.folder / name).write_bytes(content)
    with pytest.raises(errors.HashMismatch):
        verify(published.folder)
    with pytest.raises(errors.HashMismatch):
        published.read(name)


@given(content=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_as_a_manifest_give_a_typed_error(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / MODEL / "1"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError):
        verify(folder)


@given(
    cut=st.integers(0, 2000),
    patch=st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=5,
    ),
    field=st.sampled_from(sorted(json.loads(manifest().model_dump_json()))),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_in_any_field_is_read_or_refused_but_never_crashes(
    tmp_path: Path, cut: int, patch: object, field: str
) -> None:
    folder = tmp_path / MODEL / "1"
    folder.mkdir(parents=True, exist_ok=True)
    fields = json.loads(manifest().model_dump_json()) | {field: patch}
    text = json.dumps(fields)
    for content in (text, text[:cut]):
        (folder / "manifest.json").write_text(content)
        try:
            read_manifest(folder)
        except ArtifactError as error:
            str(error).encode()


# Reading one file -------------------------------------------------------------------------------


def test_read_checks_the_very_bytes_it_returns(tmp_path: Path) -> None:
    published = verify(publish(tmp_path).folder)
    (published.folder / "report.md").write_bytes(b"changed after it was verified")
    with pytest.raises(errors.HashMismatch, match=r"report\.md"):
        published.read("report.md")


@pytest.mark.parametrize("name", ["manifest.json", "../1/value.onnx", "/etc/passwd", "other"])
def test_read_gives_listed_files_only(tmp_path: Path, name: str) -> None:
    published = publish(tmp_path)
    with pytest.raises(errors.FileMissing, match="lists no such file"):
        published.read(name)


def test_read_follows_no_link(tmp_path: Path) -> None:
    published = publish(tmp_path)
    file_is_a_link(published.folder)
    with pytest.raises(errors.UnsafePath):
        published.read("value.onnx")


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    published = publish(tmp_path)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 the folder holds links to itself
    for damage in (file_is_a_folder, extra_folder, manifest_is_a_folder):
        damage(published.folder)
        for _ in range(5):
            with pytest.raises(ArtifactError):
                verify(published.folder)
    with Draft(tmp_path, MODEL), pytest.raises(errors.PublishConflict):
        publish(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


# Listing, and the newest good one ---------------------------------------------------------------


def test_a_missing_or_empty_root_has_nothing(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        assert list_models(root) == []
        assert list_versions(root, MODEL) == []
        with pytest.raises(errors.VersionNotFound, match="no version can be used"):
            newest_good(root, MODEL)


def test_only_models_and_versions_are_listed(tmp_path: Path) -> None:
    publish(tmp_path)
    publish(tmp_path, "another")
    for name in ("README.md", "Not-A-Model", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "a-file").write_text("x")
    for name in ("0", "01", "-1", "1.5", "²", "٣", "latest", ".draft-1"):
        (tmp_path / MODEL / name).mkdir()
    assert list_models(tmp_path) == ["another", MODEL]
    assert list_versions(tmp_path, MODEL) == [1]


def test_versions_are_ordered_as_numbers(tmp_path: Path) -> None:
    for version in (1, 2, 9, 10, 100):
        (tmp_path / MODEL / str(version)).mkdir(parents=True)
    assert list_versions(tmp_path, MODEL) == [100, 10, 9, 2, 1]


def test_newest_good_falls_back_with_reasons_newest_first(tmp_path: Path) -> None:
    good = publish(tmp_path)
    missing_file(publish(tmp_path).folder)
    flipped_bit(publish(tmp_path).folder)
    edit(publish(tmp_path).folder, schema_version=3)
    artifact, refused = newest_good(tmp_path, MODEL)
    assert artifact == good
    assert [type(error) for error in refused] == [
        errors.UnknownSchema,
        errors.HashMismatch,
        errors.FileMissing,
    ]
    assert [error.path.parent.name for error in refused] == ["4", "3", "2"]


def test_newest_good_with_none_good_says_why_for_each(tmp_path: Path) -> None:
    missing_file(publish(tmp_path).folder)
    flipped_bit(publish(tmp_path).folder)
    with pytest.raises(errors.VersionNotFound) as caught:
        newest_good(tmp_path, MODEL)
    notes = caught.value.__notes__
    assert len(notes) == 2
    assert "2/value.onnx: its 7000 bytes" in notes[0]
    assert "1/value.onnx: the manifest lists it" in notes[1]


def test_newest_good_uses_the_callers_check(tmp_path: Path) -> None:
    first, second = publish(tmp_path), publish(tmp_path)

    def only_odd(folder: Path) -> store.Artifact:
        if int(folder.name) % 2 == 0:
            raise errors.HashMismatch(folder, "even")
        return verify(folder)

    artifact, refused = newest_good(tmp_path, MODEL, only_odd)
    assert artifact == first
    assert [error.path for error in refused] == [second.folder]
