"""Values that the shell completes: choices, and the current names and ids in the database.

The name of a parameter determines its candidates, so a new command completes like the others. A parameter that names
a row of the command's noun takes the rows of this noun's list. A completion ends within a second and prints nothing
else: without a database, or without the right to read, there are no candidates.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click
from click.shell_completion import CompletionItem
from msgspec.structs import replace

from coordinator import operations
from coordinator.cli.invocation import Invocation
from coordinator.errors import CoordinatorError
from coordinator.model.operation import Operation
from coordinator.model.topic import TOPICS
from coordinator.operations import (
    agents,
    crons,
    directives,
    job_history,
    limits,
    locks,
    projects,
    queues,
    webhooks,
)

__all__ = ["complete"]

WITHIN_S = 1.0
ROWS = 200


class _Listed:
    """The rows of a list. One field is the candidate, and another one describes it."""

    def __init__(self, kind: type[Operation[Any]], field: str, described_by: str | None = None) -> None:
        self.kind = kind
        self.field = field
        self.described_by = described_by

    def candidates(self, call: Invocation, typed: str, kind: str | None) -> list[CompletionItem]:
        """Read the rows now, of a kind if the list has kinds."""
        fields: dict[str, Any] = {"project": call.project, "kind": kind, "limit": ROWS}
        if self.field != "kind":
            fields["prefix"] = typed
        known = self.kind.__struct_fields__
        rows = call.run(self.kind(**{name: value for name, value in fields.items() if name in known}))
        return [
            CompletionItem(str(value), help=str(getattr(row, self.described_by)) if self.described_by else None)
            for row in rows
            if (value := getattr(row, self.field)) is not None
        ]


_AGENTS = _Listed(agents.List, "id", "name")
_AGENT_NAMES = _Listed(agents.List, "name", "role")
_ROLES = _Listed(agents.List, "role")
_CRONS = _Listed(crons.List, "cron", "schedule")
_DIRECTIVES = _Listed(directives.List, "id", "body")
_JOBS = _Listed(job_history.List, "id", "type")
_JOB_KEYS = _Listed(job_history.List, "key")
_JOB_TYPES = _Listed(job_history.List, "type")
_LIMITS = _Listed(limits.List, "name", "kind")
_PROJECTS = _Listed(projects.List, "project", "description")
_QUEUES = _Listed(queues.List, "queue")
_RESOURCES = _Listed(locks.List, "resource", "agent")
_WEBHOOKS = _Listed(webhooks.List, "webhook", "url")

# What refers to another noun, by the name of the parameter and, if a name has several meanings, by the name of the command.
_TAKES: Mapping[str, _Listed] = MappingProxyType(
    {
        "agent": _AGENTS,
        "cron": _CRONS,
        "directive": _DIRECTIVES,
        "job": _JOBS,
        "budget": _LIMITS,
        "job enqueue key": _JOB_KEYS,
        "job enqueue type": _JOB_TYPES,
        "job list key": _JOB_KEYS,
        "job list type": _JOB_TYPES,
        "job retry key": _JOB_KEYS,
        "job retry type": _JOB_TYPES,
        "job stats type": _JOB_TYPES,
        "limit set type": _JOB_TYPES,
        "limits": _LIMITS,
        "paths": _RESOURCES,
        "project": _PROJECTS,
        "queue": _QUEUES,
        "queues": _QUEUES,
        "resource": _RESOURCES,
        "resources": _RESOURCES,
        "role": _ROLES,
        "to_agent": _AGENT_NAMES,
        "to_job": _JOBS,
        "to_role": _ROLES,
        "types": _JOB_TYPES,
        "under": _RESOURCES,
        "webhook": _WEBHOOKS,
    }
)


_NEW = ("create", "import", "join", "register")  # verbs that take a name that is not in use
_DESCRIPTIONS = ("name", "description", "title", "kind", "lesson")


def _own(noun: str, verb: str, name: str) -> _Listed | None:
    """Return the rows of the noun that the parameter names, if it does."""
    kind = next((one for one in operations.every() if one.function == f"{noun}_list" and not one.internal), None)
    if kind is None or verb in _NEW:
        return None
    possible = {"name": ("name", noun), "prefix": ("key", noun), noun: (noun, f"{noun}_id", "id")}.get(name, (name,))
    field = next((one for one in possible if one in kind.page_by), None)
    if field is None:
        return None
    columns = kind.answer()[1].__struct_fields__
    return _Listed(kind, field, next((one for one in _DESCRIPTIONS if one in columns and one != field), None))


def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the candidates for a parameter that begin with the text typed so far."""
    metavar = param.metavar or ""
    words = [*ctx.command_path.split()[1:], param.name or ""]
    listed = _TAKES.get(" ".join(words)) or _TAKES.get(words[-1])
    if listed is None and len(words) == 3:
        listed = _own(*words)
    if "|" in metavar and metavar.lower() == metavar:
        found = [CompletionItem(choice) for choice in metavar.split("|")]
    elif words[-1] == "lines" or (
        words[:2] in (["lock", "acquire"], ["lock", "check"], ["lock", "run"]) and listed is _RESOURCES
    ):
        return [CompletionItem(incomplete, type="file")]
    elif words[-1] == "topics":
        found = [CompletionItem(topic) for topic in TOPICS]
    elif listed is not None and isinstance(ctx.obj, Invocation):
        listed = _AGENT_NAMES if listed is _AGENTS and metavar.startswith("NAME") else listed
        found = _now(ctx.obj, listed, incomplete, ctx.params.get("kind"))
    else:
        return param.type.shell_complete(ctx, param, incomplete)
    return list({item.value: item for item in found if item.value.startswith(incomplete)}.values())


def _now(call: Invocation, listed: _Listed, typed: str, kind: str | None) -> list[CompletionItem]:
    try:
        call.config = replace(call.config, call_timeout_s=WITHIN_S)
        return listed.candidates(call, typed, kind)
    except (CoordinatorError, OSError):
        return []
