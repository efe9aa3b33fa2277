#!/usr/bin/env python3
# SPDX-License-Identifier: 0BSD
"""A web shop that sells one thing, paid with Weft. Only Python's standard library.

    WEFT_URL=https://weft.example.org WEFT_KEY=weft_sk_… WEFT_WEBHOOK_SECRET=whsec_… python3 shop.py 8080

It makes an order, shows its QR code and link, and learns by a signed notification that it was paid. If no
notification comes (this machine was down, say), it asks when the customer's page is loaded again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WEFT_URL = os.environ["WEFT_URL"].rstrip("/")
WEFT_KEY = os.environ["WEFT_KEY"]
WEBHOOK_SECRET = os.environ.get("WEFT_WEBHOOK_SECRET", "")
PRICE_MINOR, CURRENCY, PRODUCT = "1250", "EUR", "A loaf of bread"
BODY_BYTES_MAX = 64 * 1024
CLOCKS_DIFFER_SECONDS_MAX = 300
TRIES = 4

# What was ordered here: our reference → the order as Weft last told it. A real shop keeps this in a database.
ORDERS: dict[str, dict[str, Any]] = {}


def ask_weft(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Asks Weft, and again after a moment when there is no answer: our references make that harmless."""
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
                raise RuntimeError(json.load(error)["error"]) from error
        except OSError:
            if attempt == TRIES - 1:
                raise
        time.sleep(2**attempt / 4)
    raise AssertionError("the last try returns or raises")


def verified(headers: Any, body: bytes) -> dict[str, Any]:
    """A notification, if Weft has signed it (Standard Webhooks). Raises ValueError."""
    id, sent = headers["webhook-id"] or "", headers["webhook-timestamp"] or ""
    if not sent.isdecimal() or abs(time.time() - int(sent)) > CLOCKS_DIFFER_SECONDS_MAX:
        raise ValueError("it is too old, or has no time")
    key = base64.b64decode(WEBHOOK_SECRET.removeprefix("whsec_"))
    digest = hmac.new(key, f"{id}.{sent}.".encode() + body, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(digest).decode()
    signatures = (headers["webhook-signature"] or "").split(" ")
    if not any(hmac.compare_digest(expected, signature) for signature in signatures):
        raise ValueError("the signature is wrong")
    content: dict[str, Any] = json.loads(body)
    return content


class Shop(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/":
            self.page(f"<h1>{PRODUCT}</h1><form method='post' action='/buy'><button>Buy</button></form>")
        elif self.path.startswith("/order/") and self.path.removeprefix("/order/") in ORDERS:
            self.show_order(self.path.removeprefix("/order/"))
        else:
            self.page("<h1>Nothing here</h1>", status=404)

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"] or 0)
        if length > BODY_BYTES_MAX:
            self.page("<h1>Too much</h1>", status=413)
            return
        body = self.rfile.read(length)
        if self.path == "/buy":
            self.buy()
        elif self.path == "/weft":
            self.notification(body)
        else:
            self.page("<h1>Nothing here</h1>", status=404)

    def buy(self) -> None:
        # Our own number of this sale. It is in the page's address, so it can't be guessed either.
        reference = secrets.token_hex(8)
        ORDERS[reference] = ask_weft(
            "POST",
            "/orders",
            {
                "reference": reference,
                "amount_minor": PRICE_MINOR,
                "currency": CURRENCY,
                "description": PRODUCT,
            },
        )
        self.send_response(303)
        self.send_header("Location", f"/order/{reference}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def show_order(self, reference: str) -> None:
        order = ORDERS[reference]
        if order["state"] in ("open", "paying"):
            order = ORDERS[reference] = ask_weft("GET", f"/orders/{order['id']}")
        if order["state"] == "paid":
            self.page(f"<h1>Thank you</h1><p>Your bread is on its way. Paid: {html.escape(reference)}</p>")
        elif order["state"] in ("open", "paying"):
            link = html.escape(order["pay_url"])
            self.page(
                f"<h1>Please pay</h1><img src='{html.escape(order['qr_url'])}' alt='QR code' width='300'>"
                f"<p><a href='{link}'>{link}</a></p><meta http-equiv='refresh' content='5'>"
            )
        else:
            self.page(f"<h1>This order is {html.escape(order['state'])}</h1><p><a href='/'>Buy anew</a></p>")

    def notification(self, body: bytes) -> None:
        try:
            content = verified(self.headers, body)
        except ValueError as error:
            self.page(f"<p>{error}</p>", status=400)
            return
        order = content["data"]
        # The same notification may come twice, or late: what is paid stays paid.
        known = ORDERS.get(order.get("reference", ""))
        if content["type"].startswith("order.") and known is not None and known["state"] != "paid":
            known.update(state=order["state"], payment_id=order["payment_id"])
            print(f"{content['type']} {order['reference']}", flush=True)
        self.page("", status=200)

    def page(self, content: str, *, status: int = 200) -> None:
        body = f"<!doctype html><meta charset='utf-8'><title>Bread</title>{content}".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing is logged but what was sold."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Shop)
    print(f"http://127.0.0.1:{sys.argv[1]}", flush=True)
    server.serve_forever()
