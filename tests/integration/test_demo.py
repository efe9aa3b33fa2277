"""`scripts/demo` tells its story to the end."""

from __future__ import annotations

import subprocess
from pathlib import Path

DEMO = Path(__file__).parents[2] / "scripts" / "demo"
STORY_SECONDS_MAX = 420


def test_the_demo_tells_its_story_to_the_end() -> None:
    told = subprocess.run(
        [DEMO],
        capture_output=True,
        text=True,
        timeout=STORY_SECONDS_MAX,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert told.returncode == 0, told.stdout + told.stderr
    for scene in (
        "Alice paid Bob €12.50 · soup again",
        "has verified its signature",
        "Bob paid Alice €2.50 · tea",
        "Alice paid Bob €3.00 · cinema",
        "It is empty: 2 of 2",
        "Alice paid Carol €20.00 · train tickets",
        "Alice paid Carol €3.00 · coffee",
        "has settled €23.00",
        "The ledger is right",
        "The end",
    ):
        assert scene in told.stdout
    assert "Traceback" not in told.stdout + told.stderr
