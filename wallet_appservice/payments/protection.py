"""Limits, proofs, confirmations, budgets and the audit log of one wallet, put together, and their upkeep."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

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

UPKEEP_SECONDS: Final = 5.0
FORGET_SECONDS: Final = 6 * 3600.0

logger = logging.getLogger(__name__)


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


async def keep_protected(protection: Protection, *, look_seconds: float = UPKEEP_SECONDS) -> None:
    """Ends what is over and links the audit log, until it is cancelled. What goes wrong is tried again."""
    forget_at = 0.0
    while True:
        try:
            await protection.confirmations.sweep()
            await protection.audit.chain()
            if asyncio.get_running_loop().time() >= forget_at:
                forget_at = asyncio.get_running_loop().time() + FORGET_SECONDS
                await protection.gate.forget_old_days()
        except Exception:
            logger.exception("limits and confirmations could not be looked after")
        await asyncio.sleep(look_seconds)
