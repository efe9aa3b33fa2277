"""`weft attach`: says exactly what to add to an existing Synapse's config. It changes nothing itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from appservices.chassis.config import WeftConfig, load_config
from scripts.weft_cli.data_folder import DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.homeserver import (
    read_homeserver_config,
    registration_paths,
    synapse_modules,
)

INVITES_OF_ONE_USER_MIN = 50
"""A burst limit below this would refuse invites of the wallet on a busy day."""


def attach(
    homeserver_yaml: Annotated[
        Path, typer.Option("--homeserver-yaml", metavar="FILE", help="The Synapse's homeserver.yaml.")
    ],
    data: DataOption = None,
) -> None:
    """Print what to add to an existing Synapse so that it works with this Weft."""
    folder = find_data_folder(data)
    config = load_config(folder.path)
    content = read_homeserver_config(homeserver_yaml)
    additions = missing_from(content, config, base=homeserver_yaml.resolve().parent)
    if not additions:
        print(f"# {homeserver_yaml} has all that Weft needs.")
        return
    print(f"# To be added to {homeserver_yaml}; restart Synapse then.")
    for comment, addition in additions:
        print()
        print(f"# {comment}")
        if addition:
            print(yaml.safe_dump(addition, sort_keys=False, allow_unicode=True, width=1000), end="")


def missing_from(
    content: dict[str, Any], config: WeftConfig, *, base: Path
) -> list[tuple[str, dict[str, Any]]]:
    """What the Synapse config lacks: a comment and the YAML to add, in the order of the file.

    Relative paths of the config are taken from `base`. Raises CommandFailed when it is another server's.
    """
    server_name = content.get("server_name")
    if server_name != config.server_name:
        raise CommandFailed(
            f"That Synapse's server_name is {server_name}, and this Weft's is {config.server_name} "
            f"({config.folder / 'weft.yaml'}): they must be the same."
        )
    return [
        *_missing_modules(content, config),
        *_missing_registrations(content, config, base),
        *_missing_openid(content),
        *_missing_invite_limit(content),
    ]


def _missing_modules(content: dict[str, Any], config: WeftConfig) -> list[tuple[str, dict[str, Any]]]:
    modules = [item for item in _listed(content, "modules") if isinstance(item, dict)]
    present = {item.get("module"): item.get("config") for item in modules}
    new, changed = [], []
    for wanted in synapse_modules(config):
        if wanted["module"] not in present:
            new.append(wanted)
        elif present[wanted["module"]] != wanted["config"]:
            changed.append(wanted)
    additions: list[tuple[str, dict[str, Any]]] = []
    if changed:
        comment = "In place of the present entries of these modules under `modules`:"
        additions.append((comment, {"modules": changed}))
    if new:
        comment = (
            "More entries under `modules`, which is there already:"
            if modules
            else "The Synapse modules; Weft must be installed in Synapse's own Python environment:"
        )
        additions.append((comment, {"modules": new}))
    return additions


def _missing_registrations(
    content: dict[str, Any], config: WeftConfig, base: Path
) -> list[tuple[str, dict[str, Any]]]:
    listed = _listed(content, "app_service_config_files")
    present = {os.path.realpath(base / str(item)) for item in listed}
    missing = [str(path) for path in registration_paths(config) if os.path.realpath(path) not in present]
    if not missing:
        return []
    comment = (
        "More entries under `app_service_config_files`, which is there already:"
        if listed
        else "The registrations of Weft's services; Synapse's user must be able to read these files:"
    )
    return [(comment, {"app_service_config_files": missing})]


def _missing_openid(content: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    names = {
        str(name)
        for listener in _listed(content, "listeners")
        if isinstance(listener, dict)
        for resource in listener.get("resources") or []
        if isinstance(resource, dict)
        for name in resource.get("names") or []
    }
    if {"openid", "federation"} & names:
        return []
    return [
        (
            "And `openid` beside `client` in the `names` of a listener's `resources`: by it Weft's pages "
            "make sure who opened them.",
            {},
        )
    ]


def _missing_invite_limit(content: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    limits = content.get("rc_invites")
    per_user = limits.get("per_user") if isinstance(limits, dict) else None
    burst = per_user.get("burst_count") if isinstance(per_user, dict) else None
    if isinstance(burst, int) and burst >= INVITES_OF_ONE_USER_MIN:
        return []
    # The other limits under the same key stay as they are.
    kept = limits if isinstance(limits, dict) else {}
    per_user_wanted = {"per_second": 5, "burst_count": 200}
    comment = (
        "In place of the present `rc_invites`:"
        if kept
        else "Everybody invites the same service users; Synapse's own limit is five invites of one user, "
        "then one in five minutes:"
    )
    return [(comment, {"rc_invites": {**kept, "per_user": per_user_wanted}})]


def _listed(content: dict[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    return value if isinstance(value, list) else []
