"""Who is signed in where: sessions, and the three ways to one.

A code that the browser shows and its user sends to @weft; a one-time link that @weft gives on request; a
Matrix OpenID token (checked in openid.py). Whoever reads the database learns no secret that opens anything:
hashes alone are kept. There is no password here, and none is ever asked for.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, delete, func, insert, select, update

from appservices.chassis.clock import Clock, Tokens
from appservices.chassis.database import Database, UnitOfWork
from appservices.chassis.session_tables import sign_in_codes, sign_in_links, web_sessions
from appservices.chassis.shared_reads import SharedReads
from appservices.vocabulary.ids import UserId

CODE_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""No 0 O 1 I L, which are read for one another."""
CODE_LENGTH = 8
CODE_MINUTES = 10
CODES_PER_ADDRESS_MAX = 20
CODES_MAX = 10_000
LINK_MINUTES = 5
LINKS_PER_USER_MAX = 5
SESSIONS_PER_USER_MAX = 50
USER_AGENT_LENGTH_MAX = 200
SECRET_BYTES = 32
_SECRET_TEXT_LENGTH = 2 * SECRET_BYTES
_MINUTE_MS = 60_000
_HOUR_MS = 60 * _MINUTE_MS
_CODE_DRAWS_MAX = 5


class SignInWay(StrEnum):
    """How a session began."""

    CODE = "code"
    LINK = "link"
    OPENID = "openid"


@dataclass(frozen=True, slots=True)
class Session:
    """One browser or program that acts for a user until it expires or signs out."""

    session_id: str
    user_id: UserId
    signed_in_by: SignInWay
    user_agent: str
    created_at_ms: int
    expires_at_ms: int


@dataclass(frozen=True, slots=True)
class NewSession:
    """A session just begun, with the secret that opens it. The secret can't be read again."""

    session: Session
    token: str


class TooManyCodes(Exception):
    """So many codes wait for their users that no further one is given; it passes within CODE_MINUTES."""


