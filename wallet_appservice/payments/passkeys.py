"""Passkeys (WebAuthn): what a phone, a computer or a security key signs after it has checked its person.

Each answer of a browser is for one challenge, which is random, kept here with what it is for (registering, a
change of security, or one very payment), works once and for five minutes. The person must have been verified
by the device; a counter that goes back is refused. There are none where a browser allows none: on an address
without https that is not localhost, and on an IP address.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from webauthn import (
    base64url_to_bytes,
    generate_authentication_options,
    generate_registration_options,
    options_to_json,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import bytes_to_base64url
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from appservices.chassis.chosen_languages import LanguageOf, english_for_all
from appservices.chassis.clock import Clock, Tokens
from appservices.chassis.database import Database, UnitOfWork
from appservices.vocabulary.ids import UserId, derived_id, localpart_of
from appservices.vocabulary.languages import _, isolated, speaking
from wallet_appservice.payments.audit import AuditAction, audit_write
from wallet_appservice.payments.pins import told_privately
from wallet_appservice.payments.refusals import PaymentRefusal, PaymentRefused
from wallet_appservice.storage.proof_tables import passkey_challenges, passkeys

CHALLENGE_SECONDS: Final = 300
CHALLENGES_PER_USER_MAX: Final = 20
PASSKEYS_PER_USER_MAX: Final = 10
NAME_LENGTH_MAX: Final = 40
ANSWER_LENGTH_MAX: Final = 12_000
CREDENTIAL_ID_LENGTH_MAX: Final = 1_400
REGISTERING: Final = "registering"
"""The purpose of a challenge that adds a passkey."""

_WITH_PASSKEY: Final = select(passkeys.c.user_id).where(
    passkeys.c.user_id.in_(bindparam("of_users", expanding=True))
)


class PasskeysUnsupported(Exception):
    """There can be no passkey, or no further one; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Passkey:
    """One of a user's passkeys, as they named it."""

    credential_id: str
    name: str
    created_at_ms: int
    used_at_ms: int | None


