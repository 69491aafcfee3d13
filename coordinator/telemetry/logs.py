"""Log lines: JSON, or readable text on a terminal. Events are named ``<noun>.<past participle>``.

Every line contains what is known about its cause (``telemetry.cause``), besides its own facts.
"""

from __future__ import annotations

import logging
import math
import sys
from typing import Any, Literal

import structlog

from coordinator.telemetry import cause, slow

__all__ = ["LogFormat", "configure"]

LogFormat = Literal["auto", "json", "console"]


def configure(*, format: LogFormat = "auto", level: str = "info", slow_call_s: float = math.inf) -> None:
    """Write log lines to standard error; ``auto`` is readable text on a terminal, otherwise JSON. Calls longer than ``slow_call_s`` are logged."""
    slow.threshold_s = slow_call_s
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _with_cause,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[structlog.typing.Processor]
    if console:
        renderer = [structlog.dev.ConsoleRenderer()]
    else:
        renderer = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries use the standard module; format their lines in the same way.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))


def _with_cause(_logger: Any, _method: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add what is known about its cause to a line, without replacing the line's own facts."""
    for name, value in cause.facts().items():
        line.setdefault(name, value)
    return line
