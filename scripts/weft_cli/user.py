"""`weft user add`: makes users through Synapse's admin API for those who hold its shared secret."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console

from appservices.chassis.config import WeftConfig, load_config, read_secret
from appservices.vocabulary.ids import USER_ID_LENGTH_MAX
from scripts.weft_cli.data_folder import DataFolder, DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.homeserver import read_homeserver_config
from scripts.weft_cli.waiting import ANSWER_SECONDS_MAX, silent_homeserver, start_remedy, told_when_slow

_LOCALPART = re.compile(r"[a-z0-9._=/+-]+")
# Without letters and digits that look like others: 31^20 is about 99 bits.
_PASSWORD_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
_PASSWORD_GROUPS = 5
_PASSWORD_GROUP_LETTERS = 4

user_commands = typer.Typer(help="The homeserver's users.", no_args_is_help=True)


@user_commands.callback()
def user() -> None:
    """Keeps `add` a subcommand while it is the only one."""


@user_commands.command()
def add(
    name: Annotated[str, typer.Argument(help="alice, or @alice:server.")],
    data: DataOption = None,
    password: Annotated[
        str | None,
        typer.Option("--password", help="Default: a good one is made and shown once.", show_default=False),
    ] = None,
    admin: Annotated[bool, typer.Option("--admin", help="A server administrator.")] = False,
    homeserver_yaml: Annotated[
        Path | None,
        typer.Option("--homeserver-yaml", metavar="FILE", help="The config of a Synapse of your own."),
    ] = None,
) -> None:
    """Make a user. Without --password a good one is made and shown once."""
    folder = find_data_folder(data)
    config = load_config(folder.path)
    localpart = local_user(name, config).removeprefix("@").split(":", 1)[0]
    secret = _shared_secret(folder, config, homeserver_yaml)
    chosen = password if password is not None else make_password()
    if not chosen:
        raise CommandFailed("A password needs at least one character.")
    console = Console(highlight=False, soft_wrap=True)
    with console.status(f"Making {localpart} ..."):
        user_id = _register(config, secret, localpart=localpart, password=chosen, admin=admin)
    console.print(f"User        {user_id}{' (administrator)' if admin else ''}", markup=False)
    if password is None:
        console.print(f"Password    {chosen}   (shown this once)", markup=False)
    console.print(f"Homeserver  {config.homeserver.public_url}", markup=False)


def local_user(name: str, config: WeftConfig) -> str:
    """The full user id of a localpart or a user id of this server. Raises CommandFailed."""
    user_id = name if name.startswith("@") else f"@{name}:{config.server_name}"
    if ":" not in user_id or user_id.split(":", 1)[1] != config.server_name:
        raise CommandFailed(
            f"{name} is not a user of {config.server_name}: write alice or @alice:{config.server_name}."
        )
    localpart = user_id[1:].split(":", 1)[0]
    if not _LOCALPART.fullmatch(localpart) or len(user_id) > USER_ID_LENGTH_MAX:
        raise CommandFailed(
            f"“{localpart}” can't be a user's name: it has only a to z, 0 to 9 and . _ = - / +."
        )
    return user_id


def make_password() -> str:
    """A password that can be read aloud and typed: five groups of four."""
    return "-".join(
        "".join(secrets.choice(_PASSWORD_LETTERS) for _ in range(_PASSWORD_GROUP_LETTERS))
        for _ in range(_PASSWORD_GROUPS)
    )


def _shared_secret(folder: DataFolder, config: WeftConfig, homeserver_yaml: Path | None) -> str:
    if homeserver_yaml is None and not config.homeserver.managed:
        raise CommandFailed(
            "This Weft stands beside a Synapse of your own: name its config with --homeserver-yaml FILE."
        )
    path = homeserver_yaml or folder.homeserver_config
    content = read_homeserver_config(path)
    secret = content.get("registration_shared_secret")
    if isinstance(secret, str) and secret:
        return secret
    secret_file = content.get("registration_shared_secret_path")
    if isinstance(secret_file, str):
        try:
            return read_secret(path.parent / secret_file)
        except OSError as error:
            raise CommandFailed(
                f"{path}: registration_shared_secret_path: {secret_file} can't be read: {error.strerror}."
            ) from error
    raise CommandFailed(f"{path} has no registration_shared_secret, by which users are made here.")


def _register(config: WeftConfig, secret: str, *, localpart: str, password: str, admin: bool) -> str:
    """Source: Synapse's admin API, shared-secret registration."""
    url = f"{config.homeserver.url.rstrip('/')}/_synapse/admin/v1/register"
    try:
        with told_when_slow(config), httpx.Client(timeout=ANSWER_SECONDS_MAX, trust_env=False) as client:
            nonce = _answer(client.get(url), url)["nonce"]
            role = "admin" if admin else "notadmin"
            mac = hmac.new(
                secret.encode(), "\0".join((nonce, localpart, password, role)).encode(), hashlib.sha1
            ).hexdigest()
            body = {
                "nonce": nonce,
                "username": localpart,
                "password": password,
                "admin": admin,
                "mac": mac,
                "inhibit_login": True,
            }
            answer = _answer(client.post(url, json=body), url)
    except httpx.TimeoutException as error:
        sentence = silent_homeserver(config)
        raise CommandFailed(f"{sentence[0].upper()}{sentence[1:]}.") from error
    except httpx.HTTPError as error:
        raise CommandFailed(
            f"The homeserver doesn't answer at {config.homeserver.url}: {start_remedy(config)}."
        ) from error
    return str(answer["user_id"])


def _answer(response: httpx.Response, url: str) -> dict[str, Any]:
    try:
        content = response.json()
        if response.status_code == 200 and isinstance(content, dict):
            return content
        reason = content["error"]
    except (ValueError, KeyError, TypeError):
        raise CommandFailed(f"{url} answered with HTTP status {response.status_code}.") from None
    if content.get("errcode") == "M_USER_IN_USE":
        raise CommandFailed("There is a user with this name already.")
    raise CommandFailed(f"The homeserver refused: {reason}")
