"""Settings: the only place that reads the environment. Command line before environment before profile before default."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

import msgspec

__all__ = ["Config"]


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that can be set. Durations are in seconds where the name ends in ``_s``."""

    database_url: str | None = None
    direct_url: str | None = None
    data_dir: Path = Path("~/.local/share/coordinator").expanduser()
    min_connections: int = 5
    max_connections: int = 20
    connect_limit_s: float = 60.0
    call_timeout_s: float = 30.0
    statement_cache_size: int = 100
    schema: Literal["apply", "verify"] = "apply"
    host: str = "127.0.0.1"
    port: int = 7420
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    event_retention: timedelta = timedelta(days=7)
    directive_retention: timedelta = timedelta(days=30)
