"""One application service: its user, its database, its way in (inbox) and out (outbox), its rooms.

A service is ready once the homeserver knows its user, its device can read and write encrypted rooms, and
its inbox and outbox run. It waits for a homeserver that is not there yet.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from appservices.chassis.chosen_languages import LanguageOf, english_for_all
from appservices.chassis.clock import Clock
from appservices.chassis.commands import CommandRouter
from appservices.chassis.config import Registration
from appservices.chassis.database import Database, Write
from appservices.chassis.direct_rooms import DirectRooms
from appservices.chassis.encryption import BotDevice, EncryptionUnsupported, Undecryptable
from appservices.chassis.homeserver import ONCE, MatrixRefused, MatrixUnavailable, path_of
from appservices.chassis.inbox import Inbox, KeyNotYetHere, StoredEvent
from appservices.chassis.links.switchboard import Switchboard
from appservices.chassis.messages import IncomingMessage, notice
from appservices.chassis.outbox import KEPT_MS, REDACTION, Outbox, Outgoing, Sent
from appservices.chassis.reactions import Reaction, ReactionCall, ReactionHandler
from appservices.chassis.rooms import READERS_CHANGE, Members, Rooms
from appservices.chassis.transactions import is_sound, transaction_routes
from appservices.vocabulary.events import HOME_ROOM_TYPE, LINK
from appservices.vocabulary.ids import EventId, OutboxId, RoomId, UserId, derived_id, server_of
from appservices.vocabulary.languages import _, speaking

logger = logging.getLogger(__name__)

KEY_WAIT_SECONDS = 2.0
PARKED_RETRY_SECONDS = 30.0
PING_PAUSES_SECONDS = (0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
PARKED_RETRY_PAUSE_SECONDS = 0.2
START_PAUSE_SECONDS_MAX = 10.0
_FROM_PEOPLE = frozenset({"m.room.message", "m.room.encrypted", "m.reaction"})
# What changes who may read, and how we must write.
_ROOM_CHANGES = READERS_CHANGE | {"m.room.encryption", "m.room.power_levels"}
# Join rules by which nobody comes in without a member's doing.
_CLOSED_JOIN_RULES = frozenset({"invite", "private", "knock"})


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of an event that was a feature's own affair; no writes when it has committed them itself,
    `stored.done` among them."""

    writes: Sequence[Write] | None


EventTaker = Callable[[Mapping[str, Any], StoredEvent], Awaitable[Taken | None]]
"""Sees a message, reaction or redaction of a person, in clear, before anything else does. None when it is
for commands and reactions as usual."""


@dataclass(frozen=True, slots=True)
class ServiceIdentity:
    """Who the service is: its name in paths, its user and how that user is shown."""

    name: str
    user_id: UserId
    display_name: str
    service_users: tuple[UserId, ...]
    """All of this server's service users, the one that answers unknown input first."""


