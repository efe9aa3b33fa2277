"""Application-service registrations: the files by which Synapse and a service know each other."""

from __future__ import annotations

import re

from appservices.chassis.clock import Tokens
from appservices.chassis.config import WeftConfig
from scripts.weft_cli.yaml_values import as_yaml


def registration_text(
    config: WeftConfig,
    *,
    service: str,
    registration_id: str,
    localpart: str,
    tokens: Tokens,
    wants_receipts: bool = False,
) -> str:
    """A registration with fresh tokens for one service user, whom nobody else may then register.

    `wants_receipts`: Synapse tells the service who has read in its rooms.
    Source: Matrix spec, Application Service API, Registration; MSC4190 for the bot's devices.
    """
    user = re.escape(f"@{localpart}:{config.server_name}").replace("\\-", "-") + "$"
    return "\n".join(
        (
            "# An application service of Weft. Synapse reads this file at its start, and so does Weft.",
            "# The tokens are secrets.",
            f"id: {as_yaml(registration_id)}",
            "# Where Synapse sends this service its events.",
            f"url: {as_yaml(service_url(config, service))}",
            f"as_token: {as_yaml(tokens.hex(32))}",
            f"hs_token: {as_yaml(tokens.hex(32))}",
            "# A user that only Synapse's bookkeeping needs; it never speaks.",
            f"sender_localpart: {as_yaml(f'_weft_{service_word(registration_id)}')}",
            "namespaces:",
            f"  users: [{{exclusive: true, regex: {as_yaml(user)}}}]",
            "  aliases: []",
            "  rooms: []",
            "rate_limited: false",
            *(
                (
                    "# Who has read in the service's rooms: whoever is there again is told what they missed.",
                    "receive_ephemeral: true",
                )
                if wants_receipts
                else ()
            ),
            "# Lets the service make its own devices for end-to-end encryption (MSC4190).",
            "io.element.msc4190: true",
            "",
        )
    )


def service_url(config: WeftConfig, service: str) -> str:
    """The base URL of a service's transactions on Weft's own listener."""
    address = "127.0.0.1" if config.web.bind_address in ("0.0.0.0", "::") else config.web.bind_address
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{config.web.port}/_weft/appservice/{service}"


def service_word(registration_id: str) -> str:
    """`home` for Weft's own registration, `wallet` for `weft_wallet`."""
    return registration_id.removeprefix("weft").removeprefix("_") or "home"
