"""Limits, PIN, passkeys, confirmations and budgets by HTTP, below /_weft/wallet/v1. See api.py."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from appservices.chassis.signed_in import SessionGuard, SignedIn
from appservices.chassis.web_errors import ApiError, ApiRoute
from appservices.vocabulary.ids import RoomId, TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.confirmations import ConfirmationState
from wallet_appservice.payments.limit_rules import LimitKind, own_limit
from wallet_appservice.payments.passkeys import PasskeysUnsupported
from wallet_appservice.payments.pins import PinUnfit
from wallet_appservice.payments.proofs import SECURITY, Proof, purpose_of
from wallet_appservice.payments.protection import Protection
from wallet_appservice.payments.records import Authority, PaymentOrder, PaymentRecord
from wallet_appservice.payments.refusals import REFUSALS, PaymentRefused
from wallet_appservice.payments.security import NotAllowed, Requester
from wallet_appservice.web.api_values import AmountText, CurrencyText, LedgerId, amount_of, errors
from wallet_appservice.web.proof_fields import requester_of

LimitText = Annotated[str, Field(pattern="^[0-9]{1,16}$"), AfterValidator(amount_of)]
"""An amount that may be zero."""


class ProofBody(BaseModel):
    """What proves that you want this yourself: the PIN, or a passkey's answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    pin: str | None = Field(default=None, max_length=64, examples=["493817"])
    passkey: dict[str, Any] | None = Field(
        default=None, description="A browser's answer to a challenge, PublicKeyCredential as JSON."
    )

    def proof(self) -> Proof:
        return Proof(pin=self.pin or "", passkey=json.dumps(self.passkey) if self.passkey else "")


class LimitsOfCurrencyBody(BaseModel):
    currency: str
    payment_minor: str = Field(description="In force for one payment.")
    day_minor: str = Field(description="In force for one day, by UTC.")
    chat_minor: str = Field(description="In force for one payment by chat; above it you confirm.")
    own: dict[str, str] = Field(description="What you have set yourself: payment, day, chat.")
    spent_today_minor: str


class LimitsBody(BaseModel):
    limits: list[LimitsOfCurrencyBody]
    has_pin: bool
    passkeys: int = Field(description="How many you have.")
    always_ask: bool = Field(description="Whether every payment by page or program needs PIN or passkey.")


class NewLimitsBody(ProofBody):
    """Limits of your own in one currency; null is your operator's. A field left out stays as it is."""

    currency: CurrencyText
    payment_minor: LimitText | None = None
    day_minor: LimitText | None = None
    chat_minor: LimitText | None = None


class NewPinBody(ProofBody):
    """`pin` or `passkey` proves that you may, where you have one already."""

    new_pin: str = Field(max_length=64, examples=["493817"])


class PasskeyBody(BaseModel):
    id: str
    name: str
    created_at_ms: int
    used_at_ms: int | None


class PasskeysBody(BaseModel):
    passkeys: list[PasskeyBody]


class NewPasskeyBody(ProofBody):
    name: str = Field(default="", max_length=200)
    answer: dict[str, Any] = Field(description="What the browser made, PublicKeyCredential as JSON.")


