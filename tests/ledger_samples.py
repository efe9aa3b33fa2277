"""Accounts and transfers that the ledger's tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import wallet_appservice.storage
from appservices.chassis.clock import system_clock
from appservices.chassis.database import Database, Write
from appservices.vocabulary.ids import AccountId, TransferId, derived_id
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.rules import judge
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.ledger.values import (
    Account,
    AccountKind,
    NewAccount,
    Transfer,
    TransferCode,
    TransferRefusal,
    TransferResult,
    account_for,
)
from wallet_appservice.ledger.view import FourSums, View
from wallet_appservice.storage.ledger_store import SqlLedgerStore

WALLET_MIGRATIONS = Path(wallet_appservice.storage.__path__[0]) / "migrations"
EUR = CurrencyCode("EUR")
ISSUANCE = account_for(AccountKind.ISSUANCE, owner="issuance", currency=EUR)
ALICE = account_for(AccountKind.USER, owner="@alice:a.example", currency=EUR)
BOB = account_for(AccountKind.USER, owner="@bob:a.example", currency=EUR)
PEOPLE = (ISSUANCE, ALICE, BOB)


def judged(
    view: View, transfers: Sequence[Transfer], *, at_ms: int, accounts_refused: Collection[AccountId] = ()
) -> tuple[TransferResult, ...]:
    """All answers of the rules."""
    return tuple(judge(view, transfers, at_ms=at_ms, accounts_refused=accounts_refused))


def four_sums(account: Account) -> FourSums:
    return account.debits_pending, account.debits_posted, account.credits_pending, account.credits_posted


def with_sums(account: Account, four: FourSums) -> Account:
    debits_pending, debits_posted, credits_pending, credits_posted = four
    return replace(
        account,
        debits_pending=debits_pending,
        debits_posted=debits_posted,
        credits_pending=credits_pending,
        credits_posted=credits_posted,
    )


def transfer_id(name: str) -> TransferId:
    """The same name is the same id."""
    return TransferId(derived_id("test", name))


def deposit(name: str, to: NewAccount, amount_minor: int, **other: Any) -> Transfer:
    return payment(name, ISSUANCE, to, amount_minor, **{"code": TransferCode.DEPOSIT, **other})


def payment(name: str, debit: NewAccount, credit: NewAccount, amount_minor: int, **other: Any) -> Transfer:
    content: dict[str, Any] = {
        "id": transfer_id(name),
        "debit_account_id": debit.id,
        "credit_account_id": credit.id,
        "amount_minor": amount_minor,
        "currency": debit.currency,
        "code": TransferCode.PAYMENT,
    }
    return Transfer(**{**content, **other})


def refusals(results: tuple[TransferResult, ...]) -> list[TransferRefusal | None]:
    return [result.refusal for result in results]


@asynccontextmanager
async def open_ledger(database: Database) -> AsyncIterator[Ledger[Write]]:
    async with Ledger(SqlLedgerStore(database), clock=system_clock) as ledger:
        yield ledger


async def submit(ledger: Ledger[Write], *transfers: Transfer) -> list[TransferRefusal | None]:
    return refusals(await ledger.submit(Submission(transfers=transfers)))
