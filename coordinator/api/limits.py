"""What the HTTP face accepts and keeps, at the most. What the functions accept is in ``coordinator.limits``."""

from __future__ import annotations

import msgspec

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one daemon. Durations are in seconds where the name ends in ``_s``."""

    body_bytes: int = 1 << 20  # of a request; beyond: 413
    running: int = 20  # calls at once, as many as the pool has connections; more queue
    queued: int = 1000  # calls in the queue; beyond: 503
    queue_s: float = 2.0  # a call waits so long for its turn; beyond: 503
    connections: int = 20_000  # streams and long-polls at once; beyond: 503
    wait_s: float = 60.0  # longest long-poll
    heartbeat_s: float = 15.0  # a stream without events gets a sign of life so often
    write_deadline_s: float = 30.0  # a stream that takes nothing for so long is closed
    leave_s: float = 2.0  # a stream that is closed has so long to take what was written
    buffer_bytes: int = 64 << 10  # written ahead of a stream's reader; beyond: it goes on from the ring or the log
    page: int = 500  # events that are read from the log at once
    log_readers: int = 4  # streams that read the log at once, each on a connection of the pool
    ring_events: int = 20_000  # the newest events, ready to be sent
    ring_bytes: int = 16 << 20
    topics: int = 100  # topics of a subscription, projects of a subscription
    idempotency_s: float = 86400.0  # an answer is kept for repetitions
