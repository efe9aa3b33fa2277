"""Where a command's long answer goes: to the terminal, or whole into a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

OutputOption = Annotated[
    Path | None,
    typer.Option(
        "--output",
        metavar="FILE",
        help="Write to this file, in place of what it holds. Default: the terminal.",
        show_default=False,
    ),
]


def may_show_progress(path: Path | None) -> bool:
    """Whether a progress bar would not run into the answer itself."""
    return path is not None or not sys.stdout.isatty()


@contextmanager
def output(path: Path | None) -> Iterator[TextIO]:
    """A text stream; the file has its new content once all is written, and its old one if that fails."""
    if path is None:
        yield sys.stdout
        sys.stdout.flush()
        return
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("x", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
