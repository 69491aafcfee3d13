"""Where an agent works: the project, the work tree, and the name under which a file is locked there.

It reads the files of git itself, because it runs before every edit. The files decide, not the caller's environment: a
file has one name, whatever the current directory, ``..``, symbolic links or ``GIT_DIR`` are. ``GIT_DIR`` is used only
if no ``.git`` is found.

Work trees of a repository share its project. A path in the main work tree is locked relative to its root, ``src/a.py``.
A linked work tree has a scope of its own, ``.git/worktrees/feature/src/a.py``: no tracked file can have such a path.
With ``worktrees = shared``, all work trees have one scope. A submodule belongs to the repository around it; another
repository within the work tree belongs to it for agents that work from outside.

If git says that the file system ignores case (``core.ignorecase``), an existing file has the name that its directory
contains.

It never raises because of a path or the contents of a repository, except for an unknown value of
``coordinator.worktrees``: to ignore it would leave files unprotected that the user wants to be locked in all work trees.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

import msgspec

from coordinator.errors import ConfigurationError
from coordinator.hooks.quote import shortened
from coordinator.hooks.repository import TRUE, Repository, above, at, find, named
from coordinator.model.catalogue import LIMITS

__all__ = ["WORKTREES", "Place", "checked", "locate", "lockable"]

WORKTREES = ".git/worktrees/"  # above the paths of linked work trees
SEGMENTS = 32
DEEP = 100  # directories below the root of a work tree: each costs system calls, and a lock has at most SEGMENTS
MOST = 4096  # characters of a path that the system accepts; a longer one may become shorter before the call
CHOICES = {
    "worktrees": ("separate", "shared"),
    "unreachable": ("allow", "deny"),
}  # of coordinator.NAME in git's configuration
_KINDS = ("name:", "path:", "glob:")
_PROJECT = re.compile(f"[a-z0-9][a-z0-9_-]{{0,{LIMITS['project_name'] - 1}}}")
_WILD = re.compile(r"[*?\[]")
# Not printable, \, or refused by check_name. Compiling takes 1 ms, and most paths are ASCII.
_REFUSED = "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\U000e0100-\U000e01ef]|(^|[\u0001-\u200a])[\ufe00-\ufe0f]"


class Place(msgspec.Struct, frozen=True):
    """A directory in a project. ``root`` is its work tree, or None outside of any; ``worktree`` is the name of a linked one, or empty."""

    project: str
    cwd: str
    root: str | None = None
    common: str | None = None
    worktree: str = ""
    shared: bool = False
    ignores_case: bool = False

    def resource(self, path: str, *, link: bool = False) -> str | None:
        """Return the name under which a file is locked, or None if it is outside of the repository.

        A relative path starts at ``cwd``. An existing directory ends with a slash. With ``link``, a symbolic link
        stands for itself and not for its target: that is what a rename or a removal changes. A name that no lock can
        have, for instance with a line break, stands for the directory that contains it.
        """
        try:
            path, cut = _shortened(os.path.join(self.cwd, path), (self.root or "").count(os.sep) + DEEP)
            place = _real(path, link=link)
            directory = (cut or os.path.isdir(place)) and not (link and os.path.islink(place))
            root, worktree = self._home(place, directory=directory)
            if root is None:
                return None
            relative = os.path.relpath(place, root)
            if self.ignores_case and relative != ".":
                relative = _spelled(root, relative)
            below = "" if relative == "." else relative.replace(os.sep, "/")
            if below and directory:
                below += "/"
        except ValueError:  # NUL: no file has such a name
            return None
        return lockable(self._prefix(worktree) + below)

    def scoped(self, resource: str) -> str:
        """Return the lock in this work tree for a name, or for a path or glob relative to its root."""
        prefix = self._prefix(self.worktree)
        if not prefix:
            return resource
        kind = next((kind for kind in _KINDS if resource.startswith(kind)), "")
        if kind == "name:":
            return f"{resource}@{self.worktree}"
        if kind == "glob:" or (not kind and _WILD.search(resource)):
            prefix = re.sub(r"([*?\[])", r"[\1]", prefix)
        return kind + prefix + resource.removeprefix(kind)

    def _shares(self, repository: Repository) -> bool:
        if repository.common == self.common or not self.ignores_case or self.common is None:
            return repository.common == self.common
        with suppress(OSError):
            return os.path.samefile(repository.common, self.common)
        return False

    def _prefix(self, worktree: str) -> str:
        return f"{WORKTREES}{worktree}/" if worktree and not self.shared else ""

    def _home(self, place: str, *, directory: bool) -> tuple[str | None, str]:
        """Return the root and the name of the work tree that contains a real path."""
        if self.common is not None:
            for folder in above(place):
                if folder == self.root:
                    return folder, self.worktree
                found = at(folder) if directory or folder != place else None
                if found is not None and found.root is not None and self._shares(found):
                    return found.root, found.worktree
        inside = self.root is not None and (place == self.root or place.startswith(self.root.rstrip(os.sep) + os.sep))
        return (self.root, self.worktree) if inside else (None, "")


def locate(cwd: str, environ: Mapping[str, str]) -> Place:
    """Find the place of a directory, which need not exist.

    The project is ``COORDINATOR_PROJECT``, else ``coordinator.project`` in the repository's configuration, else a name
    derived from the address of its remote, or from its path if it has none. ``COORDINATOR_ROOT``, or
    ``coordinator.root`` in the configuration, relative to the root of the work tree, replaces the work tree: for a
    repository within another one, it is ``..``, for instance.

    Raises: ``ConfigurationError`` if ``coordinator.worktrees`` or ``coordinator.project`` has an invalid value.
    """
    try:
        cwd, _ = _shortened(os.path.abspath(cwd))
        cwd = _real(cwd)
    except (OSError, ValueError):  # the process has no current directory any more, or the name is invalid
        return Place(project=environ.get("COORDINATOR_PROJECT") or "default", cwd=os.sep)
    repository = find(cwd) or named(cwd, environ)
    settings = repository.settings() if repository else {}
    base, given = cwd, environ.get("COORDINATOR_ROOT")
    if not given and repository and repository.root:
        base, given = repository.root, settings.get("coordinator.root", [""])[-1]
    try:
        root = _real(os.path.join(base, given)) if given else None
    except ValueError:
        root = None
    if root is not None:
        repository = find(root) or named(cwd, environ)
        settings = repository.settings() if repository else {}
    shared = environ.get("COORDINATOR_WORKTREES") or checked(
        "worktrees", settings.get("coordinator.worktrees", [""])[-1]
    )
    return Place(
        project=environ.get("COORDINATOR_PROJECT") or _project(repository, settings),
        cwd=cwd,
        root=root or (repository.root if repository else None),
        common=repository.common if repository and root is None else None,
        worktree=repository.worktree if repository and root is None else "",
        shared=shared == "shared",
        ignores_case=settings.get("core.ignorecase", [""])[-1].lower() in TRUE,
    )


def checked(name: str, value: str) -> str:
    """Return the value of ``coordinator.NAME`` in git's configuration, or an empty text if it is not set.

    Raises: ``ConfigurationError`` if it is none of ``CHOICES``.
    """
    if value and value not in CHOICES[name]:
        from coordinator.suggestion import suggestion  # noqa: PLC0415 - rarely needed

        first, second = CHOICES[name]
        raise ConfigurationError(
            f'git config coordinator.{name} "{shortened(value, 100)}" is neither {first} nor {second}',
            hint=suggestion(value, CHOICES[name], f"Set it to one of them: git config coordinator.{name} {first}"),
        )
    return value


def _spelled(root: str, relative: str) -> str:
    """Return a path below a directory as its entries are spelled, if case does not matter; missing parts stay unchanged."""
    folder = root
    for part in relative.split(os.sep):
        entries = []
        with suppress(OSError):
            entries = os.listdir(folder)
        alike = [entry for entry in entries if _folded(entry) == _folded(part)] if part not in entries else []
        folder = os.path.join(folder, min(alike, default=part))
    return os.path.relpath(folder, root)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def lockable(path: str) -> str:
    """Return the lock of a literal path; if no lock can have this path, that of the directory above it."""
    while path and not (
        path.isprintable()
        and "\\" not in path  # not allowed in the path of a lock
        and (path.isascii() or not re.search(_REFUSED, path))
        and path == path.strip()
        and len(path.encode()) <= LIMITS["lock_resource"] - len("path:")
        and path.rstrip("/").count("/") < SEGMENTS
    ):
        path = path.rstrip("/").rpartition("/")[0]
        path += "/" if path else ""
    if not path:
        return "glob:**"
    return f"path:{path}" if _WILD.search(path) or path.startswith(_KINDS) else path


def _shortened(path: str, deep: int = MOST) -> tuple[str, bool]:
    """Return an absolute path that is short enough for the system and at most ``deep``, and whether it is a directory above the given one."""
    if len(path) > MOST or path.count(os.sep) > deep:
        path = os.path.normpath(path)
    cut = path.count(os.sep) > deep
    if cut:
        path = os.sep.join(path.split(os.sep, deep + 1)[: deep + 1])
    if len(path) > MOST:
        return path[:MOST].rpartition(os.sep)[0] or os.sep, True
    return path, cut


def _real(path: str, *, link: bool = False) -> str:
    """Return an absolute path without ``.``, ``..`` and symbolic links; with ``link``, the last part may be one."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:  # an unpaired surrogate, which programs replace by this character
        path = re.sub("[\ud800-\udfff]", "\ufffd", path)
    head, tail = os.path.split(path.rstrip(os.sep))
    if link and tail not in ("", ".", ".."):
        return os.path.join(os.path.realpath(head or os.sep), tail)
    return os.path.realpath(path)


