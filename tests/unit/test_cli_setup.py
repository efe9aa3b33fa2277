"""scripts/setup before there is anything to run: what it says when it can't begin."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("sh", "dirname", "cat", "sha256sum", "cut", "mkdir", "rm", "tail", "flock")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The files that set-up reads, in a folder without an environment, and a PATH without Python."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/up", "scripts/setup", "setup.cfg", "pyproject.toml", "package-lock.json"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found is not None:
            (tmp_path / "bin" / tool).symlink_to(found)
    return tmp_path


def up(clone: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(clone / "bin"), "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(
        ["/bin/sh", str(clone / "scripts" / "up")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_machine_without_python_gets_one_sentence(clone: Path) -> None:
    done = up(clone)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (clone / ".venv").exists()


def test_a_machine_with_an_old_python_is_told_which_one_it_has(clone: Path) -> None:
    old = clone / "bin" / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = up(clone)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "has Python 3.9.2" in done.stderr


def test_a_python_that_can_make_no_environment_leaves_no_half_one(clone: Path) -> None:
    broken = clone / "bin" / "python3"
    broken.write_text(
        "#!/bin/sh\n"
        'case "$*" in *venv*) echo "ensurepip is not available"; exit 1 ;; *pip*) exit 1 ;; esac\n'
        '[ "$1" = --version ] && echo Python 3.12.0\n'
        "exit 0\n"
    )
    broken.chmod(0o755)
    done = up(clone)
    assert done.returncode == 1
    assert "install python3-venv" in done.stderr
    assert "ensurepip is not available" in done.stderr
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("flag", ["--nonsense"])
def test_an_unknown_flag_of_set_up_is_one_sentence(clone: Path, flag: str) -> None:
    done = subprocess.run(
        ["/bin/sh", str(clone / "scripts" / "setup"), flag], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "--tests or nothing" in done.stderr
