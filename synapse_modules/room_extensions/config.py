"""The module's section of homeserver.yaml, checked strictly: a mistake is one sentence at start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from appservices.vocabulary.ids import UserId, is_user_id

WIDGETS_MAX: Final = 20
URL_LENGTH_MAX: Final = 2000

_EXTENSION_PREFIX: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_WIDGET_ID: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_WIDGET_KEYS: Final = ("id", "name", "url")
SETTINGS: Final = (
    "home_user",
    "services",
    "home_members",
    "widgets",
    "moments_user",
    "moments_widgets",
)


class SettingInvalid(ValueError):
    """A setting can't be used; the message is one sentence that names it."""


@dataclass(frozen=True, slots=True)
class Widget:
    """A page pinned in every Home room; `widget_id` is its state key."""

    widget_id: str
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class ExtensionsConfig:
    """Who the service users are, and what stands in the Home rooms."""

    home_user: UserId
    services: Mapping[str, UserId] = field(default_factory=lambda: MappingProxyType({}))
    """Extension id, up to its first `:`, → the service user who joins."""
    home_members: tuple[UserId, ...] = ()
    """Service users in every Home room besides `home_user`."""
    widgets: tuple[Widget, ...] = ()
    moments_user: UserId | None = None
    """The service user of the Moments rooms; None where there are none."""
    moments_widgets: tuple[Widget, ...] = ()

    @property
    def service_users(self) -> frozenset[UserId]:
        """Everyone here who may send what only services may send."""
        moments = () if self.moments_user is None else (self.moments_user,)
        return frozenset({self.home_user, *self.services.values(), *self.home_members, *moments})

    def service_of(self, extension_id: str) -> UserId | None:
        """The service of `payments` or `mini_app:<instance>`; None when there is none."""
        return self.services.get(extension_id.split(":", 1)[0])


def read_config(raw: object) -> ExtensionsConfig:
    """Raises SettingInvalid for an unknown key, a missing one, or a value of the wrong shape."""
    section = _mapping(raw, "config", known=SETTINGS)
    if "home_user" not in section:
        raise SettingInvalid("home_user is missing: it names the service user of the Home rooms.")
    home_user = _user(section["home_user"], "home_user")
    members = tuple(
        _user(item, f"home_members[{index}]")
        for index, item in enumerate(_list(section.get("home_members", []), "home_members"))
    )
    if len({home_user, *members}) != len(members) + 1:
        raise SettingInvalid("home_members names a user twice, or names home_user, who is there anyway.")
    moments_user = _user(section["moments_user"], "moments_user") if "moments_user" in section else None
    if moments_user is None and "moments_widgets" in section:
        raise SettingInvalid("moments_widgets needs moments_user, whose rooms they stand in.")
    return ExtensionsConfig(
        home_user=home_user,
        services=MappingProxyType(_services(section.get("services", {}))),
        home_members=members,
        widgets=_widgets(section, "widgets"),
        moments_user=moments_user,
        moments_widgets=_widgets(section, "moments_widgets"),
    )


def _widgets(section: Mapping[Any, Any], key: str) -> tuple[Widget, ...]:
    widgets = tuple(
        _widget(item, f"{key}[{index}]") for index, item in enumerate(_list(section.get(key, []), key))
    )
    if len(widgets) > WIDGETS_MAX:
        raise SettingInvalid(f"{key} has more than {WIDGETS_MAX} entries.")
    if len({widget.widget_id for widget in widgets}) != len(widgets):
        raise SettingInvalid(f"{key} has two entries with the same id.")
    return widgets


def _services(raw: object) -> dict[str, UserId]:
    services = {}
    for extension, user in _mapping(raw, "services").items():
        if not isinstance(extension, str) or not _EXTENSION_PREFIX.fullmatch(extension):
            raise SettingInvalid(
                f"services: {extension!r} is not an extension id; one is lower-case letters, digits and _."
            )
        services[extension] = _user(user, f"services.{extension}")
    return services


def _widget(raw: object, place: str) -> Widget:
    section = _mapping(raw, place, known=_WIDGET_KEYS)
    for key in _WIDGET_KEYS:
        if not isinstance(section.get(key), str) or not section[key]:
            raise SettingInvalid(f"{place}.{key} must be a text.")
    if not _WIDGET_ID.fullmatch(section["id"]):
        raise SettingInvalid(f"{place}.id must be up to 100 letters, digits, and any of _ . -")
    url = section["url"]
    if not url.startswith(("https://", "http://")) or len(url) > URL_LENGTH_MAX or " " in url:
        raise SettingInvalid(f"{place}.url must be a web address that begins with https:// or http://.")
    return Widget(widget_id=section["id"], name=section["name"], url=url)


def _mapping(raw: object, place: str, *, known: tuple[str, ...] | None = None) -> Mapping[Any, Any]:
    if not isinstance(raw, Mapping):
        raise SettingInvalid(f"{place} must be a mapping.")
    for key in raw:
        if known is not None and key not in known:
            inside = "" if place == "config" else f"{place}: "
            raise SettingInvalid(f"{inside}{key!r} is not a setting; there are {', '.join(known)}.")
    return raw


def _list(raw: object, place: str) -> list[Any]:
    if not isinstance(raw, list):
        raise SettingInvalid(f"{place} must be a list.")
    return raw


def _user(raw: object, place: str) -> UserId:
    if not isinstance(raw, str) or not is_user_id(raw):
        raise SettingInvalid(f"{place} must be a full user id such as @wallet:example.org.")
    return UserId(raw)
