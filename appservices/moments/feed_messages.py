"""How a Moment looks as a message in somebody's Moments room. Pure: the same Moment, seen by the same person,
is the same message.

A client that knows nothing of Weft shows all of it: who, what, where, the likes and comments that this person
may see. Several pictures come as one picture, a sheet of them.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping
from typing import Any, Final

from appservices.chassis.messages import reply_relation
from appservices.moments.records import VIDEO, Comment, Part
from appservices.moments.viewing import Seen
from appservices.vocabulary.events import MOMENT
from appservices.vocabulary.ids import EventId, UserId
from appservices.vocabulary.languages import _, counted, isolated

LIKE_KEYS: Final = frozenset({"❤", "♥", "👍", "🧡", "💛", "💚", "💙", "💜", "😍", "🥰", "💕"})
"""Reactions that are a like, without the selector that makes them colourful."""
COMMENTS_SHOWN: Final = 20
NAMES_SHOWN: Final = 20

NameOf = Callable[[UserId], str]


def moment_message(seen: Seen, name_of: NameOf, *, viewer: UserId, sheet: Part | None) -> dict[str, Any]:
    """A friend's Moment; `sheet` is the picture that stands for all of its pictures. Whom the author wanted
    to be reminded of it is mentioned, each in their own room only."""
    moment = seen.moment
    author = name_of(moment.author)
    text = moment.content.text
    first = f"{isolated(author)}: {isolated(text)}" if text else isolated(author)
    first_html = f"<strong>{_bdi(author)}</strong>" + (f"<br>{_lines(text)}" if text else "")
    more = _below(seen, name_of)
    body = "\n".join([first, *(plain for plain, _formatted in more)])
    formatted = "<br>".join([first_html, *(formatted for _plain, formatted in more)])
    content: dict[str, Any] = {
        "body": body,
        "format": "org.matrix.custom.html",
        "formatted_body": formatted,
        "m.mentions": {"user_ids": [viewer]} if viewer in moment.content.reminded else {},
        MOMENT: {"id": moment.moment_id, "author": moment.author, "at_ms": moment.created_at_ms},
    }
    if sheet is None:
        return {"msgtype": "m.text", **content}
    return {**content, **_media(sheet)}


def likes_message(seen: Seen, name_of: NameOf, *, under: EventId | None) -> dict[str, Any] | None:
    """Who likes one's own Moment; None when nobody does."""
    names = [name_of(like.maker) for like in seen.likes if like.maker != seen.moment.author]
    if not names:
        return None
    text = f"❤️ {_names(names)}"
    return _answer(text, html.escape(text), seen, under)


def comment_message(
    comment: Comment, seen: Seen, name_of: NameOf, *, under: EventId | None
) -> dict[str, Any]:
    """A comment of which this person is told: on their own Moment, or in answer to them."""
    text = f"{isolated(name_of(comment.maker))}: {isolated(comment.text)}"
    formatted = f"<strong>{_bdi(name_of(comment.maker))}</strong>: {_lines(comment.text)}"
    if under is None and seen.moment.content.text:
        about = _about(seen)
        text = f"{text}\n{about}"
        formatted = f"{formatted}<br>{_lines(about)}"
    return _answer(text, formatted, seen, under)


def _answer(text: str, formatted: str, seen: Seen, under: EventId | None) -> dict[str, Any]:
    content = {
        "msgtype": "m.text",
        "body": text,
        "format": "org.matrix.custom.html",
        "formatted_body": formatted,
        "m.mentions": {},
        MOMENT: {
            "id": seen.moment.moment_id,
            "author": seen.moment.author,
            "at_ms": seen.moment.created_at_ms,
        },
    }
    return content if under is None else content | reply_relation(under)


def _about(seen: Seen) -> str:
    """Which Moment an answer is about, where it can't stand below it."""
    text = seen.moment.content.text
    return _("About: {text}").format(text=isolated(text if len(text) <= 60 else f"{text[:59]}…"))


def _below(seen: Seen, name_of: NameOf) -> list[tuple[str, str]]:
    """The lines below the text, each as plain text and as HTML."""
    lines: list[tuple[str, str]] = []
    content = seen.moment.content
    if content.place:
        lines.append((f"📍 {isolated(content.place)}", f"📍 {_bdi(content.place)}"))
    if seen.likes:
        names = _names([name_of(like.maker) for like in seen.likes])
        lines.append((f"❤️ {names}", f"❤️ {html.escape(names)}"))
    shown = seen.comments[-COMMENTS_SHOWN:]
    if len(shown) < len(seen.comments):
        earlier = counted(
            "{count} earlier comment", "{count} earlier comments", len(seen.comments) - len(shown)
        )
        lines.append((earlier, html.escape(earlier)))
    makers: Mapping[str, UserId] = {comment.comment_id: comment.maker for comment in seen.comments}
    for comment in shown:
        who, formatted_who = (
            isolated(name_of(comment.maker)),
            f"<strong>{_bdi(name_of(comment.maker))}</strong>",
        )
        if comment.answers in makers:
            answered = name_of(makers[str(comment.answers)])
            who, formatted_who = f"{who} → {isolated(answered)}", f"{formatted_who} → {_bdi(answered)}"
        lines.append((f"{who}: {isolated(comment.text)}", f"{formatted_who}: {_lines(comment.text)}"))
    return lines


def _media(part: Part) -> dict[str, Any]:
    """What makes a message one with a picture or a video (Matrix spec, "m.image", "m.video"); its body is
    then the caption."""
    kind = "m.video" if part.kind == VIDEO else "m.image"
    info: dict[str, Any] = {"mimetype": part.media_type, "size": part.size_bytes}
    if part.width and part.height:
        info |= {"w": part.width, "h": part.height}
    if part.preview_mxc:
        info |= {"thumbnail_url": part.preview_mxc}
    suffix = part.media_type.partition("/")[2]
    return {"msgtype": kind, "url": part.mxc, "filename": f"moment.{suffix}", "info": info}


def _names(names: list[str]) -> str:
    shown = [isolated(name) for name in names[:NAMES_SHOWN]]
    left = len(names) - len(shown)
    return ", ".join(shown) + (f" +{left}" if left else "")


def _bdi(text: str) -> str:
    return f"<bdi>{html.escape(text)}</bdi>" if isolated(text) != text else html.escape(text)


def _lines(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
