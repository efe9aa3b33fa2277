"""What people change about the safety of their own money: PIN, passkeys, limits, when they are asked.

Who has a PIN or a passkey proves each change with it, except one that only makes paying harder. Who has none
sets one up from a session that they began by a code or a link: an OpenID token says nothing about for whom it
was made, so whoever was given one could do it instead. A limit of one's own is raised with a proof alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import IntegrityError

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import _, known
from appservices.vocabulary.money import Currencies, CurrencyCode
from wallet_appservice.payments.audit import AuditAction, audit_write
from wallet_appservice.payments.limit_rules import (
    ALWAYS_ASK,
    LimitKind,
    OperatorLimits,
    own_limit,
    setting_name,
)
from wallet_appservice.payments.proofs import NO_PROOF, SECURITY, Proof, Proofs
from wallet_appservice.payments.refusals import PaymentRefused
from wallet_appservice.payments.settings import change_settings, replace_setting, setting_writes, settings_of

PROOF_TO_RAISE: Final = known("A limit of your own is raised with your PIN or a passkey: set one up first.")
CHANGED_MEANWHILE: Final = known("Your limits were changed at the same moment; look at them and try again.")


class NotAllowed(Exception):
    """This session may not change that, or what was given can't be; the message is one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requester:
    """Who wants to change something, from where, and what they show for it."""

    user: UserId
    is_strong: bool
    """Whether the session was begun by a code or a link, not by an OpenID token alone."""
    where: str
    """The browser, for the user to read."""
    proof: Proof = NO_PROOF


class Security:
    """The changes. Each returns a refusal of its proof, or raises NotAllowed, or was made."""

    def __init__(
        self,
        database: Database,
        proofs: Proofs,
        *,
        currencies: Currencies,
        operator: OperatorLimits,
        clock: Clock,
    ) -> None:
        self.proofs = proofs
        self._database = database
        self._currencies = currencies
        self._operator = operator
        self._clock = clock

    async def set_pin(self, by: Requester, pin: str) -> PaymentRefused | None:
        """Sets or changes the PIN. Raises PinUnfit, NotAllowed."""
        return await self._proven(by) or await self.proofs.pins.set(by.user, pin, by=by.where)

    async def remove_pin(self, by: Requester) -> PaymentRefused | None:
        refused = await self._proven(by)
        if refused is None:
            await self.proofs.pins.remove(by.user, by=by.where, actor=by.user, action=AuditAction.PIN_REMOVED)
        return refused

    async def add_passkey(self, by: Requester, answer: str, *, name: str) -> PaymentRefused | None:
        """Adds what a browser made. Raises PasskeysUnsupported, NotAllowed."""
        return await self._proven(by) or await self.proofs.passkeys.register(
            by.user, answer, name=name, by=by.where
        )

    async def remove_passkey(self, by: Requester, credential_id: str) -> PaymentRefused | None:
        refused = await self._proven(by)
        if refused is None:
            await self.proofs.passkeys.remove(by.user, credential_id, by=by.where)
        return refused

    async def set_always_ask(self, by: Requester, wanted: bool) -> PaymentRefused | None:
        if not wanted or not by.is_strong:
            refused = await self._proven(by)
            if refused is not None:
                return refused
        elif not await self.proofs.has_any(by.user):
            raise NotAllowed(_("Set up a PIN or a passkey first."))
        audited = audit_write(
            at_ms=self._clock(),
            actor=by.user,
            action=AuditAction.ALWAYS_ASK,
            subject=by.user,
            wanted=wanted,
        )
        writes = [*setting_writes(by.user, ALWAYS_ASK, "1" if wanted else None), audited]
        await change_settings(self._database, writes)
        return None

    async def set_limits(
        self, by: Requester, currency: CurrencyCode, wanted: Mapping[LimitKind, int | None]
    ) -> PaymentRefused | None:
        """Sets the user's own limits in minor units; None is the operator's. Raises NotAllowed."""
        kept = self._currencies.get(currency)
        if kept is None or any(value is not None and value < 0 for value in wanted.values()):
            raise NotAllowed(_("A limit is an amount in a currency of this wallet."))
        highest = {kind: self._operator.minor(kind, kept) for kind in wanted}
        # What is not below the operator's is no limit of one's own.
        new = {
            kind: None if value is None or value >= highest[kind] else value for kind, value in wanted.items()
        }
        async with self._database.read() as work:
            before = await settings_of(work, by.user)
        old = {kind: own_limit(before, kind, currency) for kind in wanted}
        changed = {kind: value for kind, value in new.items() if value != old[kind]}
        if not changed:
            return None
        raises = any(
            _as_minor(new[kind], highest[kind]) > _as_minor(old[kind], highest[kind]) for kind in changed
        )
        if raises and not await self.proofs.has_any(by.user):
            raise NotAllowed(_(PROOF_TO_RAISE))
        if raises or not by.is_strong:
            refused = await self._proven(by)
            if refused is not None:
                return refused
        try:
            await self._keep_limits(by.user, currency, changed, before)
        except IntegrityError as error:
            raise NotAllowed(_(CHANGED_MEANWHILE)) from error
        return None

    async def may_set_up(self, by: Requester) -> bool:
        """Whether this session may set up the first PIN or passkey, or has one to prove a change with."""
        return by.is_strong or await self.proofs.has_any(by.user)

    async def _keep_limits(
        self,
        user: UserId,
        currency: CurrencyCode,
        changed: Mapping[LimitKind, int | None],
        before: Mapping[str, str],
    ) -> None:
        async with self._database.begin() as work:
            for kind, value in changed.items():
                text = None if value is None else str(value)
                name = setting_name(kind, currency)
                # Whether it needs a proof was judged by what was before.
                if not await replace_setting(work, user, name, old=before.get(name), new=text):
                    raise NotAllowed(_(CHANGED_MEANWHILE))
                await work.apply(
                    [
                        audit_write(
                            at_ms=self._clock(),
                            actor=user,
                            action=AuditAction.LIMIT,
                            subject=user,
                            kind=kind.value,
                            currency=currency,
                            amount_minor=text or "operator's",
                        )
                    ]
                )
            await work.commit()

    async def _proven(self, by: Requester) -> PaymentRefused | None:
        if await self.proofs.has_any(by.user):
            return await self.proofs.check(by.user, by.proof, SECURITY)
        if not by.is_strong:
            raise NotAllowed(
                _(
                    "Open the Wallet in your browser for this: what a Matrix client says of you is not "
                    "enough to set up a PIN."
                )
            )
        return None


def _as_minor(own: int | None, highest: int) -> int:
    return highest if own is None else own
