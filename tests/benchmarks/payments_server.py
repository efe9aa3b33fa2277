"""The server that the benchmark of payments asks: as `weft serve` serves, in a process of its own.

What of `weft serve` is left out is what needs a homeserver: the receipts wait in the outbox, as they do
while a homeserver is away. It prints one line of JSON about itself once it serves, and ends when its input
does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from appservices.chassis.clock import system_clock
from appservices.chassis.garbage import collect_rarely
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.money import CurrencyCode, Money
from scripts.weft_cli.event_loop import run_on_fast_loop
from scripts.weft_cli.serve import server_of
from tests.web_stack import WebStack, built_web, web_config
from wallet_appservice.chat.announcements import DirectAnnouncer
from wallet_appservice.payments.merchants.records import Merchant, Scope
from wallet_appservice.payments.sweeper import Sweeper

PAYERS: Final = 64
FUNDS_MINOR: Final = 90_000
"""Of one deposit; there are DEPOSITS of them for each payer."""
DEPOSITS: Final = 3


async def main(*, folder: Path, home_url: str, wallet_url: str) -> None:
    collect_rarely()
    config = web_config(folder)
    async with AsyncExitStack() as stack:
        announcer = DirectAnnouncer(
            wallet_user=config.wallet_user,
            currencies=config.wallet.kept_currencies,
            clock=system_clock,
        )
        app, web = await built_web(
            config, stack, home_url=home_url, wallet_url=wallet_url, announcer=announcer
        )
        about = await prepare(web)
        sweeping = asyncio.create_task(Sweeper().run(web.desk.chores))
        server = server_of(config, app)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        print(json.dumps(about), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        sweeping.cancel()
        server.should_exit = True
        await serving


async def prepare(web: WebStack) -> dict[str, object]:
    """A merchant with a key, and payers with sessions and money."""
    merchant = await web.desk.merchants.open(owner=web.user("owner"), name="Bakery", by_operator=True)
    assert isinstance(merchant, Merchant)
    made = await web.desk.keys.make(merchant, name="benchmark", scopes=[Scope.ORDERS])
    assert isinstance(made, tuple)
    payers = [web.user(f"payer{number}") for number in range(PAYERS)]
    await asyncio.gather(*(fund(web, payer) for payer in payers))
    tokens = [(await web.session(payer)).token for payer in payers]
    return {"port": web.config.web.port, "key": made[1], "tokens": tokens}


async def fund(web: WebStack, payer: UserId) -> None:
    for _ in range(DEPOSITS):
        money = Money(FUNDS_MINOR, CurrencyCode("EUR"))
        await web.payments.deposit(user=payer, money=money, id=web.new_id())


if __name__ == "__main__":
    data_folder, home, wallet = sys.argv[1:]
    run_on_fast_loop(main(folder=Path(data_folder), home_url=home, wallet_url=wallet))
