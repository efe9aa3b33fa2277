"""What clearing needs done again and again: asking about what is unanswered, credit limits, positions by the
hour, daily statements and their comparison, warnings. The wallet's sweeper does it (payments/sweeper.py)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import delete, insert, select, update

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database
from appservices.chassis.links.protocol import StopReason
from appservices.chassis.links.storage import item_write
from appservices.chassis.links.switchboard import Switchboard
from appservices.vocabulary.ids import ServerName, TransferId, UserId
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.clearing.items import Inquire
from wallet_appservice.clearing.operator_news import OperatorNews
from wallet_appservice.clearing.paying import PREPARED, ClearingAnnouncer, outgoing_of
from wallet_appservice.clearing.peers import WARNING_PERCENT, Peers, Position
from wallet_appservice.clearing.statements import Statements
from wallet_appservice.payments.sweeper import Sweep, whenever
from wallet_appservice.storage.clearing_tables import clearing_out, peer_limits, peer_positions

INQUIRIES_AT_ONCE_MAX: Final = 200
INQUIRE_PAUSE_MS: Final = 60_000
"""Between two inquiries about one payment; doubled each time, up to the next one."""
INQUIRE_PAUSE_MS_MAX: Final = 3600_000
DAY_MS: Final = 24 * 3600 * 1000
HOUR_MS: Final = 3600 * 1000
STATEMENT_AFTER_MS: Final = 600_000
"""How long after midnight (UTC) a day's statement is made."""
POSITIONS_KEPT_MS: Final = 400 * DAY_MS
WARN_AGAIN_MS: Final = DAY_MS

logger = logging.getLogger(__name__)


class ClearingUpkeep:
    """The chores of clearing in one wallet."""

    def __init__(
        self,
        *,
        database: Database,
        peers: Peers,
        switchboard: Switchboard,
        announcer: ClearingAnnouncer,
        operators: OperatorNews,
        on_commit: Callable[[], None],
        clock: Clock,
    ) -> None:
        """`on_commit` wakes the outbox."""
        self._announcer = announcer
        self._operators = operators
        self._on_commit = on_commit
        self._database = database
        self._peers = peers
        self._switchboard = switchboard
        self._statements = Statements(database)
        self._clock = clock

    @property
    def chores(self) -> Mapping[str, Sweep]:
        """By name, for the log."""
        return {
            "unanswered payments": whenever(self.inquire),
            "peers' credit limits": whenever(self._peers.adjust),
            "peers' positions": whenever(self.look_at_positions),
            "peers' statements": whenever(self.state_and_compare),
        }

    async def inquire(self) -> None:
        """Asks about payments that are unanswered for long, each time later. Money stays held meanwhile."""
        now_ms = self._clock()
        columns = clearing_out.c
        query = (
            select(clearing_out)
            .where(columns.state == PREPARED, columns.inquire_at_ms <= now_ms)
            .order_by(columns.inquire_at_ms)
            .limit(INQUIRIES_AT_ONCE_MAX)
        )
        async with self._database.read() as work:
            rows = (await work.execute(query)).all()
        asked: dict[UserId, None] = {}
        for row in rows:
            peer = await self._peers.one(ServerName(row.server))
            link = self._switchboard.known(peer.user_id) if peer is not None else None
            # What the link has not delivered yet need not be asked about.
            can_ask = link is not None and link.state.state == "open" and link.silent_ms == 0
            told = await self._announcer.waiting(outgoing_of(row)) if row.inquiries == 0 else ()
            pause_ms = min(INQUIRE_PAUSE_MS * 2 ** min(row.inquiries, 10), INQUIRE_PAUSE_MS_MAX)
            async with self._database.begin() as work:
                changed = await work.execute(
                    update(clearing_out)
                    .where(
                        columns.id == row.id, columns.state == PREPARED, columns.inquiries == row.inquiries
                    )
                    .values(inquire_at_ms=now_ms + pause_ms, inquiries=columns.inquiries + 1)
                )
                if changed.rowcount:
                    await work.apply(told)
                    work.after_commit(self._on_commit)
                if can_ask and peer is not None and changed.rowcount:
                    await work.apply([item_write(peer.user_id, Inquire(id=TransferId(row.id)).item())])
                    asked[peer.user_id] = None
                await work.commit()
        for user in asked:
            self._switchboard.wake(user)

    async def look_at_positions(self) -> None:
        """Writes down the hour's positions and warns where much of a credit limit is used."""
        now_ms = self._clock()
        hour_ms = now_ms - now_ms % HOUR_MS
        positions = await self._peers.positions()
        if not positions:
            return
        columns = peer_positions.c
        async with self._database.begin() as work:
            for position in positions:
                changed = await work.execute(
                    update(peer_positions)
                    .where(
                        columns.server == position.server,
                        columns.currency == position.currency,
                        columns.hour_ms == hour_ms,
                    )
                    .values(owed_minor=position.owed_minor)
                )
                if changed.rowcount == 0:
                    row = {
                        "server": position.server,
                        "currency": position.currency,
                        "hour_ms": hour_ms,
                        "owed_minor": position.owed_minor,
                    }
                    await work.execute(insert(peer_positions), row)
            await work.execute(delete(peer_positions).where(columns.hour_ms < now_ms - POSITIONS_KEPT_MS))
            await work.commit()
        for position in positions:
            if position.used_percent >= WARNING_PERCENT:
                await self._warn(position, now_ms)

    async def _warn(self, position: Position, now_ms: int) -> None:
        columns = peer_limits.c
        told = await self._operators.limit_used(position)
        async with self._database.begin() as work:
            changed = await work.execute(
                update(peer_limits)
                .where(
                    columns.server == position.server,
                    columns.currency == position.currency,
                    columns.warned_at_ms.is_(None) | (columns.warned_at_ms < now_ms - WARN_AGAIN_MS),
                )
                .values(warned_at_ms=now_ms)
            )
            if changed.rowcount:
                await work.apply(told)
                work.after_commit(self._on_commit)
            await work.commit()
        if changed.rowcount:
            logger.warning(
                "%s uses %d %% of its credit limit in %s: settle, or raise it by `weft wallet peer set`",
                position.server,
                position.used_percent,
                position.currency,
            )

    async def state_and_compare(self) -> None:
        """Sends yesterday's statement to each peer once, and compares those that came."""
        now_ms = self._clock()
        today_ms = now_ms - now_ms % DAY_MS
        if now_ms - today_ms >= STATEMENT_AFTER_MS:
            for position in await self._peers.positions():
                await self._state(position.server, position.currency, to_ms=today_ms)
        for shown in await self._statements.compare():
            peer = await self._peers.one(shown.server)
            link = self._switchboard.known(peer.user_id) if peer is not None else None
            if link is not None:
                detail = f"{shown.statement.currency} until {shown.statement.to_ms}"
                await link.stop(StopReason.BALANCES_DIFFER, detail)

    async def _state(self, server: ServerName, currency: CurrencyCode, *, to_ms: int) -> None:
        peer = await self._peers.one(server)
        if peer is None or self._switchboard.known(peer.user_id) is None:
            return
        from_ms = await self._statements.last_sent_ms(server, currency)
        if from_ms >= to_ms:
            return
        sent = await self._statements.send(
            peer.user_id, server, currency, from_ms=from_ms, to_ms=to_ms, at_ms=self._clock()
        )
        if sent is not None:
            self._switchboard.wake(peer.user_id)
