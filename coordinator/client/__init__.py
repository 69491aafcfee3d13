"""The Python client: the same verbs as everywhere, as methods of one class for each noun.

    async with coordinator.connect("postgresql://…", agent="coder", role="developer") as client:
        await client.signals.set("build/state", "green", ttl=3600)
        async for event in client.events.stream(topics=["signal.*"]):
            ...
        async with client.lock("src/app.py", ttl=30, wait=10) as held:
            ...

Guarantees: every call is one round trip and one transaction, ends within ``Config.call_timeout_s``, and raises an error of
``coordinator.errors`` or nothing. Reads are tried again until then; what changes something never is, since a lost answer
may have been a done deed: the caller knows whether to repeat it (``expect`` makes that safe). A stream of events comes
back by itself after every interruption and goes on where it was.

It deliberately has no synchronous twin, keeps no copy of anything, and never registers a lost agent again by itself.
"""

from __future__ import annotations

from coordinator.client.connection import Client, connect
from coordinator.client.events import EventStream
from coordinator.client.held import Handle, Held, LockLost
from coordinator.client.lease import LeaseState
from coordinator.client.listing import Listing
from coordinator.client.presence import Presence
from coordinator.model.page import Page

__all__ = [
    "Client",
    "EventStream",
    "Handle",
    "Held",
    "LeaseState",
    "Listing",
    "LockLost",
    "Page",
    "Presence",
    "connect",
]
