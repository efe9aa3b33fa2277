"""Statements: what two wallets hold of the same payments, put side by side.

A payment belongs to the period in which its time (`expires_at_ms`) ended, which both sides know; once nothing
of a period is under way any more, both must have fulfilled exactly the same payments of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, delete, func, insert, select, update

from appservices.chassis.database import Database, UnitOfWork, Write
from appservices.chassis.links.storage import item_write
from appservices.vocabulary.ids import ServerName, UserId
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.clearing.items import Side, Statement, read_item
from wallet_appservice.storage.clearing_tables import clearing_in, clearing_out, peer_statements

_INSERT: Final = insert(peer_statements)
SENT, WAITING, AGREED, DIFFERS = "sent", "waiting", "agreed", "differs"
OURS, THEIRS = "ours", "theirs"
WAITING_MAX: Final = 20
"""Statements of one peer that wait to be compared; of more, the oldest are forgotten."""


def statement_write(server: ServerName, statement: Statement, *, ours: bool, at_ms: int) -> Write:
    """A statement, to be kept: ours is sent, theirs waits to be compared."""
    return Write(
        _INSERT,
        {
            "server": server,
            "currency": statement.currency,
            "from_ms": statement.from_ms,
            "to_ms": statement.to_ms,
            "side": OURS if ours else THEIRS,
            "state": SENT if ours else WAITING,
            "content": json.dumps(statement.item()),
            "at_ms": at_ms,
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementShown:
    """A statement as it is listed."""

    server: ServerName
    side: str
    state: str
    at_ms: int
    statement: Statement


class Statements:
    """Makes, keeps and compares statements."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(
        self, server: ServerName, currency: CurrencyCode, *, from_ms: int, to_ms: int
    ) -> Statement | None:
        """Our books of the period; None while something of it is under way."""
        async with self._database.read() as work:
            return await _statement(work, server, currency, from_ms=from_ms, to_ms=to_ms)

    async def send(
        self,
        peer: UserId,
        server: ServerName,
        currency: CurrencyCode,
        *,
        from_ms: int,
        to_ms: int,
        at_ms: int,
    ) -> Statement | None:
        """Keeps our statement and leaves it to the link; None while something is under way."""
        async with self._database.begin() as work:
            statement = await _statement(work, server, currency, from_ms=from_ms, to_ms=to_ms)
            if statement is not None:
                write = statement_write(server, statement, ours=True, at_ms=at_ms)
                await work.apply([write, item_write(peer, statement.item())])
                await work.commit()
        return statement

    async def last_sent_ms(self, server: ServerName, currency: CurrencyCode) -> int:
        """Up to when our statements to that peer reach; 0 when there are none."""
        columns = peer_statements.c
        query = select(func.max(columns.to_ms)).where(
            columns.server == server, columns.currency == currency, columns.side == OURS
        )
        async with self._database.read() as work:
            return (await work.execute(query)).scalar_one() or 0

    async def compare(self) -> list[StatementShown]:
        """Compares one of each peer's statements that wait with our books; returns those that differ.

        It reads the books before it writes: however many statements a peer sends, payments wait for none.
        """
        columns = peer_statements.c
        query = select(columns.server).where(columns.state == WAITING).distinct()
        async with self._database.read() as work:
            servers = list((await work.execute(query)).scalars())
        shown = [await self._compare_one(ServerName(server)) for server in servers]
        return [differing for differing in shown if differing is not None]

    async def _compare_one(self, server: ServerName) -> StatementShown | None:
        columns = peer_statements.c
        of_server = (columns.server == server, columns.state == WAITING)
        query = select(peer_statements).where(*of_server).order_by(columns.position.desc()).limit(WAITING_MAX)
        async with self._database.read() as work:
            rows = (await work.execute(query)).all()[::-1]
            compared = await _first_compared(work, rows)
        if not rows:
            return None
        async with self._database.begin() as work:
            await work.execute(delete(peer_statements).where(*of_server, columns.position < rows[0].position))
            if compared is not None:
                row, state = compared
                await work.execute(
                    update(peer_statements).where(columns.position == row.position).values(state=state)
                )
            await work.commit()
        return _shown(row) if compared is not None and state == DIFFERS else None

    async def last(self, server: ServerName, *, limit: int = 20) -> list[StatementShown]:
        """The newest statements of either side."""
        query = (
            select(peer_statements)
            .where(peer_statements.c.server == server)
            .order_by(peer_statements.c.position.desc())
            .limit(limit)
        )
        async with self._database.read() as work:
            return [_shown(row) for row in await work.execute(query)]


async def _first_compared(work: UnitOfWork, rows: Sequence[Row[Any]]) -> tuple[Row[Any], str] | None:
    """The first one in whose period nothing is under way, and what came of it."""
    for row in rows:
        theirs = _shown(row).statement
        ours = await _statement(
            work, ServerName(row.server), theirs.currency, from_ms=theirs.from_ms, to_ms=theirs.to_ms
        )
        if ours is not None:
            agrees = (ours.paid, ours.received) == (theirs.received, theirs.paid)
            return row, AGREED if agrees else DIFFERS
    return None


async def _statement(
    work: UnitOfWork, server: ServerName, currency: CurrencyCode, *, from_ms: int, to_ms: int
) -> Statement | None:
    out, into = clearing_out.c, clearing_in.c
    period = (
        out.server == server,
        out.currency == currency,
        out.expires_at_ms >= from_ms,
        out.expires_at_ms < to_ms,
    )
    open_rows = await work.execute(select(out.id).where(*period, out.state == "prepared").limit(1))
    if open_rows.first() is not None:
        return None
    paid = await work.execute(
        select(out.id, out.amount_minor).where(*period, out.state == "fulfilled").order_by(out.id)
    )
    received = await work.execute(
        select(into.id, into.amount_minor)
        .where(
            into.server == server,
            into.currency == currency,
            into.expires_at_ms >= from_ms,
            into.expires_at_ms < to_ms,
            into.answer == "fulfilled",
        )
        .order_by(into.id)
    )
    return Statement(
        currency=currency,
        from_ms=from_ms,
        to_ms=to_ms,
        paid=_side(paid.all()),
        received=_side(received.all()),
    )


def _side(rows: Sequence[Row[Any]]) -> Side:
    digest = hashlib.sha256()
    for row in rows:
        digest.update(f"{row.id} {row.amount_minor}\n".encode())
    return Side(count=len(rows), sum_minor=sum(row.amount_minor for row in rows), hash=digest.hexdigest())


def _shown(row: Row[Any]) -> StatementShown:
    statement = read_item(json.loads(row.content))
    assert isinstance(statement, Statement)
    return StatementShown(
        server=ServerName(row.server),
        side=row.side,
        state=row.state,
        at_ms=row.at_ms,
        statement=statement,
    )
