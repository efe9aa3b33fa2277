"""One link at work: it packs what waits, sends, acknowledges, asks for what is missing, applies what comes.

The database says how far both directions are; this object holds the same in memory and is the only one that
changes it while it runs. Whatever else tries is stopped by the keys of the tables. What comes is applied in
order, each message once, its effects and the note that it has come in one transaction of the feature.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.homeserver import MatrixRefused, MatrixUnavailable
from appservices.chassis.links import storage as stored
from appservices.chassis.links.feature import ItemsRefused, LinkFeature, Road
from appservices.chassis.links.protocol import (
    AHEAD_MESSAGES_MAX,
    WINDOW_MESSAGES_MAX,
    Incoming,
    Message,
    MessageUnreadable,
    Outgoing,
    Place,
    Stop,
    StopReason,
    acknowledged,
    after,
    check_signature,
    lacks,
    next_chain,
    packed,
    place_of,
    read_message,
    signed_content,
    wants,
)
from appservices.chassis.links.storage import ItemsTaken, LinkStorage, StoredLink
from appservices.vocabulary.ids import UserId, derived_id
from appservices.vocabulary.signing import SignatureInvalid, SigningKey

logger = logging.getLogger(__name__)

ACK_SECONDS: Final = 0.05
"""How long an acknowledgement waits for a message that it can ride on."""
ACK_AGAIN_SECONDS: Final = 2.0
"""Between two notes that acknowledge the same, however often the peer wants one."""
ASK_SECONDS: Final = 1.0
"""Between two requests for the same missing message; doubled up to PAUSE_SECONDS_MAX until one comes."""
RESEND_SECONDS: Final = 1.0
"""Between two answers to such requests; doubled up to PAUSE_SECONDS_MAX until one is acknowledged. So a peer
that claims and asks for ever costs us next to nothing."""
PAUSE_SECONDS_MAX: Final = 60.0
PING_SECONDS: Final = 3.0
"""After which the peer is asked whether it got what it does not acknowledge; doubled up to the next one."""
PING_SECONDS_MAX: Final = 300.0
STOPPED_NOTE_SECONDS: Final = 30.0
IDLE_SECONDS: Final = 2.0
"""After which a link looks by itself for items that another process has written."""
RETRY_SECONDS_MAX: Final = 30.0
FLOOD_MESSAGES_MAX: Final = 400
FLOOD_SECONDS: Final = 10.0
"""More messages than that within FLOOD_SECONDS are dropped unread; what was true comes again."""
TIME_RESERVED_MS: Final = 60_000
"""How far ahead of what was said the time is written down below which nothing is said after a restart."""


class Link:
    """One link. `run` sends, `receive` takes what comes."""

    def __init__(
        self,
        link: StoredLink,
        *,
        own_user: UserId,
        key: SigningKey,
        storage: LinkStorage,
        road: Road,
        feature: LinkFeature,
        clock: Clock,
    ) -> None:
        self._link = link
        self._own_user = own_user
        self._key = key
        self._storage = storage
        self._road = road
        self._feature = feature
        self._clock = clock
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._receiving = asyncio.Lock()
        self._sending = asyncio.Lock()
        self._early: dict[int, Message] = {}
        self._counts: Counter[str] = Counter()
        self._recent: deque[float] = deque()
        self._last_at_ms = link.said_until_ms
        # What is to be done, by the loop's clock.
        self._ack_due_at: float | None = None
        self._ack_said: tuple[Incoming, float] | None = None
        self._ask_at: float | None = None
        self._ask_seconds = ASK_SECONDS
        self._resend_from: int | None = link.outgoing.acked + 1 if _unacked(link.outgoing) else None
        self._resend_first_time = True
        self._resend_at = 0.0
        self._resend_seconds = RESEND_SECONDS
        self._ping_at: float | None = None
        self._ping_seconds = PING_SECONDS
        self._wants_ack = False
        self._stopped_note_at: float | None = 0.0 if link.state == stored.STOPPED else None
        self._heard_written_ms = link.heard_at_ms
        self._owed_since_ms = max(link.heard_at_ms, link.created_at_ms)
        """When the peer last acknowledged something, or was first sent something that it has not."""

    @property
    def peer(self) -> UserId:
        return self._link.peer

    @property
    def state(self) -> StoredLink:
        """The link as it stands in memory."""
        return self._link

    @property
    def silent_ms(self) -> int:
        """For how long the peer has acknowledged nothing of what it owes us; 0 when it owes nothing. Whatever
        else it says does not count."""
        return max(0, self._clock() - self._owed_since_ms) if _unacked(self._link.outgoing) else 0

    def wake(self) -> None:
        """To be called after a commit that may have left items waiting, and when the road has changed."""
        self._wake.set()

    def set_room(self, link: StoredLink) -> None:
        """Takes over where the link's room is now, after that was committed."""
        self._link = replace(self._link, room_id=link.room_id, room_is_ours=link.room_is_ours)
        self._wake.set()

    def count(self, name: str, number: int = 1) -> None:
        """Notes that something was refused or met, for operators."""
        self._counts[name] += number

    async def wait_until_open(self, seconds_max: float) -> bool:
        """Whether the peer is there, or comes within that time."""
        self._wake.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await self._ready.wait()
        return self._ready.is_set()

    # What comes.

    async def receive(self, content: Mapping[str, Any], *, done: Write) -> bool:
        """Takes one event's content from the peer. True when `done` was committed with its effects.

        Whatever it raises has changed nothing, and the same event may come again.
        """
        async with self._receiving:
            if self._is_flood():
                self.count("flood")
                return False
            try:
                return await self._receive(content, done)
            except Exception:
                await self._reload()
                raise

    async def _receive(self, content: Mapping[str, Any], done: Write) -> bool:
        if not content:
            # What was redacted before it came has no content; its message is asked for again.
            self.count("redacted")
            return False
        try:
            message = read_message(content, sender=self.peer)
        except MessageUnreadable as problem:
            self.count("unreadable")
            await self.stop(StopReason.UNREADABLE, str(problem))
            return False
        if message.to != self._own_user:
            self.count("misaddressed")
            return False
        if not await self._is_genuine(content):
            return False
        await self._note_heard()
        if self._link.state == stored.STOPPED:
            self.count("while_stopped")
            self._answer_that_stopped()
            return False
        current = message.ack_epoch in (0, self._link.outgoing.epoch)
        if message.epoch <= self._link.incoming.floor or message.epoch < self._link.incoming.epoch:
            self.count("old_epoch")
            return False
        if message.stopped and current:
            await self.stop(StopReason.STOPPED_BY_PEER, message.stopped)
            return False
        outgoing = acknowledged(self._link.outgoing, message)
        if isinstance(outgoing, Stop):
            await self.stop(outgoing.reason, outgoing.detail)
            return False
        self._note_wishes(message)
        writes = stored.acked_writes(self.peer, outgoing) if outgoing != self._link.outgoing else []
        if message.seq is None:
            if writes:
                await self._storage.write(writes)
                self._set_acked(outgoing)
            if message.wants_ack:
                self._owe_ack(now=True)
            if lacks(self._link.incoming, message):
                self._ask()
            return False
        return await self._receive_numbered(message, outgoing, writes, done)

    async def _receive_numbered(
        self, message: Message, outgoing: Outgoing, writes: Sequence[Write], done: Write
    ) -> bool:
        assert message.seq is not None
        place = place_of(self._link.incoming, message)
        if isinstance(place, Stop):
            await self.stop(place.reason, place.detail)
            return False
        if place is Place.NEXT:
            applied = await self._apply(message, [*writes, done])
            if applied:
                self._set_acked(outgoing)
                await self._apply_early()
            return applied
        if writes:
            await self._storage.write(writes)
            self._set_acked(outgoing)
        if place is Place.AHEAD:
            if message.seq - self._link.incoming.seq <= AHEAD_MESSAGES_MAX:
                self._early[message.seq] = message
            self.count("gap")
            self._ask()
        elif place is Place.KNOWN:
            chain = await self._storage.received_chain(self.peer, epoch=message.epoch, seq=message.seq)
            if chain is not None and chain != next_chain(message.prev, message.seq, message.items):
                await self.stop(StopReason.FORKED, f"message {message.seq} came again with other content")
                return False
            self.count("repeated")
            self._owe_ack()
        return False

    async def _apply(self, message: Message, writes: Sequence[Write]) -> bool:
        now = after(self._link.incoming, message)
        received = stored.received_writes(self.peer, now, at_ms=self._clock())
        try:
            await self._feature.apply(self.peer, message.items, [*received, *writes])
        except ItemsRefused as refused:
            self.count(refused.reason.value)
            await self.stop(refused.reason, refused.detail)
            return False
        self._link = replace(self._link, incoming=now)
        self._ask_at, self._ask_seconds = None, ASK_SECONDS
        self._owe_ack()
        return True

    async def _apply_early(self) -> None:
        """Applies what came too early and follows now."""
        while (message := self._early.pop(self._link.incoming.seq + 1, None)) is not None:
            place = place_of(self._link.incoming, message)
            if isinstance(place, Stop):
                await self.stop(place.reason, place.detail)
                return
            if place is not Place.NEXT or not await self._apply(message, []):
                return
        for seq in [seq for seq in self._early if seq <= self._link.incoming.seq]:
            del self._early[seq]
        if self._early:
            self._ask()

    async def _is_genuine(self, content: Mapping[str, Any]) -> bool:
        keys = self._link.peer_keys
        if not keys:
            keys = await self._road.peer_keys(self._link) or {}
            if not keys:
                self.count("keys_unknown")
                return False
            # The first keys that the peer's homeserver vouches for are the ones we keep to.
            await self._storage.write([stored.keys_write(self.peer, keys)])
            self._link = replace(self._link, peer_keys=keys)
        try:
            check_signature(content, sender=self.peer, keys=keys)
        except SignatureInvalid as problem:
            self.count("signature_wrong")
            shown = await self._road.peer_keys(self._link)
            changed = shown is not None and dict(shown) != dict(keys)
            await self.stop(StopReason.KEY_CHANGED if changed else StopReason.SIGNATURE_WRONG, str(problem))
            return False
        return True

    def _is_flood(self) -> bool:
        now = self._now()
        self._recent.append(now)
        while self._recent and self._recent[0] < now - FLOOD_SECONDS:
            self._recent.popleft()
        return len(self._recent) > FLOOD_MESSAGES_MAX

    async def _note_heard(self) -> None:
        now_ms = self._clock()
        self._link = replace(self._link, heard_at_ms=now_ms)
        if now_ms - self._heard_written_ms > 60_000:
            self._heard_written_ms = now_ms
            await self._storage.write([stored.heard_write(self.peer, now_ms)])

    def _note_wishes(self, message: Message) -> None:
        resend_from = wants(self._link.outgoing, message)
        if resend_from is not None:
            self._resend_from = min(resend_from, self._resend_from or resend_from)
            self._wake.set()

    def _set_acked(self, outgoing: Outgoing) -> None:
        before = self._link.outgoing
        if outgoing.epoch != before.epoch or outgoing.acked <= before.acked:
            return
        self._link = replace(
            self._link, outgoing=replace(before, acked=outgoing.acked, acked_at_ms=outgoing.acked_at_ms)
        )
        self._owed_since_ms = self._clock()
        self._ping_seconds, self._resend_seconds = PING_SECONDS, RESEND_SECONDS
        self._ping_at = self._now() + PING_SECONDS if _unacked(self._link.outgoing) else None
        self._wake.set()

    def _owe_ack(self, *, now: bool = False) -> None:
        due_at = self._now() + (0 if now else ACK_SECONDS)
        if self._ack_said is not None and self._ack_said[0] == self._link.incoming:
            due_at = max(due_at, self._ack_said[1] + ACK_AGAIN_SECONDS)
        self._ack_due_at = due_at if self._ack_due_at is None else min(due_at, self._ack_due_at)
        self._wake.set()

    def _ask(self) -> None:
        if self._ask_at is None:
            # What is missing is mostly on its way; a moment later it would have been asked for in vain.
            self._ask_at = self._now() + ACK_SECONDS
        self._wake.set()

    def _answer_that_stopped(self) -> None:
        if self._stopped_note_at is None:
            self._stopped_note_at = self._now() + STOPPED_NOTE_SECONDS
        self._wake.set()

    # Stopping and mending.

    async def stop(self, reason: StopReason, detail: str) -> None:
        """Stops the link and tells both operators. What waits stays; nothing more is applied."""
        if self._link.state == stored.STOPPED:
            return
        logger.error("the link with %s has stopped: %s (%s)", self.peer, reason.value, detail)
        now_ms = self._clock()
        state = stored.state_write(
            self.peer, stored.STOPPED, reason=reason.value, detail=detail, at_ms=now_ms
        )
        told = await self._feature.stopped(self.peer, reason, detail)
        await self._storage.write([state, *told])
        self._link = replace(
            self._link, state=stored.STOPPED, reason=reason.value, detail=detail, stopped_at_ms=now_ms
        )
        self._early.clear()
        self._stopped_note_at = self._now()
        self._wake.set()

    async def fulfil_wish(self, wish: str) -> None:
        """Does what the operator wants."""
        async with self._receiving, self._sending:
            done = stored.wish_write(self.peer, "")
            if wish == stored.STOP:
                await self._storage.write([done])
                await self.stop(StopReason.STOPPED_BY_OPERATOR, "")
            elif wish == stored.TRUST:
                await self._trust(done)
            elif wish == stored.MEND:
                await self._mend(done)
            else:
                await self._storage.write([done])

    async def _trust(self, done: Write) -> None:
        """Keeps to the keys that the peer shows now."""
        keys = await self._road.peer_keys(self._link) or {}
        await self._storage.write([stored.keys_write(self.peer, keys), done])
        self._link = replace(self._link, peer_keys=keys)
        logger.warning("the keys that %s shows now are trusted: %s", self.peer, ", ".join(keys) or "none")

    async def _mend(self, done: Write) -> None:
        """Begins to number anew in both directions; what was not acknowledged is sent again."""
        first = await self._feature.mended(self.peer)
        self._link = await self._storage.begin_anew(
            self._link, own_user=self._own_user, now_ms=self._clock(), first=first, done=done
        )
        self._early.clear()
        self._resend_from = self._stopped_note_at = self._ping_at = self._ask_at = None
        logger.warning("the link with %s begins anew", self.peer)
        self._wake.set()

    async def _reload(self) -> None:
        """Takes what the database says, after a commit of which it is not known how it ended."""
        with suppress(Exception):
            link = await self._storage.one(self.peer)
            if link is not None:
                self._link = replace(link, heard_at_ms=max(link.heard_at_ms, self._link.heard_at_ms))

    # What goes.

    async def run(self) -> None:
        """Sends until cancelled."""
        retry_seconds = 1.0
        while True:
            self._wake.clear()
            try:
                async with self._sending:
                    pause_seconds = await self._turn()
                retry_seconds = 1.0
            except (MatrixUnavailable, MatrixRefused) as problem:
                logger.info("the link with %s waits: %s", self.peer, problem)
                if _unacked(self._link.outgoing):
                    # What may not have gone goes again as it would have gone.
                    self._resend_from, self._resend_first_time = self._link.outgoing.acked + 1, True
                    self._resend_at = 0.0
                pause_seconds = retry_seconds
                retry_seconds = min(2 * retry_seconds, RETRY_SECONDS_MAX)
            except ItemsTaken:
                await self._reload()
                pause_seconds = 0.0
            except Exception:
                logger.exception("the link with %s failed and goes on", self.peer)
                await self._reload()
                pause_seconds = retry_seconds
                retry_seconds = min(2 * retry_seconds, RETRY_SECONDS_MAX)
            # Not wait_for, which may swallow a cancellation that comes with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_seconds):
                    await self._wake.wait()

    async def flush_counts(self) -> None:
        """Writes down what was counted."""
        if self._counts:
            counts, self._counts = self._counts, Counter()
            await self._storage.count(self.peer, counts, at_ms=self._clock())

    async def _turn(self) -> float:
        """Does what is due; how long to wait for the next turn unless woken."""
        if self._link.state == stored.STOPPED:
            return await self._turn_stopped()
        if not await self._has_something_to_do():
            return self._pause()
        if not await self._road.is_open(self._link):
            self._ready.clear()
            return 1.0
        self._ready.set()
        await self._resend_what_was_asked()
        while _unacked(self._link.outgoing) < WINDOW_MESSAGES_MAX and await self._send_next():
            pass
        await self._send_note_if_due()
        return self._pause()

    async def _turn_stopped(self) -> float:
        now = self._now()
        if self._stopped_note_at is not None and now >= self._stopped_note_at:
            self._stopped_note_at = None
            if await self._road.is_open(self._link):
                await self._send_note(stopped=self._link.reason)
        return STOPPED_NOTE_SECONDS if self._stopped_note_at is None else self._stopped_note_at - now

    async def _has_something_to_do(self) -> bool:
        due = (self._ack_due_at, self._ask_at, self._ping_at, self._resend_from)
        if not self._ready.is_set() or any(moment is not None for moment in due):
            return True
        return bool(await self._storage.waiting(self.peer))

    def _pause(self) -> float:
        moments = [moment for moment in (self._ack_due_at, self._ask_at, self._ping_at) if moment is not None]
        if self._resend_from is not None:
            moments.append(self._resend_at)
        return max(0.0, min([IDLE_SECONDS, *(moment - self._now() for moment in moments)]))

    async def _send_next(self) -> bool:
        """Puts as much of what waits as fits into one message and sends it; False when nothing waits."""
        waiting = await self._storage.waiting(self.peer)
        if not waiting:
            return False
        taken = waiting[: packed([text for _position, text in waiting])]
        items = tuple(json.loads(text) for _position, text in taken)
        before = self._link.outgoing
        seq = before.seq + 1
        message = replace(await self._note(), seq=seq, prev=before.chain, items=items, sent=seq)
        content = signed_content(message, self._key)
        now = replace(before, seq=seq, chain=next_chain(before.chain, seq, items))
        await self._storage.take(
            [position for position, _text in taken],
            stored.message_writes(self.peer, now, json.dumps(content), at_ms=message.at_ms),
        )
        # An acknowledgement may have come meanwhile.
        current = self._link.outgoing
        if not _unacked(current):
            self._owed_since_ms = self._clock()
        self._link = replace(self._link, outgoing=replace(current, seq=now.seq, chain=now.chain))
        self._ack_due_at = None
        if self._ping_at is None:
            self._ping_at = self._now() + self._ping_seconds
        await self._send(content, seq=seq)
        return True

    async def _resend_what_was_asked(self) -> None:
        if self._resend_from is None or self._now() < self._resend_at:
            return
        first, self._resend_from = max(self._resend_from, self._link.outgoing.acked + 1), None
        self._resend_at = self._now() + self._resend_seconds
        self._resend_seconds = min(2 * self._resend_seconds, PAUSE_SECONDS_MAX)
        messages = await self._storage.unacknowledged(
            self.peer, epoch=self._link.outgoing.epoch, first=first, limit=WINDOW_MESSAGES_MAX
        )
        # After a start what may never have been sent goes as it would have gone: Synapse knows it if it was.
        attempt = "" if self._resend_first_time else str(self._clock())
        for seq, content in messages:
            await self._send(json.loads(content), seq=seq, attempt=attempt)
        if not self._resend_first_time:
            self.count("sent_again", len(messages))
        self._resend_first_time = False
        if messages and self._ping_at is None:
            self._ping_at = self._now() + self._ping_seconds

    async def _send_note_if_due(self) -> None:
        now = self._now()
        asks = self._ask_at is not None and now >= self._ask_at
        pings = self._ping_at is not None and now >= self._ping_at
        if not asks and not pings and (self._ack_due_at is None or now < self._ack_due_at):
            return
        resend_from = None
        if asks:
            resend_from = self._link.incoming.seq + 1
            # Until it has come, it is asked for again.
            self._ask_seconds = min(2 * self._ask_seconds, PAUSE_SECONDS_MAX)
            self._ask_at = now + self._ask_seconds
        if pings:
            self._ping_seconds = min(2 * self._ping_seconds, PING_SECONDS_MAX)
            self._ping_at = now + self._ping_seconds if _unacked(self._link.outgoing) else None
            pings = self._ping_at is not None
        acks = self._ack_due_at is not None
        self._ack_due_at = None
        if asks or pings or acks:
            await self._send_note(resend_from=resend_from, wants_ack=pings)

    async def _send_note(
        self, *, resend_from: int | None = None, wants_ack: bool = False, stopped: str = ""
    ) -> None:
        note = replace(await self._note(), resend_from=resend_from, wants_ack=wants_ack, stopped=stopped)
        await self._send(signed_content(note, self._key), seq=0, attempt=str(note.at_ms))

    async def _note(self) -> Message:
        """What every message says, as of now."""
        at_ms = await self._time()
        outgoing, incoming = self._link.outgoing, self._link.incoming
        self._ack_said = incoming, self._now()
        return Message(
            sender=self._own_user,
            to=self.peer,
            epoch=outgoing.epoch,
            at_ms=at_ms,
            ack_epoch=incoming.epoch,
            ack=incoming.seq,
            sent=outgoing.seq,
        )

    async def _time(self) -> int:
        """The time of the next message. It never goes back, whatever clock and process do: of two messages
        the later one counts."""
        self._last_at_ms = max(self._clock(), self._last_at_ms + 1)
        if self._last_at_ms > self._link.said_until_ms:
            until_ms = self._last_at_ms + TIME_RESERVED_MS
            await self._storage.write([stored.said_until_write(self.peer, until_ms)])
            self._link = replace(self._link, said_until_ms=until_ms)
        return self._last_at_ms

    async def _send(self, content: Mapping[str, Any], *, seq: int, attempt: str = "") -> None:
        epoch = str(self._link.outgoing.epoch)
        transaction_id = derived_id("link", self._own_user, self.peer, epoch, str(seq), attempt)
        await self._road.send(self._link, content, transaction_id=transaction_id)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _unacked(outgoing: Outgoing) -> int:
    return outgoing.seq - outgoing.acked
