"""A Synapse module that makes Synapse look every other second for servers that it has not reached.

Synapse itself does so once a minute, and a test that mends a broken federation would mostly wait for that.
What is sent, when it counts as failed and how it is tried again stays as Synapse has it.
"""

from __future__ import annotations

from typing import Any

from synapse.federation import sender
from synapse.util.duration import Duration

# Modules are imported while the config is read, before Synapse makes what sends to other servers.
sender.WAKEUP_RETRY_PERIOD = Duration(seconds=2)
sender.WAKEUP_INTERVAL_BETWEEN_DESTINATIONS = Duration(milliseconds=100)


class ImpatientFederation:
    """What Synapse makes of the module; all is done by then."""

    def __init__(self, _config: Any, _api: Any) -> None:
        return
