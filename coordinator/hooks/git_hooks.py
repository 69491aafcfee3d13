"""Git hooks: they catch changes that no hook of a tool has seen, such as those of a script.

Before a commit, a merge commit and a push, the changed files are compared with the locks of others. After a commit, the
committing session releases its locks on the committed files. An existing hook is kept beside the new one, and runs
first.

The committing agent is ``COORDINATOR_AGENT_ID``, else ``coordinator.agent`` in git's configuration, else the session
that holds the lock ``name:worktree`` while its command runs. Otherwise it is unknown, and holds no lease.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from coordinator.errors import InvalidArgument
from coordinator.hooks.place import Place
from coordinator.hooks.quote import quoted, shortened
from coordinator.model.catalogue import LIMITS
from coordinator.model.lock import PathCheck
from coordinator.operations import files, locks
from coordinator.operations.executor import Runner

__all__ = ["HOOKS", "GitHook", "changed", "install", "refusal", "release", "setting", "states", "uninstall"]

HOOKS = ("pre-commit", "pre-merge-commit", "pre-push", "post-commit")
BEFORE = ".before-coordinator"
MARK = "# Written by coordinator; remove it with: coordinator hook git uninstall"
SHOWN = 10
TREE = "name:worktree"  # a session holds it while it runs a git command that changes the work tree


class GitHook(msgspec.Struct, frozen=True):
    """A hook of a repository: installed, missing, or foreign if there is only another one. ``before`` is the hook that runs first."""

    hook: str
    state: str
    file: str
    before: str | None


def _git(*arguments: str) -> str:
    """Return the output of git.

    Raises: ``InvalidArgument`` if git fails.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip() or f"git {arguments[0]} failed"
        raise InvalidArgument(shortened(reason, 200), hint="Run it in a work tree of a repository.")
    return os.fsdecode(done.stdout)


def setting(name: str) -> str | None:
    """Return a setting of git's configuration, or None if it is not set."""
    done = subprocess.run(["git", "config", "--get", name], capture_output=True, check=False)
    return os.fsdecode(done.stdout).rstrip("\n") or None if done.returncode == 0 else None


# Installation -------------------------------------------------------------------------------------------------------------


def _folder() -> Path:
    """Return the directory of the repository's hooks.

    Raises: ``InvalidArgument`` if other repositories share it.
    """
    scope = subprocess.run(
        ["git", "config", "--show-scope", "--get", "core.hooksPath"], capture_output=True, check=False, text=True
    ).stdout.partition("\t")[0]
    if scope in ("global", "system"):
        raise InvalidArgument(
            f"core.hooksPath is set in the {scope} configuration, so the hooks would run in all repositories",
            hint='Set it for this repository: git config --local core.hooksPath "$(git rev-parse --git-common-dir)/hooks"',
        )
    return Path(_git("rev-parse", "--git-path", "hooks").rstrip("\n")).absolute()


def _script(hook: str, program: Sequence[str]) -> str:
    command = shlex.join(program)
    begin = f'#!/bin/sh\n{MARK}\nbefore="$0{BEFORE}"\n'
    missing = (
        f"command -v {shlex.quote(program[0])} >/dev/null 2>&1 || "
        '{ echo "coordinator: the program is missing, so nothing was checked" >&2; exit 0; }\n'
    )
    if hook == "pre-push":  # only pre-push reads the pushed refs
        return (
            f'{begin}refs=$(cat)\nif [ -x "$before" ]; then\n  printf \'%s\\n\' "$refs" | "$before" "$@" || exit\nfi\n{missing}'
            f'printf \'%s\\n\' "$refs" | {command} hook git {hook} "$@"\n'
        )
    return f'{begin}if [ -x "$before" ]; then\n  "$before" "$@" || exit\nfi\n{missing}exec {command} hook git {hook} "$@"\n'


def _is_ours(path: Path) -> bool:
    try:
        return MARK in path.read_bytes()[:4096].decode(errors="replace")
    except OSError:
        return False


