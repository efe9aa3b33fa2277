"""How fast payments are for those who make them. Each part is measured by a file of its own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tests.benchmarks.payments_orders import BAR_PER_SECOND, CLIENTS, measure_orders


def main(*, quick: bool, json_path: Path | None) -> None:
    orders = measure_orders(quick=quick)
    print(
        f"orders created and paid with {CLIENTS} clients on PostgreSQL: {orders.per_second:.0f}/s, "
        f"p50 {orders.p50_ms:.0f} ms, p99 {orders.p99_ms:.0f} ms, {orders.orders} in all, "
        f"{orders.cpu_ms:.2f} ms of the server's CPU each"
    )
    goals = [
        {
            "name": f"orders created and paid per second, {CLIENTS} clients, PostgreSQL",
            "value": round(orders.per_second, 1),
            "bar": BAR_PER_SECOND,
            "met": orders.per_second >= BAR_PER_SECOND,
        }
    ]
    for goal in goals:
        met = "met" if goal["met"] else "NOT MET"
        print(f"{goal['name']}: {goal['value']} (at least {goal['bar']}: {met})")
    if json_path is not None:
        measured = {
            "p50_ms": round(orders.p50_ms, 1),
            "p99_ms": round(orders.p99_ms, 1),
            "server_cpu_ms": round(orders.cpu_ms, 2),
        }
        measurements = {"orders": measured}
        json_path.write_text(json.dumps({"goals": goals, "measurements": measurements}, indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/bench payments", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute, less certain")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the goals to this file")
    arguments = parser.parse_args()
    main(quick=arguments.quick, json_path=arguments.json)
