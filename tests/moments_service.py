"""The service of Moments without Matrix: its real database and use cases, and accounts that a test writes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appservices.chassis.chosen_languages import english_for_all
from appservices.chassis.database import open_database
from appservices.chassis.migrations import CHASSIS_MIGRATIONS, migrate
from appservices.moments.across import Across
from appservices.moments.actions import Actions
from appservices.moments.contacts import ContactBook
from appservices.moments.distribution import Distribution
from appservices.moments.feed_messages import NameOf
from appservices.moments.records import Content
from appservices.moments.tables import MOMENTS_MIGRATIONS
from appservices.moments.viewing import Viewing
from appservices.vocabulary.ids import RoomId, ServerName, UserId

HERE = ServerName("here")


@dataclass
class Accounts:
    """What Synapse's contacts module would tell: in its words, of accounts that are written here."""

    circles: dict[str, dict[str, Any]] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)

    def set(self, user: str, **parts: Any) -> None:
        empty: dict[str, Any] = {"direct": [], "rooms": [], "ignored": [], "tags": {}, "switches": {}}
        self.circles[user] = self.circles.get(user, empty) | parts
        self.changed.append(user)

    async def ask(self, method: str, body: Mapping[str, Any] | None, query: Mapping[str, str]) -> Any:
        if method == "GET":
            since = query.get("since")
            told = {"next": f"{len(self.changed)}.0", "all": since is None, "users": [], "rooms": []}
            if since is not None:
                told["users"] = sorted(set(self.changed[int(since.partition(".")[0]) :]))
            return told
        assert body is not None
        return {"circles": {user: self.circles[user] for user in body["users"] if user in self.circles}}


@dataclass
class Clock:
    now_ms: int = 10**12

    def __call__(self) -> int:
        # Every look is later than the one before, so that order is never chance.
        self.now_ms += 1
        return self.now_ms


@dataclass
class MomentsService:
    accounts: Accounts
    actions: Actions
    viewing: Viewing
    across: Across
    distribution: Distribution
    clock: Clock


async def _names_of(_people: Iterable[UserId]) -> NameOf:
    return str


async def _is_private(_room_id: RoomId, _person: UserId) -> bool:
    return True


async def _no_sheet(_content: Content) -> None:
    return None


@asynccontextmanager
async def moments_service(
    folder: Path, *, database_url: str = "sqlite:///moments.db"
) -> AsyncIterator[MomentsService]:
    database = open_database(database_url, folder=folder)
    await migrate(database, CHASSIS_MIGRATIONS, MOMENTS_MIGRATIONS)
    accounts, clock = Accounts(), Clock()
    contacts = ContactBook(
        database,
        ask=accounts.ask,
        own_server=HERE,
        service_users=frozenset({UserId("@moments:here")}),
    )
    viewing = Viewing(database, contacts, clock=clock)
    across = Across(database, contacts, own_user=UserId("@moments:here"), clock=clock, on_commit=lambda: None)
    try:
        yield MomentsService(
            accounts,
            Actions(database, contacts, clock=clock),
            viewing,
            across,
            Distribution(
                database,
                contacts,
                viewing,
                names_of=_names_of,
                is_private=_is_private,
                across=across,
                sheet_of=_no_sheet,
                language_of=english_for_all,
                clock=clock,
                on_commit=lambda: None,
            ),
            clock,
        )
    finally:
        await database.close()
