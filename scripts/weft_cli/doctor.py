"""`weft doctor`: looks at each joint of a Weft and says what to do about what is broken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.console import Console

from appservices.chassis.config import (
    CONFIG_NAME,
    ConfigInvalid,
    Registration,
    WeftConfig,
    load_config,
    load_registration,
    load_signing_key,
)
from appservices.vocabulary.events import EXTENSION
from appservices.vocabulary.ids import UserId
from scripts.weft_cli.data_folder import DataFolder, DataOption, find_data_folder
from scripts.weft_cli.database_files import is_missing
from scripts.weft_cli.homeserver import ROOM_EXTENSIONS
from scripts.weft_cli.registrations import service_url
from scripts.weft_cli.running import running_pid

REQUEST_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


class Broken(Exception):
    """What is wrong, and what to do about it."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.remedy = remedy


def doctor(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer with JSON.")] = False,
) -> None:
    """Check everything that has to fit together. Exit status 1 when something doesn't."""
    findings = asyncio.run(_examine(find_data_folder(data), shows_progress=not as_json))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    failed = [finding for finding in findings if not finding.ok]
    if failed:
        raise typer.Exit(1)


async def _examine(folder: DataFolder, *, shows_progress: bool) -> list[Finding]:
    console = Console(highlight=False, soft_wrap=True, quiet=not shows_progress)
    findings = []
    with console.status("Looking ...") as status:
        async for finding in examine(folder):
            findings.append(finding)
            mark = "[green]ok    [/]" if finding.ok else "[red]failed[/]"
            console.print(mark, end="  ")
            console.print(f"{finding.name}: {finding.detail}", markup=False)
            if finding.remedy:
                console.print(f"        → {finding.remedy}", markup=False)
            status.update("Looking further ...")
    return findings


async def examine(folder: DataFolder) -> AsyncIterator[Finding]:
    """Each check in the order in which a broken one explains those after it."""
    try:
        config = load_config(folder.path)
    except ConfigInvalid as error:
        remedy = (
            "Correct it." if folder.config.exists() else "Name another folder with --data, or: weft init."
        )
        yield Finding("Config", False, f"{error}.", remedy)
        return
    yield Finding("Config", True, str(folder.config))
    yield _keys(config)
    for name, key, url in (
        ("Home database", "home.database", config.home.database),
        ("Moments database", "moments.database", config.moments.database),
        ("Wallet database", "wallet.database", config.wallet.database),
    ):
        checked = await _database(config, name=name, key=key, url=url)
        yield checked
    if checked.ok:
        async for finding in _links(config):
            yield finding
    async with httpx.AsyncClient(timeout=REQUEST_SECONDS_MAX, trust_env=False) as client:
        reachable = await _synapse(client, config, folder)
        yield reachable
        services = await _services(client, config, folder)
        yield services
        if reachable.ok:
            for service, section in (
                ("weft", config.home),
                ("wallet", config.wallet),
                ("moments", config.moments),
            ):
                yield await _registration(
                    client,
                    config,
                    service=service,
                    file=section.registration,
                    user=config.user(section.localpart),
                )
            yield await _module(client, config)
        yield await _page(client, config, services=services)


def _keys(config: WeftConfig) -> Finding:
    name = "Wallet's signing key"
    try:
        key = load_signing_key(config, key="wallet.signing_key_file", name=config.wallet.signing_key_file)
    except ConfigInvalid as error:
        return Finding(
            name,
            False,
            f"{error}.",
            "Bring it back from a backup; only a new wallet may get a new key: weft init.",
        )
    path = config.folder / config.wallet.signing_key_file
    if path.stat().st_mode & 0o077:
        return Finding(
            name, False, f"{path} can be read by other users of this machine.", f"chmod 600 {path}"
        )
    return Finding(name, True, f"{key.key_id} {key.public_base64}")


async def _database(config: WeftConfig, *, name: str, key: str, url: str) -> Finding:
    from sqlalchemy.exc import SQLAlchemyError

    from appservices.chassis.migrations import SchemaUnknown, is_current
    from scripts.weft_cli.composition import (
        HOME_BRANCHES,
        MOMENTS_BRANCHES,
        WALLET_BRANCHES,
        open_configured_database,
    )

    branches = {
        "home.database": HOME_BRANCHES,
        "moments.database": MOMENTS_BRANCHES,
        "wallet.database": WALLET_BRANCHES,
    }[key]
    try:
        database = open_configured_database(config, key=key, url=url)
    except ConfigInvalid as error:
        return Finding(name, False, f"{error}.", f"Correct {key} in weft.yaml.")
    if is_missing(database):
        await database.close()
        return Finding(name, False, "it isn't there yet.", "The first start makes it: weft up.")
    try:
        current = await is_current(database, *branches)
    except (SQLAlchemyError, OSError, SchemaUnknown) as error:
        reason = str(getattr(error, "orig", None) or error)
        return Finding(name, False, f"{url} can't be used: {reason}.", f"Check {key} in weft.yaml.")
    finally:
        await database.close()
    if not current:
        return Finding(
            name,
            False,
            "its schema is older than this Weft.",
            "The next start brings it up to date: weft up.",
        )
    return Finding(name, True, database.engine.url.render_as_string(hide_password=True))


