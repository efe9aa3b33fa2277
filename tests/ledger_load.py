"""A process that pays without end, to be one of several on a database, or to be killed.

    python -m tests.ledger_load URL FOLDER NAME CALLERS TRANSFERS

Prints `acknowledged <name>` for each transfer once the ledger has answered it, and `done` at the end.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from appservices.chassis.database import open_database
from tests.ledger_samples import ALICE, BOB, ISSUANCE, open_ledger, payment, transfer_id
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.ledger.values import TransferMode, posting_of

ROUTES = ((ISSUANCE, ALICE), (ALICE, BOB), (BOB, ALICE), (ISSUANCE, BOB))


async def run(url: str, folder: Path, name: str, callers: int, transfers: int) -> None:
    """Half of the transfers are held first, so that a kill leaves some of them pending."""
    database = open_database(url, folder=folder)

    async def call(caller: int) -> None:
        for number in range(caller, transfers, callers):
            label = f"{name} {number}"
            debit, credit = ROUTES[number % len(ROUTES)]
            held = payment(label, debit, credit, 1 + number % 7, mode=TransferMode.PENDING)
            single = payment(label, debit, credit, 1 + number % 7)
            (result,) = await ledger.submit(Submission(transfers=(held if number % 2 else single,)))
            _say(f"acknowledged {label}", result.refusal)
            if number % 2 and result.refusal is None:
                posting = posting_of(held, id=transfer_id(f"{label} posted"))
                (result,) = await ledger.submit(Submission(transfers=(posting,)))
                _say(f"acknowledged {label} posted", result.refusal)

    async with open_ledger(database) as ledger:
        await asyncio.gather(*(call(caller) for caller in range(callers)))
    await database.close()
    print("done", flush=True)


def _say(words: str, refusal: object) -> None:
    if refusal is None:
        print(words, flush=True)


if __name__ == "__main__":
    url, folder, name, callers, transfers = sys.argv[1:]
    asyncio.run(run(url, Path(folder), name, int(callers), int(transfers)))
