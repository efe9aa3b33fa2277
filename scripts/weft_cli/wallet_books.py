"""`weft wallet books`: the ledger as accountants read it, at the terminal or in files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from appservices.chassis.config import WeftConfig, load_config
from appservices.vocabulary.ids import AccountId, is_ledger_id
from scripts.weft_cli.data_folder import DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.output_file import OutputOption, may_show_progress, output
from scripts.weft_cli.user import local_user

if TYPE_CHECKING:
    from wallet_appservice.books.exports import Amounts
    from wallet_appservice.books.reports import BookAccount, Books, JournalEntry, Statement

PROGRESS_LINES = 500
"""So many lines are written between two movements of the bar."""

books_commands = typer.Typer(help="The ledger as accountants read it.", no_args_is_help=True)


class ExportFormat(StrEnum):
    CSV = "csv"
    BEANCOUNT = "beancount"


class StatementFormat(StrEnum):
    TEXT = "text"
    CSV = "csv"


@books_commands.command()
def chart() -> None:
    """Show what each kind of account is."""
    from wallet_appservice.books.chart import CHART

    table = Table("Kind", "Section", "What it is", box=None, pad_edge=False, header_style="bold")
    for kind, entry in CHART.items():
        table.add_row(kind.value, f"{entry.section}:{entry.name}", entry.description)
    Console(highlight=False).print(table)


@books_commands.command("trial-balance")
def trial_balance(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with JSON, in minor units.")] = False,
) -> None:
    """Show what each kind of account was debited and credited; both add up to the same."""
    config = load_config(find_data_folder(data).path)
    with Console(stderr=True).status("Adding up the accounts ..."):
        asyncio.run(_trial_balance(config, as_json=as_json))


@books_commands.command()
def statement(
    user: Annotated[str, typer.Argument(metavar="USER", help="alice, @alice:server, or an account's id.")],
    data: DataOption = None,
    from_day: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="DAY", help="2026-01-31, UTC. Default: the beginning.", show_default=False
        ),
    ] = None,
    to_day: Annotated[
        str | None,
        typer.Option("--to", metavar="DAY", help="The last day. Default: today.", show_default=False),
    ] = None,
    format: Annotated[StatementFormat, typer.Option("--format", help="For people or programs.")] = (
        StatementFormat.TEXT
    ),
    to: OutputOption = None,
) -> None:
    """Show an account over a period, with opening and closing balance."""
    config = load_config(find_data_folder(data).path)
    first = datetime(1970, 1, 1, tzinfo=UTC) if from_day is None else _day(from_day, "--from")
    last = datetime.now(UTC) if to_day is None else _day(to_day, "--to")
    last = last.replace(hour=0, minute=0, second=0, microsecond=0)
    if last < first:
        raise CommandFailed("A period ends on the day it begins or later: --to is before --from.")
    period = _Period(first, last)
    asyncio.run(_statement(config, user, period, format, to))


@books_commands.command()
def export(
    format: Annotated[ExportFormat, typer.Option("--format", help="CSV, or a file for beancount.")],
    data: DataOption = None,
    to: OutputOption = None,
) -> None:
    """Write out every transfer: as CSV, or as a beancount file that bean-check accepts."""
    asyncio.run(_export(load_config(find_data_folder(data).path), format, to))


class _Period:
    """Whole days in UTC, both included."""

    def __init__(self, first: datetime, last: datetime) -> None:
        self.first, self.last = first.date(), last.date()
        self.from_ms = int(first.timestamp() * 1000)
        self.until_ms = int((last + timedelta(days=1)).timestamp() * 1000)


async def _trial_balance(config: WeftConfig, *, as_json: bool) -> None:
    from scripts.weft_cli.ledger_verification import open_existing_ledger
    from wallet_appservice.books.exports import Amounts
    from wallet_appservice.books.reports import open_books

    async with open_existing_ledger(config) as database, open_books(database) as books:
        lines = await books.trial_balance()
    if as_json:
        shown = [
            {
                "currency": line.currency,
                "kind": line.kind.value,
                "accounts": line.accounts_count,
                "debits_minor": str(line.debits_minor),
                "credits_minor": str(line.credits_minor),
            }
            for line in lines
        ]
        print(json.dumps(shown))
        return
    amounts = Amounts(config.wallet.kept_currencies)
    table = Table("Currency", "Kind", box=None, pad_edge=False, header_style="bold")
    for heading in ("Accounts", "Debits", "Credits", "Debit balance", "Credit balance"):
        table.add_column(heading, justify="right", no_wrap=True)
    for code in dict.fromkeys(line.currency for line in lines):
        own = [line for line in lines if line.currency == code]
        rows = [
            (line.debits_minor, line.credits_minor, line.debit_balance_minor, line.credit_balance_minor)
            for line in own
        ]
        for line, numbers in zip(own, rows, strict=True):
            texts = (amounts.text(number, code) for number in numbers)
            table.add_row(code, line.kind.value, str(line.accounts_count), *texts)
        sums = [amounts.text(sum(column), code) for column in zip(*rows, strict=True)]
        count = sum(line.accounts_count for line in own)
        table.add_row(code, "total", str(count), *sums, style="bold", end_section=True)
    Console(highlight=False).print(table)


async def _statement(
    config: WeftConfig, user: str, period: _Period, format: StatementFormat, to: Path | None
) -> None:
    from scripts.weft_cli.ledger_verification import open_existing_ledger, progress_bar
    from wallet_appservice.books.exports import Amounts
    from wallet_appservice.books.reports import open_books

    amounts = Amounts(config.wallet.kept_currencies)
    async with open_existing_ledger(config) as database, open_books(database) as books:
        accounts = await _accounts(config, books, user)
        # The balances before the first line may take a while on a long history.
        with Console(stderr=True).status("Adding up the account ..."):
            statements = [
                await books.statement(account, from_ms=period.from_ms, until_ms=period.until_ms)
                for account in accounts
            ]
        write = _csv_statement if format is StatementFormat.CSV else _text_statement
        total = sum(found.entries_count for found in statements)
        shown = may_show_progress(to)
        with progress_bar("Writing the statement", shown=shown) as on_progress, output(to) as stream:
            lines = write(books, statements, period, amounts)
            await _write(lines, stream.write, lambda done: on_progress(min(done, total), total))


async def _accounts(config: WeftConfig, books: Books, user: str) -> list[BookAccount]:
    if is_ledger_id(user):
        account = await books.account(AccountId(user))
        if account is None:
            raise CommandFailed(f"There is no account {user}.")
        return [account]
    owner = local_user(user, config)
    accounts = await books.accounts_of(owner)
    if not accounts:
        raise CommandFailed(f"{owner} has no account.")
    return accounts


async def _text_statement(
    books: Books, statements: list[Statement], period: _Period, amounts: Amounts
) -> AsyncIterator[str]:
    from wallet_appservice.books.exports import time_text

    for found in statements:
        account, code = found.account, found.account.currency
        yield f"{account.owner}, {account.kind.value} account {account.id}, {code}\n"
        yield f"{period.first} to {period.last}, UTC\n\n"
        yield f"{'Opening balance':<36}{amounts.text(found.opening_minor, code):>38}\n"
        balance = found.opening_minor
        async for entry, moved in _movements(books, account, period):
            balance += moved
            other = entry.debit if moved > 0 else entry.credit
            words = " ".join(filter(None, (other.owner, _printable(entry.memo))))
            yield (
                f"{time_text(entry.at_ms)[:19].replace('T', ' ')} {entry.code:<16}"
                f"{amounts.text(moved, code):>19}{amounts.text(balance, code):>19}  {words}\n"
            )
        yield f"{'Closing balance':<36}{amounts.text(found.closing_minor, code):>38}\n"
        yield f"{found.entries_count} transfers\n\n"


async def _csv_statement(
    books: Books, statements: list[Statement], period: _Period, amounts: Amounts
) -> AsyncIterator[str]:
    from wallet_appservice.books.exports import csv_line, safe_cell, time_text

    yield csv_line(
        ("account", "currency", "time", "position", "id", "code", "other", "amount", "balance", "memo")
    )
    for found in statements:
        account, code = found.account, found.account.currency

        def balance_line(time: str, words: str, minor: int, *, of: BookAccount = account) -> str:
            text = amounts.text(minor, of.currency)
            return csv_line((of.id, of.currency, time, "", "", words, "", "", text, ""))

        yield balance_line(str(period.first), "opening balance", found.opening_minor)
        balance = found.opening_minor
        async for entry, moved in _movements(books, account, period):
            balance += moved
            other = entry.debit if moved > 0 else entry.credit
            numbers = (amounts.text(moved, code), amounts.text(balance, code))
            time = time_text(entry.at_ms)
            yield csv_line(
                (
                    account.id, code, time, str(entry.position), entry.id, entry.code, other.owner,
                    *numbers, safe_cell(entry.memo),
                )
            )  # fmt: skip
        yield balance_line(str(period.last), "closing balance", found.closing_minor)


async def _movements(
    books: Books, account: BookAccount, period: _Period
) -> AsyncIterator[tuple[JournalEntry, int]]:
    """What moved, with its sign for the account: more is positive."""
    async for entry in books.statement_entries(account, from_ms=period.from_ms, until_ms=period.until_ms):
        yield entry, entry.amount_minor if entry.credit.id == account.id else -entry.amount_minor


async def _export(config: WeftConfig, format: ExportFormat, to: Path | None) -> None:
    from scripts.weft_cli.ledger_verification import open_existing_ledger, progress_bar
    from wallet_appservice.books.exports import Amounts, beancount_lines, csv_lines
    from wallet_appservice.books.reports import open_books

    amounts = Amounts(config.wallet.kept_currencies)
    async with open_existing_ledger(config) as database, open_books(database) as books:
        if format is ExportFormat.CSV:
            lines = csv_lines(books, amounts)
        else:
            lines = beancount_lines(books, amounts, title=f"Weft wallet of {config.server_name}")
        total = await books.transfers_count()
        shown = may_show_progress(to)
        with progress_bar("Writing the journal", shown=shown) as on_progress, output(to) as stream:
            await _write(lines, stream.write, lambda done: on_progress(min(done, total), total))


async def _write(
    lines: AsyncIterator[str], write: Callable[[str], object], on_progress: Callable[[int], None]
) -> None:
    written = 0
    async for line in lines:
        write(line)
        written += 1
        if written % PROGRESS_LINES == 0:
            on_progress(written)


def _day(text: str, option: str) -> datetime:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
        # Its end is asked for, too.
        day + timedelta(days=1)
        return day
    except (ValueError, OverflowError) as error:
        raise CommandFailed(f"{option} takes a day such as 2026-01-31, not “{text}”.") from error


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