async def _links(config: WeftConfig) -> AsyncIterator[Finding]:
    """One finding for each peer of the wallet; nothing where there are none."""
    from appservices.chassis.links.storage import STOPPED, LinkStorage
    from scripts.weft_cli.composition import open_configured_database

    database = open_configured_database(config, key="wallet.database", url=config.wallet.database)
    try:
        links = await LinkStorage(database).all()
    finally:
        await database.close()
    for link in links:
        name = f"Link with {link.peer}"
        if link.state == STOPPED:
            detail = f"it has stopped: {link.reason}" + (f" ({link.detail})" if link.detail else "") + "."
            yield Finding(name, False, detail, "docs/operators/peers.md says how to mend it.")
        else:
            unacknowledged = link.outgoing.seq - link.outgoing.acked
            yield Finding(name, True, f"{unacknowledged} messages unacknowledged")


async def _synapse(client: httpx.AsyncClient, config: WeftConfig, folder: DataFolder) -> Finding:
    url = f"{config.homeserver.url.rstrip('/')}/_matrix/client/versions"
    try:
        response = await client.get(url)
    except httpx.HTTPError as error:
        if config.homeserver.managed and running_pid(folder) is None:
            remedy = "It isn't running: weft up."
        elif config.homeserver.managed:
            remedy = f"Its log says why: {folder.logs / 'synapse-output.log'} and synapse.log beside it."
        else:
            remedy = "Start it, or correct homeserver.url in weft.yaml."
        return Finding(
            "Synapse", False, f"{config.homeserver.url} doesn't answer ({_reason(error)}).", remedy
        )
    if response.status_code != 200:
        return Finding(
            "Synapse",
            False,
            f"{url} answered with HTTP status {response.status_code}.",
            "homeserver.url in weft.yaml must lead to Synapse's client listener.",
        )
    return Finding("Synapse", True, config.homeserver.url)


async def _services(client: httpx.AsyncClient, config: WeftConfig, folder: DataFolder) -> Finding:
    from scripts.weft_cli.up import all_services_ready, health_url

    name = "Weft's services"
    url = health_url(config)
    try:
        response = await client.get(url)
        if all_services_ready(response):
            return Finding(name, True, url)
        states = response.json().get("services", {})
    except httpx.HTTPError as error:
        remedy = "They aren't running: weft up, or weft serve beside a Synapse of your own."
        if running_pid(folder) is not None:
            remedy = f"Their log says why: {folder.logs / 'weft.log'}."
        return Finding(name, False, f"{url} doesn't answer ({_reason(error)}).", remedy)
    except (ValueError, AttributeError, KeyError, TypeError):
        return Finding(
            name,
            False,
            f"{url} is answered by something that isn't Weft.",
            f"Stop what listens on port {config.web.port}, or choose another with weft up --port.",
        )
    shown = ", ".join(f"{service} {state}" for service, state in states.items())
    return Finding(
        name,
        False,
        f"not all are ready ({shown}).",
        f"Wait a little; if it stays so, {folder.logs / 'weft.log'} says why.",
    )


async def _registration(
    client: httpx.AsyncClient, config: WeftConfig, *, service: str, file: str, user: UserId
) -> Finding:
    """Proves both directions, and says which one is broken: our as_token, then Synapse's way to us."""
    name = f"Registration of {user}"
    try:
        registration = load_registration(config, file)
        await _as_token_is_known(client, config, registration, user, config.folder / file)
        await _synapse_reaches_us(client, config, registration, service)
    except ConfigInvalid as error:
        return Finding(name, False, f"{error}.", _registration_remedy(config, file))
    except Broken as broken:
        return Finding(name, False, str(broken), broken.remedy)
    return Finding(name, True, "Synapse knows our token, and reaches us with its own.")


def _registration_remedy(config: WeftConfig, file: str) -> str:
    path = config.folder / file
    if path.exists():
        return (
            f"Bring it back from a backup; or remove {path} and run weft init, which writes a missing one "
            "with new tokens, then restart Synapse and Weft."
        )
    return (
        f"Correct its path in {config.folder / CONFIG_NAME}, bring it back from a backup, or let weft init "
        "write a new one, then restart Synapse and Weft."
    )


