"""All pages of Moments."""

from __future__ import annotations

from fastapi import APIRouter

from appservices.chassis.clock import Tokens, system_clock
from appservices.chassis.pages import Pages
from appservices.chassis.signed_in import SessionGuard
from appservices.moments.feature import Moments
from appservices.moments.web.feed_page import FeedPage
from appservices.moments.web.people_page import PeoplePage
from appservices.moments.web.picture_routes import PictureRoutes, UploadRoute
from appservices.moments.web.shell import PATH, TEMPLATES, MomentsRoute, MomentsShell
from appservices.moments.web.write_page import WritePage

__all__ = ["PATH", "TEMPLATES", "moments_pages"]


def moments_pages(
    moments: Moments, guard: SessionGuard, pages: Pages, *, tokens: Tokens
) -> tuple[APIRouter, APIRouter]:
    """The pages, and where pictures are taken in."""
    shell = MomentsShell(moments, guard, pages, clock=system_clock, tokens=tokens)
    router = APIRouter(prefix=PATH, route_class=MomentsRoute, include_in_schema=False)
    uploads = APIRouter(prefix=PATH, route_class=UploadRoute, include_in_schema=False)
    pictures = PictureRoutes(shell)
    for page in (FeedPage(shell), WritePage(shell), PeoplePage(shell), pictures):
        page.add_to(router)
    pictures.add_uploads_to(uploads)
    return router, uploads
