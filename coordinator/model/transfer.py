"""Export and import of a project: lines and their positions."""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.errors import InvalidArgument

__all__ = ["ExportLine", "ImportProgress", "place_of_line"]

_PLACES = {  # type → section, and the fields of the rest of the position
    "retention": ("1", "subject", "kind", ""),
    "rule": ("2", "", "when_set", ""),
    "signal": ("3", "", "key", ""),
    "session": ("4", "", "key", ""),
    "log": ("5", "kind", "key", ""),
    "entry": ("5", "kind", "key", "seq"),
    "document": ("6", "kind", "key", ""),
    "version": ("6", "kind", "key", "version"),
    "part": ("7", "", "sha256", "part"),
    "artifact": ("8", "session", "name", ""),
}
_CONTENT = "1000"  # a content comes after its parts


class ExportLine(msgspec.Struct, frozen=True):
    """A line of an export, which is an object of JSON, and its place: section, kind, key, number."""

    section: int
    kind: str
    key: str
    number: int
    line: str


class ImportProgress(msgspec.Struct, frozen=True):
    """The progress of an import: how many lines of the export ``export`` are in the project."""

    project: str
    export: str
    lines: int
    finished: bool


def place_of_line(line: dict[str, Any]) -> list[str] | None:
    """Return the place of a line, after which an export continues; None for the last line.

    Raises: ``InvalidArgument``.
    """
    kind = line.get("type")
    if kind == "end":
        return None
    if kind is None and "format" in line:
        return ["0", "", "", "0"]
    if kind == "project":
        return ["0", "", "", "1"]
    if kind == "content":
        return ["7", "", str(line["sha256"]), _CONTENT]
    if kind not in _PLACES:
        raise InvalidArgument("the file is not an export of a project", hint="Give another file.", code="ZC105")
    section, *names = _PLACES[kind]
    *texts, number = [str(line.get(name) or "") for name in names]
    return [section, *texts, number or "0"]
