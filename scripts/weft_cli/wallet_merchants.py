"""`weft wallet merchant`: opens merchant accounts, gives them keys and endpoints, lists and closes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from appservices.chassis.config import WeftConfig, load_config
from appservices.vocabulary.ids import UserId, is_ledger_id
from appservices.vocabulary.money import Money
from scripts.weft_cli.data_folder import DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.user import local_user

if TYPE_CHECKING:
    from wallet_appservice.payments.merchants.desk import MerchantDesk
    from wallet_appservice.payments.merchants.records import Merchant

Answer = TypeVar("Answer")
MerchantArgument = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]

merchant_commands = typer.Typer(help="Merchants: who may take orders.", no_args_is_help=True)


@merchant_commands.command()
def add(
    user: Annotated[str, typer.Argument(metavar="USER", help="The owner: alice, or @alice:server.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="As those who pay see it.")],
    data: DataOption = None,
) -> None:
    """Open a merchant account. Look who it is first: people pay by this name."""
    config = load_config(find_data_folder(data).path)
    owner = UserId(local_user(user, config))

    async def act(desk: MerchantDesk) -> Merchant:
        from wallet_appservice.payments.merchants.refusals import MerchantRefused

        opened = await desk.merchants.open(owner=owner, name=name, by_operator=True)
        if isinstance(opened, MerchantRefused):
            raise CommandFailed(opened.sentence)
        return opened

    opened = asyncio.run(_with_desk(config, act))
    print(f"{opened.name} belongs to {opened.owner} and can take orders.")
    print(f"Merchant {opened.id}")


@merchant_commands.command()
def key(
    id: MerchantArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="To tell keys apart, such as “till”.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="orders, charges, refunds or reports; may be given several times. Default: all.",
            show_default=False,
        ),
    ] = None,
    data: DataOption = None,
) -> None:
    """Make an API key for a merchant; it is shown this once."""

    async def act(desk: MerchantDesk) -> str:
        from wallet_appservice.payments.merchants.records import Scope
        from wallet_appservice.payments.merchants.refusals import MerchantRefused

        try:
            scopes = [Scope(one) for one in scope or list(Scope)]
        except ValueError as error:
            raise CommandFailed(f"A scope is one of {', '.join(Scope)}.") from error
        made = await desk.keys.make(await _merchant(desk, id), name=name, scopes=scopes)
        if isinstance(made, MerchantRefused):
            raise CommandFailed(made.sentence)
        return made[1]

    print(asyncio.run(_with_desk(load_config(find_data_folder(data).path), act)))


@merchant_commands.command()
def endpoint(
    id: MerchantArgument,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where its program listens.")],
    data: DataOption = None,
) -> None:
    """Notify a merchant's program at a URL; the secret that signs is shown this once."""

    async def act(desk: MerchantDesk) -> str:
        from wallet_appservice.payments.merchants.refusals import MerchantRefused

        added = await desk.endpoints.add(await _merchant(desk, id), url)
        if isinstance(added, MerchantRefused):
            raise CommandFailed(added.sentence)
        return added[1]

    print(asyncio.run(_with_desk(load_config(find_data_folder(data).path), act)))


@merchant_commands.command("list")
def list_all(data: DataOption = None) -> None:
    """Show every merchant and what it holds."""
    config = load_config(find_data_folder(data).path)
    currencies = config.wallet.kept_currencies

    async def act(desk: MerchantDesk) -> list[tuple[Merchant, str]]:
        found: list[tuple[Merchant, str]] = []
        while page := await desk.merchants.all(after=found[-1][0].id if found else ""):
            for merchant in page:
                holds = [
                    currencies.format(Money(account.posted_minor, account.currency))
                    for account in await desk.merchants.accounts(merchant)
                    if account.posted_minor
                ]
                found.append((merchant, ", ".join(holds)))
        return found

    found = asyncio.run(_with_desk(config, act))
    if not found:
        print("There is no merchant yet: weft wallet merchant add USER NAME opens the first.")
        return
    table = Table("Merchant", "Owner", "Holds", "Id", box=None, pad_edge=False, header_style="bold")
    for merchant, holds in found:
        name = merchant.name if merchant.closed_at_ms is None else f"{merchant.name} (closed)"
        table.add_row(name, merchant.owner, holds, merchant.id)
    Console(highlight=False).print(table)


@merchant_commands.command()
def close(id: MerchantArgument, data: DataOption = None) -> None:
    """Let a merchant take no more money. It can still refund, and its owner can take out what it holds."""

    async def act(desk: MerchantDesk) -> Merchant:
        merchant = await _merchant(desk, id)
        if not await desk.merchants.close(merchant.id):
            raise CommandFailed(f"{merchant.name} is closed already.")
        return merchant

    merchant = asyncio.run(_with_desk(load_config(find_data_folder(data).path), act))
    print(f"{merchant.name} takes no more money.")


async def _merchant(desk: MerchantDesk, id: str) -> Merchant:
    from wallet_appservice.payments.merchants.records import MerchantId

    merchant = await desk.merchants.find(MerchantId(id)) if is_ledger_id(id) else None
    if merchant is None:
        raise CommandFailed(f"There is no merchant {id}: weft wallet merchant list shows all of them.")
    return merchant


async def _with_desk(config: WeftConfig, act: Callable[[MerchantDesk], Awaitable[Answer]]) -> Answer:
    # Imported here because it loads the wallet.
    from appservices.chassis.clock import Tokens, system_clock
    from scripts.weft_cli.composition import merchant_rules, open_wallet
    from wallet_appservice.payments.merchants.desk import open_merchant_desk

    async with (
        open_wallet(config) as payments,
        open_merchant_desk(payments, merchant_rules(config), clock=system_clock, tokens=Tokens()) as desk,
    ):
        return await act(desk)
