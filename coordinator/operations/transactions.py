"""Transactions: several writes in one call, under conditions; all or none.

A part of a transaction is an operation that its noun's SQL file declares as a condition or a write (``Operation.part``). As
JSON it is an object: the operation's function as ``verb``, and its fields without the project.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cache
from types import MappingProxyType
from typing import Any, Self, get_args
from uuid import UUID

import msgspec

from coordinator import operations
from coordinator.errors import InvalidArgument
from coordinator.model import duration
from coordinator.model.agent_ref import AgentRef, agent_ref, takes_agent
from coordinator.model.catalogue import LIMITS
from coordinator.model.fields import fields_of
from coordinator.model.json import decoded, text_of
from coordinator.model.lease import LeaseChange
from coordinator.model.operation import InProject, Json, JsonText, Operation, Shape
from coordinator.model.transaction import Outcome
from coordinator.suggestion import nearest

__all__ = ["Run"]


class Run(InProject[list[Outcome]], frozen=True, kw_only=True):
    """Run several writes atomically if all conditions hold. A transaction has at most 100 parts, and no part waits.

    A part is an object such as ``{"verb": "signal_set", "key": "k", "value": 1}``: the verb and its fields, without the
    project. A condition has a verb such as ``assert_signal``, and holds until the writes are done. The error for an
    unknown verb or field lists the valid ones. ``actor`` is for the writes that name none.

    The result has a row for each row that a write returned, with the write's index in the list, from 0.

    Raises: ``Conflict`` if a condition does not hold, and what the parts raise: ``detail`` has the index of the part,
    as ``condition`` or ``write``, with the facts of its error.
    """

    function = "transaction_run"
    speakers = ("actor",)

    writes: list[dict[str, Json]]
    conditions: list[dict[str, Json]] = msgspec.field(default_factory=list)
    actor: str | None = None

    @classmethod
    def of(
        cls,
        project: str,
        writes: Iterable[Operation[Any]],
        conditions: Iterable[Operation[Any]] = (),
        actor: str | None = None,
    ) -> Self:
        """Make a transaction of operations.

        Raises: ``InvalidArgument`` for an operation that cannot be a part, or is in another project.
        """
        return cls(
            project=project,
            writes=[_written("write", place, part, project) for place, part in enumerate(writes)],
            conditions=[_written("condition", place, part, project) for place, part in enumerate(conditions)],
            actor=actor,
        )

    def parts(self) -> Sequence[Operation[Any]]:
        """Return the conditions, then the writes.

        Raises: ``InvalidArgument`` for a malformed part.
        """
        if len(self.conditions) + len(self.writes) > LIMITS["transaction"]:
            raise InvalidArgument(
                f"the transaction has more than {LIMITS['transaction']} parts", hint="Split it.", code="ZC102"
            )
        return [
            _read(what, place, given, self.project).spoken_by(self.actor)
            for what, listed in (("condition", self.conditions), ("write", self.writes))
            for place, given in enumerate(listed)
        ]

    def with_parts(self, parts: Sequence[Operation[Any]]) -> Self:
        """Return the transaction with other parts: as many conditions as it has, then the writes."""
        count = len(self.conditions)
        made = self.of(self.project, parts[count:], parts[:count])
        return msgspec.structs.replace(self, writes=made.writes, conditions=made.conditions)

    def results(self, outcomes: list[Outcome]) -> list[Any]:
        """Return the result of each write, as the write returns it alone."""
        rows: list[list[Json]] = [[] for _ in self.writes]
        for outcome in outcomes:
            rows[outcome.write].append(decoded(outcome.result))
        return [_result(_verbs("write")[str(given["verb"])], its) for given, its in zip(self.writes, rows, strict=True)]

    def leases(self, result: list[Outcome]) -> Iterator[LeaseChange]:
        """Yield the changes of the caller's leases by the writes."""
        for write, its in zip(self.parts()[len(self.conditions) :], self.results(result), strict=True):
            yield from write.leases(its)


@cache
def _verbs(what: str) -> Mapping[str, type[Operation[Any]]]:
    return MappingProxyType({kind.function: kind for kind in operations.every() if kind.part() == what})


