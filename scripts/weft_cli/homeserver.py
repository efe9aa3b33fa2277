"""The config of the Synapse that Weft starts: written once, then the operator's own.

Only a change of port touches it again, and then only the port. Source: Synapse's configuration manual.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from appservices.chassis.clock import Tokens
from appservices.chassis.config import ConfigInvalid, WeftConfig
from scripts.weft_cli.certificates import LocalAuthority
from scripts.weft_cli.data_folder import DataFolder
from scripts.weft_cli.ports import federation_addresses, federation_port, is_loopback_name, port_of
from scripts.weft_cli.yaml_values import as_yaml

ROOM_EXTENSIONS = "synapse_modules.room_extensions.RoomExtensions"
CONTACTS = "synapse_modules.contacts.Contacts"
"""The Synapse module, as `modules` in homeserver.yaml names it."""
_WIDGET_PARAMETERS = {
    "widget": "1",
    # Element fills these in (MSC2873); `$` must reach it unescaped.
    "user_id": "$matrix_user_id",
    "widget_id": "$matrix_widget_id",
    "theme": "$org.matrix.msc2873.client_theme",
    "lang": "$org.matrix.msc2873.client_language",
    "client_id": "$org.matrix.msc2873.client_id",
}


def module_config(config: WeftConfig) -> dict[str, Any]:
    """What the Synapse module needs to know of this Weft."""
    moments_widget = {"id": "weft_moments", "name": "Moments", "url": widget_url(config, "/moments")}
    return {
        "home_user": config.home_user,
        "services": {"payments": config.wallet_user},
        "home_members": [config.wallet_user, config.moments_user],
        "widgets": [
            {"id": "weft_wallet", "name": "Wallet", "url": widget_url(config, "/wallet")},
            moments_widget,
        ],
        "moments_user": config.moments_user,
        # A copy, or YAML would name the first one here, where `weft up --port` changes each by itself.
        "moments_widgets": [dict(moments_widget)],
    }


def synapse_modules(config: WeftConfig) -> list[dict[str, Any]]:
    """The entries of Weft's modules in homeserver.yaml."""
    return [
        {"module": ROOM_EXTENSIONS, "config": module_config(config)},
        {"module": CONTACTS, "config": {"service_users": [config.moments_user]}},
    ]


def widget_url(config: WeftConfig, path: str) -> str:
    """The address of a page as a widget, with the placeholders that Element fills in."""
    return f"{config.web.public_url.rstrip('/')}{path}?{urlencode(_WIDGET_PARAMETERS, safe='$')}"


def registration_paths(config: WeftConfig) -> list[Path]:
    """The application-service registrations that Synapse must read."""
    return [config.folder / section.registration for section in (config.home, config.wallet, config.moments)]


def homeserver_text(
    config: WeftConfig, folder: DataFolder, *, authority: LocalAuthority | None, tokens: Tokens
) -> str:
    """A whole homeserver.yaml with fresh secrets; it must be kept from other users of the machine."""
    port = federation_port(config.server_name)
    client_names = ["client", "openid"] if port is not None else ["client", "openid", "federation"]
    blocks = [
        _HEAD,
        f"server_name: {as_yaml(config.server_name)}",
        "# The URL that people enter in their Matrix client.",
        f"public_baseurl: {as_yaml(config.homeserver.public_url.rstrip('/') + '/')}",
        f"pid_file: {as_yaml(str(folder.path / 'synapse' / 'homeserver.pid'))}",
        "",
        "# `openid` is how Weft's pages make sure who opened them in Element.",
        "listeners:",
        *_listener(port_of(config.homeserver.url), ["127.0.0.1"], client_names, tls=False),
        # A public server's clients come through a proxy on this machine, which says who they are.
        *([] if is_loopback_name(config.server_name) else ["    x_forwarded: true"]),
        *(
            _listener(port, federation_addresses(config.server_name), ["federation"], tls=True)
            if port
            else []
        ),
        "",
        *_federation_lines(config, folder, authority),
        "database:",
        "  name: sqlite3",
        "  args:",
        f"    database: {as_yaml(str(folder.homeserver_database))}",
        f"media_store_path: {as_yaml(str(folder.path / 'synapse' / 'media'))}",
        f"log_config: {as_yaml(str(folder.homeserver_log_config))}",
        f"signing_key_path: {as_yaml(str(folder.homeserver_signing_key))}",
        "report_stats: false",
        "",
        "# Secrets. Who has the first one can make users, administrators too.",
        f"registration_shared_secret: {as_yaml(tokens.hex(32))}",
        f"macaroon_secret_key: {as_yaml(tokens.hex(32))}",
        f"form_secret: {as_yaml(tokens.hex(32))}",
        "",
        "# `weft up --open-registration` lets anyone register for as long as that run lasts.",
        "enable_registration: false",
        "",
        "# Weft: the Synapse modules, and the application services that Synapse hands events to.",
        yaml.safe_dump(
            {"modules": synapse_modules(config)},
            sort_keys=False,
            allow_unicode=True,
            width=1000,
        ).rstrip(),
        "app_service_config_files:",
        *(f"  - {as_yaml(str(path))}" for path in registration_paths(config)),
        "",
        _LIMITS,
    ]
    return "\n".join(blocks)


