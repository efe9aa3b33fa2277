"""One real Synapse process for tests and benchmarks, and users who talk to it over HTTP.

A `Synapse` picks its folder, ports and server name first, so that registrations can be written for it, and
is then started, stopped, killed and started again on the same data. It never touches a process that it did
not start. Waiting is by deadline.

    with Synapse(folder) as synapse:
        synapse.start({"modules": [...]})
        alice = await synapse.register("alice")
        room_id = await alice.create_room(name="Tea")
        await alice.send(room_id, {"msgtype": "m.text", "body": "hello"})
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote
from weakref import WeakKeyDictionary

import httpx
import yaml

from tests.certificates import LocalAuthority

JsonObject = dict[str, Any]
Found = TypeVar("Found")

PROJECT_ROOT: Final = Path(__file__).resolve().parent.parent
START_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 15.0
WAIT_SECONDS_MAX: Final = 60.0
"""Long enough for a machine that does much else: only what never comes about takes it."""
POLL_SECONDS: Final = 0.05
_PORTS: Final = range(10_000, 32_768, 2)
"""Below those that Linux gives to connections and to whoever asks for any port; the one after each is left to
whoever needs two in a row."""
_ports_given: set[int] = set()

PASSWORD: Final = "correct horse battery staple"
SHARED_SECRET: Final = "for tests only"

_UNLIMITED: Final = {"per_second": 100_000, "burst_count": 100_000}
_NO_RATE_LIMITS: Final[JsonObject] = {
    "rc_message": _UNLIMITED,
    "rc_registration": _UNLIMITED,
    "rc_registration_token_validity": _UNLIMITED,
    "rc_login": {"address": _UNLIMITED, "account": _UNLIMITED, "failed_attempts": _UNLIMITED},
    "rc_joins": {"local": _UNLIMITED, "remote": _UNLIMITED},
    "rc_joins_per_room": _UNLIMITED,
    "rc_invites": {"per_room": _UNLIMITED, "per_user": _UNLIMITED, "per_issuer": _UNLIMITED},
    "rc_room_creation": _UNLIMITED,
    "rc_presence": {"per_user": _UNLIMITED},
    "rc_user_directory": _UNLIMITED,
    "rc_media_create": _UNLIMITED,
    "rc_profile": _UNLIMITED,
    "rc_reports": _UNLIMITED,
    "rc_delayed_event_mgmt": _UNLIMITED,
    "rc_federation": {
        "window_size": 1000,
        "sleep_limit": 100_000,
        "sleep_delay": 1,
        "reject_limit": 100_000,
        "concurrent": 100,
    },
    "federation_rr_transactions_per_room_per_second": 1000,
}


class MatrixRefused(Exception):
    """The homeserver answered with an error."""

    def __init__(self, status: int, errcode: str, error: str) -> None:
        super().__init__(f"{status} {errcode}: {error}")
        self.status = status
        self.errcode = errcode
        self.error = error


class Synapse:
    """A homeserver of its own in one folder: SQLite, free ports, no rate limits, open registration.

    With a LocalAuthority it federates by TLS and its server name is `localhost:<federation port>`; other
    homeservers of the same authority reach it. Without one it is `localhost` and federates with nobody.
    """

    def __init__(self, folder: Path, *, authority: LocalAuthority | None = None) -> None:
        self.folder = folder
        self.port = free_port()
        self.federation_port = free_port() if authority is not None else None
        self.server_name = "localhost" if authority is None else f"localhost:{self.federation_port}"
        self.url = f"http://127.0.0.1:{self.port}"
        self._authority = authority
        self._config: Mapping[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()
        folder.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The running process; raises RuntimeError when it doesn't run."""
        if self._process is None:
            raise RuntimeError("this Synapse isn't running")
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything that was logged so far."""
        path = self.folder / "homeserver.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self, config: Mapping[str, Any] | None = None) -> None:
        """Starts it and returns when it answers; config is merged over homeserver.yaml's top level.

        Without config the one of the last start is used. Raises RuntimeError with the end of its output when
        it dies or doesn't answer in time.
        """
        if config is not None:
            self._config = config
        path = self.folder / "homeserver.yaml"
        path.write_text(yaml.safe_dump(self._homeserver_config() | dict(self._config), sort_keys=False))
        (self.folder / "log.yaml").write_text(yaml.safe_dump(_log_config(self.folder / "homeserver.log")))
        environment = os.environ | {"PYTHONPATH": str(PROJECT_ROOT)}
        command = [sys.executable, "-m", "synapse.app.homeserver", "-c", str(path)]
        if not (self.folder / "signing.key").exists():
            subprocess.run(
                [*command, "--generate-keys"],
                check=True,
                capture_output=True,
                env=environment,
                cwd=self.folder,
                timeout=START_SECONDS_MAX,
            )
        with (self.folder / "output.txt").open("wb") as output:
            self._process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.folder,
                start_new_session=True,
            )
        self._wait_until_it_answers(self._process)

    def stop(self) -> None:
        """Ends it in good order; one that hangs is killed. Stopping a stopped one does nothing."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """Ends it as a power cut would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def register(self, localpart: str, *, password: str = PASSWORD) -> MatrixUser:
        """A new user by open registration."""
        answer = await self.request(
            "POST",
            "/_matrix/client/v3/register",
            {"username": localpart, "password": password, "auth": {"type": "m.login.dummy"}},
        )
        return MatrixUser(self, answer["user_id"], answer["access_token"], answer["device_id"])

    async def register_admin(self, localpart: str, *, password: str = PASSWORD) -> MatrixUser:
        """A new server administrator."""
        path = "/_synapse/admin/v1/register"
        nonce = (await self.request("GET", path))["nonce"]
        signed = "\x00".join((nonce, localpart, password, "admin")).encode()
        answer = await self.request(
            "POST",
            path,
            {
                "nonce": nonce,
                "username": localpart,
                "password": password,
                "admin": True,
                "mac": hmac.new(SHARED_SECRET.encode(), signed, hashlib.sha1).hexdigest(),
            },
        )
        return MatrixUser(self, answer["user_id"], answer["access_token"], answer["device_id"])

    async def login(self, localpart: str, *, password: str = PASSWORD) -> MatrixUser:
        """A new device of a user who exists."""
        answer = await self.request(
            "POST",
            "/_matrix/client/v3/login",
            {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": localpart},
                "password": password,
            },
        )
        return MatrixUser(self, answer["user_id"], answer["access_token"], answer["device_id"])

    async def register_service_user(self, localpart: str, *, as_token: str) -> MatrixUser:
        """A user of an application service's namespace, who acts by the as_token and has no device."""
        user = MatrixUser(self, f"@{localpart}:{self.server_name}", as_token, None)
        try:
            await self.request(
                "POST",
                "/_matrix/client/v3/register",
                {"type": "m.login.application_service", "username": localpart, "inhibit_login": True},
                access_token=as_token,
            )
        except MatrixRefused as refused:
            if refused.errcode != "M_USER_IN_USE":
                raise
        return user

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        access_token: str | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> JsonObject:
        """One call; raises MatrixRefused on any status but 200."""
        response = await self._http().request(
            method,
            path,
            json=body,
            params=parameters,
            headers={} if access_token is None else {"Authorization": f"Bearer {access_token}"},
        )
        answer: JsonObject = response.json()
        if response.status_code != 200:
            raise MatrixRefused(response.status_code, answer.get("errcode", "?"), answer.get("error", "?"))
        return answer

    def _http(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = httpx.AsyncClient(
                base_url=self.url, timeout=60, limits=httpx.Limits(max_connections=None)
            )
        return self._clients[loop]

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                process.wait(POLL_SECONDS)
                break
            except subprocess.TimeoutExpired:
                pass
            try:
                if httpx.get(f"{self.url}/_matrix/client/versions", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                continue
        self.kill()
        output = (self.folder / "output.txt").read_text(errors="replace")
        raise RuntimeError(f"Synapse did not start:\n{output[-3000:]}\n{self.log[-3000:]}")

    def _homeserver_config(self) -> JsonObject:
        federation: JsonObject = {}
        listeners: list[JsonObject] = [_listener(self.port, names=["client", "openid"], tls=False)]
        if self._authority is not None and self.federation_port is not None:
            listeners.append(_listener(self.federation_port, names=["federation"], tls=True))
            federation = {
                "tls_certificate_path": str(self._authority.certificate_path),
                "tls_private_key_path": str(self._authority.key_path),
                "federation_custom_ca_list": [str(self._authority.authority_path)],
            }
        return {
            "server_name": self.server_name,
            "public_baseurl": f"{self.url}/",
            "pid_file": str(self.folder / "homeserver.pid"),
            "listeners": listeners,
            "database": {"name": "sqlite3", "args": {"database": str(self.folder / "homeserver.db")}},
            "log_config": str(self.folder / "log.yaml"),
            "media_store_path": str(self.folder / "media"),
            "signing_key_path": str(self.folder / "signing.key"),
            "registration_shared_secret": SHARED_SECRET,
            "macaroon_secret_key": "for tests only",
            "form_secret": "for tests only",
            "enable_registration": True,
            "enable_registration_without_verification": True,
            "trusted_key_servers": [],
            "suppress_key_server_warning": True,
            "ip_range_whitelist": ["127.0.0.1", "::1"],
            "report_stats": False,
            "bcrypt_rounds": 4,
            "filter_timeline_limit": 2000,
            **_NO_RATE_LIMITS,
            **federation,
        }


@dataclass(frozen=True, slots=True)
class MatrixUser:
    """A user and one of their access tokens. A service user's token is the as_token and device_id is None."""

    synapse: Synapse
    user_id: str
    access_token: str
    device_id: str | None

    async def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        parameters: Mapping[str, str] | None = None,
    ) -> JsonObject:
        """A call as this user, path from `/_matrix/client/v3` unless it begins with `/_`."""
        whole = path if path.startswith("/_") else f"/_matrix/client/v3{path}"
        acting = {} if self.device_id is not None else {"user_id": self.user_id}
        return await self.synapse.request(
            method, whole, body, access_token=self.access_token, parameters={**acting, **(parameters or {})}
        )

    async def create_room(self, **options: Any) -> str:
        """createRoom with these body keys (name, invite, preset, initial_state, …); returns the room id."""
        room_id: str = (await self.request("POST", "/createRoom", options))["room_id"]
        return room_id

    async def invite(self, room_id: str, user_id: str) -> None:
        await self.request("POST", f"/rooms/{quote(room_id)}/invite", {"user_id": user_id})

    async def join(self, room_id: str, *, via: str | None = None) -> None:
        """`via` names a server that is in the room; needed when one's own isn't."""
        parameters = {} if via is None else {"server_name": via, "via": via}
        await self.request("POST", f"/join/{quote(room_id)}", {}, parameters=parameters)

    async def leave(self, room_id: str) -> None:
        await self.request("POST", f"/rooms/{quote(room_id)}/leave", {})

    async def send(
        self, room_id: str, content: Mapping[str, Any], *, event_type: str = "m.room.message"
    ) -> str:
        """Sends a timeline event; returns its id."""
        path = f"/rooms/{quote(room_id)}/send/{quote(event_type)}/{secrets.token_hex(8)}"
        event_id: str = (await self.request("PUT", path, content))["event_id"]
        return event_id

    async def put_state(
        self, room_id: str, event_type: str, content: Mapping[str, Any], *, state_key: str = ""
    ) -> str:
        """Sends a state event; returns its id."""
        path = f"/rooms/{quote(room_id)}/state/{quote(event_type)}/{quote(state_key, safe='')}"
        event_id: str = (await self.request("PUT", path, content))["event_id"]
        return event_id

    async def state(self, room_id: str, event_type: str, *, state_key: str = "") -> JsonObject | None:
        """The content of a state event; None when there is none."""
        path = f"/rooms/{quote(room_id)}/state/{quote(event_type)}/{quote(state_key, safe='')}"
        try:
            return await self.request("GET", path)
        except MatrixRefused as refused:
            if refused.status == 404:
                return None
            raise

    async def membership(self, room_id: str, user_id: str) -> str | None:
        """`join`, `invite`, `leave`, …; None when the user never was in the room."""
        content = await self.state(room_id, "m.room.member", state_key=user_id)
        return None if content is None else content["membership"]

    async def joined_rooms(self) -> list[str]:
        rooms: list[str] = (await self.request("GET", "/joined_rooms"))["joined_rooms"]
        return rooms

    async def messages(self, room_id: str, *, limit: int = 100) -> list[JsonObject]:
        """The newest events of a room, newest first."""
        answer = await self.request(
            "GET", f"/rooms/{quote(room_id)}/messages", parameters={"dir": "b", "limit": str(limit)}
        )
        chunk: list[JsonObject] = answer["chunk"]
        return chunk

    async def account_data(self, data_type: str) -> JsonObject | None:
        """Global account data; None when there is none."""
        try:
            return await self.request("GET", f"/user/{quote(self.user_id)}/account_data/{quote(data_type)}")
        except MatrixRefused as refused:
            if refused.status == 404:
                return None
            raise


async def eventually(
    look: Callable[[], Awaitable[Found | None]], *, seconds_max: float = WAIT_SECONDS_MAX
) -> Found:
    """Looks until something other than None or False is found; raises AssertionError at the deadline."""
    deadline = time.monotonic() + seconds_max
    while True:
        found = await look()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < deadline, f"not so within {seconds_max} seconds"
        await asyncio.sleep(POLL_SECONDS)


def free_port() -> int:
    """A loopback port that nobody listens on at this moment, and that no outgoing connection takes later.

    Several test runs draw from the same ports at once, so each draws at random and never the same one twice.
    """
    while True:
        port = secrets.choice(_PORTS)
        if port in _ports_given:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _ports_given.add(port)
        return port


def _listener(port: int, *, names: list[str], tls: bool) -> JsonObject:
    return {
        "port": port,
        "bind_addresses": ["127.0.0.1"],
        "type": "http",
        "tls": tls,
        "resources": [{"names": names, "compress": False}],
    }


def _log_config(path: Path) -> JsonObject:
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s %(request)s %(message)s"}},
        "handlers": {
            "file": {
                "class": "logging.FileHandler",
                "filename": str(path),
                "formatter": "plain",
                "encoding": "utf-8",
            }
        },
        "loggers": {"synapse_modules": {"level": "INFO"}, "synapse.app": {"level": "INFO"}},
        "root": {"level": "WARNING", "handlers": ["file"]},
    }
