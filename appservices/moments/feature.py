"""Moments put together: all parts of the service, on its database and its service user."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from appservices.chassis.chosen_languages import LanguageOf
from appservices.chassis.clock import Clock
from appservices.chassis.commands import CommandRouter
from appservices.chassis.database import Database
from appservices.chassis.homeserver import ONCE, MatrixRefused
from appservices.chassis.intents import Profile
from appservices.chassis.links.switchboard import Switchboard
from appservices.chassis.service import Service
from appservices.moments import store
from appservices.moments.across import Across
from appservices.moments.actions import Actions
from appservices.moments.commands import MomentsCommands
from appservices.moments.contacts import ContactBook
from appservices.moments.distribution import Distribution
from appservices.moments.media import HomeserverMedia
from appservices.moments.names import Names
from appservices.moments.pictures import Pictures
from appservices.moments.room import MomentsRoom, welcome_write
from appservices.moments.viewing import Viewing
from appservices.vocabulary.events import CONTACTS_PATH, FUNCTIONAL_MEMBERS, MOMENTS_ROOM_TYPE
from appservices.vocabulary.ids import RoomId, ServerName, UserId, server_of
from appservices.vocabulary.languages import speaking
from appservices.vocabulary.signing import SigningKey


@dataclass(frozen=True, slots=True)
class Moments:
    """What pages and tests reach."""

    service: Service
    contacts: ContactBook
    actions: Actions
    viewing: Viewing
    distribution: Distribution
    pictures: Pictures
    names: Names

    async def user_exists(self, user: UserId) -> bool:
        return await self.service.device.intent.profile(user) is not None

    async def set_cover(self, person: UserId, upload_id: str) -> None:
        """Takes a picture that the person has uploaded as the cover of their page; none, if it is none."""
        async with self.actions.database.begin() as work:
            part = (await store.uploads_of(work, person, [upload_id])).get(upload_id)
            await store.set_author(work, person, cover="" if part is None else json.dumps(part.to_json()))
            await work.apply([store.forget_upload_write(upload_id)])
            await work.commit()

    async def run(self) -> None:
        """Keeps circles right and brings Moments where they belong, until cancelled."""
        await self.service.until_ready()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.contacts.run())
            tasks.create_task(self.distribution.run())


def build_moments(
    service: Service,
    database: Database,
    *,
    signing_key: SigningKey,
    blocked_servers: frozenset[ServerName],
    language_of: LanguageOf,
    clock: Clock,
) -> Moments:
    """Gives the service its commands, rooms, events and links, whose messages the key signs; to be called
    before it starts."""
    own_user = service.identity.user_id
    service_users = frozenset(service.identity.service_users)

    async def ask(method: str, body: Mapping[str, Any] | None, query: Mapping[str, str]) -> Any:
        # Tried once: whoever looks at a page is told at once, and everything else asks again by itself.
        return await service.device.intent.homeserver.call(
            method, CONTACTS_PATH, body, user_id=own_user, parameters=list(query.items()), retries=ONCE
        )

    async def profile_of(user: UserId) -> Profile | None:
        return await service.device.intent.profile(user)

    async def user_exists(user: UserId) -> bool:
        return await profile_of(user) is not None

    async def is_private(room_id: RoomId, person: UserId) -> bool:
        try:
            return (await service.rooms.room(room_id)).only_person == person
        except MatrixRefused:
            return False

    def due() -> None:
        distribution.wake()

    contacts = ContactBook(
        database,
        ask=ask,
        own_server=server_of(own_user),
        service_users=service_users,
        on_change=due,
    )
    names = Names(profile_of)
    pictures = Pictures(database, HomeserverMedia(lambda: service.device.intent))
    viewing = Viewing(database, contacts, clock=clock)
    actions = Actions(database, contacts, clock=clock, on_commit=due)
    across = Across(
        database, contacts, own_user=own_user, clock=clock, on_commit=due, blocked=blocked_servers
    )
    switchboard = Switchboard(
        own_user,
        database=database,
        key=signing_key,
        feature=across,
        intent=lambda: service.device.intent,
        clock=clock,
    )
    across.wake = switchboard.wake
    service.use_links(switchboard)
    distribution = Distribution(
        database,
        contacts,
        viewing,
        names_of=names.name_of,
        is_private=is_private,
        across=across,
        sheet_of=pictures.sheet,
        language_of=language_of,
        clock=clock,
        on_commit=service.outbox.wake,
    )
    room = MomentsRoom(
        actions,
        distribution,
        pictures,
        service_user=own_user,
        subject_of=service.outbox.subject_of,
    )

    async def allowed(room_id: RoomId) -> None:
        """A room of the kind that is for one person alone is their Moments room."""
        members = await service.rooms.room(room_id)
        person = members.only_person
        if person is None or server_of(person) != server_of(own_user):
            return
        create = await service.device.intent.state_event(room_id, "m.room.create") or {}
        if create.get("type") != MOMENTS_ROOM_TYPE:
            return
        if await distribution.owner_of(room_id) == person:
            return
        await open_room(person, room_id)

    async def open_room(person: UserId, room_id: RoomId) -> None:
        await distribution.open_room(person, room_id)
        with speaking(await language_of(person)):
            write = welcome_write(room_id, person, now_ms=clock())
        if await service.outbox.knows(write.parameters["outbox_id"]):
            return
        async with database.begin() as work:
            await work.apply([write])
            work.after_commit(service.outbox.wake)
            await work.commit()

    async def room_for(person: UserId) -> RoomId:
        """The person's Moments room; a new one, to which they are invited, when there is none any more."""
        async with database.read() as work:
            known = await store.room_of(work, person)
        if known is not None and await is_private(known, person):
            return known
        room_id = await service.device.intent.create_room(
            invite=[person],
            preset="trusted_private_chat",
            name="Moments",
            creation_content={"type": MOMENTS_ROOM_TYPE},
            initial_state=[
                {
                    "type": FUNCTIONAL_MEMBERS,
                    "state_key": "",
                    "content": {"service_members": [own_user]},
                }
            ],
        )
        await open_room(person, room_id)
        return room_id

    service.on_event(room.take)
    service.on_read(lambda room_id, _user: distribution.read_in(room_id))
    service.on_allowed(allowed)
    service.use(
        CommandRouter(
            service_user=own_user,
            service_users=service.identity.service_users,
            commands=MomentsCommands(
                contacts, names, user_exists=user_exists, upload=service.upload, room_for=room_for
            ).commands(),
            clock=clock,
        )
    )
    return Moments(service, contacts, actions, viewing, distribution, pictures, names)
