"""Tells the story: `scripts/demo`. Exit status 1 with one sentence when it does not come to its end."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.markup import escape

from appservices.vocabulary.events import RECEIPT, RED_PACKET
from appservices.vocabulary.signing import verify_json
from scripts.story.homes import Home, HomeFailed, homes_in
from scripts.story.person import JsonObject, NothingCame, Person

HOLD_LOOKS_MAX = 30

console = Console(highlight=False, soft_wrap=True)


def main() -> None:
    # What a client library has to say about keys under way is no part of the story.
    logging.getLogger("nio").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="weft-demo-"))
    began = time.monotonic()
    try:
        asyncio.run(_tell(folder))
    except (HomeFailed, NothingCame) as problem:
        console.print(f"[red]The story broke off: {escape(str(problem))}[/red] (what it left is in {folder})")
        sys.exit(1)
    shutil.rmtree(folder, ignore_errors=True)
    console.print(f"\n[bold]The end[/bold], after {time.monotonic() - began:.0f} seconds.")


async def _tell(folder: Path) -> None:
    north, south = homes_in(folder, "North", "South")
    chapter("Two homeservers, each with Weft beside it")
    try:
        await asyncio.gather(north.start(), south.start())
        told(f"North is {north.server_name} at {north.url}, South is {south.server_name} at {south.url}.")
        alice, bob, carol = (
            Person(name, home, folder / "clients" / name)
            for name, home in (("Alice", north), ("Bob", north), ("Carol", south))
        )
        people = (alice, bob, carol)
        try:
            await _people_arrive(alice, bob, carol)
            await _money_moves(north, alice, bob, carol)
            await _money_moves_in_secret(north, alice, bob)
            await _friends_share(north, alice, bob)
            await _across_servers(north, south, alice, carol)
            await _the_books_are_right(north, alice, bob)
        finally:
            await asyncio.gather(*(person.sign_off() for person in people))
    finally:
        await asyncio.gather(north.stop(), south.stop())


async def _people_arrive(alice: Person, bob: Person, carol: Person) -> None:
    chapter("Alice and Bob join North, Carol joins South")
    for person in (alice, bob, carol):
        await person.sign_up()
    homes = await asyncio.gather(*(person.home_room() for person in (alice, bob, carol)))
    told(f"Each finds a Home room with @weft and @wallet in it; Alice's is {homes[0]}.")
    question = await alice.say(homes[0], "!help")
    answer = await alice.answer_to(homes[0], question, sender=alice.home.user("wallet"))
    said(alice, "!help")
    service_said("Wallet", answer["content"]["body"])


async def _money_moves(north: Home, alice: Person, bob: Person, carol: Person) -> None:
    chapter("Lunch, in a plain room across both servers")
    wallet = north.user("wallet")
    room_id = await alice.make_room("Lunch", encrypted=False, invite=[bob.user_id, carol.user_id, wallet])
    await bob.join(room_id)
    await carol.join(room_id)
    for person in (alice, bob, carol):
        await person.sees_members(room_id, alice.user_id, bob.user_id, carol.user_id, wallet)
    await carol.say(room_id, "Who paid for the soup?")
    said(carol, "Who paid for the soup?")
    await alice.hears(
        room_id, lambda event: event["content"].get("body") == "Who paid for the soup?", "Carol's question"
    )

    said(alice, "!pay Bob 12.50 EUR soup")
    refused = await _command(alice, room_id, "!pay Bob 12.50 EUR soup", sender=wallet)
    service_said("Wallet", refused)
    told("Alice has no money yet, and only she is told how much she has. The operator takes her 100 euros.")
    operator(await north.weft("wallet", "deposit", alice.user_id, "100", "EUR"))

    said(alice, "!pay Bob 12.50 EUR soup again")
    await alice.say(room_id, "!pay Bob 12.50 EUR soup again")
    contents = [await person.receipt(room_id, "soup again") for person in (alice, bob, carol)]
    service_said("Wallet", contents[0]["body"])
    await _verify(north, contents[2])
    told("All three see the receipt; Carol's client, on the other server, has verified its signature.")

    for wish in (f"!pay {carol.user_id} 5 EUR", "!pay Bob 1,250 EUR", "!pay Bob -5 EUR", "!pay Dave 5 EUR"):
        said(alice, wish)
        service_said("Wallet", await _command(alice, room_id, wish, sender=wallet))


async def _money_moves_in_secret(north: Home, alice: Person, bob: Person) -> None:
    chapter("The same in an encrypted room")
    wallet = north.user("wallet")
    room_id = await alice.make_room("Secrets", encrypted=True, invite=[bob.user_id, wallet])
    await bob.join(room_id)
    await alice.sees_members(room_id, bob.user_id, wallet, encrypted=True)
    await bob.sees_members(room_id, alice.user_id, wallet, encrypted=True)
    said(bob, "!pay Alice €2,50 tea")
    await bob.say(room_id, "!pay Alice €2,50 tea")
    content = await alice.receipt(room_id, "tea")
    service_said("Wallet", content["body"])
    await _verify(north, content)
    told("Synapse carried only ciphertext; both read the receipt, and it verifies.")


async def _friends_share(north: Home, alice: Person, bob: Person) -> None:
    chapter("Asking and giving, by a tap")
    wallet = north.user("wallet")
    room_id = await alice.make_room("Friends", encrypted=False, invite=[bob.user_id, wallet])
    await bob.join(room_id)
    for person in (alice, bob):
        await person.sees_members(room_id, alice.user_id, bob.user_id, wallet)
    said(bob, "!request Alice 3 EUR cinema")
    await bob.say(room_id, "!request Alice 3 EUR cinema")
    asked = await alice.hears(room_id, _is_of(wallet, "cinema"), "the request")
    service_said("Wallet", asked["content"]["body"])
    tapped(alice, "✅")
    await alice.react(room_id, asked["event_id"], "✅")
    service_said("Wallet", (await bob.receipt(room_id, "cinema"))["body"])

    said(alice, "!redpacket 5 EUR 2 happy new year")
    await alice.say(room_id, "!redpacket 5 EUR 2 happy new year")
    packet = await bob.hears(room_id, lambda event: RED_PACKET in event["content"], "the red packet")
    service_said("Wallet", packet["content"]["body"])
    for person in (bob, alice):
        tapped(person, "🧧")
        await person.react(room_id, packet["event_id"], "🧧")
    emptied = await bob.reads(room_id, "It is empty: 2 of 2")
    service_said("Wallet", emptied["content"]["m.new_content"]["body"])


async def _across_servers(north: Home, south: Home, alice: Person, carol: Person) -> None:
    chapter("North and South agree that their people pay each other")
    for home, other in ((north, south), (south, north)):
        operator(await home.weft("wallet", "peer", "add", other.server_name, "--credit-limit", "100 EUR"))
    wallet = north.user("wallet")
    room_id = await alice.make_room("Journey", encrypted=False, invite=[carol.user_id, wallet])
    await carol.join(room_id)
    for person in (alice, carol):
        await person.sees_members(room_id, alice.user_id, carol.user_id, wallet)
    await _pays_across(north, alice, carol, room_id, "20 EUR", "train tickets")
    told("Carol has the money in South's wallet, and North owes South as much.")

    told("South goes away, and Alice pays again: her money is held, for nobody knows whether it has arrived.")
    await south.stop()
    said(alice, f"!pay {carol.user_id} 3 EUR coffee")
    await alice.say(room_id, f"!pay {carol.user_id} 3 EUR coffee")
    await _holds(north, "€3.00")
    operator(await north.weft("wallet", "peers"))
    told("South comes back, and so does Carol.")
    await south.start()
    await carol.say(room_id, "Here I am again.")
    said(carol, "Here I am again.")
    service_said("Wallet", (await carol.receipt(room_id, "coffee"))["body"])

    told("North's operator has sent South's a bank transfer, and South's operator says so.")
    operator(
        await south.weft(
            "wallet", "peer", "settle", north.server_name, "23 EUR", "--reference", "bank transfer 17"
        )
    )
    operator(await south.weft("wallet", "peers"))


async def _pays_across(
    north: Home, alice: Person, carol: Person, room_id: str, amount: str, memo: str
) -> None:
    wish = f"!pay {carol.user_id} {amount} {memo}"
    said(alice, wish)
    await alice.say(room_id, wish)
    contents = [await person.receipt(room_id, memo) for person in (alice, carol)]
    service_said("Wallet", contents[0]["body"])
    await _verify(north, contents[1])


async def _holds(home: Home, amount: str) -> None:
    """Waits until that much is under way to another server. Raises NothingCame."""
    for _ in range(HOLD_LOOKS_MAX):
        if amount in await home.weft("wallet", "peers"):
            return
        await asyncio.sleep(1)
    raise NothingCame(f"the {amount} that are held")


def _is_of(sender: str, words: str) -> Callable[[JsonObject], bool]:
    return lambda event: event["sender"] == sender and words in str(event["content"].get("body", ""))


async def _the_books_are_right(north: Home, alice: Person, bob: Person) -> None:
    chapter("What everybody has now")
    for person in (alice, bob):
        room_id = await person.home_room()
        said(person, "balance")
        service_said("Wallet", await _command(person, room_id, "balance", sender=north.user("wallet")))
    operator(await north.weft("wallet", "balances"))
    operator(await north.weft("wallet", "verify"))


async def _command(person: Person, room_id: str, text: str, *, sender: str) -> str:
    event_id = await person.say(room_id, text)
    answer = await person.answer_to(room_id, event_id, sender=sender)
    return str(answer["content"]["body"])


async def _verify(home: Home, content: Mapping[str, Any]) -> None:
    """Checks a receipt against the keys that its wallet publishes. Raises SignatureInvalid."""
    async with httpx.AsyncClient() as http:
        published = (await http.get(f"{home.portal_url}/_weft/wallet/keys")).json()
    receipt = content[RECEIPT]
    verify_json(receipt, signer=receipt["wallet"], keys=published["keys"])


def chapter(title: str) -> None:
    console.print(f"\n[bold]{escape(title)}[/bold]")


def told(text: str) -> None:
    console.print(f"  [dim]{escape(text)}[/dim]")


def said(person: Person, text: str) -> None:
    console.print(f"  [cyan]{person.name:>6}[/cyan]  {escape(text)}")


def tapped(person: Person, key: str) -> None:
    console.print(f"  [cyan]{person.name:>6}[/cyan]  reacts with {key}")


def service_said(name: str, text: str) -> None:
    for index, line in enumerate(text.splitlines()):
        console.print(f"  [green]{name if index == 0 else '':>6}[/green]  {escape(line)}")


def operator(output: str) -> None:
    for line in output.splitlines():
        console.print(f"  [magenta]     $[/magenta]  {escape(line)}")


if __name__ == "__main__":
    main()