class SessionStore:
    """Sessions and sign-ins in the home database."""

    def __init__(self, database: Database, clock: Clock, tokens: Tokens, *, session_hours: int) -> None:
        self._database = database
        self._clock = clock
        self._tokens = tokens
        self._session_ms = session_hours * _HOUR_MS
        self._by_token: SharedReads[str, Row[Any]] = SharedReads(self._read_by_token)

    # Sign-in by a code that the browser shows.

    async def begin_code(self, user_agent: str, *, address: str = "") -> tuple[str, str]:
        """A code for the user to send to @weft, and the secret by which this browser asks for its session.

        Raises TooManyCodes.
        """
        now_ms = self._clock()
        address_hash = _hash(f"address {address}")
        async with self._database.begin() as work:
            await work.execute(delete(sign_in_codes).where(sign_in_codes.c.expires_at_ms <= now_ms))
            await self._check_codes_waiting(work, address_hash)
            for _ in range(_CODE_DRAWS_MAX):
                browser_secret = self._tokens.hex(SECRET_BYTES)
                code = code_of(browser_secret)
                taken = await work.execute(
                    select(sign_in_codes.c.code_hash).where(sign_in_codes.c.code_hash == _code_hash(code))
                )
                if taken.first() is None:
                    break
            else:
                raise TooManyCodes
            await work.execute(
                insert(sign_in_codes).values(
                    code_hash=_code_hash(code),
                    browser_hash=_hash(browser_secret),
                    address_hash=address_hash,
                    user_agent=_shortened(user_agent),
                    expires_at_ms=now_ms + CODE_MINUTES * _MINUTE_MS,
                )
            )
            await work.commit()
        return code, browser_secret

    async def code_waits(self, browser_secret: str) -> bool:
        """Whether this browser's code can still be sent, or has been and its session waits to be taken."""
        async with self._database.read() as work:
            found = await work.execute(
                select(sign_in_codes.c.code_hash).where(
                    sign_in_codes.c.browser_hash == _hash(browser_secret),
                    sign_in_codes.c.expires_at_ms > self._clock(),
                    sign_in_codes.c.taken_at_ms.is_(None),
                )
            )
            return found.first() is not None

    async def browser_of_code(self, code: str) -> str | None:
        """The User-Agent of the browser that shows this code, to be told to who sends it; None if unknown."""
        async with self._database.read() as work:
            found = await work.execute(
                select(sign_in_codes.c.user_agent).where(
                    sign_in_codes.c.code_hash == _code_hash(code),
                    sign_in_codes.c.expires_at_ms > self._clock(),
                )
            )
            row = found.first()
        return None if row is None else str(row.user_agent)

    async def confirm_code(self, code: str, user_id: UserId) -> bool:
        """The user sent this code: the browser that shows it may take a session of theirs, once.

        False when the code is unknown, expired, or was sent by somebody else before. The same user's message
        delivered twice is True twice and gives one session.
        """
        async with self._database.begin() as work:
            confirmed = await work.execute(
                update(sign_in_codes)
                .where(
                    sign_in_codes.c.code_hash == _code_hash(code),
                    sign_in_codes.c.expires_at_ms > self._clock(),
                    (sign_in_codes.c.user_id.is_(None)) | (sign_in_codes.c.user_id == user_id),
                )
                .values(user_id=user_id)
            )
            await work.commit()
        return confirmed.rowcount == 1

    async def take_code_session(self, browser_secret: str) -> NewSession | None:
        """The session of a browser whose code was sent; None until then, and ever after the first time."""
        now_ms = self._clock()
        async with self._database.begin() as work:
            taken = await work.execute(
                update(sign_in_codes)
                .where(
                    sign_in_codes.c.browser_hash == _hash(browser_secret),
                    sign_in_codes.c.expires_at_ms > now_ms,
                    sign_in_codes.c.user_id.is_not(None),
                    sign_in_codes.c.taken_at_ms.is_(None),
                )
                .values(taken_at_ms=now_ms)
                .returning(sign_in_codes.c.user_id, sign_in_codes.c.user_agent)
            )
            row = taken.first()
            if row is None:
                return None
            began = await self._begin(work, UserId(row.user_id), SignInWay.CODE, row.user_agent)
            await work.commit()
        return began

    # Sign-in by a one-time link that @weft gives.

    async def make_link(self, user_id: UserId) -> str:
        """The token of a link that signs its opener in as the user, once, within LINK_MINUTES."""
        now_ms = self._clock()
        token = self._tokens.hex(SECRET_BYTES)
        links_of_user = sign_in_links.c.user_id == user_id
        async with self._database.begin() as work:
            await work.execute(delete(sign_in_links).where(sign_in_links.c.expires_at_ms <= now_ms))
            newest = (
                select(sign_in_links.c.token_hash)
                .where(links_of_user)
                .order_by(sign_in_links.c.expires_at_ms.desc())
                .limit(LINKS_PER_USER_MAX - 1)
            )
            await work.execute(
                delete(sign_in_links).where(links_of_user, sign_in_links.c.token_hash.not_in(newest))
            )
            await work.execute(
                insert(sign_in_links).values(
                    token_hash=_hash(token),
                    user_id=user_id,
                    expires_at_ms=now_ms + LINK_MINUTES * _MINUTE_MS,
                )
            )
            await work.commit()
        return token

    async def user_of_link(self, token: str) -> UserId | None:
        """Whom the link signs in, without using it up: link previews look, too."""
        async with self._database.read() as work:
            found = await work.execute(
                select(sign_in_links.c.user_id).where(
                    sign_in_links.c.token_hash == _hash(token),
                    sign_in_links.c.expires_at_ms > self._clock(),
                )
            )
            row = found.first()
        return None if row is None else UserId(row.user_id)

    async def take_link_session(self, token: str, user_agent: str) -> NewSession | None:
        """Uses the link up. None when it is unknown, used or expired."""
        async with self._database.begin() as work:
            taken = await work.execute(
                delete(sign_in_links)
                .where(
                    sign_in_links.c.token_hash == _hash(token),
                    sign_in_links.c.expires_at_ms > self._clock(),
                )
                .returning(sign_in_links.c.user_id)
            )
            row = taken.first()
            if row is None:
                return None
            began = await self._begin(work, UserId(row.user_id), SignInWay.LINK, user_agent)
            await work.commit()
        return began

    # Sessions.

    async def begin(self, user_id: UserId, way: SignInWay, user_agent: str) -> NewSession:
        """A session for a user whose identity the caller has checked."""
        async with self._database.begin() as work:
            began = await self._begin(work, user_id, way, user_agent)
            await work.commit()
        return began

    async def find(self, token: str) -> Session | None:
        """The session that this secret opens; None when there is none or it has expired."""
        if len(token) != _SECRET_TEXT_LENGTH:
            return None
        token_hash = _hash(token)
        row = await self._by_token.get(token_hash)
        if (
            row is None
            or row.expires_at_ms <= self._clock()
            or not hmac.compare_digest(row.token_hash, token_hash)
        ):
            return None
        return _session(row)

    async def _read_by_token(self, token_hashes: Sequence[str]) -> dict[str, Row[Any]]:
        async with self._database.read() as work:
            found = await work.execute(
                select(web_sessions).where(web_sessions.c.token_hash.in_(token_hashes))
            )
            return {row.token_hash: row for row in found}

    async def of_user(self, user_id: UserId) -> list[Session]:
        """Where the user is signed in, newest first; at most SESSIONS_PER_USER_MAX."""
        async with self._database.read() as work:
            found = await work.execute(
                select(web_sessions)
                .where(web_sessions.c.user_id == user_id, web_sessions.c.expires_at_ms > self._clock())
                .order_by(web_sessions.c.created_at_ms.desc(), web_sessions.c.session_id)
                .limit(SESSIONS_PER_USER_MAX)
            )
            return [_session(row) for row in found]

    async def sign_out(self, session: Session) -> None:
        """Ends one session; ending it again does nothing."""
        async with self._database.begin() as work:
            await work.execute(delete(web_sessions).where(web_sessions.c.session_id == session.session_id))
            await work.commit()

    async def sign_out_one(self, user_id: UserId, session_id: str) -> bool:
        """Ends one of the user's sessions by its id; False when the user has none of that id."""
        async with self._database.begin() as work:
            ended = await work.execute(
                delete(web_sessions).where(
                    web_sessions.c.session_id == session_id, web_sessions.c.user_id == user_id
                )
            )
            await work.commit()
        return ended.rowcount == 1

    async def sign_out_everywhere(self, user_id: UserId) -> int:
        """Ends all of the user's sessions, and codes and links under way. Returns how many sessions ended."""
        async with self._database.begin() as work:
            ended = await work.execute(delete(web_sessions).where(web_sessions.c.user_id == user_id))
            await work.execute(delete(sign_in_codes).where(sign_in_codes.c.user_id == user_id))
            await work.execute(delete(sign_in_links).where(sign_in_links.c.user_id == user_id))
            await work.commit()
        return ended.rowcount

    async def _begin(self, work: UnitOfWork, user_id: UserId, way: SignInWay, user_agent: str) -> NewSession:
        now_ms = self._clock()
        await work.execute(delete(web_sessions).where(web_sessions.c.expires_at_ms <= now_ms))
        sessions_of_user = web_sessions.c.user_id == user_id
        newest = (
            select(web_sessions.c.session_id)
            .where(sessions_of_user)
            .order_by(web_sessions.c.created_at_ms.desc())
            .limit(SESSIONS_PER_USER_MAX - 1)
        )
        await work.execute(
            delete(web_sessions).where(sessions_of_user, web_sessions.c.session_id.not_in(newest))
        )
        token = self._tokens.hex(SECRET_BYTES)
        session = Session(
            session_id=self._tokens.hex(),
            user_id=user_id,
            signed_in_by=way,
            user_agent=_shortened(user_agent),
            created_at_ms=now_ms,
            expires_at_ms=now_ms + self._session_ms,
        )
        await work.execute(
            insert(web_sessions).values(
                session_id=session.session_id,
                token_hash=_hash(token),
                user_id=session.user_id,
                signed_in_by=session.signed_in_by.value,
                user_agent=session.user_agent,
                created_at_ms=session.created_at_ms,
                expires_at_ms=session.expires_at_ms,
            )
        )
        return NewSession(session=session, token=token)

    async def _check_codes_waiting(self, work: UnitOfWork, address_hash: str) -> None:
        unconfirmed = sign_in_codes.c.user_id.is_(None)
        in_all = await work.execute(select(func.count()).where(unconfirmed))
        from_address = await work.execute(
            select(func.count()).where(unconfirmed, sign_in_codes.c.address_hash == address_hash)
        )
        if in_all.scalar_one() >= CODES_MAX or from_address.scalar_one() >= CODES_PER_ADDRESS_MAX:
            raise TooManyCodes


