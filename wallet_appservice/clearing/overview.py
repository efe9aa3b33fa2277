"""Everything about peers at one look, for the command line and the operator's page."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from appservices.chassis.database import Database
from appservices.chassis.links.storage import LinkStorage, StoredLink
from wallet_appservice.clearing.peers import Peers, Position
from wallet_appservice.clearing.statements import Statements, StatementShown
from wallet_appservice.storage.clearing_tables import clearing_in, clearing_out, peer_positions

HOURS_MAX = 24 * 14


async def peers_overview(database: Database, peers: Peers) -> list[dict[str, Any]]:
    """One JSON object a peer; amounts are texts of minor units."""
    links = {link.peer: link for link in await LinkStorage(database).all()}
    positions = await peers.positions()
    statements = Statements(database)
    waiting_query = (
        select(
            clearing_out.c.server,
            func.count().label("payments"),
            func.min(clearing_out.c.created_at_ms).label("oldest"),
        )
        .where(clearing_out.c.state == "prepared")
        .group_by(clearing_out.c.server)
    )
    rejected_query = (
        select(clearing_in.c.server, clearing_in.c.reason, func.count().label("payments"))
        .where(clearing_in.c.answer == "rejected")
        .group_by(clearing_in.c.server, clearing_in.c.reason)
    )
    async with database.read() as work:
        waiting = {row.server: (row.payments, row.oldest) for row in await work.execute(waiting_query)}
        rejected: dict[str, dict[str, int]] = {}
        for row in await work.execute(rejected_query):
            rejected.setdefault(row.server, {})[row.reason] = row.payments
    shown = []
    for peer in await peers.all():
        link = links.get(peer.user_id)
        pending, oldest_ms = waiting.get(peer.server, (0, None))
        shown.append(
            {
                "server": peer.server,
                "wallet": peer.user_id,
                "allowed": peer.allowed,
                "source": peer.source,
                "link": None if link is None else _link(link),
                "pending": {"payments": pending, "oldest_at_ms": oldest_ms},
                "rejected": rejected.get(peer.server, {}),
                "positions": [_position(item) for item in positions if item.server == peer.server],
                "statements": [_statement(item) for item in await statements.last(peer.server, limit=10)],
            }
        )
    return shown


async def positions_over_time(database: Database, server: str, currency: str) -> list[tuple[int, int]]:
    """(hour, what the peer owed us then) of the last HOURS_MAX hours known, oldest first."""
    columns = peer_positions.c
    query = (
        select(columns.hour_ms, columns.owed_minor)
        .where(columns.server == server, columns.currency == currency)
        .order_by(columns.hour_ms.desc())
        .limit(HOURS_MAX)
    )
    async with database.read() as work:
        rows = (await work.execute(query)).all()
    return [(row.hour_ms, row.owed_minor) for row in reversed(rows)]


def _link(link: StoredLink) -> dict[str, Any]:
    return {
        "state": link.state,
        "reason": link.reason,
        "detail": link.detail,
        "stopped_at_ms": link.stopped_at_ms,
        "room_id": link.room_id,
        "sent": link.outgoing.seq,
        "acknowledged": link.outgoing.acked,
        "received": link.incoming.seq,
        "items_waiting": link.items_waiting,
        "heard_at_ms": link.heard_at_ms,
        "keys": dict(link.peer_keys),
        "counts": dict(link.counts),
    }


def _position(position: Position) -> dict[str, Any]:
    return {
        "currency": position.currency,
        "owed_minor": str(position.owed_minor),
        "limit_minor": str(position.limit_minor),
        "paying_minor": str(position.paying_minor),
        "used_percent": position.used_percent,
    }


def _statement(shown: StatementShown) -> dict[str, Any]:
    return {"side": shown.side, "state": shown.state, "at_ms": shown.at_ms, **shown.statement.item()}
