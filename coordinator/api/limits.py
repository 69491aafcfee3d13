"""What the HTTP face accepts and keeps, at the most. What the functions accept is in ``coordinator.limits``."""

from __future__ import annotations

import msgspec

from coordinator.config import Config

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one daemon: the settings ``http_…``, whose table says what each is. Durations in ``_s`` are in seconds."""

    running: int  # calls at once, as many as the pool has connections; more queue
    idempotency_s: float
    connections: int
    head_bytes: int
    head_s: float
    body_bytes: int
    body_s: float
    keep_alive_s: float
    queue: int
    queue_s: float
    streams: int
    wait_s: float
    heartbeat_s: float
    write_deadline_s: float
    buffer_bytes: int
    page: int
    log_readers: int
    ring_events: int
    ring_bytes: int
    topics: int

    @classmethod
    def of(cls, config: Config) -> Limits:
        """Take the limits from the settings."""
        settings = msgspec.structs.asdict(config)
        http = {name: settings[f"http_{name}"] for name in cls.__struct_fields__ if f"http_{name}" in settings}
        return cls(running=config.max_connections, idempotency_s=config.idempotency_retention.total_seconds(), **http)
