"""The Moments room, as its owner writes in it: what is said is posted, a reaction is a like, a reply a
comment, and taking a message back undoes what it did.

Only the owner's events count. What can't be understood is answered with one sentence; what went well needs no
answer, since the room shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from nio.crypto.attachments import decrypt_attachment
from nio.exceptions import EncryptionError

from appservices.chassis.database import Write
from appservices.chassis.homeserver import MatrixRefused
from appservices.chassis.inbox import StoredEvent
from appservices.chassis.messages import IncomingMessage, notice
from appservices.chassis.outbox import REDACTION, Outgoing
from appservices.chassis.reactions import Reaction
from appservices.chassis.service import Taken
from appservices.moments import store
from appservices.moments.actions import Actions, Refusal
from appservices.moments.distribution import Distribution
from appservices.moments.feed_messages import LIKE_KEYS
from appservices.moments.pictures import PICTURE_BYTES_MAX, VIDEO_BYTES_MAX, Pictures
from appservices.moments.records import (
    PICTURE,
    PICTURES_MAX,
    CommentId,
    Content,
    ContentUnreadable,
    Moment,
    MomentId,
    Part,
)
from appservices.moments.rules import Audience, AudienceKind
from appservices.moments.writing import WritingUnclear, Written, is_audience_word, read_writing
from appservices.vocabulary.commands import COMMAND_PREFIX
from appservices.vocabulary.ids import EventId, OutboxId, RoomId, UserId, derived_id, is_user_id
from appservices.vocabulary.languages import _, known

logger = logging.getLogger(__name__)

ALBUM_MS: Final = 60_000
"""Pictures that follow one another within this time become one Moment."""
ALBUM_WAIT_MS: Final = 5_000
"""How long nobody is told of a picture, because another may follow."""
_POSTS: Final = frozenset({"m.text", "m.emote", "m.image", "m.video"})


@dataclass(frozen=True, slots=True)
class _Target:
    """What a reply or a reaction is to."""

    moment_id: MomentId
    comment_id: CommentId | None = None


class MomentsRoom:
    """Takes the events of Moments rooms."""

    def __init__(
        self,
        actions: Actions,
        distribution: Distribution,
        pictures: Pictures,
        *,
        service_user: UserId,
        subject_of: Callable[[EventId], Awaitable[str | None]],
    ) -> None:
        """`subject_of` says what one of our own messages is about."""
        self._actions = actions
        self._distribution = distribution
        self._pictures = pictures
        self._service_user = service_user
        self._subject_of = subject_of
        self._database = actions.database

    async def take(self, event: Mapping[str, Any], stored: StoredEvent) -> Taken | None:
        """An event of any room; None when it is none of ours."""
        owner = await self._distribution.owner_of(stored.room_id)
        if owner is None:
            return None
        if event["sender"] != owner:
            return Taken([])
        self._distribution.read_in(stored.room_id)
        if event["type"] == REDACTION:
            return await self._redacted(owner, event, stored)
        reaction = Reaction.from_event(event)
        if reaction is not None:
            return await self._reacted(owner, reaction, stored)
        content = event["content"]
        kind = content.get("msgtype")
        relation = content.get("m.relates_to")
        relation = relation if isinstance(relation, Mapping) else {}
        if event["type"] != "m.room.message" or "state_key" in event:
            return Taken([])
        if relation.get("rel_type") == "m.replace":
            return await self._edited(owner, relation, content, stored)
        target = relation.get("event_id") if relation.get("rel_type") == "m.thread" else None
        answered = relation.get("m.in_reply_to")
        if isinstance(answered, Mapping) and not (target and relation.get("is_falling_back")):
            target = answered.get("event_id", target)
        if kind == "m.text" and isinstance(target, str):
            return await self._replied(owner, EventId(target), event, stored)
        message = IncomingMessage.from_event({**event, "content": {**content, "msgtype": "m.text"}})
        text = "" if message is None else message.text
        if kind == "m.text" and text.startswith((COMMAND_PREFIX, "\uff01")) and not is_audience_word(text):
            return None
        if kind not in _POSTS:
            return Taken([self._say(stored, _("I can take words, pictures and videos as a Moment."))])
        return await self._posted(owner, event, text, stored)

    # Posting.

    async def _posted(self, owner: UserId, event: Mapping[str, Any], text: str, stored: StoredEvent) -> Taken:
        content = event["content"]
        kind = content["msgtype"]
        if kind in ("m.image", "m.video"):
            name = content.get("filename", content.get("body"))
            text = text if content.get("body") != name else ""
        try:
            written = await self._read(owner, text, only_me=kind == "m.emote")
            part = None
            if kind in ("m.image", "m.video"):
                part = await self._part(content, EventId(event["event_id"]), is_video=kind == "m.video")
            outcome = await self._post(owner, event, written, part, stored)
        except (WritingUnclear, ContentUnreadable) as problem:
            sentence = str(problem) if isinstance(problem, WritingUnclear) else _(str(problem))
            return Taken([self._say(stored, sentence)])
        if isinstance(outcome, Refusal):
            return Taken([self._say(stored, outcome.sentence)])
        return Taken(None)

    async def _read(self, owner: UserId, text: str, *, only_me: bool) -> Written:
        circle = await self._actions.contacts.circle(owner)
        written = read_writing(text, circle.tags)
        if only_me:
            # `/me` is a command of most clients, which send what follows it as an emote.
            return Written(written.text, written.place, Audience(AudienceKind.ONLY_ME))
        return written

    async def _post(
        self,
        owner: UserId,
        event: Mapping[str, Any],
        written: Written,
        part: Part | None,
        stored: StoredEvent,
    ) -> Moment | Refusal | None:
        event_id = EventId(event["event_id"])
        now_ms = self._actions.clock()
        told_at_ms = now_ms + ALBUM_WAIT_MS if part is not None and part.kind == PICTURE else 0
        if part is not None and part.kind == PICTURE and not written.text and not written.place:
            album = await self._album(owner, now_ms)
            if album is not None and await self._actions.add_part(
                owner, album, part, event_id=event_id, told_at_ms=told_at_ms, also=[stored.done]
            ):
                return None
        return await self._actions.post(
            owner,
            MomentId(derived_id("moment", event_id)),
            Content(
                text=written.text,
                parts=() if part is None else (part,),
                place=written.place,
                reminded=_mentioned(event["content"], owner, self._service_user),
            ),
            written.audience,
            events=[(event_id, "" if part is None else part.part_id)],
            told_at_ms=told_at_ms,
            also=[stored.done],
        )

    async def _album(self, owner: UserId, now_ms: int) -> MomentId | None:
        """The Moment that another picture belongs to: the last one, if it is of pictures and of just now."""
        async with self._database.read() as work:
            latest = await store.by_authors(work, [owner], before=None, limit=1)
        for moment in latest:
            kinds = {part.kind for part in moment.content.parts}
            is_open = kinds == {PICTURE} and len(moment.content.parts) < PICTURES_MAX
            if is_open and moment.created_at_ms > now_ms - ALBUM_MS and moment.edited_at_ms is None:
                return moment.moment_id
        return None

    async def _part(self, content: Mapping[str, Any], event_id: EventId, *, is_video: bool) -> Part:
        """The picture or video of a message, freed of its place. Raises ContentUnreadable."""
        info = content.get("info")
        info = info if isinstance(info, Mapping) else {}
        size = info.get("size")
        size_max = VIDEO_BYTES_MAX if is_video else PICTURE_BYTES_MAX
        if isinstance(size, int) and size > size_max:
            raise ContentUnreadable(
                known("That file is too large: pictures have up to 20 MB, videos up to 50 MB.")
            )
        data = await self._file(content)
        part_id = derived_id("part", event_id)
        if not is_video:
            return await self._pictures.take(data, part_id, keep_place=False)
        media_type = str(info.get("mimetype"))
        return await self._pictures.take_video(
            data, part_id, media_type, width=info.get("w"), height=info.get("h")
        )

    async def _file(self, content: Mapping[str, Any]) -> bytes:
        """The bytes of a message's file, in clear. Raises ContentUnreadable."""
        file = content.get("file")
        mxc = file.get("url") if isinstance(file, Mapping) else content.get("url")
        try:
            data = await self._pictures.media.download(mxc if isinstance(mxc, str) else "")
            if not isinstance(file, Mapping):
                return data
            clear: bytes = decrypt_attachment(data, file["key"]["k"], file["hashes"]["sha256"], file["iv"])
            return clear
        except (MatrixRefused, EncryptionError, KeyError, TypeError, ValueError) as error:
            raise ContentUnreadable(known("I can't get that file from the homeserver.")) from error

    async def _edited(
        self,
        owner: UserId,
        relation: Mapping[str, Any],
        content: Mapping[str, Any],
        stored: StoredEvent,
    ) -> Taken:
        new, edited = content.get("m.new_content"), relation.get("event_id")
        if not isinstance(new, Mapping) or not isinstance(edited, str):
            return Taken([])
        async with self._database.read() as work:
            found = await store.event_of(work, EventId(edited))
            moment = None if found is None else await store.moment_of(work, found[0])
        if moment is None:
            return Taken([])
        body, name = new.get("body"), new.get("filename")
        text = body if isinstance(body, str) and body != name else ""
        try:
            written = await self._read(owner, text, only_me=False)
            changed = Content(
                text=written.text,
                parts=moment.content.parts,
                place=written.place,
                reminded=moment.content.reminded,
            )
            outcome = await self._actions.edit(owner, moment.moment_id, changed, also=[stored.done])
        except (WritingUnclear, ContentUnreadable) as problem:
            sentence = str(problem) if isinstance(problem, WritingUnclear) else _(str(problem))
            return Taken([self._say(stored, sentence)])
        if isinstance(outcome, Refusal):
            return Taken([self._say(stored, outcome.sentence)])
        return Taken(None)

    # Likes and comments.

    async def _reacted(self, owner: UserId, reaction: Reaction, stored: StoredEvent) -> Taken:
        target = await self._target(reaction.to)
        if reaction.key not in LIKE_KEYS or target is None or target.comment_id is not None:
            return Taken([])
        refusal = await self._actions.like(
            owner, target.moment_id, event_id=stored.event_id, also=[stored.done]
        )
        return Taken([]) if refusal else Taken(None)

    async def _replied(
        self, owner: UserId, to: EventId, event: Mapping[str, Any], stored: StoredEvent
    ) -> Taken:
        message = IncomingMessage.from_event(event)
        if message is None:
            return Taken([])
        if message.text.startswith((COMMAND_PREFIX, "\uff01")):
            return Taken(
                [self._say(stored, _("A command must not be a reply, and a comment begins otherwise."))]
            )
        target = await self._target(to)
        if target is None:
            sentence = _("Reply to a Moment to comment on it; this message is none. Nothing was posted.")
            return Taken([self._say(stored, sentence)])
        outcome = await self._actions.comment(
            owner,
            target.moment_id,
            CommentId(derived_id("comment", stored.event_id)),
            message.text,
            answers=target.comment_id,
            event_id=stored.event_id,
            also=[stored.done],
        )
        return Taken([self._say(stored, outcome.sentence)]) if isinstance(outcome, Refusal) else Taken(None)

    async def _redacted(self, owner: UserId, event: Mapping[str, Any], stored: StoredEvent) -> Taken:
        redacts = event.get("redacts", event["content"].get("redacts"))
        if not isinstance(redacts, str):
            return Taken([])
        event_id = EventId(redacts)
        if await self._actions.remove_event(owner, event_id, also=[stored.done]):
            return Taken(None)
        async with self._database.read() as work:
            like = await store.like_by_event(work, event_id)
            comment = await store.comment_by_event(work, event_id)
        refusal: Refusal | None = Refusal.NOT_THERE
        if like is not None and like.maker == owner:
            refusal = await self._actions.unlike(owner, like.moment_id, redacted=event_id, also=[stored.done])
        elif comment is not None and comment.maker == owner:
            refusal = await self._actions.delete_comment(
                owner, comment.comment_id, redacted=event_id, also=[stored.done]
            )
        return Taken([]) if refusal else Taken(None)

    async def _target(self, event_id: EventId) -> _Target | None:
        async with self._database.read() as work:
            found = await store.event_of(work, event_id)
            comment = await store.comment_by_event(work, event_id)
        if found is not None:
            return _Target(found[0])
        if comment is not None:
            return _Target(comment.moment_id, comment.comment_id)
        kind, _separator, name = (await self._subject_of(event_id) or "").partition(":")
        if kind == "moment":
            return _Target(MomentId(name))
        if kind == "comment":
            async with self._database.read() as work:
                comment = await store.comment_of(work, CommentId(name))
            return None if comment is None else _Target(comment.moment_id, comment.comment_id)
        return None

    def _say(self, stored: StoredEvent, text: str) -> Write:
        outbox_id = OutboxId(derived_id("moments reply", self._service_user, stored.event_id))
        content = notice(text, reply_to=stored.event_id)
        return Outgoing(outbox_id, content, room_id=stored.room_id).write(now_ms=self._actions.clock())


def _mentioned(content: Mapping[str, Any], *not_those: UserId) -> tuple[UserId, ...]:
    """Whom a message mentions (Matrix spec, "User and room mentions")."""
    mentions = content.get("m.mentions")
    listed: object = mentions.get("user_ids") if isinstance(mentions, Mapping) else None
    people: Sequence[Any] = listed if isinstance(listed, list) else ()
    named = [UserId(user) for user in people if isinstance(user, str) and is_user_id(user)]
    return tuple(user for user in dict.fromkeys(named) if user not in not_those)[:10]


def welcome_write(room_id: RoomId, person: UserId, *, now_ms: int) -> Write:
    """What the room says of itself when it begins."""
    text = _(
        "This is your Moments room. Your friends' Moments come in here. What you write, or a picture that "
        "you send, is shown to your friends; begin with /public, /me or /tag family to choose for whom. ❤️ "
        "is a like, a reply is a comment, and removing a message takes it back. !help lists what else I "
        "can do."
    )
    outbox_id = OutboxId(derived_id("moments welcome", room_id, person))
    return Outgoing(outbox_id, notice(text), room_id=room_id).write(now_ms=now_ms)