def code_of(browser_secret: str) -> str:
    """The code that belongs to a browser's secret, so that a page loaded again shows the same one."""
    number = int.from_bytes(hashlib.sha256(f"code {browser_secret}".encode()).digest()[:16], "big")
    letters = ""
    for _ in range(CODE_LENGTH):
        number, digit = divmod(number, len(CODE_ALPHABET))
        letters += CODE_ALPHABET[digit]
    return f"{letters[:4]}-{letters[4:]}"


def looks_like_code(text: str) -> bool:
    """Whether what a person wrote has the form of a code, however it is spaced or cased."""
    letters = _code_letters(text)
    return len(letters) == CODE_LENGTH and all(letter in CODE_ALPHABET for letter in letters)


def _code_letters(text: str) -> str:
    return "".join(text.upper().replace("-", " ").replace("\u2013", " ").split())


def _code_hash(code: str) -> str:
    return _hash(f"code {_code_letters(code)}")


def _hash(secret: str) -> str:
    # Secrets here are 256 random bits, or short-lived, so a plain hash is enough and costs no time.
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _shortened(user_agent: str) -> str:
    printable = "".join(character for character in user_agent if character.isprintable())
    return printable.encode("utf-8", "replace").decode()[:USER_AGENT_LENGTH_MAX]


def _session(row: Row[Any]) -> Session:
    return Session(
        session_id=row.session_id,
        user_id=UserId(row.user_id),
        signed_in_by=SignInWay(row.signed_in_by),
        user_agent=row.user_agent,
        created_at_ms=row.created_at_ms,
        expires_at_ms=row.expires_at_ms,
    )
