"""Resolves the resources of locks as people write them, so that a file has the same name wherever a command runs.

A path is relative to the current directory, or to the root if the current directory is outside of it; an absolute path
must be below the root. The root is the setting ``root`` or, by default, the git work tree. The path that is sent is
relative to the root, with symbolic links resolved, and ends with a slash if it is an existing directory. A text with *,
? or [ that names an existing file stands for that file. Without a root, or if the root is ``none``, paths are sent as
written.

A linked git work tree has its own files, so its paths are below ``.git/worktrees/<name>/``, as for hooks
(``hooks.place``); a path in this form is sent unchanged. Names mean the same in all work trees.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from coordinator.config import Config
from coordinator.errors import ConfigurationError, InvalidArgument

if TYPE_CHECKING:
    from coordinator.hooks.place import Place

__all__ = ["KINDS", "is_directory", "read", "root_of", "scoped", "spelled"]

KINDS = ("name:", "path:", "glob:")
WORKTREES = ".git/worktrees/"
_WILD = re.compile(r"[*?\[]")


def root_of(config: Config) -> Path | None:
    """Return the directory that paths are relative to: the setting, or the git work tree.

    Raises: ``ConfigurationError``.
    """
    here = Path.cwd()
    if config.root is not None:
        if config.root == Path("none"):
            return None
        if not config.root.is_dir():
            raise ConfigurationError(
                f'the root "{config.root}" is not a directory', hint="Give the root of the project's files."
            )
        return config.root.resolve()
    found = next((folder for folder in (here, *here.parents) if (folder / ".git").exists()), None)
    if found is None:
        return None
    return Path(_place(found, config).root or found)  # the files of a submodule belong to the repository around it


def _place(folder: Path, config: Config) -> Place:
    from coordinator.hooks.place import locate  # noqa: PLC0415 - only few commands need it

    return locate(str(folder), {"COORDINATOR_PROJECT": config.project, "COORDINATOR_WORKTREES": config.worktrees or ""})


def spelled(text: str, config: Config, *, literal: bool = False) -> str:
    """Return the resource that a text on the command line stands for, in the work tree around the current directory.

    Raises: ``ConfigurationError``; ``InvalidArgument`` for a path outside the root.
    """
    root = root_of(config)
    return scoped(read(text, root, literal=literal), root, config)


def scoped(found: str, root: Path | None, config: Config) -> str:
    """Return the name under which a resource relative to the root is locked in the root's work tree."""
    kind = next((kind for kind in KINDS if found.startswith(kind)), "")
    if root is None or config.root is not None or kind == "name:" or found.removeprefix(kind).startswith(WORKTREES):
        return found
    return _place(root, config).scoped(found)


def read(text: str, root: Path | None, *, literal: bool = False) -> str:
    """Return the resource that a text on the command line stands for; with ``literal``, only ``glob:`` begins a glob.

    Raises: ``InvalidArgument`` for a path outside the root.
    """
    kind = next((kind for kind in KINDS if text.startswith(kind)), "")
    path = text.removeprefix(kind)
    if kind == "name:" or not path or path.startswith(WORKTREES):
        return text
    here = Path.cwd()
    start = here if root is None or here.is_relative_to(root) else root
    if kind == "glob:" or (not (literal or kind) and _WILD.search(path) and not os.path.lexists(start / path)):
        return text if root is None else _glob(kind, path, root, start)
    place = _below(root, start, path) if root else path.rstrip("/")
    if path.endswith("/") or is_directory((root or start) / place):
        place += "/"
    if root and place == "/":
        return "glob:**"
    return f"path:{place}" if _WILD.search(place) or place.startswith(KINDS) else place


def is_directory(path: Path) -> bool:
    """Return whether a path is a directory; false if its name is too long."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _glob(kind: str, path: str, root: Path, start: Path) -> str:
    segments = path.split("/")
    first = next((n for n, segment in enumerate(segments) if _WILD.search(segment)), len(segments))
    above = _below(root, start, "/".join(segments[:first]) or ("/" if first else "."))
    resource = "/".join((*filter(None, [re.sub(r"([*?\[])", r"[\1]", above)]), *segments[first:]))
    return f"glob:{resource}" if kind or resource.startswith(KINDS) else resource


def _below(root: Path, start: Path, path: str) -> str:
    """Return the path relative to the root, empty for the root itself."""
    for place in (Path(os.path.realpath(start / path)), Path(os.path.normpath(start / path))):
        if place.is_relative_to(root):
            below = place.relative_to(root).as_posix()
            return "" if below == "." else below
    raise InvalidArgument(
        f'"{path}" is outside of {root}, to which paths of locks are relative',
        hint="Give a path below it, or another root with --root.",
    )
