"""Finds agents for commands: people write names, most operations take ids. An unknown agent is an error, never an empty list."""

from __future__ import annotations

from uuid import UUID

from coordinator.cli.invocation import Invocation
from coordinator.errors import InvalidArgument, NotFound
from coordinator.model.agent import Agent
from coordinator.model.catalogue import LIMITS
from coordinator.operations import agents, directives
from coordinator.suggestion import nearest

__all__ = ["id_of", "name_of", "no_recipient", "recipient"]

FIRST = str(UUID(int=0))


def id_of(call: Invocation, text: str, *, registered: bool = False) -> UUID:
    """Return the id of an agent that is given by name or id; with ``registered``, look up an id, too.

    Raises: ``NotFound``; ``InvalidArgument`` if several agents have the name.
    """
    try:
        agent = UUID(text)
    except ValueError:
        found = _named(call, text)
        if len(found) > 1:
            raise InvalidArgument(
                f'{len(found)} agents are called "{text}"',
                hint=f"Give an id: {', '.join(str(one.id) for one in found)}",
            ) from None
        if not found:
            raise _unknown(call, text) from None
        return found[0].id
    if registered:
        _with_id(call, agent)
    return agent


def name_of(call: Invocation, text: str) -> str:
    """Return the name of an agent that is given by name or id. A name to which a directive was sent is known, too.

    Raises: ``NotFound``.
    """
    try:
        agent = UUID(text)
    except ValueError:
        if not _named(call, text):
            sent = call.run(directives.List(project=call.project, open=False, limit=LIMITS["page"]))
            if all(directive.to_agent != text for directive in sent):
                raise _unknown(call, text) from None
        return text
    return _with_id(call, agent).name


def recipient(call: Invocation, text: str | None) -> str | None:
    """Return the name to which a directive goes: as it is given, since its agent may register later, or that of an id.

    Raises: ``NotFound``.
    """
    try:
        return text and _with_id(call, UUID(text)).name
    except ValueError:
        return text


def no_recipient(call: Invocation, name: str | None, role: str | None) -> str | None:
    """Return a note if no agent that is registered now has the name or role to which a directive was sent."""
    if role is not None and not call.run(agents.List(project=call.project, role=role, limit=1)):
        return f'No registered agent has the role "{role}".{_close(role, [agent.role or "" for agent in _all(call)])}'
    if name is not None and not _named(call, name):
        return f'No registered agent is called "{name}".{_close(name, [agent.name for agent in _all(call)])}'
    return None


def _all(call: Invocation) -> list[Agent]:
    return call.run(agents.List(project=call.project, limit=LIMITS["page"]))


def _named(call: Invocation, name: str) -> list[Agent]:
    rows = call.run(agents.List(project=call.project, after=[name, FIRST], limit=100))
    return [row for row in rows if row.name == name]


def _with_id(call: Invocation, agent: UUID) -> Agent:
    for row in _all(call):
        if row.id == agent:
            return row
    raise NotFound(
        f'there is no agent {agent} in project "{call.project}"',
        hint='It was reaped or deregistered; see "coordinator agent list".',
        code="ZC202",
    )


def _unknown(call: Invocation, name: str) -> NotFound:
    close = _close(name, [agent.name for agent in _all(call)]).strip()
    return NotFound(
        f'no agent in project "{call.project}" is called "{name}"',
        hint=close or 'See "coordinator agent list"; an agent that was reaped has to register again.',
        code="ZC202",
    )


def _close(text: str, known: list[str]) -> str:
    close = nearest(text, known)
    return f' Did you mean "{close}"?' if close else ""
