"""The daemon's own work: leading and relaying."""

from __future__ import annotations

import msgspec

__all__ = ["Lead", "Step"]


class Lead(msgspec.Struct, frozen=True):
    """Whether a process leads, in which term, and which loops have work now."""

    leads: bool
    term: int
    due: list[str]


class Step(msgspec.Struct, frozen=True):
    """One step of the relay: how many events it numbered, the last number, and whether to continue immediately."""

    moved: int
    head_seq: int
    again: bool