def states() -> list[GitHook]:
    """Return the state of the hooks of the repository that contains the current directory."""
    return [_state(_folder() / hook) for hook in HOOKS]


def _state(path: Path) -> GitHook:
    before = path.with_name(path.name + BEFORE)
    state = "installed" if _is_ours(path) else "foreign" if os.path.lexists(path) else "missing"
    return GitHook(path.name, state, str(path), str(before) if os.path.lexists(before) else None)


def install(program: Sequence[str]) -> list[GitHook]:
    """Install the hooks, and keep existing ones: they run first.

    Raises: ``InvalidArgument`` if a hook that was kept before would be lost.
    """
    folder = _folder()
    found = [_state(folder / hook) for hook in HOOKS]
    for one in found:
        if one.state == "foreign" and one.before:
            raise InvalidArgument(
                f"{one.file} was replaced after coordinator was installed, and {one.before} exists already",
                hint="Merge the two files or remove one of them, then install again.",
            )
    folder.mkdir(parents=True, exist_ok=True)
    for one in found:
        path = Path(one.file)
        if one.state == "foreign":
            path.rename(path.with_name(path.name + BEFORE))
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        new.write_text(_script(one.hook, program), "utf-8", errors="surrogateescape")
        new.chmod(0o755)
        new.replace(path)
    return [_state(folder / hook) for hook in HOOKS]


def uninstall() -> list[GitHook]:
    """Remove the hooks, and restore those that existed before."""
    folder = _folder()
    for hook in HOOKS:
        path = folder / hook
        before = path.with_name(hook + BEFORE)
        if not _is_ours(path):
            continue
        if os.path.lexists(before):
            before.replace(path)
        else:
            path.unlink()
    return [_state(folder / hook) for hook in HOOKS]


# Committed and pushed files --------------------------------------------------------------------------------------------


def changed(hook: str, pushed: str = "", remote: str = "") -> dict[str, datetime | None]:
    """Return the paths that a commit, merge or push changes, relative to the root; for a push, with the time of their newest commit.

    ``pushed`` is git's input to the pre-push hook, ``remote`` the name of the other repository.
    """
    if hook == "post-commit":
        # Files with further, uncommitted changes are still being edited.
        still = set(_paths("diff", "--name-only", "--no-renames", "-z", "HEAD"))
        done = _paths(
            "diff-tree",
            "-r",
            "--root",
            "-m",
            "--first-parent",
            "--no-commit-id",
            "--name-only",
            "--no-renames",
            "-z",
            "HEAD",
        )
        return {path: None for path in done if path not in still}
    if hook != "pre-push":
        return dict.fromkeys(_paths("diff", "--cached", "--name-only", "--no-renames", "-z"))
    found: dict[str, datetime | None] = {}
    for line in pushed.splitlines():
        parts = line.split()
        if len(parts) != 4 or not parts[1].strip("0"):  # a branch is deleted
            continue
        beyond = ["--not", f"--remotes={remote}" if remote else "--remotes"]
        if parts[3].strip("0") and _has(parts[3]):
            beyond = ["--not", parts[3]]
        for commit in _git("rev-list", "--max-count=1000", parts[1], *beyond).split():
            at = datetime.fromtimestamp(int(_git("show", "-s", "--format=%ct", commit)), UTC)
            for path in _paths(
                "diff-tree", "-r", "--root", "--no-commit-id", "--name-only", "--no-renames", "-z", commit
            ):
                found[path] = max(at, found.get(path) or at)
    return found


def _has(commit: str) -> bool:
    return (
        subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True, check=False).returncode
        == 0
    )


def _paths(*arguments: str) -> list[str]:
    return [path for path in _git(*arguments).split("\0") if path]


# Leases -------------------------------------------------------------------------------------------------------------------


