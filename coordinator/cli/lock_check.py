"""Checking paths against locks, for hooks: reads only, and says who is in the way, until when, and how to ask.

Paths are taken as they stand, with * and [ in their names, and relative to the project's root. What cannot be checked is an
error, never free. By a name, what any incarnation of the agent holds is its own.
"""

from __future__ import annotations

import asyncio
import sys
from uuid import UUID

import msgspec

from coordinator.cli.invocation import Invocation
from coordinator.cli.values import STANDARD_INPUT_MOST
from coordinator.errors import Conflict, InvalidArgument
from coordinator.model.catalogue import LIMITS
from coordinator.model.lock import PathCheck
from coordinator.operations import locks

__all__ = ["check", "read_paths"]

SHOWN = 20  # of those that are locked, in the error
KINDS = ("name:", "path:", "glob:")


def check(call: Invocation, paths: list[str], agent: str | None) -> None:
    """Check paths for an agent, by its id or name.

    Raises: ``Conflict`` where others lock one.
    """
    try:
        who: UUID | str | None = UUID(agent or "")
    except ValueError:
        who = agent
    checks = asyncio.run(_ask(call, paths, who)) if paths else []
    held = [one for one in checks if one.state == "held"]
    call.output.many(
        checks if call.output.json else held, ("path", "agent", "mode", "resource", "expires_at"), empty=""
    )
    if held:
        raise _refusal(held)


def read_paths() -> list[str]:
    """Read paths from standard input, a NUL after each, as ``git … -z`` and ``find -print0`` write them."""
    content = sys.stdin.buffer.read(STANDARD_INPUT_MOST + 1)
    if len(content) > STANDARD_INPUT_MOST:
        raise InvalidArgument(
            f"standard input has more than {STANDARD_INPUT_MOST} bytes", hint="Check the paths in several calls."
        )
    try:
        paths = [path.decode() for path in content.split(b"\0") if path]
    except UnicodeDecodeError as error:
        raise InvalidArgument(
            f"a path is not UTF-8: {error.object[:200]!r}", hint="No lock can be on it; rename it, or leave it out."
        ) from None
    return list(dict.fromkeys(map(_lockable, paths)))


def _lockable(path: str) -> str:
    """Write a path as what a lock can be on; of one with line ends or outer spaces, that is the directory it is in."""
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
                # Of several holders the server names one. So each incarnation asks again for itself.
                for same in {one.agent_id for one in checks if one.agent == who}:
                    mine = await executor.run(locks.Check(project=call.project, paths=page, agent=same))
                    checks = [again if again.state == "mine" else one for one, again in zip(checks, mine, strict=True)]
            found += checks
    return found


def _refusal(held: list[PathCheck]) -> Conflict:
    first = held[0]
    until = f"{first.expires_at:%Y-%m-%d %H:%M:%SZ}" if first.expires_at else "?"
    on = "" if first.resource == first.path else f', on "{first.resource}"'
    more = f"; and {len(held) - 1} more" if len(held) > 1 else ""
    return Conflict(
        f'"{first.path}" is locked by agent "{first.agent}" ({first.agent_id}), {first.mode}{on}, until {until}{more}',
        hint=f'Ask for it: coordinator directive send "please release {first.resource}" --to {first.agent}',
        detail=msgspec.json.encode(held[:SHOWN]).decode(),
        code="ZC310",
    )
