"""Schema migrations, run at every start: Alembic revisions, several branches to a database.

A branch is a folder of revision files. All that is missing is applied in one transaction, so that a crash
leaves the schema as it was; a second process that starts at the same time waits for the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

from appservices.chassis.database import Database

CHASSIS_MIGRATIONS = Path(__file__).parent / "service_migrations"
SESSION_MIGRATIONS = Path(__file__).parent / "session_migrations"

# Any fixed number will do, as long as every Weft process locks the same one.
_POSTGRESQL_LOCK = 0x77656674


class SchemaUnknown(Exception):
    """The database was written by a newer Weft; the message is one sentence."""


async def migrate(database: Database, *branches: Path) -> None:
    """Brings the database to the newest revision of every branch. Raises SchemaUnknown."""
    async with database.begin() as work:
        if not database.is_sqlite:
            await work.execute(text(f"SELECT pg_advisory_xact_lock({_POSTGRESQL_LOCK})"))
        await work.connection.run_sync(_upgrade, branches)
        await work.commit()


async def is_current(database: Database, *branches: Path) -> bool:
    """Whether nothing is missing, for those who only look."""
    async with database.read() as work:
        return await work.connection.run_sync(_is_current, branches)


def _scripts(branches: tuple[Path, ...]) -> ScriptDirectory:
    return ScriptDirectory(str(branches[0]), version_locations=[str(branch) for branch in branches])


def _upgrade(connection: Connection, branches: tuple[Path, ...]) -> None:
    scripts = _scripts(branches)

    def missing_revisions(current: Any, _context: MigrationContext) -> Any:
        return scripts._upgrade_revs("heads", current)

    context = MigrationContext.configure(connection, opts={"fn": missing_revisions})
    try:
        with Operations.context(context):
            context.run_migrations()
    except CommandError as error:
        raise SchemaUnknown(
            f"the database {connection.engine.url.database} was written by a newer Weft: {error}"
        ) from error


def _is_current(connection: Connection, branches: tuple[Path, ...]) -> bool:
    heads = set(_scripts(branches).get_heads())
    return heads <= set(MigrationContext.configure(connection).get_current_heads())
