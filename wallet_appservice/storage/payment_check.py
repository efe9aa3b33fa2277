"""Holds the payments that people see against the ledger's transfers, beside the ledger's own check.

A payment has the id of the transfer that debits its payer: at once, or by a hold that is posted later. Where
the money goes from there, in how many more transfers, is no concern of this check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Row, bindparam, select

from appservices.chassis.database import UnitOfWork
from appservices.vocabulary.ids import is_ledger_id
from wallet_appservice.storage.ledger_difference import Differs
from wallet_appservice.storage.ledger_tables import ledger_transfers
from wallet_appservice.storage.payment_tables import payments

PAGE_ROWS: Final = 500

_PAGE = (
    select(payments.c.position, payments.c.id, payments.c.amount_minor, payments.c.currency)
    .where(payments.c.position > bindparam("after"))
    .order_by(payments.c.position)
    .limit(bindparam("rows"))
)
_TRANSFERS = select(
    ledger_transfers.c.id, ledger_transfers.c.amount_minor, ledger_transfers.c.currency
).where(ledger_transfers.c.id.in_(bindparam("ids", expanding=True)))


async def check_payments(work: UnitOfWork) -> None:
    """Raises Differs for the first payment whose transfer is missing, or is of another amount or currency."""
    after = -1
    while page := (await work.execute(_PAGE, {"after": after, "rows": PAGE_ROWS})).all():
        await _compare(work, page)
        after = page[-1].position


async def _compare(work: UnitOfWork, page: Sequence[Row[Any]]) -> None:
    ids = [row.id for row in page if is_ledger_id(row.id)]
    found = (await work.execute(_TRANSFERS, {"ids": ids})).all() if ids else []
    transfers = {transfer.id: transfer for transfer in found}
    for row in page:
        transfer = transfers.get(row.id)
        if transfer is None:
            raise Differs(payments, row.position, f"payment {row.position} ({row.id}) has no transfer")
        moved = (transfer.amount_minor, transfer.currency)
        if moved != (row.amount_minor, row.currency):
            sentence = (
                f"payment {row.position} ({row.id}) is of {row.amount_minor} {row.currency} (minor units), "
                f"but its transfer is of {transfer.amount_minor} {transfer.currency}"
            )
            raise Differs(payments, row.position, sentence)
