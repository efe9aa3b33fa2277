"""PINs: six digits that show that it is really the payer who pays.

A try is counted in the database before it is looked at, by an UPDATE that succeeds only while the PIN is not
locked: neither many tries at once nor many processes get a further one. The lock grows with each wrong try
and is forgotten with a right one. Of the PIN only its argon2id hash is kept.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError, VerificationError
from sqlalchemy import bindparam, case, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from appservices.chassis.chosen_languages import LanguageOf, english_for_all
from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, UnitOfWork, Write
from appservices.chassis.messages import notice
from appservices.chassis.outbox import Outgoing
from appservices.chassis.page_words import readable_time
from appservices.vocabulary.ids import OutboxId, UserId, derived_id
from appservices.vocabulary.languages import _, counted, speaking
from wallet_appservice.payments.audit import AuditAction, audit_write
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.storage.proof_tables import pins

PIN_LENGTH: Final = 6
DIFFERENT_DIGITS_MIN: Final = 3
LOCKS_SECONDS: Final = (0, 0, 60, 300, 1800, 7200, 24 * 3600)
"""How long the PIN is locked after the first, second, … wrong try in a row; after more, as after the last."""
HASHES_AT_ONCE_MAX: Final = 2
"""Each takes 64 MiB and some 50 ms of a processor."""
HASHES_WAITING_MAX: Final = 32

_TRY: Final = (
    update(pins)
    .where(pins.c.user_id == bindparam("of_user"), pins.c.locked_until_ms <= bindparam("now_ms"))
    .values(
        tries=pins.c.tries + 1,
        locked_until_ms=bindparam("now_ms", type_=pins.c.locked_until_ms.type)
        + case(
            *((pins.c.tries == number, seconds * 1000) for number, seconds in enumerate(LOCKS_SECONDS)),
            else_=LOCKS_SECONDS[-1] * 1000,
        ),
    )
    .returning(pins.c.hash, pins.c.tries, pins.c.locked_until_ms)
)
_RIGHT: Final = (
    update(pins)
    # A PIN that was changed meanwhile has a count of its own.
    .where(pins.c.user_id == bindparam("of_user"), pins.c.hash == bindparam("of_hash"))
    .values(tries=0, locked_until_ms=0)
)
_FORGET: Final = delete(pins).where(pins.c.user_id == bindparam("of_user"))
_INSERT: Final = insert(pins)
_WITH_PIN: Final = select(pins.c.user_id).where(pins.c.user_id.in_(bindparam("of_users", expanding=True)))


class PinUnfit(ValueError):
    """What was given can't be a PIN; the message is one sentence."""


