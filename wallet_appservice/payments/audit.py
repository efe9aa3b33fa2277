"""The audit log: who did what to the wallet, beside payments. Rows are added, never changed.

A row is written in the transaction of what it tells of (`audit_write`). `AuditLog.chain` then links the new
rows by SHA-256 to all before them; the service does so every few seconds, each command of the operator at its
end.
What was linked can't be changed, taken out or put in between without the chain showing it; who keeps the last
hash elsewhere sees also that the end was cut off.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from canonicaljson import encode_canonical_json
from sqlalchemy import Row, func, insert, select
from sqlalchemy.exc import IntegrityError

from appservices.chassis.database import Database, UnitOfWork, Write
from wallet_appservice.storage.audit_tables import audit_chain, audit_log

PAGE_MAX: Final = 200
CHAIN_PAGE: Final = 500
LATE_ROWS_MAX: Final = 10_000
SUBJECT_LENGTH_MAX: Final = 255
FIRST_LINK: Final = "0" * 64
_INSERT: Final = insert(audit_log)
_ATTEMPTS_MAX = 5


class AuditAction(StrEnum):
    """What was done."""

    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    LIMIT = "limit"
    PIN_SET = "pin_set"
    PIN_CHANGED = "pin_changed"
    PIN_REMOVED = "pin_removed"
    PIN_RESET = "pin_reset"
    PIN_LOCKED = "pin_locked"
    PASSKEY_ADDED = "passkey_added"
    PASSKEY_REMOVED = "passkey_removed"
    ALWAYS_ASK = "always_ask"
    BUDGET = "budget"
    MERCHANT = "merchant"
    """A merchant was added, changed or closed."""
    PEER = "peer"
    """Another homeserver's wallet was named, limited, removed or settled with, or its link mended."""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row; `number` is its place in the chain, None until it is linked."""

    position: int
    at_ms: int
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any]
    number: int | None
    hash: str | None


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """How the chain stands: its last link, and one sentence for what is first wrong ("" for nothing)."""

    links: int
    last_hash: str
    not_linked: int
    problem: str


def audit_write(
    *, at_ms: int, actor: str, action: AuditAction | str, subject: str = "", **details: str | int | bool
) -> Write:
    """A row, to be committed with what it tells of. `actor` is a user id, or the operator's login name."""
    return Write(
        _INSERT,
        {
            "at_ms": at_ms,
            "actor": actor[:SUBJECT_LENGTH_MAX],
            "action": str(action),
            "subject": subject[:SUBJECT_LENGTH_MAX],
            "details": json.dumps(details, separators=(",", ":"), sort_keys=True),
        },
    )


class AuditLog:
    """Reads, links and checks the log in the wallet's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def entries(self, *, limit: int, before: int | None = None) -> list[AuditEntry]:
        """The newest first, at most PAGE_MAX; `before` is a position."""
        query = (
            select(audit_log, audit_chain.c.number, audit_chain.c.hash)
            .outerjoin(audit_chain, audit_chain.c.position == audit_log.c.position)
            .order_by(audit_log.c.position.desc())
            .limit(max(1, min(limit, PAGE_MAX)))
        )
        if before is not None:
            query = query.where(audit_log.c.position < before)
        async with self._database.read() as work:
            return [
                AuditEntry(
                    position=row.position,
                    at_ms=row.at_ms,
                    actor=row.actor,
                    action=row.action,
                    subject=row.subject,
                    details=json.loads(row.details),
                    number=row.number,
                    hash=row.hash,
                )
                for row in await work.execute(query)
            ]

    async def chain(self) -> int:
        """Links what is not linked yet; how many rows that were. Several processes may do so at once."""
        linked = 0
        for _ in range(_ATTEMPTS_MAX):
            try:
                while count := await self._chain_page():
                    linked += count
                return linked
            except IntegrityError:
                # Another process has taken the next number; look again.
                continue
        return linked

    async def verify(self) -> AuditFinding:
        """Recomputes every link from the rows alone."""
        number, previous, problem = 0, FIRST_LINK, ""
        async with self._database.read() as work:
            while not problem:
                rows = (await work.execute(_LINKED.where(audit_chain.c.number > number))).all()
                for row in rows:
                    number += 1
                    problem = _problem(row, number, previous)
                    if problem:
                        break
                    previous = row.hash
                if len(rows) < CHAIN_PAGE:
                    break
            waiting = await work.execute(
                select(func.count())
                .select_from(audit_log.outerjoin(audit_chain, audit_chain.c.position == audit_log.c.position))
                .where(audit_chain.c.number.is_(None))
            )
            return AuditFinding(number, previous, int(waiting.scalar_one()), problem)

    async def _chain_page(self) -> int:
        async with self._database.read() as work:
            if not await self._unlinked(work):
                return 0
        async with self._database.begin() as work:
            last = (
                await work.execute(select(audit_chain).order_by(audit_chain.c.number.desc()).limit(1))
            ).first()
            number, previous = (last.number, last.hash) if last is not None else (0, FIRST_LINK)
            rows = await self._unlinked(work)
            for row in rows:
                number += 1
                link = _link(number, previous, row)
                await work.execute(
                    insert(audit_chain),
                    {"number": number, "position": row.position, "previous": previous, "hash": link},
                )
                previous = link
            await work.commit()
        return len(rows)

    async def _unlinked(self, work: UnitOfWork) -> list[Row[Any]]:
        found = await work.execute(
            select(audit_log)
            .outerjoin(audit_chain, audit_chain.c.position == audit_log.c.position)
            .where(audit_chain.c.number.is_(None), audit_log.c.position > _NOT_LONG_LINKED)
            .order_by(audit_log.c.position)
            .limit(CHAIN_PAGE)
        )
        return list(found.all())


# Rows may be committed in another order than they were numbered in, but not by so many.
_NOT_LONG_LINKED = select(
    func.coalesce(func.max(audit_chain.c.position), 0) - LATE_ROWS_MAX
).scalar_subquery()
_LINKED = (
    select(audit_chain.c.number, audit_chain.c.position.label("linked"), audit_chain.c.previous)
    .add_columns(audit_chain.c.hash, audit_log)
    .outerjoin(audit_log, audit_log.c.position == audit_chain.c.position)
    .order_by(audit_chain.c.number)
    .limit(CHAIN_PAGE)
)


def _problem(row: Row[Any], number: int, previous: str) -> str:
    if row.number != number:
        return f"Link {number} of the audit log is missing."
    if row.position is None:
        return f"Link {number} of the audit log names row {row.linked}, which is missing."
    if row.previous != previous or row.hash != _link(number, previous, row):
        return f"Row {row.position} of the audit log is not what was linked as number {number}."
    return ""


def _link(number: int, previous: str, row: Row[Any]) -> str:
    content = {
        "number": number,
        "previous": previous,
        "position": row.position,
        "at_ms": row.at_ms,
        "actor": row.actor,
        "action": row.action,
        "subject": row.subject,
        "details": row.details,
    }
    return hashlib.sha256(encode_canonical_json(content)).hexdigest()
