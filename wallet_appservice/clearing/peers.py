"""The wallets that we clear with, named by the operator, and how much credit each one has here.

A credit limit is money in the ledger: it is put into the peer's account, which can't be overdrawn, from an
account that says what was granted. So the ledger itself refuses what goes above, whatever else comes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import insert, select, update

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, UnitOfWork, Write
from appservices.vocabulary.ids import ServerName, TransferId, UserId, derived_id, server_of
from appservices.vocabulary.money import CurrencyCode
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.ledger.values import AccountKind, NewAccount, Transfer, TransferCode, account_for
from wallet_appservice.payments.accounts import peer_account
from wallet_appservice.payments.audit import AuditAction, audit_write
from wallet_appservice.storage.clearing_tables import peer_limits, peers

logger = logging.getLogger(__name__)

WALLET_LOCALPART: Final = "wallet"
WARNING_PERCENT: Final = 80
REMEMBERED_SECONDS: Final = 1.0
"""How long a change by another process, such as the command line, may go unnoticed."""
CONFIG, COMMAND = "config", "command"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another homeserver's wallet."""

    server: ServerName
    user_id: UserId
    allowed: bool
    source: str
    limits: Mapping[CurrencyCode, int]
    """Credit limits in minor units; a currency that is missing has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How we stand with a peer in one currency, in minor units."""

    server: ServerName
    currency: CurrencyCode
    owed_minor: int
    """What the peer owes us; negative when we owe it."""
    limit_minor: int
    paying_minor: int
    """What is held of our people's money for payments under way to it."""

    @property
    def used_percent(self) -> int:
        if self.owed_minor <= 0:
            return 0
        return 100 * self.owed_minor // self.limit_minor if self.limit_minor else 100


def limit_account(server: ServerName, currency: CurrencyCode) -> NewAccount:
    """Where a peer's credit comes from: its debit balance is the credit granted."""
    return account_for(AccountKind.PEER, owner=server, currency=currency, name="limit")


