"""Which ports one Weft uses, and whether they are free."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from appservices.chassis.config import WeftConfig
from scripts.weft_cli.failure import CommandFailed

DEFAULT_PORT = 8008
PORT_MAX = 65534
"""The highest port for `--port`, because the services take the one after it."""


@dataclass(frozen=True, slots=True)
class Listener:
    """Something that Weft listens with: what it is called, its address, and how to change its port."""

    name: str
    address: str
    port: int
    remedy: str


def federation_port(server_name: str) -> int | None:
    """The explicit port of a server name, on which it federates by TLS; None when it has none.

    The server name must be a valid one. Source: Matrix spec, server discovery.
    """
    _, bracket, rest = server_name.rpartition("]")
    _, _, port = (rest if bracket else server_name).partition(":")
    return int(port) if port else None


def host_of(server_name: str) -> str:
    """The server name without its port."""
    port = federation_port(server_name)
    return server_name if port is None else server_name.removesuffix(f":{port}")


def port_of(url: str) -> int:
    """The port of an HTTP URL, written or implied."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def listeners(config: WeftConfig) -> list[Listener]:
    """All that `weft up` will listen with."""
    services = services_listener(config, remedy="choose another with --port")
    if not config.homeserver.managed:
        return [services]
    found = [
        Listener("Synapse", "127.0.0.1", port_of(config.homeserver.url), "choose another with --port"),
        services,
    ]
    port = federation_port(config.server_name)
    if port is not None:
        remedy = "it is part of the server name and can't be another one"
        found.append(Listener("federation", federation_addresses(config.server_name)[-1], port, remedy))
    return found


def services_listener(config: WeftConfig, *, remedy: str) -> Listener:
    """What `weft serve` listens with."""
    return Listener("Weft's services", config.web.bind_address, config.web.port, remedy)


def is_loopback_name(server_name: str) -> bool:
    """Whether the server name can only mean this very machine."""
    host = host_of(server_name).strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def federation_addresses(server_name: str) -> list[str]:
    """Where a server with TLS federation listens: on loopback only when its name is a loopback name."""
    if not is_loopback_name(server_name):
        return ["::", "0.0.0.0"]
    return ["::1"] if host_of(server_name) == "[::1]" else ["127.0.0.1"]


def check_ports(wanted: Sequence[Listener]) -> None:
    """Raises CommandFailed with one sentence that names the first port that can't be listened on."""
    for listener in wanted:
        family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((listener.address, listener.port))
            except (OSError, OverflowError) as error:
                raise CommandFailed(_port_sentence(listener, error)) from error


def _port_sentence(listener: Listener, error: OSError | OverflowError) -> str:
    place = f"Port {listener.port}, which {listener.name} needs,"
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"{place} is in use by another program: stop that one, or {listener.remedy}."
    if isinstance(error, OSError) and error.errno == errno.EACCES:
        return f"{place} is open to root alone: {listener.remedy}."
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return f"{place} can't be listened on at {listener.address}: {reason}."
