"""What a check of the ledger says of the first row that is not as it must be."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Table


@dataclass(frozen=True, slots=True)
class Difference:
    """The first row that is not what it was or what the transfers say, and a sentence about it."""

    table: str
    row: str
    """The row's id; for a transfer its position, or the positions among which it is (`4-9`)."""
    sentence: str


class Differs(Exception):
    """Ends the check at the first difference."""

    def __init__(self, table: Table, row: object, sentence: str) -> None:
        super().__init__(sentence)
        self.difference = Difference(table.name, str(row), sentence)
