"""`weft down`: stops what `weft up` started, and waits until it has stopped."""

from __future__ import annotations

from rich.console import Console

from scripts.weft_cli.data_folder import DataOption, find_data_folder
from scripts.weft_cli.failure import CommandFailed
from scripts.weft_cli.running import stop_running
from scripts.weft_cli.supervisor import STOP_SECONDS_MAX

DOWN_SECONDS_MAX = 3 * STOP_SECONDS_MAX
"""Each of two programs may take its time to stop; a little more for what is around them."""


def down(data: DataOption = None) -> None:
    """Stop what `weft up` started, and wait until it has stopped."""
    folder = find_data_folder(data)
    console = Console(highlight=False, soft_wrap=True)
    with console.status("Stopping ..."):
        stopped = stop_running(folder, seconds_max=DOWN_SECONDS_MAX)
    if stopped is None:
        console.print(f"Weft isn't running in {folder.path}.", markup=False)
    elif stopped:
        console.print("Stopped.")
    else:
        raise CommandFailed(
            f"Weft did not stop within {DOWN_SECONDS_MAX:.0f} seconds and was killed; nothing that was "
            "committed is lost."
        )
