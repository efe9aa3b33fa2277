"""Other ways to keep a ledger in PostgreSQL, for the benchmark to compare with: one transaction per transfer.

Each checks the payer's balance under row locks taken in id order, moves the amount and records the transfer,
durably. None knows ids that were answered before, pending transfers, chains or a hash chain; their tables
have fewer columns and indices than the ledger's. They are what one would write first, at their best.
"""

from __future__ import annotations

import random
import re
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy import BigInteger, Index, Uuid, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from tests.postgres import PORT, SUPERUSER, Postgresql, program

CONNECTIONS: Final = 4
"""Of each rival. Callers beyond these wait for one. On a hot account, more of them only wait for its lock and
are slower; fewer leave a core idle."""
ACCOUNTS: Final = 1_001
"""Number 0 is the hot one."""
FUNDS: Final = 10**12

_LATENCY = re.compile(r"^\d+ \d+ (\d+) ", re.MULTILINE)
_TRANSFER_FUNCTION: Final = """
CREATE FUNCTION pay(debit_number int, credit_number int, amount bigint) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    debit uuid := lpad(to_hex(debit_number), 32, '0')::uuid;
    credit uuid := lpad(to_hex(credit_number), 32, '0')::uuid;
    available bigint;
BEGIN
    PERFORM 1 FROM rival_accounts WHERE id IN (debit, credit) ORDER BY id FOR UPDATE;
    SELECT credits - debits INTO available FROM rival_accounts WHERE id = debit;
    IF available < amount THEN
        RAISE EXCEPTION 'balance too low';
    END IF;
    UPDATE rival_accounts SET debits = debits + amount WHERE id = debit;
    UPDATE rival_accounts SET credits = credits + amount WHERE id = credit;
    INSERT INTO rival_transfers VALUES (gen_random_uuid(), debit, credit, amount, 0);
END $$
"""


class Base(DeclarativeBase):
    """Declares the rivals' tables."""


class RivalAccount(Base):
    __tablename__ = "rival_accounts"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    debits: Mapped[int] = mapped_column(BigInteger)
    credits: Mapped[int] = mapped_column(BigInteger)


class RivalTransfer(Base):
    __tablename__ = "rival_transfers"
    __table_args__ = (Index("rival_by_debit", "debit_id"), Index("rival_by_credit", "credit_id"))

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    debit_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    credit_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    amount: Mapped[int] = mapped_column(BigInteger)
    at_ms: Mapped[int] = mapped_column(BigInteger)


class Rivals:
    """All three, in one database of their own."""

    def __init__(self, server: Postgresql, database_name: str, pool: Any, session: Any) -> None:
        self._server = server
        self._database_name = database_name
        self._pool = pool
        self._session: async_sessionmaker[AsyncSession] = session

    async def pay_by_asyncpg(self, debit_number: int, credit_number: int) -> None:
        debit, credit = uuid.UUID(int=debit_number), uuid.UUID(int=credit_number)
        async with self._pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(
                "SELECT id, credits - debits AS available FROM rival_accounts WHERE id IN ($1, $2) "
                "ORDER BY id FOR UPDATE",
                debit,
                credit,
            )
            available = {row["id"]: row["available"] for row in rows}
            if available[debit] < 1:
                raise RuntimeError("balance too low")
            await connection.execute("UPDATE rival_accounts SET debits = debits + 1 WHERE id = $1", debit)
            await connection.execute("UPDATE rival_accounts SET credits = credits + 1 WHERE id = $1", credit)
            await connection.execute(
                "INSERT INTO rival_transfers VALUES ($1, $2, $3, 1, 0)", _random_id(), debit, credit
            )

    async def pay_by_orm(self, debit_number: int, credit_number: int) -> None:
        accounts: dict[int, RivalAccount] = {}
        async with self._session() as session, session.begin():
            for number in sorted((debit_number, credit_number)):
                accounts[number] = await session.get_one(
                    RivalAccount, uuid.UUID(int=number), with_for_update=True
                )
            debit, credit = accounts[debit_number], accounts[credit_number]
            if debit.credits - debit.debits < 1:
                raise RuntimeError("balance too low")
            debit.debits += 1
            credit.credits += 1
            session.add(
                RivalTransfer(id=_random_id(), debit_id=debit.id, credit_id=credit.id, amount=1, at_ms=0)
            )

    def run_pgbench(self, folder: Path, *, clients: int, seconds: float) -> list[float]:
        """Pays from random accounts to the hot one; returns the seconds that each payment took."""
        script = folder / "pgbench.sql"
        script.write_text(f"\\set debit random(1, {ACCOUNTS - 1})\nSELECT pay(:debit, 0, 1);\n")
        for log in folder.glob("pgbench_log.*"):
            log.unlink()
        subprocess.run(
            [
                *(str(pgbench_program()), "-n", "-M", "prepared", "-f", str(script)),
                *("-c", str(clients), "-j", "2", "-T", str(max(1, round(seconds)))),
                *(
                    "-l",
                    "-h",
                    str(self._server.folder),
                    "-p",
                    str(PORT),
                    "-U",
                    SUPERUSER,
                    self._database_name,
                ),
            ],
            cwd=folder,
            check=True,
            capture_output=True,
        )
        logs = "".join(log.read_text() for log in folder.glob("pgbench_log.*"))
        return [int(match) / 1e6 for match in _LATENCY.findall(logs)]


def _random_id() -> uuid.UUID:
    """As the ledger's callers make theirs: without asking the operating system for each."""
    return uuid.UUID(int=random.getrandbits(128))


def pgbench_program() -> Path | None:
    """It stands beside the server's other programs; Debian has it in the package `postgresql`."""
    found = program("initdb").with_name("pgbench")
    return found if found.exists() else None


@asynccontextmanager
async def open_rivals(server: Postgresql, url: str) -> AsyncIterator[Rivals]:
    """Makes their tables in an empty database, with funds for everybody."""
    name = url.split("@/")[1].split("?")[0]
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=CONNECTIONS, max_overflow=0
    )
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text(_TRANSFER_FUNCTION))
        await connection.execute(
            text(
                "INSERT INTO rival_accounts SELECT lpad(to_hex(number), 32, '0')::uuid, 0, :funds "
                "FROM generate_series(0, :last) AS number"
            ),
            {"funds": FUNDS, "last": ACCOUNTS - 1},
        )
    pool = await asyncpg.create_pool(
        user=SUPERUSER, host=str(server.folder), port=PORT, database=name, min_size=1, max_size=CONNECTIONS
    )
    try:
        yield Rivals(server, name, pool, async_sessionmaker(engine, expire_on_commit=False))
    finally:
        await pool.close()
        await engine.dispose()
