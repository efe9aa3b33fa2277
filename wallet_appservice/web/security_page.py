"""The Security page: PIN, passkeys, limits of one's own, and when to be asked. Passkeys alone need script."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.languages import _, known
from appservices.vocabulary.money import (
    AmountUnreadable,
    Currency,
    CurrencyCode,
    Money,
    decimal_text,
    format_minor,
)
from wallet_appservice.payments.limit_rules import ALWAYS_ASK, LimitKind, own_limit
from wallet_appservice.payments.passkeys import ANSWER_LENGTH_MAX, PasskeysUnsupported
from wallet_appservice.payments.pins import PIN_LENGTH, PinUnfit, digits_of
from wallet_appservice.payments.protection import Protection
from wallet_appservice.payments.refusals import PaymentRefused
from wallet_appservice.payments.security import NotAllowed, Requester
from wallet_appservice.web.proof_fields import Asked, page_status, proof_in, requester_of
from wallet_appservice.web.wallet_shell import WalletShell

PATH: Final = "/wallet/security"
FIELD_LENGTH_MAX: Final = 60
_DONE: Final = {
    "pin": known("Your PIN is set."),
    "pin-removed": known("Your PIN is removed."),
    "passkey": known("Your passkey is added."),
    "passkey-removed": known("Your passkey is removed."),
    "limits": known("Your limits are saved."),
    "ask": known("Saved."),
}
_LIMIT_LABELS: Final = {
    LimitKind.PAYMENT: known("For one payment"),
    LimitKind.DAY: known("For one day"),
    LimitKind.CHAT: known("By chat without a second look"),
}

Change = Callable[[Requester, Mapping[str, Any]], Awaitable[PaymentRefused | None]]


@dataclass(frozen=True, slots=True)
class ShownLimit:
    """One limit as the page shows it; `own` is what the user may have typed."""

    kind: LimitKind
    label: str
    own: str
    highest: str


@dataclass(frozen=True, slots=True)
class ShownLimits:
    """The limits in one currency, and what is spent today."""

    currency: CurrencyCode
    spent: str
    limits: tuple[ShownLimit, ...]


class SecurityPage:
    def __init__(self, shell: WalletShell, protection: Protection) -> None:
        self._shell = shell
        self._protection = protection
        self._security = protection.security
        self._currencies = shell.payments.currencies

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/security", self._whole)
        for path, what, change in (
            ("/pin", "pin", self.set_pin),
            ("/pin/remove", "pin-removed", self.remove_pin),
            ("/passkeys", "passkey", self.add_passkey),
            ("/passkeys/remove", "passkey-removed", self.remove_passkey),
            ("/limits", "limits", self.set_limits),
            ("/ask", "ask", self.set_always_ask),
        ):
            router.post(f"/security{path}")(self.posts(what, change))

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        done = request.query_params.get("done", "")
        return await self._page(request, signed_in, done=_(_DONE[done]) if done in _DONE else "")

    def posts(self, what: str, change: Change) -> Callable[[Request], Awaitable[Response]]:
        """The handler of a form that changes something: back to the page, or the page with what is wrong."""

        async def handle(request: Request) -> Response:
            signed_in, fields = await self._shell.guard.require_form(request)
            requester = requester_of(request, signed_in, proof_in(fields))
            # Where on the page what is wrong is told.
            place = f"{what}-{_text(fields, 'currency')}" if what == "limits" else what
            try:
                refused = await change(requester, fields)
            except (PinUnfit, NotAllowed, PasskeysUnsupported, AmountUnreadable) as error:
                return await self._page(request, signed_in, wrong=place, problem=str(error), status=422)
            if refused is not None:
                return await self._page(
                    request,
                    signed_in,
                    wrong=place,
                    problem=refused.sentence,
                    status=page_status(refused),
                )
            return see_other(f"{PATH}?done={what}")

        return handle

    async def set_pin(self, by: Requester, fields: Mapping[str, Any]) -> PaymentRefused | None:
        new = _text(fields, "new_pin")
        if digits_of(new) != digits_of(_text(fields, "new_pin_again")):
            raise PinUnfit(_("The two are not the same; type your new PIN twice."))
        return await self._security.set_pin(by, new)

    async def remove_pin(self, by: Requester, _fields: Mapping[str, Any]) -> PaymentRefused | None:
        return await self._security.remove_pin(by)

    async def add_passkey(self, by: Requester, fields: Mapping[str, Any]) -> PaymentRefused | None:
        answer = _text(fields, "answer", length_max=ANSWER_LENGTH_MAX + 1)
        return await self._security.add_passkey(by, answer, name=_text(fields, "name"))

    async def remove_passkey(self, by: Requester, fields: Mapping[str, Any]) -> PaymentRefused | None:
        return await self._security.remove_passkey(by, _text(fields, "credential_id", length_max=2_000))

    async def set_limits(self, by: Requester, fields: Mapping[str, Any]) -> PaymentRefused | None:
        code = CurrencyCode(_text(fields, "currency"))
        currency = self._currencies.get(code)
        if currency is None:
            raise NotAllowed(_("A limit is an amount in a currency of this wallet."))
        wanted = {kind: self._limit_in(_text(fields, kind.value), currency) for kind in LimitKind}
        return await self._security.set_limits(by, code, wanted)

    async def set_always_ask(self, by: Requester, fields: Mapping[str, Any]) -> PaymentRefused | None:
        return await self._security.set_always_ask(by, _text(fields, "wanted") == "1")

    def _limit_in(self, text: str, currency: Currency) -> int | None:
        """A limit as it was typed, in minor units; nothing typed is no limit of one's own."""
        if not text:
            return None
        if text.strip("0.,٠٬٫") == "" and text:
            return 0
        money = self._currencies.parse(
            f"{text} {currency.code}" if not any(letter.isalpha() for letter in text) else text
        )
        if money.currency != currency.code:
            raise NotAllowed(_("A limit is an amount in a currency of this wallet."))
        return money.amount_minor

    async def _page(
        self,
        request: Request,
        signed_in: SignedIn,
        *,
        done: str = "",
        wrong: str = "",
        problem: str = "",
        status: int = 200,
    ) -> Response:
        user = signed_in.user_id
        proofs = self._protection.proofs
        settings = await self._protection.settings.of(user)
        keys = await proofs.passkeys.of(user)
        asked = Asked(
            needs_proof=True,
            has_pin=await proofs.pins.is_set(user),
            has_passkey=bool(keys) and not proofs.passkeys.problem,
        )

        def asked_in(form: str) -> Asked:
            return replace(asked, problem=problem if wrong == form else "")

        return await self._shell.page(
            request,
            signed_in,
            "security.html",
            title=_("Security and limits"),
            tab="more",
            status=status,
            announcement=problem or done,
            done=done,
            wrong=wrong,
            problem=problem,
            asked=asked_in,
            has_any=asked.has_pin or bool(keys),
            has_pin=asked.has_pin,
            passkeys=keys,
            passkeys_problem=proofs.passkeys.problem,
            may_set_up=await self._security.may_set_up(requester_of(request, signed_in)),
            always_asks=settings.get(ALWAYS_ASK) == "1",
            pin_length=PIN_LENGTH,
            limits=[await self._shown(signed_in, settings, code) for code in self._currencies],
        )

    async def _shown(
        self, signed_in: SignedIn, settings: Mapping[str, str], code: CurrencyCode
    ) -> ShownLimits:
        currency = self._currencies[code]
        gate = self._protection.gate
        _limits, spent_minor = await gate.limits_of(signed_in.user_id, code)
        return ShownLimits(
            currency=code,
            spent=format_minor(spent_minor, currency),
            limits=tuple(
                ShownLimit(
                    kind=kind,
                    label=_(_LIMIT_LABELS[kind]),
                    own=_typed(own_limit(settings, kind, code), currency),
                    highest=format_minor(gate.operator.minor(kind, currency), currency),
                )
                for kind in LimitKind
            ),
        )


def _typed(minor: int | None, currency: Currency) -> str:
    if minor is None:
        return ""
    return decimal_text(Money(minor, currency.code), currency) if minor else "0"


def _text(fields: Mapping[str, Any], name: str, *, length_max: int = FIELD_LENGTH_MAX) -> str:
    value = fields.get(name)
    return value.strip()[:length_max] if isinstance(value, str) else ""
