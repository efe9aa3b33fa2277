"""Links in the service's database: read as values, changed by Writes that ride in whoever's transaction."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, func, insert, select, update

from appservices.chassis.database import Database, Write
from appservices.chassis.links.protocol import Incoming, Item, Outgoing, first_chain, item_text
from appservices.chassis.links.tables import link_counts, link_items, link_messages, link_received, links
from appservices.vocabulary.ids import RoomId, UserId

OPEN, STOPPED = "open", "stopped"
MEND, TRUST, STOP = "mend", "trust", "stop"
"""What an operator may wish of a link."""
WAITING_READ_MAX: Final = 1_000
RECEIVED_KEPT_MS: Final = 60 * 24 * 3600 * 1000
"""How long the chain of a received message is kept, to tell a repetition from another of its number."""

_OF_PEER = links.c.peer == bindparam("of_peer")
_INSERT_LINK: Final = insert(links)
_INSERT_ITEM: Final = insert(link_items)
_INSERT_MESSAGE: Final = insert(link_messages)
_INSERT_RECEIVED: Final = insert(link_received)
_SET_RECEIVED: Final = (
    update(links)
    .where(_OF_PEER)
    .values(
        in_epoch=bindparam("new_epoch"),
        in_seq=bindparam("new_seq"),
        in_chain=bindparam("new_chain"),
        in_floor=bindparam("new_floor"),
    )
)
_SET_SENT: Final = (
    update(links)
    .where(_OF_PEER)
    .values(out_epoch=bindparam("new_epoch"), out_seq=bindparam("new_seq"), out_chain=bindparam("new_chain"))
)
_SET_ACKED: Final = (
    update(links)
    .where(_OF_PEER)
    .values(out_acked=bindparam("new_acked"), out_acked_at_ms=bindparam("new_at_ms"))
)
_FORGET_ACKED: Final = delete(link_messages).where(
    link_messages.c.peer == bindparam("of_peer"),
    link_messages.c.epoch == bindparam("of_epoch"),
    link_messages.c.seq <= bindparam("up_to_seq"),
)
_FORGET_MESSAGES: Final = delete(link_messages).where(link_messages.c.peer == bindparam("of_peer"))
_SET_ROOM: Final = (
    update(links)
    .where(_OF_PEER)
    .values(room_id=bindparam("new_room_id"), room_is_ours=bindparam("new_is_ours"))
)
_SET_KEYS: Final = update(links).where(_OF_PEER).values(peer_keys=bindparam("new_keys"))
_SET_STATE: Final = (
    update(links)
    .where(_OF_PEER)
    .values(
        state=bindparam("new_state"),
        reason=bindparam("new_reason"),
        detail=bindparam("new_detail"),
        stopped_at_ms=bindparam("new_at_ms"),
    )
)
_SET_WISH: Final = update(links).where(_OF_PEER).values(wish=bindparam("new_wish"))
_SET_SAID_UNTIL: Final = update(links).where(_OF_PEER).values(said_until_ms=bindparam("new_at_ms"))
_SET_HEARD: Final = update(links).where(_OF_PEER).values(heard_at_ms=bindparam("new_at_ms"))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLink:
    """One link as it stands."""

    peer: UserId
    state: str
    reason: str
    detail: str
    stopped_at_ms: int | None
    room_id: RoomId | None
    room_is_ours: bool
    peer_keys: Mapping[str, str]
    wish: str
    outgoing: Outgoing
    incoming: Incoming
    heard_at_ms: int
    """When the peer's last message came, 0 for never."""
    created_at_ms: int
    said_until_ms: int = 0
    """No message of ours says a later time than this one."""
    items_waiting: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)


def new_link(own_user: UserId, peer: UserId, *, now_ms: int) -> StoredLink:
    """A link that nothing was sent on yet."""
    return StoredLink(
        peer=peer,
        state=OPEN,
        reason="",
        detail="",
        stopped_at_ms=None,
        room_id=None,
        room_is_ours=False,
        peer_keys={},
        wish="",
        outgoing=Outgoing(now_ms, chain=first_chain(own_user, peer, now_ms)),
        incoming=Incoming(),
        heard_at_ms=0,
        created_at_ms=now_ms,
    )


