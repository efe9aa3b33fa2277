"""`weft wallet peer …` and `weft wallet peers`: with whom this wallet exchanges payments.

All of it works on the database; a running service takes it up within a second or two.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from appservices.chassis.clock import Tokens, system_clock
from appservices.chassis.config import WeftConfig, load_config
from appservices.vocabulary.ids import ServerName, TransferId, is_ledger_id, is_server_name
from appservices.vocabulary.money import AmountUnreadable, CurrencyCode, Money, format_minor
from scripts.weft_cli.data_folder import DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.wallet_security import operator_name

if TYPE_CHECKING:
    from wallet_appservice.clearing.peers import Peers
    from wallet_appservice.payments.actions import Payments

Answer = TypeVar("Answer")

ServerArgument = Annotated[str, typer.Argument(metavar="SERVER", help="The other homeserver's name.")]
LimitOption = Annotated[
    list[str] | None,
    typer.Option(
        "--credit-limit",
        metavar="AMOUNT",
        help='How much its wallet may owe this one, such as "1000 EUR"; once per currency.',
        show_default=False,
    ),
]

peer_commands = typer.Typer(help="Other homeservers' wallets.", no_args_is_help=True)


@peer_commands.command()
def add(server: ServerArgument, credit_limit: LimitOption = None, data: DataOption = None) -> None:
    """Exchange payments with another homeserver's wallet."""
    config, name = _peer_named(server, data)
    limits = _limits(config, credit_limit or ())

    async def act(_payments: Payments, peers: Peers) -> None:
        await peers.add(name, limits, by=operator_name())

    _with_peers(config, act)
    print(f"{name} is a peer. Its operator must name {config.server_name} as well.")
    if not limits:
        print('It has no credit yet, so its people can pay nobody here: --credit-limit "1000 EUR".')


@peer_commands.command("set")
def set_limits(server: ServerArgument, credit_limit: LimitOption = None, data: DataOption = None) -> None:
    """Change a peer's credit limits; those not named stay."""
    config, name = _peer_named(server, data)
    limits = _limits(config, credit_limit or ())
    if not limits:
        raise CommandFailed('Say what to set: --credit-limit "1000 EUR".')

    async def act(_payments: Payments, peers: Peers) -> None:
        if await peers.wallet_of(name) is None:
            raise CommandFailed(f"{name} is no peer: weft wallet peer add {name}.")
        await peers.add(name, limits, by=operator_name())

    _with_peers(config, act)
    print(f"The credit limits of {name} are set.")


@peer_commands.command()
def remove(server: ServerArgument, data: DataOption = None) -> None:
    """Exchange no more payments; what is under way is ended, and what is owed stays owed."""
    config, name = _peer_named(server, data)

    async def act(_payments: Payments, peers: Peers) -> bool:
        return await peers.remove(name, by=operator_name())

    if not _with_peers(config, act):
        raise CommandFailed(f"{name} is no peer.")
    print(f"{name} is a peer no more.")


@peer_commands.command("list")
def list_peers(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with JSON, in minor units.")] = False,
) -> None:
    """Show peers, links, positions, limits, what is under way, and the last statement."""
    config = load_config(find_data_folder(data).path)
    shown = _with_peers(config, _overview)
    if as_json:
        print(json.dumps(shown))
        return
    if not shown:
        print("There are no peers yet: weft wallet peer add SERVER --credit-limit AMOUNT names the first.")
        return
    console = Console(highlight=False)
    for peer in shown:
        _show(console, config, peer)


@peer_commands.command()
def mend(server: ServerArgument, data: DataOption = None) -> None:
    """Let a stopped link begin anew, once you know why it stopped; the other operator does so too."""
    _wish(server, data, "mend")
    print("The link begins anew as soon as both operators have said so.")


@peer_commands.command()
def trust(server: ServerArgument, data: DataOption = None) -> None:
    """Take the keys that the peer shows now for its own, because its operator told you so; then mend."""
    _wish(server, data, "trust")
    print("The keys that the peer shows are trusted. Now: weft wallet peer mend.")


@peer_commands.command()
def stop(server: ServerArgument, data: DataOption = None) -> None:
    """Stop the link by hand; nothing is applied until both operators mend it."""
    _wish(server, data, "stop")
    print("The link stops.")


@peer_commands.command(context_settings={"ignore_unknown_options": True})
def settle(
    server: ServerArgument,
    amount: Annotated[list[str], typer.Argument(metavar="AMOUNT", help="What you have received.")],
    data: DataOption = None,
    reference: Annotated[
        str, typer.Option("--reference", metavar="TEXT", help="Such as the bank transfer's number.")
    ] = "",
    id: Annotated[
        str | None,
        typer.Option("--id", metavar="HEX", help="32 hex digits; the same id again does nothing twice."),
    ] = None,
) -> None:
    """Record money that you have received from the peer's operator outside; it then owes you less."""
    config, name = _peer_named(server, data)
    money = _money(config, " ".join(amount))
    if id is not None and not is_ledger_id(id):
        raise CommandFailed(f"--id takes 32 digits of 0 to 9 and a to f, not “{id}”.")
    if not reference.isprintable():
        raise CommandFailed("--reference takes text that is printable on one line.")
    settlement_id = TransferId(id or Tokens().hex(16))

    async def act(payments: Payments, peers: Peers) -> None:
        from wallet_appservice.clearing.items import Settle
        from wallet_appservice.clearing.settling import record_settlement

        item = Settle(id=settlement_id, money=money, reference=reference[:200])
        if not await record_settlement(payments.till, peers, name, item, by=operator_name()):
            raise CommandFailed(f"{name} is no peer.")

    _with_peers(config, act)
    print(f"{name} has settled {config.wallet.kept_currencies.format(money)}.")
    print(f"Settlement {settlement_id}")


