"""People who become contacts, and a real Synapse with the contacts module for a service that nothing runs."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

import yaml

from tests.synapse import MatrixUser, Synapse, eventually

AS_TOKEN: Final = "as-token-of-moments"


def contacts_config(synapse: Synapse) -> dict[str, Any]:
    """homeserver.yaml with the module, and @moments registered as a service."""
    path = synapse.folder / "moments.yaml"
    registration = {
        "id": "moments",
        "url": None,
        "as_token": AS_TOKEN,
        "hs_token": "hs-token-of-moments",
        "sender_localpart": "_weft_moments",
        "rate_limited": False,
        "namespaces": {"users": [{"exclusive": True, "regex": f"@moments:{synapse.server_name}"}]},
    }
    path.write_text(yaml.safe_dump(registration))
    module = {
        "module": "synapse_modules.contacts.Contacts",
        "config": {"service_users": [f"@moments:{synapse.server_name}"]},
    }
    return {"modules": [module], "app_service_config_files": [str(path)]}


async def service_user(synapse: Synapse) -> MatrixUser:
    return await synapse.register_service_user("moments", as_token=AS_TOKEN)


async def become_contacts(one: MatrixUser, other: MatrixUser) -> str:
    """As two clients do it: an invite to a direct chat, accepted, and noted in both accounts."""
    room_id = await one.create_room(is_direct=True, preset="trusted_private_chat", invite=[other.user_id])
    if one.synapse is other.synapse:
        await other.join(room_id)
    else:

        async def joined() -> bool:
            await other.join(room_id, via=one.synapse.server_name)
            return True

        await eventually(joined)

        async def seen() -> bool:
            return await one.membership(room_id, other.user_id) == "join"

        await eventually(seen)
    await note_direct(one, other.user_id, room_id)
    await note_direct(other, one.user_id, room_id)
    return room_id


async def note_direct(user: MatrixUser, other: str, room_id: str) -> None:
    """Adds the room to those that the account calls direct ones with the other."""
    direct = await user.account_data("m.direct") or {}
    await put_account_data(user, "m.direct", {**direct, other: [*direct.get(other, []), room_id]})


async def ignore(user: MatrixUser, *others: str) -> None:
    """Ignores those and nobody else."""
    listed: dict[str, Any] = {"ignored_users": {other: {} for other in others}}
    await put_account_data(user, "m.ignored_user_list", listed)


async def put_account_data(user: MatrixUser, data_type: str, content: dict[str, Any]) -> None:
    await user.request("PUT", f"/user/{quote(user.user_id)}/account_data/{quote(data_type)}", content)
