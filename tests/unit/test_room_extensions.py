"""The pure parts of the Synapse module: its config, its guard, its furniture, its patience."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from appservices.vocabulary.events import EXTENSION, HOME_ROOM_TYPE, KEYS, LINK, RECEIPT, SERVICE_ONLY_BLOCKS
from appservices.vocabulary.ids import UserId
from synapse_modules.room_extensions.bring_in import content_mark
from synapse_modules.room_extensions.config import (
    SETTINGS,
    ExtensionsConfig,
    SettingInvalid,
    Widget,
    read_config,
)
from synapse_modules.room_extensions.errands import AGE_SECONDS_MAX, PAUSE_SECONDS_MAX, pause_after
from synapse_modules.room_extensions.guard import Guard
from synapse_modules.room_extensions.home_room import furniture, home_plan, layout

PROJECT_ROOT = Path(__file__).parents[2]
ALICE = "@alice:example.org"
WEFT = UserId("@weft:example.org")
WALLET = UserId("@wallet:example.org")
CONFIG = ExtensionsConfig(home_user=WEFT, services={"payments": WALLET}, home_members=(WALLET,))
SECTION: dict[str, Any] = {
    "home_user": WEFT,
    "services": {"payments": WALLET},
    "home_members": [WALLET],
    "widgets": [{"id": "weft_wallet", "name": "Wallet", "url": "https://weft.example.org/wallet"}],
}


def test_a_whole_section_is_read() -> None:
    config = read_config(SECTION)
    assert config.service_users == {WEFT, WALLET}
    assert config.service_of("payments") == config.service_of("payments:second") == WALLET
    assert config.service_of("mini_app:x") is None
    assert config.widgets == (Widget("weft_wallet", "Wallet", "https://weft.example.org/wallet"),)


def test_a_home_user_is_enough() -> None:
    assert read_config({"home_user": WEFT}) == ExtensionsConfig(home_user=WEFT)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ([], "config must be a mapping."),
        ({}, "home_user is missing"),
        (SECTION | {"homeuser": 1}, "'homeuser' is not a setting; there are home_user, services"),
        (SECTION | {"home_user": "weft"}, "home_user must be a full user id"),
        (SECTION | {"home_user": 5}, "home_user must be a full user id"),
        (SECTION | {"services": []}, "services must be a mapping."),
        (SECTION | {"services": {"payments": "wallet"}}, "services.payments must be a full user id"),
        (SECTION | {"services": {"pay:ments": WALLET}}, "'pay:ments' is not an extension id"),
        (SECTION | {"services": {5: WALLET}}, "5 is not an extension id"),
        (SECTION | {"home_members": WALLET}, "home_members must be a list."),
        (SECTION | {"home_members": [WALLET, WALLET]}, "names a user twice"),
        (SECTION | {"home_members": [WEFT]}, "names home_user"),
        (SECTION | {"widgets": [{"id": "a", "name": "A"}]}, "widgets[0].url must be a text."),
        (
            SECTION | {"widgets": [{"id": "a", "name": "A", "url": "javascript:1"}]},
            "widgets[0].url must be a web address",
        ),
        (SECTION | {"widgets": [{"id": "a b", "name": "A", "url": "https://a"}]}, "widgets[0].id must be"),
        (
            SECTION | {"widgets": [{"id": "a", "name": "A", "url": "https://a", "icon": "x"}]},
            "widgets[0]: 'icon' is not a setting",
        ),
        (SECTION | {"widgets": SECTION["widgets"] * 2}, "two entries with the same id"),
    ],
)
def test_a_mistake_in_the_section_is_one_sentence(section: object, words: str) -> None:
    with pytest.raises(SettingInvalid) as invalid:
        read_config(section)
    assert words in str(invalid.value)
    assert "\n" not in str(invalid.value)


@pytest.mark.parametrize("block", SERVICE_ONLY_BLOCKS)
def test_a_block_is_found_wherever_a_client_would_look_for_it(block: str) -> None:
    guard = Guard(CONFIG)
    claims: list[tuple[str, dict[str, Any]]] = [
        ("m.room.message", {block: {}}),
        ("m.room.message", {block: None}),
        ("m.room.message", {"m.new_content": {block: {}}}),
        ("m.room.encrypted", {block: {}}),
        (block, {}),
    ]
    for event_type, content in claims:
        for state_key in (None, "", ALICE):
            refusal = guard.judge_event(
                sender=ALICE, event_type=event_type, state_key=state_key, content=content
            )
            assert refusal is not None and (refusal.status, refusal.errcode) == (403, "M_FORBIDDEN")
            assert not guard.judge_event(
                sender=WALLET, event_type=event_type, state_key=state_key, content=content
            )


@pytest.mark.parametrize("content", [{}, {"body": RECEIPT}, {"m.new_content": RECEIPT}, {"m.new_content": 5}])
def test_ordinary_messages_pass(content: dict[str, Any]) -> None:
    assert not Guard(CONFIG).judge_event(
        sender=ALICE, event_type="m.room.message", state_key=None, content=content
    )


@pytest.mark.parametrize(
    ("sender", "state_key", "passes"),
    [(WALLET, WALLET, True), (WALLET, WEFT, False), (ALICE, WALLET, False), (ALICE, ALICE, False)],
)
def test_keys_pass_from_the_service_they_belong_to(sender: str, state_key: str, passes: bool) -> None:
    refusal = Guard(CONFIG).judge_event(sender=sender, event_type=KEYS, state_key=state_key, content={})
    assert (refusal is None) is passes


def test_an_extension_is_judged_as_state_alone() -> None:
    guard = Guard(CONFIG)
    assert guard.judge_event(sender=ALICE, event_type=EXTENSION, state_key="payments", content={})
    assert not guard.judge_event(sender=ALICE, event_type=EXTENSION, state_key=None, content={})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"initial_state": None},
        {"initial_state": [None, {}, {"type": 5}, {"type": EXTENSION, "state_key": 5}]},
        {"initial_state": [{"type": EXTENSION, "state_key": "payments", "content": "x"}]},
        {"creation_content": []},
        {"creation_content": {"type": [LINK]}},
    ],
)
def test_malformed_room_options_are_left_to_synapse(options: dict[str, Any]) -> None:
    guard = Guard(CONFIG)
    assert guard.judge_room(creator=ALICE, options=options) is None
    assert guard.services_wanted(options) == []


@pytest.mark.parametrize(
    ("creator", "room_type", "passes"),
    [(ALICE, LINK, False), (WALLET, LINK, True), (ALICE, "m.space", True), (ALICE, HOME_ROOM_TYPE, True)],
)
def test_a_room_of_a_services_own_type_is_made_by_services_alone(
    creator: str, room_type: str, passes: bool
) -> None:
    options = {"creation_content": {"type": room_type}}
    refusal = Guard(CONFIG).judge_room(creator=creator, options=options)
    assert (refusal is None) is passes
    if refusal is not None:
        assert (refusal.status, refusal.errcode) == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    "other",
    [{"enabled": False}, {"enabled": True, "settings": {}}, {"enabled": True, "settings": {"a": [1, 3]}}],
)
def test_equal_contents_have_one_mark_and_others_another(other: dict[str, Any]) -> None:
    plain = {"enabled": True, "settings": {"a": [1, 2]}}
    frozen = MappingProxyType({"settings": MappingProxyType({"a": (1, 2)}), "enabled": True})
    assert content_mark(plain) == content_mark(frozen) != content_mark(other)


def test_a_room_wants_the_service_of_each_enabled_extension_once() -> None:
    options = {
        "initial_state": [
            {"type": EXTENSION, "state_key": "payments", "content": {"enabled": True}},
            {"type": EXTENSION, "state_key": "payments:second", "content": {"enabled": True}},
            {"type": EXTENSION, "state_key": "payments:third", "content": {"enabled": False}},
        ]
    }
    assert Guard(CONFIG).services_wanted(options) == [WALLET]


def test_the_first_pages_share_the_top_and_the_others_stand_aside() -> None:
    widgets = tuple(Widget(f"page{number}", "Page", "https://a") for number in range(5))
    assert layout(()) == {"widgets": {}}
    assert layout(widgets[:1])["widgets"]["page0"] == {
        "container": "top",
        "index": 0,
        "width": 100,
        "height": 40,
    }
    placed = layout(widgets)["widgets"]
    assert [place["container"] for place in placed.values()] == ["top"] * 3 + ["right"] * 2
    assert sum(place.get("width", 0) for place in placed.values()) <= 100


def test_furniture_differs_when_a_page_or_a_member_does() -> None:
    widget = Widget("weft_wallet", "Wallet", "https://a")
    variants = [
        ExtensionsConfig(home_user=WEFT),
        ExtensionsConfig(home_user=WEFT, home_members=(WALLET,)),
        ExtensionsConfig(home_user=WEFT, widgets=(widget,)),
        ExtensionsConfig(home_user=WEFT, widgets=(Widget("weft_wallet", "Wallet", "https://b"),)),
    ]
    for one, other in itertools.combinations(variants, 2):
        assert furniture(home_plan(one)) != furniture(home_plan(other))


def test_an_errand_is_tried_often_at_first_and_seldom_later() -> None:
    age_seconds, tries_in_first_minute, tries = 0.0, 0, 0
    while age_seconds < AGE_SECONDS_MAX:
        tries += 1
        tries_in_first_minute += age_seconds < 60
        pause_seconds = pause_after(age_seconds)
        assert 0 < pause_seconds <= PAUSE_SECONDS_MAX
        age_seconds += pause_seconds
    assert tries_in_first_minute < 40
    assert tries < 1200


def test_the_documented_section_is_accepted() -> None:
    page = (PROJECT_ROOT / "docs/operators/room-extensions.md").read_text(encoding="utf-8")
    sample = yaml.safe_load(page.split("```yaml\n")[1].split("```")[0])
    (module,) = sample["modules"]
    assert module["module"] == "synapse_modules.room_extensions.RoomExtensions"
    config = read_config(module["config"])
    # The sample homeserver.yaml is made from the code.
    written = yaml.safe_load((PROJECT_ROOT / "config/homeserver.sample.yaml").read_text(encoding="utf-8"))
    assert module in written["modules"]
    assert set(module["config"]) == set(SETTINGS)
    assert config.service_of("payments") == WALLET
    for setting in SETTINGS:
        assert f"| `{setting}` |" in page
