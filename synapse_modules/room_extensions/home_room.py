"""Private rooms that every local person has: Home, with the service users in it and Weft's pages pinned on
top, and beside it, where Moments are kept, the Moments room.

Such a room is made as the person's own, so that Element shows its widgets without asking for consent. It is
furnished once, and again when what stands in it has changed in the config; in between it belongs to the
person, who may rename it, unpin a page, or leave it: the next login then makes a new one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from synapse.module_api import EventBase, ModuleApi

from appservices.vocabulary.events import (
    FUNCTIONAL_MEMBERS,
    HOME_ROOM_TYPE,
    MOMENTS_ROOM,
    MOMENTS_ROOM_TYPE,
    WIDGET,
    WIDGET_LAYOUT,
)
from synapse_modules.room_extensions.config import ExtensionsConfig, Widget
from synapse_modules.room_extensions.errands import Errand, TryLater
from synapse_modules.room_extensions.key_power import with_key_power
from synapse_modules.room_extensions.tables import Tables

logger = logging.getLogger(__name__)

HOME_ERRAND: Final = "home"
MOMENTS_ERRAND: Final = "moments_room"
KEEPER_POWER: Final = 100
TOP_WIDGETS_MAX: Final = 3
"""Element pins no more than three widgets above the timeline."""
TOP_HEIGHT_PERCENT: Final = 40

_MEMBER: Final = "m.room.member"
_POWER: Final = "m.room.power_levels"
_CREATE: Final = "m.room.create"

# The table is one of two constants of ours.
_CLAIM: Final = """
    INSERT INTO {table} (user_id, room_id, furnished) VALUES (?, NULL, NULL)
    ON CONFLICT (user_id) DO UPDATE SET room_id = NULL, furnished = NULL
"""
_FOUND: Final = "SELECT room_id, furnished FROM {table} WHERE user_id = ?"
_MADE: Final = "UPDATE {table} SET room_id = ? WHERE user_id = ?"
_FURNISHED: Final = "UPDATE {table} SET furnished = ? WHERE user_id = ?"
_OWN_ROOMS: Final = """
    SELECT r.room_id FROM local_current_membership m JOIN rooms r ON r.room_id = m.room_id
    WHERE m.user_id = ? AND m.membership = 'join' AND r.creator = ?
"""

State = Mapping[tuple[str, str], EventBase]


@dataclass(frozen=True, slots=True)
class RoomPlan:
    """One kind of room that every person has. The first member keeps it, with the power of its owner."""

    name: str
    room_type: str
    account_data: str
    """The account data that names the room to its owner's clients."""
    table: str
    members: tuple[str, ...]
    widgets: tuple[Widget, ...]
    is_made_again: bool
    """Whether who has left it gets a new one at the next login."""


def home_plan(config: ExtensionsConfig) -> RoomPlan:
    return RoomPlan(
        name="Home",
        room_type=HOME_ROOM_TYPE,
        account_data=HOME_ROOM_TYPE,
        table="weft_home_rooms",
        members=(config.home_user, *config.home_members),
        widgets=config.widgets,
        is_made_again=True,
    )


def moments_plan(config: ExtensionsConfig) -> RoomPlan | None:
    """None where there are no Moments."""
    if config.moments_user is None:
        return None
    return RoomPlan(
        name="Moments",
        room_type=MOMENTS_ROOM_TYPE,
        account_data=MOMENTS_ROOM,
        table="weft_moments_rooms",
        members=(config.moments_user,),
        widgets=config.moments_widgets,
        is_made_again=False,
    )


