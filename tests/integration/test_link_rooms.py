"""Two services find into a room together, on two real homeservers, when both make one at the same moment and
invites are lost or late on the way from a homeserver to its service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from appservices.chassis.clock import system_clock
from appservices.chassis.database import Write, open_database
from appservices.chassis.homeserver import Homeserver, MatrixRefused, open_session
from appservices.chassis.inbox import StoredEvent
from appservices.chassis.intents import IntentPool
from appservices.chassis.links import rooms as rooms_module
from appservices.chassis.links.protocol import Item, StopReason
from appservices.chassis.links.storage import item_write
from appservices.chassis.links.switchboard import Switchboard
from appservices.chassis.migrations import CHASSIS_MIGRATIONS, migrate
from appservices.vocabulary.ids import EventId, RoomId, ServerName, UserId
from appservices.vocabulary.signing import SigningKey
from tests.certificates import LocalAuthority
from tests.link_channel import shorten_pauses
from tests.synapse import MatrixUser, Synapse, eventually

LATE_SECONDS = 3.0
INVITES_BEFORE = 4
RETRY_SECONDS = 0.2
"""As the inbox, which tries again what fails."""

HearsInvite = Callable[[int], Awaitable[bool]]
"""Whether an invite, counted from 0, gets from the homeserver to its service; and when."""


@pytest.fixture(scope="module")
def homeservers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Synapse, Synapse]]:
    folder = tmp_path_factory.mktemp("linking")
    authority = LocalAuthority.make(folder / "authority")
    with (
        Synapse(folder / "one", authority=authority) as one,
        Synapse(folder / "two", authority=authority) as two,
    ):
        one.start()
        two.start()
        # The smaller user id is the first one's.
        yield (one, two) if one.server_name < two.server_name else (two, one)


class Linking:
    """A service that is told of events by /sync: an ordinary account, as its homeserver sees it."""

    def __init__(self, user: MatrixUser, hears_invite: HearsInvite) -> None:
        self.user_id = UserId(user.user_id)
        self.applied: list[Item] = []
        self.switchboard: Switchboard
        self.invites = 0
        self.user = user
        self._hears_invite = hears_invite
        self._seen: set[str] = set()

    # The feature.

    async def allows(self, peer: UserId) -> bool:
        return True

    async def apply(self, peer: UserId, items: Sequence[Item], received: Sequence[Write]) -> None:
        await self.switchboard.storage.write(received)
        self.applied.extend(items)

    async def stopped(self, peer: UserId, reason: StopReason, detail: str) -> Sequence[Write]:
        raise AssertionError(f"the link has stopped: {reason} ({detail})")

    async def mended(self, peer: UserId) -> Sequence[Write]:
        return []

    async def say(self, peer: UserId, number: int) -> None:
        await self.switchboard.storage.write([item_write(peer, {"kind": "said", "n": number})])
        self.switchboard.wake(peer)

    def room_id(self, peer: UserId) -> RoomId | None:
        link = self.switchboard.known(peer)
        return None if link is None else link.state.room_id

    async def listen(self) -> None:
        """Hears what happens, until cancelled."""
        since: dict[str, str] = {}
        async with asyncio.TaskGroup() as hearing:
            while True:
                answer = await self.user.request("GET", "/sync", parameters={"timeout": "200", **since})
                since = {"since": answer["next_batch"]}
                for event in _events(answer):
                    hearing.create_task(self._hear(event))

    async def _hear(self, event: Mapping[str, Any]) -> None:
        is_invite = event["type"] == "m.room.member" and event["content"]["membership"] == "invite"
        if is_invite and event["state_key"] == self.user_id:
            number, self.invites = self.invites, self.invites + 1
            if not await self._hears_invite(number):
                return
        stored = StoredEvent(0, RoomId(event["room_id"]), EventId(event.get("event_id", "$")), event, 0)
        while True:
            try:
                if is_invite and event["state_key"] == self.user_id:
                    await self.switchboard.invited(stored)
                elif event["type"] == "m.room.member":
                    self.switchboard.member(event)
                elif self.switchboard.is_wanted(event):
                    await self.switchboard.received(stored)
                return
            except MatrixRefused:
                return
            except Exception:
                await asyncio.sleep(RETRY_SECONDS)


def _events(answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    rooms = answer.get("rooms", {})
    for room_id, room in rooms.get("join", {}).items():
        for event in room["timeline"]["events"]:
            yield {**event, "room_id": room_id}
    for room_id, room in rooms.get("invite", {}).items():
        states = room["invite_state"]["events"]
        for event in states:
            if event["type"] == "m.room.member" and event["content"]["membership"] == "invite":
                yield {**event, "room_id": room_id, "unsigned": {"invite_room_state": states}}


@asynccontextmanager
async def linking(
    synapse: Synapse, name: str, folder: Path, hears_invite: HearsInvite
) -> AsyncIterator[Linking]:
    user = await synapse.register(name)
    service = Linking(user, hears_invite)
    database = open_database(f"sqlite:///{synapse.port}.db", folder=folder)
    await migrate(database, CHASSIS_MIGRATIONS)
    async with open_session() as session:
        homeserver = Homeserver(
            synapse.url,
            as_token=user.access_token,
            server_name=ServerName(synapse.server_name),
            session=session,
        )
        intent = IntentPool(homeserver).intent(service.user_id)
        service.switchboard = Switchboard(
            service.user_id,
            database=database,
            key=SigningKey.generate(),
            feature=service,
            intent=lambda: intent,
            clock=system_clock,
        )
        tasks = [asyncio.create_task(work) for work in (service.switchboard.run(), service.listen())]
        try:
            yield service
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    await database.close()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten_pauses(monkeypatch)
    monkeypatch.setattr(rooms_module, "INVITE_SECONDS", 0.3)
    monkeypatch.setattr(rooms_module, "LOOK_SECONDS", 0.1)


@pytest.mark.parametrize(
    "case", ["nothing is lost", "lost to the smaller", "lost to the larger", "late for the larger"]
)
async def test_two_who_make_a_room_at_the_same_moment_meet_and_stay_together(
    homeservers: tuple[Synapse, Synapse], tmp_path: Path, case: str
) -> None:
    both_made = asyncio.Event()
    sides: list[Linking] = []

    async def smaller_hears(number: int) -> bool:
        await both_made.wait()
        return not (case == "lost to the smaller" and number == 0)

    async def larger_hears(number: int) -> bool:
        await both_made.wait()
        if case == "late for the larger":
            # It hears nothing while the smaller one may still hope that it will come.
            with suppress(TimeoutError):
                async with asyncio.timeout(LATE_SECONDS):
                    while sides[0].invites < INVITES_BEFORE:
                        await asyncio.sleep(0.01)
        return not (case == "lost to the larger" and number == 0)

    name = f"wallet.{case.replace(' ', '.')}"
    async with (
        linking(homeservers[0], name, tmp_path, smaller_hears) as smaller,
        linking(homeservers[1], name, tmp_path, larger_hears) as larger,
    ):
        sides += [smaller, larger]
        await smaller.say(larger.user_id, 0)
        await larger.say(smaller.user_id, 0)
        await eventually(lambda: made(smaller.room_id(larger.user_id), larger.room_id(smaller.user_id)))
        both_made.set()
        for number in range(10):
            await smaller.say(larger.user_id, number)
            await larger.say(smaller.user_id, number)
            await asyncio.sleep(0.1)
        said = [{"kind": "said", "n": number} for number in (0, *range(10))]

        async def heard() -> bool:
            return smaller.applied == larger.applied == said

        await eventually(heard)
        for side in sides:
            assert len(await side.user.joined_rooms()) <= 2


async def made(*rooms: RoomId | None) -> bool:
    return None not in rooms
