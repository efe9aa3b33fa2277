"""What people have chosen for themselves: names and texts, which those use cases judge that own them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, delete, insert, select

from appservices.chassis.database import Database, UnitOfWork, Write
from appservices.vocabulary.ids import UserId
from wallet_appservice.storage.settings_tables import wallet_settings

_SELECT: Final = select(wallet_settings.c.name, wallet_settings.c.value).where(
    wallet_settings.c.user_id == bindparam("of_user")
)
_DELETE: Final = delete(wallet_settings).where(
    wallet_settings.c.user_id == bindparam("of_user"), wallet_settings.c.name == bindparam("of_name")
)
_INSERT: Final = insert(wallet_settings)


class Settings:
    """The settings of all users, in the wallet's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, user: UserId) -> dict[str, str]:
        """All that the user has chosen, by name; what is not there is as it is for everybody."""
        async with self._database.read() as work:
            return await settings_of(work, user)

    async def set(self, user: UserId, name: str, value: str | None) -> None:
        """Chooses; None takes the choice back."""
        async with self._database.begin() as work:
            await work.apply(setting_writes(user, name, value))
            await work.commit()


async def settings_of(work: UnitOfWork, user: UserId) -> dict[str, str]:
    """The same within a unit of work."""
    return {row.name: row.value for row in await work.execute(_SELECT, {"of_user": user})}


def setting_writes(user: UserId, name: str, value: str | None) -> Sequence[Write]:
    """The choice as an effect of something else; None takes it back."""
    writes = [Write(_DELETE, {"of_user": user, "of_name": name})]
    if value is not None:
        writes.append(Write(_INSERT, {"user_id": user, "name": name, "value": value}))
    return writes
