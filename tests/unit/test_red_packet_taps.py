"""Two hundred members of one room tap on a red packet at once: each is answered, in few new versions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from appservices.chassis.database import Write
from appservices.chassis.inbox import Inbox, StoredEvent
from appservices.chassis.reactions import ReactionCall, ReactionRouter
from appservices.chassis.rooms import Members, Room
from appservices.vocabulary.ids import EventId, ServerName, UserId
from appservices.vocabulary.money import Money
from tests.people_wallet import ALICE, EUR, LUNCH, WALLET, new_id, people_wallet
from wallet_appservice.chat.red_packet_commands import OPEN, RedPacketCommands
from wallet_appservice.payments.red_packet_records import SUBJECT, PacketOrder, RedPacket

CROWD = [UserId(f"@member{number}:a") for number in range(200)]
SECONDS_MAX = 30
"""On a machine that does much else; alone it takes a few."""


async def test_two_hundred_taps_in_one_room_are_answered_in_seconds(tmp_path: Path) -> None:
    members = {LUNCH: {WALLET, ALICE, *CROWD}}
    async with people_wallet("sqlite:///wallet.db", tmp_path, members=members) as wallet:
        await wallet.deposit(ALICE, 20_000)
        order = PacketOrder(id=new_id("p"), sender=ALICE, room_id=LUNCH, money=Money(20_000, EUR), count=200)
        packet = await wallet.people.red_packets.fill(order)
        assert isinstance(packet, RedPacket)
        commands = RedPacketCommands(
            wallet.payments, wallet.people.red_packets, public_url="https://weft.example.org"
        )
        router = ReactionRouter({SUBJECT: commands.reacted}, own_server=ServerName("a"))
        joined = dict.fromkeys(members[LUNCH])
        room = Room(LUNCH, Members(joined, frozenset(), is_closed=False), frozenset({WALLET}))

        async def handle(stored: StoredEvent) -> Sequence[Write] | None:
            return await router.route(
                ReactionCall(
                    event_id=stored.event_id,
                    sender=UserId(stored.event["sender"]),
                    room=room,
                    stored=stored,
                    service_user=WALLET,
                    now_ms=wallet.clock(),
                    key=OPEN,
                    subject=packet.subject,
                    to=EventId("$packet"),
                )
            )

        async def given_up(stored: StoredEvent) -> Sequence[Write]:
            raise AssertionError(stored)

        inbox = Inbox(
            wallet.database,
            clock=wallet.clock,
            handle=handle,
            on_effects=lambda: None,
            on_given_up=given_up,
        )
        async with asyncio.timeout(SECONDS_MAX):
            sweeping = asyncio.create_task(wallet.people.sweeper.run(wallet.people.chores))
            working = asyncio.create_task(inbox.run())
            await inbox.accept(
                [
                    {"event_id": f"${number}", "room_id": LUNCH, "sender": user, "type": "m.reaction"}
                    for number, user in enumerate(CROWD)
                ]
            )
            while not any("200 of 200" in text for text in await wallet.told(to=LUNCH)):
                await asyncio.sleep(0.5)
        for task in (sweeping, working):
            task.cancel()
        await asyncio.gather(sweeping, working, return_exceptions=True)
        assert await inbox.counts() == {}
        assert sum([await wallet.balance(user) for user in CROWD]) == 20_000
        for user in CROWD:
            assert len(await wallet.told(to=user)) == 1
        assert len(await wallet.told(to=LUNCH)) < 40