class PersonalRooms:
    """Performs the errand that a registration or a login records, for rooms of one kind."""

    def __init__(self, api: ModuleApi, config: ExtensionsConfig, tables: Tables, plan: RoomPlan) -> None:
        self._api = api
        self._config = config
        self._tables = tables
        self._kind = plan
        self._members = plan.members
        self._plan = furniture(plan)

    async def do(self, errand: Errand) -> None:
        """Lane: the user. Makes the room if there is none, and furnishes it if its furniture is out of date.
        Waits for the service users; guests, service users and deactivated users get none."""
        user_id = errand.lane
        if not await self.is_person(user_id):
            return
        for member in self._members:
            if await self._api.check_user_exists(member) is None:
                raise TryLater(f"{member} isn't registered yet")
        rows = await self._tables.rows(self._sql(_FOUND), (user_id,))
        room_id, furnished = rows[0] if rows else (None, None)
        if room_id is not None and await self._membership(room_id, user_id) != "join":
            if not self._kind.is_made_again:
                return
            room_id = None
        if room_id is None:
            furnished = None
            room_id = await self._make(user_id, claimed_before=bool(rows) and rows[0][0] is None)
        if furnished != self._plan:
            await self._furnish(room_id, user_id, before=furnished)
            await self._tables.execute(self._sql(_FURNISHED), (self._plan, user_id))
        account, named = self._api.account_data_manager, {"room_id": room_id}
        if await account.get_global(user_id, self._kind.account_data) != named:
            await account.put_global(user_id, self._kind.account_data, named)

    async def is_person(self, user_id: str) -> bool:
        """Whether this is a local account of a human who may use it now."""
        user = await self._api.get_userinfo_by_id(user_id)
        return (
            user is not None
            and user_id not in self._config.service_users
            and user.appservice_id is None
            and user.user_type is None
            and not user.is_guest
            and not user.is_deactivated
            and not user.locked
            and not user.suspended
        )

    async def _make(self, user_id: str, *, claimed_before: bool) -> str:
        """Claims, creates, records. A claim without a room means a crash between creating and recording, so
        the room is looked for first."""
        room_id = await self._find(user_id) if claimed_before else None
        if room_id is None:
            await self._tables.execute(self._sql(_CLAIM), (user_id,))
            room_id, _ = await self._api.create_room(
                user_id,
                {
                    "preset": "private_chat",
                    "name": self._kind.name,
                    "creation_content": {"type": self._kind.room_type},
                    "invite": list(self._members),
                    "initial_state": [
                        _state_event("m.room.guest_access", {"guest_access": "forbidden"}),
                        _state_event(FUNCTIONAL_MEMBERS, {"service_members": list(self._members)}),
                    ],
                },
                ratelimit=False,
            )
        await self._tables.execute(self._sql(_MADE), (room_id, user_id))
        return room_id

    async def _find(self, user_id: str) -> str | None:
        """A room of this kind that the user made and is in. One that a crash left without its first state is
        of no use to anybody: the user leaves it."""
        found = None
        for (room_id,) in await self._tables.rows(_OWN_ROOMS, (user_id, user_id)):
            state = await self._api.get_room_state(room_id, [(_CREATE, ""), (_POWER, "")])
            create = state.get((_CREATE, ""))
            if create is None or create.content.get("type") != self._kind.room_type:
                continue
            if (_POWER, "") in state:
                found = room_id
            else:
                await self._api.update_room_membership(user_id, user_id, room_id, "leave")
        return found

    async def _furnish(self, room_id: str, user_id: str, *, before: str | None) -> None:
        """Brings in members and pages; takes away the pages that were there before and are no longer."""
        state = await self._api.get_room_state(
            room_id, [(_MEMBER, None), (_POWER, ""), (FUNCTIONAL_MEMBERS, ""), (WIDGET, None)]
        )
        if before is None:
            await self._empower(room_id, user_id, state)
        for member in self._members:
            event = state.get((_MEMBER, member))
            membership = None if event is None else event.content.get("membership")
            if membership not in ("invite", "join"):
                await self._api.update_room_membership(user_id, member, room_id, "invite")
            if membership != "join":
                await self._api.update_room_membership(member, member, room_id, "join")
        wanted = {widget.widget_id: widget for widget in self._kind.widgets}
        for widget_id in _placed(before) - wanted.keys():
            await self._send_state(room_id, user_id, WIDGET, {}, state_key=widget_id)
        for widget in wanted.values():
            content = widget_content(widget, room_id=room_id, user_id=user_id)
            await self._send_state(room_id, user_id, WIDGET, content, state_key=widget.widget_id)
        await self._send_state(room_id, user_id, WIDGET_LAYOUT, layout(self._kind.widgets))
        await self._list(room_id, user_id, state)

    async def _empower(self, room_id: str, user_id: str, state: State) -> None:
        """From room version 12 on the creator is above all levels and may not be listed; before, the preset
        has listed them. So the level of the keeper is added to what is there."""
        before = dict(state[(_POWER, "")].content)
        users = {**before.get("users", {}), self._members[0]: KEEPER_POWER}
        levels = {**before, "users": users}
        levels = with_key_power(levels) or levels
        if levels != before:
            await self._send_state(room_id, user_id, _POWER, levels)

    async def _list(self, room_id: str, user_id: str, state: State) -> None:
        event = state.get((FUNCTIONAL_MEMBERS, ""))
        content = {} if event is None else dict(event.content)
        listed = content.get("service_members", [])
        listed = list(listed) if isinstance(listed, list | tuple) else []
        missing = [member for member in self._members if member not in listed]
        if missing:
            content["service_members"] = listed + missing
            await self._send_state(room_id, user_id, FUNCTIONAL_MEMBERS, content)

    def _sql(self, statement: str) -> str:
        return statement.format(table=self._kind.table)

    async def _membership(self, room_id: str, user_id: str) -> str | None:
        state = await self._api.get_room_state(room_id, [(_MEMBER, user_id)])
        event = state.get((_MEMBER, user_id))
        membership: str | None = None if event is None else event.content.get("membership")
        return membership

    async def _send_state(
        self, room_id: str, user_id: str, event_type: str, content: Mapping[str, Any], *, state_key: str = ""
    ) -> None:
        await self._api.create_and_send_event_into_room(
            _state_event(event_type, content, state_key=state_key) | {"room_id": room_id, "sender": user_id}
        )


