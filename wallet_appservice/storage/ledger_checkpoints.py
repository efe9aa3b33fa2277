"""Checkpoints: what the ledger was at one moment, signed by the wallet's key, to be kept elsewhere too.

The chain shows that rows were changed; whoever rewrites the chain as well is found by a checkpoint, which
can't be signed again without the key, and not be taken back where somebody else holds a copy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from canonicaljson import encode_canonical_json
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Integer,
    Table,
    Text,
    insert,
    select,
)
from sqlalchemy.exc import IntegrityError

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database, UnitOfWork
from appservices.vocabulary.ids import UserId
from appservices.vocabulary.signing import SignatureInvalid, SigningKey, sign_json, verify_json
from wallet_appservice.ledger.chain import CHAIN_VERSION
from wallet_appservice.storage.ledger_chain import last_batch
from wallet_appservice.storage.ledger_sums import SUM_NAMES, KindSums, kind_sums
from wallet_appservice.storage.ledger_tables import ledger_head
from wallet_appservice.storage.metadata import metadata

CHECKPOINT_TYPE: Final = "dev.weft.ledger_checkpoint"
ATTEMPTS_MAX: Final = 5
"""Of numbering a checkpoint while other processes make one at the same time."""

ledger_checkpoints = Table(
    "ledger_checkpoints",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at_ms", BigInteger, nullable=False),
    # The signed JSON, byte for byte as it was given out.
    Column("content", Text, nullable=False),
    CheckConstraint("number > 0", name="ledger_checkpoints_number_positive"),
)

_LAST = select(ledger_checkpoints).order_by(ledger_checkpoints.c.number.desc()).limit(1)
_ALL = select(ledger_checkpoints).order_by(ledger_checkpoints.c.number)
_INSERT = insert(ledger_checkpoints)


class CheckpointInvalid(Exception):
    """It is no checkpoint of this wallet's ledger, or can't be made; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint. `content` is the signed JSON; the rest is read from it."""

    content: str
    number: int
    at_ms: int
    batch: int
    position: int
    link: str
    previous: str | None
    """The SHA-256 of the content of the checkpoint before this one, in hex."""
    sums: KindSums


async def make_checkpoint(database: Database, *, wallet: UserId, key: SigningKey, clock: Clock) -> Checkpoint:
    """Makes, signs and stores a checkpoint of what is committed now. Payments go on meanwhile.

    Raises CheckpointInvalid when the chain does not end where the ledger does.
    """
    for _attempt in range(ATTEMPTS_MAX):
        async with database.read() as work:
            document = await _document(work, wallet=wallet, at_ms=clock())
        content = encode_canonical_json(sign_json(document, signer=wallet, key=key)).decode()
        row = {"number": document["number"], "at_ms": document["at_ms"], "content": content}
        try:
            async with database.begin() as work:
                await work.execute(_INSERT, row)
                await work.commit()
        except IntegrityError:
            # Another process was first; this one comes after it.
            continue
        return _read(content, document)
    raise CheckpointInvalid(f"others made checkpoints at the same time, {ATTEMPTS_MAX} times over")


async def last_checkpoint_at(database: Database) -> int | None:
    """When the last checkpoint was made, in Unix milliseconds; None when there is none."""
    async with database.read() as work:
        row = (await work.execute(_LAST)).one_or_none()
    return None if row is None else int(row.at_ms)


async def stored_contents(work: UnitOfWork) -> list[tuple[int, str]]:
    """Number and content of every stored checkpoint: about one a day."""
    return [(row.number, row.content) for row in await work.execute(_ALL)]


def read_checkpoint(content: str, *, wallet: UserId, keys: Mapping[str, str]) -> Checkpoint:
    """Reads and verifies one. `keys` are the wallet's public ones, by key id. Raises CheckpointInvalid."""
    try:
        document = json.loads(content)
        if not isinstance(document, dict) or document.get("type") != CHECKPOINT_TYPE:
            raise CheckpointInvalid("this is not a checkpoint of a ledger")
        verify_json(document, signer=wallet, keys=keys)
        if document["chain_version"] != CHAIN_VERSION:
            raise CheckpointInvalid(f"it is of a chain of version {document['chain_version']}")
        return _read(content, document)
    except SignatureInvalid as error:
        raise CheckpointInvalid(str(error)) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointInvalid("this is not a checkpoint of a ledger") from error


def content_hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


async def _document(work: UnitOfWork, *, wallet: UserId, at_ms: int) -> dict[str, Any]:
    last = (await work.execute(_LAST)).one_or_none()
    batch = await last_batch(work)
    position = (await work.execute(select(ledger_head.c.position))).scalar_one_or_none()
    if batch is None or position != batch.last_position:
        raise CheckpointInvalid(
            "the ledger and its chain do not end at the same transfer: run weft wallet verify"
        )
    sums = await kind_sums(work)
    return {
        "type": CHECKPOINT_TYPE,
        "chain_version": CHAIN_VERSION,
        "wallet": wallet,
        "number": 1 if last is None else last.number + 1,
        "previous": None if last is None else content_hash(last.content),
        "at_ms": at_ms,
        "batch": batch.number,
        "position": position,
        "link": bytes(batch.link).hex(),
        "sums": {
            currency: {
                kind: {name: str(amount) for name, amount in four.items()} for kind, four in kinds.items()
            }
            for currency, kinds in sums.items()
        },
    }


def _read(content: str, document: Mapping[str, Any]) -> Checkpoint:
    numbers: Sequence[Any] = [document[name] for name in ("number", "at_ms", "batch", "position")]
    if any(type(number) is not int for number in numbers) or not isinstance(document["link"], str):
        raise ValueError("a number or the link has another type")
    return Checkpoint(
        content=content,
        number=document["number"],
        at_ms=document["at_ms"],
        batch=document["batch"],
        position=document["position"],
        link=document["link"],
        previous=document["previous"],
        sums={
            currency: {kind: {name: int(four[name]) for name in SUM_NAMES} for kind, four in kinds.items()}
            for currency, kinds in document["sums"].items()
        },
    )