class Service:
    """The chassis under one feature. The feature gives a command router and, if it likes, hooks."""

    def __init__(
        self,
        identity: ServiceIdentity,
        *,
        database: Database,
        open_device: Callable[[], Awaitable[BotDevice]],
        registration: Registration,
        clock: Clock,
        language_of: LanguageOf = english_for_all,
        outbox_kept_ms: int | None = KEPT_MS,
    ) -> None:
        """`language_of` says in which language the service speaks with a user, whatever it says;
        `outbox_kept_ms` is how long what was sent can still be edited and taken back, None for ever."""
        self.identity = identity
        self.is_ready = False
        self._device: BotDevice | None = None
        self._open_device = open_device
        self._clock = clock
        self._language_of = language_of
        self._registration = registration
        self._on_allowed: Callable[[RoomId], Awaitable[None]] | None = None
        self._welcome: Callable[[UserId], tuple[str, str]] | None = None
        self._router: CommandRouter | None = None
        self._react: ReactionHandler | None = None
        self._take: EventTaker | None = None
        self._receipt: Callable[[RoomId, UserId], None] | None = None
        self._ready = asyncio.Event()
        self._links: Switchboard | None = None
        self._new_keys = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._own_server = server_of(identity.user_id)
        self.rooms = Rooms(self._members, service_users=frozenset(identity.service_users))
        self.outbox = Outbox(database, clock=clock, send=self._send, kept_ms=outbox_kept_ms)
        self.inbox = Inbox(
            database,
            clock=clock,
            handle=self._handle,
            on_effects=self.outbox.wake,
            on_given_up=self._given_up,
        )
        self.direct_rooms = DirectRooms(database, self.rooms, self._create_direct_room)

    def use(self, router: CommandRouter) -> None:
        """Gives the service its commands; to be called before `start`."""
        self._router = router

    def on_reaction(self, handler: ReactionHandler) -> None:
        """Gives the service what to do when a person reacts to one of its messages; before `start`."""
        self._react = handler

    def on_event(self, taker: EventTaker) -> None:
        """Lets the feature have events of its own rooms, whatever kind they are; before `start`."""
        self._take = taker

    def on_read(self, callback: Callable[[RoomId, UserId], None]) -> None:
        """Registers what to do when a person has read in a room, as far as their client says so. Nothing is
        kept for it: what matters must not depend on it. The registration asks for such news."""
        self._receipt = callback

    def use_links(self, links: Switchboard) -> None:
        """Lets the service talk to its like on other homeservers; before `start`."""
        self._links = links

    def on_allowed(self, callback: Callable[[RoomId], Awaitable[None]]) -> None:
        """Registers what to do in a room that the service has joined, and when its power levels change.

        Repeating it must be harmless. The power it needs may be given before the join or after it.
        """
        self._on_allowed = callback

    def welcome(self, words: Callable[[UserId], tuple[str, str]]) -> None:
        """Gives the service what to say, as text and as HTML, to a person in their new Home room."""
        self._welcome = words

    def routes(self) -> APIRouter:
        """What the homeserver calls, below the registration's `url`."""
        return transaction_routes(
            hs_token=self._registration.hs_token,
            accept=self._accept,
            is_wanted=self._is_wanted,
            on_receipt=self._read,
            users=frozenset({self.identity.user_id}),
        )

    @property
    def device(self) -> BotDevice:
        """The service user's device. Raises MatrixUnavailable until the homeserver has been reached."""
        if self._device is None:
            raise MatrixUnavailable(f"service {self.identity.name} has not reached the homeserver yet")
        return self._device

    async def upload(
        self, room_id: RoomId, data: bytes, content_type: str, filename: str
    ) -> Mapping[str, Any]:
        """A file for a message to that room: see BotDevice.upload. Raises MatrixRefused and
        MatrixUnavailable."""
        try:
            return await self.device.upload(room_id, data, content_type=content_type, filename=filename)
        except EncryptionUnsupported as unsupported:
            raise _refused(unsupported) from unsupported

    def start(self) -> asyncio.Task[None]:
        """Begins to work in the background; `is_ready` tells when it does.

        The task ends only by `stop`, or with what the service can't work without (CryptoStoreUnusable).
        """
        self._task = asyncio.create_task(self._run(), name=f"service {self.identity.name}")
        return self._task

    async def until_ready(self) -> None:
        await self._ready.wait()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._device is not None:
            self._device.close()

    # The way in.

    def _is_wanted(self, event: Mapping[str, Any]) -> bool:
        if event["type"] in _FROM_PEOPLE or (event["type"] == REDACTION and self._take is not None):
            return event["sender"] not in self.identity.service_users
        if event["type"] == LINK:
            return self._links is not None and self._links.is_wanted(event)
        return event["type"] in _ROOM_CHANGES

    async def _accept(self, events: Sequence[Mapping[str, Any]]) -> None:
        if not events:
            return
        await self.inbox.accept(events)
        # Known at once, not in its turn: nothing may be sent that a member who left could read.
        for event in events:
            self.rooms.observe(event)
            if self._device is not None:
                self._device.observe(dict(event))

    def _read(self, room_id: RoomId, user: UserId) -> None:
        if self._receipt is not None and user not in self.identity.service_users:
            self._receipt(room_id, user)

    async def _accept_missed(self, events: Sequence[Mapping[str, Any]]) -> None:
        await self._accept([event for event in events if is_sound(event) and self._is_wanted(event)])

    async def _handle(self, stored: StoredEvent) -> Sequence[Write] | None:
        with speaking(await self._language_of(UserId(stored.event["sender"]))):
            return await self._apply(stored)

    async def _apply(self, stored: StoredEvent) -> Sequence[Write] | None:
        event: Mapping[str, Any] = stored.event
        if event["type"] == LINK:
            return [] if self._links is None else await self._links.received(stored)
        if event["type"] == "m.room.member":
            if self._links is not None:
                self._links.member(event)
            return await self._own_membership(stored)
        if event["type"] == "m.room.power_levels":
            await self._allowed(stored.room_id)
            return []
        if event["type"] == "m.room.encrypted":
            try:
                event = await self._clear(stored)
            except Undecryptable as problem:
                return await self._unreadable(stored, problem)
        if self._take is not None and (taken := await self._take(event, stored)) is not None:
            return taken.writes
        reaction = Reaction.from_event(event)
        if reaction is not None:
            return await self._reacted(reaction, stored)
        message = IncomingMessage.from_event(event)
        if message is None or self._router is None:
            return []
        try:
            room = await self.rooms.room(stored.room_id)
        except MatrixRefused:
            # We are not in the room any more, so nobody there can be answered.
            return []
        return await self._router.route(message, room, stored)

    async def _reacted(self, reaction: Reaction, stored: StoredEvent) -> Sequence[Write] | None:
        subject = await self.outbox.subject_of(reaction.to) if self._react is not None else None
        if self._react is None or not subject:
            return []
        try:
            room = await self.rooms.room(stored.room_id)
        except MatrixRefused:
            return []
        call = ReactionCall(
            event_id=stored.event_id,
            sender=reaction.sender,
            room=room,
            stored=stored,
            service_user=self.identity.user_id,
            now_ms=self._clock(),
            key=reaction.key,
            subject=subject,
            to=reaction.to,
        )
        return await self._react(call)

    async def _clear(self, stored: StoredEvent) -> Mapping[str, Any]:
        """The event decrypted; waits a moment for the key of a new one. Raises KeyNotYetHere."""
        age_seconds = (self._clock() - stored.received_at_ms) / 1000
        deadline = asyncio.get_running_loop().time() + KEY_WAIT_SECONDS - age_seconds
        event = stored.event
        while True:
            new_keys = self._new_keys
            clear = await self.device.decrypt(dict(event))
            if clear is not None:
                return {
                    **clear,
                    "event_id": event["event_id"],
                    "room_id": event["room_id"],
                    "sender": event["sender"],
                }
            try:
                async with asyncio.timeout_at(deadline):
                    await new_keys.wait()
            except TimeoutError:
                raise KeyNotYetHere from None

    async def _unreadable(self, stored: StoredEvent, problem: Undecryptable) -> Sequence[Write]:
        """Tells whoever we are alone with; in other rooms it need not have been for us."""
        logger.info("event %s can't be read: %s", stored.event_id, problem.sentence)
        try:
            room = await self.rooms.room(stored.room_id)
        except MatrixRefused:
            return []
        if room.only_person != stored.event["sender"]:
            return []
        text = _("I can't read this message: {reason}").format(reason=_(problem.sentence))
        return [self._notice(stored, "unreadable", text)]

    def _notice(self, stored: StoredEvent, purpose: str, text: str) -> Write:
        outbox_id = OutboxId(derived_id(purpose, self.identity.user_id, stored.event_id))
        content = notice(text, reply_to=stored.event_id)
        return Outgoing(outbox_id, content, room_id=stored.room_id).write(now_ms=self._clock())

    async def _own_membership(self, stored: StoredEvent) -> Sequence[Write]:
        """Joins rooms that local members invite to, and takes note of rooms joined."""
        event = stored.event
        if event.get("state_key") != self.identity.user_id:
            return []
        room_id = RoomId(event["room_id"])
        membership = event["content"].get("membership")
        try:
            if membership == "invite":
                inviter = UserId(event["sender"])
                if server_of(inviter) != self._own_server:
                    if self._links is not None and await self._links.invited(stored):
                        return []
                    await self.device.intent.leave(room_id)
                    return []
                await self.device.intent.join(room_id)
                if event["content"].get("is_direct") is True:
                    await self.direct_rooms.note_direct_chat(room_id, inviter)
            elif membership == "join":
                await self._allowed(room_id)
                return await self._greetings(room_id)
        except MatrixRefused as refused:
            # The invite was taken back, or the room left again: there is nothing left to do.
            logger.info("membership of %s in %s: %s", self.identity.user_id, room_id, refused)
        return []

    async def _allowed(self, room_id: RoomId) -> None:
        if self._on_allowed is not None:
            await self._on_allowed(room_id)

    async def _greetings(self, room_id: RoomId) -> Sequence[Write]:
        """Takes note of a Home room just joined, and greets its person there if we have words for it."""
        create = await self.device.intent.state_event(room_id, "m.room.create") or {}
        if create.get("type") != HOME_ROOM_TYPE:
            return []
        person = await self.direct_rooms.note_home(room_id)
        if person is None or self._welcome is None or await self.outbox.knows(_welcome_id(room_id)):
            return []
        with speaking(await self._language_of(person)):
            text, formatted = self._welcome(person)
        outgoing = Outgoing(_welcome_id(room_id), notice(text, formatted=formatted), room_id=room_id)
        return [outgoing.write(now_ms=self._clock())]

    async def _given_up(self, stored: StoredEvent) -> Sequence[Write]:
        """What the room is told about an event that could not be applied: only where we had read it."""
        if stored.event["type"] != "m.room.message":
            return []
        body = stored.event["content"].get("body")
        if not isinstance(body, str) or not body.startswith("!"):
            return []
        with speaking(await self._language_of(UserId(stored.event["sender"]))):
            text = _(
                "Something went wrong on our side and this command was put aside. Please look at your "
                "history before you send it again."
            )
        return [self._notice(stored, "given up", text)]

    # The way out.

    async def _send(self, outgoing: Outgoing) -> Sent:
        room_id = outgoing.room_id
        if room_id is None:
            assert outgoing.to_user is not None
            room_id = await self.direct_rooms.room_for(outgoing.to_user)
        if outgoing.event_type == REDACTION:
            return await self._redact(room_id, outgoing)
        try:
            event_id = await self.device.send(
                room_id, outgoing.event_type, dict(outgoing.content), transaction_id=outgoing.outbox_id
            )
            return Sent(room_id, event_id)
        except EncryptionUnsupported as unsupported:
            raise _refused(unsupported) from unsupported

    async def _redact(self, room_id: RoomId, outgoing: Outgoing) -> Sent:
        """Takes back every version of one of our messages, the first one last: until then it is known."""
        done = EventId("")
        for event_id in outgoing.content["redacts"]:
            done = await self.device.intent.redact(
                room_id, EventId(event_id), transaction_id=derived_id("redact", outgoing.outbox_id, event_id)
            )
        return Sent(room_id, done)

    async def _members(self, room_id: RoomId) -> Members:
        intent = self.device.intent
        profiles = await intent.joined_members(room_id)
        joined = {user: profile.display_name for user, profile in profiles.items()}
        if len(joined.keys() - set(self.identity.service_users)) > 1:
            # With two people there it is no private room, whoever else may read.
            return Members(joined, frozenset(), is_closed=False)
        answer = await intent.call(
            "GET", path_of("rooms", room_id, "members"), parameters={"membership": "invite"}
        )
        invited = frozenset(UserId(event["state_key"]) for event in answer["chunk"])
        return Members(joined, invited, is_closed=await self._is_closed(room_id))

    async def _is_closed(self, room_id: RoomId) -> bool:
        intent = self.device.intent
        rules = await intent.state_event(room_id, "m.room.join_rules") or {}
        history = await intent.state_event(room_id, "m.room.history_visibility") or {}
        return (
            rules.get("join_rule", "invite") in _CLOSED_JOIN_RULES
            and history.get("history_visibility", "shared") != "world_readable"
        )

    async def _create_direct_room(self, user: UserId) -> RoomId:
        return await self.device.intent.create_room(
            invite=[user],
            is_direct=True,
            preset="trusted_private_chat",
            name=self.identity.display_name,
        )

    # Life.

    async def _run(self) -> None:
        pause_seconds = 0.5
        while True:
            try:
                self._device = await self._open_device()
                await self._show_name(self._device)
                break
            except (MatrixRefused, MatrixUnavailable) as problem:
                logger.warning("service %s waits for the homeserver: %s", self.identity.name, problem)
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, START_PAUSE_SECONDS_MAX)
        self._device.on_new_keys(self._keys_came)
        self._device.on_missed(self._accept_missed)
        self.is_ready = True
        self._ready.set()
        logger.info("service %s is ready", self.identity.name)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._device.run())
            group.create_task(self.inbox.run())
            group.create_task(self.outbox.run())
            group.create_task(self._retry_parked())
            group.create_task(self._ask_for_missed())
            if self._links is not None:
                group.create_task(self._links.run())

    async def _ask_for_missed(self) -> None:
        """Tells the homeserver that we are back, so that it sends what we missed now.

        On its own it would try again after a pause that has doubled, up to 512 s, for as long as we were
        away; a ping that reaches us ends the pause (Application Service API, section "Pinging").
        """
        path = f"/_matrix/client/v1{path_of('appservice', self._registration.id, 'ping')}"
        for pause_seconds in PING_PAUSES_SECONDS:
            await asyncio.sleep(pause_seconds)
            try:
                await self.device.intent.homeserver.call("POST", path, {}, user_id=None, retries=ONCE)
                return
            except (MatrixRefused, MatrixUnavailable) as problem:
                logger.info("the homeserver does not reach service %s yet: %s", self.identity.name, problem)
        logger.warning(
            "the homeserver does not reach service %s; `weft doctor` says more", self.identity.name
        )

    async def _show_name(self, device: BotDevice) -> None:
        profile = await device.intent.profile(self.identity.user_id)
        if profile is None or profile.display_name != self.identity.display_name:
            await device.intent.set_display_name(self.identity.display_name)

    def _keys_came(self) -> None:
        came, self._new_keys = self._new_keys, asyncio.Event()
        came.set()

    async def _retry_parked(self) -> None:
        """Tries parked events again when keys came, and now and then in case they came just before."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._new_keys.wait(), PARKED_RETRY_SECONDS)
            await self.inbox.retry_parked()
            # Keys come in bursts.
            await asyncio.sleep(PARKED_RETRY_PAUSE_SECONDS)


def _refused(unsupported: EncryptionUnsupported) -> MatrixRefused:
    return MatrixRefused(status=400, errcode="DEV_WEFT_ENCRYPTION_UNSUPPORTED", sentence=str(unsupported))


def _welcome_id(room_id: RoomId) -> OutboxId:
    return OutboxId(derived_id("welcome", room_id))
