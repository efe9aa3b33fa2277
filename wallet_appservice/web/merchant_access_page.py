"""A merchant's keys, by which its tills and shops come in, and where it is notified.

A key and a notification's secret are shown once, on the answer to the form that made them, and never again.
"""

from __future__ import annotations

from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData

from appservices.chassis.pages import see_other
from appservices.chassis.signed_in import SignedIn
from appservices.vocabulary.languages import _, known
from wallet_appservice.payments.merchants.desk import MerchantDesk
from wallet_appservice.payments.merchants.records import NAME_LENGTH_MAX, Merchant, Scope
from wallet_appservice.payments.merchants.refusals import MerchantRefused
from wallet_appservice.web.owned_merchants import OwnedMerchants, status_of, text_of
from wallet_appservice.web.wallet_shell import PATH, WalletShell, position

DELIVERIES_SHOWN: Final = 15
_SCOPES: Final = {
    Scope.ORDERS: known("Make and look at orders"),
    Scope.CHARGES: known("Charge payment codes"),
    Scope.REFUNDS: known("Give money back"),
    Scope.REPORTS: known("Read balance and reports"),
}


class MerchantAccessPage:
    def __init__(self, shell: WalletShell, desk: MerchantDesk) -> None:
        self._shell = shell
        self._desk = desk
        self._owned = OwnedMerchants(shell, desk)

    def add_to(self, router: APIRouter) -> None:
        owned, place = self._owned, "/merchant/{merchant}"
        self._shell.show_at(router, f"{place}/keys", owned.shown_by(self._keys))
        router.post(f"{place}/keys")(owned.changed_by(self._make_key))
        router.post(f"{place}/keys/revoke")(owned.changed_by(self._revoke_key))
        self._shell.show_at(router, f"{place}/notifications", owned.shown_by(self._notifications))
        router.post(f"{place}/notifications")(owned.changed_by(self._add_endpoint))
        router.post(f"{place}/notifications/remove")(owned.changed_by(self._take_endpoint_away))
        router.post(f"{place}/notifications/replay")(owned.changed_by(self._replay))

    async def _keys(
        self,
        request: Request,
        signed_in: SignedIn,
        merchant: Merchant,
        *,
        made: str = "",
        name: str = "",
        problem: str = "",
        status: int = 200,
    ) -> Response:
        return await self._shell.page(
            request,
            signed_in,
            "merchant_keys.html",
            title=_("Keys"),
            tab="more",
            status=status,
            announcement=problem,
            problem=problem,
            merchant=merchant,
            back=f"{PATH}/merchant/{merchant.id}",
            keys=await self._desk.keys.of_merchant(merchant),
            scopes=[(scope.value, _(words)) for scope, words in _SCOPES.items()],
            made=made,
            name=name,
            name_length_max=NAME_LENGTH_MAX,
        )

    async def _make_key(
        self, request: Request, signed_in: SignedIn, merchant: Merchant, fields: FormData
    ) -> Response:
        name = text_of(fields, "name")
        scopes = [scope for scope in Scope if scope.value in fields.getlist("scope")]
        if not scopes:
            sentence = _("Choose at least one thing that the key may do.")
            return await self._keys(request, signed_in, merchant, name=name, problem=sentence, status=422)
        made = await self._desk.keys.make(merchant, name=name, scopes=scopes)
        if isinstance(made, MerchantRefused):
            return await self._keys(
                request, signed_in, merchant, name=name, problem=made.sentence, status=status_of(made)
            )
        return await self._keys(request, signed_in, merchant, made=made[1])

    async def _revoke_key(
        self, _request: Request, _signed_in: SignedIn, merchant: Merchant, fields: FormData
    ) -> Response:
        await self._desk.keys.revoke(merchant, text_of(fields, "key_id"))
        return see_other(f"{PATH}/merchant/{merchant.id}/keys")

    async def _notifications(
        self,
        request: Request,
        signed_in: SignedIn,
        merchant: Merchant,
        *,
        made: str = "",
        url: str = "",
        problem: str = "",
        status: int = 200,
    ) -> Response:
        before = position(request.query_params.get("before"))
        deliveries = await self._desk.endpoints.deliveries(
            merchant, limit=DELIVERIES_SHOWN + 1, before=before
        )
        shown = deliveries[:DELIVERIES_SHOWN]
        return await self._shell.page(
            request,
            signed_in,
            "merchant_notifications.html",
            title=_("Notifications"),
            tab="more",
            status=status,
            announcement=problem,
            problem=problem,
            merchant=merchant,
            back=f"{PATH}/merchant/{merchant.id}",
            endpoints=await self._desk.endpoints.of_merchant(merchant),
            deliveries=shown,
            next_before=shown[-1].position if len(deliveries) > DELIVERIES_SHOWN else None,
            older=before is not None,
            made=made,
            url=url,
        )

    async def _add_endpoint(
        self, request: Request, signed_in: SignedIn, merchant: Merchant, fields: FormData
    ) -> Response:
        url = text_of(fields, "url")
        added = await self._desk.endpoints.add(merchant, url)
        if isinstance(added, MerchantRefused):
            return await self._notifications(
                request, signed_in, merchant, url=url, problem=added.sentence, status=status_of(added)
            )
        return await self._notifications(request, signed_in, merchant, made=added[1])

    async def _take_endpoint_away(
        self, _request: Request, _signed_in: SignedIn, merchant: Merchant, fields: FormData
    ) -> Response:
        await self._desk.endpoints.take_away(merchant, text_of(fields, "endpoint_id"))
        return see_other(f"{PATH}/merchant/{merchant.id}/notifications")

    async def _replay(
        self, request: Request, signed_in: SignedIn, merchant: Merchant, fields: FormData
    ) -> Response:
        answer = await self._desk.endpoints.replay(merchant, text_of(fields, "delivery_id"))
        if isinstance(answer, MerchantRefused):
            return await self._notifications(
                request, signed_in, merchant, problem=answer.sentence, status=status_of(answer)
            )
        self._desk.notifier.wake()
        return see_other(f"{PATH}/merchant/{merchant.id}/notifications")
