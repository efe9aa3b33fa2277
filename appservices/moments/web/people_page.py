"""The people of one's Moments: contacts with their tags and the two switches, the window, one's own code.
And what is new."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.pages import see_other
from appservices.moments.commands import WINDOW_NAMES
from appservices.moments.contact_code import contact_link, contact_svg, contact_uri
from appservices.moments.records import TAG_LENGTH_MAX, TAGS_MAX
from appservices.moments.rules import Window
from appservices.moments.web.shell import PATH, MomentsShell
from appservices.vocabulary.ids import UserId, is_user_id
from appservices.vocabulary.languages import _


class PeoplePage:
    def __init__(self, shell: MomentsShell) -> None:
        self._shell = shell
        self._contacts = shell.moments.contacts

    def add_to(self, router: APIRouter) -> None:
        self._shell.show_at(router, "/people", self._people)
        self._shell.show_at(router, "/news", self._news)
        router.post("/people/tags/{person}")(self._set_tags)
        router.post("/people/switches/{person}")(self._set_switches)
        router.post("/people/window")(self._set_window)
        router.post("/people/add")(self._add)

    async def _people(self, request: Request, *, problem: str = "", done: str = "") -> Response:
        signed_in = await self._shell.guard.require_page(request)
        circle = await self._contacts.circle(signed_in.user_id)
        people = sorted(circle.direct)
        names = await self._shell.moments.names.of(people)
        shown = [
            {
                "user_id": person,
                "name": names[person],
                "tags": sorted(tag for tag, members in circle.tags.items() if person in members),
                "is_hidden": person in circle.hidden,
                "is_kept_from": person in circle.not_shown_to,
            }
            for person in sorted(people, key=lambda person: names[person].casefold())
        ]
        return await self._shell.page(
            request,
            signed_in,
            "people.html",
            title=_("Friends"),
            tab="people",
            status=422 if problem else 200,
            people=shown,
            all_tags=sorted(circle.tags),
            windows=[(window.value, _(name)) for window, name in WINDOW_NAMES.items()],
            window=circle.window.value,
            code=contact_svg(signed_in.user_id),
            link=contact_link(signed_in.user_id),
            uri=contact_uri(signed_in.user_id),
            tag_length_max=TAG_LENGTH_MAX,
            problem=problem,
            done=done,
        )

    async def _set_tags(self, request: Request) -> Response:
        """Which tags one person has, and perhaps a new one."""
        signed_in, form = await self._shell.guard.require_form(request)
        person = request.path_params["person"]
        circle = await self._contacts.circle(signed_in.user_id)
        if person not in circle.direct:
            return await self._shell.missing(request, signed_in)
        person = UserId(person)
        wanted = {str(tag) for tag in form.getlist("tag")}
        new = form.get("new")
        if isinstance(new, str) and new.strip():
            wanted.add(" ".join(new.split())[:TAG_LENGTH_MAX])
        for tag in sorted(wanted | circle.tags.keys()):
            members = circle.tags.get(tag, frozenset())
            after = members | {person} if tag in wanted else members - {person}
            if after != members and (tag in circle.tags or len(circle.tags) < TAGS_MAX):
                await self._contacts.set_tag(signed_in.user_id, tag, after)
        return see_other(f"{PATH}/people")

    async def _set_switches(self, request: Request) -> Response:
        signed_in, form = await self._shell.guard.require_form(request)
        person = request.path_params["person"]
        if not is_user_id(person):
            return await self._shell.missing(request, signed_in)
        person = UserId(person)
        circle = await self._contacts.circle(signed_in.user_id)
        await self._contacts.set_switches(
            signed_in.user_id,
            hidden=circle.hidden | {person} if form.get("hidden") else circle.hidden - {person},
            not_shown_to=(
                circle.not_shown_to | {person} if form.get("kept_from") else circle.not_shown_to - {person}
            ),
        )
        return see_other(f"{PATH}/people")

    async def _set_window(self, request: Request) -> Response:
        signed_in, form = await self._shell.guard.require_form(request)
        window = form.get("window")
        if window in set(Window):
            await self._contacts.set_switches(signed_in.user_id, window=Window(str(window)))
        return see_other(f"{PATH}/people")

    async def _add(self, request: Request) -> Response:
        signed_in, form = await self._shell.guard.require_form(request)
        friend = form.get("user")
        friend = friend.strip() if isinstance(friend, str) else ""
        if not is_user_id(friend) or friend == signed_in.user_id:
            problem = _("A Matrix user looks like {example}.").format(example="@anna:example.org")
            return await self._people(request, problem=problem)
        user = UserId(friend)
        try:
            if not await self._shell.moments.user_exists(user):
                return await self._people(request, problem=_("There is no user {user}.").format(user=friend))
            await self._contacts.befriend(signed_in.user_id, user)
        except MatrixRefused as refused:
            sentence = _("{user} can't be invited: {reason}")
            return await self._people(request, problem=sentence.format(user=friend, reason=refused.sentence))
        sentence = _("I have begun a direct chat with {user} for you. You are contacts once they accept it.")
        return await self._people(request, done=sentence.format(user=friend))

    async def _news(self, request: Request) -> Response:
        signed_in = await self._shell.guard.require_page(request)
        viewing = self._shell.moments.viewing
        news = await viewing.news(signed_in.user_id)
        names = await self._shell.moments.names.of(item.maker for item in news)
        shown = [
            {
                "moment_id": item.moment.moment_id,
                "maker": item.maker,
                "name": names[item.maker],
                "is_reminder": item.is_reminder,
                "text": "" if item.comment is None else item.comment.text,
                "about": item.moment.content.text[:80],
                "at_ms": item.at_ms,
            }
            for item in news
        ]
        await viewing.saw_news(signed_in.user_id)
        return await self._shell.page(
            request, signed_in, "news.html", title=_("News"), tab="news", news=shown
        )
