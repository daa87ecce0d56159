"""The one public name: light to import, all commands, and a clash told in one line."""

import subprocess
import sys
from pathlib import Path

import gradserve

ROOT = Path(__file__).parents[2]


def run(*words: str, cwd: Path = ROOT, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        cwd=cwd,
        env={"PYTHONPATH": str(path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_names_are_imported_when_asked_for() -> None:
    """Importing gradserve loads neither PyTorch nor the service."""
    code = "import sys, gradserve; print({'torch', 'service', 'training'} & {*sys.modules})"
    assert run("-c", code).stdout == "set()\n"
    assert set(gradserve.__all__) == {"Publication", "create_app", "publish"}


def test_commands(tmp_path: Path) -> None:
    usage = run("-m", "gradserve", "--help")
    assert usage.returncode == 0
    for command in ("serve", "train", "init", "publish", "import"):
        assert f"\n  {command} " in usage.stdout
    assert run("-m", "gradserve", "dance").returncode == 2
    done = run("-m", "gradserve", "init", "mine.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gradserve publish mine.py:build --name mine" in done.stdout
    again = run("-m", "gradserve", "init", "mine.py", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.startswith("gradserve: ") and "there already" in again.stderr
    for command in ("publish", "import", "train"):
        assert run("-m", "gradserve", command, "--help").returncode == 0
    assert "--workers" in run("-m", "gradserve", "serve", "--help").stdout


def test_a_folder_called_training(tmp_path: Path) -> None:
    """The command doesn't mind it; a script beside it is told in one line."""
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "__init__.py").write_text("")
    done = run("-m", "gradserve", "init", "mine.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "script.py").write_text("from gradserve import publish\n")
    script = run("script.py", cwd=tmp_path)
    last = script.stderr.strip().splitlines()[-1]
    assert "NameClash: gradserve has a package called training, but Python finds" in last