def link_write(link: StoredLink) -> Write:
    """The row of a new link."""
    return Write(
        _INSERT_LINK,
        {
            "peer": link.peer,
            "state": link.state,
            "reason": link.reason,
            "detail": link.detail,
            "stopped_at_ms": link.stopped_at_ms,
            "room_id": link.room_id,
            "room_is_ours": link.room_is_ours,
            "peer_keys": json.dumps(dict(link.peer_keys)),
            "wish": link.wish,
            "out_epoch": link.outgoing.epoch,
            "out_seq": link.outgoing.seq,
            "out_chain": link.outgoing.chain,
            "out_acked": link.outgoing.acked,
            "out_acked_at_ms": link.outgoing.acked_at_ms,
            "in_epoch": link.incoming.epoch,
            "in_seq": link.incoming.seq,
            "in_chain": link.incoming.chain,
            "in_floor": link.incoming.floor,
            "heard_at_ms": link.heard_at_ms,
            "created_at_ms": link.created_at_ms,
            "said_until_ms": link.said_until_ms,
        },
    )


def item_write(peer: UserId, item: Item) -> Write:
    """An item to be sent to the peer, to be committed with what it tells of. Raises ValueError for one that
    can't be sent."""
    return Write(_INSERT_ITEM, {"peer": peer, "item": item_text(item)})


def received_writes(peer: UserId, now: Incoming, *, at_ms: int) -> list[Write]:
    """That a message was applied; refused by the database when it was already."""
    row = {"peer": peer, "epoch": now.epoch, "seq": now.seq, "chain": now.chain, "at_ms": at_ms}
    return [Write(_INSERT_RECEIVED, row), incoming_write(peer, now)]


def incoming_write(peer: UserId, incoming: Incoming) -> Write:
    return Write(
        _SET_RECEIVED,
        {
            "of_peer": peer,
            "new_epoch": incoming.epoch,
            "new_seq": incoming.seq,
            "new_chain": incoming.chain,
            "new_floor": incoming.floor,
        },
    )


def message_writes(peer: UserId, outgoing: Outgoing, content: str, *, at_ms: int) -> list[Write]:
    """A message with the number `outgoing.seq`; refused by the database when the number was given already."""
    row = {
        "peer": peer,
        "epoch": outgoing.epoch,
        "seq": outgoing.seq,
        "content": content,
        "created_at_ms": at_ms,
    }
    return [Write(_INSERT_MESSAGE, row), outgoing_write(peer, outgoing)]


def outgoing_write(peer: UserId, outgoing: Outgoing) -> Write:
    return Write(
        _SET_SENT,
        {
            "of_peer": peer,
            "new_epoch": outgoing.epoch,
            "new_seq": outgoing.seq,
            "new_chain": outgoing.chain,
        },
    )


def acked_writes(peer: UserId, outgoing: Outgoing) -> list[Write]:
    """The peer's acknowledgement; what it covers need not be kept."""
    forget = {"of_peer": peer, "of_epoch": outgoing.epoch, "up_to_seq": outgoing.acked}
    acked = {"of_peer": peer, "new_acked": outgoing.acked, "new_at_ms": outgoing.acked_at_ms}
    return [Write(_SET_ACKED, acked), Write(_FORGET_ACKED, forget)]


def room_write(peer: UserId, room_id: RoomId | None, *, is_ours: bool) -> Write:
    return Write(_SET_ROOM, {"of_peer": peer, "new_room_id": room_id, "new_is_ours": is_ours})


def keys_write(peer: UserId, keys: Mapping[str, str]) -> Write:
    return Write(_SET_KEYS, {"of_peer": peer, "new_keys": json.dumps(dict(keys))})


