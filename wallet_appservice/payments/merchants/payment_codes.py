"""Payment codes: 18 digits in a payer's page, by which a till charges them once.

Valid for a minute and used up by the first charge. Of a code only a hash is kept, so the database shows no
code that still works. A shown code can be photographed by whoever stands by; that is why it lives so short
and why what it may charge is limited (`wallet.no_pin_max`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from appservices.chassis.clock import Clock, Tokens
from appservices.chassis.database import Database
from appservices.vocabulary.ids import UserId
from wallet_appservice.payments.merchants.records import OrderId
from wallet_appservice.storage.merchant_tables import payment_codes

CODE_DIGITS: Final = 18
FIRST_PREFIX: Final = 10
PREFIXES_COUNT: Final = 6
"""10 to 15: the prefixes by which tills tell a payment code from a product's."""
CODE_SECONDS: Final = 60
GRACE_SECONDS: Final = 15
"""A code that was scanned in its last second still has to travel here."""
CODES_PER_USER_MAX: Final = 5
"""Codes of one person that work at the same time; a further one ends the oldest."""
KEPT_SECONDS: Final = 24 * 3600
"""How long a used or ended code is remembered, so that its charge may be asked for again."""
_DRAWS_MAX: Final = 5
_CODE = re.compile(r"1[0-5][0-9]{16}")


@dataclass(frozen=True, slots=True)
class IssuedCode:
    """A code for one person's page. It can't be read again."""

    code: str
    expires_at_ms: int


class PaymentCodes:
    """The codes of all payers."""

    def __init__(self, database: Database, *, clock: Clock, tokens: Tokens) -> None:
        self._database = database
        self._clock = clock
        self._tokens = tokens

    async def issue(self, user: UserId) -> IssuedCode:
        """A new code for this user; their CODES_PER_USER_MAX newest work."""
        for draw in range(1, _DRAWS_MAX + 1):
            issued = IssuedCode(self._draw(), self._clock() + CODE_SECONDS * 1000)
            try:
                await self._store(user, issued)
            except IntegrityError:
                # Drawn twice within a day, which hardly happens.
                if draw == _DRAWS_MAX:
                    raise
                continue
            break
        return issued

    async def take(self, code: str, *, order_id: OrderId) -> UserId | None:
        """Uses a code up for this charge and tells whose it is.

        None for a code that is unknown, has ended, or was used for another charge: nobody learns which. The
        same charge may take its code again, so that a till which heard no answer can ask once more.
        """
        if _CODE.fullmatch(code) is None:
            return None
        async with self._database.begin() as work:
            taken = await work.execute(
                update(payment_codes)
                .where(
                    payment_codes.c.code_hash == _hash(code),
                    payment_codes.c.expires_at_ms > self._clock() - GRACE_SECONDS * 1000,
                    or_(payment_codes.c.order_id.is_(None), payment_codes.c.order_id == order_id),
                )
                .values(order_id=order_id)
                .returning(payment_codes.c.user_id)
            )
            row = taken.first()
            await work.commit()
        return None if row is None else UserId(row.user_id)

    async def purge(self) -> None:
        """Forgets codes that ended long ago."""
        async with self._database.begin() as work:
            ended = payment_codes.c.expires_at_ms < self._clock() - KEPT_SECONDS * 1000
            await work.execute(delete(payment_codes).where(ended))
            await work.commit()

    async def _store(self, user: UserId, issued: IssuedCode) -> None:
        unused = (payment_codes.c.user_id == user, payment_codes.c.order_id.is_(None))
        newest = (
            select(payment_codes.c.code_hash)
            .where(*unused)
            .order_by(payment_codes.c.expires_at_ms.desc())
            .limit(CODES_PER_USER_MAX - 1)
        )
        async with self._database.begin() as work:
            await work.execute(delete(payment_codes).where(*unused, payment_codes.c.code_hash.not_in(newest)))
            await work.execute(
                insert(payment_codes).values(
                    code_hash=_hash(issued.code), user_id=user, expires_at_ms=issued.expires_at_ms
                )
            )
            await work.commit()

    def _draw(self) -> str:
        # Of 256 random bits the remainder is as good as even.
        number = int.from_bytes(self._tokens.random_bytes(32), "big")
        number, prefix = divmod(number, PREFIXES_COUNT)
        digits = CODE_DIGITS - 2
        return f"{FIRST_PREFIX + prefix}{number % 10**digits:0{digits}d}"


def _hash(code: str) -> str:
    # 55 random bits that live for a minute: whoever reads the database can't find them in that time.
    return hashlib.sha256(f"payment code {code}".encode()).hexdigest()
