"""Limits, proofs, confirmations, budgets and the audit log of one wallet, put together, and their upkeep."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from appservices.chassis.chosen_languages import LanguageOf, english_for_all
from appservices.chassis.clock import Clock, Tokens
from appservices.chassis.database import Database
from appservices.vocabulary.money import Currencies
from wallet_appservice.payments.audit import AuditLog
from wallet_appservice.payments.budgets import Budgets
from wallet_appservice.payments.confirmations import Confirmations, Pay
from wallet_appservice.payments.limits import Gate
from wallet_appservice.payments.passkeys import Passkeys
from wallet_appservice.payments.pins import Pins
from wallet_appservice.payments.proofs import Proofs
from wallet_appservice.payments.security import Security
from wallet_appservice.payments.settings import Settings
from wallet_appservice.payments.sweeper import Sweep, whenever


@dataclass(frozen=True, slots=True)
class Protection:
    """What keeps people's money theirs, beside the ledger."""

    gate: Gate
    settings: Settings
    proofs: Proofs
    security: Security
    confirmations: Confirmations
    budgets: Budgets
    audit: AuditLog

    @property
    def chores(self) -> Mapping[str, Sweep]:
        """Ends what is over and links the audit log: by name, for the log."""
        return {
            "confirmations": whenever(self.confirmations.sweep),
            "audit log": whenever(self.audit.chain),
        }

    @property
    def rare_chores(self) -> Mapping[str, Sweep]:
        return {"days of spending": whenever(self.gate.forget_old_days)}


def protect(
    gate: Gate,
    database: Database,
    *,
    pay: Pay,
    currencies: Currencies,
    public_url: str,
    clock: Clock,
    tokens: Tokens,
    on_commit: Callable[[], None],
    language_of: LanguageOf = english_for_all,
) -> Protection:
    """`gate` is the one that `pay` passes, `public_url` how browsers reach us.

    `language_of` says in which language a user is told what is told to them alone.
    """
    proofs = Proofs(
        database,
        pins=Pins(database, clock=clock, on_commit=on_commit, language_of=language_of),
        passkeys=Passkeys(
            database,
            public_url=public_url,
            clock=clock,
            tokens=tokens,
            on_commit=on_commit,
            language_of=language_of,
        ),
    )
    budgets = Budgets(
        database, currencies=currencies, clock=clock, on_commit=on_commit, language_of=language_of
    )
    gate.on_spent(budgets.look)
    return Protection(
        gate=gate,
        settings=Settings(database),
        proofs=proofs,
        security=Security(database, proofs, currencies=currencies, operator=gate.operator, clock=clock),
        confirmations=Confirmations(
            database,
            pay=pay,
            gate=gate,
            currencies=currencies,
            clock=clock,
            public_url=public_url,
            on_commit=on_commit,
            language_of=language_of,
        ),
        budgets=budgets,
        audit=AuditLog(database),
    )