@cache
def _fields(kind: type[Operation[Any]]) -> Mapping[str, msgspec.structs.FieldInfo]:
    return MappingProxyType({field.name: field for field in fields_of(kind) if field.name != "project"})


@cache
def _texts(kind: type[Operation[Any]]) -> Mapping[str, str]:
    """Return the fields that contain JSON text, by the names under which they are strings in a part, where they stay unchanged."""
    return MappingProxyType(
        {
            f"{name}_text": name
            for name, field in _fields(kind).items()
            if JsonText in (field.type, *get_args(field.type))
        }
    )


def _read(what: str, place: int, given: Mapping[str, Json], project: str) -> Operation[Any]:
    verb = given.get("verb")
    kind = _verbs(what).get(verb) if isinstance(verb, str) else None
    if kind is None:
        raise InvalidArgument(
            f"{what} {place}: {_quoted(verb)} cannot be a {what} of a transaction",
            hint=_suggested(verb, [*_verbs(what)], f"Use one of {', '.join(_verbs(what))}."),
            code="ZC105",
        )
    fields = _fields(kind)
    listed = f"{verb} has the fields {', '.join(fields)}."
    for name in given:
        if name not in fields and name not in _texts(kind) and name != "verb":
            raise InvalidArgument(
                f"{what} {place} ({verb}) has an unknown field {_quoted(name)}",
                hint=f"All parts are in the project of the transaction; omit it. {listed}"
                if name == "project"
                else _suggested(name, [*fields], listed),
                code="ZC105",
            )
    values: dict[str, Any] = {name: value for name, value in given.items() if name != "verb"}
    try:
        for text, name in _texts(kind).items():
            if text in values:
                values[name] = JsonText(str(values.pop(text)).encode())
            elif name in values:
                values[name] = text_of(values[name])
        for name, value in values.items():
            if timedelta in (fields[name].type, *get_args(fields[name].type)) and value is not None:
                values[name] = duration.read(value)
        part: Operation[Any] = msgspec.convert({**values, "project": project}, kind, dec_hook=_agent)
    except (ValueError, OverflowError, TypeError) as error:
        raise InvalidArgument(f"{what} {place} ({verb}): {error}", hint=listed, code="ZC103") from None
    return part


def _agent(type: type[Any], value: Json) -> AgentRef:
    if not takes_agent(type):
        raise NotImplementedError
    if not isinstance(value, str):
        raise TypeError(f"{_quoted(value)} does not name an agent")
    return agent_ref(value)


def _written(what: str, place: int, part: Operation[Any], project: str) -> dict[str, Json]:
    if part.part() != what:
        raise InvalidArgument(
            f"{what} {place}: {part.function} cannot be a {what} of a transaction",
            hint=f"Use one of {', '.join(_verbs(what))}.",
            code="ZC105",
        )
    if part.about() != project:
        raise InvalidArgument(
            f'{what} {place} ({part.function}) is in project "{part.about()}", and the transaction in "{project}"',
            hint="A transaction is in one project; use one for each.",
            code="ZC105",
        )
    texts = {name: text for text, name in _texts(type(part)).items()}
    values = {name: getattr(part, name) for name in _fields(type(part))}
    return {
        "verb": part.function,
        **{texts.get(name, name) if value is not None else name: _plain(value) for name, value in values.items()},
    }


def _plain(value: Any) -> Json:
    match value:
        case timedelta():
            return value.total_seconds()
        case UUID():
            return str(value)
        case JsonText():
            return bytes(value).decode()
    plain: Json = value
    return plain


def _result(kind: type[Operation[Any]], rows: list[Json]) -> Any:
    shape, row_type = kind.answer()
    if shape is Shape.MANY:
        return [msgspec.convert(row, row_type) for row in rows]
    return msgspec.convert(rows[0], row_type)


def _quoted(value: Json) -> str:
    return f'"{str(value)[:100]}"'


def _suggested(word: Json, words: list[str], listed: str) -> str:
    near = nearest(str(word), words)
    return f'Did you mean "{near}"? {listed}' if near else listed
