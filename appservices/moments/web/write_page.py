"""Writing a Moment, changing one, taking one back; and one's cover.

What is written stays in the browser until the server has it; each picture goes up by itself as soon as it is
chosen. The form has an id, so that a Moment that is sent again because an answer was lost is one Moment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.datastructures import FormData

from appservices.chassis.pages import see_other
from appservices.chassis.signed_in import SignedIn
from appservices.moments import store
from appservices.moments.actions import Refusal
from appservices.moments.records import (
    PICTURES_MAX,
    PLACE_LENGTH_MAX,
    TEXT_LENGTH_MAX,
    Content,
    ContentUnreadable,
    Moment,
    MomentId,
    is_id,
)
from appservices.moments.rules import CONTACTS, Audience, AudienceKind, Circle
from appservices.moments.web.shell import PATH, MomentsShell
from appservices.moments.web.shown import shown_part
from appservices.vocabulary.ids import UserId, is_user_id
from appservices.vocabulary.languages import _

_CHOICES: Final = (
    AudienceKind.CONTACTS,
    AudienceKind.PUBLIC,
    AudienceKind.ONLY,
    AudienceKind.EXCEPT,
    AudienceKind.ONLY_ME,
)


class WritePage:
    def __init__(self, shell: MomentsShell) -> None:
        self._shell = shell
        self._actions = shell.moments.actions

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/new", self._new)
        router.post("/new")(self._post)
        self._shell.show_at(router, "/edit/{moment_id}", self._edit)
        router.post("/edit/{moment_id}")(self._change)
        router.post("/delete/{moment_id}")(self._delete)
        router.post("/cover")(self._cover)

    async def _new(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        return await self._form(request, signed_in, MomentId(self._shell.tokens.hex()), Content(), CONTACTS)

    async def _post(self, request: Request) -> Response:
        signed_in, form = await self._shell.guard.require_form(request)
        moment_id = form.get("id")
        if not is_id(moment_id):
            return await self._shell.missing(request, signed_in)
        moment_id = MomentId(str(moment_id))
        circle = await self._shell.moments.contacts.circle(signed_in.user_id)
        audience = _audience(form, circle)
        content = Content()
        try:
            content = await self._content(form, signed_in, before=None)
            outcome = await self._actions.post(
                signed_in.user_id,
                moment_id,
                content,
                audience,
                also=[store.forget_upload_write(part.part_id) for part in content.parts],
            )
            problem = outcome.sentence if isinstance(outcome, Refusal) else ""
        except ContentUnreadable as unreadable:
            problem = _(str(unreadable))
            content = replace(content, text=_text(form, "text"), place=_text(form, "place"))
        if problem:
            return await self._form(request, signed_in, moment_id, content, audience, problem=problem)
        return see_other(PATH)

    async def _edit(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        moment = await self._own(request, signed_in)
        if moment is None:
            return await self._shell.missing(request, signed_in)
        return await self._form(
            request, signed_in, moment.moment_id, moment.content, moment.audience, before=moment
        )

    async def _change(self, request: Request) -> Response:
        signed_in, form = await self._shell.guard.require_form(request)
        moment = await self._own(request, signed_in)
        if moment is None:
            return await self._shell.missing(request, signed_in)
        circle = await self._shell.moments.contacts.circle(signed_in.user_id)
        audience = _audience(form, circle)
        content = moment.content
        try:
            content = await self._content(form, signed_in, before=moment)
            also = [store.forget_upload_write(part.part_id) for part in content.parts]
            if audience != moment.audience:
                also += store.audience_writes(moment.moment_id, audience)
            outcome = await self._actions.edit(signed_in.user_id, moment.moment_id, content, also=also)
            problem = outcome.sentence if isinstance(outcome, Refusal) else ""
        except ContentUnreadable as unreadable:
            problem = _(str(unreadable))
        if problem:
            return await self._form(
                request,
                signed_in,
                moment.moment_id,
                replace(content, text=_text(form, "text"), place=_text(form, "place")),
                audience,
                before=moment,
                problem=problem,
            )
        return see_other(f"{PATH}/one/{moment.moment_id}")

    async def _delete(self, request: Request) -> Response:
        signed_in, _form = await self._shell.guard.require_form(request)
        moment_id = request.path_params["moment_id"]
        if not is_id(moment_id) or await self._actions.delete(signed_in.user_id, MomentId(moment_id)):
            return await self._shell.missing(request, signed_in)
        return see_other(f"{PATH}/of/{signed_in.user_id}")

    async def _cover(self, request: Request) -> Response:
        signed_in, form = await self._shell.guard.require_form(request)
        await self._shell.moments.set_cover(signed_in.user_id, _text(form, "upload"))
        return see_other(f"{PATH}/of/{signed_in.user_id}")

    async def _own(self, request: Request, signed_in: SignedIn) -> Moment | None:
        moment_id = request.path_params["moment_id"]
        if not is_id(moment_id):
            return None
        async with self._actions.database.read() as work:
            moment = await store.moment_of(work, MomentId(moment_id))
        return moment if moment is not None and moment.author == signed_in.user_id else None

    async def _content(self, form: FormData, signed_in: SignedIn, *, before: Moment | None) -> Content:
        """What the form says. Raises ContentUnreadable."""
        asked = [str(value) for value in form.getlist("part") if is_id(value)][: PICTURES_MAX + 1]
        there = {} if before is None else {part.part_id: part for part in before.content.parts}
        async with self._actions.database.read() as work:
            uploaded = await store.uploads_of(work, signed_in.user_id, asked)
        parts = tuple(
            part for part_id in dict.fromkeys(asked) if (part := {**uploaded, **there}.get(part_id))
        )
        reminded = tuple(UserId(str(value)) for value in form.getlist("reminded") if is_user_id(str(value)))
        return Content.from_json(
            Content(
                text=_text(form, "text"), parts=parts, place=_text(form, "place"), reminded=reminded
            ).to_json()
        )

    async def _form(
        self,
        request: Request,
        signed_in: SignedIn,
        moment_id: MomentId,
        content: Content,
        audience: Audience,
        *,
        before: Moment | None = None,
        problem: str = "",
    ) -> Response:
        circle = await self._shell.moments.contacts.circle(signed_in.user_id)
        people = sorted(circle.direct - circle.ignored)
        names = await self._shell.moments.names.of(people)
        address = self._shell.addresses.of(signed_in)
        there = set() if before is None else {part.part_id for part in before.content.parts}
        parts = []
        for part in content.parts:
            shown = shown_part(moment_id, part, address)
            if part.part_id not in there:
                shown = replace(shown, small_url=address(f"{PATH}/uploads/{part.part_id}"))
            parts.append(shown)
        words = {
            AudienceKind.CONTACTS: _("All friends"),
            AudienceKind.PUBLIC: _("Everybody here"),
            AudienceKind.ONLY: _("Only some"),
            AudienceKind.EXCEPT: _("All friends but some"),
            AudienceKind.ONLY_ME: _("Only me"),
        }
        return await self._shell.page(
            request,
            signed_in,
            "write.html",
            title=_("New Moment") if before is None else _("Edit Moment"),
            tab="new" if before is None else "",
            status=422 if problem else 200,
            action=f"{PATH}/new" if before is None else f"{PATH}/edit/{moment_id}",
            is_new=before is None,
            moment_id=moment_id,
            text=content.text,
            place=content.place,
            parts=parts,
            choices=[(kind.value, words[kind]) for kind in _CHOICES],
            chosen=audience.kind.value,
            tags=sorted(circle.tags),
            chosen_tags=audience.tags,
            people=[(person, names[person]) for person in people],
            chosen_people=audience.people,
            reminded=content.reminded,
            problem=problem,
            text_length_max=TEXT_LENGTH_MAX,
            place_length_max=PLACE_LENGTH_MAX,
            pictures_max=PICTURES_MAX,
        )


def _audience(form: FormData, circle: Circle) -> Audience:
    """For whom the form says; what it doesn't say rightly is for oneself alone, which shows too little
    rather than too much."""
    kind = form.get("audience")
    if kind not in {choice.value for choice in _CHOICES}:
        return Audience(AudienceKind.ONLY_ME)
    chosen = AudienceKind(str(kind))
    if chosen not in (AudienceKind.ONLY, AudienceKind.EXCEPT):
        return Audience(chosen)
    tags = frozenset(str(tag) for tag in form.getlist("tag")) & circle.tags.keys()
    people = frozenset(UserId(str(person)) for person in form.getlist("person")) & circle.direct
    return Audience(chosen, tags=frozenset(tags), people=people)


def _text(form: FormData, name: str) -> str:
    value = form.get(name)
    return value.replace("\r\n", "\n").strip() if isinstance(value, str) else ""
