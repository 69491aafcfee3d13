"""Readiness: the response of a daemon or sidecar at ``/readyz``."""

from __future__ import annotations

import msgspec

__all__ = ["Readiness"]


class Readiness(msgspec.Struct, frozen=True):
    """Whether the process can serve, and why not."""

    ready: bool
    leads: bool
    reason: str | None = None
