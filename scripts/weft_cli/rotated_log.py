"""A log file of bounded size that takes a program's output as it comes."""

from __future__ import annotations

from collections import deque
from pathlib import Path

BYTES_MAX = 10 * 1024 * 1024
FILES_KEPT = 3
LAST_LINES_KEPT = 50
LINE_BYTES_MAX = 4096


class RotatedLog:
    """Appends to `name.log`; when that is full it becomes `name.log.1`, and the oldest one goes.

    A disk that is full costs log lines and nothing else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES_KEPT)
        self._rest = b""

    @property
    def last_line(self) -> str:
        """The last line that says something, without its colours; empty when there is none."""
        for line in reversed([*self._last_lines, self._rest.decode(errors="replace")]):
            printable = "".join(character for character in line if character.isprintable()).strip()
            if printable:
                return printable
        return ""

    @property
    def last_complaint(self) -> str:
        """The last line of Python's logging that warns; empty when none of the last lines does."""
        for line in reversed(self._last_lines):
            if " WARNING " in line or " ERROR " in line:
                return "".join(character for character in line if character.isprintable()).strip()
        return ""

    def write(self, output: bytes) -> None:
        *lines, rest = (self._rest + output).split(b"\n")
        self._last_lines.extend(line[:LINE_BYTES_MAX].decode(errors="replace") for line in lines)
        self._rest = rest[:LINE_BYTES_MAX]
        try:
            self._append(output)
        except OSError:
            return

    def _append(self, output: bytes) -> None:
        with self.path.open("ab") as file:
            file.write(output)
            is_full = file.tell() > BYTES_MAX
        if is_full:
            for number in range(FILES_KEPT, 0, -1):
                older = self.path.with_name(f"{self.path.name}.{number}")
                newer = self.path.with_name(f"{self.path.name}.{number - 1}") if number > 1 else self.path
                if newer.exists():
                    newer.replace(older)
