"""Which language each user has chosen to be spoken to in. The choice is theirs alone; nobody else sets it.

It lies in the home database, beside the sessions, and is remembered for seconds only: another process may
change it.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from asyncpg import PostgresError
from sqlalchemy import select, text
from sqlalchemy.exc import SQLAlchemyError

from appservices.chassis.database import Database
from appservices.chassis.session_tables import chosen_languages
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import ENGLISH, LANGUAGES

logger = logging.getLogger(__name__)

REMEMBERED_SECONDS: Final = 5.0
REMEMBERED_MAX: Final = 10_000

# The same words on SQLite and PostgreSQL; one statement, so that two choices at once can't collide.
_CHOOSE = text(
    "INSERT INTO chosen_languages (user_id, language) VALUES (:user_id, :language) "
    "ON CONFLICT (user_id) DO UPDATE SET language = excluded.language"
)

LanguageOf = Callable[[UserId], Awaitable[str]]
"""The tag of the language in which a user is spoken to."""


async def english_for_all(_user: UserId) -> str:
    """Where nobody can have chosen a language."""
    return ENGLISH


class ChosenLanguages:
    """The users' choices, and the operator's language for those who have made none."""

    def __init__(
        self, database: Database, *, default: str, monotonic_seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self.default = default
        self._database = database
        self._monotonic_seconds = monotonic_seconds
        self._remembered: OrderedDict[UserId, tuple[float, str | None]] = OrderedDict()

    async def chosen_by(self, user: UserId) -> str | None:
        """The tag of the language that the user has chosen; None when they have chosen none that we speak."""
        remembered = self._remembered.get(user)
        if remembered is not None and self._monotonic_seconds() < remembered[0]:
            return remembered[1]
        async with self._database.read() as work:
            found = await work.execute(
                select(chosen_languages.c.language).where(chosen_languages.c.user_id == user)
            )
            tag = found.scalar_one_or_none()
        chosen = tag if tag in LANGUAGES else None
        if self._remembered.get(user) is remembered:
            # Otherwise a choice was made while we read, and may be newer than what we have read.
            self._remember(user, chosen)
        return chosen

    async def spoken_with(self, user: UserId) -> str:
        """The tag of the language to speak with the user.

        While the database can't be asked it is the operator's: better to be understood less than not to be
        answered.
        """
        try:
            return await self.chosen_by(user) or self.default
        except (SQLAlchemyError, PostgresError, OSError) as error:
            logger.warning("the language of %s can't be looked up: %s", user, error)
            return self.default

    async def choose(self, user: UserId, tag: str) -> None:
        """The user chooses a language. Raises ValueError when it is none of ours."""
        if tag not in LANGUAGES:
            raise ValueError(f"{tag} is not a language of Weft's")
        async with self._database.begin() as work:
            await work.execute(_CHOOSE, {"user_id": user, "language": tag})
            await work.commit()
        # Of two choices at once, the database alone knows the later one: it is asked at the next use.
        self._remember(user, tag, seconds=0.0)

    def _remember(self, user: UserId, tag: str | None, *, seconds: float = REMEMBERED_SECONDS) -> None:
        self._remembered[user] = (self._monotonic_seconds() + seconds, tag)
        self._remembered.move_to_end(user)
        while len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
