"""A real Synapse with the room_extensions module, and service users that nothing runs behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml

from tests.synapse import MatrixUser, Synapse

AS_TOKENS: Final = {"weft": "as-token-of-weft", "wallet": "as-token-of-wallet"}


def write_registrations(folder: Path, server_name: str) -> list[str]:
    """One application service each for @weft and @wallet, which Synapse pushes nothing to."""
    paths = []
    for localpart, token in AS_TOKENS.items():
        path = folder / f"{localpart}.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "id": localpart,
                    "url": None,
                    "as_token": token,
                    "hs_token": f"hs-token-of-{localpart}",
                    "sender_localpart": f"_weft_{localpart}",
                    "rate_limited": False,
                    "namespaces": {
                        "users": [{"exclusive": True, "regex": f"@{localpart}:{server_name}"}],
                    },
                }
            )
        )
        paths.append(str(path))
    return paths


def module_config(synapse: Synapse, **settings: Any) -> dict[str, Any]:
    """homeserver.yaml with the module loaded; settings are merged into its section."""
    section = {
        "home_user": f"@weft:{synapse.server_name}",
        "services": {"payments": f"@wallet:{synapse.server_name}"},
        "home_members": [f"@wallet:{synapse.server_name}"],
        "widgets": [{"id": "weft_wallet", "name": "Wallet", "url": "http://127.0.0.1:8009/wallet"}],
    }
    module = {
        "module": "synapse_modules.room_extensions.RoomExtensions",
        "config": section | settings,
    }
    return {
        "modules": [module],
        "app_service_config_files": write_registrations(synapse.folder, synapse.server_name),
    }


async def register_services(synapse: Synapse) -> MatrixUser:
    """Both service users; returns @wallet."""
    await synapse.register_service_user("weft", as_token=AS_TOKENS["weft"])
    return await synapse.register_service_user("wallet", as_token=AS_TOKENS["wallet"])
