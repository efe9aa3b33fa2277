"""The command `weft`: one command a file. Whatever goes wrong is one sentence and exit status 1."""

from __future__ import annotations

import logging
import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from appservices.chassis.config import ConfigInvalid, load_config
from scripts.weft_cli.attach import attach
from scripts.weft_cli.data_folder import FOLDER_VARIABLE, DataOption, find_data_folder
from scripts.weft_cli.doctor import doctor
from scripts.weft_cli.down import down
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.init import init
from scripts.weft_cli.status import status
from scripts.weft_cli.up import up
from scripts.weft_cli.user import user_commands
from scripts.weft_cli.wallet import wallet_commands

app = typer.Typer(
    name="weft",
    help="A federated super app: payments and more in the rooms of your Matrix homeserver.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """What the console script `weft` runs."""
    # Databases, keys and logs are nobody else's on this machine.
    os.umask(0o077)
    try:
        app()
    except (CommandFailed, ConfigInvalid) as failed:
        _fail(str(failed))
    except OSError as failed:
        if isinstance(failed, BrokenPipeError):
            _quiet_exit()
        _fail(f"{failed.filename}: {failed.strerror}." if failed.filename else f"{failed}.")


def _say_version(asked: bool) -> None:
    if asked:
        print(f"weft {version('weft')}")
        raise typer.Exit


@app.callback()
def options(
    data: DataOption = None,
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Say which Weft this is.")
    ] = False,
) -> None:
    if data is not None:
        # Before the command or after it: both reach the command.
        os.environ[FOLDER_VARIABLE] = str(data)


@app.command()
def serve(data: DataOption = None) -> None:
    """Run every application service in this process; `weft up` does so beside Synapse."""
    # Imported late: it loads every service, which the other commands can do without.
    from sqlalchemy.exc import SQLAlchemyError

    from appservices.chassis.crypto_store import CryptoStoreUnusable
    from appservices.chassis.page_assets import AssetsMissing
    from scripts.weft_cli.composition import failure_words
    from scripts.weft_cli.event_loop import run_on_fast_loop
    from scripts.weft_cli.serve import serve as serve_all

    config = load_config(find_data_folder(data).path)
    logging.basicConfig(
        level=config.log.level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    try:
        run_on_fast_loop(serve_all(config))
    except (AssetsMissing, CryptoStoreUnusable) as error:
        raise CommandFailed(str(error)) from error
    except SQLAlchemyError as error:
        # Whoever looks for the cause needs all of it; whoever reads the last line needs a sentence.
        logging.getLogger(__name__).exception("a database failed")
        raise CommandFailed(f"A database failed: {failure_words(error)}.") from error


app.command()(init)
app.command()(up)
app.command()(down)
app.command()(status)
app.command()(doctor)
app.command()(attach)
app.add_typer(user_commands, name="user")
app.add_typer(wallet_commands, name="wallet")


def _fail(sentence: str) -> None:
    print(sentence, file=sys.stderr)
    sys.exit(1)


def _quiet_exit() -> None:
    """The reader of our output has gone; Python would say so at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


if __name__ == "__main__":
    main()
