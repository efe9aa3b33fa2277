"""What a link needs from both ends: the service whose items it carries, and the road on which they travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from appservices.chassis.database import Write
from appservices.chassis.links.protocol import Item, StopReason
from appservices.chassis.links.storage import StoredLink
from appservices.vocabulary.ids import UserId


class ItemsRefused(Exception):
    """What came can't be applied and the link must stop; nothing of the message was committed."""

    def __init__(self, reason: StopReason, detail: str) -> None:
        super().__init__(f"{reason.value}: {detail}")
        self.reason = reason
        self.detail = detail


class LinkFeature(Protocol):
    """What a service does with a link."""

    async def allows(self, peer: UserId) -> bool:
        """Whether the operator's policy lets this service and that one talk."""
        ...

    async def apply(self, peer: UserId, items: Sequence[Item], received: Sequence[Write]) -> None:
        """Commits the items' effects and `received` in one transaction. Raises ItemsRefused."""
        ...

    async def stopped(self, peer: UserId, reason: StopReason, detail: str) -> Sequence[Write]:
        """What operators are to be told, committed with the stop."""
        ...

    async def mended(self, peer: UserId) -> Sequence[Write]:
        """What is to be asked or said first on a link that begins anew."""
        ...


class Road(Protocol):
    """How events of one link travel. Raises MatrixUnavailable and MatrixRefused."""

    async def is_open(self, link: StoredLink) -> bool:
        """Whether the peer is there to hear us; does what can be done to get it there."""
        ...

    async def send(self, link: StoredLink, content: Mapping[str, Any], *, transaction_id: str) -> None: ...

    async def peer_keys(self, link: StoredLink) -> Mapping[str, str] | None:
        """The peer's public keys as its homeserver vouches for them now; None when there are none."""
        ...
