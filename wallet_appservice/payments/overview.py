"""What an operator sees of the whole: how much there is of each currency, and what waits."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select

from appservices.chassis.database import Database
from appservices.chassis.stored_queue import WAITING
from appservices.chassis.tables import inbox, outbox
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.ledger.values import AccountKind
from wallet_appservice.payments.confirmations import ConfirmationState
from wallet_appservice.storage.ledger_tables import ledger_accounts, ledger_open_pending
from wallet_appservice.storage.limit_tables import confirmations


@dataclass(frozen=True, slots=True)
class Supply:
    """One currency: what people have together, what of it is held, and how many have an account."""

    currency: CurrencyCode
    circulating_minor: int
    held_minor: int
    accounts: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """What is under way at this moment."""

    confirmations: int
    held_payments: int
    events_to_read: int
    events_to_send: int


async def supply_of(database: Database) -> list[Supply]:
    """By currency. What circulates is what the issuance account owes, wherever the money is now."""
    accounts = ledger_accounts.c
    query = (
        select(
            accounts.currency,
            accounts.kind,
            func.count().label("accounts"),
            func.sum(accounts.debits_pending).label("held"),
            func.sum(accounts.debits_posted).label("debits"),
            func.sum(accounts.credits_posted).label("credits"),
        )
        .group_by(accounts.currency, accounts.kind)
        .order_by(accounts.currency)
    )
    found: dict[str, dict[str, int]] = {}
    async with database.read() as work:
        for row in await work.execute(query):
            supply = found.setdefault(row.currency, {"circulating": 0, "held": 0, "accounts": 0})
            if row.kind == AccountKind.ISSUANCE.value:
                supply["circulating"] += int(row.debits) - int(row.credits)
            if row.kind == AccountKind.USER.value:
                supply["held"] += int(row.held)
                supply["accounts"] += row.accounts
    return [
        Supply(CurrencyCode(code), supply["circulating"], supply["held"], supply["accounts"])
        for code, supply in found.items()
    ]


async def waiting_in(database: Database) -> Waiting:
    async with database.read() as work:

        async def count(*conditions: object) -> int:
            return int((await work.execute(select(func.count()).where(*conditions))).scalar_one())  # type: ignore[arg-type]

        held = (await work.execute(select(func.count()).select_from(ledger_open_pending))).scalar_one()
        return Waiting(
            confirmations=await count(confirmations.c.state == ConfirmationState.OPEN.value),
            held_payments=int(held),
            events_to_read=await count(inbox.c.state == WAITING),
            events_to_send=await count(outbox.c.state == WAITING),
        )
