"""Names from files and folders, and who may publish over whom."""

import shlex
import sys
from pathlib import Path

import pytest

from contract.manifest import Data
from tests.tiny_artifacts import publish_curve
from training.errors import JobError
from training.naming import choose_name, command, require_replaceable, this_python


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("data/Points.csv", "points"),
        ("HW1-1.csv", "hw1-1"),
        ("Été à Łódź, 2024 (final).CSV", "ete-a-lodz-2024-final"),
        ("Größe_µ.tsv", "grosse"),
        ("Phone Pictures.zip", "phone-pictures"),
        ("v1.2/", "v1-2"),
        ("Ⅳ.csv", "iv"),
        ("--x--", "x"),
        ("a" * 80, "a" * 59),
    ],
)
def test_a_name_is_made_of_the_file(path: str, name: str) -> None:
    assert choose_name(None, Path(path), room=4) == name


def test_where_nothing_is_left_a_name_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="give --name"):
        choose_name(None, tmp_path / "犬.csv")
    assert choose_name("dogs", tmp_path / "犬.csv") == "dogs"


@pytest.mark.parametrize("name", ["", "Curve", "a b", "../x", "-x", "é", "a" * 60])
def test_a_name_that_no_model_can_have_is_refused(name: str) -> None:
    with pytest.raises(JobError, match="--name"):
        choose_name(name, Path("points.csv"), room=4)


def test_other_data_needs_replace(tmp_path: Path) -> None:
    published = publish_curve(tmp_path, "curve-poly").manifest.data
    other = Data(name="other.csv", sha256="ab" * 32, rows=1, splits={})
    require_replaceable(tmp_path, "curve-poly", published, replace=False)
    require_replaceable(tmp_path, "another", other, replace=False)
    require_replaceable(tmp_path, "curve-poly", other, replace=True)
    with pytest.raises(JobError, match=r"version 1 was trained on other data.*--replace"):
        require_replaceable(tmp_path, "curve-poly", other, replace=False)


def test_a_printed_command_has_the_options_that_it_needs() -> None:
    assert command("evaluate", "dogs", artifacts=Path("artifacts"), images=None) == (
        "python -m training evaluate dogs"
    )
    assert command("evaluate", "dogs", artifacts=Path("my models"), images="a.zip", x=True) == (
        "python -m training evaluate dogs --artifacts 'my models' --images a.zip --x"
    )


def test_a_printed_command_is_quoted_as_the_shell_there_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = Path("my photos/Été (1).zip")
    assert shlex.split(command("evaluate", "ete-1", images=images))[-1] == str(images)
    monkeypatch.setattr("sys.platform", "win32")
    assert command("evaluate", "ete-1", images=images).endswith('--images "my photos/Été (1).zip"')


def test_a_printed_command_starts_this_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the path after activating its environment, by its own path after ``make train``."""
    for place in ("bin", "other"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "python").symlink_to(sys.executable)
    monkeypatch.setattr("sys.executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert this_python() == "python"
    for path in ("", str(tmp_path / "other")):
        monkeypatch.setenv("PATH", path)
        assert this_python() == str(tmp_path / "bin" / "python")
    monkeypatch.chdir(tmp_path)
    assert this_python() == str(Path("bin", "python"))
