"""Checks paths against locks, for scripts and version control other than git (``hook git`` installs its own hooks). A check only reads. It names the holder and the expiry, and explains how to ask for release.

Paths are literal (* and [ are ordinary characters) and relative to the project's root. A path that cannot be checked is
an error, never free. If the agent is given by name, locks of every agent with this name count as its own.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from uuid import UUID

import msgspec

from coordinator.cli.invocation import Invocation
from coordinator.cli.resource import KINDS, is_directory, root_of, scoped
from coordinator.cli.values import MAX_INPUT_BYTES
from coordinator.config import Config
from coordinator.errors import Conflict, InvalidArgument
from coordinator.model.catalogue import LIMITS
from coordinator.model.hint import shell_word
from coordinator.model.lock import PathCheck
from coordinator.operations import locks

__all__ = ["check", "read_paths"]

SHOWN = 20  # locked paths that the error lists


def check(call: Invocation, paths: list[str], agent: str | None) -> None:
    """Check paths for an agent, given by id or name.

    Raises: ``Conflict`` if another agent locks one.
    """
    try:
        who: UUID | str | None = UUID(agent or "")
    except ValueError:
        who = agent
    checks = asyncio.run(_ask(call, paths, who)) if paths else []
    held = [one for one in checks if one.state == "held"]
    call.output.many(
        checks if call.output.json else held,
        ("path", "agent", "mode", "resource", "expires_at"),
        empty="Not locked by another agent.",
    )
    if held:
        raise _refusal(held)


def read_paths(config: Config) -> list[str]:
    """Read paths from the root from standard input, each ended by NUL, as ``git … -z`` writes them."""
    root = root_of(config)
    content = sys.stdin.buffer.read(MAX_INPUT_BYTES + 1)
    if len(content) > MAX_INPUT_BYTES:
        raise InvalidArgument(
            f"standard input is longer than {MAX_INPUT_BYTES} bytes", hint="Check the paths in several calls."
        )
    try:
        paths = [path.decode() for path in content.split(b"\0") if path]
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"a path is not UTF-8: {error.object[:200]!r}", hint="Such a path cannot be locked. Rename it, or omit it."
        ) from None
    return list(dict.fromkeys(scoped(_lockable(path, root or Path()), root, config) for path in paths))


def _lockable(path: str, root: Path) -> str:
    """Return a path as a lockable resource; if it has line breaks or leading or trailing spaces, its directory."""
    if is_directory(root / path) and not (root / path).is_symlink():  # how git lists a submodule
        path = path.rstrip("/") + "/"
    while not path.isprintable() or path != path.strip(" "):
        path = path.rstrip("/").rpartition("/")[0] + "/"
        if path == "/":
            return "glob:**"
    return f"path:{path}" if path.startswith(KINDS) else path


async def _ask(call: Invocation, paths: list[str], who: UUID | str | None) -> list[PathCheck]:
    found: list[PathCheck] = []
    async with call.open() as executor:
        for start in range(0, len(paths), LIMITS["lock_check"]):
            page = paths[start : start + LIMITS["lock_check"]]
            one_agent = who if isinstance(who, UUID) else None
            checks = await executor.run(locks.Check(project=call.project, paths=page, agent=one_agent))
            if isinstance(who, str):
                # The server names one of several holders. So ask again for each agent of this name.
                for same in {one.agent_id for one in checks if one.agent == who}:
                    mine = await executor.run(locks.Check(project=call.project, paths=page, agent=same))
                    checks = [again if again.state == "mine" else one for one, again in zip(checks, mine, strict=True)]
            found += checks
    return found


def _refusal(held: list[PathCheck]) -> Conflict:
    first = held[0]
    until = f"{first.expires_at:%Y-%m-%d %H:%M:%SZ}" if first.expires_at else "?"
    on = "" if first.resource == first.path else f', on "{first.resource}"'
    asked = shell_word(f"please release {first.resource}")
    more = f"; and {len(held) - 1} more" if len(held) > 1 else ""
    return Conflict(
        f'"{first.path}" is locked by agent "{first.agent}" ({first.agent_id}), {first.mode}{on}, until {until}{more}',
        hint=f'Ask the holder: "coordinator directive send {asked} --to-agent {shell_word(str(first.agent))}".',
        detail=msgspec.json.encode(held[:SHOWN]).decode(),
        code="ZC310",
    )
