"""The settings: their types and defaults, the range of each number, and which of them are secrets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Literal

import msgspec

__all__ = ["ADDRESSES", "ALIASES", "PREFIX", "RANGES", "SECRETS", "Config"]

PREFIX = "COORDINATOR_"
ALIASES = {
    "database_url": "DATABASE_URL",
    "max_connections": "MAX_CONNECTIONS",
    "pod_name": "POD_NAME",
    "pod_namespace": "POD_NAMESPACE",
}
SECRETS = frozenset({"database_url", "direct_url", "token"})
ADDRESSES = frozenset({"database_url", "direct_url"})


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. Durations are in seconds where the name ends in ``_s``."""

    database_url: str | None = None
    direct_url: str | None = None
    token: str | None = None
    data_dir: Path = Path("~/.local/share/coordinator").expanduser()
    min_connections: int = 5
    max_connections: int = 20
    connect_limit_s: float = 60.0
    call_timeout_s: float = 30.0
    statement_cache_size: int = 100
    schema: Literal["apply", "verify"] = "apply"
    host: str = "127.0.0.1"
    port: int = 7420
    access: Literal["auto", "open", "tokens"] = "auto"
    hosts: str | None = None
    origins: str | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    http_connections: int = 21_000
    http_head_bytes: int = 32 << 10
    http_head_s: float = 10.0
    http_body_bytes: int = 1 << 20
    http_body_s: float = 60.0
    http_keep_alive_s: float = 75.0
    http_queue: int = 1000
    http_queue_s: float = 2.0
    http_streams: int = 20_000
    http_wait_s: float = 60.0
    http_heartbeat_s: float = 15.0
    http_write_deadline_s: float = 30.0
    http_buffer_bytes: int = 64 << 10
    http_page: int = 500
    http_log_readers: int = 4
    http_ring_events: int = 20_000
    http_ring_bytes: int = 16 << 20
    http_topics: int = 100
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    event_retention: timedelta = timedelta(days=7)
    directive_retention: timedelta = timedelta(days=30)
    idempotency_retention: timedelta = timedelta(days=1)
    project: str = "default"
    actor: str | None = None
    agent: str | None = None
    role: str | None = None
    listen: str = "127.0.0.1:7421"
    socket: Path | None = None
    pod_name: str | None = None
    pod_namespace: str | None = None
    pod_labels: Path = Path("/etc/podinfo/labels")
    output: Literal["auto", "text", "json"] = "auto"

    @property
    def names(self) -> tuple[str, ...]:
        """The names that the daemon may be called by, beside localhost."""
        return tuple(name.strip() for name in (self.hosts or "").split(",") if name.strip())


# Of numbers and durations (in seconds): the least and the most.
RANGES: Mapping[str, tuple[float, float]] = {
    "min_connections": (1, 1000),
    "max_connections": (1, 1000),
    "connect_limit_s": (0, 86400),
    "call_timeout_s": (0.1, 3600),
    "statement_cache_size": (0, 10000),
    "port": (0, 65535),
    "http_connections": (1, 1_000_000),
    "http_head_bytes": (1024, 1 << 20),
    "http_head_s": (0.1, 3600),
    "http_body_bytes": (1024, 64 << 20),
    "http_body_s": (0.1, 3600),
    "http_keep_alive_s": (61, 3600),  # clients let go of a connection after 60
    "http_queue": (0, 100_000),
    "http_queue_s": (0.01, 60),
    "http_streams": (1, 1_000_000),
    "http_wait_s": (0.1, 3600),
    "http_heartbeat_s": (1, 30),  # clients take 45 seconds of silence for the end
    "http_write_deadline_s": (0.1, 3600),
    "http_buffer_bytes": (1024, 16 << 20),
    "http_page": (1, 10_000),
    "http_log_readers": (1, 1000),
    "http_ring_events": (1, 10_000_000),
    "http_ring_bytes": (1024, 4 << 30),
    "http_topics": (1, 1000),
    "event_retention": (1, 31622400),
    "directive_retention": (1, 31622400),
    "idempotency_retention": (1, 31622400),
}
