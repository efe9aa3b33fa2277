"""Requests to the homeserver on behalf of an application service: bounded, retried, and told apart.

What the homeserver refuses for good is a MatrixRefused at once. What may pass later (no connection, 5xx,
429) is tried again with a jittered, exponential pause, or with the pause that the homeserver asks for, until
a named limit; then it is a MatrixUnavailable. Nothing here knows rooms or events: see intents.py.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from appservices.vocabulary.ids import ServerName, UserId

logger = logging.getLogger(__name__)

JsonObject = dict[str, Any]

REQUESTS_AT_ONCE_MAX: Final = 24
"""How many requests of one service may be under way; long polls don't count."""
ATTEMPTS_MAX: Final = 10
RETRY_SECONDS_MAX: Final = 60.0
"""How long one call may take with all its pauses; whoever needs more (the outbox) calls again later."""
PAUSE_FIRST_SECONDS: Final = 0.2
PAUSE_SECONDS_MAX: Final = 10.0
REQUEST_TIMEOUT_SECONDS: Final = 60.0
CONNECT_TIMEOUT_SECONDS: Final = 10.0
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""The largest answer read: the members of a very large room stay far below it."""

_CLIENT_API: Final = "/_matrix/client/v3"


class MatrixRefused(Exception):
    """The homeserver refused for good: asking again in the same way is no use. `sentence` is for people."""

    def __init__(self, *, status: int, errcode: str, sentence: str) -> None:
        super().__init__(f"{errcode}: {sentence}")
        self.status = status
        self.errcode = errcode
        self.sentence = sentence


class MatrixUnavailable(Exception):
    """The homeserver can't be reached, fails, or asks to wait: the same call may succeed later.

    `retry_after_seconds` is what the homeserver asked for, None when it asked for nothing.
    """

    def __init__(self, sentence: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True)
class Retries:
    """How stubborn a call is. The defaults suit everything but a long poll, which has its own loop."""

    attempts_max: int = ATTEMPTS_MAX
    seconds_max: float = RETRY_SECONDS_MAX
    pause_first_seconds: float = PAUSE_FIRST_SECONDS
    pause_seconds_max: float = PAUSE_SECONDS_MAX


ONCE: Final = Retries(attempts_max=1)


def open_session() -> aiohttp.ClientSession:
    """An HTTP session for any number of services; to be opened in the running loop and closed at the end.

    Its connections aren't bounded: each service bounds its requests itself, long polls come on top.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=60),
        timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_SECONDS, sock_connect=CONNECT_TIMEOUT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class Homeserver:
    """The homeserver as one application service sees it: its as_token and its share of requests."""

    def __init__(
        self,
        url: str,
        *,
        as_token: str,
        server_name: ServerName,
        session: aiohttp.ClientSession,
        requests_at_once_max: int = REQUESTS_AT_ONCE_MAX,
        retries: Retries | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.server_name = server_name
        self.session = session
        self.as_token = as_token
        self._retries = retries or Retries()
        self._places = asyncio.Semaphore(requests_at_once_max)

    def __repr__(self) -> str:
        return f"Homeserver({self.url})"

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        user_id: UserId | None,
        device_id: str | None = None,
        parameters: Mapping[str, str] | Sequence[tuple[str, str]] = (),
        retries: Retries | None = None,
        repeatable: bool = True,
        long_poll_seconds: float = 0,
    ) -> Any:
        """One call of the client-server API as that user and device; the decoded JSON answer.

        `path` begins after `/_matrix/client/v3` unless it begins with `/_`; ids in it are quoted by the
        caller (see `path_of`). A call that isn't `repeatable` is tried again only when the homeserver has
        certainly not acted on it. Raises MatrixRefused and MatrixUnavailable.
        """
        whole = path if path.startswith("/_") else f"{_CLIENT_API}{path}"
        if parameters:
            whole = f"{whole}?{urlencode(parameters)}"
        response = await self.send(
            method,
            whole,
            None if body is None else json.dumps(body, ensure_ascii=False).encode(),
            {"Content-Type": "application/json"},
            user_id=user_id,
            device_id=device_id,
            retries=retries,
            repeatable=repeatable,
            long_poll_seconds=long_poll_seconds,
        )
        return _decoded(await response.read())

    async def send(
        self,
        method: str,
        path: str,
        data: bytes | str | None,
        headers: Mapping[str, str] | None,
        *,
        user_id: UserId | None,
        device_id: str | None = None,
        retries: Retries | None = None,
        repeatable: bool = True,
        long_poll_seconds: float = 0,
    ) -> aiohttp.ClientResponse:
        """The transport below `call` and below nio's client: path and query as they are sent.

        The response has status 200 to 299 and its body has been read. MSC4326: `user_id` and `device_id` in
        the query say as whom the service acts.
        """
        acting = [
            (name, value)
            for name, value in (("user_id", user_id), ("device_id", device_id))
            if value is not None
        ]
        if acting:
            path = f"{path}{'&' if '?' in path else '?'}{urlencode(acting)}"
        url = URL(self.url + path, encoded=True)
        all_headers = {**(headers or {}), "Authorization": f"Bearer {self.as_token}"}
        timeout = aiohttp.ClientTimeout(
            total=REQUEST_TIMEOUT_SECONDS + long_poll_seconds, sock_connect=CONNECT_TIMEOUT_SECONDS
        )
        rules = retries or self._retries
        began = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            try:
                if long_poll_seconds:
                    return await self._attempt(method, url, data, all_headers, timeout)
                async with self._places:
                    return await self._attempt(method, url, data, all_headers, timeout)
            except _Failed as failed:
                if not (repeatable or failed.surely_not_done):
                    raise MatrixUnavailable(
                        f"{failed.sentence}; whether {method} {path.split('?')[0]} was done is unknown"
                    ) from failed
                pause = failed.retry_after_seconds
                if pause is None:
                    pause = min(
                        rules.pause_seconds_max, rules.pause_first_seconds * 2.0 ** min(attempt - 1, 20)
                    )
                    # Half of the pause is random, so that many waiting calls don't come back at once.
                    pause *= random.uniform(0.5, 1)
                if attempt >= rules.attempts_max or time.monotonic() - began + pause > rules.seconds_max:
                    raise MatrixUnavailable(
                        failed.sentence, retry_after_seconds=failed.retry_after_seconds
                    ) from failed
                logger.info("%s; trying again in %.1f s", failed.sentence, pause)
                await asyncio.sleep(pause)

    async def _attempt(
        self,
        method: str,
        url: URL,
        data: bytes | str | None,
        headers: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        try:
            response = await self.session.request(
                method, url, data=data, headers=headers, timeout=timeout, allow_redirects=False
            )
            await _read_bounded(response)
        except aiohttp.ClientConnectorError as error:
            raise _Failed(f"no connection to the homeserver at {self.url}", surely_not_done=True) from error
        except TimeoutError as error:
            raise _Failed(f"the homeserver at {self.url} did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise _Failed(f"the homeserver at {self.url} broke off: {error}") from error
        if 200 <= response.status < 300:
            return response
        answer = _error_body(await response.read())
        errcode = str(answer.get("errcode", "M_UNKNOWN"))
        if response.status == 429 or errcode == "M_LIMIT_EXCEEDED":
            raise _Failed(
                f"the homeserver at {self.url} asks to wait",
                retry_after_seconds=_asked_pause(response.headers.get("Retry-After"), answer),
                surely_not_done=True,
            )
        if response.status >= 500 or response.status == 408:
            raise _Failed(
                f"the homeserver at {self.url} failed with status {response.status}",
                retry_after_seconds=_asked_pause(response.headers.get("Retry-After"), {}),
            )
        raise _refusal(response.status, errcode, str(answer.get("error", response.reason)))


def _refusal(status: int, errcode: str, error: str) -> MatrixRefused | MatrixUnavailable:
    """What an answer of status 400 to 499 means. A registration that Synapse hasn't loaded is the operator's
    to mend, and no reason to give up what is to be sent; waiting for it is the caller's concern."""
    if errcode == "M_UNKNOWN_TOKEN":
        return MatrixUnavailable(
            "the homeserver doesn't know this service's as_token: list the registration file in "
            "app_service_config_files of homeserver.yaml, as it is now, and restart Synapse"
        )
    if errcode == "M_FORBIDDEN" and ("cannot masquerade" in error or "has not registered this user" in error):
        return MatrixUnavailable(
            f"{error}: restart Synapse with the present registration file, then Weft, to register the user"
        )
    return MatrixRefused(status=status, errcode=errcode, sentence=error)


class _Failed(Exception):
    """One attempt failed in a way that may pass."""

    def __init__(
        self, sentence: str, *, retry_after_seconds: float | None = None, surely_not_done: bool = False
    ) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.retry_after_seconds = retry_after_seconds
        self.surely_not_done = surely_not_done


def path_of(*parts: str) -> str:
    """A path of the client-server API from its parts, each percent-encoded whole."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


async def _read_bounded(response: aiohttp.ClientResponse) -> None:
    # Not `async with`: leaving it would make aiohttp refuse the body to nio, which reads it again.
    length = response.content_length
    if length is not None and length > ANSWER_BYTES_MAX:
        response.close()
        raise aiohttp.ClientPayloadError(f"an answer of {length} bytes is more than Weft reads")
    await response.read()


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body or b"{}")
    except ValueError as error:
        raise MatrixUnavailable(
            "the homeserver's answer is not JSON: does its URL lead to Synapse?"
        ) from error


def _error_body(body: bytes) -> JsonObject:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _asked_pause(header: str | None, answer: Mapping[str, Any]) -> float | None:
    """Seconds, the longer of `Retry-After` (a number or a date) and `retry_after_ms`; None without either."""
    asked = []
    if header is not None:
        if header.strip().isdigit():
            asked.append(float(header))
        else:
            try:
                asked.append(email.utils.parsedate_to_datetime(header).timestamp() - time.time())
            except ValueError:
                logger.warning("a Retry-After header that can't be read: %r", header)
    milliseconds = answer.get("retry_after_ms")
    if isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool):
        asked.append(milliseconds / 1000)
    return max(0.0, *asked) if asked else None
