"""What all accounts of a currency and kind add up to, by the balances that are stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import func, select

from appservices.chassis.database import UnitOfWork
from wallet_appservice.storage.ledger_tables import ledger_accounts

SUM_NAMES: Final = ("debits_pending", "debits_posted", "credits_pending", "credits_posted")

KindSums = dict[str, dict[str, dict[str, int]]]
"""Currency → account kind → the four sums; kinds without any are left out."""

# In two halves: SQLite's SUM fails where the whole is more than 63 bits.
_HALVES = [
    func.sum(half).label(f"{name}_{part}")
    for name in SUM_NAMES
    for part, half in (
        ("high", ledger_accounts.c[name] // 2**32),
        ("low", ledger_accounts.c[name] % 2**32),
    )
]
_BY_KIND = (
    select(ledger_accounts.c.currency, ledger_accounts.c.kind, func.count().label("accounts"), *_HALVES)
    .group_by(ledger_accounts.c.currency, ledger_accounts.c.kind)
    .order_by(ledger_accounts.c.currency, ledger_accounts.c.kind)
)


@dataclass(frozen=True, slots=True)
class KindTotal:
    """All accounts of one kind in one currency."""

    currency: str
    kind: str
    accounts_count: int
    sums: dict[str, int]


async def kind_totals(work: UnitOfWork) -> list[KindTotal]:
    return [
        KindTotal(
            row.currency,
            row.kind,
            row.accounts,
            {
                name: int(getattr(row, f"{name}_high")) * 2**32 + int(getattr(row, f"{name}_low"))
                for name in SUM_NAMES
            },
        )
        for row in await work.execute(_BY_KIND)
    ]


async def kind_sums(work: UnitOfWork) -> KindSums:
    sums: KindSums = {}
    for total in await kind_totals(work):
        if any(total.sums.values()):
            sums.setdefault(total.currency, {})[total.kind] = total.sums
    return sums
