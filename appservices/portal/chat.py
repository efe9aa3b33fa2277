"""@weft's chat commands: sign-in by a link or by the code that a browser shows, and signing out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from appservices.chassis.commands import Command, CommandCall
from appservices.chassis.database import Write
from appservices.chassis.page_words import browser_name
from appservices.chassis.web_sessions import CODE_ALPHABET, LINK_MINUTES, SessionStore

_CODE = re.compile(rf"[{CODE_ALPHABET}]{{4}}[- ]?[{CODE_ALPHABET}]{{4}}", re.IGNORECASE)


class HomeCommands:
    """What @weft does when it is written to."""

    def __init__(self, sessions: SessionStore, *, link: Callable[[str], str]) -> None:
        """`link` makes a one-time link's address from its token."""
        self._sessions = sessions
        self._link = link

    def commands(self) -> tuple[Command, ...]:
        return (
            Command(
                "login",
                "!login [code]",
                "signs a browser in: by the code that it shows, or by a link to open",
                "!login",
                self._login,
            ),
            Command("sessions", "!sessions", "shows where you are signed in", "!sessions", self._sessions_of),
            Command("logout", "!logout", "signs out every browser", "!logout", self._logout),
        )

    @staticmethod
    def plain_text(text: str) -> tuple[str, str] | None:
        """A code alone, sent in a private room, is meant for !login."""
        return ("login", text) if _CODE.fullmatch(text) else None

    async def _login(self, call: CommandCall) -> Sequence[Write]:
        if call.arguments:
            return await self._confirm_code(call)
        link = self._link(await self._sessions.make_link(call.sender))
        return call.answer_privately(
            f"Open this link to sign in as {call.sender}; it works once, for {LINK_MINUTES} minutes: {link}"
        )

    async def _confirm_code(self, call: CommandCall) -> Sequence[Write]:
        if not _CODE.fullmatch(call.arguments):
            return [call.reply("A sign-in code has eight letters and digits, for example: !login K7QF-2MXD")]
        if not call.is_private:
            return [call.reply("Please send sign-in codes to me in a room where we are alone.")]
        browser = browser_name(await self._sessions.browser_of_code(call.arguments) or "")
        if not await self._sessions.confirm_code(call.arguments, call.sender):
            return [
                call.reply(
                    "No browser is waiting with this code: please look at it again, or take a new one."
                )
            ]
        return [
            call.reply(
                f"{browser} is now signed in as you. If that is not your own browser, send !logout at once."
            )
        ]

    async def _sessions_of(self, call: CommandCall) -> Sequence[Write]:
        sessions = await self._sessions.of_user(call.sender)
        if not sessions:
            return call.answer_privately("You are signed in nowhere.")
        lines = [
            f"{_day(session.created_at_ms)} – {_day(session.expires_at_ms)}  "
            f"{browser_name(session.user_agent)}"
            for session in sessions
        ]
        return call.answer_privately("\n".join(lines))

    async def _logout(self, call: CommandCall) -> Sequence[Write]:
        count = await self._sessions.sign_out_everywhere(call.sender)
        return call.answer_privately(
            "You were signed in nowhere." if count == 0 else f"Signed out of {count} session(s)."
        )


def _day(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
