"""What is meant by a text that was scanned or pasted."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from appservices.vocabulary.ids import ServerName, UserId, is_user_id
from appservices.vocabulary.languages import _

TEXT_LENGTH_MAX: Final = 2_000
PAYMENT_FIELDS: Final = ("payee", "amount", "currency", "memo")
_ORDER: Final = re.compile(r"/wallet/order/[A-Za-z0-9_-]{1,64}", re.ASCII)
_PAY_PATHS: Final = ("/wallet", "/wallet/send")


class NotScannable(ValueError):
    """What was scanned is nothing that this wallet pays; the message is one sentence."""


def path_of_scanned(text: str, *, public_url: str, server: ServerName) -> str:
    """Where in the wallet a scanned text leads. Raises NotScannable.

    Only what the text says of whom and how much is taken from it, never an address to go to.
    """
    text = text.strip()[:TEXT_LENGTH_MAX]
    user = _user_of(text)
    if user is not None:
        return f"/wallet/send?{urlencode({'payee': user})}"
    own = urlsplit(public_url)
    try:
        found = urlsplit(text)
    except ValueError:
        found = urlsplit("")
    if found.scheme in ("http", "https") and (found.path in _PAY_PATHS or _ORDER.fullmatch(found.path)):
        if found.netloc.lower() != own.netloc.lower():
            raise NotScannable(
                _("That code belongs to the wallet at {host}; this one is of {server}.").format(
                    host=found.netloc[:100], server=server
                )
            )
        if _ORDER.fullmatch(found.path):
            return found.path
        given = parse_qs(found.query)
        kept = {name: given[name][0] for name in PAYMENT_FIELDS if given.get(name)}
        if kept.get("payee"):
            return f"/wallet/send?{urlencode(kept)}"
    sentence = _("That is no code to pay with here. Ask for one that was made by a wallet of {server}.")
    raise NotScannable(sentence.format(server=server))


def _user_of(text: str) -> UserId | None:
    """Who is meant by a Matrix id, a matrix.to link or a matrix: address (MSC2312)."""
    for beginning, sigil in (("https://matrix.to/#/", ""), ("matrix:u/", "@"), ("matrix:user/", "@")):
        if text.lower().startswith(beginning):
            text = sigil + unquote(text[len(beginning) :].split("?")[0])
            break
    return UserId(text) if is_user_id(text) else None