class Passkeys:
    """Everybody's passkeys in one wallet's database."""

    def __init__(
        self,
        database: Database,
        *,
        public_url: str,
        clock: Clock,
        tokens: Tokens,
        on_commit: Callable[[], None],
        language_of: LanguageOf = english_for_all,
    ) -> None:
        """`public_url` is what people's browsers show as our address."""
        parts = urlsplit(public_url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._host = parts.hostname or ""
        self._is_secure = parts.scheme == "https" or self._host == "localhost"
        self._database = database
        self._clock = clock
        self._tokens = tokens
        self._language_of = language_of
        self._on_commit = on_commit

    @property
    def problem(self) -> str:
        """Why this server has no passkeys, in one sentence; "" where it has."""
        if _is_ip_address(self._host):
            return _("Passkeys need a host name, and this server is reached by an IP address.")
        if not self._is_secure:
            return _("Passkeys need https, and this server is reached without.")
        return ""

    async def of(self, user: UserId) -> list[Passkey]:
        """The user's passkeys, the oldest first."""
        async with self._database.read() as work:
            rows = await work.execute(
                select(passkeys).where(passkeys.c.user_id == user).order_by(passkeys.c.created_at_ms)
            )
            return [Passkey(row.credential_id, row.name, row.created_at_ms, row.used_at_ms) for row in rows]

    async def registration_options(self, user: UserId) -> dict[str, Any]:
        """What a browser is asked with for a new passkey (PublicKeyCredentialCreationOptionsJSON).

        Raises PasskeysUnsupported.
        """
        self._check_supported()
        known = await self.of(user)
        options = generate_registration_options(
            rp_id=self._host,
            rp_name="Weft",
            user_id=bytes.fromhex(derived_id("passkey user", user)),
            user_name=user,
            user_display_name=localpart_of(user),
            challenge=await self._challenge(user, REGISTERING),
            timeout=CHALLENGE_SECONDS * 1000,
            authenticator_selection=AuthenticatorSelectionCriteria(
                resident_key=ResidentKeyRequirement.PREFERRED,
                user_verification=UserVerificationRequirement.REQUIRED,
            ),
            exclude_credentials=[_descriptor(passkey) for passkey in known],
        )
        asked: dict[str, Any] = json.loads(options_to_json(options))
        return asked

    async def register(self, user: UserId, answer: str, *, name: str, by: str) -> PaymentRefused | None:
        """Adds the passkey that a browser made. Raises PasskeysUnsupported."""
        self._check_supported()
        wrong = PaymentRefused.because(PaymentRefusal.PASSKEY_WRONG)
        challenge = await self._take_challenge(user, answer, REGISTERING)
        if challenge is None:
            return wrong
        try:
            verified = verify_registration_response(
                credential=answer,
                expected_challenge=base64url_to_bytes(challenge),
                expected_rp_id=self._host,
                expected_origin=self._origin,
                require_user_verification=True,
            )
        except (WebAuthnException, ValueError, KeyError, TypeError):
            return wrong
        credential_id = bytes_to_base64url(verified.credential_id)
        if len(credential_id) > CREDENTIAL_ID_LENGTH_MAX:
            return wrong
        try:
            return await self._add(
                user,
                {
                    "credential_id": credential_id,
                    "user_id": user,
                    "name": _clean_name(name),
                    "public_key": verified.credential_public_key,
                    "sign_count": verified.sign_count,
                    "created_at_ms": self._clock(),
                },
                by=by,
            )
        except IntegrityError:
            # This very passkey is here already, the user's own or another's.
            return wrong

    async def assertion_options(self, user: UserId, purpose: str) -> dict[str, Any]:
        """What a browser is asked with to prove that it is the user (PublicKeyCredentialRequestOptionsJSON).

        The answer will serve for that purpose alone. Raises PasskeysUnsupported.
        """
        self._check_supported()
        options = generate_authentication_options(
            rp_id=self._host,
            challenge=await self._challenge(user, purpose),
            timeout=CHALLENGE_SECONDS * 1000,
            allow_credentials=[_descriptor(passkey) for passkey in await self.of(user)],
            user_verification=UserVerificationRequirement.REQUIRED,
        )
        asked: dict[str, Any] = json.loads(options_to_json(options))
        return asked

    async def check(self, user: UserId, answer: str, purpose: str) -> PaymentRefused | None:
        """Whether a browser's answer is by a passkey of the user, for that purpose, for the first time."""
        wrong = PaymentRefused.because(PaymentRefusal.PASSKEY_WRONG)
        if self.problem:
            return wrong
        challenge = await self._take_challenge(user, answer, purpose)
        credential_id = _text_of(answer, "id")
        if challenge is None or credential_id is None:
            return wrong
        async with self._database.begin() as work:
            mine = (passkeys.c.credential_id == credential_id) & (passkeys.c.user_id == user)
            row = (await work.execute(select(passkeys).where(mine))).first()
            if row is None:
                return wrong
            try:
                verified = verify_authentication_response(
                    credential=answer,
                    expected_challenge=base64url_to_bytes(challenge),
                    expected_rp_id=self._host,
                    expected_origin=self._origin,
                    credential_public_key=row.public_key,
                    credential_current_sign_count=row.sign_count,
                    require_user_verification=True,
                )
            except (WebAuthnException, ValueError, KeyError, TypeError):
                return wrong
            counted = await work.execute(
                update(passkeys)
                .where(mine, passkeys.c.sign_count == row.sign_count)
                .values(sign_count=verified.new_sign_count, used_at_ms=self._clock())
            )
            if not counted.rowcount:
                return wrong
            await work.commit()
        return None

    async def remove(self, user: UserId, credential_id: str, *, by: str) -> bool:
        """Takes one of the user's passkeys away; False when they have none of that id."""
        spoken = await self._language_of(user)
        async with self._database.begin() as work:
            removed = await work.execute(
                delete(passkeys)
                .where(passkeys.c.credential_id == credential_id, passkeys.c.user_id == user)
                .returning(passkeys.c.name)
            )
            row = removed.first()
            if row is None:
                return False
            with speaking(spoken):
                text = _("Your passkey “{name}” was removed ({where}).").format(
                    name=isolated(row.name), where=by
                )
            await self._tell(work, user, AuditAction.PASSKEY_REMOVED, text, name=row.name, where=by)
            await work.commit()
        return True

    async def remove_all(self, user: UserId, *, by: str, actor: str) -> int:
        """Takes all of the user's passkeys away, as the operator; how many there were."""
        spoken = await self._language_of(user)
        async with self._database.begin() as work:
            removed = await work.execute(delete(passkeys).where(passkeys.c.user_id == user))
            if removed.rowcount:
                with speaking(spoken):
                    text = _("All of your passkeys were removed ({where}).").format(where=by)
                await self._tell(
                    work, user, AuditAction.PASSKEY_REMOVED, text, actor=actor, name="all", where=by
                )
                await work.commit()
        return removed.rowcount

    def _check_supported(self) -> None:
        if self.problem:
            raise PasskeysUnsupported(self.problem)

    async def _challenge(self, user: UserId, purpose: str) -> bytes:
        challenge = self._tokens.random_bytes(32)
        now_ms = self._clock()
        mine = passkey_challenges.c.user_id == user
        async with self._database.begin() as work:
            await work.execute(delete(passkey_challenges).where(passkey_challenges.c.expires_at_ms <= now_ms))
            newest = (
                select(passkey_challenges.c.challenge)
                .where(mine)
                .order_by(passkey_challenges.c.expires_at_ms.desc())
                .limit(CHALLENGES_PER_USER_MAX - 1)
            )
            await work.execute(
                delete(passkey_challenges).where(mine, passkey_challenges.c.challenge.not_in(newest))
            )
            await work.execute(
                insert(passkey_challenges).values(
                    challenge=bytes_to_base64url(challenge),
                    user_id=user,
                    purpose=purpose,
                    expires_at_ms=now_ms + CHALLENGE_SECONDS * 1000,
                )
            )
            await work.commit()
        return challenge

    async def _take_challenge(self, user: UserId, answer: str, purpose: str) -> str | None:
        """The challenge that an answer is for, used up now; None when there is none such."""
        challenge = _challenge_in(answer)
        if challenge is None:
            return None
        async with self._database.begin() as work:
            taken = await work.execute(
                delete(passkey_challenges)
                .where(
                    passkey_challenges.c.challenge == challenge,
                    passkey_challenges.c.user_id == user,
                    passkey_challenges.c.purpose == purpose,
                    passkey_challenges.c.expires_at_ms > self._clock(),
                )
                .returning(passkey_challenges.c.challenge)
            )
            if taken.first() is None:
                return None
            await work.commit()
        return challenge

    async def _add(self, user: UserId, row: dict[str, Any], *, by: str) -> PaymentRefused | None:
        spoken = await self._language_of(user)
        async with self._database.begin() as work:
            count = await work.execute(
                select(func.count()).select_from(passkeys).where(passkeys.c.user_id == user)
            )
            if count.scalar_one() >= PASSKEYS_PER_USER_MAX:
                raise PasskeysUnsupported(
                    _("You have {count} passkeys already; remove one first.").format(
                        count=PASSKEYS_PER_USER_MAX
                    )
                )
            await work.execute(insert(passkeys), row)
            with speaking(spoken):
                text = _(
                    "A passkey, “{name}”, can confirm your payments now ({where}). If that was not you, tell "
                    "your operator at once."
                ).format(name=isolated(row["name"]), where=by)
            await self._tell(work, user, AuditAction.PASSKEY_ADDED, text, name=row["name"], where=by)
            await work.commit()
        return None

    async def _tell(
        self,
        work: UnitOfWork,
        user: UserId,
        action: AuditAction,
        text: str,
        *,
        name: str,
        where: str,
        actor: str = "",
    ) -> None:
        now_ms = self._clock()
        await work.apply(
            [
                audit_write(
                    at_ms=now_ms,
                    actor=actor or user,
                    action=action,
                    subject=user,
                    name=name,
                    where=where[:100],
                ),
                told_privately(user, text, now_ms=now_ms, cause=(action.value, user, name, str(now_ms))),
            ]
        )
        work.after_commit(self._on_commit)


async def with_passkey(work: UnitOfWork, users: Sequence[UserId]) -> set[UserId]:
    """Those of the users who have a passkey."""
    return {UserId(row.user_id) for row in await work.execute(_WITH_PASSKEY, {"of_users": users})}


def _descriptor(passkey: Passkey) -> PublicKeyCredentialDescriptor:
    return PublicKeyCredentialDescriptor(id=base64url_to_bytes(passkey.credential_id))


def _clean_name(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:NAME_LENGTH_MAX] or _("Passkey")


def _challenge_in(answer: str) -> str | None:
    """The challenge that the browser says it has signed (client data, WebAuthn section 5.8.1)."""
    response = _object_of(answer).get("response")
    encoded = response.get("clientDataJSON") if isinstance(response, dict) else None
    if not isinstance(encoded, str):
        return None
    try:
        client_data = json.loads(base64url_to_bytes(encoded))
    except (ValueError, RecursionError):
        return None
    challenge = client_data.get("challenge") if isinstance(client_data, dict) else None
    return challenge if isinstance(challenge, str) and len(challenge) <= 64 else None


def _text_of(answer: str, name: str) -> str | None:
    value = _object_of(answer).get(name)
    return value if isinstance(value, str) and len(value) <= CREDENTIAL_ID_LENGTH_MAX else None


def _object_of(answer: str) -> dict[str, Any]:
    if len(answer) > ANSWER_LENGTH_MAX:
        return {}
    try:
        content = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
