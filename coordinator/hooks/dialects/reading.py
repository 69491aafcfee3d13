"""Shared by all dialects: the classes of calls, and the files in a call's arguments.

Tools differ in the names of their calls, but nearly agree in the names of the arguments. So each dialect classifies the
calls, while the files are found in the same way for all, whatever the spelling, number or nesting: no file may be
missed after an update of a tool.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from itertools import chain, islice, pairwise
from typing import Any

from coordinator.hooks.event import Action, File, Kind

__all__ = ["Effect", "choose", "files", "kind_of", "mapping", "text"]


class Effect(StrEnum):
    """The effect of a tool call."""

    READ = "read"
    WRITE = "write"
    EDIT = "edit"
    RENAME = "rename"
    DELETE = "delete"
    SHELL = "shell"


PATHS = (
    "file_path",
    "filePath",
    "path",
    "notebook_path",
    "notebookPath",
    "target_file",
    "target_notebook",
    "absolute_path",
    "relative_workspace_path",
    "old_path",
    "oldPath",
    "new_path",
    "newPath",
    "source",
    "destination",
)
LISTS = ("files", "file_paths", "filePaths", "paths", "edits", "replacements", "changes")
PATCHES = ("command", "input", "patch", "patchText", "diff")
MOST = 10_000  # files per call; far fewer can be leased together
NESTED = 3  # lists of edits contain files, which contain edits
PATCH = r"(?m)^[ \t]*\*\*\* (Add File|Update File|Delete File|Move to): (.*)$"  # compiled at the first patch
BEGIN = "*** Begin Patch"
CALLS = {
    "before": {Effect.READ: Kind.BEFORE_READ, Effect.SHELL: Kind.BEFORE_SHELL},
    "after": {Effect.READ: Kind.AFTER_READ, Effect.SHELL: Kind.AFTER_SHELL},
}
EDITS = {"before": Kind.BEFORE_EDIT, "after": Kind.AFTER_EDIT}


def text(payload: dict[str, Any], *names: str) -> str | None:
    """Return the first of the named fields that is a non-empty text."""
    for name in names:
        found = payload.get(name)
        if isinstance(found, str) and found:
            return found
    return None


def mapping(found: object) -> dict[str, Any]:
    """Return an object of a payload, or an empty object if it is something else."""
    return found if isinstance(found, dict) else {}


def choose(uses: dict[str, Effect], name: str | None) -> Effect | None:
    """Return the effect of a call by the tool's name, ignoring case."""
    return uses.get((name or "").casefold())


def kind_of(moment: str, use: Effect | None) -> Kind:
    """Return the kind of an event before or after a call; calls that change no files are ignored."""
    if use is None:
        return Kind.OTHER
    return CALLS[moment].get(use) or EDITS[moment]


def files(arguments: object, use: Effect | None) -> tuple[File, ...]:
    """Return the files that a call names, each once and in order, up to the maximum."""
    if use is None or not isinstance(arguments, dict | str):
        return ()
    found: dict[str, File] = {}
    if use is not Effect.READ:
        for file in islice(_patched(arguments), MOST):
            found.setdefault(file.path, file)
    if use is not Effect.SHELL:
        for path in islice(_paths(arguments, NESTED), MOST):
            found.setdefault(path, File(path, Action(use.value)))
    return tuple(found.values())


def _paths(arguments: object, depth: int) -> Iterator[str]:
    if not isinstance(arguments, dict):
        return
    for name in PATHS:
        if (path := arguments.get(name)) and isinstance(path, str):
            yield path
    for name in LISTS if depth else ():
        listed = arguments.get(name)
        for element in listed if isinstance(listed, list) else ():
            if isinstance(element, str) and name not in ("edits", "replacements", "changes"):
                yield element
            else:
                yield from _paths(element, depth - 1)


def _patched(arguments: dict[str, Any] | str) -> Iterator[File]:
    """Find the files of a patch, either in an argument or in a here-document of a shell command."""
    texts = [arguments] if isinstance(arguments, str) else [arguments.get(name) for name in PATCHES]
    for patch in texts:
        if isinstance(patch, list):
            patch = "\n".join(part for part in patch if isinstance(part, str))  # noqa: PLW2901
        if not isinstance(patch, str) or BEGIN not in patch:
            continue
        for (verb, path), (following, _) in pairwise(chain(_marks(patch), [("", "")])):
            if path := path.rstrip(" \t\r"):
                yield File(path, _action(verb, moves=following == "Move to"))


def _marks(patch: str) -> Iterator[tuple[str, str]]:
    for mark in re.finditer(PATCH, patch):
        yield mark[1], mark[2]


def _action(verb: str, *, moves: bool) -> Action:
    if moves or verb == "Move to":
        return Action.RENAME
    return {"Add File": Action.WRITE, "Delete File": Action.DELETE}.get(verb, Action.EDIT)