def _project(repository: Repository | None, settings: Mapping[str, list[str]]) -> str:
    """Return the name of a repository's project: its own name, and a hash of what identifies it."""
    if repository is None:
        return "default"
    if given := settings.get("coordinator.project", [""])[-1]:
        if not _PROJECT.fullmatch(given):
            raise ConfigurationError(
                f'git config coordinator.project "{shortened(given, 100)}" is not the name of a project',
                hint="Use at most 36 lower-case letters, digits, - and _, starting with a letter or digit.",
            )
        return given
    remotes = [name for name in settings if name.startswith("remote.") and name.endswith(".url")]
    remote = next((name for name in remotes if name == "remote.origin.url"), remotes[0] if len(remotes) == 1 else None)
    address = settings[remote][0] if remote else ""
    identity = _address(address) if address else ""
    if not identity:  # a path: relative to the main work tree
        folder = (
            os.path.dirname(repository.common) if os.path.basename(repository.common) == ".git" else repository.common
        )
        path = urlsplit(address).path if address.startswith("file:") else address
        try:
            identity = _home_of(os.path.join(folder, path)) if path else repository.common
        except ValueError:
            identity = repository.common
    called = identity.removesuffix(os.sep + ".git").removesuffix(".git").rstrip("/").rpartition("/")[2]
    plain = unicodedata.normalize("NFKD", called).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9_]+", "-", plain).strip("-_")[: LIMITS["project_name"] - 9].rstrip("-_")
    digest = hashlib.sha256(identity.encode(errors="surrogateescape")).hexdigest()
    return f"{slug or 'repository'}-{digest[:8]}"


def _address(address: str) -> str:
    """Return host and path of a remote in any notation: https://, ssh:// or git@host:path; nothing for a path."""
    if "://" in address:
        try:
            parts = urlsplit(address)
            host, path = parts.hostname or "", parts.path
        except ValueError:
            return address
    else:
        host, colon, path = address.partition(":")
        if not colon or "/" in host or len(host) == 1:  # a path; C:\ is one, too
            return ""
        host = host.rpartition("@")[2]
    if not host:
        return ""
    return f"{host}/{path.strip('/').removesuffix('.git').strip('/')}".lower()


def _home_of(path: str) -> str:
    """Return the shared directory of a repository on this machine that is named by a path."""
    place = os.path.realpath(path)
    found = at(place)
    if found is None and not os.path.isdir(place):
        found = at(place + ".git")
    return found.common if found else place
