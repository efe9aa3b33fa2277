"""A bot in a process of its own, to be killed. Arguments: homeserver URL, as_token, user id, folder.

Opens the device, listens, and prints `ready`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from appservices.chassis.encryption import BotDevice
from appservices.chassis.homeserver import Homeserver, open_session
from appservices.chassis.intents import IntentPool
from appservices.vocabulary.ids import ServerName, UserId, server_of


async def listen(url: str, as_token: str, user_id: UserId, folder: Path) -> None:
    async with open_session() as session:
        homeserver = Homeserver(
            url, as_token=as_token, server_name=ServerName(server_of(user_id)), session=session
        )
        async with await BotDevice.open(
            IntentPool(homeserver), user_id, folder=folder, display_name="Weft"
        ) as bot:
            print("ready", flush=True)
            await bot.run()


if __name__ == "__main__":
    asyncio.run(listen(sys.argv[1], sys.argv[2], UserId(sys.argv[3]), Path(sys.argv[4])))
