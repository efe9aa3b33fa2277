"""Holds the ledger against its checkpoints: those that are stored, and copies that were kept elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from appservices.vocabulary.ids import UserId
from wallet_appservice.storage.ledger_checkpoints import (
    Checkpoint,
    CheckpointInvalid,
    content_hash,
    ledger_checkpoints,
    read_checkpoint,
)
from wallet_appservice.storage.ledger_difference import Differs
from wallet_appservice.storage.ledger_sums import SUM_NAMES, KindSums
from wallet_appservice.storage.ledger_tables import ledger_transfers


@dataclass(frozen=True, slots=True)
class CheckpointSigner:
    """Whose checkpoints they are. `keys` are the wallet's public keys: key id → unpadded base64."""

    wallet: UserId
    keys: Mapping[str, str]


class SummedAccount(Protocol):
    currency: str
    kind: str
    sums: dict[str, int]


class CheckpointCheck:
    """`touch` the accounts of each transfer, `pass_batch` after each batch, then `finish`.

    These raise Differs.
    """

    def __init__(self, accounts: Mapping[str, SummedAccount]) -> None:
        self.count = 0
        self._waiting: dict[int, list[tuple[Checkpoint, str]]] = {}
        self._problem: Differs | None = None
        self._proven_position = 0
        self._totals = _KindTotals(accounts)

    def expect(
        self, stored: Sequence[tuple[int, str]], given: Sequence[Checkpoint], signer: CheckpointSigner
    ) -> None:
        """Takes what is to be compared. What is wrong with a stored one itself is raised by `finish`, since
        the ledger's own rows come first."""
        previous: str | None = None
        contents: dict[int, str] = {}
        for number, content in stored:
            try:
                checkpoint = read_checkpoint(content, wallet=signer.wallet, keys=signer.keys)
            except CheckpointInvalid as error:
                self._note(number, f"the stored checkpoint {number}: {error}")
                previous = content_hash(content)
                continue
            expected = len(contents) + 1
            if (number, checkpoint.number) != (expected, expected) or checkpoint.previous != previous:
                self._note(expected, f"checkpoint {expected} is missing, or another one is in its place")
            contents[number] = content
            previous = content_hash(content)
            self._wait(checkpoint, f"checkpoint {number}")
        for checkpoint in given:
            if contents.get(checkpoint.number) != checkpoint.content:
                self._note(
                    checkpoint.number,
                    f"the given checkpoint {checkpoint.number} is not stored, or another one in its place",
                )
            self._wait(checkpoint, f"the given checkpoint {checkpoint.number}")

    def touch(self, account_id: str) -> None:
        self._totals.touched.add(account_id)

    def pass_batch(self, number: int, position: int, link: bytes) -> None:
        for checkpoint, name in self._waiting.pop(number, ()):
            if (checkpoint.position, checkpoint.link) != (position, link.hex()):
                span = f"{self._proven_position + 1}-{position}"
                sentence = (
                    f"{name} of {_time(checkpoint.at_ms)} was made of another chain: "
                    f"of transfers {span}, or accounts opened then, something was rewritten together with "
                    f"the chain"
                )
                raise Differs(ledger_transfers, span, sentence)
            self._compare_sums(checkpoint, name)
            self._proven_position = position
            self.count += 1

    def finish(self, position: int) -> None:
        """After the last batch, at the ledger's last transfer."""
        for waiting in self._waiting.values():
            checkpoint, name = waiting[0]
            sentence = (
                f"{name} of {_time(checkpoint.at_ms)} knows {checkpoint.position} transfers and batch "
                f"{checkpoint.batch}, but the ledger ends at transfer {position}"
            )
            raise Differs(ledger_transfers, position + 1, sentence)
        if self._problem is not None:
            raise self._problem

    def _wait(self, checkpoint: Checkpoint, name: str) -> None:
        self._waiting.setdefault(checkpoint.batch, []).append((checkpoint, name))

    def _note(self, number: int, sentence: str) -> None:
        self._problem = self._problem or Differs(ledger_checkpoints, number, sentence)

    def _compare_sums(self, checkpoint: Checkpoint, name: str) -> None:
        sums = self._totals.sums()
        if sums != checkpoint.sums:
            sentence = f"{name} has other sums than the transfers up to it, {checkpoint.position}, add up to"
            raise Differs(ledger_checkpoints, checkpoint.number, sentence)


class _KindTotals:
    """Sums by currency and kind, brought up to date by the accounts that were touched since the last time."""

    def __init__(self, accounts: Mapping[str, SummedAccount]) -> None:
        self.touched: set[str] = set()
        self._accounts = accounts
        self._counted: dict[str, dict[str, int]] = {}
        self._sums: KindSums = {}

    def sums(self) -> KindSums:
        nothing = dict.fromkeys(SUM_NAMES, 0)
        for id in self.touched:
            account = self._accounts[id]
            counted = self._counted.get(id, nothing)
            four = self._sums.setdefault(account.currency, {}).setdefault(account.kind, dict(nothing))
            for name in SUM_NAMES:
                four[name] += account.sums[name] - counted[name]
            self._counted[id] = dict(account.sums)
        self.touched.clear()
        kept = {
            currency: {kind: dict(four) for kind, four in kinds.items() if any(four.values())}
            for currency, kinds in self._sums.items()
        }
        return {currency: kinds for currency, kinds in kept.items() if kinds}


def _time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")
