"""`weft wallet`: the operator's side of money. It works on the database itself, whether Weft runs or not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from appservices.chassis.clock import Tokens
from appservices.chassis.config import WeftConfig, load_config
from appservices.vocabulary.ids import TransferId, UserId, is_ledger_id
from appservices.vocabulary.money import AmountUnreadable, Money, format_minor
from scripts.weft_cli.data_folder import DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.user import local_user
from scripts.weft_cli.waiting import start_remedy
from scripts.weft_cli.wallet_books import books_commands
from scripts.weft_cli.wallet_checkpoint import checkpoint as make_checkpoint
from scripts.weft_cli.wallet_merchants import merchant_commands
from scripts.weft_cli.wallet_migration import migrate_database
from scripts.weft_cli.wallet_peers import list_peers, peer_commands
from scripts.weft_cli.wallet_security import audit as show_audit
from scripts.weft_cli.wallet_security import operator_name, pin_commands

if TYPE_CHECKING:
    from wallet_appservice.payments.actions import Payments
    from wallet_appservice.payments.till import Outcome

Answer = TypeVar("Answer")

# An amount may begin with a minus sign; it is told so in a sentence, not taken for an option.
_AMOUNT_SETTINGS = {"ignore_unknown_options": True}

UserArgument = Annotated[str, typer.Argument(metavar="USER", help="alice, or @alice:server.")]
AmountArgument = Annotated[
    list[str], typer.Argument(metavar="AMOUNT", help="12.50 EUR, €12.50, or 12.50 in the default currency.")
]
ReferenceOption = Annotated[
    str, typer.Option("--reference", metavar="TEXT", help="What it is for; the user reads it.")
]
IdOption = Annotated[
    str | None,
    typer.Option(
        "--id",
        metavar="HEX",
        help="32 hex digits; the same id again does nothing twice. Default: a new one, which is shown.",
        show_default=False,
    ),
]

wallet_commands = typer.Typer(help="Money: in, out, and how much there is.", no_args_is_help=True)


@wallet_commands.command(context_settings=_AMOUNT_SETTINGS)
def deposit(
    user: UserArgument,
    amount: AmountArgument,
    data: DataOption = None,
    reference: ReferenceOption = "",
    id: IdOption = None,
) -> None:
    """Give a user money that you have received outside."""
    config = load_config(find_data_folder(data).path)
    _move(config, "deposit", user=user, amount=amount, reference=reference, id=id)


@wallet_commands.command(context_settings=_AMOUNT_SETTINGS)
def withdraw(
    user: UserArgument,
    amount: AmountArgument,
    data: DataOption = None,
    reference: ReferenceOption = "",
    id: IdOption = None,
) -> None:
    """Take money from a user that you have paid out outside."""
    config = load_config(find_data_folder(data).path)
    _move(config, "withdraw", user=user, amount=amount, reference=reference, id=id)


@wallet_commands.command()
def balances(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with JSON, in minor units.")] = False,
) -> None:
    """Show everyone's money."""
    config = load_config(find_data_folder(data).path)
    console = Console(highlight=False)

    async def read(wallet: Payments) -> list[Any]:
        try:
            return list(await wallet.all_balances())
        except ValueError as error:
            raise CommandFailed(f"{error}.") from error

    with Console(stderr=True).status("Reading the ledger ..."):
        found = asyncio.run(_with_wallet(config, read))
    if as_json:
        print(
            json.dumps(
                [
                    {
                        "user": balance.user,
                        "currency": balance.currency,
                        "posted_minor": str(balance.posted_minor),
                        "pending_minor": str(balance.pending_minor),
                        "available_minor": str(balance.available_minor),
                    }
                    for balance in found
                ]
            )
        )
        return
    if not found:
        print("Nobody has an account yet: weft wallet deposit USER AMOUNT makes the first.")
        return
    currencies = config.wallet.kept_currencies
    table = Table("User", box=None, pad_edge=False, header_style="bold")
    table.add_column("Available", justify="right", no_wrap=True)
    table.add_column("Held", justify="right", no_wrap=True)
    for balance in found:
        currency = currencies.get(balance.currency)
        if currency is None:
            shown = [f"{minor} minor units of {balance.currency}" for minor in _parts(balance)]
        else:
            shown = [format_minor(minor, currency) for minor in _parts(balance)]
        table.add_row(balance.user, shown[0], shown[1] if balance.pending_minor else "")
    console.print(table)


@wallet_commands.command()
def verify(
    data: DataOption = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            help="A checkpoint that you have kept; may be given several times.",
            show_default=False,
        ),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="ID=PUBLIC",
            help="A public key that signed earlier checkpoints: ed25519:k0=BASE64.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Recompute balances and hash chain from the transfers alone. Exit status 1 when something differs."""
    from scripts.weft_cli.ledger_verification import verify_ledger

    config = load_config(find_data_folder(data).path)
    asyncio.run(verify_ledger(config, checkpoint or (), earlier_keys=key or ()))


wallet_commands.command()(make_checkpoint)
wallet_commands.command()(migrate_database)
wallet_commands.command()(show_audit)
wallet_commands.add_typer(books_commands, name="books")
wallet_commands.add_typer(pin_commands, name="pin")
wallet_commands.add_typer(merchant_commands, name="merchant")
wallet_commands.add_typer(peer_commands, name="peer")
wallet_commands.command("peers")(list_peers)


def _parts(balance: Any) -> tuple[int, int]:
    return balance.available_minor, balance.pending_minor


def _move(
    config: WeftConfig, what: str, *, user: str, amount: list[str], reference: str, id: str | None
) -> None:
    user_id = UserId(local_user(user, config))
    currencies = config.wallet.kept_currencies
    try:
        money = currencies.parse(" ".join(amount))
    except AmountUnreadable as error:
        raise CommandFailed(str(error)) from error
    if id is not None and not is_ledger_id(id):
        raise CommandFailed(f"--id takes 32 digits of 0 to 9 and a to f, not “{id}”.")
    transfer_id = TransferId(id or Tokens().hex(16))

    def act(wallet: Payments) -> Coroutine[Any, Any, Outcome]:
        action = wallet.deposit if what == "deposit" else wallet.withdraw
        return action(user=user_id, money=money, id=transfer_id, reference=reference, by=operator_name())

    with Console(stderr=True).status("Writing to the ledger ..."):
        outcome = asyncio.run(_with_wallet(config, act))
    _report(config, what, outcome, user_id, money)


def _report(config: WeftConfig, what: str, outcome: Outcome, user: UserId, money: Money) -> None:
    # Imported here because it loads the wallet.
    from wallet_appservice.payments.refusals import PaymentRefused

    if isinstance(outcome, PaymentRefused):
        raise CommandFailed(outcome.sentence)
    amount = config.wallet.kept_currencies.format(money)
    print(f"{user} got {amount}." if what == "deposit" else f"{user} gave back {amount}.")
    print(f"Transfer {outcome.id}")


async def _with_wallet(config: WeftConfig, act: Callable[[Payments], Coroutine[Any, Any, Answer]]) -> Answer:
    from appservices.chassis.homeserver import MatrixRefused, MatrixUnavailable
    from scripts.weft_cli.composition import open_wallet

    try:
        async with open_wallet(config) as wallet:
            return await act(wallet)
    except (MatrixUnavailable, MatrixRefused) as error:
        remedy = f"; {start_remedy(config)}" if "no connection" in str(error) else ""
        raise CommandFailed(
            f"Whether this user exists must be asked of the homeserver: {error}{remedy}."
        ) from error
