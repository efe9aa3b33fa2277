"""The wallet's HTTP API as typed calls: the only road to money for everything outside the wallet.

Every call here may be repeated safely: reads change nothing, and a payment carries its id. So each is tried
again, a limited number of times, when the wallet does not answer or says that it can't just now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx

from appservices.vocabulary.ids import RoomId, TransferId, UserId
from appservices.vocabulary.money import CurrencyCode, Money

TRIES_MAX: Final = 3
FIRST_PAUSE_SECONDS: Final = 0.2
TIMEOUT_SECONDS: Final = 10.0
Value = TypeVar("Value")
_TRY_AGAIN: Final = frozenset({429, 502, 503, 504})


class WalletRefused(Exception):
    """The wallet said no: HTTP status, Matrix error code and one sentence for people."""

    def __init__(self, *, status: int, errcode: str, sentence: str) -> None:
        super().__init__(f"{errcode}: {sentence}")
        self.status = status
        self.errcode = errcode
        self.sentence = sentence


class WalletUnreachable(Exception):
    """No answer, or none that can be read. A payment may or may not have been made: ask again, same id."""


@dataclass(frozen=True, slots=True)
class Balance:
    """A user's money in one currency, in minor units of `exponent` decimals."""

    currency: CurrencyCode
    exponent: int
    posted_minor: int
    pending_minor: int
    available_minor: int


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment, with its signed receipt."""

    id: TransferId
    kind: str
    state: str
    payer: UserId
    payee: UserId
    money: Money
    memo: str
    at_ms: int
    room_id: RoomId | None
    receipt: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PaymentsPage:
    """Some payments, newest first; `next_before` asks for the page after it, None on the last."""

    payments: tuple[Payment, ...]
    next_before: str | None


@dataclass(frozen=True, slots=True)
class WalletKeys:
    """Whose receipts, and the keys that verify them: key id → unpadded base64."""

    service: UserId
    keys: Mapping[str, str]


class WalletClient:
    """A user's wallet, reached with their session's token.

    All calls raise WalletRefused or WalletUnreachable.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        url: str,
        *,
        token: str | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        tries_max: int = TRIES_MAX,
    ) -> None:
        """`url` is where the wallet listens; `token` is a session's and may be left out for `keys` alone."""
        self._http = http
        self._url = f"{url.rstrip('/')}/_weft/wallet"
        self._headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        self._timeout_seconds = timeout_seconds
        self._tries_max = tries_max

    async def keys(self) -> WalletKeys:
        content = await self._call("GET", "/keys")
        return _read(lambda: WalletKeys(service=UserId(content["service"]), keys=dict(content["keys"])))

    async def balances(self) -> list[Balance]:
        content = await self._call("GET", "/v1/balance")
        return _read(lambda: [_balance(item) for item in content["balances"]])

    async def payments(self, *, limit: int = 20, before: str | None = None) -> PaymentsPage:
        parameters = {"limit": str(limit), **({} if before is None else {"before": before})}
        content = await self._call("GET", "/v1/payments", parameters=parameters)
        return _read(
            lambda: PaymentsPage(
                payments=tuple(_payment(item) for item in content["payments"]),
                next_before=content["next_before"],
            )
        )

    async def payment(self, id: TransferId) -> Payment | None:
        """None when the user has no payment of that id."""
        try:
            content = await self._call("GET", f"/v1/payments/{id}")
        except WalletRefused as refused:
            if refused.status == 404:
                return None
            raise
        return _read(lambda: _payment(content))

    async def pay(
        self,
        *,
        id: TransferId,
        payee: UserId,
        money: Money,
        memo: str = "",
        room_id: RoomId | None = None,
        pin: str | None = None,
    ) -> Payment:
        """Pays once, however often it is asked with the same id. `derived_id` makes one from its cause.

        Refused as DEV_WEFT_CONFIRMATION_NEEDED where the user's PIN is needed: ask again with the same id.
        """
        body: dict[str, str] = {
            "id": id,
            "payee": payee,
            "amount_minor": str(money.amount_minor),
            "currency": money.currency,
            "memo": memo,
        }
        if room_id is not None:
            body["room_id"] = room_id
        if pin is not None:
            body["pin"] = pin
        content = await self._call("POST", "/v1/payments", body=body)
        return _read(lambda: _payment(content))

    async def _call(
        self,
        method: str,
        path: str,
        *,
        parameters: Mapping[str, str] | None = None,
        body: Mapping[str, str] | None = None,
    ) -> Any:
        pause_seconds = FIRST_PAUSE_SECONDS
        for left in range(self._tries_max - 1, -1, -1):
            try:
                answer = await self._http.request(
                    method,
                    self._url + path,
                    params=parameters,
                    json=body,
                    headers=self._headers,
                    timeout=self._timeout_seconds,
                )
            except httpx.HTTPError as error:
                if not left:
                    raise WalletUnreachable("The wallet does not answer.") from error
            else:
                if answer.status_code not in _TRY_AGAIN or not left:
                    return _content(answer)
            await asyncio.sleep(pause_seconds)
            pause_seconds *= 2
        raise AssertionError("the last try returns or raises")


def _content(answer: httpx.Response) -> Any:
    try:
        content = answer.json()
    except ValueError as error:
        raise WalletUnreachable(f"The wallet answered {answer.status_code} without JSON.") from error
    if answer.is_success:
        return content
    if not isinstance(content, dict) or not isinstance(content.get("errcode"), str):
        raise WalletUnreachable(f"The wallet answered {answer.status_code}.")
    raise WalletRefused(
        status=answer.status_code, errcode=content["errcode"], sentence=str(content.get("error", ""))
    )


def _read(read: Callable[[], Value]) -> Value:
    """Reads an answer; one of another form is no answer."""
    try:
        return read()
    except (KeyError, TypeError, ValueError) as error:
        raise WalletUnreachable("The wallet's answer can't be read.") from error


def _balance(item: Mapping[str, Any]) -> Balance:
    return Balance(
        currency=CurrencyCode(item["currency"]),
        exponent=int(item["exponent"]),
        posted_minor=int(item["posted_minor"]),
        pending_minor=int(item["pending_minor"]),
        available_minor=int(item["available_minor"]),
    )


def _payment(item: Mapping[str, Any]) -> Payment:
    return Payment(
        id=TransferId(item["id"]),
        kind=item["kind"],
        state=item["state"],
        payer=UserId(item["payer"]),
        payee=UserId(item["payee"]),
        money=Money(int(item["amount_minor"]), CurrencyCode(item["currency"])),
        memo=item["memo"],
        at_ms=int(item["at_ms"]),
        room_id=None if item["room_id"] is None else RoomId(item["room_id"]),
        receipt=item["receipt"],
    )
