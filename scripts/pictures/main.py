"""Takes pictures of the Wallet pages: a Weft of its own in a temporary folder, paid in, photographed, gone.

Everything is done as a newcomer would: `weft up`, `weft user add`, `weft wallet deposit`, then payments over
the HTTP API by people who sign in with OpenID tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx
from playwright.async_api import async_playwright

from appservices.chassis.clock import Tokens
from appservices.chassis.config import WeftConfig, load_config
from appservices.chassis.web_security import Cookies
from appservices.vocabulary.ids import TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money
from appservices.wallet_client.client import WalletClient

ROOT: Final = Path(__file__).resolve().parents[2]
CHROMIUM: Final = Path("/usr/bin/chromium")
PHONE: Final = (390, 844)
PASSWORD: Final = "a picture of a wallet"
PEOPLE: Final = ("alice", "bob", "carol", "dora")
PAYMENTS: Final = (
    # payer, payee, minor units, memo
    ("alice", "carol", 4_200, "Concert tickets"),
    ("bob", "alice", 640, "Coffee and cake"),
    ("alice", "dora", 1_850, "Groceries"),
    ("alice", "bob", 1_250, "Lunch"),
)
CATEGORIES: Final = {"Concert tickets": "fun", "Groceries": "food", "Lunch": "food"}
"""What Alice says of her payments, by their memos."""
PICTURES: Final = {
    "wallet": "/wallet",
    "wallet-receive": "/wallet/receive?amount=12.50&memo=Lunch",
    "wallet-spending": "/wallet/spending",
}
SCALE: Final = 1.5
STEP_SECONDS_MAX: Final = 120


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--to", type=Path, default=ROOT / "docs" / "images", help="the folder")
    parser.add_argument("--dark", action="store_true", help="the dark theme")
    chosen = parser.parse_args()
    chosen.to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="weft-picture-") as folder:
        data = Path(folder) / "data"
        weft("up", "--data", str(data), "--port", str(free_port_pair()), "--detach")
        try:
            for name in PEOPLE:
                weft("user", "add", name, "--data", str(data), "--password", PASSWORD)
                weft("wallet", "deposit", name, "120 EUR", "--data", str(data))
            asyncio.run(take(load_config(data), to=chosen.to, dark=chosen.dark))
        finally:
            weft("down", "--data", str(data))
    print(f"The pictures are in {chosen.to}.")


def weft(*arguments: str) -> None:
    """Runs the command line; what it says is shown only when it fails."""
    done = subprocess.run(
        [str(ROOT / ".venv" / "bin" / "weft"), *arguments],
        capture_output=True,
        text=True,
        timeout=STEP_SECONDS_MAX,
        check=False,
    )
    if done.returncode:
        sys.exit(f"weft {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")


async def take(config: WeftConfig, *, to: Path, dark: bool) -> None:
    async with httpx.AsyncClient(timeout=30) as http:
        tokens = {name: await session_token(http, config, name) for name in PEOPLE}
        for payer, payee, amount_minor, memo in PAYMENTS:
            await WalletClient(http, config.web.public_url, token=tokens[payer]).pay(
                id=TransferId(Tokens().hex()),
                payee=UserId(f"@{payee}:{config.server_name}"),
                money=Money(amount_minor, CurrencyCode("EUR")),
                memo=memo,
            )
        await post(
            http,
            f"{config.web.public_url.rstrip('/')}/_weft/wallet/v1/requests",
            {
                "id": Tokens().hex(),
                "asked": f"@alice:{config.server_name}",
                "amount_minor": "950",
                "currency": "EUR",
                "memo": "Taxi home",
            },
            token=tokens["dora"],
        )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu", "--disable-sync"]
        )
        context = await browser.new_context(
            viewport={"width": PHONE[0], "height": PHONE[1]},
            device_scale_factor=SCALE,
            color_scheme="dark" if dark else "light",
        )
        await context.add_cookies(
            [
                {
                    "name": Cookies(config.web).session,
                    "value": tokens["alice"],
                    "url": config.web.public_url,
                }
            ]
        )
        page = await context.new_page()
        address = config.web.public_url.rstrip("/")
        for memo, category in CATEGORIES.items():
            await page.goto(f"{address}/wallet/history?{urlencode({'words': memo})}")
            await page.locator("a.payment").click()
            await page.locator("select[name=category]").select_option(category)
            await page.locator("form.category-form button").click()
        for name, path in PICTURES.items():
            await page.goto(address + path)
            await page.screenshot(path=to / f"{name}.png")
        await browser.close()


async def session_token(http: httpx.AsyncClient, config: WeftConfig, name: str) -> str:
    """Signs in as any program can: a Matrix login, an OpenID token, a session."""
    client_api = f"{config.homeserver.url.rstrip('/')}/_matrix/client/v3"
    login = await post(
        http,
        f"{client_api}/login",
        {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": name},
            "password": PASSWORD,
        },
    )
    openid = await post(
        http,
        f"{client_api}/user/{login['user_id']}/openid/request_token",
        {},
        token=login["access_token"],
    )
    session = await post(http, f"{config.web.public_url.rstrip('/')}/_weft/sessions/openid", openid)
    return str(session["token"])


async def post(
    http: httpx.AsyncClient, url: str, body: dict[str, Any], *, token: str | None = None
) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = await http.post(url, json=body, headers=headers)
    answer.raise_for_status()
    content: dict[str, Any] = answer.json()
    return content


def free_port_pair() -> int:
    """A port that nobody listens on, as on the one after it."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


if __name__ == "__main__":
    main()
