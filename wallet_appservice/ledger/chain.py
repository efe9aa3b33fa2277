"""The hash chain over the ledger's batches: how a batch is written down, and how its link follows.

A batch's record is the accounts that it opened, then the transfers that it applied, in order, one line each:

    account ID KIND CURRENCY DEBITS-LIMITED CREDITS-LIMITED LENGTH OWNER
    transfer POSITION ID DEBIT-ACCOUNT CREDIT-ACCOUNT AMOUNT CURRENCY CODE MODE PENDING-ID TIMEOUT LINKED AT-MS LENGTH REFERENCE

UTF-8, one space between fields, a line feed at the end. Ids are 32 hex digits, numbers are decimal, truths are
0 or 1, what is not there is `-`. LENGTH counts the bytes of the free text behind it, which may hold spaces and
line feeds, so no two different batches have one record. A batch's hash is the SHA-256 of its record; its link
is the SHA-256 of the previous link followed by that hash; the link before the first batch is 32 zero bytes.

This is version 1 and never changes: links are kept elsewhere, and migrations use it.
"""  # noqa: E501 - a record's line is shown as it is

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from typing import Final, Protocol

CHAIN_VERSION: Final = 1
FIRST_LINK: Final = bytes(32)
MARK_BYTES: Final = 4
"""Of a record's CRC-32, kept beside a batch's hash to tell which of its records differs."""


def account_record(
    *,
    id: str,
    kind: str,
    currency: str,
    owner: str,
    debits_must_not_exceed_credits: bool,
    credits_must_not_exceed_debits: bool,
) -> bytes:
    """The account as it was opened; its sums follow from transfers."""
    return (
        f"account {id} {kind} {currency} {debits_must_not_exceed_credits:d} "
        f"{credits_must_not_exceed_debits:d} {_bytes_count(owner)} {owner}\n"
    ).encode()


class RecordedTransfer(Protocol):
    """A transfer, or its row."""

    @property
    def id(self) -> str: ...
    @property
    def debit_account_id(self) -> str: ...
    @property
    def credit_account_id(self) -> str: ...
    @property
    def amount_minor(self) -> int: ...
    @property
    def currency(self) -> str: ...
    @property
    def code(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def pending_id(self) -> str | None: ...
    @property
    def timeout_seconds(self) -> int | None: ...
    @property
    def linked(self) -> bool: ...
    @property
    def reference(self) -> str: ...


def transfer_record(transfer: RecordedTransfer, position: int, at_ms: int) -> bytes:
    """The transfer with all that its row holds."""
    timeout, reference = transfer.timeout_seconds, transfer.reference
    # `!s` because Python formats an enum's member by way of three calls.
    return (
        f"transfer {position} {transfer.id} {transfer.debit_account_id} {transfer.credit_account_id} "
        f"{transfer.amount_minor} {transfer.currency} {transfer.code!s} {transfer.mode!s} "
        f"{transfer.pending_id or '-'} {'-' if timeout is None else timeout} {transfer.linked:d} "
        f"{at_ms} {_bytes_count(reference)} {reference}\n"
    ).encode()


def marks_of(records: Sequence[bytes]) -> bytes:
    """The CRC-32 of each record, four bytes, highest first. They find a row; what proves is the hash."""
    return struct.pack(f">{len(records)}I", *map(zlib.crc32, records))


def batch_hash(records: Sequence[bytes]) -> bytes:
    return hashlib.sha256(b"".join(records)).digest()


def next_link(previous: bytes, hash: bytes) -> bytes:
    return hashlib.sha256(previous + hash).digest()


def _bytes_count(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