def furniture(plan: RoomPlan) -> str:
    """What stands in such a room, as text: when it differs from what a room was furnished with, the room is
    out of date."""
    widgets = [[widget.widget_id, widget.name, widget.url] for widget in plan.widgets]
    return json.dumps({"members": list(plan.members), "widgets": widgets})


def layout(widgets: tuple[Widget, ...]) -> dict[str, Any]:
    """Element's widget layout: the first few side by side above the timeline, the others at the side."""
    top = widgets[:TOP_WIDGETS_MAX]
    placed: dict[str, Any] = {
        widget.widget_id: {
            "container": "top",
            "index": index,
            "width": 100 // len(top),
            "height": TOP_HEIGHT_PERCENT,
        }
        for index, widget in enumerate(top)
    }
    placed |= {widget.widget_id: {"container": "right"} for widget in widgets[TOP_WIDGETS_MAX:]}
    return {"widgets": placed}


def widget_content(widget: Widget, *, room_id: str, user_id: str) -> dict[str, Any]:
    """The state event of a widget. Element loads it without consent because its creator is the viewer."""
    return {
        "type": "m.custom",
        "id": widget.widget_id,
        "name": widget.name,
        "url": widget.url,
        "creatorUserId": user_id,
        "roomId": room_id,
        "data": {},
    }


def _placed(furnished: str | None) -> set[str]:
    return set() if furnished is None else {widget[0] for widget in json.loads(furnished)["widgets"]}


def _state_event(event_type: str, content: Mapping[str, Any], *, state_key: str = "") -> dict[str, Any]:
    return {"type": event_type, "state_key": state_key, "content": dict(content)}
