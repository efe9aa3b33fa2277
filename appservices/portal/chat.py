"""@weft's chat commands: sign-in by a link or by the code that a browser shows, signing out, and language."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from appservices.chassis.chosen_languages import ChosenLanguages
from appservices.chassis.commands import Command, CommandCall
from appservices.chassis.database import Write
from appservices.chassis.page_words import browser_name, readable_time
from appservices.chassis.web_sessions import CODE_ALPHABET, LINK_MINUTES, SessionStore
from appservices.vocabulary.languages import (
    LANGUAGES,
    _,
    counted,
    isolated,
    known,
    language,
    named,
    speaking,
)

_CODE = re.compile(rf"[{CODE_ALPHABET}]{{4}}[- ]?[{CODE_ALPHABET}]{{4}}", re.IGNORECASE)


class HomeCommands:
    """What @weft does when it is written to."""

    def __init__(
        self, sessions: SessionStore, languages: ChosenLanguages, *, link: Callable[[str], str]
    ) -> None:
        """`link` makes a one-time link's address from its token."""
        self._sessions = sessions
        self._languages = languages
        self._link = link

    def commands(self) -> tuple[Command, ...]:
        return (
            Command(
                "login",
                known("!login [code]"),
                known("signs a browser in: by the code that it shows, or by a link to open"),
                "!login",
                self._login,
            ),
            Command(
                "sessions",
                "!sessions",
                known("shows where you are signed in"),
                "!sessions",
                self._sessions_of,
            ),
            Command("logout", "!logout", known("signs out every browser"), "!logout", self._logout),
            Command(
                "language",
                known("!language [name]"),
                known("shows or changes the language that is spoken with you"),
                "!language Deutsch",
                self._language,
            ),
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
            counted(
                "Open this link to sign in as {user}; it works once, for {count} minute: {link}",
                "Open this link to sign in as {user}; it works once, for {count} minutes: {link}",
                LINK_MINUTES,
            ).format(user=isolated(call.sender), link=link)
        )

    async def _confirm_code(self, call: CommandCall) -> Sequence[Write]:
        if not _CODE.fullmatch(call.arguments):
            return [
                call.reply(
                    _("A sign-in code has eight letters and digits, for example: {example}").format(
                        example=isolated("!login K7QF-2MXD")
                    )
                )
            ]
        if not call.is_private:
            return [call.reply(_("Please send sign-in codes to me in a room where we are alone."))]
        browser = browser_name(await self._sessions.browser_of_code(call.arguments) or "")
        if not await self._sessions.confirm_code(call.arguments, call.sender):
            return [
                call.reply(
                    _("No browser is waiting with this code: please look at it again, or take a new one.")
                )
            ]
        return [
            call.reply(
                _(
                    "{browser} is now signed in as you. If that is not your own browser, "
                    "send !logout at once."
                ).format(browser=browser)
            )
        ]

    async def _sessions_of(self, call: CommandCall) -> Sequence[Write]:
        sessions = await self._sessions.of_user(call.sender)
        if not sessions:
            return call.answer_privately(_("You are signed in nowhere."))
        lines = [
            _("{browser}: from {start} to {end}").format(
                browser=browser_name(session.user_agent),
                start=readable_time(session.created_at_ms),
                end=readable_time(session.expires_at_ms),
            )
            for session in sessions
        ]
        return call.answer_privately("\n".join(lines))

    async def _logout(self, call: CommandCall) -> Sequence[Write]:
        count = await self._sessions.sign_out_everywhere(call.sender)
        return call.answer_privately(
            counted("Signed out of {count} session.", "Signed out of {count} sessions.", count)
            if count
            else _("You were signed in nowhere.")
        )

    async def _language(self, call: CommandCall) -> Sequence[Write]:
        if not call.arguments:
            return [call.reply(f"{_spoken_now()} {_how_to_choose()}")]
        tag = named(call.arguments)
        if tag is None:
            return [call.reply(_("I don't speak that language.") + " " + _how_to_choose())]
        await self._languages.choose(call.sender, tag)
        with speaking(tag):
            return [call.reply(_spoken_now())]


def _spoken_now() -> str:
    own_name = LANGUAGES[language()]
    return _("I speak {language} with you.").format(language=isolated(own_name))


def _how_to_choose() -> str:
    choices = " · ".join(isolated(f"!language {name}") for name in LANGUAGES.values())
    return _("To change that, write one of: {choices}").format(choices=choices)