async def refusal(
    hook: str, paths: Mapping[str, datetime | None], place: Place, executor: Runner, agent: str | None
) -> str | None:
    """Return why leases of others forbid a commit, merge or push of paths, or None if they do not."""
    by_resource = _resources(paths, place)
    held = [check for check in await _checked(by_resource, place, executor) if check.state == "held"]
    if held and agent is None:
        agent = await _who(place, executor)
    refused: dict[str, PathCheck] = {}
    for check in held:
        if agent in (check.agent, str(check.agent_id)):
            continue
        for path in by_resource[check.path]:
            at = paths[path]
            if at is None or await _is_newer(at, check, place, executor):
                refused[path] = check
    return _sentence(hook, refused, place) if refused else None


async def release(paths: Iterable[str], place: Place, executor: Runner, agent: str | None) -> int:
    """Release the leases of the committing session on paths; return their number."""
    resources = [*_resources(paths, place)]
    if not resources:
        return 0
    agent = agent or await _who(place, executor)
    count = 0
    step = LIMITS["lock_resources"]
    for start in range(0, len(resources) if agent else 0, step):
        leave = files.Leave(project=place.project, agent=agent or "", paths=resources[start : start + step])
        count += await executor.run(leave)
    return count


def _resources(paths: Iterable[str], place: Place) -> dict[str, list[str]]:
    """Return the paths with the names under which they are locked."""
    found: dict[str, list[str]] = {}
    for path in paths:
        resource = place.resource(os.path.join(place.root or "", path), link=True)  # noqa: PTH118 - a text
        if resource is not None:
            found.setdefault(resource, []).append(path)
    return found


async def _checked(resources: Iterable[str], place: Place, executor: Runner) -> list[PathCheck]:
    wanted = [*resources]
    found: list[PathCheck] = []
    step = LIMITS["lock_check"]
    for start in range(0, len(wanted), step):
        page = await executor.run(locks.Check(project=place.project, paths=wanted[start : start + step]))
        found += page
    return found


async def _who(place: Place, executor: Runner) -> str | None:
    """Return the id of the agent whose git command runs in this work tree."""
    (check,) = await executor.run(locks.Check(project=place.project, paths=[place.scoped(TREE)]))
    return str(check.agent_id) if check.agent_id else None


async def _is_newer(at: datetime, check: PathCheck, place: Place, executor: Runner) -> bool:
    """Return whether a commit was made while the holder held the lease, and not before."""
    holders = await executor.run(locks.List(project=place.project, agent=check.agent_id, under=check.resource))
    since = [one.acquired_at for one in holders if one.fencing_token == check.fencing_token]
    return not since or at >= min(since).replace(microsecond=0)


def _sentence(hook: str, refused: Mapping[str, PathCheck], place: Place) -> str:
    verb = {"pre-push": "push", "pre-merge-commit": "merge"}.get(hook, "commit")
    lines = [f"coordinator: this {verb} changes files that other agents have locked:"]
    for path, check in [*refused.items()][:SHOWN]:
        until = f" until {check.expires_at:%Y-%m-%d %H:%M}Z" if check.expires_at else ""
        lines.append(f"  {quoted(path, 200)}: agent {quoted(check.agent, 80)}{until}")
    if len(refused) > SHOWN:
        lines.append(f"  and {len(refused) - SHOWN} more")
    first = next(iter(refused.values()))
    ask = shlex.quote(f"Please release {shortened(first.resource or first.path, 200)}.")
    other = {
        "commit": "leave them out of the commit: git restore --staged FILE",
        "merge": "abort: git merge --abort",
        "push": "push only earlier commits: git push REMOTE COMMIT:BRANCH",
    }[verb]
    lines.append(f"Wait until they are released, or {other}")
    lines.append(
        f"Ask the holder: coordinator --project {place.project} directive send {ask} --to-agent {shlex.quote(shortened(first.agent, 80))}"
    )
    # Git keeps a merge that a hook has refused; a later commit completes it.
    lines.append(f"To {verb} anyway: git {'commit' if verb == 'merge' else verb} --no-verify")
    return "\n".join(lines)


def pushed_refs() -> str:
    """Return git's input to the pre-push hook."""
    return sys.stdin.read(1 << 20)
