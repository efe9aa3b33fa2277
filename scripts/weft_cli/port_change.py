"""Moving a data folder to another port: the port is changed in each file that names it, and nothing else."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from appservices.chassis.config import WeftConfig
from scripts.weft_cli.data_folder import DataFolder
from scripts.weft_cli.ports import port_of
from scripts.weft_cli.written_files import replace_file
from scripts.weft_cli.yaml_values import Scalar, scalars, with_values

_LOOPBACK_HOSTS = {"localhost", "127.0.0.1", "::1"}


def change_port(folder: DataFolder, config: WeftConfig, port: int) -> None:
    """Synapse at `port`, the services at the next one, in weft.yaml, homeserver.yaml and registrations.

    Addresses that name another machine, such as a proxy's, stay. weft.yaml comes last: after a crash
    before that, the same call finishes the work.
    """
    ports = {port_of(config.homeserver.url): port, config.web.port: port + 1}
    for section in (config.home, config.wallet, config.moments):
        _change(config.folder / section.registration, ports)
    if config.homeserver.managed:
        _change(folder.homeserver_config, ports)
        _change(folder.config, ports)
    else:
        # A Synapse of the operator's own stays where it is.
        _change(folder.config, {config.web.port: port + 1})


def _change(path: Path, ports: dict[int, int]) -> None:
    text = path.read_text(encoding="utf-8")
    values: dict[tuple[str | int, ...], Scalar] = {}
    for place, value in scalars(text).items():
        if place[-1] == "port" and isinstance(value, int) and value in ports:
            values[place] = ports[value]
        elif isinstance(value, str):
            moved = _moved(value, ports)
            if moved != value:
                values[place] = moved
    if values:
        replace_file(path, with_values(text, values))


def _moved(url: str, ports: dict[int, int]) -> str:
    """The URL at its new port, when it is an http URL of this very machine."""
    if not url.startswith("http://"):
        return url
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        return url
    if host not in _LOOPBACK_HOSTS or port not in ports:
        return url
    address = parts.netloc.rpartition(":")[0]
    return url.replace(parts.netloc, f"{address}:{ports[port]}", 1)
