"""What Weft does when a homeserver fails: against a server that fails on purpose, as Synapse won't."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from aiohttp import web

from appservices.chassis.homeserver import Homeserver, MatrixRefused, MatrixUnavailable, Retries, open_session
from appservices.vocabulary.ids import ServerName
from tests.synapse import free_port

QUICK = Retries(attempts_max=4, pause_first_seconds=0.01, seconds_max=3)


class FailingHomeserver:
    """Gives the answers it was told to give, in order; the last one for ever."""

    def __init__(self, *answers: web.Response | None) -> None:
        self.answers = list(answers)
        self.requests = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers.copy())


@asynccontextmanager
async def failing(*answers: web.Response | None) -> AsyncIterator[tuple[FailingHomeserver, Homeserver]]:
    server = FailingHomeserver(*answers)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        async with open_session() as session:
            yield (
                server,
                Homeserver(
                    f"http://127.0.0.1:{port}",
                    as_token="as-token-for-tests",
                    server_name=ServerName("localhost"),
                    session=session,
                    retries=QUICK,
                ),
            )
    finally:
        await runner.cleanup()


def limited(*, retry_after: str | None = None, milliseconds: int | None = None) -> web.Response:
    body = {"errcode": "M_LIMIT_EXCEEDED", "error": "Too Many Requests"}
    if milliseconds is not None:
        body |= {"retry_after_ms": milliseconds}  # type: ignore[dict-item]
    return web.json_response(
        body, status=429, headers={} if retry_after is None else {"Retry-After": retry_after}
    )


DONE = web.json_response({"ok": True})
GONE = web.json_response({"errcode": "M_NOT_FOUND", "error": "no such thing"}, status=404)


async def test_failures_that_may_pass_are_tried_again() -> None:
    async with failing(web.Response(status=502, body=b"<html>"), None, DONE) as (server, homeserver):
        assert await homeserver.call("PUT", "/x", {}, user_id=None) == {"ok": True}
        assert server.requests == 3


async def test_failures_that_do_not_pass_are_given_up_after_the_limit() -> None:
    async with failing(web.Response(status=500)) as (server, homeserver):
        with pytest.raises(MatrixUnavailable, match="status 500"):
            await homeserver.call("PUT", "/x", {}, user_id=None)
        assert server.requests == QUICK.attempts_max


async def test_a_refusal_is_not_tried_again() -> None:
    async with failing(GONE) as (server, homeserver):
        with pytest.raises(MatrixRefused, match="no such thing"):
            await homeserver.call("GET", "/x", user_id=None)
        assert server.requests == 1


@pytest.mark.parametrize(
    "answer",
    [
        limited(retry_after="1"),
        limited(milliseconds=900),
        limited(retry_after="1", milliseconds=10),
        limited(retry_after="Thu, 01 Jan 1970 00:00:00 GMT", milliseconds=900),
    ],
    ids=["header", "body", "both", "date in the past"],
)
async def test_the_pause_that_the_homeserver_asks_for_is_kept(answer: web.Response) -> None:
    async with failing(answer, DONE) as (server, homeserver):
        began = time.monotonic()
        assert await homeserver.call("PUT", "/x", {}, user_id=None) == {"ok": True}
        assert time.monotonic() - began > 0.85
        assert server.requests == 2


@pytest.mark.parametrize("form", ["seconds", "date"])
async def test_a_pause_longer_than_the_limit_is_left_to_the_caller(form: str) -> None:
    retry_after = "3600" if form == "seconds" else formatdate(time.time() + 3600, usegmt=True)
    async with failing(limited(retry_after=retry_after)) as (server, homeserver):
        with pytest.raises(MatrixUnavailable) as unavailable:
            await homeserver.call("PUT", "/x", {}, user_id=None)
        assert unavailable.value.retry_after_seconds == pytest.approx(3600, abs=30)
        assert server.requests == 1


async def test_a_call_that_must_not_be_done_twice_is_not_repeated_when_it_may_be_done() -> None:
    async with failing(None) as (server, homeserver):
        with pytest.raises(MatrixUnavailable, match="is unknown"):
            await homeserver.call("POST", "/createRoom", {}, user_id=None, repeatable=False)
        assert server.requests == 1
    async with failing(limited(milliseconds=10), DONE) as (server, homeserver):
        assert await homeserver.call("POST", "/createRoom", {}, user_id=None, repeatable=False)
        assert server.requests == 2


async def test_an_answer_that_is_not_json_is_no_answer() -> None:
    async with failing(web.Response(body=b"<html>welcome</html>")) as (_, homeserver):
        with pytest.raises(MatrixUnavailable, match="not JSON"):
            await homeserver.call("GET", "/x", user_id=None)
