"""What is not over yet: cards with what can be done about each, and how long it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request, Response

from appservices.chassis.page_words import display_name
from appservices.chassis.pages import see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import _, counted
from wallet_appservice.ledger.submissions import LedgerUnavailable
from wallet_appservice.payments.pending import PendingItem, PendingKind
from wallet_appservice.payments.people import People
from wallet_appservice.payments.refusals import PaymentRefused
from wallet_appservice.web.proof_fields import page_status
from wallet_appservice.web.wallet_shell import PATH, WalletShell, asked_id

CARDS_SHOWN: Final = 20
CARDS_ON_OVERVIEW: Final = 3
_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS


@dataclass(frozen=True, slots=True)
class PendingCard:
    """One thing that waits, as its card says it."""

    item: PendingItem
    sentence: str
    amount: str
    time_left: str
    icon: str
    path: str

    @property
    def kind(self) -> str:
        return self.item.kind.value


@dataclass(frozen=True, slots=True)
class PendingCards:
    cards: tuple[PendingCard, ...]
    next_after: str | None


class PendingPage:
    def __init__(self, shell: WalletShell, people: People) -> None:
        self._shell = shell
        self._people = people

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/pending", self._whole)
        router.post("/payments/{id}/accept")(self._accept)
        router.post("/payments/{id}/decline")(self._decline)

    async def cards_for(
        self, user: UserId, *, limit: int = CARDS_ON_OVERVIEW, after: str | None = None
    ) -> PendingCards:
        page = await self._people.pending.of(user, limit=limit, after=after)
        return PendingCards(tuple(self._card(item) for item in page.items), page.next_after)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._page(request, signed_in)

    async def _accept(self, request: Request) -> Response:
        return await self._answer(request, accepts=True)

    async def _decline(self, request: Request) -> Response:
        return await self._answer(request, accepts=False)

    async def _answer(self, request: Request, *, accepts: bool) -> Response:
        signed_in, _fields = await self._shell.guard.require_form(request)
        id = asked_id(request, "id")
        if id is None:
            return await self._page(request, signed_in)
        acceptance = self._people.acceptance
        try:
            outcome = await (acceptance.accept if accepts else acceptance.decline)(signed_in.user_id, id)
        except LedgerUnavailable:
            sentence = _("The wallet can't answer now; try again in a moment.")
            return await self._page(request, signed_in, problem=sentence, status=409)
        if isinstance(outcome, PaymentRefused):
            return await self._page(request, signed_in, problem=outcome.sentence, status=page_status(outcome))
        return see_other(f"{PATH}/history/{id}")

    async def _page(
        self, request: Request, signed_in: SignedIn, *, problem: str = "", status: int = 200
    ) -> Response:
        after = request.query_params.get("after")
        return await self._shell.page(
            request,
            signed_in,
            "pending.html",
            title=_("What waits"),
            status=status,
            announcement=problem,
            problem=problem,
            older=after is not None,
            pending=await self.cards_for(signed_in.user_id, limit=CARDS_SHOWN, after=after),
        )

    def _card(self, item: PendingItem) -> PendingCard:
        name = display_name(item.other) if item.other else ""
        sentence = {
            (PendingKind.REQUEST, True): _("{name} asks you for money"),
            (PendingKind.REQUEST, False): _("You asked {name}") if name else _("You asked several people"),
            (PendingKind.PAYMENT, True): _("{name} sent you money"),
            (PendingKind.PAYMENT, False): _("{name} has to accept your payment")
            if item.ends_at_ms is not None
            else _("The server of {name} has to answer"),
            (PendingKind.RED_PACKET, False): _("Your red packet is open"),
        }.get((item.kind, item.waits_for_me), _("Under way"))
        path = {
            PendingKind.REQUEST: f"{PATH}/requests/{item.id}",
            PendingKind.RED_PACKET: f"{PATH}/red-packets/{item.id}",
            PendingKind.PAYMENT: f"{PATH}/history/{item.id}",
        }[item.kind]
        return PendingCard(
            item=item,
            sentence=sentence.format(name=name),
            amount=self._shell.amount(item.money),
            time_left=time_left(item.ends_at_ms, now_ms=self._shell.clock()),
            icon={PendingKind.REQUEST: "request", PendingKind.RED_PACKET: "gift"}.get(item.kind, "clock"),
            path=path,
        )


def time_left(ends_at_ms: int | None, *, now_ms: int) -> str:
    """How long something still has, in the largest unit that fits."""
    if ends_at_ms is None:
        return ""
    left_ms = max(0, ends_at_ms - now_ms)
    if left_ms >= _DAY_MS:
        return counted("{count} day left", "{count} days left", left_ms // _DAY_MS)
    if left_ms >= _HOUR_MS:
        return counted("{count} hour left", "{count} hours left", left_ms // _HOUR_MS)
    return counted("{count} minute left", "{count} minutes left", -(-left_ms // _MINUTE_MS))
