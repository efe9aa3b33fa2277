"""Settlement: money that the operators have moved outside, put into both books.

Whoever has received it says so, and the other wallet follows: a false word would only lessen what its sender
is owed.
"""

from __future__ import annotations

from collections.abc import Sequence

from appservices.chassis.database import Write
from appservices.chassis.links.storage import item_write
from appservices.vocabulary.ids import ServerName, TransferId, derived_id
from wallet_appservice.clearing.applying import settlement_write
from wallet_appservice.clearing.items import Settle
from wallet_appservice.clearing.peers import Peers
from wallet_appservice.ledger.submissions import Submission
from wallet_appservice.ledger.values import Transfer, TransferCode, TransferResult
from wallet_appservice.payments.accounts import issuance_account, peer_account
from wallet_appservice.payments.till import Till


async def record_settlement(
    till: Till, peers: Peers, server: ServerName, item: Settle, *, by: str = "operator"
) -> bool:
    """Books what we have received from the peer's operator, and tells its wallet. False for a stranger.

    `by` is for the audit log.
    """
    wallet = await peers.wallet_of(server)
    if wallet is None:
        return False
    currency = item.money.currency
    issuance, account = issuance_account(currency), peer_account(server, currency)

    def effects(results: tuple[TransferResult, ...]) -> Sequence[Write]:
        (result,) = results
        if result.refusal is not None:
            raise RuntimeError(f"settlement {item.id} was refused: {result.refusal.value}")
        if result.replayed:
            return []
        told = item_write(wallet, item.item())
        audited = peers.audited(
            server,
            by=by,
            what="settle",
            id=item.id,
            amount_minor=str(item.money.amount_minor),
            currency=currency,
            reference=item.reference,
        )
        return [settlement_write(server, item, direction="in", at_ms=result.at_ms), told, audited]

    transfer = Transfer(
        id=TransferId(derived_id("settlement", server, item.id)),
        debit_account_id=issuance.id,
        credit_account_id=account.id,
        amount_minor=item.money.amount_minor,
        currency=currency,
        code=TransferCode.SETTLEMENT,
        reference=item.id,
    )
    await till.ledger.submit(
        Submission(accounts=(issuance, account), transfers=(transfer,), effects=effects, on_commit=till.wake)
    )
    return True
