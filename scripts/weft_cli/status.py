"""`weft status`: whether it runs, as which processes, and at which addresses."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from scripts.weft_cli.data_folder import DataOption, find_data_folder
from scripts.weft_cli.running import read_running

NOT_RUNNING_STATUS = 3
"""The exit status when it doesn't run, as init scripts have it (LSB)."""

JsonOption = Annotated[bool, typer.Option("--json", help="Answer with JSON.")]


def status(data: DataOption = None, as_json: JsonOption = False) -> None:
    """Say whether Weft runs. Exit status 3 when it doesn't."""
    folder = find_data_folder(data)
    running = read_running(folder)
    if as_json:
        answer = {
            "state": running.state if running else "stopped",
            "data": str(folder.path),
            "homeserver_url": running.homeserver_url if running else None,
            "portal_url": running.portal_url if running else None,
            "pids": {
                "supervisor": running.pid if running else None,
                "synapse": running.synapse if running else None,
                "services": running.services if running else None,
            },
            "restarts": running.restarts if running else {},
        }
        print(json.dumps(answer))
    else:
        console = Console(highlight=False, soft_wrap=True)
        if running is None:
            console.print(f"stopped     {folder.path}", markup=False)
        else:
            for name, value in (
                (running.state, folder.path),
                ("supervisor", f"process {running.pid}"),
                ("Synapse", f"process {running.synapse}" if running.synapse else "no process"),
                ("services", f"process {running.services}" if running.services else "no process"),
                ("homeserver", running.homeserver_url),
                ("portal", running.portal_url),
            ):
                console.print(f"{name:<12}{value}", markup=False)
    if running is None:
        raise typer.Exit(NOT_RUNNING_STATUS)
