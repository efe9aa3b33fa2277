"""Reading somebody's code: by camera, from a picture, or pasted as text, which needs no script."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import see_other
from appservices.vocabulary.languages import _
from wallet_appservice.web.scanned_text import TEXT_LENGTH_MAX, NotScannable, path_of_scanned
from wallet_appservice.web.wallet_shell import WalletShell


class ScanPage:
    def __init__(self, shell: WalletShell) -> None:
        self._shell = shell

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/scan", self._whole)

    async def _whole(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        text = request.query_params.get("text", "").strip()[:TEXT_LENGTH_MAX]
        problem = ""
        if text:
            try:
                return see_other(
                    path_of_scanned(text, public_url=self._shell.public_url, server=self._shell.server)
                )
            except NotScannable as error:
                problem = str(error)
        return await self._shell.page(
            request,
            signed_in,
            "scan.html",
            title=_("Scan"),
            tab="scan",
            status=422 if problem else 200,
            announcement=problem,
            camera=True,
            text=text,
            problem=problem,
            text_length_max=TEXT_LENGTH_MAX,
        )
