"""What the engine asks of a database. The implementation is `wallet_appservice.storage.ledger_store`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from appservices.vocabulary.ids import AccountId, TransferId
from wallet_appservice.ledger.values import Account, StoredTransfer
from wallet_appservice.ledger.view import Changes, Loaded, Wanted

Effect = TypeVar("Effect")
"""A write of somebody else's that is executed in the ledger's transaction; opaque here."""
Effect_contra = TypeVar("Effect_contra", contravariant=True)


class StoreBusy(Exception):
    """Nothing was committed, and the same batch may succeed when tried again."""


class StoreRefused(Exception):
    """Nothing was committed, and the same batch would fail again: something in it is wrong."""


class CommitUnknown(Exception):
    """The connection was lost during the commit, and the database can't be asked how it ended."""


class LedgerBatch(Protocol[Effect_contra]):
    """One database transaction that holds the ledger's lock: no other batch runs on this database."""

    async def lock(self) -> None:
        """Waits for the ledger's lock. Raises StoreBusy."""
        ...

    async def load(self, wanted: Wanted) -> Loaded:
        """Takes the ledger's lock, if that was not done, and reads what is wanted. Raises StoreBusy."""
        ...

    async def commit(self, changes: Changes, effects: Sequence[Effect_contra]) -> None:
        """Writes changes, then effects, and makes both durable.

        Raises StoreBusy, StoreRefused or CommitUnknown.
        """
        ...


class LedgerStore(Protocol[Effect_contra]):
    """Every method raises StoreBusy when the database can't be reached."""

    def batch(self) -> AbstractAsyncContextManager[LedgerBatch[Effect_contra]]:
        """Opens a transaction; it is rolled back unless committed."""
        ...

    async def account(self, account_id: AccountId) -> Account | None: ...

    async def accounts_of(self, owner: str) -> tuple[Account, ...]: ...

    async def transfer(self, transfer_id: TransferId) -> StoredTransfer | None: ...

    async def transfers_of(
        self, account_id: AccountId, *, limit: int, before: int | None
    ) -> tuple[StoredTransfer, ...]: ...

    async def due(self, *, now_ms: int, limit: int, after: int) -> tuple[StoredTransfer, ...]:
        """Open pending transfers whose time is over, of positions after the one given, in their order."""
        ...
