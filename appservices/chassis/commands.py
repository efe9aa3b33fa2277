"""Chat commands: which message is one, which service answers it, and `!help`.

A command is a message that begins with `!`; in a room where a service is alone with one person the `!` may
be left out. Unknown or malformed input gets one sentence and an example, and changes nothing.
"""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from appservices.chassis.calls import Call
from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.inbox import StoredEvent
from appservices.chassis.messages import IncomingMessage
from appservices.chassis.rooms import Room
from appservices.vocabulary.commands import (
    COMMAND_PREFIX,
    HELP,
    HOME_COMMANDS,
    MOMENTS_COMMANDS,
    WALLET_COMMANDS,
)
from appservices.vocabulary.ids import UserId, localpart_of, server_of
from appservices.vocabulary.languages import _, isolated

WORD_SHOWN_MAX = 24
_PREFIXES = (COMMAND_PREFIX, "\uff01")
_ALL_COMMANDS = frozenset({HELP, *HOME_COMMANDS, *WALLET_COMMANDS, *MOMENTS_COMMANDS})


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandCall(Call):
    """One command that somebody typed."""

    name: str
    arguments: str
    message: IncomingMessage


CommandHandler = Callable[[CommandCall], Awaitable[Sequence[Write] | None]]
"""Returns the command's effects; None if it has committed them itself, `call.stored.done` among them."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a service. `usage` and `example` begin with `!`; `summary` says what it does.

    They are told in the language of who asks, so those that have words in them are `known` sentences.
    """

    name: str
    usage: str
    summary: str
    example: str
    handler: CommandHandler


class CommandRouter:
    """The commands of one service."""

    def __init__(
        self,
        *,
        service_user: UserId,
        service_users: Sequence[UserId],
        commands: Sequence[Command],
        clock: Clock,
        plain_text: Callable[[str], tuple[str, str] | None] = lambda text: None,
    ) -> None:
        """`service_users` are all of this server's, the one that answers unknown input first.

        `plain_text` may read a text without `!` in a private room as (command, arguments).
        """
        self._service_user = service_user
        self._service_users = tuple(service_users)
        self._commands = {command.name: command for command in commands}
        self._clock = clock
        self._plain_text = plain_text

    async def route(
        self, message: IncomingMessage, room: Room, stored: StoredEvent
    ) -> Sequence[Write] | None:
        """The effects of a message: none unless it is a command for this service."""
        is_private = room.only_person == message.sender
        prefixed = message.text.startswith(_PREFIXES)
        if not prefixed and not is_private:
            return []
        read = None if prefixed else self._plain_text(message.text)
        name, arguments = read or _split(message.text[1:] if prefixed else message.text)
        if not is_private and not any(character.isalnum() for character in name):
            # An exclamation alone is no command.
            return []
        call = CommandCall(
            event_id=message.event_id,
            sender=message.sender,
            room=room,
            stored=stored,
            service_user=self._service_user,
            now_ms=self._clock(),
            name=name,
            arguments=arguments,
            message=message,
        )
        if server_of(message.sender) != server_of(self._service_user):
            return self._answer_stranger(call)
        command = self._commands.get(name)
        if command is not None:
            return await command.handler(call)
        if name == HELP:
            return [self._help(call)]
        if (name and name in _ALL_COMMANDS) or self._speaker(room) != self._service_user:
            return []
        return [self._unknown(call)]

    def _speaker(self, room: Room) -> UserId | None:
        """The one service that answers what no service understands."""
        return next((user for user in self._service_users if user in room.members.joined), None)

    def _help(self, call: CommandCall) -> Write:
        told = [(_(command.usage), _(command.summary)) for command in self._commands.values()]
        told.append((f"{COMMAND_PREFIX}{HELP}", _("lists these commands")))
        lines = [(isolated(usage), summary) for usage, summary in told]
        rows = "".join(
            f"<li><code>{html.escape(usage)}</code> — {html.escape(summary)}</li>" for usage, summary in lines
        )
        return call.reply(
            "\n".join(f"{usage} — {summary}" for usage, summary in lines),
            formatted=f"<ul>{rows}</ul>",
        )

    def _unknown(self, call: CommandCall) -> Write:
        example = next(iter(self._commands.values())).example
        word = "".join(character for character in call.name if character.isprintable())[:WORD_SHOWN_MAX]
        return call.reply(
            _("I don't know “{word}”: type !help for what I can do, for example {example}.").format(
                word=isolated(word), example=isolated(_(example))
            )
        )

    def _answer_stranger(self, call: CommandCall) -> Sequence[Write]:
        """People of other servers have services of their own, which answer them when they are here."""
        own_service = UserId(f"@{localpart_of(self._service_user)}:{server_of(call.sender)}")
        if call.name not in self._commands or own_service in call.room.members.joined:
            return []
        return [
            call.reply(
                _(
                    "I serve the people of {server} only; invite your own server's service, {service}, "
                    "to use {command} here."
                ).format(
                    server=isolated(server_of(self._service_user)),
                    service=isolated(own_service),
                    command=isolated(f"{COMMAND_PREFIX}{call.name}"),
                )
            )
        ]


def _split(text: str) -> tuple[str, str]:
    words = text.split(maxsplit=1)
    name = words[0].lower() if words else ""
    return name, words[1].strip() if len(words) > 1 else ""
