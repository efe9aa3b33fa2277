"""What the Synapse module costs those who don't use it: sending messages, with it and without.

Two Synapses differ in nothing but the module. They take turns in rounds of a fraction of a second, who begins
alternating, so that whatever else the machine does falls on both alike; each turn's rate is compared with its
neighbour's, and the median of these ratios counts. CPU time of the Synapse process per message is measured
beside it, because it hardly depends on what else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appservices.vocabulary.events import HOME_ROOM_TYPE
from tests.extensions import module_config, register_services
from tests.synapse import MatrixUser, Synapse, eventually

SENDERS: Final = 6
MESSAGES_PER_SENDER: Final = 2
MEASURE_SECONDS: Final = 300.0
MEASURE_SECONDS_QUICK: Final = 30.0
WARM_UP_ROUNDS: Final = 4
BAR: Final = 0.97


@dataclass(frozen=True, slots=True)
class Round:
    """One server's turn."""

    messages_per_second: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Contender:
    """A running Synapse and its senders, each in a room of their own."""

    name: str
    synapse: Synapse
    senders: list[tuple[MatrixUser, str]]

    async def take_turn(self) -> Round:
        cpu_seconds, seconds = cpu_seconds_of(self.synapse.pid), time.perf_counter()
        await asyncio.gather(*(self._send(user, room_id) for user, room_id in self.senders))
        messages = SENDERS * MESSAGES_PER_SENDER
        return Round(
            messages_per_second=messages / (time.perf_counter() - seconds),
            cpu_seconds=cpu_seconds_of(self.synapse.pid) - cpu_seconds,
        )

    async def _send(self, user: MatrixUser, room_id: str) -> None:
        for number in range(MESSAGES_PER_SENDER):
            await user.send(room_id, {"msgtype": "m.text", "body": f"message {number}"})


async def main(*, seconds: float, json_path: Path | None) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Synapse(Path(folder) / "stock") as stock,
        Synapse(Path(folder) / "module") as with_module,
    ):
        config = module_config(stock)
        stock.start({name: value for name, value in config.items() if name != "modules"})
        with_module.start(module_config(with_module))
        contenders = (await contender("stock", stock), await contender("module", with_module))
        turns = await measure(contenders, seconds=seconds)
    report(turns, json_path=json_path)


async def contender(name: str, synapse: Synapse) -> Contender:
    """Registers the senders and waits until their Home rooms are made, which must not fall into a round."""
    await register_services(synapse)
    senders = []
    for number in range(SENDERS):
        user = await synapse.register(f"sender{number}")
        senders.append((user, await user.create_room(name="Benchmark")))
    if name == "module":
        for user, _ in senders:
            await eventually(lambda user=user: user.account_data(HOME_ROOM_TYPE), seconds_max=60)  # type: ignore[misc]
    return Contender(name, synapse, senders)


async def measure(contenders: tuple[Contender, Contender], *, seconds: float) -> dict[str, list[Round]]:
    """Rounds of one turn each, for so many seconds; the first few rounds don't count."""
    turns: dict[str, list[Round]] = {one.name: [] for one in contenders}
    number, begin = 0, time.monotonic()
    while time.monotonic() < begin + seconds or number <= WARM_UP_ROUNDS:
        for one in contenders if number % 2 == 0 else reversed(contenders):
            turn = await one.take_turn()
            if number >= WARM_UP_ROUNDS:
                turns[one.name].append(turn)
        number += 1
        if sys.stderr.isatty():
            print(f"\r{time.monotonic() - begin:.0f} of {seconds:.0f} s", end="", file=sys.stderr)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return turns


def report(turns: dict[str, list[Round]], *, json_path: Path | None) -> None:
    """Prints medians and goals; a goal that is not met is said to be not met, and is no error."""
    cpu_ms = {
        name: 1000 * statistics.mean(turn.cpu_seconds for turn in rounds) / (SENDERS * MESSAGES_PER_SENDER)
        for name, rounds in turns.items()
    }
    for name, rounds in turns.items():
        rate = statistics.median(turn.messages_per_second for turn in rounds)
        print(f"{name:>8}: {rate:6.1f} messages/s, {cpu_ms[name]:6.2f} ms of CPU per message")
    ratios = sorted(
        module.messages_per_second / stock.messages_per_second
        for stock, module in zip(turns["stock"], turns["module"], strict=True)
    )
    low, high = median_interval(ratios)
    print(f"{len(ratios)} rounds of {SENDERS * MESSAGES_PER_SENDER} messages by {SENDERS} senders each;")
    print(f"the median ratio of messages/s lies between {low:.3f} and {high:.3f} (95 %)")
    values = {
        "messages/s with the module, of stock": statistics.median(ratios),
        "CPU per message of stock, of that with the module": cpu_ms["stock"] / cpu_ms["module"],
    }
    goals = [
        {"name": name, "value": round(value, 4), "bar": BAR, "met": value >= BAR}
        for name, value in values.items()
    ]
    for goal in goals:
        print(f"{goal['name']}: {goal['value']:.3f} (at least {BAR}: {'met' if goal['met'] else 'NOT MET'})")
    if json_path is not None:
        json_path.write_text(json.dumps({"goals": goals}, indent=2) + "\n")


def median_interval(ordered: list[float]) -> tuple[float, float]:
    """The 95 % confidence interval of a median, from the ranks of the ordered values."""
    reach = 0.98 * math.sqrt(len(ordered))
    middle = len(ordered) / 2
    return ordered[max(0, int(middle - reach))], ordered[min(len(ordered) - 1, int(middle + reach))]


def cpu_seconds_of(pid: int) -> float:
    """User and system time that a process has used, all its threads together (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench room_extensions", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, less certain")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the goals to this file")
    arguments = parser.parse_args()
    seconds = MEASURE_SECONDS_QUICK if arguments.quick else MEASURE_SECONDS
    asyncio.run(main(seconds=seconds, json_path=arguments.json))
