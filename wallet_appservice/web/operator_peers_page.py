"""The operator's page of other homeservers: links, who owes whom, limits, statements, what is under way.

It changes nothing; `weft wallet peer` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from appservices.chassis.clock import Clock
from appservices.chassis.database import Database
from appservices.chassis.links.storage import OPEN
from appservices.vocabulary.languages import _, known
from appservices.vocabulary.money import Currencies, CurrencyCode
from wallet_appservice.clearing.overview import peers_overview, positions_over_time
from wallet_appservice.clearing.peers import WARNING_PERCENT, Peers
from wallet_appservice.clearing.statements import AGREED, DIFFERS, SENT, THEIRS, WAITING
from wallet_appservice.web.line_picture import line_picture
from wallet_appservice.web.wallet_view import amount_text

_STATEMENTS: Final[Mapping[str, str]] = {
    SENT: known("sent"),
    WAITING: known("to be compared"),
    AGREED: known("the same as ours"),
    DIFFERS: known("differs from ours"),
}


async def shown_peers(
    database: Database, peers: Peers, currencies: Currencies, *, clock: Clock
) -> list[dict[str, Any]]:
    """What the template shows of each peer, in words and pictures."""
    return [
        await _shown(database, peer, currencies, now_ms=clock())
        for peer in await peers_overview(database, peers)
    ]


async def _shown(
    database: Database, peer: Mapping[str, Any], currencies: Currencies, *, now_ms: int
) -> dict[str, Any]:
    link = peer["link"]
    return {
        "server": peer["server"],
        "wallet": peer["wallet"],
        "state": _state(peer),
        "is_well": peer["allowed"] and (link is None or link["state"] == OPEN),
        "detail": "" if link is None else " · ".join(filter(None, (link["reason"], link["detail"]))),
        "heard_at_ms": None if link is None else link["heard_at_ms"],
        "items_waiting": 0 if link is None else link["items_waiting"],
        "pending": peer["pending"],
        "rejected": sum(peer["rejected"].values()),
        "statement": _statement(peer["statements"]),
        "positions": [
            await _position(database, peer["server"], item, currencies, now_ms=now_ms)
            for item in peer["positions"]
        ],
    }


def _state(peer: Mapping[str, Any]) -> str:
    link = peer["link"]
    if not peer["allowed"]:
        return _("removed")
    if link is None:
        return _("no payment yet")
    if link["state"] == OPEN:
        return _("open")
    return _("stopped")


async def _position(
    database: Database, server: str, position: Mapping[str, Any], currencies: Currencies, *, now_ms: int
) -> dict[str, Any]:
    currency = CurrencyCode(position["currency"])
    owed, limit = int(position["owed_minor"]), int(position["limit_minor"])
    amount = amount_text(abs(owed), currency, currencies)
    if owed > 0:
        sentence = _("They owe us {amount}").format(amount=amount)
    elif owed < 0:
        sentence = _("We owe them {amount}").format(amount=amount)
    else:
        sentence = _("Nobody owes anything")
    over_time = await positions_over_time(database, server, currency)
    return {
        "currency": currency,
        "sentence": sentence,
        "limit": amount_text(limit, currency, currencies),
        "used_percent": position["used_percent"],
        "is_near_limit": position["used_percent"] >= WARNING_PERCENT,
        "paying": amount_text(int(position["paying_minor"]), currency, currencies),
        "picture": line_picture([*over_time, (now_ms, owed)], until=now_ms) if over_time else None,
        "since_ms": over_time[0][0] if over_time else None,
        "lowest": amount_text(min(0, owed, *(minor for _at, minor in over_time)), currency, currencies),
        "highest": amount_text(max(0, owed, *(minor for _at, minor in over_time)), currency, currencies),
    }


def _statement(statements: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The last one that came from there, or else the last of ours."""
    theirs = [item for item in statements if item["side"] == THEIRS] or statements
    if not theirs:
        return None
    state = theirs[0]["state"]
    return {"at_ms": theirs[0]["at_ms"], "state": _(_STATEMENTS[state])}
