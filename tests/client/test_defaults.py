"""A default of the client is that of the operation: each is written twice, and here held to be one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Any

import msgspec
import pytest

from coordinator.client.agents import Agents
from coordinator.client.directives import Directives
from coordinator.client.documents import Documents
from coordinator.client.events import Events
from coordinator.client.job_history import JobHistory
from coordinator.client.jobs import Jobs
from coordinator.client.knowledge import Knowledge
from coordinator.client.limits import Limits
from coordinator.client.locks import Locks
from coordinator.client.logs import Logs
from coordinator.client.memories import Memories
from coordinator.client.projects import Projects
from coordinator.client.queues import Queues
from coordinator.client.retentions import Retentions
from coordinator.client.rules import Rules
from coordinator.client.sessions import Sessions
from coordinator.client.signals import Signals
from coordinator.client.users import Users
from coordinator.operations import (
    agents,
    directives,
    documents,
    events,
    job_history,
    jobs,
    knowledge,
    limits,
    locks,
    logs,
    memories,
    projects,
    queues,
    retentions,
    rules,
    sessions,
    signals,
    users,
)

NOUNS: dict[type, ModuleType] = {
    Agents: agents,
    Directives: directives,
    Documents: documents,
    Events: events,
    JobHistory: job_history,
    Jobs: jobs,
    Knowledge: knowledge,
    Limits: limits,
    Locks: locks,
    Logs: logs,
    Memories: memories,
    Projects: projects,
    Queues: queues,
    Retentions: retentions,
    Rules: rules,
    Sessions: sessions,
    Signals: signals,
    Users: users,
}
OPERATIONS = {
    "JobHistory.steps": "ListSteps",
    "Locks.hold": "Acquire",
    "Retentions.plan": "Preview",
    "Users.password": "ChangePassword",
    "break_": "Break",
    "pending": "ListPending",
    "enqueue_many": "EnqueueMany",
    "output": "ReadOutput",
    "password": "ChangePassword",
    "progress": "Report",
    "step": "FinishStep",
    "wait": "Show",
    "waiting": "ListWaiting",
}
METHODS = [
    (
        method,
        getattr(module, OPERATIONS.get(f"{noun.__name__}.{name}") or OPERATIONS.get(name, name.capitalize()), None),
    )
    for noun, module in NOUNS.items()
    for name, method in vars(noun).items()
    if inspect.isfunction(method) and not name.startswith("_")
]


def seconds(default: Any) -> Any:
    return default.total_seconds() if isinstance(default, timedelta) else default


@pytest.mark.parametrize(("method", "operation"), METHODS, ids=lambda part: getattr(part, "__qualname__", ""))
def test_a_method_has_the_defaults_of_its_operation(method: Callable[..., Any], operation: type[Any] | None) -> None:
    if operation is None:
        assert method.__qualname__ in {
            "Events.stream",
            "Events.wake",
            "JobHistory.follow",
            "Locks.resume",
            "Logs.follow",
            "Projects.export",
            "Projects.import_",
        }
        return
    of_operation = {
        field.name: field.default_factory() if field.default is msgspec.NODEFAULT else field.default
        for field in msgspec.structs.fields(operation)
        if not field.required
    }
    for name, parameter in inspect.signature(method).parameters.items():
        if name in of_operation and parameter.default is not inspect.Parameter.empty:
            mine = parameter.default
            assert seconds(mine) == seconds(of_operation[name]) or (not mine and not of_operation[name]), name
