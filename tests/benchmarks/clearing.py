"""Payments across two homeservers: how many a second, and how long one takes beside two plain messages.

    scripts/bench clearing [--quick] [--json FILE]

Two whole Wefts on this machine federate. Many people of one pay people of the other over the wallet's API,
without a room, and each waits for the answer before the next payment. Beside it, alone: one payment, and a
plain message there and one back, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from appservices.chassis.clock import Tokens, system_clock
from appservices.chassis.database import open_database
from appservices.chassis.web_sessions import SessionStore, SignInWay
from appservices.vocabulary.ids import TransferId, UserId
from appservices.vocabulary.money import CurrencyCode
from tests.benchmarks.payments_chat import Reader
from tests.severed import balances, make_peers, owed_minor
from tests.stack import Stack
from tests.synapse import MatrixUser, eventually
from wallet_appservice.ledger.engine import Ledger
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.ledger.values import Transfer, TransferCode
from wallet_appservice.payments.accounts import issuance_account, user_account
from wallet_appservice.storage.ledger_store import SqlLedgerStore

EUR: Final = CurrencyCode("EUR")
PAYERS: Final = 500
PAYEES: Final = 10
SECONDS: Final = 30.0
WARM_UP_SECONDS: Final = 5.0
ROUNDS: Final = 30
RATE_GOAL: Final = 650.0
P99_GOAL_SECONDS: Final = 1.0
RATIO_GOAL: Final = 2.5


@dataclass(frozen=True, slots=True)
class Load:
    """What came of many payers at once."""

    posted: int
    others: dict[str, int]
    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        return self.posted / self.seconds

    def percentile(self, percent: int) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else float("inf")


async def measure(folder: Path, *, payers: int, seconds: float, rounds: int) -> dict[str, Any]:
    authority = folder / "authority"
    here, there = stacks = [Stack(folder / name, authority_folder=authority) for name in ("here", "there")]
    try:
        for stack in stacks:
            stack.start()
        make_peers(*stacks, limit="10000000 EUR")
        people = [UserId(f"@payer{number}:{here.server_name}") for number in range(payers)]
        # Payees are told in their Home rooms, so they are real users; payers get their answers by the API.
        shops = [await there.register(f"shop{number}") for number in range(PAYEES)]
        payees = [UserId(shop.user_id) for shop in shops]
        await _give_money(here, people, 1_000_000)
        await _give_money(there, payees, 1)
        tokens = await _sign_in(here, people)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await _pay(session, here, tokens[0], payees[0])
            alone = await _alone(session, here, there, tokens[0], payees[0], rounds=rounds)
            await _load(session, here, tokens, payees, seconds=WARM_UP_SECONDS)
            load = await _load(session, here, tokens, payees, seconds=seconds)
        await asyncio.to_thread(_check, stacks)
        return {
            "payers": payers,
            "posted_per_second": round(load.rate, 1),
            "p50_seconds": round(load.percentile(50), 3),
            "p99_seconds": round(load.percentile(99), 3),
            "other_answers": load.others,
            "one_payment_ms": round(1000 * statistics.median(alone[0]), 1),
            "two_messages_ms": round(1000 * statistics.median(alone[1]), 1),
            "ratio": round(statistics.median(a / b for a, b in zip(*alone, strict=True)), 2),
        }
    finally:
        for stack in stacks:
            stack.stop()


async def _give_money(stack: Stack, people: list[UserId], amount_minor: int) -> None:
    """By the ledger itself: hundreds of commands would take long, and these people need no Matrix account."""
    database = open_database("sqlite:///wallet.db", folder=stack.data)
    issuance = issuance_account(EUR)
    async with Ledger(SqlLedgerStore(database), clock=system_clock) as ledger:
        accounts = [user_account(user, EUR) for user in people]
        transfers = [
            Transfer(
                id=TransferId(Tokens().hex(16)),
                debit_account_id=issuance.id,
                credit_account_id=account.id,
                amount_minor=amount_minor,
                currency=EUR,
                code=TransferCode.DEPOSIT,
            )
            for account in accounts
        ]
        await ledger.submit(Submission(accounts=(issuance, *accounts), transfers=tuple(transfers)))
    await database.close()


async def _sign_in(stack: Stack, people: list[UserId]) -> list[str]:
    database = open_database("sqlite:///weft.db", folder=stack.data)
    sessions = SessionStore(database, system_clock, Tokens(), session_hours=24)
    tokens = [(await sessions.begin(user, SignInWay.OPENID, user_agent="bench")).token for user in people]
    await database.close()
    return tokens


async def _pay(session: aiohttp.ClientSession, stack: Stack, token: str, payee: str) -> str:
    body = {"id": Tokens().hex(16), "payee": payee, "amount_minor": "1", "currency": "EUR"}
    async with session.post(
        f"{stack.web_url}/_weft/wallet/v1/payments",
        json=body,
        headers={"Authorization": f"Bearer {token}"},
    ) as answer:
        told = await answer.json()
    return str(told.get("state") or told.get("errcode"))


async def _load(
    session: aiohttp.ClientSession, stack: Stack, tokens: list[str], payees: list[UserId], *, seconds: float
) -> Load:
    latencies: list[float] = []
    others: dict[str, int] = {}
    began = time.perf_counter()

    async def payer(number: int) -> None:
        while time.perf_counter() - began < seconds:
            start = time.perf_counter()
            state = await _pay(session, stack, tokens[number], payees[number % len(payees)])
            if state == "posted":
                latencies.append(time.perf_counter() - start)
            else:
                others[state] = others.get(state, 0) + 1

    await asyncio.gather(*(payer(number) for number in range(len(tokens))))
    return Load(len(latencies), others, time.perf_counter() - began, latencies)


async def _alone(
    session: aiohttp.ClientSession, here: Stack, there: Stack, token: str, payee: str, *, rounds: int
) -> tuple[list[float], list[float]]:
    """Seconds of single payments, and of a message there and one back, in turns."""
    alice, bob = await here.register("alice"), await there.register("bob")
    room_id = await alice.create_room(invite=[bob.user_id])
    await eventually(lambda: _joins(bob, room_id, here))
    readers = [Reader(alice), Reader(bob)]
    reading = [asyncio.create_task(reader.run()) for reader in readers]
    await asyncio.sleep(1)
    payments, messages = [], []
    for number in range(rounds):
        start = time.perf_counter()
        state = await _pay(session, here, token, payee)
        payments.append(time.perf_counter() - start)
        if state != "posted":
            raise RuntimeError(f"a payment was {state}")
        start = time.perf_counter()
        for sender, reader in ((alice, readers[1]), (bob, readers[0])):
            text = f"{number} {sender.user_id}"
            seen = reader.wait_for(lambda content, text=text: bool(content.get("body") == text))  # type: ignore[misc]
            await sender.send(room_id, {"msgtype": "m.text", "body": text})
            await asyncio.wait_for(seen, 30)
        messages.append(time.perf_counter() - start)
    for task in reading:
        task.cancel()
    return payments, messages


async def _joins(user: MatrixUser, room_id: str, via: Stack) -> bool:
    invited = (await user.request("GET", "/sync", parameters={"timeout": "0"})).get("rooms", {})
    if room_id in invited.get("invite", {}):
        await user.join(room_id, via=via.server_name)
    return room_id in await user.joined_rooms()


def _check(stacks: list[Stack]) -> None:
    """Nothing is left pending, and both books mirror each other."""
    deadline = time.monotonic() + 120
    here, there = stacks
    while balances(here)[1]:
        if time.monotonic() > deadline:
            raise RuntimeError("payments are still pending")
        time.sleep(1)
    if owed_minor(here, there) != -owed_minor(there, here):
        raise RuntimeError("the books differ")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench clearing", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument("--json", type=Path, help="write the figures there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(
            measure(
                Path(folder),
                payers=50 if given.quick else PAYERS,
                seconds=5.0 if given.quick else SECONDS,
                rounds=5 if given.quick else ROUNDS,
            )
        )
    for name, value in found.items():
        print(f"{name:20} {value}")
    goals = [
        _goal("payments a second", found["posted_per_second"], bar=RATE_GOAL),
        _goal("p99 in s", found["p99_seconds"], bar=P99_GOAL_SECONDS, at_most=True),
        _goal("one payment, × two plain messages", found["ratio"], bar=RATIO_GOAL, at_most=True),
    ]
    for goal in goals:
        print(f"{goal['name']}: {goal['value']} (bar {goal['bar']:g}: {'met' if goal['met'] else 'NOT MET'})")
    if given.json is not None:
        given.json.write_text(json.dumps({"goals": goals, "measurements": found}, indent=2) + "\n")


def _goal(name: str, value: float, *, bar: float, at_most: bool = False) -> dict[str, Any]:
    return {"name": name, "value": value, "bar": bar, "met": value <= bar if at_most else value >= bar}


if __name__ == "__main__":
    main()
