"""The feed, one person's Moments, one Moment; likes and comments in place."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter, Request, Response

from appservices.chassis.pages import by_htmx, see_other
from appservices.chassis.signed_in import SignedIn
from appservices.moments.actions import Refusal
from appservices.moments.records import CommentId, MomentId, is_id
from appservices.moments.viewing import Place, SeenPage
from appservices.moments.web.shell import PATH, MomentsShell
from appservices.vocabulary.ids import UserId, is_user_id
from appservices.vocabulary.languages import _

WORDS_LENGTH_MAX: Final = 80


class FeedPage:
    def __init__(self, shell: MomentsShell) -> None:
        self._shell = shell
        self._viewing = shell.moments.viewing
        self._actions = shell.moments.actions

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "", self._feed)
        self._shell.show_at(router, "/of/{person}", self._person)
        self._shell.show_at(router, "/one/{moment_id}", self._one)
        router.post("/like/{moment_id}")(self._like)
        router.post("/comment/{moment_id}")(self._comment)
        router.post("/comment-delete/{comment_id}")(self._delete_comment)

    async def _feed(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        found = await self._viewing.feed(signed_in.user_id, before=place_of(request))
        return await self._listed(
            request, signed_in, found, "feed.html", title=_("Moments"), tab="feed", path=PATH
        )

    async def _person(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        person = request.path_params["person"]
        if not is_user_id(person):
            return await self._shell.missing(request, signed_in)
        words = " ".join(request.query_params.get("words", "")[:WORDS_LENGTH_MAX].split())
        person = UserId(person)
        found = await self._viewing.of(signed_in.user_id, person, before=place_of(request), words=words)
        cover = await self._viewing.cover(signed_in.user_id, person)
        names = await self._shell.moments.names.of([person])
        own = person == signed_in.user_id
        address = self._shell.addresses.of(signed_in)
        return await self._listed(
            request,
            signed_in,
            found,
            "person.html",
            title=names[person],
            tab="mine" if own else "",
            path=f"{PATH}/of/{person}",
            person=person,
            is_own=own,
            words=words,
            words_length_max=WORDS_LENGTH_MAX,
            cover_url=address(f"{PATH}/cover/{person}?v={cover.part_id[:8]}") if cover else "",
        )

    async def _one(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        moment_id = request.path_params["moment_id"]
        seen = await self._viewing.one(signed_in.user_id, MomentId(moment_id)) if is_id(moment_id) else None
        if seen is None:
            return await self._shell.missing(request, signed_in)
        (moment,) = await self._shell.shown(signed_in, [seen])
        return await self._shell.page(request, signed_in, "one.html", title=moment.name, moment=moment)

    async def _listed(
        self,
        request: Request,
        signed_in: SignedIn,
        found: SeenPage,
        template: str,
        *,
        title: str,
        tab: str,
        path: str,
        **context: Any,
    ) -> Response:
        older = "" if found.older is None else f"{found.older[0]}.{found.older[1]}"
        words = context.get("words")
        shown: dict[str, Any] = {
            "moments": await self._shell.shown(signed_in, found.moments),
            "more_path": f"{path}?{f'words={words}&' if words else ''}before={older}" if older else "",
        }
        if by_htmx(request) and request.query_params.get("before"):
            return self._shell.part(request, signed_in, "moment_rows.html", **shown)
        return await self._shell.page(request, signed_in, template, title=title, tab=tab, **shown, **context)

    # What is done in place.

    async def _like(self, request: Request) -> Response:
        signed_in, form = await self._shell.guard.require_form(request)
        moment_id = request.path_params["moment_id"]
        if not is_id(moment_id):
            return await self._shell.missing(request, signed_in)
        if form.get("on") == "0":
            await self._actions.unlike(signed_in.user_id, MomentId(moment_id))
        else:
            await self._actions.like(signed_in.user_id, MomentId(moment_id))
        return await self._card(request, signed_in, MomentId(moment_id))

    async def _comment(self, request: Request) -> Response:
        signed_in, form = await self._shell.guard.require_form(request)
        moment_id, comment_id = request.path_params["moment_id"], form.get("id")
        text, answers = form.get("text"), form.get("answers")
        if not is_id(moment_id) or not isinstance(text, str) or not is_id(comment_id):
            return await self._shell.missing(request, signed_in)
        outcome = await self._actions.comment(
            signed_in.user_id,
            MomentId(moment_id),
            CommentId(str(comment_id)),
            text,
            answers=CommentId(str(answers)) if is_id(answers) else None,
        )
        problem = outcome.sentence if isinstance(outcome, Refusal) else ""
        return await self._card(request, signed_in, MomentId(moment_id), problem=problem, written=text)

    async def _delete_comment(self, request: Request) -> Response:
        signed_in, form = await self._shell.guard.require_form(request)
        comment_id, moment_id = request.path_params["comment_id"], form.get("moment")
        if not is_id(comment_id) or not is_id(moment_id):
            return await self._shell.missing(request, signed_in)
        await self._actions.delete_comment(signed_in.user_id, CommentId(comment_id))
        return await self._card(request, signed_in, MomentId(str(moment_id)))

    async def _card(
        self,
        request: Request,
        signed_in: SignedIn,
        moment_id: MomentId,
        *,
        problem: str = "",
        written: str = "",
    ) -> Response:
        """The Moment as it is now; the same answer for one that is gone and one that never was."""
        seen = await self._viewing.one(signed_in.user_id, moment_id)
        if seen is None:
            return await self._shell.missing(request, signed_in)
        if not by_htmx(request) and not problem:
            return see_other(f"{PATH}/one/{moment_id}")
        (moment,) = await self._shell.shown(signed_in, [seen])
        kept: dict[str, Any] = {"problem": problem, "written": written if problem else ""}
        if not by_htmx(request):
            return await self._shell.page(
                request, signed_in, "one.html", title=moment.name, status=422, moment=moment, **kept
            )
        return self._shell.part(
            request, signed_in, "moment_card.html", status=422 if problem else 200, moment=moment, **kept
        )


def place_of(request: Request) -> Place | None:
    """From where on older Moments are asked for."""
    at, _dot, moment_id = request.query_params.get("before", "").partition(".")
    if not (at.isascii() and at.isdigit() and len(at) <= 15 and is_id(moment_id)):
        return None
    return int(at), MomentId(moment_id)
