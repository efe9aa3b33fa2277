"""Follows the hash chain beside the ledger's check: each transfer's row against what its batch wrote down.

It finds what balances can't tell: rows that were changed, removed or added together with everything that
follows from them, except the chain.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

from sqlalchemy import Row

from wallet_appservice.ledger.chain import FIRST_LINK, MARK_BYTES, next_link
from wallet_appservice.storage.ledger_chain import ID_BYTES, ledger_chain, record_of_row
from wallet_appservice.storage.ledger_difference import Differs
from wallet_appservice.storage.ledger_tables import ledger_accounts, ledger_transfers

OnBatch = Callable[[int, int, bytes], None]
"""Called with a batch's number, last position and link once all before it has been found right."""


class ChainCheck:
    """One pass: `next_batch` whenever `needs_batch`, then `add` for each transfer, and `finish`.

    All of them raise Differs.
    """

    def __init__(
        self, batches: AsyncIterator[Row[Any]], accounts: Mapping[str, bytes], on_batch: OnBatch
    ) -> None:
        """`accounts` holds the record of every account by its id."""
        self.needs_batch = True
        self.suspect: Differs | None = None
        """The first record of the batch in hand that is not as its mark; its hash will tell who is right."""
        self.batches_count = 0
        self.link = FIRST_LINK
        self._batches = batches
        self._accounts = accounts
        self._chained: set[str] = set()
        self._on_batch = on_batch
        self._position = 0
        self._batch: Row[Any] | None = None
        self._hash = hashlib.sha256()
        self._marks: Iterator[memoryview] = iter(())

    async def begin(self) -> None:
        """Checks the chain's beginning, batch 0."""
        row = await anext(self._batches, None)
        if row is None or row.number != 0:
            raise Differs(ledger_chain, 0, "the chain's beginning is missing")
        is_empty = (row.first_position, row.last_position, row.account_ids, row.marks) == (1, 0, b"", b"")
        if not is_empty or bytes(row.link) != FIRST_LINK:
            raise Differs(ledger_chain, 0, "the chain's beginning is not empty")
        self._on_batch(0, 0, FIRST_LINK)

    async def next_batch(self, position: int) -> None:
        """Finds the batch that begins with this transfer, past those that only opened accounts."""
        if not await self._advance():
            sentence = f"transfer {position} is in no batch: the chain ends before it"
            raise Differs(ledger_transfers, position, sentence)
        self.needs_batch = False

    def add(self, row: Row[Any]) -> None:
        """The next transfer, whose position follows the last one's."""
        record = record_of_row(row)
        self._take(record, ledger_transfers, row.position, f"transfer {row.position} ({row.id})")
        self._position = row.position
        assert self._batch is not None
        if self._position == self._batch.last_position:
            self._complete(self._batch)

    async def finish(self) -> None:
        """After the last transfer."""
        if not self.needs_batch or await self._advance():
            missing = self._position + 1
            sentence = f"transfer {missing} is missing: batch {self.batches_count + 1} applied it"
            raise Differs(ledger_transfers, missing, sentence)
        if len(self._chained) != len(self._accounts):
            id = next(id for id in self._accounts if id not in self._chained)
            raise Differs(ledger_accounts, id, f"account {id} was opened in no batch")

    async def _advance(self) -> bool:
        """Begins the next batch with transfers; False when there is none."""
        while (row := await anext(self._batches, None)) is not None:
            self._begin(row)
            if row.last_position >= row.first_position:
                return True
            self._complete(row)
        return False

    def _begin(self, row: Row[Any]) -> None:
        number = self.batches_count + 1
        if row.number != number:
            raise Differs(ledger_chain, number, f"batch {number} of the chain is missing")
        if row.first_position != self._position + 1:
            sentence = f"batch {number} begins with transfer {row.first_position}, not {self._position + 1}"
            raise Differs(ledger_chain, number, sentence)
        ids = bytes(row.account_ids)
        records_count = len(ids) // ID_BYTES + row.last_position - row.first_position + 1
        if len(ids) % ID_BYTES or len(row.marks) != records_count * MARK_BYTES:
            raise Differs(ledger_chain, number, f"batch {number} has marks of another count")
        self._batch = row
        self._hash = hashlib.sha256()
        marks = memoryview(bytes(row.marks))
        self._marks = (marks[start : start + MARK_BYTES] for start in range(0, len(marks), MARK_BYTES))
        for start in range(0, len(ids), ID_BYTES):
            self._add_account(ids[start : start + ID_BYTES].hex(), number)

    def _add_account(self, id: str, number: int) -> None:
        record = self._accounts.get(id)
        if record is None:
            raise Differs(ledger_accounts, id, f"account {id} is missing: batch {number} opened it")
        if id in self._chained:
            raise Differs(ledger_chain, number, f"batch {number} opens account {id} a second time")
        self._chained.add(id)
        self._take(record, ledger_accounts, id, f"account {id}")

    def _take(self, record: bytes, table: Any, row: object, what: str) -> None:
        if zlib.crc32(record).to_bytes(MARK_BYTES, "big") != next(self._marks):
            self.suspect = self.suspect or Differs(table, row, f"{what} is not what was written at first")
        self._hash.update(record)

    def _complete(self, row: Row[Any]) -> None:
        hash = self._hash.digest()
        link = next_link(self.link, hash)
        if (hash, link) != (bytes(row.hash), bytes(row.link)):
            raise self._broken(row, hash, link)
        if self.suspect is not None:
            self.suspect = None
            raise Differs(ledger_chain, row.number, f"batch {row.number} of the chain has other marks")
        self.batches_count = row.number
        self.link = link
        self.needs_batch = True
        self._on_batch(row.number, row.last_position, link)

    def _broken(self, row: Row[Any], hash: bytes, link: bytes) -> Differs:
        """Tells whether the batch's rows were changed or what the chain says of them."""
        number = row.number
        if bytes(row.hash) == hash or bytes(row.link) == link:
            self.suspect = None
            name = "link" if bytes(row.hash) == hash else "hash"
            return Differs(
                ledger_chain,
                number,
                f"batch {number} of the chain has another {name} than its rows give",
            )
        if self.suspect is not None:
            return self.suspect
        first, last = row.first_position, row.last_position
        if last < first:
            sentence = f"batch {number}: the accounts that it opened are not what was written"
            return Differs(ledger_chain, number, sentence)
        span = str(first) if first == last else f"{first}-{last}"
        sentence = f"batch {number}: its transfers {span} or accounts are not what was written"
        return Differs(ledger_transfers, span, sentence)
