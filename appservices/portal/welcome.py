"""What @weft says first, in a new Home room: enough for somebody whose client shows no widgets."""

from __future__ import annotations

import html

from appservices.vocabulary.ids import UserId


def welcome_words(_person: UserId, *, portal_url: str) -> tuple[str, str]:
    """The greeting, as text and as HTML."""
    intro = "Welcome! This is your Home room: only you and your server's services are in it."
    commands = (
        ("balance", "shows your money, and the Wallet page stands above in clients that show widgets"),
        ("login", f"gives you a link to the same pages in a browser, at {portal_url}"),
        ("help", "lists everything you can write here"),
    )
    text = "\n".join([intro, *(f"{word} — {meaning}" for word, meaning in commands)])
    items = "".join(f"<li><code>{word}</code> — {html.escape(meaning)}</li>" for word, meaning in commands)
    return text, f"<p>{html.escape(intro)}</p><ul>{items}</ul>"
