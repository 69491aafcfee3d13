"""Finds the repository around a directory by reading git's files, since starting git would take longer than the rest of a hook.

It reads ``.git``, ``commondir`` and ``config``, and raises for none of them: a broken file counts as absent, as in git.
Files that the configuration includes are not read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

import msgspec

__all__ = ["TRUE", "Repository", "above", "at", "find", "named"]

FILE_BYTES = 1 << 20
TRUE = ("true", "yes", "on", "1")


class Repository(msgspec.Struct, frozen=True):
    """A repository as seen from one of its work trees. Without a ``root``, it is seen from outside of any work tree."""

    root: str | None
    directory: str  # GIT_DIR
    common: str  # shared by all work trees
    worktree: str  # name of a linked work tree, else empty

    def settings(self) -> dict[str, list[str]]:
        """Return the configuration that all work trees share, as values by ``section.subsection.name``."""
        return _settings(os.path.join(self.common, "config"))


def above(path: str) -> list[str]:
    """Return a directory and its parents, up to the root of the file system."""
    folders = [path]
    while (parent := os.path.dirname(folders[-1])) != folders[-1]:
        folders.append(parent)
    return folders


def find(cwd: str) -> Repository | None:
    """Return the repository around a directory, as git finds it; for a submodule, the repository around that."""
    inner: Repository | None = None
    for folder in above(cwd):
        found = at(folder)
        if found is None and inner is None and os.path.basename(folder) != ".git" and _is_directory_of_git(folder):
            return Repository(root=None, directory=folder, common=folder, worktree="")
        if found is None:
            continue
        if inner is not None and not inner.directory.startswith(found.directory + os.sep):
            continue  # it is only located within this one
        if f"{os.sep}modules{os.sep}" not in found.directory or found.worktree:
            return found
        inner = inner or found
    return inner


def at(folder: str) -> Repository | None:
    """Return the repository that a directory's ``.git`` refers to, or None if there is none or it is broken."""
    entry = os.path.join(folder, ".git")
    try:
        found = os.stat(entry)
    except OSError:
        return None
    if stat.S_ISDIR(found.st_mode):
        return _read(os.path.realpath(entry), folder)
    text = _text(entry)
    if not text.startswith("gitdir:"):
        return None
    return _read(os.path.realpath(os.path.join(folder, text.removeprefix("gitdir:").strip())), folder)


def _read(directory: str, root: str | None) -> Repository | None:
    common = _text(os.path.join(directory, "commondir")).strip()
    if common:
        common = os.path.realpath(os.path.join(directory, common))
    if not _is_directory_of_git(directory, common or directory):
        return None
    if common:
        trees = os.path.join(common, "worktrees") + os.sep
        name = directory.removeprefix(trees) if directory.startswith(trees) else os.path.basename(directory)
        return Repository(root=root, directory=directory, common=common, worktree=name)
    bare = _settings(os.path.join(directory, "config")).get("core.bare", [""])[-1].lower() in TRUE
    return Repository(root=None if bare else root, directory=directory, common=directory, worktree="")


def named(cwd: str, environ: Mapping[str, str]) -> Repository | None:
    """Return the repository that ``GIT_DIR`` names."""
    if not environ.get("GIT_DIR"):
        return None
    try:
        found = _read(os.path.realpath(os.path.join(cwd, environ["GIT_DIR"])), cwd)
        if found is None:
            return None
        tree = environ.get("GIT_WORK_TREE")
        if tree:
            tree = os.path.join(cwd, tree)
        elif tree := found.settings().get("core.worktree", [""])[-1]:
            tree = os.path.join(found.directory, tree)
        return msgspec.structs.replace(found, root=os.path.realpath(tree) if tree else found.root)
    except ValueError:
        return None


def _is_directory_of_git(directory: str, common: str | None = None) -> bool:
    common = common or directory
    return (
        os.path.lexists(os.path.join(directory, "HEAD"))
        and os.path.isdir(os.path.join(common, "objects"))
        and os.path.isdir(os.path.join(common, "refs"))
    )


def _text(path: str) -> str:
    """Return the beginning of a file, or nothing if it cannot be read or is not text."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        with open(descriptor, "rb") as file:
            content = file.read(FILE_BYTES)
    except OSError:
        return ""
    return "" if b"\0" in content else os.fsdecode(content)


_SECTION = re.compile(r'\s*\[\s*([A-Za-z0-9.-]+)(?:\s+"((?:[^"\\]|\\.)*)")?\s*\]')
_VARIABLE = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)\s*(?:=(.*))?$", re.DOTALL)
_PIECE = re.compile(r'"((?:[^"\\]|\\.)*)"|\\(.)|([#;].*)|([^"\\#;]+)|.', re.DOTALL)


def _settings(path: str) -> dict[str, list[str]]:
    """Return the values of a file of git's configuration, by ``section.subsection.name``; files that it includes are not read."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in re.sub(r"\\\r?\n", "", _text(path)).split("\n"):
        if head := _SECTION.match(line):
            section = head[1].lower() + ("" if head[2] is None else "." + re.sub(r"\\(.)", r"\1", head[2]))
            line = line[head.end() :]  # noqa: PLW2901
        if section and (variable := _VARIABLE.match(line)):
            value = "true" if variable[2] is None else _value(variable[2])
            found.setdefault(f"{section}.{variable[1].lower()}", []).append(value)
    return found


def _value(text: str) -> str:
    value = ""
    for piece in _PIECE.finditer(text.strip()):
        quoted, escaped, comment, plain = piece.groups()
        if comment:
            return value.rstrip()
        value += re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else escaped or plain or ""
    return value.rstrip() if not text.rstrip().endswith('"') else value
