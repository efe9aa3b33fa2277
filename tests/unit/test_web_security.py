"""What the browser-facing rules let through and what they refuse."""

from __future__ import annotations

import pytest
from fastapi import Request, Response

from appservices.chassis.config import WebSection
from appservices.chassis.page_words import avatar_color, browser_name, display_name, initial
from appservices.chassis.web_security import (
    Cookies,
    csrf_fits,
    csrf_token,
    from_own_page,
    own_path,
    page_policy,
)


def web(public_url: str) -> WebSection:
    return WebSection.model_validate({"port": 8009, "public_url": public_url})


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {
            "type": "http",
            "method": "POST",
            "scheme": "http",
            "path": "/",
            "query_string": b"",
            "server": ("weft.example", 80),
            "headers": [(b"host", b"weft.example"), *raw],
        }
    )


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "same-origin", "origin": "null"}, True),
        ({"sec_fetch_site": "same-site", "origin": "https://weft.example"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"origin": "https://weft.example"}, True),
        ({"origin": "http://weft.example"}, True),
        ({"origin": "https://weft.example.evil.example"}, False),
        ({"origin": "null"}, False),
        ({}, False),
    ],
)
def test_a_form_is_ours_only_when_the_browser_says_so(headers: dict[str, str], expected: bool) -> None:
    assert from_own_page(request(**headers), web("https://weft.example")) is expected


@pytest.mark.parametrize("path", ["/", "/wallet", "/wallet?before=3", "/signin/link/abc"])
def test_a_path_of_ours_is_kept_for_after_signing_in(path: str) -> None:
    assert own_path(path) == path


@pytest.mark.parametrize(
    "path",
    [
        "",
        "wallet",
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/a\\b",
        "/a\r\nSet-Cookie: x",
        "/ä",
    ],
)
def test_any_other_place_to_go_after_signing_in_becomes_the_start(path: str) -> None:
    assert own_path(path) == "/"


def test_a_csrf_token_belongs_to_its_session_alone() -> None:
    assert csrf_fits("one", csrf_token("one"))
    assert not csrf_fits("one", csrf_token("other"))
    assert not csrf_fits("one", "")
    assert not csrf_fits("one", "\ud800")


def test_cookies_over_https_are_bound_to_host_and_site() -> None:
    cookies = Cookies(web("https://weft.example"))
    response = Response()
    cookies.set(response, name=cookies.session, value="secret", seconds=60)
    header = response.headers["set-cookie"]
    assert header.startswith("__Host-weft_session=secret;")
    assert {"HttpOnly", "Max-Age=60", "Path=/", "SameSite=lax", "Secure"} == {
        part.strip() for part in header.split(";")[1:]
    }


def test_two_homeservers_on_one_machine_have_cookies_of_different_names() -> None:
    one, other = Cookies(web("http://localhost:8009")), Cookies(web("http://localhost:8019"))
    assert one.session != other.session
    response = Response()
    one.set(response, name=one.session, value="secret", seconds=60)
    assert "Secure" not in response.headers["set-cookie"]


def test_a_page_runs_nothing_inline_and_nothing_of_others() -> None:
    policy = page_policy(("'none'",))
    assert "default-src 'none'" in policy and "script-src 'self';" in policy
    assert "unsafe" not in policy and "frame-ancestors 'none'" in policy


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0", "Firefox on Linux"),
        (
            "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36",
            "Chrome on Android",
        ),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1",
            "Safari on iPhone",
        ),
        ("python-httpx/0.28.1", "python-httpx"),
        ("", "An unknown browser"),
    ],
)
def test_a_browser_is_named_as_its_user_knows_it(user_agent: str, name: str) -> None:
    assert browser_name(user_agent) == name


def test_people_are_shown_by_name_letter_and_a_colour_that_stays() -> None:
    assert display_name("@bob:weft.example") == "Bob"
    assert initial("@.:weft.example") == "#"
    assert avatar_color("@bob:weft.example") == avatar_color("@bob:weft.example")
    assert {avatar_color(f"@user{number}:weft.example") for number in range(100)} == set(range(1, 7))