async def _as_token_is_known(
    client: httpx.AsyncClient, config: WeftConfig, registration: Registration, user: UserId, path: Path
) -> None:
    answer = await _ask(
        client, config, registration, "GET", f"/_matrix/client/v3/account/whoami?user_id={quote(user)}"
    )
    if answer.get("user_id") == user:
        return
    if answer.get("errcode") in ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN"):
        raise Broken(
            "Synapse doesn't know our as_token.",
            f"{path} must be in app_service_config_files of homeserver.yaml, and Synapse restarted since it "
            "was written.",
        )
    raise Broken(
        f"Synapse doesn't let us act as {user}: {answer.get('error', answer)}",
        f"The namespace in {path} must hold that user; restart Synapse after a change.",
    )


async def _synapse_reaches_us(
    client: httpx.AsyncClient, config: WeftConfig, registration: Registration, service: str
) -> None:
    """Source: Matrix spec, Application Service API, pinging."""
    path = f"/_matrix/client/v1/appservice/{quote(registration.id)}/ping"
    try:
        answer = await _ask(client, config, registration, "POST", path, {"transaction_id": "weft-doctor"})
    except Broken as silent:
        # It has just answered another question, so what it waits for is us.
        answer = {"error": str(silent)}
    if "duration_ms" in answer:
        return
    errcode = answer.get("errcode")
    if errcode == "M_BAD_STATUS" and answer.get("status") in (401, 403):
        raise Broken(
            "Synapse reaches us with an hs_token that we don't know.",
            "Synapse holds an older registration file: restart it.",
        )
    if errcode == "M_URL_NOT_SET":
        raise Broken(
            "the registration that Synapse has names no url.", "Restart Synapse after correcting it."
        )
    own = service_url(config, service)
    different = (
        "" if registration.url == own else f" The registration says {registration.url}, we listen at {own}."
    )
    raise Broken(
        f"Synapse knows our token, but can't reach us: {_without_stop(answer)}.{different}",
        "The url in the registration must be one that Synapse can reach; restart Synapse after a change.",
    )


async def _module(client: httpx.AsyncClient, config: WeftConfig) -> Finding:
    """Asks for what only the module refuses in these words, in a room that can't exist."""
    name = "Synapse module"
    try:
        registration = load_registration(config, config.home.registration)
    except ConfigInvalid as error:
        return Finding(name, False, f"{error}.", _registration_remedy(config, config.home.registration))
    room = quote(f"!weft-doctor:{config.server_name}")
    path = f"/_matrix/client/v3/rooms/{room}/state/{EXTENSION}/{quote('not an id')}"
    try:
        answer = await _ask(
            client,
            config,
            registration,
            "PUT",
            f"{path}?user_id={quote(config.home_user)}",
            {"enabled": False},
        )
    except Broken as broken:
        return Finding(name, False, str(broken), broken.remedy)
    if answer.get("errcode") == "M_BAD_JSON" and EXTENSION in str(answer.get("error")):
        return Finding(name, True, f"{ROOM_EXTENSIONS} guards the rooms.")
    return Finding(
        name,
        False,
        f"{ROOM_EXTENSIONS} isn't loaded.",
        "It must be in modules of homeserver.yaml (weft attach says how), and Synapse restarted.",
    )


async def _page(client: httpx.AsyncClient, config: WeftConfig, *, services: Finding) -> Finding:
    name = "Wallet page"
    url = f"{config.web.public_url.rstrip('/')}/wallet"
    try:
        response = await client.get(url, follow_redirects=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return Finding(
            name,
            False,
            f"{url} doesn't answer ({_reason(error)}).",
            "web.public_url in weft.yaml must be the address under which browsers reach Weft's port."
            if services.ok
            else "It is one of Weft's services: see there.",
        )
    if response.status_code >= 400:
        return Finding(
            name,
            False,
            f"{url} answered with HTTP status {response.status_code}.",
            "web.public_url in weft.yaml must lead to Weft's port, not to another program's."
            if services.ok
            else "It is one of Weft's services: see there.",
        )
    return Finding(name, True, url)


async def _ask(
    client: httpx.AsyncClient,
    config: WeftConfig,
    registration: Registration,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
) -> dict[str, Any]:
    try:
        response = await client.request(
            method,
            f"{config.homeserver.url.rstrip('/')}{path}",
            json=body,
            headers={"Authorization": f"Bearer {registration.as_token}"},
        )
        answer = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise Broken(f"Synapse gave no answer ({_reason(error)}).", "Look into Synapse's log.") from error
    return answer if isinstance(answer, dict) else {}


def _without_stop(answer: dict[str, Any]) -> str:
    return str(answer.get("error", answer)).rstrip(".")


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
