"""An operation: its parameters are a Struct's fields, its answer the Struct's type argument.

``class Set(Operation[Signal])`` is written once. The executor over PostgreSQL calls the SQL function of that name with
the fields as ``p_…`` parameters; every other face is derived from the same class. A test compares names, order and
defaults with the database's catalogue.

An operation also says what the faces have to know before they let a caller run it: which projects it is about and who
speaks through it. A public operation that leaves either open is refused when its class is defined, so a new field that
names an agent cannot reach the database unchecked.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, get_args, get_origin
from uuid import UUID

import msgspec

from coordinator.errors import CoordinatorError
from coordinator.model.agent_ref import is_agent_id
from coordinator.model.catalogue import PARTS, ROLES
from coordinator.model.lease import LeaseChange
from coordinator.model.token import Role

__all__ = [
    "Conditional",
    "Json",
    "JsonText",
    "Objects",
    "Operation",
    "Paged",
    "Positioned",
    "Scope",
    "Shape",
    "complete",
]

R = TypeVar("R")

Json = None | bool | int | float | str | list[Any] | dict[str, Any]

JsonText = msgspec.Raw
"""The text of a JSON value, which passes every floor byte for byte. In SQL its type is json, where other JSON is jsonb."""


class Shape(Enum):
    """The number of rows that an operation returns."""

    ONE = "one row as a Struct"
    MANY = "rows as a list of Structs"
    SCALAR = "one value"


class Scope(Enum):
    """What an operation is about. A caller that is confined to one project may not reach beyond it."""

    IN_PROJECT = "something in the project that the field `project` names; None: in all projects"
    PROJECT = "the project itself that the field `project` names"
    AGENT = (
        "the agent in the field `agent`: by id, in whichever project it is, or by name, in that of the field `project`"
    )
    ALL = "all projects"
    OWN_ROWS = "all projects, of which a confined caller sees its own: see `Operation.confine`"
    NONE = "no project"


_SCOPE_FIELDS: Mapping[Scope, str] = MappingProxyType(
    {Scope.IN_PROJECT: "project", Scope.PROJECT: "project", Scope.AGENT: "agent"}
)


class Paged(Protocol):
    """The fields of an operation with ``page_by``."""

    after: list[str] | None
    limit: int


class Positioned(Protocol):
    """The field of an operation that asks whether reads include a position."""

    position: str


class Conditional(Protocol):
    """The field of a ``conditional`` operation: the version that it requires, or the hash of the content."""

    expect: int | str | None


class Objects(Protocol):
    """Reads objects of an object store."""

    async def read(self, store: str, key: str, first: int, length: int) -> bytes:
        """Return ``length`` bytes of an object from byte ``first`` on.

        Raises: ``StoreUnavailable``; ``ConfigurationError``.
        """


class Operation(msgspec.Struct, Generic[R], frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call of one SQL function; an instance holds the call's parameters.

    ``function`` is the SQL function without its schema, ``<noun>_<verb>``. ``reads``: it changes nothing, so a caller may
    repeat it after a lost response. ``internal``: no face offers it; only the daemon,
    its loops and transactions run it. ``procedure``: it commits while it runs, and its first parameter takes the answer.

    A public operation declares its ``scope``. One that writes also declares its ``speakers``: the fields that name who
    acts, by name or by id. Where none of them is set, the caller's own name goes into the first. An agent that a field
    gives by id is checked by the SQL function. ``registers``: the call makes an agent of its speaker,
    and has a field ``unreserved``.

    ``route`` is the path where it differs from the usual one (see ``model.route``). ``max_bytes`` is the limit of the catalogue on
    the size of its parameters, and so of a body; ``max_result`` is that on the size of its rows, where they do not come in pages. ``page_by`` makes it a list that
    comes in pages: the fields that order its rows, no two rows alike (see ``model.page``); ``grows``: new rows come at its end. ``conditional``: it changes
    nothing unless the version is the one in ``expect``. ``versioned``: its row has a ``version``. ``woken_by``: it can be
    waited for; these are the topics of the events after which it may have an answer. ``look_s``: after how many seconds a wait repeats it if
    no event comes, where the usual pause is longer than the answer lasts.

    ``durable``: its commit is on disk when it returns. One that is not, and returns one value, is worth nothing without a later call that
    is: until then a crash of the server may lose it.

    ``examples`` has values of its fields for the OpenAPI document, where the usual ones of their names do not fit.

    ``of_log``: it reads the log, which includes a write later than the state does.

    ``prepares``: it has a ``prepared`` that whoever runs it on PostgreSQL calls first. ``sql_names`` gives the fields whose parameter
    has another name there, since it takes something else: the hash of a password.

    ``fetches``: a part of its answer may be in an object store; it has a ``fetched`` that whoever gets the answer from PostgreSQL calls.

    ``reads_log``: its rows are events, so over HTTP the gateway answers, with the cursor up to which it has read; see
    ``of_page``. ``query_names`` gives the fields that have another name in a query, or None for those that are not sent.
    """

    function: ClassVar[str]
    reads: ClassVar[bool] = False
    internal: ClassVar[bool] = False
    procedure: ClassVar[bool] = False
    scope: ClassVar[Scope | None] = None
    scope_field: ClassVar[str | None] = None
    speakers: ClassVar[tuple[str, ...]] = ()
    registers: ClassVar[bool] = False
    max_bytes: ClassVar[str | None] = None
    max_result: ClassVar[str | None] = None
    route: ClassVar[str | None] = None
    durable: ClassVar[bool] = True
    page_by: ClassVar[tuple[str, ...]] = ()
    grows: ClassVar[bool] = False
    conditional: ClassVar[bool] = False
    versioned: ClassVar[bool] = False
    reads_log: ClassVar[bool] = False
    query_names: ClassVar[Mapping[str, str | None]] = MappingProxyType({})
    woken_by: ClassVar[tuple[str, ...]] = ()
    look_s: ClassVar[float | None] = None
    of_log: ClassVar[bool] = False
    examples: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    prepares: ClassVar[bool] = False
    fetches: ClassVar[bool] = False
    sql_names: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def __init_subclass__(cls) -> None:
        """Refuse a class that leaves open what the faces have to check.

        Raises: ``TypeError``.
        """
        super().__init_subclass__()
        cls.scope_field = _SCOPE_FIELDS.get(cls.scope) if cls.scope else None
        if cls.internal:
            return
        if cls.scope is None:
            raise TypeError(f"{cls.__qualname__} declares no scope; say which projects it is about: scope = Scope.…")
        if not cls.reads and not cls.speakers:
            raise TypeError(f"{cls.__qualname__} writes and declares no speakers; name the fields that say who acts")
        needed = {
            *([cls.scope_field] if cls.scope_field else []),
            *cls.speakers,
            *(["after", "limit"] if cls.page_by else []),
            *(["expect"] if cls.conditional else []),
        }
        missing = needed.difference(*(inspect.get_annotations(base) for base in cls.__mro__))
        if missing:
            raise TypeError(f"{cls.__qualname__} has no field {', '.join(sorted(missing))}, which it declares to have")
        if cls.versioned and "version" not in getattr(cls.answer()[1], "__struct_fields__", ()):
            raise TypeError(f"{cls.__qualname__} returns a row without a version, which it declares to have")

    def about(self) -> str | UUID | None:
        """Return the project that this call is about, or the agent whose project it is; None: all projects, or none."""
        found: str | UUID | None = getattr(self, self.scope_field) if self.scope_field else None
        if self.scope is Scope.AGENT:
            project: str | None = getattr(self, "project", None)
            return found if project is None and isinstance(found, UUID) else project
        return found

    def parts(self) -> Sequence[Operation[Any]]:
        """Return the calls that this one consists of, each of which its caller must be allowed to make.

        Raises: ``InvalidArgument`` for a malformed part.
        """
        return ()

    def with_parts(self, parts: Sequence[Operation[Any]]) -> Self:
        """Return the call with other parts, in the order of ``parts``."""
        raise NotImplementedError

    def confine(self, rows: list[Any], project: str) -> list[Any]:
        """Return the rows that a caller confined to a project may see; one with ``Scope.OWN_ROWS`` says which."""
        raise NotImplementedError

    def of_page(self, items: list[Any], cursor: str) -> R:
        """Return the answer, given a page of the log; an operation with ``reads_log`` says how."""
        raise NotImplementedError

    def speaker_names(self) -> list[str]:
        """Return the names that this call speaks under."""
        given = (getattr(self, field) for field in self.speakers)
        return [value for value in given if isinstance(value, str) and not is_agent_id(value)]

    def spoken_by(self, name: str | None) -> Self:
        """Return the call in this name, or as it is where it names a speaker already."""
        if name is None or not self.speakers or any(getattr(self, field) is not None for field in self.speakers):
            return self
        return msgspec.structs.replace(self, **{self.speakers[0]: name})

    async def prepared(self, _runner: Any) -> Self:
        """Return the call as PostgreSQL gets it; an operation with ``prepares`` says how. The runner runs what it needs for that."""
        raise NotImplementedError

    async def fetched(self, result: R, objects: Objects) -> R:
        """Return the answer, completed from an object store; an operation with ``fetches`` says how."""
        raise NotImplementedError

    def check_settings(self, config: Any) -> None:
        """Raise where the settings of whoever runs it on PostgreSQL forbid the call.

        Raises: ``InvalidArgument``.
        """

    def answered(self, result: R) -> bool:
        """Return whether a result ends a wait."""
        return bool(result)

    def awaits(self, error: CoordinatorError) -> bool:  # noqa: ARG002 - the usual case
        """Return whether a wait continues after an error, because what is read does not exist yet."""
        return False

    def over(self, result: R) -> bool:  # noqa: ARG002 - the usual case
        """Return whether nothing can follow the last of these rows, in a list with ``grows``."""
        return False

    def concerned_by(self, data: dict[str, Any]) -> bool:  # noqa: ARG002 - the usual case
        """Return whether an event of ``woken_by`` with this data can matter; a wrong yes costs one repetition."""
        return True

    def leases(self, result: R) -> Iterable[LeaseChange]:  # noqa: ARG002 - the usual case
        """Yield what this call changed in its caller's leases, given its result."""
        return ()

    @classmethod
    def least_role(cls) -> Role | None:
        """Return the least role that may call it, as the noun's SQL file says; None: only the daemon may."""
        return ROLES.get(cls.function)

    @classmethod
    def part(cls) -> str | None:
        """Return what it may be in a transaction, as the noun's SQL file says: condition, write, or None."""
        return PARTS.get(cls.function)

    @classmethod
    def answer(cls) -> tuple[Shape, Any]:
        """Return the shape of the answer and the type of its rows or value."""
        base = next(b for b in cls.__orig_bases__ if get_origin(b) is Operation)  # type: ignore[attr-defined]
        (result,) = get_args(base)
        if get_origin(result) is list:
            (row,) = get_args(result)
            if isinstance(row, type) and issubclass(row, msgspec.Struct):
                return Shape.MANY, row
        if isinstance(result, type) and issubclass(result, msgspec.Struct):
            return Shape.ONE, result
        return Shape.SCALAR, result


async def complete(operation: Operation[R], result: R, objects: Objects | None) -> R:
    """Return the answer of an operation, completed from an object store; without one, as it is.

    Raises: ``StoreUnavailable``; ``ConfigurationError``.
    """
    return result if objects is None or not operation.fetches else await operation.fetched(result, objects)
