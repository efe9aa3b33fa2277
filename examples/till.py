#!/usr/bin/env python3
# SPDX-License-Identifier: 0BSD
"""A till that charges Weft payment codes. Only Python's standard library.

    export WEFT_URL=https://weft.example.org WEFT_KEY=weft_sk_…
    python3 till.py charge 4.50            # then scan the customer's code: scanners type it and Enter
    python3 till.py order 120.00           # for more than a code may charge: prints a link to be paid
    python3 till.py refund <reference> 1.00

Exit status 0 means that the money has moved (or, for an order, that it waits to be paid).
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

WEFT_URL = os.environ.get("WEFT_URL", "").rstrip("/")
WEFT_KEY = os.environ.get("WEFT_KEY", "")
CURRENCY = os.environ.get("WEFT_CURRENCY", "EUR")
EXPONENT = int(os.environ.get("WEFT_EXPONENT", "2"))
TRIES = 5


class Refused(Exception):
    """Weft said no, in one sentence for the cashier."""


def ask_weft(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Asks Weft, and again after a moment when there is no answer: the reference makes that harmless."""
    request = urllib.request.Request(
        f"{WEFT_URL}/_weft/wallet/v1/merchant{path}",
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {WEFT_KEY}", "Content-Type": "application/json"},
    )
    for attempt in range(TRIES):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                read: dict[str, Any] = json.load(answer)
                return read
        except urllib.error.HTTPError as error:
            if error.code not in (502, 503, 504) or attempt == TRIES - 1:
                raise Refused(json.load(error)["error"]) from error
        except OSError as error:
            if attempt == TRIES - 1:
                raise Refused("Weft can't be reached; look at the order before you charge again.") from error
        time.sleep(2**attempt / 4)
    raise AssertionError("the last try returns or raises")


def minor(text: str) -> str:
    """`4.50` as Weft has it: a whole number of minor units, never a float."""
    try:
        amount = Decimal(text).scaleb(EXPONENT)
    except InvalidOperation as error:
        raise Refused(f"{text} is not an amount.") from error
    if amount != amount.to_integral_value() or amount <= 0:
        raise Refused(f"{text} is not an amount of {CURRENCY}.")
    return str(int(amount))


def charge(amount: str) -> str:
    print("Scan the customer's payment code:", file=sys.stderr)
    code = "".join(character for character in sys.stdin.readline() if character.isdecimal())
    reference = f"till-{secrets.token_hex(6)}"
    body = {"code": code, "reference": reference, "amount_minor": minor(amount), "currency": CURRENCY}
    paid = ask_weft("POST", "/charges", body)
    return f"Paid {amount} {CURRENCY} by {paid['payer']}, reference {reference}"


def order(amount: str) -> str:
    reference = f"till-{secrets.token_hex(6)}"
    body = {"reference": reference, "amount_minor": minor(amount), "currency": CURRENCY}
    return str(ask_weft("POST", "/orders", body)["pay_url"])


def refund(reference: str, amount: str) -> str:
    found = ask_weft("GET", f"/orders?reference={quote(reference, safe='')}")["orders"]
    if not found:
        raise Refused(f"There is no sale {reference}.")
    number = f"{found[0]['id']}-{secrets.token_hex(4)}"
    body = {"order_id": found[0]["id"], "refund_number": number, "amount_minor": minor(amount)}
    ask_weft("POST", "/refunds", body)
    return f"Gave back {amount} {CURRENCY} of {reference}"


def main() -> int:
    parser = argparse.ArgumentParser(description="A till that charges Weft payment codes.")
    commands = parser.add_subparsers(required=True)
    for name, action in (("charge", charge), ("order", order)):
        command = commands.add_parser(name)
        command.add_argument("amount", help="such as 4.50")
        command.set_defaults(act=lambda given, action=action: action(given.amount))
    command = commands.add_parser("refund")
    command.add_argument("reference", help="as the charge printed it")
    command.add_argument("amount", help="all of it or a part")
    command.set_defaults(act=lambda given: refund(given.reference, given.amount))
    given = parser.parse_args()
    if not WEFT_URL or not WEFT_KEY:
        parser.error("set WEFT_URL and WEFT_KEY first")
    try:
        print(given.act(given))
    except Refused as refused:
        print(refused, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
