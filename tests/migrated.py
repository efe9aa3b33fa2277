"""Databases with all tables in a moment: SQLite's first of a kind is migrated, later ones are copies of it.

Hundreds of tests begin with an empty database, and making its tables often takes longer than the test. What
migrating itself does is for the tests of migrations, which call `migrate`.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from appservices.chassis.database import Database, open_database
from appservices.chassis.migrations import migrate

_contents: dict[tuple[Path, ...], bytes] = {}


async def migrated(database: Database, *branches: Path) -> None:
    """Makes the tables of an unopened database; whatever holds something already is migrated."""
    file = Path(database.engine.url.database or "") if database.is_sqlite else None
    if file is None or file.exists():
        await migrate(database, *branches)
        return
    if branches not in _contents:
        _contents[branches] = await _made(branches)
    file.write_bytes(_contents[branches])


async def _made(branches: tuple[Path, ...]) -> bytes:
    with TemporaryDirectory() as folder:
        database = open_database("sqlite:///made.db", folder=Path(folder))
        await migrate(database, *branches)
        # Closing it brings everything from the write-ahead log into the file.
        await database.close()
        return (Path(folder) / "made.db").read_bytes()
