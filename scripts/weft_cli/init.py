"""`weft init`: writes a new data folder, or what is missing of one. What exists is never overwritten."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from appservices.chassis.clock import Tokens
from appservices.chassis.config import WeftConfig, is_http_url, load_config
from appservices.vocabulary.ids import is_server_name
from appservices.vocabulary.signing import SigningKey
from scripts.weft_cli.certificates import LocalAuthority, ensure_certificate
from scripts.weft_cli.config_text import config_text
from scripts.weft_cli.data_folder import DataFolder, DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.homeserver import homeserver_text, log_config_text, read_homeserver_config
from scripts.weft_cli.ports import DEFAULT_PORT, PORT_MAX, federation_port, host_of
from scripts.weft_cli.registrations import registration_text
from scripts.weft_cli.written_files import make_folder, write_new_file

DEFAULT_SERVER_NAME = "localhost"

ServerNameOption = Annotated[
    str | None,
    typer.Option(
        "--server-name",
        metavar="NAME",
        help=(
            "What user ids end in, for ever. Default: localhost. With a port, as in localhost:8448, "
            "federation listens there by TLS."
        ),
        show_default=False,
    ),
]
PortOption = Annotated[
    int | None,
    typer.Option(
        "--port",
        metavar="N",
        help=f"Synapse listens here for clients, Weft's services on the next one. Default: {DEFAULT_PORT}.",
        show_default=False,
    ),
]
AuthorityOption = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        metavar="FOLDER",
        help="A local certificate authority, made there when missing; servers that share it federate.",
        show_default=False,
    ),
]


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the flags of `init` and `up` ask for; None where nothing was said."""

    server_name: str | None = None
    port: int | None = None
    authority: Path | None = None
    homeserver_url: str | None = None

    def __post_init__(self) -> None:
        """Raises CommandFailed for what could never work."""
        if self.server_name is not None:
            _check_server_name(self.server_name)
        if self.homeserver_url is not None:
            _check_homeserver_url(self.homeserver_url)
        if self.port is not None and not 1 <= self.port <= PORT_MAX:
            raise CommandFailed(f"--port takes a number from 1 to {PORT_MAX}, not {self.port}.")
        name = self.server_name or DEFAULT_SERVER_NAME
        taken = federation_port(name)
        port = self.port or DEFAULT_PORT
        if self.server_name is not None and taken in (port, port + 1):
            raise CommandFailed(
                f"Port {taken} of the server name {name} is for federation, and --port {port} takes {port} "
                f"and {port + 1}: choose different ones."
            )


