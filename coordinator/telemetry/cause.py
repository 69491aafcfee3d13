"""The cause of a log line: its request and trace, its client, its project and agent.

A request costs one object; its project and agent are read from its operation when a line is written. The module is
cheap to import.
"""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

from coordinator.telemetry import tracing

if TYPE_CHECKING:
    from coordinator.model.operation import Operation

__all__ = ["Cause", "about", "facts", "facts_of", "identify", "request_id"]


class Cause:
    """The cause of lines within the context: a request, its client, and its operation, once that is known."""

    __slots__ = ("_token", "address", "operation", "request_id")

    def __init__(self, request_id: bytes, address: str | None = None) -> None:
        self.request_id = request_id
        self.address = address
        self.operation: Operation[Any] | None = None

    def __enter__(self) -> Self:
        self._token: Token[Cause | None] = _cause.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _cause.reset(self._token)


_cause: ContextVar[Cause | None] = ContextVar("cause", default=None)
_identity: dict[str, str] = {}  # of the process


def about(operation: Operation[Any]) -> None:
    """Add the project and agent of an operation to the lines of this request."""
    cause = _cause.get()
    if cause is not None:
        cause.operation = operation


def identify(**facts: str) -> None:
    """Add the identity of this process to all its lines: its ``project``, its ``agent``."""
    _identity.update(facts)


def facts() -> dict[str, str]:
    """Return what is known about the current cause."""
    cause = _cause.get()
    found = dict(_identity)
    if cause is not None:
        found["request_id"] = cause.request_id.decode("ascii")
        if cause.address is not None:
            found["address"] = cause.address
        if cause.operation is not None:
            found |= facts_of(cause.operation)
    if trace_id := tracing.trace_id():
        found["trace_id"] = trace_id
    return found


def request_id() -> str | None:
    """Return the id of the request that is being served."""
    cause = _cause.get()
    return None if cause is None else cause.request_id.decode("ascii")


def facts_of(operation: Operation[Any]) -> dict[str, str]:
    """Return the project of an operation, and the agent that makes it or that it concerns, if it names them."""
    project = operation.about()
    facts = {"project": project} if isinstance(project, str) else {}
    named = (getattr(operation, field, None) for field in (*operation.speakers, "agent"))
    agent = next((str(value) for value in named if value is not None), None)
    return facts if agent is None else {**facts, "agent": agent}
