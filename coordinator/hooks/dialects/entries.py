"""The entries that belong in the settings of a tool, as data."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Element", "Member", "SettingsScope", "Setup"]


class SettingsScope(StrEnum):
    """Which settings: those of the repository, which are committed, or those of the user."""

    PROJECT = "project"
    USER = "user"


class Member(msgspec.Struct, frozen=True):
    """A value at a path of names. ``shared`` ones are added if missing, and never changed or removed."""

    path: tuple[str, ...]
    value: Any
    shared: bool = False


class Element(msgspec.Struct, frozen=True):
    """An element of the list at a path of names."""

    path: tuple[str, ...]
    value: Any


class Setup(msgspec.Struct, frozen=True):
    """A settings file and the entries that belong there.

    ``file`` is relative to the repository, or to the user's home. ``lists`` is the path whose members are lists of
    entries; coordinator entries that are not wanted are removed from each list. ``moved`` is an environment variable,
    and the folder of the home directory that it replaces for the user's files. ``note`` tells the user what remains to
    be done.
    """

    file: Path
    members: tuple[Member, ...] = ()
    elements: tuple[Element, ...] = ()
    lists: tuple[str, ...] = ()
    moved: tuple[str, str] | None = None
    note: str = ""
