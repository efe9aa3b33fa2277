"""How people are called: as they call themselves, or by their id where that can't be looked up quickly."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from appservices.chassis.homeserver import MatrixRefused, MatrixUnavailable
from appservices.chassis.intents import Profile
from appservices.chassis.messages import shown_name
from appservices.vocabulary.ids import UserId

KEPT_SECONDS: Final = 300.0
KEPT_MAX: Final = 20_000
LOOK_UP_SECONDS_MAX: Final = 3.0
"""Another homeserver that does not answer holds nobody up."""
AT_ONCE_MAX: Final = 8

ProfileOf = Callable[[UserId], Awaitable[Profile | None]]


class Names:
    """Looks up display names, and keeps them for a while."""

    def __init__(self, profile_of: ProfileOf) -> None:
        self._profile_of = profile_of
        self._kept: OrderedDict[UserId, tuple[float, str | None]] = OrderedDict()
        self._places = asyncio.Semaphore(AT_ONCE_MAX)

    async def of(self, people: Iterable[UserId]) -> Mapping[UserId, str]:
        """What each is called, in a form that a sentence may show."""
        wanted = list(dict.fromkeys(people))
        found = await asyncio.gather(*(self._display_name(person) for person in wanted))
        return {person: shown_name(person, name) for person, name in zip(wanted, found, strict=True)}

    async def name_of(self, people: Iterable[UserId]) -> Callable[[UserId], str]:
        """The same, to be asked one by one."""
        names = await self.of(people)
        return lambda person: names.get(person, person)

    async def _display_name(self, person: UserId) -> str | None:
        kept = self._kept.get(person)
        now = time.monotonic()
        if kept is not None and now < kept[0]:
            return kept[1]
        try:
            async with self._places, asyncio.timeout(LOOK_UP_SECONDS_MAX):
                profile = await self._profile_of(person)
            name = None if profile is None else profile.display_name
        except (TimeoutError, MatrixRefused, MatrixUnavailable):
            name = None if kept is None else kept[1]
        self._kept[person] = (now + KEPT_SECONDS, name)
        self._kept.move_to_end(person)
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return name
