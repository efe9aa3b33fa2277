"""`weft wallet checkpoint`: signs what the ledger is now, for somebody to keep elsewhere."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from appservices.chassis.config import load_config
from scripts.weft_cli.data_folder import DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.output_file import OutputOption, output


def checkpoint(
    data: DataOption = None,
    to: OutputOption = None,
    stored: Annotated[
        bool, typer.Option("--stored", help="Make none; print all that were made, one a line.")
    ] = False,
) -> None:
    """Sign what the ledger is now, as JSON. Keep it elsewhere: `verify --checkpoint` needs it."""
    contents = asyncio.run(_contents(data, only_stored=stored))
    with output(to) as stream:
        for content in contents:
            print(content, file=stream)


async def _contents(data: Path | None, *, only_stored: bool) -> list[str]:
    # Imported here because it loads the wallet.
    from appservices.chassis.clock import system_clock
    from appservices.chassis.config import load_signing_key
    from scripts.weft_cli.ledger_verification import open_existing_ledger
    from wallet_appservice.storage.ledger_checkpoints import (
        CheckpointInvalid,
        make_checkpoint,
        stored_contents,
    )

    config = load_config(find_data_folder(data).path)
    async with open_existing_ledger(config) as database:
        if only_stored:
            async with database.read() as work:
                return [content for _number, content in await stored_contents(work)]
        name = config.wallet.signing_key_file
        key = load_signing_key(config, key="wallet.signing_key_file", name=name)
        try:
            made = await make_checkpoint(database, wallet=config.wallet_user, key=key, clock=system_clock)
        except CheckpointInvalid as error:
            raise CommandFailed(f"No checkpoint was made: {error}.") from error
        return [made.content]
