"""Projects."""

from __future__ import annotations

from datetime import datetime

import msgspec

from coordinator.model.operation import Json

__all__ = ["Project", "ProjectContents"]


class Project(msgspec.Struct, frozen=True):
    """A project, which contains everything else. ``paths`` says how its locks compare paths: exact, normal or caseless.

    ``username`` says whose it is; ``settings`` is an object of the callers' own.
    """

    project: str
    description: str
    created_at: datetime
    paths: str
    username: str | None
    title: str
    settings: dict[str, Json]
    updated_at: datetime


class ProjectContents(msgspec.Struct, frozen=True):
    """A project and how much it contains: agents, signals, open directives and held locks."""

    project: str
    description: str
    created_at: datetime
    agent_count: int
    signal_count: int
    directive_count: int
    lock_count: int
    paths: str
    username: str | None
    title: str
    settings: dict[str, Json]
    updated_at: datetime
