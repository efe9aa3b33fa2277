"""Beside a Synapse of one's own: whether it knows our registrations, asked before the services start."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from appservices.chassis.config import WeftConfig, load_registration
from scripts.weft_cli.failure import CommandFailed

ANSWER_SECONDS_MAX = 5.0


def check_tokens_are_known(config: WeftConfig) -> None:
    """Raises CommandFailed when that Synapse says that it doesn't know a token of ours.

    One that doesn't answer may start later: the services wait for it. Source: Matrix spec, whoami.
    """
    url = f"{config.homeserver.url.rstrip('/')}/_matrix/client/v3/account/whoami"
    with httpx.Client(timeout=ANSWER_SECONDS_MAX, trust_env=False) as client:
        for key, section in (("home", config.home), ("wallet", config.wallet)):
            token = load_registration(config, section.registration).as_token
            try:
                response = client.get(
                    f"{url}?user_id={quote(config.user(section.localpart))}",
                    headers={"Authorization": f"Bearer {token}"},
                )
                answer = response.json()
            except (httpx.HTTPError, ValueError):
                return
            if isinstance(answer, dict) and answer.get("errcode") == "M_UNKNOWN_TOKEN":
                raise CommandFailed(
                    f"The homeserver at {config.homeserver.url} doesn't know the as_token of "
                    f"{config.folder / section.registration} ({key}.registration): that file must be in "
                    "app_service_config_files of its homeserver.yaml, and Synapse restarted since; "
                    "`weft attach --homeserver-yaml FILE` says what is missing."
                )
