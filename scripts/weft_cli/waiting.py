"""Waiting for the homeserver: not for long, and not in silence."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from appservices.chassis.config import WeftConfig

ANSWER_SECONDS_MAX = 10.0
"""How long a command waits for one answer of the homeserver; a person sits before it."""
SILENCE_SECONDS_MAX = 2.0
"""After that long a command says what it waits for."""


@contextmanager
def told_when_slow(config: WeftConfig) -> Iterator[None]:
    """Says that the homeserver is waited for, on the error stream, when it takes long."""
    sentence = f"Waiting for the homeserver at {config.homeserver.url} ..."
    timer = threading.Timer(SILENCE_SECONDS_MAX, lambda: print(sentence, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def silent_homeserver(config: WeftConfig) -> str:
    """What to say when there was no answer in time."""
    return (
        f"the homeserver at {config.homeserver.url} did not answer within {ANSWER_SECONDS_MAX:.0f} seconds: "
        "`weft doctor` looks further"
    )


def start_remedy(config: WeftConfig) -> str:
    """What helps when the homeserver isn't there."""
    if config.homeserver.managed:
        return "start it with `weft up`"
    return f"start your Synapse, or correct homeserver.url in {config.folder / 'weft.yaml'}"
