"""The daemon's own work: leading and relaying."""

from __future__ import annotations

from datetime import datetime

import msgspec

__all__ = ["Beat", "Lead", "Step"]


class Beat(msgspec.Struct, frozen=True):
    """Which history of which database a server has, when its leader last renewed its lead, and the server's time."""

    origin: str
    renewed_at: datetime | None
    now: datetime


class Lead(msgspec.Struct, frozen=True):
    """Whether a process leads, in which term, and which loops have work now; and the epoch of the server, if it has begun."""

    leads: bool
    term: int
    due: list[str]
    epoch: str | None = None


class Step(msgspec.Struct, frozen=True):
    """One step of the relay: how many events it numbered, the last number, and whether to continue immediately."""

    moved: int
    head_seq: int
    again: bool
