"""What people choose for their own wallet. A choice that was not made is the operator's."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, insert, select

from appservices.chassis.database import Database, Write
from appservices.vocabulary.ids import UserId
from wallet_appservice.storage.settings_tables import wallet_settings

ACCEPTANCE: Final = "acceptance"
VALUE_LENGTH_MAX: Final = 4_000
_ON, _OFF = "on", "off"


class Settings:
    """Everybody's choices, by name; each name has accessors of its type here."""

    def __init__(self, database: Database, *, acceptance: bool) -> None:
        """`acceptance` is what the operator has set for all."""
        self._database = database
        self._acceptance_of_all = acceptance

    async def waits_for_acceptance(self, user: UserId) -> bool:
        """Whether payments to this person wait until they accept them: the operator's wish, or their own."""
        return self._acceptance_of_all or await self.value(user, ACCEPTANCE) == _ON

    @property
    def acceptance_of_all(self) -> bool:
        """Whether the operator lets everybody's incoming payments wait, whatever they choose."""
        return self._acceptance_of_all

    def acceptance_writes(self, user: UserId, *, on: bool) -> tuple[Write, Write]:
        return self.writes(user, ACCEPTANCE, _ON if on else _OFF)

    async def value(self, user: UserId, name: str) -> str | None:
        """What was chosen; None when nothing was."""
        async with self._database.read() as work:
            found = await work.execute(
                select(wallet_settings.c.value).where(
                    wallet_settings.c.user_id == user, wallet_settings.c.name == name
                )
            )
            value: str | None = found.scalar_one_or_none()
            return value

    def writes(self, user: UserId, name: str, value: str) -> tuple[Write, Write]:
        """What sets a choice, to be committed with what tells of it."""
        if len(value) > VALUE_LENGTH_MAX:
            raise ValueError(f"a setting has at most {VALUE_LENGTH_MAX} characters")
        forget = delete(wallet_settings).where(
            wallet_settings.c.user_id == user, wallet_settings.c.name == name
        )
        row = {"user_id": user, "name": name, "value": value}
        return Write(forget, {}), Write(insert(wallet_settings), row)
