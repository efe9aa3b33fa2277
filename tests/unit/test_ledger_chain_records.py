"""The chain's encoding: pinned for ever, told in the documentation, the same for no two transfers."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scripts.weft_cli.data_folder import PROJECT_ROOT
from wallet_appservice.ledger.chain import (
    FIRST_LINK,
    account_record,
    batch_hash,
    marks_of,
    next_link,
    transfer_record,
)
from wallet_appservice.ledger.values import AccountKind, TransferCode, TransferMode

PAGE = PROJECT_ROOT / "docs" / "operators" / "ledger.md"
ACCOUNT: dict[str, Any] = {
    "id": "a" * 32,
    "kind": AccountKind.USER,
    "currency": "EUR",
    "owner": "@alice:example.org",
    "debits_must_not_exceed_credits": True,
    "credits_must_not_exceed_debits": False,
}
TRANSFER: dict[str, Any] = {
    "position": 1,
    "id": "1" * 32,
    "debit_account_id": "b" * 32,
    "credit_account_id": "a" * 32,
    "amount_minor": 1250,
    "currency": "EUR",
    "code": TransferCode.DEPOSIT,
    "mode": TransferMode.SINGLE_PHASE,
    "pending_id": None,
    "timeout_seconds": None,
    "linked": False,
    "reference": "café",
    "at_ms": 1770000000000,
}
contents = st.fixed_dictionaries(
    {
        "position": st.integers(1, 3),
        "id": st.sampled_from(["1" * 32, "2" * 32]),
        "amount_minor": st.integers(1, 20),
        "mode": st.sampled_from(TransferMode),
        "pending_id": st.sampled_from([None, "3" * 32]),
        "timeout_seconds": st.none() | st.integers(1, 20),
        "linked": st.booleans(),
        "reference": st.text(alphabet="0 1é-\n", max_size=4),
        "at_ms": st.integers(0, 20),
    }
)


def record(content: dict[str, Any]) -> bytes:
    transfer: Any = SimpleNamespace(**content)
    return transfer_record(transfer, transfer.position, transfer.at_ms)


def test_the_documented_example_is_what_the_program_computes() -> None:
    records = [account_record(**ACCOUNT), record(TRANSFER)]
    page = PAGE.read_text(encoding="utf-8")
    for line in records:
        assert line.decode() in page
    hash = batch_hash(records)
    assert hash == hashlib.sha256(records[0] + records[1]).digest()
    assert hash.hex() in page
    assert next_link(FIRST_LINK, hash).hex() in page
    assert marks_of(records).hex() in page


@given(first=contents, second=contents)
def test_no_two_transfers_have_one_record(first: dict[str, Any], second: dict[str, Any]) -> None:
    records = [record({**TRANSFER, **content}) for content in (first, second)]
    assert (records[0] == records[1]) == (first == second)


@given(texts=st.lists(st.text(max_size=8), min_size=1, max_size=3), others=st.lists(st.text(max_size=8)))
def test_no_two_batches_have_one_record(texts: list[str], others: list[str]) -> None:
    def joined(references: list[str]) -> bytes:
        return b"".join(record({**TRANSFER, "reference": text}) for text in references)

    assert (joined(texts) == joined(others)) == (texts == others)
