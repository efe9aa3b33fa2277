"""How fast payments are for those who make them: by chat, by opening a red packet, and in a shop.

Each part is measured by a file of its own, the first two beside something that is measured in the same run.
`--quick` leaves the red packet to a smaller party.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.payments_chat import ChatTimes, measure_chat
from tests.benchmarks.payments_orders import BAR_PER_SECOND, CLIENTS, OrdersMeasured, measure_orders
from tests.benchmarks.payments_red_packet import Openings, measure_openings

CHAT_BAR: Final = 1.5
"""A payment by chat takes at most so many times as long as a bot's echo."""
CHAT_ROUNDS, CHAT_ROUNDS_QUICK = 60, 15
PARTY, PARTY_QUICK = 200, 20


def main(*, quick: bool, json_path: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        chat = asyncio.run(
            measure_chat(Path(folder) / "chat", rounds=CHAT_ROUNDS_QUICK if quick else CHAT_ROUNDS)
        )
        openings = asyncio.run(
            measure_openings(Path(folder) / "party", members=PARTY_QUICK if quick else PARTY)
        )
    orders = measure_orders(quick=quick)
    goals = [*_chat_goals(chat), *_party_goals(openings), *_order_goals(orders)]
    for goal in goals:
        bound = "at most" if goal["at_most"] else "at least"
        met = "met" if goal["met"] else "NOT MET"
        print(f"{goal['name']}: {goal['value']:g} ({bound} {goal['bar']:g}: {met})")
    if json_path is not None:
        described = [{name: goal[name] for name in ("name", "value", "bar", "met")} for goal in goals]
        measured = {
            "chat": {
                "payment_p50_ms": _ms(chat.payments),
                "echo_p50_ms": _ms(chat.echoes),
            },
            "red_packet": {
                "members": openings.members,
                "answers_p50_ms": _ms(openings.answer_seconds),
                "plain_messages_ms": round(1000 * openings.plain_seconds, 1),
            },
            "orders": {
                "p50_ms": round(orders.p50_ms, 1),
                "p99_ms": round(orders.p99_ms, 1),
                "server_cpu_ms": round(orders.cpu_ms, 2),
            },
        }
        json_path.write_text(json.dumps({"goals": described, "measurements": measured}, indent=2) + "\n")


def _chat_goals(chat: ChatTimes) -> list[dict[str, Any]]:
    print(
        f"!pay to the receipt in the payee's /sync: {_ms(chat.payments):.0f} ms, "
        f"a minimal bot's echo: {_ms(chat.echoes):.0f} ms (medians of {len(chat.payments)} rounds)"
    )
    return [_goal("!pay to receipt, × a bot's echo", round(chat.ratio, 3), CHAT_BAR, at_most=True)]


def _party_goals(openings: Openings) -> list[dict[str, Any]]:
    ordered = openings.answer_seconds
    p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
    print(
        f"{openings.members} people open one red packet at once: answered after p50 {_ms(ordered):.0f} ms, "
        f"p99 {1000 * p99:.0f} ms; as many plain messages at once: {1000 * openings.plain_seconds:.0f} ms"
    )
    taken = sum(openings.shares_minor)
    return [
        _goal("red packet: everybody answered", len(ordered) / openings.members, 1.0, at_most=False),
        _goal("red packet: taken, of what was in it", taken / openings.total_minor, 1.0, at_most=True),
    ]


def _order_goals(orders: OrdersMeasured) -> list[dict[str, Any]]:
    print(
        f"orders created and paid with {CLIENTS} clients on PostgreSQL: {orders.per_second:.0f}/s, "
        f"p50 {orders.p50_ms:.0f} ms, p99 {orders.p99_ms:.0f} ms, {orders.orders} in all, "
        f"{orders.cpu_ms:.2f} ms of the server's CPU each"
    )
    name = f"orders created and paid per second, {CLIENTS} clients, PostgreSQL"
    return [_goal(name, round(orders.per_second, 1), BAR_PER_SECOND, at_most=False)]


def _goal(name: str, value: float, bar: float, *, at_most: bool) -> dict[str, Any]:
    met = value <= bar if at_most else value >= bar
    return {"name": name, "value": value, "bar": bar, "met": met, "at_most": at_most}


def _ms(seconds: Sequence[float]) -> float:
    return round(1000 * statistics.median(seconds), 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench payments", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, less certain")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the goals to this file")
    arguments = parser.parse_args()
    main(quick=arguments.quick, json_path=arguments.json)
