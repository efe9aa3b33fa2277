"""Who of our people another wallet may speak of: looked up once, since the same ones come again and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from appservices.chassis.database import Write
from appservices.vocabulary.ids import UserId, server_of
from wallet_appservice.ledger.engine import Ledger

KNOWN_PEOPLE_MAX: Final = 20_000


class KnownPeople:
    """Remembers whom it has found; who is not there is looked up again."""

    def __init__(
        self,
        ledger: Ledger[Write],
        *,
        wallet_user: UserId,
        service_users: frozenset[UserId],
        user_exists: Callable[[UserId], Awaitable[bool]],
    ) -> None:
        self._ledger = ledger
        self._own_server = server_of(wallet_user)
        self._service_users = service_users
        self._user_exists = user_exists
        self._known: dict[UserId, None] = {}

    def are_here(self, user: UserId) -> bool:
        """Whether the id is one of this homeserver's."""
        return server_of(user) == self._own_server

    async def includes(self, user: UserId) -> bool:
        """Whether there is such a person here."""
        if user in self._service_users or not self.are_here(user):
            return False
        if user in self._known:
            return True
        if not await self._ledger.accounts_of(user) and not await self._user_exists(user):
            return False
        if len(self._known) >= KNOWN_PEOPLE_MAX:
            self._known.clear()
        self._known[user] = None
        return True
