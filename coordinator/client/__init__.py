"""The Python client: the verbs of every other interface, as methods of one class per noun.

    async with coordinator.connect("postgresql://…", agent="coder", role="developer") as client:
        await client.signals.set("build/state", "green", ttl=3600)
        async for event in client.events.stream(topics=["signal.*"]):
            ...
        async with client.lock("src/app.py", ttl=30, wait=10) as held:
            ...

Guarantees: every call is one round trip and one transaction, ends within ``Config.call_timeout_s``, and raises only errors of
``coordinator.errors``. Reads are retried until then. Writes are never retried: a lost response may mean that the write
succeeded, and only the caller knows whether to repeat it (``expect`` makes that safe). A stream of events reconnects after
every interruption and continues where it was.

What it deliberately does not do: offer a synchronous twin, cache anything, or register a lost agent again.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.client.connection import Client, connect
    from coordinator.client.events import EventStream
    from coordinator.client.held import Handle, Held, LockLost
    from coordinator.client.lease import LeaseState
    from coordinator.client.listing import Listing
    from coordinator.client.logs import LogReset
    from coordinator.client.presence import Presence
    from coordinator.model.page import Page

# Imported late, as in the package above, so that modules that import only one of these do not import the others.
_PLACE_OF = {
    "Client": "coordinator.client.connection",
    "EventStream": "coordinator.client.events",
    "Handle": "coordinator.client.held",
    "Held": "coordinator.client.held",
    "LeaseState": "coordinator.client.lease",
    "Listing": "coordinator.client.listing",
    "LockLost": "coordinator.client.held",
    "LogReset": "coordinator.client.logs",
    "Page": "coordinator.model.page",
    "Presence": "coordinator.client.presence",
    "connect": "coordinator.client.connection",
}

__all__ = [
    "Client",
    "EventStream",
    "Handle",
    "Held",
    "LeaseState",
    "Listing",
    "LockLost",
    "LogReset",
    "Page",
    "Presence",
    "connect",
]


def __getattr__(name: str) -> Any:
    if name in _PLACE_OF:
        return getattr(import_module(_PLACE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
