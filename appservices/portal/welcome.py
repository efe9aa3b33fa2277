"""What @weft says first, in a new Home room: enough for somebody whose client shows no widgets."""

from __future__ import annotations

import html

from appservices.vocabulary.ids import UserId
from appservices.vocabulary.languages import _, isolated


def welcome_words(_person: UserId, *, portal_url: str) -> tuple[str, str]:
    """The greeting, as text and as HTML."""
    intro = _("Welcome! This is your Home room: only you and your server's services are in it.")
    commands = (
        ("balance", _("shows your money, and the Wallet page stands above in clients that show widgets")),
        ("login", _("gives you a link to the same pages in a browser, at {url}").format(url=portal_url)),
        ("language", _("shows the language that I speak with you, and how to change it")),
        ("help", _("lists everything you can write here")),
    )
    lines = [(isolated(word), meaning) for word, meaning in commands]
    text = "\n".join([intro, *(f"{word} — {meaning}" for word, meaning in lines)])
    items = "".join(f"<li><code>{word}</code> — {html.escape(meaning)}</li>" for word, meaning in lines)
    return text, f"<p>{html.escape(intro)}</p><ul>{items}</ul>"
