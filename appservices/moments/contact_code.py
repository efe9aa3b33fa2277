"""How somebody is added as a contact from outside: a link that every Matrix client opens, and its QR code."""

from __future__ import annotations

import io
from typing import Final
from urllib.parse import quote

import segno

from appservices.vocabulary.ids import UserId

_SCALE: Final = 8


def contact_link(person: UserId) -> str:
    """A link for everybody: it opens in whatever Matrix client one has."""
    return f"https://matrix.to/#/{quote(person, safe='@:')}"


def contact_uri(person: UserId) -> str:
    """The same as a `matrix:` URI (Matrix spec, appendix "URIs"), which asks to begin a direct chat."""
    return f"matrix:u/{quote(person[1:], safe=':')}?action=chat"


def contact_png(person: UserId) -> tuple[bytes, int]:
    """The link as a QR code, and how many pixels its sides have."""
    code = segno.make(contact_link(person), error="m", micro=False)
    written = io.BytesIO()
    code.save(written, kind="png", scale=_SCALE, dark="#000", light="#fff")
    side_pixels, _ = code.symbol_size(scale=_SCALE)
    return written.getvalue(), int(side_pixels)


def contact_svg(person: UserId) -> str:
    """The link as a drawing to be put into a page."""
    written = io.BytesIO()
    segno.make(contact_link(person), error="m", micro=False).save(
        written,
        kind="svg",
        xmldecl=False,
        nl=False,
        svgns=False,
        omitsize=True,
        border=2,
        svgclass="qr",
        lineclass=None,
    )
    return written.getvalue().decode()
