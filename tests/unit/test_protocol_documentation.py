"""What docs/protocol/ promises: its example runs, its commands and schemas are those of the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from signedjson.sign import SignatureVerifyException

from appservices.vocabulary.commands import HELP, HOME_COMMANDS, WALLET_COMMANDS
from appservices.vocabulary.events import SERVICE_ONLY_BLOCKS
from appservices.vocabulary.ids import TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from appservices.vocabulary.schemas import SCHEMA_NAMES, check_block
from appservices.vocabulary.signing import SigningKey
from wallet_appservice.payments.accounts import user_account
from wallet_appservice.payments.receipts import sign_receipt
from wallet_appservice.payments.records import Movement, PaymentKind, PaymentState

PAGE = (Path(__file__).parents[2] / "docs" / "protocol" / "README.md").read_text(encoding="utf-8")


def test_the_example_that_verifies_a_receipt_does() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    key = SigningKey.generate()
    wallet = UserId("@wallet:a.example")
    alice, bob = UserId("@alice:a.example"), UserId("@bob:a.example")
    eur = CurrencyCode("EUR")
    movement = Movement(
        id=TransferId("9f86d081884c7d659a2feaa0c55ad015"),
        kind=PaymentKind.PAYMENT,
        payer=alice,
        payee=bob,
        money=Money(1250, eur),
        debit=user_account(alice, eur),
        credit=user_account(bob, eur),
        memo="lunch 🍜",
    )
    receipt = sign_receipt(movement, state=PaymentState.POSTED, at_ms=1795305600000, wallet=wallet, key=key)
    keys = {"service": wallet, "keys": {key.key_id: key.public_base64}}
    check_block("receipt", receipt)
    check_block("keys", keys)
    names["verify"](receipt, keys)
    with pytest.raises(SignatureVerifyException):
        names["verify"]({**receipt, "amount_minor": "125000"}, keys)


@pytest.mark.parametrize("command", [HELP, *HOME_COMMANDS, *WALLET_COMMANDS])
def test_every_command_is_documented(command: str) -> None:
    assert f"`!{command}" in PAGE


@pytest.mark.parametrize("name", [*SERVICE_ONLY_BLOCKS, *(f"dev.weft.{name}" for name in SCHEMA_NAMES)])
def test_every_block_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE
