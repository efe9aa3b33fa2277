"""What the console script `weft` loads first: nothing slow, so that Ctrl-C is quiet from the start."""

from __future__ import annotations

import sys

INTERRUPTED_STATUS = 130
"""The exit status after SIGINT, as shells have it."""


def main() -> None:
    try:
        # Imported here, for it takes a moment in which people may think better of it.
        from scripts.weft_cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED_STATUS)