def init(
    data: DataOption = None,
    server_name: ServerNameOption = None,
    port: PortOption = None,
    ca: AuthorityOption = None,
    homeserver_url: Annotated[
        str | None,
        typer.Option(
            "--homeserver-url",
            metavar="URL",
            help="Stand beside a Synapse of your own at this address instead of starting one.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a data folder: config, keys, registrations. What exists is left alone."""
    console = Console(highlight=False, soft_wrap=True)
    folder = find_data_folder(data)
    wishes = Wishes(server_name=server_name, port=port, authority=ca, homeserver_url=homeserver_url)
    written = initialise(folder, wishes)
    for path, is_new in written:
        console.print(f"{'written' if is_new else 'is there'}  {path}", markup=False)
    if not any(is_new for _, is_new in written):
        console.print(f"Nothing was missing in {folder.path}.", markup=False)
    elif load_config(folder.path).homeserver.managed:
        console.print("Now start it: weft up", markup=False)
    else:
        console.print(
            "Now add Weft to your Synapse: weft attach --homeserver-yaml FILE says what.", markup=False
        )


def initialise(
    folder: DataFolder, wishes: Wishes, *, tokens: Tokens | None = None
) -> list[tuple[Path, bool]]:
    """Writes what is missing in the data folder; returns each file with whether it was written now.

    weft.yaml comes first and all else follows from it, so an interrupted run is completed by the next.
    Raises CommandFailed when the wishes contradict what is there, or a lost key can't be made anew, and
    ConfigInvalid when the config that is there can't be used.
    """
    tokens = tokens or Tokens()
    if not folder.config.exists() and wishes.authority is not None:
        # Said before anything is written, for a server name is chosen once.
        _check_authority_is_of_use(wishes.server_name or DEFAULT_SERVER_NAME)
    make_folder(folder.path)
    text = config_text(_config_values(wishes))
    written = [(folder.config, write_new_file(folder.config, text, secret=True))]
    config = load_config(folder.path)
    check_wishes(folder, config, wishes)
    check_registrations_are_listed(folder, config)

    def write(path: Path, text: Callable[[], str], *, secret: bool = True) -> None:
        written.append((path, not path.exists() and write_new_file(path, text(), secret=secret)))

    for service, registration_id, name, localpart in (
        ("weft", "weft", config.home.registration, config.home.localpart),
        ("wallet", "weft_wallet", config.wallet.registration, config.wallet.localpart),
        ("moments", "weft_moments", config.moments.registration, config.moments.localpart),
    ):
        text = registration_text(
            config,
            service=service,
            registration_id=registration_id,
            localpart=localpart,
            tokens=tokens,
            wants_receipts=service == "moments",
        )
        write(config.folder / name, partial(str, text))
    _refuse_lost_key(
        key=config.folder / config.wallet.signing_key_file,
        database=config.folder / config.wallet.database.removeprefix("sqlite:///"),
        consequence="a new one would not fit the receipts that are out",
    )
    write(config.folder / config.wallet.signing_key_file, lambda: SigningKey.generate().to_text())
    _refuse_lost_key(
        key=config.folder / config.moments.signing_key_file,
        database=config.folder / config.moments.database.removeprefix("sqlite:///"),
        consequence="other homeservers would not believe a new one",
    )
    write(config.folder / config.moments.signing_key_file, lambda: SigningKey.generate().to_text())
    if config.homeserver.managed:
        _write_homeserver(folder, config, wishes, write, tokens)
    return written


def check_wishes(folder: DataFolder, config: WeftConfig, wishes: Wishes) -> None:
    """Raises CommandFailed with one sentence when a flag contradicts what the data folder is."""
    if wishes.server_name is not None and wishes.server_name != config.server_name:
        raise CommandFailed(
            f"{folder.path} belongs to the server name {config.server_name}, which can't become "
            f"{wishes.server_name}, because all its user ids end in it: leave --server-name out, or choose "
            "another folder with --data."
        )
    if wishes.homeserver_url is not None and wishes.homeserver_url != config.homeserver.url:
        raise CommandFailed(
            f"{folder.config} says that the homeserver is at {config.homeserver.url}: change homeserver.url "
            "there, or choose another folder with --data."
        )
    if wishes.authority is not None:
        _check_authority(folder, config, wishes.authority)
    taken = federation_port(config.server_name)
    if wishes.port is not None and taken in (wishes.port, wishes.port + 1):
        raise CommandFailed(
            f"Port {taken} is for federation, as the server name {config.server_name} says, and --port "
            f"{wishes.port} takes {wishes.port} and {wishes.port + 1}: choose another."
        )


def authority_of(folder: DataFolder) -> LocalAuthority | None:
    """The local authority that signed for this data folder; None when there is none."""
    if not folder.homeserver_config.exists():
        return None
    content = read_homeserver_config(folder.homeserver_config)
    trusted = content.get("federation_custom_ca_list")
    if content.get("tls_certificate_path") != str(folder.certificate) or not isinstance(trusted, list):
        return None
    return LocalAuthority(Path(str(trusted[0])).parent) if trusted else None


def _check_authority(folder: DataFolder, config: WeftConfig, wished: Path) -> None:
    _check_authority_is_of_use(config.server_name)
    present = authority_of(folder)
    if present is not None and present.folder.resolve() != wished.expanduser().resolve():
        raise CommandFailed(
            f"{folder.path} was made with the certificate authority in {present.folder}: start it with that "
            "one, or leave --ca out."
        )


def _check_authority_is_of_use(server_name: str) -> None:
    if federation_port(server_name) is None:
        raise CommandFailed(
            "--ca is for a server name with a port, such as localhost:8448, where federation listens by TLS; "
            f"this one is {server_name}."
        )


def _check_server_name(name: str) -> None:
    port = federation_port(name) if is_server_name(name) else None
    if not is_server_name(name) or (port is not None and not 1 <= port <= 65535):
        raise CommandFailed(f"“{name}” is not a server name: it looks like example.org or localhost:8448.")
    if name != name.lower():
        raise CommandFailed(f"A server name is written in small letters: {name.lower()}.")


def _check_homeserver_url(url: str) -> None:
    if not is_http_url(url):
        raise CommandFailed(f"--homeserver-url takes a URL such as http://127.0.0.1:8008, not “{url}”.")


def new_config(folder: DataFolder, wishes: Wishes) -> WeftConfig:
    """The config that a new data folder will have."""
    return WeftConfig.model_validate({**_config_values(wishes), "folder": folder.path})


def check_registrations_are_listed(folder: DataFolder, config: WeftConfig) -> None:
    """Raises CommandFailed when the Synapse of this data folder doesn't read a registration of the config.

    New tokens in a file that Synapse doesn't know would be of no use; mostly its name was mistyped.
    """
    if not config.homeserver.managed or not folder.homeserver_config.exists():
        return
    listed = read_homeserver_config(folder.homeserver_config).get("app_service_config_files")
    known = {
        os.path.realpath(folder.path / str(item)) for item in (listed if isinstance(listed, list) else ())
    }
    for key, name in (
        ("home.registration", config.home.registration),
        ("wallet.registration", config.wallet.registration),
        ("moments.registration", config.moments.registration),
    ):
        path = config.folder / name
        if os.path.realpath(path) not in known:
            raise CommandFailed(
                f"{folder.config}: {key}: {path} is not in app_service_config_files of "
                f"{folder.homeserver_config}, so Synapse doesn't know it: correct the one or the other; what "
                "a newer Weft needs there is told by weft attach --homeserver-yaml "
                f"{folder.homeserver_config} --data {folder.path}"
            )


def _config_values(wishes: Wishes) -> dict[str, Any]:
    port = wishes.port or DEFAULT_PORT
    url = wishes.homeserver_url or f"http://127.0.0.1:{port}"
    return {
        "server_name": wishes.server_name or DEFAULT_SERVER_NAME,
        "homeserver": {"url": url, "public_url": url, "managed": wishes.homeserver_url is None},
        "web": {"port": port + 1, "public_url": f"http://127.0.0.1:{port + 1}"},
    }


def _write_homeserver(
    folder: DataFolder,
    config: WeftConfig,
    wishes: Wishes,
    write: Callable[..., None],
    tokens: Tokens,
) -> None:
    _refuse_lost_key(
        key=folder.homeserver_signing_key,
        database=folder.homeserver_database,
        consequence="with a new one, other servers would refuse this one",
    )
    version = f"a_{tokens.hex(2)}"
    write(folder.homeserver_signing_key, lambda: SigningKey.generate(version).to_text())
    authority = authority_of(folder)
    if federation_port(config.server_name) is not None and not folder.homeserver_config.exists():
        wished = wishes.authority or folder.path / "ca"
        authority = LocalAuthority(wished.expanduser().resolve())
    if authority is not None:
        ensure_certificate(
            authority,
            host=host_of(config.server_name),
            certificate=folder.certificate,
            key=folder.certificate_key,
            now=datetime.datetime.now(datetime.UTC),
        )
    make_folder(folder.logs)
    make_folder(folder.homeserver_database.parent)
    write(folder.homeserver_log_config, lambda: log_config_text(folder), secret=False)
    write(
        folder.homeserver_config,
        lambda: homeserver_text(config, folder, authority=authority, tokens=tokens),
    )


def _refuse_lost_key(*, key: Path, database: Path, consequence: str) -> None:
    if database.exists() and not key.exists():
        raise CommandFailed(
            f"{key} is missing although {database} is there: bring it back from a backup, because "
            f"{consequence}."
        )
