"""`weft wallet migrate-database`: moves the wallet from SQLite to PostgreSQL while Weft stands still."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from appservices.chassis.config import CONFIG_NAME, WeftConfig, load_config
from scripts.weft_cli.data_folder import DataFolder, DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.running import running_lock
from scripts.weft_cli.written_files import replace_file
from scripts.weft_cli.yaml_values import as_yaml, with_values


def migrate_database(
    to: Annotated[
        str,
        typer.Option("--to", metavar="URL", help="An empty database: postgresql://USER@HOST/NAME."),
    ],
    data: DataOption = None,
    switch: Annotated[
        bool, typer.Option("--switch", help="Change weft.yaml as well, once both are proved equal.")
    ] = False,
) -> None:
    """Copy the wallet from SQLite to PostgreSQL and prove both equal. Weft must be stopped."""
    folder = find_data_folder(data)
    config = load_config(folder.path)
    with running_lock(folder):
        asyncio.run(_move(config, to))
        if switch:
            _switch(folder, to)
            print(f"{folder.config} names the new database now; {config.wallet.database} stays as it was.")
            return
    print(f"Now change this line of {folder.config}, under wallet:, before Weft starts again:")
    print(f"  database: {as_yaml(to)}")


async def _move(config: WeftConfig, to: str) -> None:
    # Imported here because it loads the wallet.
    from asyncpg import PostgresError
    from sqlalchemy.exc import SQLAlchemyError

    from appservices.chassis.database import DatabaseUrlInvalid, open_database
    from appservices.chassis.migrations import is_current
    from scripts.weft_cli.composition import WALLET_BRANCHES, open_configured_database
    from scripts.weft_cli.database_files import is_missing
    from scripts.weft_cli.ledger_verification import checkpoint_signer, progress_bar
    from wallet_appservice.storage.database_move import MoveRefused, move_database, open_alone
    from wallet_appservice.storage.ledger_check import verify

    signer = checkpoint_signer(config)
    configured = open_configured_database(config, key="wallet.database", url=config.wallet.database)
    if not configured.is_sqlite:
        raise CommandFailed("This wallet is not in SQLite: there is nothing to move.")
    if is_missing(configured):
        raise CommandFailed(f"There is no wallet yet: set wallet.database to {to} and start Weft.")
    try:
        target = open_database(to, folder=config.folder)
    except DatabaseUrlInvalid as error:
        raise CommandFailed(f"--to: {error}.") from error
    try:
        async with open_alone(config.wallet.database, folder=config.folder) as source:
            if not await is_current(source, *WALLET_BRANCHES):
                raise MoveRefused(
                    "the wallet is of an earlier version: start this one on it once, then try again"
                )
            with progress_bar("Recomputing the ledger in SQLite") as on_progress:
                before = await verify(source, on_progress, signer=signer)
            if before.difference is not None:
                raise MoveRefused(f"the ledger in SQLite is not right: {before.difference.sentence}")
            with progress_bar("Copying and comparing rows") as on_progress:
                copied = await move_database(source, target, *WALLET_BRANCHES, on_progress=on_progress)
            with progress_bar("Recomputing the ledger in PostgreSQL") as on_progress:
                after = await verify(target, on_progress, signer=signer)
        if after != before:
            sentence = after.difference.sentence if after.difference else "it is another ledger"
            raise CommandFailed(f"The copy must not be used, drop it: {sentence}.")
    except MoveRefused as error:
        raise CommandFailed(f"Nothing was moved: {error}.") from error
    except (SQLAlchemyError, PostgresError, OSError) as error:
        words = str(getattr(error, "orig", None) or error).strip().partition("\n")[0]
        raise CommandFailed(f"Nothing was moved: {words}.") from error
    finally:
        await target.close()
        await configured.close()
    for table in copied:
        print(f"{table.name}: {table.rows_count} rows, the same in both ({table.digest[:16]})")
    print(
        f"Both ledgers are right and the same: {after.transfers_count} transfers, "
        f"{after.accounts_count} accounts, chain {after.link}"
    )


def _switch(folder: DataFolder, to: str) -> None:
    text = folder.config.read_text(encoding="utf-8")
    try:
        replace_file(folder.config, with_values(text, {("wallet", "database"): to}))
    except KeyError as error:
        raise CommandFailed(
            f"The copy is whole, but {CONFIG_NAME} has no wallet.database to change: "
            f"write `database: {as_yaml(to)}` under wallet:."
        ) from error
