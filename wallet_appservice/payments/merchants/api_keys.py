"""API keys of merchants: `weft_sk_<id>_<secret>`, shown once, limited to scopes, revocable.

Whoever reads the database learns no key. A secret is 256 random bits, so there is nothing to guess and a
plain SHA-256 of it is enough; a slow hash, made for passwords, would only make each request slow.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Row, func, insert, select, update

from appservices.chassis.clock import Clock, Tokens
from appservices.chassis.database import Database
from wallet_appservice.payments.merchants.records import NAME_LENGTH_MAX, Merchant, MerchantId, Scope
from wallet_appservice.payments.merchants.refusals import MerchantRefusal, MerchantRefused
from wallet_appservice.payments.merchants.remembered import Remembered
from wallet_appservice.storage.merchant_tables import merchant_keys

KEYS_MAX: Final = 20
"""Keys of one merchant, revoked ones left out."""
LISTED_MAX: Final = 100
USE_NOTED_SECONDS: Final = 60
"""How exactly it is known when a key was used last."""
_ID_BYTES: Final = 8
_SECRET_BYTES: Final = 32
_KEY = re.compile(r"weft_sk_([0-9a-f]{16})_([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret."""

    id: str
    merchant_id: MerchantId
    name: str
    scopes: frozenset[Scope]
    created_at_ms: int
    revoked_at_ms: int | None
    last_used_at_ms: int | None


@dataclass(slots=True)
class _Stored:
    """A key as it is remembered, and when its use was noted last."""

    key: ApiKey
    secret_hash: str
    use_noted_at_ms: int


class ApiKeys:
    """The keys of all merchants."""

    def __init__(self, database: Database, *, clock: Clock, tokens: Tokens) -> None:
        self._database = database
        self._clock = clock
        self._tokens = tokens
        self._remembered = Remembered(self._look_up, clock=clock)

    async def make(
        self, merchant: Merchant, *, name: str, scopes: Collection[Scope]
    ) -> tuple[ApiKey, str] | MerchantRefused:
        """A new key, and its text, which can't be read again."""
        name = " ".join(name.split())
        if not name or len(name) > NAME_LENGTH_MAX or not name.isprintable():
            return MerchantRefused.because(MerchantRefusal.NAME_INVALID, length_max=str(NAME_LENGTH_MAX))
        key = ApiKey(
            id=self._tokens.hex(_ID_BYTES),
            merchant_id=merchant.id,
            name=name,
            scopes=frozenset(scopes),
            created_at_ms=self._clock(),
            revoked_at_ms=None,
            last_used_at_ms=None,
        )
        secret = self._tokens.hex(_SECRET_BYTES)
        async with self._database.begin() as work:
            counted = await work.execute(
                select(func.count()).where(
                    merchant_keys.c.merchant_id == merchant.id, merchant_keys.c.revoked_at_ms.is_(None)
                )
            )
            if counted.scalar_one() >= KEYS_MAX:
                return MerchantRefused.because(MerchantRefusal.TOO_MANY, count_max=str(KEYS_MAX))
            await work.execute(
                insert(merchant_keys).values(
                    id=key.id,
                    merchant_id=key.merchant_id,
                    name=key.name,
                    secret_hash=_hash(secret),
                    scopes=" ".join(sorted(key.scopes)),
                    created_at_ms=key.created_at_ms,
                )
            )
            await work.commit()
        return key, f"weft_sk_{key.id}_{secret}"

    async def of_merchant(self, merchant: Merchant) -> list[ApiKey]:
        """Newest first, at most LISTED_MAX."""
        query = (
            select(merchant_keys)
            .where(merchant_keys.c.merchant_id == merchant.id)
            .order_by(merchant_keys.c.created_at_ms.desc(), merchant_keys.c.id)
            .limit(LISTED_MAX)
        )
        async with self._database.read() as work:
            return [_key(row) for row in await work.execute(query)]

    async def revoke(self, merchant: Merchant, id: str) -> bool:
        """Ends a key: here at once, in other processes within REMEMBERED_SECONDS. False: no such key."""
        async with self._database.begin() as work:
            revoked = await work.execute(
                update(merchant_keys)
                .where(
                    merchant_keys.c.id == id,
                    merchant_keys.c.merchant_id == merchant.id,
                    merchant_keys.c.revoked_at_ms.is_(None),
                )
                .values(revoked_at_ms=self._clock())
            )
            await work.commit()
        self._remembered.forget(id)
        return revoked.rowcount == 1

    async def find(self, text: str) -> ApiKey | None:
        """The key of this text; None when there is none, it is revoked, or the text is no key."""
        match = _KEY.fullmatch(text)
        if match is None:
            return None
        id, secret = match.groups()
        stored = await self._remembered.get(id)
        if stored is None or not hmac.compare_digest(stored.secret_hash, _hash(secret)):
            return None
        now_ms = self._clock()
        if now_ms - stored.use_noted_at_ms >= USE_NOTED_SECONDS * 1000:
            # Noted here first: what comes meanwhile need not note it again.
            stored.use_noted_at_ms = now_ms
            await self._note_use(id, now_ms)
        return stored.key

    async def _look_up(self, id: str) -> _Stored | None:
        async with self._database.read() as work:
            found = await work.execute(select(merchant_keys).where(merchant_keys.c.id == id))
            row = found.first()
        if row is None or row.revoked_at_ms is not None:
            return None
        return _Stored(_key(row), row.secret_hash, row.last_used_at_ms or 0)

    async def _note_use(self, id: str, now_ms: int) -> None:
        async with self._database.begin() as work:
            await work.execute(
                update(merchant_keys).where(merchant_keys.c.id == id).values(last_used_at_ms=now_ms)
            )
            await work.commit()


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        merchant_id=MerchantId(row.merchant_id),
        name=row.name,
        scopes=frozenset(Scope(scope) for scope in row.scopes.split()),
        created_at_ms=row.created_at_ms,
        revoked_at_ms=row.revoked_at_ms,
        last_used_at_ms=row.last_used_at_ms,
    )
