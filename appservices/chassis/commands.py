"""Chat commands: which message is one, which service answers it, and `!help`.

A command is a message that begins with `!`; in a room where a service is alone with one person the `!` may
be left out. Unknown or malformed input gets one sentence and an example, and changes nothing.
"""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from appservices.chassis.clock import Clock
from appservices.chassis.database import Write
from appservices.chassis.inbox import StoredEvent
from appservices.chassis.messages import IncomingMessage, notice
from appservices.chassis.outbox import Outgoing
from appservices.chassis.rooms import Room
from appservices.vocabulary.commands import COMMAND_PREFIX, HELP, HOME_COMMANDS, WALLET_COMMANDS
from appservices.vocabulary.ids import OutboxId, RoomId, UserId, derived_id, localpart_of, server_of

WORD_SHOWN_MAX = 24
_PREFIXES = (COMMAND_PREFIX, "\uff01")
_ALL_COMMANDS = frozenset({HELP, *HOME_COMMANDS, *WALLET_COMMANDS})


@dataclass(frozen=True, slots=True)
class CommandCall:
    """One command that somebody typed, and the means to answer it."""

    name: str
    arguments: str
    message: IncomingMessage
    room: Room
    stored: StoredEvent
    service_user: UserId
    now_ms: int

    @property
    def sender(self) -> UserId:
        return self.message.sender

    @property
    def is_private(self) -> bool:
        """Whether nobody but the sender and this server's services reads along."""
        return self.room.only_person == self.sender

    def reply(self, text: str, *, formatted: str | None = None) -> Write:
        """An answer in the room, as a reply to the command."""
        content = notice(text, formatted=formatted, reply_to=self.message.event_id)
        return self._outgoing("reply", content, room_id=self.room.room_id)

    def answer_privately(
        self,
        text: str,
        *,
        formatted: str | None = None,
        elsewhere: str = "I have answered you in our direct room.",
    ) -> list[Write]:
        """An answer that only the sender may read: here when alone with them, else by direct message.

        In the second case `elsewhere` is what the room is told.
        """
        if self.is_private:
            return [self.reply(text, formatted=formatted)]
        direct = self._outgoing("direct", notice(text, formatted=formatted), to_user=self.sender)
        return [direct, self.reply(elsewhere)]

    def _outgoing(
        self,
        purpose: str,
        content: dict[str, object],
        *,
        room_id: RoomId | None = None,
        to_user: UserId | None = None,
    ) -> Write:
        outbox_id = OutboxId(derived_id(purpose, self.service_user, self.message.event_id))
        return Outgoing(outbox_id, content, room_id=room_id, to_user=to_user).write(now_ms=self.now_ms)


CommandHandler = Callable[[CommandCall], Awaitable[Sequence[Write] | None]]
"""Returns the command's effects; None if it has committed them itself, `call.stored.done` among them."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a service. `usage` and `example` begin with `!`; `summary` says what it does."""

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
        call = CommandCall(name, arguments, message, room, stored, self._service_user, self._clock())
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
        commands = list(self._commands.values())
        text = "\n".join(f"{command.usage} — {command.summary}" for command in commands)
        rows = "".join(
            f"<li><code>{html.escape(command.usage)}</code> — {html.escape(command.summary)}</li>"
            for command in commands
        )
        return call.reply(
            text + "\n!help — lists these commands",
            formatted=(f"<ul>{rows}<li><code>!help</code> — lists these commands</li></ul>"),
        )

    def _unknown(self, call: CommandCall) -> Write:
        example = next(iter(self._commands.values())).example
        word = "".join(character for character in call.name if character.isprintable())[:WORD_SHOWN_MAX]
        return call.reply(f"I don't know “{word}”: type !help for what I can do, for example {example}.")

    def _answer_stranger(self, call: CommandCall) -> Sequence[Write]:
        """People of other servers have services of their own, which answer them when they are here."""
        own_service = UserId(f"@{localpart_of(self._service_user)}:{server_of(call.sender)}")
        if call.name not in self._commands or own_service in call.room.members.joined:
            return []
        return [
            call.reply(
                f"I serve the people of {server_of(self._service_user)} only; "
                f"invite your own server's service, {own_service}, to use !{call.name} here."
            )
        ]


def _split(text: str) -> tuple[str, str]:
    words = text.split(maxsplit=1)
    name = words[0].lower() if words else ""
    return name, words[1].strip() if len(words) > 1 else ""