def log_config_text(folder: DataFolder) -> str:
    """Synapse's log config: a file that is renewed each night, kept for three days."""
    return _LOG_CONFIG.format(file=as_yaml(str(folder.logs / "synapse.log")))


def read_homeserver_config(path: Path) -> dict[str, Any]:
    """A homeserver.yaml as Synapse would read it. Raises ConfigInvalid."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid(f"{path} is not UTF-8 text") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}:" if mark else ""
        raise ConfigInvalid(f"{path}:{where} {getattr(error, 'problem', None) or 'not YAML'}") from error
    if not isinstance(content, dict):
        raise ConfigInvalid(f"{path} must hold keys and values")
    return content


def listening_ports(content: dict[str, Any]) -> set[int]:
    """The ports that a homeserver.yaml makes Synapse listen on."""
    listeners = content.get("listeners")
    return {
        listener["port"]
        for listener in (listeners if isinstance(listeners, list) else ())
        if isinstance(listener, dict) and isinstance(listener.get("port"), int)
    }


def _listener(port: int, addresses: list[str], names: list[str], *, tls: bool) -> list[str]:
    return [
        f"  - port: {port}",
        f"    bind_addresses: {_yaml_list(addresses)}",
        "    type: http",
        f"    tls: {as_yaml(tls)}",
        "    resources:",
        f"      - names: {_yaml_list(names)}",
        "        compress: false",
    ]


def _yaml_list(items: list[str]) -> str:
    return "[" + ", ".join(as_yaml(item) for item in items) + "]"


def _federation_lines(config: WeftConfig, folder: DataFolder, authority: LocalAuthority | None) -> list[str]:
    lines = ["# Who is asked for the keys of servers that no longer answer themselves."]
    if is_loopback_name(config.server_name):
        lines.append("trusted_key_servers: []")
    else:
        lines.append('trusted_key_servers: [{server_name: "matrix.org"}]')
    lines.append("suppress_key_server_warning: true")
    if authority is not None:
        lines += [
            "# Federation by TLS with a certificate of a local authority; servers of the same authority are",
            "# trusted, and may be on this machine.",
            f"tls_certificate_path: {as_yaml(str(folder.certificate))}",
            f"tls_private_key_path: {as_yaml(str(folder.certificate_key))}",
            f"federation_custom_ca_list: [{as_yaml(str(authority.certificate))}]",
            'ip_range_whitelist: ["127.0.0.1", "::1"]',
        ]
    return [*lines, ""]


_HEAD = """\
# The config of the Synapse that `weft up` starts. Written once; from then on it is yours, and only
# `weft up --port` changes it again. Everything that Synapse understands may be added:
# https://element-hq.github.io/synapse/latest/usage/configuration/config_documentation.html
"""

_LIMITS = """\
# Rate limits. Synapse's own suit a public server with strangers; this is the machine of a household or a
# small organisation, whose members should never wait. Guessing passwords stays slow: failed logins keep
# Synapse's limit.
rc_message: {per_second: 50, burst_count: 200}
rc_registration: {per_second: 5, burst_count: 100}
rc_login:
  address: {per_second: 10, burst_count: 200}
  account: {per_second: 5, burst_count: 50}
rc_joins:
  local: {per_second: 50, burst_count: 200}
  remote: {per_second: 50, burst_count: 200}
rc_joins_per_room: {per_second: 50, burst_count: 500}
rc_invites:
  per_room: {per_second: 50, burst_count: 500}
  per_user: {per_second: 50, burst_count: 500}
  per_issuer: {per_second: 50, burst_count: 500}
rc_room_creation: {per_second: 10, burst_count: 200}
# Services talk to their peers in rooms; read receipts of theirs are not held back.
federation_rr_transactions_per_room_per_second: 1000
"""

_LOG_CONFIG = """\
# Synapse's log. Everything that Python's logging understands may be changed here.
version: 1
disable_existing_loggers: false
formatters:
  precise:
    format: "%(asctime)s - %(name)s - %(lineno)d - %(levelname)s - %(request)s - %(message)s"
handlers:
  file:
    class: logging.handlers.TimedRotatingFileHandler
    formatter: precise
    filename: {file}
    when: midnight
    backupCount: 3
    encoding: utf8
  buffer:
    # Written in groups, which costs Synapse less; an error is written at once.
    class: synapse.logging.handlers.PeriodicallyFlushingMemoryHandler
    target: file
    capacity: 50
    flushLevel: 30
    period: 2
loggers:
  synapse.storage.SQL:
    level: INFO
root:
  level: INFO
  handlers: [buffer]
"""