def state_write(peer: UserId, state: str, *, reason: str = "", detail: str = "", at_ms: int | None) -> Write:
    return Write(
        _SET_STATE,
        {
            "of_peer": peer,
            "new_state": state,
            "new_reason": reason,
            "new_detail": detail[:500],
            "new_at_ms": at_ms,
        },
    )


def wish_write(peer: UserId, wish: str) -> Write:
    """What the operator wants of a link; the service that runs, or runs next, does it."""
    return Write(_SET_WISH, {"of_peer": peer, "new_wish": wish})


def said_until_write(peer: UserId, at_ms: int) -> Write:
    return Write(_SET_SAID_UNTIL, {"of_peer": peer, "new_at_ms": at_ms})


def heard_write(peer: UserId, at_ms: int) -> Write:
    return Write(_SET_HEARD, {"of_peer": peer, "new_at_ms": at_ms})


class LinkStorage:
    """Reads links."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def all(self) -> list[StoredLink]:
        """Every link with what waits on it and what was counted, for whoever shows them."""
        waiting_query = select(link_items.c.peer, func.count().label("items")).group_by(link_items.c.peer)
        async with self.database.read() as work:
            rows = (await work.execute(select(links).order_by(links.c.peer))).all()
            waiting = {row.peer: row.items for row in await work.execute(waiting_query)}
            counts: dict[str, dict[str, int]] = {}
            for row in await work.execute(select(link_counts).order_by(link_counts.c.name)):
                counts.setdefault(row.peer, {})[row.name] = row._mapping["count"]
        return [
            _stored(row, items_waiting=waiting.get(row.peer, 0), counts=counts.get(row.peer, {}))
            for row in rows
        ]

    async def one(self, peer: UserId) -> StoredLink | None:
        async with self.database.read() as work:
            row = (await work.execute(select(links).where(links.c.peer == peer))).first()
        return None if row is None else _stored(row)

    async def wishes(self) -> dict[UserId, str]:
        """What operators want and is still to be done."""
        query = select(links.c.peer, links.c.wish).where(links.c.wish != "")
        async with self.database.read() as work:
            return {UserId(row.peer): row.wish for row in await work.execute(query)}

    async def peers_with_items(self) -> list[UserId]:
        """Whom something waits to be sent to."""
        async with self.database.read() as work:
            rows = await work.execute(select(link_items.c.peer).distinct())
            return [UserId(row.peer) for row in rows]

    async def waiting(self, peer: UserId) -> list[tuple[int, str]]:
        """Position and text of the items that wait, the first WAITING_READ_MAX of them."""
        query = (
            select(link_items.c.position, link_items.c.item)
            .where(link_items.c.peer == peer)
            .order_by(link_items.c.position)
            .limit(WAITING_READ_MAX)
        )
        async with self.database.read() as work:
            return [(row.position, row.item) for row in await work.execute(query)]

    async def unacknowledged(
        self, peer: UserId, *, epoch: int, first: int, limit: int
    ) -> list[tuple[int, str]]:
        """Number and content of messages sent and not acknowledged, from a number on."""
        columns = link_messages.c
        query = (
            select(columns.seq, columns.content)
            .where(columns.peer == peer, columns.epoch == epoch, columns.seq >= first)
            .order_by(columns.seq)
            .limit(limit)
        )
        async with self.database.read() as work:
            return [(row.seq, row.content) for row in await work.execute(query)]

    async def received_chain(self, peer: UserId, *, epoch: int, seq: int) -> str | None:
        """The chain of a message that was applied; None when it is not known any more."""
        columns = link_received.c
        query = select(columns.chain).where(columns.peer == peer, columns.epoch == epoch, columns.seq == seq)
        async with self.database.read() as work:
            return (await work.execute(query)).scalar_one_or_none()

    async def write(self, writes: Sequence[Write]) -> None:
        async with self.database.begin() as work:
            await work.apply(writes)
            await work.commit()

    async def take(self, positions: Sequence[int], writes: Sequence[Write]) -> None:
        """Commits a message in exchange for the items that are in it now."""
        async with self.database.begin() as work:
            for start in range(0, len(positions), 500):
                some = positions[start : start + 500]
                gone = await work.execute(delete(link_items).where(link_items.c.position.in_(some)))
                if gone.rowcount != len(some):
                    # Somebody else took some of them: nothing of this is committed.
                    raise ItemsTaken
            await work.apply(writes)
            await work.commit()

    async def begin_anew(
        self, before: StoredLink, *, own_user: UserId, now_ms: int, first: Sequence[Write], done: Write
    ) -> StoredLink:
        """Numbers anew in both directions. What was sent and not acknowledged waits again, before what waits
        already; `first` and `done` are committed with it."""
        peer = before.peer
        epoch = max(now_ms, before.outgoing.epoch + 1)
        outgoing = Outgoing(epoch, chain=first_chain(own_user, peer, epoch))
        incoming = Incoming(floor=max(before.incoming.epoch, before.incoming.floor))
        unacked = await self.unacknowledged(
            peer, epoch=before.outgoing.epoch, first=before.outgoing.acked + 1, limit=WAITING_READ_MAX
        )
        again = [item_text(item) for _seq, content in unacked for item in json.loads(content)["items"]]
        async with self.database.begin() as work:
            query = select(link_items.c.item).where(link_items.c.peer == peer).order_by(link_items.c.position)
            waiting = list((await work.execute(query)).scalars())
            await work.execute(delete(link_items).where(link_items.c.peer == peer))
            await work.apply(
                [
                    Write(_FORGET_MESSAGES, {"of_peer": peer}),
                    *(Write(_INSERT_ITEM, {"peer": peer, "item": text}) for text in (*again, *waiting)),
                    *first,
                    outgoing_write(peer, outgoing),
                    *acked_writes(peer, outgoing),
                    incoming_write(peer, incoming),
                    state_write(peer, OPEN, at_ms=None),
                    done,
                ]
            )
            await work.commit()
        return replace(
            before,
            state=OPEN,
            reason="",
            detail="",
            stopped_at_ms=None,
            outgoing=outgoing,
            incoming=incoming,
        )

    async def count(self, peer: UserId, counts: Mapping[str, int], *, at_ms: int) -> None:
        """Adds to what was met on a link."""
        columns = link_counts.c
        async with self.database.begin() as work:
            for name, number in counts.items():
                changed = await work.execute(
                    update(link_counts)
                    .where(columns.peer == peer, columns.name == name)
                    .values(count=columns["count"] + number, last_at_ms=at_ms)
                )
                if changed.rowcount == 0:
                    row = {"peer": peer, "name": name, "count": number, "last_at_ms": at_ms}
                    await work.execute(insert(link_counts), row)
            await work.commit()

    async def purge(self, *, now_ms: int) -> None:
        """Forgets what is older than RECEIVED_KEPT_MS."""
        async with self.database.begin() as work:
            await work.execute(delete(link_received).where(link_received.c.at_ms < now_ms - RECEIVED_KEPT_MS))
            await work.commit()


class ItemsTaken(Exception):
    """Items that were to be sent were taken by another process."""


def _stored(row: Row[Any], *, items_waiting: int = 0, counts: Mapping[str, int] | None = None) -> StoredLink:
    return StoredLink(
        peer=UserId(row.peer),
        state=row.state,
        reason=row.reason,
        detail=row.detail,
        stopped_at_ms=row.stopped_at_ms,
        room_id=RoomId(row.room_id) if row.room_id else None,
        room_is_ours=row.room_is_ours,
        peer_keys=json.loads(row.peer_keys),
        wish=row.wish,
        outgoing=Outgoing(row.out_epoch, row.out_seq, row.out_chain, row.out_acked, row.out_acked_at_ms),
        incoming=Incoming(row.in_epoch, row.in_seq, row.in_chain, row.in_floor),
        heard_at_ms=row.heard_at_ms,
        created_at_ms=row.created_at_ms,
        said_until_ms=row.said_until_ms,
        items_waiting=items_waiting,
        counts=counts or {},
    )
