"""One Synapse, one service with a bot, users with real encrypted clients: what test_encryption* share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from appservices.chassis.encryption import BotDevice
from appservices.chassis.homeserver import Homeserver, open_session
from appservices.chassis.intents import IntentPool
from appservices.vocabulary.ids import EventId, RoomId, ServerName, UserId
from tests.certificates import LocalAuthority
from tests.encrypted_client import EncryptedClient
from tests.event_feed import EventFeed
from tests.synapse import Synapse, eventually

JsonObject = dict[str, Any]

ENCRYPTION: Final[JsonObject] = {
    "type": "m.room.encryption",
    "state_key": "",
    "content": {"algorithm": "m.megolm.v1.aes-sha2"},
}


@dataclass
class Stage:
    """A running Synapse that has loaded the service's registration, and the service's way out."""

    synapse: Synapse
    feed: EventFeed
    folder: Path
    session: aiohttp.ClientSession
    names: Iterator[str] = field(default_factory=lambda: (f"n{number}" for number in range(1000)))

    @property
    def intents(self) -> IntentPool:
        return IntentPool(
            Homeserver(
                self.synapse.url,
                as_token=self.feed.as_token,
                server_name=ServerName(self.synapse.server_name),
                session=self.session,
            )
        )

    def name(self, kind: str) -> str:
        """A localpart that no other test has used."""
        return f"{kind}_{next(self.names)}"

    @asynccontextmanager
    async def bot(self, localpart: str) -> AsyncIterator[BotDevice]:
        """The bot's device, listening; opening it again with the same name continues the same device."""
        bot = await self.open_bot(localpart)
        async with bot:
            running = asyncio.create_task(bot.run())
            self.feed.on_event = bot.observe
            try:
                yield bot
            finally:
                self.feed.on_event = None
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    async def open_bot(self, localpart: str) -> BotDevice:
        intents = self.intents
        return await BotDevice.open(
            intents, intents.user(localpart), folder=self.bot_folder(localpart), display_name="Weft"
        )

    def bot_folder(self, localpart: str) -> Path:
        return self.folder / "bots" / localpart

    async def client(self, localpart: str) -> EncryptedClient:
        """A new user with a client; to be entered."""
        user = await self.synapse.register(localpart)
        return EncryptedClient(user, self.folder / "clients" / localpart)

    async def room_of(
        self, client: EncryptedClient, bot: BotDevice, *others: EncryptedClient, encrypted: bool = True
    ) -> RoomId:
        """A room that the client made, all joined, known to all clients."""
        room_id = RoomId(
            await client.user.create_room(
                preset="private_chat",
                invite=[bot.user_id, *(other.user_id for other in others)],
                initial_state=[ENCRYPTION] if encrypted else [],
            )
        )
        await bot.intent.join(room_id)
        for other in others:
            await other.user.join(room_id)
        if encrypted:
            for each in (client, *others):
                await each.wait_until_encrypted(room_id, members=2 + len(others))
        return room_id

    async def read(self, bot: BotDevice, event_id: str) -> JsonObject:
        """What the bot reads of an event that Synapse pushed to it, once its key is there."""
        event = await self.feed.event(event_id)

        async def look() -> JsonObject | None:
            return await bot.decrypt(event)

        return await eventually(look)


@asynccontextmanager
async def stage(
    folder: Path,
    config: JsonObject | None = None,
    *,
    rate_limited: bool = False,
    authority: LocalAuthority | None = None,
) -> AsyncIterator[Stage]:
    """Starts both; with an authority the homeserver federates with others of the same."""
    feed = EventFeed(folder, service="weft", users="bot_[a-z0-9_]+", rate_limited=rate_limited)
    synapse = Synapse(folder / "synapse", authority=authority)
    async with feed, open_session() as session:
        with synapse:
            settings = {"app_service_config_files": [str(feed.registration_path)], **(config or {})}
            await asyncio.to_thread(synapse.start, settings)
            yield Stage(synapse, feed, folder, session)


async def say(bot: BotDevice, room_id: RoomId, body: str, *, transaction_id: str | None = None) -> EventId:
    return await bot.send(
        room_id,
        "m.room.message",
        {"msgtype": "m.notice", "body": body},
        transaction_id=transaction_id or f"say-{bot.device_id}-{body}",
    )


def user_id_of(client: EncryptedClient) -> UserId:
    return UserId(client.user_id)
