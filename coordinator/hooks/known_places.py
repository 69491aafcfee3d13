"""The places of directories, cached by a process that serves many hooks, with the rules of their work trees.

Guarantees: a cached place is valid only while every file that determined it is unchanged: ``.git`` and ``HEAD`` in the
directory and its parents, the configuration of the repository, the rules. Checking this takes a tenth of the time of
reading them.

What it does not notice: a change of a file within the same tick of the file system's clock (a few milliseconds) in
which it was read, with the same size; and a change of another repository on this machine that is the remote of this
one.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from coordinator.hooks.place import Place, locate
from coordinator.hooks.repository import above
from coordinator.hooks.shell import FILE, ShellRule, rules_of

__all__ = ["Known", "KnownPlaces"]

MOST = 1000
WITNESSES = 100  # files to check for a cached directory: checks must be fast

_Stamp = tuple[int, int, int, int] | None


class Known(msgspec.Struct, frozen=True):
    """The place of a directory, and the rules of its work tree."""

    place: Place
    rules: tuple[ShellRule, ...]


class KnownPlaces:
    """Caches the most recently used directories."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, str | None, str | None], tuple[Known, dict[str, _Stamp]]] = OrderedDict()

    def get(self, cwd: str, project: str | None, worktrees: str | None = None) -> Known | None:
        """Return what is known about a directory, or None if nothing is known or something has changed."""
        found = self._known.get((cwd, project, worktrees))
        if found is None:
            return None
        known, stamps = found
        try:
            real = os.path.realpath(cwd, strict=True)
        except OSError:
            return None
        if real != known.place.cwd or any(_stamp(path) != was for path, was in stamps.items()):
            return None
        self._known.move_to_end((cwd, project, worktrees))
        return known

    def find(self, cwd: str, project: str | None, worktrees: str | None = None) -> Known | None:
        """Find the place of a directory; None if it does not exist. ``project`` and ``worktrees`` take precedence over what the repository says.

        Raises: ``ConfigurationError``.
        """
        if not os.path.isdir(cwd):
            return None
        environ = {"COORDINATOR_PROJECT": project or "", "COORDINATOR_WORKTREES": worktrees or ""}
        first = locate(cwd, environ)
        stamps = {path: _stamp(path) for path in _witnesses(first)}
        known = Known(locate(cwd, environ), rules_of(first.root))  # read after the stamps were taken
        if known.place == first and len(stamps) <= WITNESSES:
            self._known[cwd, project, worktrees] = known, stamps
            while len(self._known) > MOST:
                self._known.popitem(last=False)
        return known


def _witnesses(place: Place) -> Iterator[str]:
    """Yield the files that determine the place of a directory and its rules."""
    for folder in above(place.cwd):
        yield os.path.join(folder, ".git")
        yield os.path.join(folder, "HEAD")  # of a bare repository
        if folder == place.root:
            break
    if place.common is not None:
        yield os.path.join(place.common, "config")
        if place.worktree:
            yield os.path.join(place.common, "worktrees", place.worktree, "HEAD")
    if place.root is not None:
        yield os.path.join(place.root, FILE)


def _stamp(path: str) -> _Stamp:
    """Return a value that differs when a file has changed; None: there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
