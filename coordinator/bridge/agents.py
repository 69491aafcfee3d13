"""The commands that recac's program lacks: observations, locks, directives and the specification.

An agent that locks paths or reads directives is registered under its name, for ``AGENT_TTL``, which each such command
extends: its process ends at once, and the lock must outlive it.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from coordinator.bridge.bridge import Bridge, BridgeError, read_input, say
from coordinator.errors import Conflict, CoordinatorError, NotFound
from coordinator.model import duration
from coordinator.model.catalogue import LIMITS
from coordinator.model.json import text_of
from coordinator.model.lock import Lock

__all__ = ["SPEC", "acquire", "directives", "history", "lock", "observe", "spec", "unlock"]

SPEC = ("spec", "main")  # kind and key
LOCK_TTL = timedelta(minutes=10)  # like recac's
LONGEST_WAIT = timedelta(minutes=10)
AGENT_TTL = LOCK_TTL + LONGEST_WAIT
LOOK_S = 0.5
HISTORY = 20  # observations
MANAGER = "MANAGER"  # may release the locks of all agents


async def observe(bridge: Bridge, arguments: list[str]) -> None:
    """Record an observation of the agent; without one, of the caller."""
    from coordinator.operations import observations  # noqa: PLC0415 - each command needs one noun

    text, agent, _ = _read(bridge, arguments, "observe <text> [--agent <name>]", least=1)
    await bridge.run(observations.Append(project=bridge.project, content=text_of(text[0]), agent=agent))
    say("Observation recorded.")


async def history(bridge: Bridge, arguments: list[str]) -> None:
    """Print the newest observations, the newest first, of one agent if one is given on the command line."""
    from coordinator.operations import logs  # noqa: PLC0415

    usage = "history [<count>] [--agent <name>]"
    words, agent, _ = _read(bridge, arguments, usage, most=1)
    count = _number(words[0], usage) if words else HISTORY
    if not 0 < count <= LIMITS["page"]:
        raise BridgeError(f"the count is 1 to {LIMITS['page']}")
    found: list[tuple[Any, str, Any]] = []
    try:
        for log in await _logs(bridge, agent if "--agent" in arguments else None):
            if len(found) == count and log.updated_at < found[-1][0]:
                break
            read = logs.Read(project=bridge.project, kind="observation", key=log.key, last=count, limit=count)
            found += [(entry.created_at, log.key, entry) for entry in await bridge.run(read)]
            found = sorted(found, key=lambda one: (one[0], one[2].seq), reverse=True)[:count]
    except NotFound:
        pass  # nothing was observed
    say(
        _json(
            [
                {"id": f"{key}/{entry.seq}", "agent_id": key, "content": entry.data, "created_at": at}
                for at, key, entry in found
            ]
        )
    )


async def _logs(bridge: Bridge, agent: str | None) -> list[Any]:
    """Return the logs of observations, the most recently appended first."""
    from coordinator.model.page import walk  # noqa: PLC0415
    from coordinator.operations import logs  # noqa: PLC0415

    if agent is not None:
        return [await bridge.run(logs.Show(project=bridge.project, kind="observation", key=agent))]
    listed = logs.List(project=bridge.project, kind="observation")
    rows = [row async for page in walk(bridge.run, listed, None) for row in page]
    return sorted(rows, key=lambda row: row.updated_at, reverse=True)


async def lock(bridge: Bridge, arguments: list[str]) -> None:
    """Lock a path for the agent, and wait for it with --wait; a lock that it already holds is renewed."""
    usage = "lock <path> [--agent <name>] [--wait <duration>]"
    paths, agent, wait = _read(bridge, arguments, usage, least=1, waits=True)
    until = await acquire(bridge, bridge.project, _resource(paths[0]), _named(agent, usage), wait)
    say(f"Locked {paths[0]} until {until}.")


async def acquire(bridge: Bridge, project: str, resource: str, agent: str, wait: timedelta | None = None) -> str:
    """Acquire a lock for the agent with a name, which is registered if necessary; return when the lock ends.

    Raises: ``Conflict`` if another agent has it; ``WaitTimedOut``.
    """
    from coordinator.operations import locks  # noqa: PLC0415

    holder = await _present(bridge, project, agent)
    try:
        request = locks.Acquire(project=project, resources=[resource], agent=holder, ttl=LOCK_TTL, wait=wait)
        (grant,) = await bridge.run(request)
    except Conflict:
        held = await _held(bridge, project, resource, agent)
        if not held:
            raise
        renew = locks.Renew(
            project=project, resources=[held[0].resource], agent=held[0].agent_id, tokens=[held[0].fencing_token]
        )
        return (await bridge.run(renew))[0].expires_at.isoformat()
    if not grant.granted and grant.ticket is not None:
        grant = await _wait(bridge, request, grant.ticket)
    return str(grant.expires_at and grant.expires_at.isoformat())


async def unlock(bridge: Bridge, arguments: list[str]) -> None:
    """Release a lock of the agent; MANAGER breaks that of any agent. A missing lock counts as released, as in recac."""
    from coordinator.operations import locks  # noqa: PLC0415

    usage = "unlock <path> [--agent <name>]"
    paths, agent, _ = _read(bridge, arguments, usage, least=1)
    agent, resource = _named(agent, usage), _resource(paths[0])
    released = False
    try:
        if agent == MANAGER:
            await bridge.run(locks.Break(project=bridge.project, resource=resource, reason="agent-bridge unlock"))
            released = True
        for held in await _held(bridge, bridge.project, resource, agent):
            release = locks.Release(
                project=bridge.project, resources=[held.resource], agent=held.agent_id, tokens=[held.fencing_token]
            )
            await bridge.run(release)
            released = True
    except (NotFound, Conflict):
        pass  # it has ended
    say(f"Unlocked {paths[0]}." if released else f"{paths[0]} was not locked by {agent}.")


async def directives(bridge: Bridge, arguments: list[str]) -> None:
    """List the open directives for the agent, or answer one."""
    from coordinator.operations import directives as operations  # noqa: PLC0415

    usage = "directives [done <id> | refused <id> <reason>] [--agent <name>]"
    words, agent, _ = _read(bridge, arguments, usage, most=3)
    name = _named(agent, usage)
    await _present(bridge, bridge.project, name)
    match words:
        case []:
            rows = await bridge.run(operations.Inbox(project=bridge.project, agent=name))
            say(_json(rows))
        case ["done", number]:
            answer = operations.Acknowledge(project=bridge.project, directive=_number(number, usage), agent=name)
            await bridge.run(answer)
            say(f"Directive {number} is done.")
        case ["refused", number, reason]:
            answer = operations.Acknowledge(
                project=bridge.project, directive=_number(number, usage), agent=name, status="refused", reason=reason
            )
            await bridge.run(answer)
            say(f"Directive {number} is refused.")
        case _:
            raise BridgeError(f"usage: agent-bridge {usage}")


async def spec(bridge: Bridge, arguments: list[str]) -> None:
    """Print the specification of the project, or save the one on standard input."""
    from coordinator.operations import documents  # noqa: PLC0415

    kind, key = SPEC
    match arguments:
        case []:
            try:
                found = await bridge.run(documents.Get(project=bridge.project, kind=kind, key=key))
            except NotFound:
                return  # as in recac, which prints an empty text
            text = found.value if isinstance(found.value, str) else bytes(found.text).decode()
            say(text.removesuffix("\n"))
        case ["set"]:
            try:
                text = read_input(LIMITS["document"]).decode()
            except UnicodeDecodeError:
                raise BridgeError("the specification is not valid UTF-8") from None
            await bridge.run(documents.Put(project=bridge.project, kind=kind, key=key, value=text_of(text)))
            say("Specification saved.")
        case _:
            raise BridgeError("usage: agent-bridge spec [set]")


async def _present(bridge: Bridge, project: str, name: str) -> UUID:
    """Register the agent with a name, or extend its registration and its locks; return its id."""
    from coordinator.operations import agents  # noqa: PLC0415

    return (await bridge.run(agents.Join(project=project, name=name, ttl=AGENT_TTL))).id


async def _held(bridge: Bridge, project: str, resource: str, agent: str) -> list[Lock]:
    """Return the locks on exactly this resource that agents with a name hold."""
    from coordinator.operations import locks  # noqa: PLC0415

    try:
        shown = await bridge.run(locks.Show(project=project, resource=resource))
    except NotFound:
        return []
    return [one for one in shown if one.agent == agent and _bare(one.resource) == _bare(resource)]


async def _wait(bridge: Bridge, request: Any, ticket: int) -> Any:
    """Poll a ticket until it is granted; the database ends the wait."""
    from coordinator.client.brief import pause  # noqa: PLC0415
    from coordinator.operations import locks  # noqa: PLC0415

    poll = locks.Poll(project=request.project, ticket=ticket, agent=request.agent)
    try:
        while True:
            (grant,) = await bridge.run(poll)
            if grant.granted:
                return grant
            await pause(bridge.url, LOOK_S)
    except CoordinatorError:
        raise
    except BaseException:
        await bridge.run(locks.Cancel(project=request.project, ticket=ticket, agent=request.agent))
        raise


def _resource(path: str) -> str:
    """Return the resource of a path as the agent writes it: an absolute path becomes relative to the current directory; never a pattern."""
    if path.startswith("/"):
        try:
            path = str(Path(path).relative_to(Path.cwd()))
        except ValueError:
            raise BridgeError(f"{path} is not below the current directory") from None
    return path if path.startswith(("name:", "path:", "glob:")) else f"path:{path}"


def _bare(resource: str) -> str:
    return resource.removeprefix("path:").removeprefix("./")


def _named(agent: str | None, usage: str) -> str:
    if agent is None:
        raise BridgeError(f"no agent is named: give --agent, or set RECAC_AGENT_ID; usage: agent-bridge {usage}")
    return agent


def _number(text: str, usage: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise BridgeError(f"{text} is not a number; usage: agent-bridge {usage}")
    return int(text)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _read(
    bridge: Bridge, arguments: list[str], usage: str, *, least: int = 0, most: int | None = None, waits: bool = False
) -> tuple[list[str], str | None, timedelta | None]:
    """Return the words of a command line, the agent and the maximum wait."""
    words: list[str] = []
    agent, wait = bridge.agent, None
    rest = iter(arguments)
    try:
        for word in rest:
            if word == "--agent":
                agent = next(rest)
            elif word == "--wait" and waits:
                wait = duration.parse(next(rest))
            elif word == "--":
                words += rest
            elif word.startswith("--"):
                raise BridgeError(f"unknown option {word}; usage: agent-bridge {usage}")
            else:
                words.append(word)
    except StopIteration:
        raise BridgeError(f"{arguments[-1]} has no value; usage: agent-bridge {usage}") from None
    except (ValueError, OverflowError) as error:
        raise BridgeError(f"{error}. {duration.HINT}") from None
    if wait is not None and wait > LONGEST_WAIT:
        raise BridgeError(f"the wait is longer than {duration.written(LONGEST_WAIT)}")
    if not least <= len(words) <= (least if most is None else most):
        raise BridgeError(f"usage: agent-bridge {usage}")
    return words, agent, wait