class ChallengedPaymentBody(BaseModel):
    """The very payment that a passkey is to confirm, as it will be sent."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: LedgerId
    payee: str = Field(max_length=255)
    amount_minor: AmountText
    currency: CurrencyText
    memo: str = Field(default="", max_length=300)
    room_id: str | None = Field(default=None, max_length=255)
    subject: str = Field(default="", max_length=64)


class ChallengeBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    payment: ChallengedPaymentBody | None = Field(
        default=None, description="Without one the answer serves for a change of security."
    )


class ConfirmationBody(BaseModel):
    id: str
    state: ConfirmationState
    payee: str
    amount_minor: str
    currency: str
    memo: str
    expires_at_ms: int
    needs_proof: bool = Field(description="Whether `pin` or `passkey` must be sent.")


class BudgetBody(BaseModel):
    currency: str
    budget_minor: str | None = Field(description="For a month, by UTC; null for none.")
    spent_minor: str = Field(description="This month, less what came back.")


class BudgetsBody(BaseModel):
    budgets: list[BudgetBody]


class NewBudgetBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    currency: CurrencyText
    budget_minor: LimitText | None = Field(description="null takes the budget away.")


def security_api(protection: Protection, guard: SessionGuard) -> APIRouter:
    """The routes, to be included in the wallet's."""
    router = APIRouter(
        prefix="/v1",
        route_class=ApiRoute,
        tags=["security"],
        responses=errors(400, 401, 402, 403, 404, 409, 413, 429, 503),
    )
    security, proofs, gate = protection.security, protection.proofs, protection.gate

    async def requester(request: Request, body: ProofBody) -> Requester:
        return requester_of(request, await guard.require_api(request), body.proof())

    @router.get("/limits", summary="Your limits")
    async def limits(request: Request) -> LimitsBody:
        return await _limits(await guard.require_api(request))

    async def _limits(signed_in: SignedIn) -> LimitsBody:
        user = signed_in.user_id
        settings = await protection.settings.of(user)
        shown = []
        always_ask = False
        for code in gate.currencies:
            in_force, spent_minor = await gate.limits_of(user, code)
            always_ask = in_force.always_asks
            own = {kind.value: own_limit(settings, kind, code) for kind in LimitKind}
            shown.append(
                LimitsOfCurrencyBody(
                    currency=code,
                    payment_minor=str(in_force.payment_minor),
                    day_minor=str(in_force.day_minor),
                    chat_minor=str(in_force.chat_minor),
                    own={kind: str(minor) for kind, minor in own.items() if minor is not None},
                    spent_today_minor=str(spent_minor),
                )
            )
        return LimitsBody(
            limits=shown,
            has_pin=await proofs.pins.is_set(user),
            passkeys=len(await proofs.passkeys.of(user)),
            always_ask=always_ask,
        )

    @router.put("/limits", summary="Set limits of your own")
    async def set_limits(request: Request, body: NewLimitsBody) -> LimitsBody:
        signed_in = await guard.require_api(request)
        given = {
            LimitKind.PAYMENT: ("payment_minor", body.payment_minor),
            LimitKind.DAY: ("day_minor", body.day_minor),
            LimitKind.CHAT: ("chat_minor", body.chat_minor),
        }
        wanted = {
            kind: None if text is None else int(text)
            for kind, (name, text) in given.items()
            if name in body.model_fields_set
        }
        by = requester_of(request, signed_in, body.proof())
        with _told():
            _check(await security.set_limits(by, CurrencyCode(body.currency), wanted))
        return await _limits(signed_in)

    @router.put("/pin", summary="Set or change your PIN")
    async def set_pin(request: Request, body: NewPinBody) -> dict[str, bool]:
        by = await requester(request, body)
        with _told():
            _check(await security.set_pin(by, body.new_pin))
        return {"has_pin": True}

    @router.delete("/pin", summary="Remove your PIN")
    async def remove_pin(request: Request, body: ProofBody) -> dict[str, bool]:
        by = await requester(request, body)
        with _told():
            _check(await security.remove_pin(by))
        return {"has_pin": False}

    @router.get("/passkeys", summary="Your passkeys")
    async def passkeys(request: Request) -> PasskeysBody:
        user = (await guard.require_api(request)).user_id
        return PasskeysBody(
            passkeys=[
                PasskeyBody(
                    id=item.credential_id,
                    name=item.name,
                    created_at_ms=item.created_at_ms,
                    used_at_ms=item.used_at_ms,
                )
                for item in await proofs.passkeys.of(user)
            ]
        )

    @router.post("/passkeys/options", summary="What a browser makes a passkey from")
    async def options(request: Request) -> dict[str, Any]:
        user = (await guard.require_api(request)).user_id
        with _told():
            return await proofs.passkeys.registration_options(user)

    @router.post("/passkeys", summary="Add a passkey")
    async def add_passkey(request: Request, body: NewPasskeyBody) -> dict[str, int]:
        by = await requester(request, body)
        with _told():
            _check(await security.add_passkey(by, json.dumps(body.answer), name=body.name))
        return {"passkeys": len(await proofs.passkeys.of(by.user))}

    @router.delete("/passkeys/{id}", summary="Remove a passkey")
    async def remove_passkey(
        request: Request, id: Annotated[str, Path(max_length=2_000)], body: ProofBody
    ) -> dict[str, int]:
        by = await requester(request, body)
        with _told():
            _check(await security.remove_passkey(by, id))
        return {"passkeys": len(await proofs.passkeys.of(by.user))}

    @router.post("/passkeys/challenge", summary="What a passkey is to sign")
    async def challenge(request: Request, body: ChallengeBody) -> dict[str, Any]:
        user = (await guard.require_api(request)).user_id
        purpose = SECURITY if body.payment is None else purpose_of(_order(user, body.payment))
        with _told():
            return await proofs.passkeys.assertion_options(user, purpose)

    @router.get("/confirmations/{id}", summary="A payment that waits for you")
    async def confirmation(request: Request, id: Annotated[LedgerId, Path()]) -> ConfirmationBody:
        return await _confirmation((await guard.require_api(request)).user_id, TransferId(id))

    async def _confirmation(user: UserId, id: TransferId) -> ConfirmationBody:
        await protection.confirmations.sweep_one(id)
        found = await protection.confirmations.find(user, id)
        if found is None:
            raise ApiError(404, "M_NOT_FOUND", "There is no such payment that waits for you.")
        return ConfirmationBody(
            id=found.order.id,
            state=found.state,
            payee=found.order.payee,
            amount_minor=str(found.order.money.amount_minor),
            currency=found.order.money.currency,
            memo=found.order.memo,
            expires_at_ms=found.expires_at_ms,
            needs_proof=found.state is ConfirmationState.OPEN
            and await protection.confirmations.needs_proof(found),
        )

    @router.post("/confirmations/{id}", summary="Confirm a payment that waits for you")
    async def confirm(request: Request, id: Annotated[LedgerId, Path()], body: ProofBody) -> ConfirmationBody:
        user = (await guard.require_api(request)).user_id
        await _confirmation(user, TransferId(id))
        found = await protection.confirmations.find(user, TransferId(id))
        assert found is not None
        proof, authority = body.proof(), Authority.SESSION
        if proof.is_given:
            _check(await proofs.check(user, proof, purpose_of(found.order)))
            authority = Authority.CONFIRMED
        try:
            outcome = await protection.confirmations.confirm(user, TransferId(id), authority)
        except LedgerUnavailable as error:
            raise ApiError(503, "M_UNKNOWN", "The wallet can't answer now; ask again.") from error
        if not isinstance(outcome, PaymentRecord | ConfirmationState):
            _check(outcome)
        return await _confirmation(user, TransferId(id))

    @router.get("/budget", summary="Your budgets this month")
    async def budgets(request: Request) -> BudgetsBody:
        return await _budgets((await guard.require_api(request)).user_id)

    async def _budgets(user: UserId) -> BudgetsBody:
        return BudgetsBody(
            budgets=[
                BudgetBody(
                    currency=item.currency,
                    budget_minor=None if item.budget_minor is None else str(item.budget_minor),
                    spent_minor=str(item.spent_minor),
                )
                for item in await protection.budgets.of(user)
            ]
        )

    @router.put("/budget", summary="Set a budget")
    async def set_budget(request: Request, body: NewBudgetBody) -> BudgetsBody:
        user = (await guard.require_api(request)).user_id
        code = CurrencyCode(body.currency)
        if code not in gate.currencies:
            raise ApiError(
                400, "DEV_WEFT_CURRENCY_UNKNOWN", f"This wallet keeps {', '.join(gate.currencies)}."
            )
        await protection.budgets.set(user, code, int(body.budget_minor) if body.budget_minor else None)
        return await _budgets(user)

    return router


@contextmanager
def _told() -> Iterator[None]:
    """Turns what can't be done into one sentence of the API."""
    try:
        yield
    except PinUnfit as error:
        raise ApiError(400, "DEV_WEFT_PIN_UNFIT", str(error)) from error
    except PasskeysUnsupported as error:
        raise ApiError(400, "DEV_WEFT_PASSKEYS_UNSUPPORTED", str(error)) from error
    except NotAllowed as error:
        raise ApiError(403, "M_FORBIDDEN", str(error)) from error


def _check(refused: PaymentRefused | None) -> None:
    if refused is not None:
        outside = REFUSALS[refused.refusal]
        raise ApiError(outside.http_status, outside.errcode, refused.sentence)


def _order(user: UserId, body: ChallengedPaymentBody) -> PaymentOrder:
    return PaymentOrder(
        id=TransferId(body.id),
        payer=user,
        payee=UserId(body.payee),
        money=Money(int(body.amount_minor), CurrencyCode(body.currency)),
        memo=body.memo,
        room_id=None if body.room_id is None else RoomId(body.room_id),
        subject=body.subject,
    )
