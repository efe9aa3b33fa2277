"""The chart of account kinds: what each kind is, seen from the books of whoever runs this wallet.

A person's money is a liability of the wallet's operator; what backs it, money received outside, is the debit
balance of issuance, an asset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from wallet_appservice.ledger.values import AccountKind


@dataclass(frozen=True, slots=True)
class ChartEntry:
    """`section` is one of the five of plain-text accounting; `name` is the group of accounts within it."""

    section: str
    name: str
    description: str


CHART: Final[Mapping[AccountKind, ChartEntry]] = {
    AccountKind.ISSUANCE: ChartEntry(
        "Assets", "Issuance", "What the operator received outside; its debit balance is in circulation."
    ),
    AccountKind.PEER: ChartEntry("Assets", "Peers", "Claims on other wallets, or, in credit, theirs on us."),
    AccountKind.USER: ChartEntry("Liabilities", "Users", "People's money."),
    AccountKind.MERCHANT: ChartEntry("Liabilities", "Merchants", "Merchants' money."),
    AccountKind.ESCROW: ChartEntry("Liabilities", "Escrow", "Money that waits for a condition."),
    AccountKind.SUSPENSE: ChartEntry("Liabilities", "Suspense", "Money whose owner is not clear yet."),
    AccountKind.EXCHANGE: ChartEntry("Equity", "Exchange", "The wallet's own position in each currency."),
    AccountKind.FEE: ChartEntry("Income", "Fees", "What the wallet earned."),
}
