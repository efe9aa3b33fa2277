"""What one can ask @moments for: a new contact, tags, and the switches of one's Moments."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from appservices.chassis.commands import Command, CommandCall
from appservices.chassis.database import Write
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.outbox import Outgoing
from appservices.moments.contact_code import contact_link, contact_png, contact_uri
from appservices.moments.contacts import ContactBook
from appservices.moments.names import Names
from appservices.moments.records import TAG_LENGTH_MAX, TAGS_MAX
from appservices.moments.rules import Window
from appservices.vocabulary.ids import OutboxId, RoomId, UserId, derived_id, is_user_id
from appservices.vocabulary.languages import _, isolated, known, listed, without_directions

logger = logging.getLogger(__name__)

_PNG: Final = "image/png"
WINDOW_NAMES: Final = {
    Window.ALL: known("all"),
    Window.SIX_MONTHS: known("6 months"),
    Window.ONE_MONTH: known("1 month"),
    Window.THREE_DAYS: known("3 days"),
}

Upload = Callable[[RoomId, bytes, str, str], Awaitable[Mapping[str, Any]]]


class MomentsCommands:
    """The commands of @moments."""

    def __init__(
        self,
        contacts: ContactBook,
        names: Names,
        *,
        user_exists: Callable[[UserId], Awaitable[bool]],
        upload: Upload,
        room_for: Callable[[UserId], Awaitable[RoomId]],
    ) -> None:
        """`room_for` finds or makes a person's Moments room."""
        self._contacts = contacts
        self._names = names
        self._user_exists = user_exists
        self._upload = upload
        self._room_for = room_for

    def commands(self) -> tuple[Command, ...]:
        someone = "@anna:example.org"
        return (
            Command(
                "friend",
                known("!friend [user]"),
                known("adds somebody as a contact, or shows the code by which others add you"),
                f"!friend {someone}",
                self._friend,
            ),
            Command(
                "tag",
                known("!tag <name> <user …>"),
                known("gives contacts a tag, by which you choose who sees a Moment"),
                f"!tag family {someone}",
                self._tag,
            ),
            Command(
                "untag",
                known("!untag <name> <user …>"),
                known("takes a tag away from contacts"),
                f"!untag family {someone}",
                self._untag,
            ),
            Command("tags", "!tags", known("shows your tags and who has them"), "!tags", self._tags),
            Command(
                "hide",
                known("!hide <user>"),
                known("keeps somebody's Moments out of your feed"),
                f"!hide {someone}",
                self._hide,
            ),
            Command(
                "unhide",
                known("!unhide <user>"),
                known("lets somebody's Moments into your feed again"),
                f"!unhide {someone}",
                self._unhide,
            ),
            Command(
                "keepfrom",
                known("!keepfrom <user>"),
                known("shows none of your Moments to somebody"),
                f"!keepfrom {someone}",
                self._keep_from,
            ),
            Command(
                "showto",
                known("!showto <user>"),
                known("shows your Moments to somebody again"),
                f"!showto {someone}",
                self._show_to,
            ),
            Command(
                "window",
                known("!window <all | 6 months | 1 month | 3 days>"),
                known("says how far back others may look at your Moments"),
                "!window 6 months",
                self._window,
            ),
            Command(
                "moments",
                "!moments",
                known("shows where your Moments room is, and makes one if you have none"),
                "!moments",
                self._room,
            ),
        )

    async def _room(self, call: CommandCall) -> Sequence[Write]:
        room_id = await self._room_for(call.sender)
        link = f"https://matrix.to/#/{room_id}"
        return [call.reply(_("Your Moments come into this room: {link}").format(link=link))]

    async def _friend(self, call: CommandCall) -> Sequence[Write]:
        if not call.arguments:
            return await self._own_code(call)
        friend = _user(call.arguments)
        if friend is None or friend == call.sender:
            return [_misread(call, "!friend @anna:example.org")]
        if not await self._user_exists(friend):
            return [call.reply(_("There is no user {user}.").format(user=isolated(friend)))]
        if friend in (await self._contacts.circle(call.sender)).direct:
            return [call.reply(_("{user} is your contact already.").format(user=isolated(friend)))]
        try:
            await self._contacts.befriend(call.sender, friend)
        except MatrixRefused as refused:
            logger.info("%s could not befriend %s: %s", call.sender, friend, refused)
            sentence = _("{user} can't be invited: {reason}")
            return [call.reply(sentence.format(user=isolated(friend), reason=isolated(refused.sentence)))]
        sentence = _("I have begun a direct chat with {user} for you. You are contacts once they accept it.")
        return [call.reply(sentence.format(user=isolated(friend)))]

    async def _own_code(self, call: CommandCall) -> Sequence[Write]:
        text = _("Others add you by this code, or by one of these links: {link} or {uri}").format(
            link=contact_link(call.sender), uri=contact_uri(call.sender)
        )
        picture, side_pixels = contact_png(call.sender)
        answer = call.reply(text)
        try:
            place = await self._upload(call.room.room_id, picture, _PNG, "contact.png")
        except MatrixRefused as refused:
            logger.warning("a QR code is left out: %s", refused)
            return [answer]
        content = {
            "msgtype": "m.image",
            "body": text,
            "filename": "contact.png",
            "info": {"mimetype": _PNG, "size": len(picture), "w": side_pixels, "h": side_pixels},
            "m.mentions": {},
            **place,
        }
        outbox_id = OutboxId(derived_id("contact code", call.event_id))
        outgoing = Outgoing(outbox_id, content, room_id=call.room.room_id)
        return [outgoing.write(now_ms=call.now_ms)]

    async def _tag(self, call: CommandCall) -> Sequence[Write]:
        return await self._change_tag(call, takes_away=False)

    async def _untag(self, call: CommandCall) -> Sequence[Write]:
        return await self._change_tag(call, takes_away=True)

    async def _change_tag(self, call: CommandCall, *, takes_away: bool) -> Sequence[Write]:
        name, _space, rest = call.arguments.partition(" ")
        people = [_user(word) for word in rest.split()]
        if not 0 < len(name) <= TAG_LENGTH_MAX or not people or None in people:
            return [_misread(call, f"!{call.name} family @anna:example.org")]
        named = frozenset(person for person in people if person is not None)
        circle = await self._contacts.circle(call.sender)
        tag = next((each for each in circle.tags if each.casefold() == name.casefold()), name)
        before = circle.tags.get(tag, frozenset())
        if takes_away:
            after = before - named
        else:
            strangers = named - circle.direct
            if strangers:
                sentence = _("These are no contacts of yours: {users}. Nothing was changed.")
                return [call.reply(sentence.format(users=_listed(strangers)))]
            after = before | named
        if tag not in circle.tags and len(circle.tags) >= TAGS_MAX:
            return [call.reply(_("You have fifty tags already. Nothing was changed."))]
        await self._contacts.set_tag(call.sender, tag, after)
        return call.answer_privately(await self._tag_line(tag, after))

    async def _tags(self, call: CommandCall) -> Sequence[Write]:
        tags = (await self._contacts.circle(call.sender)).tags
        if not tags:
            sentence = _("You have no tags. Make one: {example}")
            return call.answer_privately(sentence.format(example=isolated("!tag family @anna:example.org")))
        lines = [await self._tag_line(tag, tags[tag]) for tag in sorted(tags)]
        return call.answer_privately("\n".join(lines))

    async def _tag_line(self, tag: str, people: frozenset[UserId]) -> str:
        names = await self._names.of(sorted(people))
        if not names:
            return _("{tag}: nobody").format(tag=isolated(tag))
        return _("{tag}: {names}").format(
            tag=isolated(tag), names=listed([isolated(name) for name in names.values()])
        )

    async def _hide(self, call: CommandCall) -> Sequence[Write]:
        return await self._switch(call, "hidden", on=True)

    async def _unhide(self, call: CommandCall) -> Sequence[Write]:
        return await self._switch(call, "hidden", on=False)

    async def _keep_from(self, call: CommandCall) -> Sequence[Write]:
        return await self._switch(call, "not_shown_to", on=True)

    async def _show_to(self, call: CommandCall) -> Sequence[Write]:
        return await self._switch(call, "not_shown_to", on=False)

    async def _switch(self, call: CommandCall, switch: str, *, on: bool) -> Sequence[Write]:
        person = _user(call.arguments)
        if person is None or person == call.sender:
            return [_misread(call, f"!{call.name} @anna:example.org")]
        circle = await self._contacts.circle(call.sender)
        before = circle.hidden if switch == "hidden" else circle.not_shown_to
        after = before | {person} if on else before - {person}
        if switch == "hidden":
            await self._contacts.set_switches(call.sender, hidden=after)
        else:
            await self._contacts.set_switches(call.sender, not_shown_to=after)
        sentence = {
            ("hidden", True): _("{user}'s Moments stay out of your feed. Only you know that."),
            ("hidden", False): _("{user}'s Moments come into your feed again."),
            ("not_shown_to", True): _("{user} sees none of your Moments. Only you know that."),
            ("not_shown_to", False): _("{user} sees your Moments again."),
        }[(switch, on)]
        return call.answer_privately(sentence.format(user=isolated(person)))

    async def _window(self, call: CommandCall) -> Sequence[Write]:
        asked = call.arguments.casefold().strip()
        window = next(
            (each for each, name in WINDOW_NAMES.items() if asked in (name, _(name).casefold())), None
        )
        if window is None:
            return [_misread(call, "!window 6 months")]
        await self._contacts.set_switches(call.sender, window=window)
        sentence = {
            Window.ALL: _("Others may look at all your Moments that are for them."),
            Window.SIX_MONTHS: _("Others see your Moments of the last six months. You still see all."),
            Window.ONE_MONTH: _("Others see your Moments of the last month. You still see all."),
            Window.THREE_DAYS: _("Others see your Moments of the last three days. You still see all."),
        }[window]
        return call.answer_privately(sentence)


def _user(text: str) -> UserId | None:
    word = without_directions(text).strip().strip(",;")
    return UserId(word) if is_user_id(word) else None


def _misread(call: CommandCall, example: str) -> Write:
    return call.reply(_("I could not read that. Example: {example}").format(example=isolated(example)))


def _listed(people: frozenset[UserId]) -> str:
    return listed([isolated(person) for person in sorted(people)])