class Pins:
    """Everybody's PINs in one wallet's database."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        on_commit: Callable[[], None],
        language_of: LanguageOf = english_for_all,
    ) -> None:
        """`on_commit` wakes the outbox."""
        self._language_of = language_of
        self._database = database
        self._clock = clock
        self._on_commit = on_commit
        self._hasher = PasswordHasher()
        self._places = asyncio.Semaphore(HASHES_AT_ONCE_MAX)
        self._waiting = 0

    async def is_set(self, user: UserId) -> bool:
        async with self._database.read() as work:
            return await pin_is_set(work, user)

    async def check(self, user: UserId, pin: str) -> PaymentRefused | None:
        """Whether it is the user's PIN. A try counts, whatever else happens to the request."""
        if self._waiting >= HASHES_WAITING_MAX:
            return PaymentRefused.because(PaymentRefusal.TOO_BUSY)
        now_ms = self._clock()
        async with self._database.begin() as work:
            tried = (await work.execute(_TRY, {"of_user": user, "now_ms": now_ms})).first()
            if tried is None:
                return await self._not_tried(work, user)
            await work.commit()
        if await self._fits(tried.hash, digits_of(pin)):
            async with self._database.begin() as work:
                await work.execute(_RIGHT, {"of_user": user, "of_hash": tried.hash})
                await work.commit()
            return None
        if tried.locked_until_ms > now_ms:
            await self._tell_locked(user, until_ms=tried.locked_until_ms, tries=tried.tries)
            return _locked(tried.locked_until_ms)
        return PaymentRefused.because(PaymentRefusal.PIN_WRONG)

    async def set(self, user: UserId, pin: str, *, by: str) -> PaymentRefused | None:
        """Sets the user's PIN, also in place of an old one; who may do so has been judged before.

        `by` says where it was done, for the user to read. Raises PinUnfit.
        """
        digits = fit_pin(pin)
        if self._waiting >= HASHES_WAITING_MAX:
            return PaymentRefused.because(PaymentRefusal.TOO_BUSY)
        hashed = await self._hash(digits)
        try:
            await self._keep(user, hashed, by=by)
        except IntegrityError:
            # Set twice at the same moment: the other one counts.
            return PaymentRefused.because(PaymentRefusal.TOO_BUSY)
        return None

    async def remove(self, user: UserId, *, by: str, actor: str, action: AuditAction) -> bool:
        """Takes the PIN away, with its lock; False when there was none."""
        now_ms = self._clock()
        with speaking(await self._language_of(user)):
            text = _("Your PIN was removed ({where}). If you did not want that, tell your operator at once.")
        async with self._database.begin() as work:
            removed = await work.execute(_FORGET, {"of_user": user})
            if not removed.rowcount:
                return False
            await work.apply(
                [
                    audit_write(at_ms=now_ms, actor=actor, action=action, subject=user, where=by[:100]),
                    told_privately(
                        user, text.format(where=by), now_ms=now_ms, cause=("pin removed", user, str(now_ms))
                    ),
                ]
            )
            work.after_commit(self._on_commit)
            await work.commit()
        return True

    async def _keep(self, user: UserId, hashed: str, *, by: str) -> None:
        now_ms = self._clock()
        with speaking(await self._language_of(user)):
            changed = _("Your PIN was changed ({where}). If that was not you, tell your operator at once.")
            begun = _("You have a PIN now ({where}). If that was not you, tell your operator at once.")
        async with self._database.begin() as work:
            was_set = await pin_is_set(work, user)
            action = AuditAction.PIN_CHANGED if was_set else AuditAction.PIN_SET
            text = (changed if was_set else begun).format(where=by)
            row = {"user_id": user, "hash": hashed, "set_at_ms": now_ms, "tries": 0, "locked_until_ms": 0}
            await work.apply(
                [
                    Write(_FORGET, {"of_user": user}),
                    Write(_INSERT, row),
                    audit_write(at_ms=now_ms, actor=user, action=action, subject=user, where=by[:100]),
                    told_privately(user, text, now_ms=now_ms, cause=("pin", hashed)),
                ]
            )
            work.after_commit(self._on_commit)
            await work.commit()

    async def _not_tried(self, work: UnitOfWork, user: UserId) -> PaymentRefused:
        found = await work.execute(select(pins.c.locked_until_ms).where(pins.c.user_id == user))
        until_ms = found.scalar_one_or_none()
        if until_ms is None:
            return PaymentRefused.because(PaymentRefusal.PIN_NOT_SET)
        return _locked(until_ms)

    async def _tell_locked(self, user: UserId, *, until_ms: int, tries: int) -> None:
        now_ms = self._clock()
        with speaking(await self._language_of(user)):
            text = counted(
                "{count} wrong PIN was given for your wallet, so your PIN is locked until {until}. If that "
                "was not you, look where you are signed in: !sessions, and !logout ends them all.",
                "{count} wrong PINs in a row were given for your wallet, so your PIN is locked until "
                "{until}. If that was not you, look where you are signed in: !sessions, and !logout ends "
                "them all.",
                tries,
            ).format(until=readable_time(until_ms))
        async with self._database.begin() as work:
            await work.apply(
                [
                    audit_write(
                        at_ms=now_ms, actor=user, action=AuditAction.PIN_LOCKED, subject=user, tries=tries
                    ),
                    told_privately(user, text, now_ms=now_ms, cause=("pin locked", user, str(until_ms))),
                ]
            )
            work.after_commit(self._on_commit)
            await work.commit()

    async def _hash(self, digits: str) -> str:
        self._waiting += 1
        try:
            async with self._places:
                return await asyncio.to_thread(self._hasher.hash, digits)
        finally:
            self._waiting -= 1

    async def _fits(self, hashed: str, digits: str) -> bool:
        self._waiting += 1
        try:
            async with self._places:
                return await asyncio.to_thread(self._hasher.verify, hashed, digits)
        except (VerificationError, InvalidHashError, Argon2Error):
            return False
        finally:
            self._waiting -= 1


async def pin_is_set(work: UnitOfWork, user: UserId) -> bool:
    return bool(await with_pin(work, [user]))


async def with_pin(work: UnitOfWork, users: Sequence[UserId]) -> set[UserId]:
    """Those of the users who have a PIN."""
    return {UserId(row.user_id) for row in await work.execute(_WITH_PIN, {"of_users": users})}


def digits_of(text: str) -> str:
    """What was typed, its digits in any script as ASCII ones."""
    return "".join(
        str(unicodedata.decimal(character)) if character.isdecimal() else character
        for character in text.strip()[: 4 * PIN_LENGTH]
    )


def fit_pin(text: str) -> str:
    """The digits of a PIN that may be set. Raises PinUnfit."""
    digits = digits_of(text)
    if len(digits) != PIN_LENGTH or not (digits.isascii() and digits.isdigit()):
        raise PinUnfit(_("A PIN has {length} digits.").format(length=PIN_LENGTH))
    if _is_trivial(digits):
        raise PinUnfit(_("That PIN is one of the first that a thief tries; take another."))
    return digits


def told_privately(user: UserId, text: str, *, now_ms: int, cause: Sequence[str]) -> Write:
    """A direct message; the same cause is told once."""
    outbox_id = OutboxId(derived_id(*cause))
    return Outgoing(outbox_id, notice(text), to_user=user).write(now_ms=now_ms)


def _locked(until_ms: int) -> PaymentRefused:
    return PaymentRefused.because(PaymentRefusal.PIN_LOCKED, until=readable_time(until_ms))


def _is_trivial(digits: str) -> bool:
    """Few different digits, a run, or one half twice, straight or mirrored: 000000, 123456, 123123."""
    steps = {(int(later) - int(earlier)) % 10 for earlier, later in pairwise(digits)}
    half = PIN_LENGTH // 2
    return (
        len(set(digits)) < DIFFERENT_DIGITS_MIN
        or steps in ({1}, {9})
        or digits[:half] in (digits[half:], digits[half:][::-1])
    )
