"""What a ledger database holds, read whole, and what must be true of it whatever happened before."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select

from appservices.chassis.database import Database
from appservices.vocabulary.ids import AccountId, TransferId
from wallet_appservice.ledger.values import Account, AccountKind, StoredTransfer, TransferMode
from wallet_appservice.storage.ledger_store import stored_transfer
from wallet_appservice.storage.ledger_tables import (
    ledger_accounts,
    ledger_head,
    ledger_open_pending,
    ledger_refusals,
    ledger_transfers,
)

notes: Final = Table(
    "simulation_notes",
    MetaData(),
    Column("number", Integer, primary_key=True),
    Column("transfer_id", String(32), nullable=False),
)
"""An effect of every transfer that is applied, like a receipt. Not unique: one too many must show."""
INSERT_NOTE: Final = insert(notes)


@dataclass(frozen=True, slots=True)
class State:
    """All rows. Transfers are in order of their positions, without their endings."""

    accounts: Mapping[AccountId, Account]
    transfers: list[StoredTransfer]
    refusals: Mapping[TransferId, tuple[str, int]]
    open_pending: Mapping[TransferId, tuple[int, int | None]]
    position: int
    notes: list[str]

    def digest(self) -> str:
        """The same bytes for the same rows."""
        rows = [repr(stored) for stored in self.transfers]
        rows += [repr(item) for item in sorted(self.refusals.items())]
        rows += [repr(account) for _id, account in sorted(self.accounts.items())]
        return hashlib.sha256("\n".join(rows).encode(errors="surrogatepass")).hexdigest()

    def difference(self, other: State) -> str | None:
        """The first of what this one has and the other has not, or the other way round."""
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if mine == theirs:
                continue
            if isinstance(mine, Mapping):
                keys = sorted({*mine, *theirs})
                key = next(key for key in keys if mine.get(key) != theirs.get(key))
                return f"{item.name} {key}: {mine.get(key)}, not {theirs.get(key)}"
            if isinstance(mine, list):
                pairs = zip([*mine, None], [*theirs, None], strict=False)
                number, pair = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
                return (
                    f"{item.name}, row {number + 1} of {len(mine)} or {len(theirs)}: {pair[0]}, not {pair[1]}"
                )
            return f"{item.name}: {mine}, not {theirs}"
        return None

    def problem(self) -> str | None:
        """The first thing that must never be, told from the rows alone."""
        posted, held = Counter[str](), Counter[str]()
        for account in self.accounts.values():
            posted[account.currency] += account.credits_posted - account.debits_posted
            held[account.currency] += account.credits_pending - account.debits_pending
            debits = account.debits_pending + account.debits_posted
            if account.debits_must_not_exceed_credits and debits > account.credits_posted:
                return f"{account} is overdrawn"
            credits = account.credits_pending + account.credits_posted
            if account.credits_must_not_exceed_debits and credits > account.debits_posted:
                return f"{account} is overfilled"
        if any(posted.values()) or any(held.values()):
            return f"currencies do not sum up to zero: {posted}, {held}"
        ids = Counter(stored.transfer.id for stored in self.transfers)
        if len(ids) != len(self.transfers):
            return f"{ids.most_common(1)[0][0]} was applied twice"
        if [stored.position for stored in self.transfers] != list(range(1, self.position + 1)):
            return "positions have a gap, or do not end where the ledger says"
        both = ids.keys() & self.refusals.keys()
        if both:
            return f"{min(both)} was refused and applied"
        if self.notes != sorted(ids):
            return "transfers and their effects are not the same"
        return self._pending_problem()

    def _pending_problem(self) -> str | None:
        held = {
            stored.transfer.id for stored in self.transfers if stored.transfer.mode is TransferMode.PENDING
        }
        endings = Counter(id for stored in self.transfers if (id := stored.transfer.pending_id) is not None)
        if any(count > 1 for count in endings.values()):
            return f"{endings.most_common(1)[0][0]} ended twice"
        if not endings.keys() <= held:
            return "something ended that was never pending"
        if self.open_pending.keys() != held - endings.keys():
            return "what is listed as open is not what has not ended"
        return None


async def read_state(database: Database) -> State:
    """Reads all in one snapshot."""
    async with database.read() as work:
        accounts = (await work.execute(select(ledger_accounts))).all()
        transfers = (await work.execute(select(ledger_transfers).order_by(ledger_transfers.c.position))).all()
        refusals = (await work.execute(select(ledger_refusals))).all()
        pending = (await work.execute(select(ledger_open_pending))).all()
        position = (await work.execute(select(ledger_head.c.position))).scalar_one()
        noted = (await work.execute(select(notes.c.transfer_id))).scalars().all()
    return State(
        accounts={
            AccountId(row.id): Account(**{**row._mapping, "kind": AccountKind(row.kind)}) for row in accounts
        },
        transfers=[stored_transfer(row) for row in transfers],
        refusals={row.id: (row.refusal, row.at_ms) for row in refusals},
        open_pending={row.id: (row.position, row.expires_at_ms) for row in pending},
        position=position,
        notes=sorted(noted),
    )
