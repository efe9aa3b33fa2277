"""Another homeserver's wallet, played by a test over real federation: it says what it likes.

It lives on a bare Synapse that knows `@wallet` as an application service which nobody serves, so nothing
answers for it: what the wallet under test says to it stays in the link's room, where the test reads it.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml

from appservices.chassis.clock import system_clock
from appservices.chassis.links.protocol import Item, Message, first_chain, next_chain, signed_content
from appservices.vocabulary.events import KEYS, LINK
from appservices.vocabulary.ids import UserId, derived_id
from appservices.vocabulary.signing import SigningKey
from scripts.weft_cli.certificates import LocalAuthority as OwnAuthority
from scripts.weft_cli.certificates import ensure_certificate
from tests.certificates import LocalAuthority
from tests.synapse import JsonObject, MatrixUser, Synapse, eventually

AS_TOKEN: Final = "hostile-wallet-for-tests-only"
ANSWER_SECONDS_MAX: Final = 90.0


def hostile_synapse(folder: Path, *, authority_folder: Path) -> Synapse:
    """A homeserver without Weft, started, that federates with the stacks of that authority folder."""
    folder.mkdir(parents=True)
    certificate, key = folder / "homeserver.pem", folder / "homeserver.key"
    ensure_certificate(
        OwnAuthority(authority_folder),
        host="localhost",
        certificate=certificate,
        key=key,
        now=datetime.datetime.now(datetime.UTC),
    )
    authority = LocalAuthority(authority_folder / "ca.pem", certificate, key)
    synapse = Synapse(folder, authority=authority)
    registration = {
        "id": "hostile",
        "url": None,
        "as_token": AS_TOKEN,
        "hs_token": "nobody is told anything",
        "sender_localpart": "_hostile",
        "rate_limited": False,
        "namespaces": {"users": [{"regex": "@wallet:.*", "exclusive": True}]},
    }
    path = folder / "hostile.yaml"
    path.write_text(yaml.safe_dump(registration))
    synapse.start({"app_service_config_files": [str(path)]})
    return synapse


class HostileWallet:
    """One end of a link. `say` is honest in form; everything can also be sent in any other form."""

    def __init__(self, user: MatrixUser, peer: str) -> None:
        self.user = user
        self.peer = UserId(peer)
        self.key = SigningKey.generate()
        self.room_id = ""
        self.epoch = self.seq = 0
        self.acked = (0, 0)
        """The peer's epoch and its last message of it that we acknowledge: less would stop the link."""
        self.chain = ""
        self.begin_anew()

    @classmethod
    async def on(cls, synapse: Synapse, peer: str) -> HostileWallet:
        return cls(await synapse.register_service_user("wallet", as_token=AS_TOKEN), peer)

    @property
    def user_id(self) -> UserId:
        return UserId(self.user.user_id)

    @property
    def server_name(self) -> str:
        return self.user.synapse.server_name

    def begin_anew(self) -> None:
        """Numbers from 1 again, as after a mending."""
        self.epoch = max(system_clock(), self.epoch + 1)
        self.seq, self.chain = 0, first_chain(self.user_id, self.peer, self.epoch)

    async def open(self) -> None:
        """Makes the link's room and waits until the peer has come."""
        keys = {"service": self.user_id, "keys": {self.key.key_id: self.key.public_base64}}
        self.room_id = await self.user.create_room(
            preset="private_chat",
            creation_content={"type": LINK},
            invite=[self.peer],
            initial_state=[{"type": KEYS, "state_key": self.user_id, "content": keys}],
            power_level_content_override={"events": {KEYS: 0}},
        )
        room_id = self.room_id

        async def has_come() -> bool:
            return await self.user.membership(room_id, self.peer) == "join"

        await eventually(has_come, seconds_max=ANSWER_SECONDS_MAX)

    async def message(self, *items: Item, **changes: Any) -> Message:
        """The next message, which acknowledges all that the peer has said."""
        heard = [(content["epoch"], content["seq"]) for content in await self.heard() if "seq" in content]
        self.acked = max([self.acked, *heard])
        message = Message(
            sender=self.user_id,
            to=self.peer,
            epoch=self.epoch,
            at_ms=system_clock(),
            ack_epoch=self.acked[0],
            ack=self.acked[1],
            seq=self.seq + 1 if items else None,
            prev=self.chain if items else "",
            items=items,
            sent=self.seq + 1 if items else self.seq,
        )
        return replace(message, **changes)

    def signed(self, message: Message) -> JsonObject:
        return signed_content(message, self.key)

    async def send(self, content: Mapping[str, Any]) -> None:
        await self.user.send(self.room_id, content, event_type=LINK)

    async def say(self, *items: Item) -> JsonObject:
        """Sends the items as the next message; returns its content."""
        content = await self.next_message(*items)
        await self.send(content)
        return content

    async def next_message(self, *items: Item) -> JsonObject:
        """The next message, for which those after it will wait; it is not sent."""
        content = self.signed(await self.message(*items))
        self.chain = next_chain(self.chain, self.seq + 1, items)
        self.seq += 1
        return content

    async def heard(self) -> list[JsonObject]:
        """What the peer has said, oldest first."""
        events = await self.user.messages(self.room_id, limit=500)
        return [
            event["content"]
            for event in reversed(events)
            if event["type"] == LINK and event["sender"] == self.peer
        ]

    async def items(self) -> list[JsonObject]:
        return [item for content in await self.heard() for item in content.get("items", [])]

    async def answer(self, id: str) -> JsonObject:
        """The peer's last answer to a prepare."""

        async def look() -> JsonObject | None:
            answers = [
                item
                for item in await self.items()
                if item["kind"] in ("fulfill", "reject") and item["id"] == id
            ]
            return answers[-1] if answers else None

        return await eventually(look, seconds_max=ANSWER_SECONDS_MAX)

    async def stopped(self) -> str:
        """Why the peer says that the link has stopped since we began to number."""

        async def look() -> str | None:
            for content in await self.heard():
                if content.get("stopped") and content["at_ms"] > self.epoch:
                    return str(content["stopped"])
            return None

        return await eventually(look, seconds_max=ANSWER_SECONDS_MAX)

    def prepare(self, payee: str, name: str, **changes: Any) -> JsonObject:
        """One cent, from somebody here to that user there."""
        return {
            "kind": "prepare",
            "id": derived_id("hostile", name),
            "payer": f"@mallory:{self.server_name}",
            "payee": payee,
            "amount_minor": "1",
            "currency": "EUR",
            "expires_at_ms": system_clock() + 300_000,
            **changes,
        }
