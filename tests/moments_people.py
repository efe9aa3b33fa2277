"""People with Moments rooms on a running Weft, and what they see in them."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from PIL import Image

from appservices.vocabulary.events import MOMENT, MOMENTS_ROOM
from tests.contacts import become_contacts
from tests.stack import Stack
from tests.synapse import JsonObject, MatrixUser, eventually

SEEN_SECONDS_MAX = 30.0


@dataclass
class Friend:
    """A user and their Moments room."""

    user: MatrixUser
    room_id: str

    @property
    def id(self) -> str:
        return self.user.user_id

    async def say(self, text: str, **more: Any) -> str:
        return await self.user.send(self.room_id, {"msgtype": "m.text", "body": text, **more})

    async def reply(self, to: str, text: str) -> str:
        return await self.say(text, **{"m.relates_to": {"m.in_reply_to": {"event_id": to}}})

    async def like(self, event_id: str, key: str = "❤️") -> str:
        relation = {"rel_type": "m.annotation", "event_id": event_id, "key": key}
        return await self.user.send(self.room_id, {"m.relates_to": relation}, event_type="m.reaction")

    async def take_back(self, event_id: str) -> None:
        path = f"/rooms/{quote(self.room_id)}/redact/{quote(event_id)}/{secrets.token_hex(8)}"
        await self.user.request("PUT", path, {})

    async def picture(self, data: bytes, *, caption: str = "", media_type: str = "image/jpeg") -> str:
        content = {"msgtype": "m.image", "url": await self.upload(data, media_type), "body": "photo.jpg"}
        if caption:
            content |= {"filename": "photo.jpg", "body": caption}
        return await self.user.send(self.room_id, content)

    async def upload(self, data: bytes, media_type: str) -> str:
        async with httpx.AsyncClient(base_url=self.user.synapse.url) as http:
            answer = await http.post(
                "/_matrix/media/v3/upload",
                content=data,
                headers={"Authorization": f"Bearer {self.user.access_token}", "Content-Type": media_type},
            )
        mxc: str = answer.raise_for_status().json()["content_uri"]
        return mxc

    async def download(self, mxc: str) -> bytes:
        async with httpx.AsyncClient(base_url=self.user.synapse.url) as http:
            answer = await http.get(
                f"/_matrix/client/v1/media/download/{mxc.removeprefix('mxc://')}",
                headers={"Authorization": f"Bearer {self.user.access_token}"},
            )
        return answer.raise_for_status().content

    async def shown(self) -> list[JsonObject]:
        """What stands in the room now: our messages, oldest first, each with its newest content."""
        events = [
            event
            for event in reversed(await self.user.messages(self.room_id, limit=200))
            if event["type"] == "m.room.message"
        ]
        edits: dict[str, JsonObject] = {}
        for event in events:
            relation = event["content"].get("m.relates_to", {})
            if relation.get("rel_type") == "m.replace":
                edits[relation["event_id"]] = event["content"]["m.new_content"]
        return [
            event | {"content": edits.get(event["event_id"], event["content"])}
            for event in events
            if event["content"] and event["content"].get("m.relates_to", {}).get("rel_type") != "m.replace"
        ]

    async def moments(self) -> list[JsonObject]:
        """Those of the messages that are about Moments."""
        return [event for event in await self.shown() if MOMENT in event["content"]]

    async def sees(self, words: str, *, so: Callable[[JsonObject], bool] = lambda event: True) -> JsonObject:
        """Waits for a message of @moments with these words in it."""

        async def look() -> JsonObject | None:
            for event in await self.shown():
                if event["sender"] != self.id and words in event["content"]["body"] and so(event):
                    return event
            return None

        return await eventually(look, seconds_max=SEEN_SECONDS_MAX)

    async def sees_no(self, words: str) -> None:
        """Waits until no message has these words."""

        async def look() -> bool:
            return all(
                words not in event["content"]["body"]
                for event in await self.shown()
                if event["sender"] != self.id
            )

        await eventually(look, seconds_max=SEEN_SECONDS_MAX)


async def friend(stack: Stack, name: str) -> Friend:
    """A new user, once their Moments room is theirs and has said so."""
    user = await stack.register(f"{name}_{secrets.token_hex(3)}")
    await user.request("PUT", f"/profile/{quote(user.user_id)}/displayname", {"displayname": name.title()})

    async def look() -> str | None:
        recorded = await user.account_data(MOMENTS_ROOM)
        return None if recorded is None else recorded["room_id"]

    person = Friend(user, await eventually(look, seconds_max=SEEN_SECONDS_MAX))
    await person.sees("Moments room")
    return person


async def friends(stack: Stack, *names: str) -> list[Friend]:
    """People who are all contacts of one another."""
    people = [await friend(stack, name) for name in names]
    for index, one in enumerate(people):
        for other in people[index + 1 :]:
            await become_contacts(one.user, other.user)
    return people


def jpeg(color: str = "teal", *, size: tuple[int, int] = (64, 48), with_place: bool = False) -> bytes:
    """A picture as a camera makes it, with the place where it was taken if so wished."""
    exif = Image.Exif()
    if with_place:
        exif[0x010F] = "Camera"
        exif.get_ifd(0x8825).update({1: "N", 2: (53.0, 33.0, 0.0), 3: "E", 4: (9.0, 59.0, 0.0)})
    out = io.BytesIO()
    Image.new("RGB", size, color).save(out, "JPEG", exif=exif)
    return out.getvalue()