class Peers:
    """Reads and changes who our peers are. Several processes may do so."""

    def __init__(self, *, database: Database, ledger: Ledger[Write], clock: Clock) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock
        self._wallets: dict[ServerName, UserId] = {}
        self._wallets_at: float | None = None

    async def all(self) -> list[Peer]:
        async with self._database.read() as work:
            rows = (await work.execute(select(peers).order_by(peers.c.server))).all()
            limits: dict[str, dict[CurrencyCode, int]] = {}
            for row in await work.execute(select(peer_limits).order_by(peer_limits.c.currency)):
                limits.setdefault(row.server, {})[CurrencyCode(row.currency)] = row.limit_minor
        return [
            Peer(
                ServerName(row.server),
                UserId(row.user_id),
                row.allowed,
                row.source,
                limits.get(row.server, {}),
            )
            for row in rows
        ]

    async def one(self, server: ServerName) -> Peer | None:
        return next((peer for peer in await self.all() if peer.server == server), None)

    async def allows(self, user: UserId) -> bool:
        """Whether that service user is the wallet of a peer."""
        return await self.wallet_of(server_of(user)) == user

    async def wallet_of(self, server: ServerName) -> UserId | None:
        """The service user of an allowed peer; None for every other server. Up to REMEMBERED_SECONDS old."""
        now = time.monotonic()
        if self._wallets_at is None or now - self._wallets_at > REMEMBERED_SECONDS:
            async with self._database.read() as work:
                rows = await work.execute(select(peers.c.server, peers.c.user_id).where(peers.c.allowed))
                self._wallets = {ServerName(row.server): UserId(row.user_id) for row in rows}
            self._wallets_at = now
        return self._wallets.get(server)

    async def add(
        self,
        server: ServerName,
        limits: Mapping[CurrencyCode, int],
        *,
        source: str = COMMAND,
        by: str = "operator",
    ) -> None:
        """Names a peer, or changes the limits given of one that is there. `by` is for the audit log."""
        async with self._database.begin() as work:
            changed = await work.execute(
                update(peers).where(peers.c.server == server).values(allowed=True, source=source)
            )
            if changed.rowcount == 0:
                row = {
                    "server": server,
                    "user_id": f"@{WALLET_LOCALPART}:{server}",
                    "allowed": True,
                    "source": source,
                    "created_at_ms": self._clock(),
                }
                await work.execute(insert(peers), row)
            for currency, limit_minor in limits.items():
                await _set_limit(work, server, currency, limit_minor)
            shown = ", ".join(f"{currency} {limit_minor}" for currency, limit_minor in limits.items())
            await work.apply([self.audited(server, by=by, what="add", limits_minor=shown)])
            await work.commit()
        self._wallets_at = None
        await self.adjust()

    async def remove(self, server: ServerName, *, by: str = "operator") -> bool:
        """Nothing new goes to it or is taken from it; what is under way is ended. False for a stranger."""
        async with self._database.begin() as work:
            changed = await work.execute(update(peers).where(peers.c.server == server).values(allowed=False))
            for row in await work.execute(select(peer_limits).where(peer_limits.c.server == server)):
                await _set_limit(work, server, CurrencyCode(row.currency), 0)
            if changed.rowcount:
                await work.apply([self.audited(server, by=by, what="remove")])
            await work.commit()
        self._wallets_at = None
        await self.adjust()
        return changed.rowcount > 0

    async def take_from_config(self, named: Mapping[ServerName, Mapping[CurrencyCode, int]]) -> None:
        """Makes the peers that the config names what it says. One that it no longer names is removed."""
        earlier = {peer.server: peer for peer in await self.all()}
        for server, limits in named.items():
            peer = earlier.get(server)
            wanted = {**dict.fromkeys(peer.limits if peer else (), 0), **limits}
            if peer is None or not peer.allowed or peer.source != CONFIG or dict(peer.limits) != wanted:
                await self.add(server, wanted, source=CONFIG, by=CONFIG)
        for server, peer in earlier.items():
            if peer.source == CONFIG and peer.allowed and server not in named:
                await self.remove(server, by=CONFIG)

    def audited(self, server: ServerName, *, by: str, what: str, **details: str) -> Write:
        """A row of the audit log, to be committed with what was done about that peer."""
        return audit_write(
            at_ms=self._clock(), actor=by, action=AuditAction.PEER, subject=server, what=what, **details
        )

    async def adjust(self) -> None:
        """Brings the credit that the ledger grants to what was set.

        A limit below what the peer owes already is reached as it pays back; until then it gets no more.
        """
        async with self._database.read() as work:
            rows = (await work.execute(select(peer_limits))).all()
        for row in rows:
            server, currency = ServerName(row.server), CurrencyCode(row.currency)
            peer, limit = peer_account(server, currency), limit_account(server, currency)
            granting = await self._ledger.account(limit.id)
            granted = 0 if granting is None else -granting.posted_minor
            missing = row.limit_minor - granted
            debit, credit = limit, peer
            if missing < 0:
                account = await self._ledger.account(peer.id)
                missing = min(-missing, account.available_minor if account is not None else 0)
                debit, credit = peer, limit
            if missing <= 0:
                continue
            # The id follows from what was found, so that two who adjust at once do it once.
            steps = ("credit limit", server, currency, str(row.revision), str(granted))
            transfer = Transfer(
                id=TransferId(derived_id(*steps)),
                debit_account_id=debit.id,
                credit_account_id=credit.id,
                amount_minor=missing,
                currency=currency,
                code=TransferCode.ADJUSTMENT,
                reference="credit limit",
            )
            (result,) = await self._ledger.submit(Submission(accounts=(peer, limit), transfers=(transfer,)))
            if result.refusal is not None:
                logger.info("the credit limit of %s is adjusted later: %s", server, result.refusal.value)

    async def positions(self) -> list[Position]:
        """How we stand with every peer, by server and currency."""
        found = []
        for peer in await self.all():
            accounts = await self._ledger.accounts_of(peer.server)
            by_id = {account.id: account for account in accounts}
            for currency in sorted({account.currency for account in accounts} | set(peer.limits)):
                drawn = by_id.get(peer_account(peer.server, currency).id)
                granted = by_id.get(limit_account(peer.server, currency).id)
                found.append(
                    Position(
                        server=peer.server,
                        currency=currency,
                        owed_minor=-sum(account.posted_minor for account in (drawn, granted) if account),
                        limit_minor=peer.limits.get(currency, 0),
                        paying_minor=drawn.incoming_minor if drawn is not None else 0,
                    )
                )
        return found


async def _set_limit(work: UnitOfWork, server: ServerName, currency: CurrencyCode, limit_minor: int) -> None:
    columns = peer_limits.c
    changed = await work.execute(
        update(peer_limits)
        .where(columns.server == server, columns.currency == currency)
        .values(limit_minor=limit_minor, revision=columns.revision + 1, warned_at_ms=None)
    )
    if changed.rowcount == 0:
        row = {
            "server": server,
            "currency": currency,
            "limit_minor": limit_minor,
            "revision": 1,
            "warned_at_ms": None,
        }
        await work.execute(insert(peer_limits), row)