@peer_commands.command()
def statement(server: ServerArgument, data: DataOption = None) -> None:
    """Send statements up to now; the peer compares them with its own books."""
    config, name = _peer_named(server, data)

    async def act(payments: Payments, peers: Peers) -> list[str]:
        from wallet_appservice.clearing.statements import Statements

        wallet = await peers.wallet_of(name)
        if wallet is None:
            raise CommandFailed(f"{name} is no peer.")
        statements, now_ms, lines = Statements(payments.till.database), system_clock(), []
        for position in await peers.positions():
            if position.server == name:
                sent = await statements.send(
                    wallet, name, position.currency, from_ms=0, to_ms=now_ms, at_ms=now_ms
                )
                lines.append(
                    f"{position.currency}: payments are under way; try again later."
                    if sent is None
                    else f"{position.currency}: {sent.paid.count} paid, {sent.received.count} received."
                )
        return lines

    for line in _with_peers(config, act):
        print(line)


def _wish(server: str, data: Any, wish: str) -> None:
    config, name = _peer_named(server, data)

    async def act(payments: Payments, peers: Peers) -> None:
        from appservices.chassis.links.storage import LinkStorage, wish_write

        peer = await peers.one(name)
        storage = LinkStorage(payments.till.database)
        if peer is None or await storage.one(peer.user_id) is None:
            raise CommandFailed(f"There is no link with {name}.")
        audited = peers.audited(name, by=operator_name(), what=wish)
        await storage.write([wish_write(peer.user_id, wish), audited])

    _with_peers(config, act)


async def _overview(payments: Payments, peers: Peers) -> list[dict[str, Any]]:
    from wallet_appservice.clearing.overview import peers_overview

    return await peers_overview(payments.till.database, peers)


def _show(console: Console, config: WeftConfig, peer: dict[str, Any]) -> None:
    state = peer["link"]["state"] if peer["link"] else "no link yet"
    console.print(f"[bold]{peer['server']}[/]  {'' if peer['allowed'] else 'removed, '}{state}", end="")
    why = f" ({peer['link']['reason']}: {peer['link']['detail']})" if state == "stopped" else ""
    console.print(escape(why))
    table = Table("", box=None, pad_edge=False, header_style="bold")
    for column in ("Owes you", "Credit limit", "Used", "Under way"):
        table.add_column(column, justify="right", no_wrap=True)
    for position in peer["positions"]:
        code = CurrencyCode(position["currency"])
        currency = config.wallet.kept_currencies.get(code)
        amounts = [int(position[name]) for name in ("owed_minor", "limit_minor", "paying_minor")]
        owed, limit, paying = (
            format_minor(minor, currency) if currency else f"{minor} minor units" for minor in amounts
        )
        used = f"{position['used_percent']} %" + ("  !" if position["used_percent"] >= 80 else "")
        table.add_row(code, owed, limit, used, paying)
    console.print(table)
    for last in peer["statements"][:2]:
        at = datetime.fromtimestamp(last["at_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        console.print(f"  statement {last['side']} {last['currency']} {at}: {last['state']}")
    if peer["rejected"]:
        reasons = ", ".join(f"{reason} {number}" for reason, number in peer["rejected"].items())
        console.print(f"  rejected payments of its people: {reasons}")
    if peer["link"] and peer["link"]["counts"]:
        met = ", ".join(f"{name} {number}" for name, number in peer["link"]["counts"].items())
        console.print(f"  met: {met}")


def _peer_named(server: str, data: Any) -> tuple[WeftConfig, ServerName]:
    config = load_config(find_data_folder(data).path)
    if not is_server_name(server):
        raise CommandFailed(f"“{server}” is not a server name such as example.org.")
    if server == config.server_name:
        raise CommandFailed("That is this server itself.")
    return config, ServerName(server)


def _limits(config: WeftConfig, texts: Sequence[str]) -> dict[CurrencyCode, int]:
    limits = {}
    for text in texts:
        money = _money(config, text)
        limits[money.currency] = money.amount_minor
    return limits


def _money(config: WeftConfig, text: str) -> Money:
    try:
        return config.wallet.kept_currencies.parse(text)
    except AmountUnreadable as error:
        raise CommandFailed(str(error)) from error


def _with_peers(config: WeftConfig, act: Callable[[Payments, Peers], Awaitable[Answer]]) -> Answer:
    from scripts.weft_cli.composition import open_wallet
    from wallet_appservice.clearing.peers import Peers

    async def run() -> Answer:
        async with open_wallet(config) as payments:
            till = payments.till
            return await act(payments, Peers(database=till.database, ledger=till.ledger, clock=system_clock))

    return asyncio.run(run())
