"""Operations with parameters of the right types, which mean nothing: enough to learn who is let in and what is looked up first."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from coordinator.model.agent_ref import AgentRef
from coordinator.model.operation import Json, JsonText, Operation
from coordinator.model.password import Password

__all__ = ["sample"]

_BY_TYPE: dict[Any, Any] = {
    str: "x", AgentRef: "x", UUID: UUID(int=0), timedelta: timedelta(minutes=1), int: 1, list[str]: ["x"], list[int]: [1],
    dict[str, Json]: {}, Json: 1, JsonText: JsonText(b"[]"), list[dict[str, Json]]: [{"verb": "event_emit", "type": "custom.x"}],
    list[Json]: ["x"], bytes: b"x", Password: Password("x"),
}  # fmt: skip


def sample(kind: type[Operation[Any]], **given: Any) -> Operation[Any]:
    """Return an operation with these parameters, and where it requires others, with something of their type."""
    fields = [field for field in msgspec.structs.fields(kind) if field.required and field.name not in given]
    return kind(**{field.name: _BY_TYPE[field.type] for field in fields}, **given)
