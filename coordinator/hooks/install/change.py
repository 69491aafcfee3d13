"""The change that an installation makes to a file: the text before and after, computed without writing it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec

from coordinator.errors import ConfigurationError, CoordinatorError
from coordinator.hooks.dialects.entries import Setup
from coordinator.hooks.install import file, toml
from coordinator.hooks.install.jsonc import Text

__all__ = ["Change", "installed", "planned"]

OURS = re.compile(r"coordinator\b.*\shook\s+run\b|/v1/hooks/[a-z-]+(\?|$)")


class Change(msgspec.Struct, frozen=True):
    """A file before and after; None means that it does not exist.

    ``keeps`` says what happens to the previous content. ``folders`` are removed if the removal of the file leaves them
    empty.
    """

    path: Path
    before: str | None
    after: str | None
    keeps: file.Keeps = "copy"
    folders: tuple[Path, ...] = ()

    def difference(self) -> str:
        """Return a readable difference, with a line for each added or removed line."""
        old, new = (re.findall(r"[^\n]*\n|[^\n]+", text or "") for text in (self.before, self.after))
        names = [str(self.path) if text is not None else "/dev/null" for text in (self.before, self.after)]
        found = difflib.unified_diff(old, new, names[0], names[1])
        return "".join(line if line.endswith("\n") else f"{line}\n" for line in found)

    def write(self) -> Path | None:
        """Make the change; return the backup copy of the previous content."""
        if self.before == self.after:
            return None
        copy = file.replace(self.path, self.before, self.after, self.keeps)
        with suppress(OSError):  # it contains something else
            for folder in self.folders:
                folder.rmdir()
        return copy


def planned(path: Path, setup: Setup, *, install: bool) -> Change:
    """Return the change that installs or uninstalls a setup.

    If a file is its backup copy plus coordinator entries, it becomes the copy again, byte for byte.

    Raises:
        ConfigurationError: The file is malformed, or contains something else where the entries belong.
    """
    before = file.content(path)
    edit: Callable[[str, Setup, bool], str | None] = _toml if path.suffix == ".toml" else _json
    if before is None and not install:
        return Change(path, None, None)
    try:
        after = edit(before or "", setup, install)
    except CoordinatorError as error:
        raise ConfigurationError(
            f"{path}: {error.message}", hint=error.hint or "Correct the file by hand, and run the command again."
        ) from None
    if before is None:
        return Change(path, before, after)
    bare = bool(before) and edit(before, setup, False) is None  # it contains only coordinator entries
    former = _former(path, before, setup, edit)
    if not install and former is not None:
        return Change(path, before, former, "nothing")
    if not install and bare:
        folders = (
            path.parents[: len(setup.file.parts) - 1]
            if path.parts[-len(setup.file.parts) :] == setup.file.parts
            else ()
        )
        return Change(path, before, None, "former", tuple(folders))
    return Change(path, before, after, "former" if former is not None or bare else "copy")


def _former(path: Path, before: str, setup: Setup, edit: Callable[[str, Setup, bool], str | None]) -> str | None:
    """Return the backup copy of a file that only installations have changed since, or None."""
    try:
        former = file.content(file.copy_of(path))
        if former is None or former == before:
            return None
        whole = edit(former, setup, True)
        same = whole is not None and edit(whole, setup, False) == edit(before, setup, False)
    except CoordinatorError:  # another program has written it
        return None
    return former if same and (not former or edit(former, setup, False) == former) else None


def installed(path: Path, setup: Setup) -> str:
    """Return the state of a setup in its file: installed, outdated, or missing."""
    change = planned(path, setup, install=True)
    if change.before == change.after:
        return "installed"
    change = planned(path, setup, install=False)
    return "missing" if change.before == change.after else "outdated"


def _json(before: str, setup: Setup, install: bool) -> str | None:
    text = Text(before if before.strip().strip("\ufeff") else "{}\n")
    was = text.root.value
    for member in setup.members:
        if member.shared and (not install or text.at(member.path) is not None):
            continue
        if install:
            text.set(member.path, member.value)
        elif text.at(member.path) is not None:
            text.remove(member.path)
    if setup.lists:
        _elements(text, setup, install)
    _compare(was, text.root.value, setup)
    return None if not install and text.text != before and _is_bare(text, setup) else text.text


def _is_bare(text: Text, setup: Setup) -> bool:
    """Return whether a file has no content, not even a comment."""
    rest = Text(text.text)
    for member in setup.members:
        if member.shared and rest.at(member.path) is not None:
            rest.remove(member.path)
    return not rest.root.value and not re.sub(r"[{}\s]", "", rest.text)


def _elements(text: Text, setup: Setup, install: bool) -> None:
    """Replace the coordinator entries of each list by the wanted ones, in the existing places where possible."""
    wanted: dict[tuple[str, ...], list[Any]] = {}
    for element in setup.elements if install else ():
        wanted.setdefault(element.path, []).append(element.value)
    holder = text.at(setup.lists)
    present = (
        [(*setup.lists, key) for key in holder.value] if holder is not None and isinstance(holder.value, dict) else []
    )
    for path in dict.fromkeys([*present, *wanted]):
        values = wanted.get(path, [])
        node = text.at(path)
        if node is not None and not isinstance(node.value, list):
            if not values:
                continue
            text.append(path, values[0])  # raises the error that names the location
        places = [] if node is None else [i for i, found in enumerate(node.value) if _is_ours(found)]
        for place, value in zip(places, values, strict=False):
            found = text.at(path)
            if found is not None and found.items and found.items[place].value != value:
                text.replace(found.items[place], value)
        for place in reversed(places[len(values) :]):
            text.remove(path, place)
        for value in values[len(places) :]:
            text.append(path, value)


def _is_ours(element: object) -> bool:
    """Return whether an entry calls this program and nothing else."""
    if not isinstance(element, dict):
        return False
    handlers = element.get("hooks")
    if isinstance(handlers, list):
        return bool(handlers) and all(map(_is_ours, handlers))
    called = [element.get(name) for name in ("command", "bash", "url")]
    return any(isinstance(text, str) and OURS.search(text) for text in called)


def _compare(before: Any, after: Any, setup: Setup) -> None:
    """Check that only coordinator entries differ."""
    stripped = [_stripped(deepcopy(value), setup) for value in (before, after)]
    if stripped[0] != stripped[1]:
        raise ConfigurationError("the entries cannot be changed without changing others", hint="Edit the file by hand.")


def _stripped(value: Any, setup: Setup) -> Any:
    for member in setup.members:
        _taken(value, member.path)
    lists = value
    for key in setup.lists:
        lists = lists.get(key) if isinstance(lists, dict) else None
    if setup.lists and isinstance(lists, dict):
        for key, found in list(lists.items()):
            if isinstance(found, list):
                lists[key] = [element for element in found if not _is_ours(element)]
                if not lists[key]:
                    del lists[key]
    for depth in range(len(setup.lists), 0, -1):
        _emptied(value, setup.lists[:depth])
    return value


def _taken(value: Any, path: tuple[str, ...]) -> None:
    holder = value
    for key in path[:-1]:
        holder = holder.get(key) if isinstance(holder, dict) else None
    if isinstance(holder, dict):
        holder.pop(path[-1], None)
    for depth in range(len(path) - 1, 0, -1):
        _emptied(value, path[:depth])


def _emptied(value: Any, path: tuple[str, ...]) -> None:
    holder = value
    for key in path[:-1]:
        holder = holder.get(key) if isinstance(holder, dict) else None
    if isinstance(holder, dict) and holder.get(path[-1]) == {}:
        del holder[path[-1]]


def _toml(before: str, setup: Setup, install: bool) -> str | None:
    data = toml.parse(before)
    after = before
    for member in setup.members:
        found: Any = data
        for key in member.path:
            found = found.get(key) if isinstance(found, dict) else None
        if install and found != member.value:
            after = toml.with_table(after, member.path, member.value)
        elif not install and found is not None:
            after = toml.removed(after, member.path)
    try:
        _compare(data, toml.parse(after), setup)
    except CoordinatorError:
        after = before
    if before == after and any(_differs(data, member.path, member.value, install) for member in setup.members):
        place = ".".join(setup.members[0].path)
        raise ConfigurationError(
            f"{place} is not a table under a header of its own",
            hint=f"Write it by hand: [{place}] with {json.dumps(setup.members[0].value)}",
        )
    return after if after or not before else None


def _differs(data: Any, path: tuple[str, ...], value: Any, install: bool) -> bool:
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data != value if install else data is not None
