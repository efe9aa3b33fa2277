"""`weft wallet verify` at the terminal: a progress bar while the ledger is recomputed, then the verdict."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from appservices.chassis.config import WeftConfig
from appservices.chassis.migrations import is_current
from appservices.vocabulary.money import Currency, CurrencyCode, format_minor
from scripts.weft_cli.composition import WALLET_BRANCHES, open_configured_database
from scripts.weft_cli.database_files import is_missing
from scripts.weft_cli.failure import CommandFailed
from wallet_appservice.storage.ledger_check import verify


async def verify_ledger(config: WeftConfig) -> None:
    """Prints what was checked. Raises CommandFailed with the first difference, or when there is no ledger."""
    database = open_configured_database(config, key="wallet.database", url=config.wallet.database)
    try:
        if is_missing(database) or not await is_current(database, *WALLET_BRANCHES):
            raise CommandFailed(
                "There is no ledger of this version yet: the first start or deposit makes it."
            )
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("Recomputing the ledger", total=None)
            check = await verify(
                database, lambda done, total: progress.update(task, completed=done, total=total)
            )
    finally:
        await database.close()
    if check.difference is not None:
        raise CommandFailed(
            f"The ledger is not right: {check.difference.sentence} "
            f"({check.difference.table}, row {check.difference.row})."
        )
    print(f"The ledger is right: {check.transfers_count} transfers, {check.accounts_count} accounts.")
    for code, circulating in sorted(check.in_circulation_minor.items()):
        print(f"In circulation: {_amount(config, code, circulating)}")


def _amount(config: WeftConfig, code: str, amount_minor: int) -> str:
    currency: Currency | None = config.wallet.kept_currencies.get(CurrencyCode(code))
    if currency is None:
        return f"{amount_minor} minor units of {code}, which is no longer configured"
    return format_minor(amount_minor, currency)
