"""What people have chosen for themselves: names and texts, which those use cases judge that own them.

A choice that was not made is the operator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.exc import IntegrityError

from appservices.chassis.database import Database, UnitOfWork, Write
from appservices.vocabulary.ids import UserId
from wallet_appservice.storage.settings_tables import wallet_settings

ACCEPTANCE: Final = "acceptance"
VALUE_LENGTH_MAX: Final = 4_000
_ON, _OFF = "on", "off"

TRIES_MAX: Final = 5
_SELECT: Final = select(wallet_settings).where(
    wallet_settings.c.user_id.in_(bindparam("of_users", expanding=True))
)
_DELETE: Final = delete(wallet_settings).where(
    wallet_settings.c.user_id == bindparam("of_user"), wallet_settings.c.name == bindparam("of_name")
)
_DELETE_ONE: Final = _DELETE.where(wallet_settings.c.value == bindparam("of_value"))
_INSERT: Final = insert(wallet_settings)


class Settings:
    """The settings of all users, in the wallet's database."""

    def __init__(self, database: Database, *, acceptance: bool = False) -> None:
        """`acceptance` is what the operator has set for all."""
        self._database = database
        self._acceptance_of_all = acceptance

    @property
    def acceptance_of_all(self) -> bool:
        """Whether the operator lets everybody's incoming payments wait, whatever they choose."""
        return self._acceptance_of_all

    async def waits_for_acceptance(self, user: UserId) -> bool:
        """Whether payments to this person wait until they accept them: the operator's wish, or their own."""
        return self._acceptance_of_all or (await self.of(user)).get(ACCEPTANCE) == _ON

    def acceptance_writes(self, user: UserId, *, on: bool) -> Sequence[Write]:
        """The choice, to be committed with what tells of it."""
        return setting_writes(user, ACCEPTANCE, _ON if on else _OFF)

    async def of(self, user: UserId) -> dict[str, str]:
        """All that the user has chosen, by name; what is not there is as it is for everybody."""
        async with self._database.read() as work:
            return await settings_of(work, user)

    async def set(self, user: UserId, name: str, value: str | None) -> None:
        """Chooses; None takes the choice back."""
        await change_settings(self._database, setting_writes(user, name, value))


async def change_settings(database: Database, writes: Sequence[Write]) -> None:
    """Commits writes that set something; the last of several at one moment counts."""
    for left in range(TRIES_MAX - 1, -1, -1):
        try:
            async with database.begin() as work:
                await work.apply(writes)
                await work.commit()
                return
        except IntegrityError:
            # The same setting was made at the same moment.
            if not left:
                raise


async def settings_of(work: UnitOfWork, user: UserId) -> dict[str, str]:
    """The same within a unit of work."""
    return (await settings_of_all(work, [user]))[user]


async def settings_of_all(work: UnitOfWork, users: Sequence[UserId]) -> dict[UserId, dict[str, str]]:
    """The same of several users; each of them is in it."""
    settings: dict[UserId, dict[str, str]] = {user: {} for user in users}
    for row in await work.execute(_SELECT, {"of_users": users}):
        settings[row.user_id][row.name] = row.value
    return settings


def setting_writes(user: UserId, name: str, value: str | None) -> Sequence[Write]:
    """The choice as an effect of something else; None takes it back. Raises ValueError for one too long."""
    if value is not None and len(value) > VALUE_LENGTH_MAX:
        raise ValueError(f"a setting has at most {VALUE_LENGTH_MAX} characters")
    writes = [Write(_DELETE, {"of_user": user, "of_name": name})]
    if value is not None:
        writes.append(Write(_INSERT, {"user_id": user, "name": name, "value": value}))
    return writes


async def replace_setting(
    work: UnitOfWork, user: UserId, name: str, *, old: str | None, new: str | None
) -> bool:
    """Puts one choice in the place of another, None for none; False if `old` isn't what stands there.

    Raises IntegrityError where the same choice was first made at the same moment.
    """
    if old is not None:
        gone = await work.execute(_DELETE_ONE, {"of_user": user, "of_name": name, "of_value": old})
        if gone.rowcount != 1:
            return False
    if new is not None:
        await work.execute(_INSERT, {"user_id": user, "name": name, "value": new})
    return True
