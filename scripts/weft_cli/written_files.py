"""Writing files so that a crash leaves either the old content or the new one, and never half of it.

A file that exists is replaced only by `replace_file`.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_FOLDER_MODE = 0o700
_FILE_MODE = 0o644
_SECRET_MODE = 0o600


def write_new_file(path: Path, text: str, *, secret: bool = False) -> bool:
    """Writes a file that isn't there yet; False when it is there, which is then left alone.

    Of two processes that write the same file at once, one wins and the other one is told False.
    """
    if path.exists():
        return False
    temporary = _write_temporary(path, text, mode=_SECRET_MODE if secret else _FILE_MODE)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    _sync_folder(path.parent)
    return True


def replace_file(path: Path, text: str) -> None:
    """Puts new content into a file, which keeps its permissions."""
    mode = path.stat().st_mode & 0o777 if path.exists() else _FILE_MODE
    target = path.resolve()
    temporary = _write_temporary(target, text, mode=mode)
    temporary.replace(target)
    _sync_folder(target.parent)


def make_folder(path: Path) -> None:
    """Makes a folder for its owner alone, unless it is there."""
    path.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)


def _write_temporary(path: Path, text: str, *, mode: int) -> Path:
    make_folder(path.parent)
    temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    return temporary


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
