"""What one chooses for one's own wallet."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import see_other
from appservices.vocabulary.languages import _
from wallet_appservice.payments.people import People
from wallet_appservice.web.owned_merchants import text_of
from wallet_appservice.web.wallet_shell import PATH, WalletShell


class SettingsPage:
    def __init__(self, shell: WalletShell, people: People) -> None:
        self._shell = shell
        self._settings = people.settings

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/settings", self._whole)
        router.post("/settings")(self._save)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._shell.page(
            request,
            signed_in,
            "settings.html",
            title=_("Settings"),
            tab="more",
            of_all=self._settings.acceptance_of_all,
            waits=await self._settings.waits_for_acceptance(signed_in.user_id),
            saved="saved" in request.query_params,
        )

    async def _save(self, request: Request) -> Response:
        signed_in, fields = await self._shell.guard.require_form(request)
        wanted = text_of(fields, "acceptance")
        if wanted in ("on", "off") and not self._settings.acceptance_of_all:
            writes = self._settings.acceptance_writes(signed_in.user_id, on=wanted == "on")
            await self._shell.payments.till.write(writes)
        return see_other(f"{PATH}/settings?saved=1")
