"""An operation: its parameters are the fields of a Struct, and its result is the Struct's type argument.

``class Set(Operation[Signal])`` is written once. The executor for PostgreSQL calls the SQL function with the fields as
``p_…`` parameters; all other interfaces are derived from the same class. A test compares names, order and defaults with
the database's catalogue.

An operation also declares what the interfaces must know before they run a call: which projects it concerns, and in
whose name it acts. If a public operation does not declare one of these, the definition of its class fails. So a new
field that names an agent cannot reach the database unchecked.
"""

from __future__ import annotations

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
    "Batch",
    "Conditional",
    "InProject",
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
    """The scope of an operation. A caller that is restricted to one project may not reach beyond it."""

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
    """A call of one SQL function; an instance holds the parameters of the call.

    ``function`` is the name of the SQL function without its schema, ``<noun>_<verb>``. ``reads``: it changes nothing,
    so a caller may repeat it after a lost response. ``internal``: no interface offers it; only the daemon, its loops
    and transactions run it. ``procedure``: it commits while it runs, and its first parameter receives the result.

    A public operation declares its ``scope``; most inherit it from ``InProject``. A write also declares its ``speakers``: the fields that name the acting
    agent or person, by name or by id. If none of them is set, the caller's own name is used for the first one. The SQL
    function checks an agent that is given by id. ``registers``: the call registers its speaker as an agent, and has a
    field ``unreserved``.

    ``route`` is the path if it differs from the usual one (see ``model.route``). ``max_bytes`` is the limit in the
    catalogue on the size of its parameters, and so of a body; ``max_result`` is the limit on the size of its rows, if
    it has no pages. ``page_by`` makes it a list with pages: the fields that order its rows, which no two rows share
    (see ``model.page``). ``grows``: new rows appear at the end. ``conditional``: it changes nothing unless the version
    is the one in ``expect``. ``versioned``: its row has a ``version``. ``woken_by``: callers can wait for its result;
    these are the topics of the events after which there may be one. ``look_s``: after how many seconds a wait repeats
    it if no event arrives, if the usual pause is longer than the result is valid.

    ``durable``: its commit is on disk when it returns. An operation that is not durable returns one value, which is
    useless without a later durable call; until then, a crash of the server may lose it.

    ``examples`` has values of its fields for the OpenAPI document, where the usual values for their names
    (``api.openapi.examples``) do not fit, or there are none.

    ``of_log``: it reads the log, which includes a write later than the state does.

    ``prepares``: it has a method ``prepared``, which the process that runs it on PostgreSQL calls first. ``sql_names``
    lists the fields whose SQL parameter has another name because it takes a different value: the hash of a password.

    ``fetches``: a part of its result may be in an object store; it has a method ``fetched``, which the process that
    receives the result from PostgreSQL calls.

    ``reads_log``: its rows are events, so over HTTP the gateway returns them, with the cursor up to which it has read;
    see ``of_page``. ``query_names`` lists the fields that have another name in a query, or None for fields that are not
    sent.
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
        """Reject a class that does not declare what the interfaces must check.

        Raises: ``TypeError``.
        """
        super().__init_subclass__()
        cls.scope_field = _SCOPE_FIELDS.get(cls.scope) if cls.scope else None
        if cls.internal or not hasattr(cls, "function"):  # without a function, it is a base of operations
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
        missing = needed.difference(*(getattr(base, "__annotations__", ()) for base in cls.__mro__))
        if missing:
            raise TypeError(f"{cls.__qualname__} has no field {', '.join(sorted(missing))}, which it declares to have")
        if cls.versioned and "version" not in getattr(cls.answer()[1], "__struct_fields__", ()):
            raise TypeError(f"{cls.__qualname__} returns a row without a version, which it declares to have")

    def about(self) -> str | UUID | None:
        """Return the project that this call concerns, or the agent whose project it is; None: all projects, or none."""
        found: str | UUID | None = getattr(self, self.scope_field) if self.scope_field else None
        if self.scope is Scope.AGENT:
            project: str | None = getattr(self, "project", None)
            return found if project is None and isinstance(found, UUID) else project
        return found

    def parts(self) -> Sequence[Operation[Any]]:
        """Return the calls that this call consists of; its caller must be allowed to make each of them.

        Raises: ``InvalidArgument`` for a malformed part.
        """
        return ()

    def with_parts(self, parts: Sequence[Operation[Any]]) -> Self:
        """Return the call with other parts, in the order of ``parts``."""
        raise NotImplementedError

    def confine(self, rows: list[Any], project: str) -> list[Any]:
        """Return the rows that a caller restricted to a project may see; operations with ``Scope.OWN_ROWS`` implement it."""
        raise NotImplementedError

    def of_page(self, items: list[Any], cursor: str) -> R:
        """Return the result for a page of the log; operations with ``reads_log`` implement it."""
        raise NotImplementedError

    def speaker_names(self) -> list[str]:
        """Return the names in which this call acts."""
        given = (getattr(self, field) for field in self.speakers)
        return [value for value in given if isinstance(value, str) and not is_agent_id(value)]

    def spoken_by(self, name: str | None) -> Self:
        """Return the call with this speaker, or unchanged if it already names one."""
        if name is None or not self.speakers or any(getattr(self, field) is not None for field in self.speakers):
            return self
        return msgspec.structs.replace(self, **{self.speakers[0]: name})

    def ending_with(self, process: int | None) -> Self:  # noqa: ARG002 - most operations ignore it
        """Return the call with the process at whose end ends what it creates, or unchanged if it already names one."""
        return self

    async def prepared(self, _runner: Any) -> Self:
        """Return the call in the form for PostgreSQL; operations with ``prepares`` implement it. The runner runs what it needs."""
        raise NotImplementedError

    async def fetched(self, result: R, objects: Objects) -> R:
        """Return the result, completed from an object store; operations with ``fetches`` implement it."""
        raise NotImplementedError

    def check_settings(self, config: Any) -> None:
        """Raise if the settings of the process that runs it on PostgreSQL forbid the call.

        Raises: ``InvalidArgument``.
        """

    def answered(self, result: R) -> bool:
        """Return whether a result ends a wait."""
        return bool(result)

    def awaits(self, error: CoordinatorError) -> bool:  # noqa: ARG002 - most operations ignore it
        """Return whether a wait continues after an error, because the requested object does not exist yet."""
        return False

    def over(self, result: R) -> bool:  # noqa: ARG002 - most operations ignore it
        """Return whether no row can follow the last of these rows, in a list with ``grows``."""
        return False

    def concerned_by(self, data: dict[str, Any]) -> bool:  # noqa: ARG002 - most operations ignore it
        """Return whether an event of ``woken_by`` with this data may matter; a false positive costs one repetition."""
        return True

    def leases(self, result: R) -> Iterable[LeaseChange]:  # noqa: ARG002 - most operations ignore it
        """Yield the changes of its caller's leases, given the result of this call."""
        return ()

    @classmethod
    def least_role(cls) -> Role | None:
        """Return the lowest role that may call it, from the noun's SQL file; None: only the daemon."""
        return ROLES.get(cls.function)

    @classmethod
    def part(cls) -> str | None:
        """Return its kind of transaction part, from the noun's SQL file: condition, write, or None."""
        return PARTS.get(cls.function)

    @classmethod
    def answer(cls) -> tuple[Shape, Any]:
        """Return the shape of the result, and the type of its rows or value."""
        (result,) = get_args(cls.__orig_bases__[0])  # type: ignore[attr-defined]
        if get_origin(result) is list:
            (row,) = get_args(result)
            if isinstance(row, type) and issubclass(row, msgspec.Struct):
                return Shape.MANY, row
        if isinstance(result, type) and issubclass(result, msgspec.Struct):
            return Shape.ONE, result
        return Shape.SCALAR, result


class InProject(Operation[R], frozen=True, kw_only=True):
    """An operation on something in a project."""

    scope = Scope.IN_PROJECT

    project: str


class Batch(Operation[int], frozen=True, kw_only=True):
    """A step of a loop: it handles up to ``limit`` items, and returns how many. Repeat until 0."""

    internal = True

    limit: int = 1000


async def complete(operation: Operation[R], result: R, objects: Objects | None) -> R:
    """Return the result of an operation, completed from an object store; without one, unchanged.

    Raises: ``StoreUnavailable``; ``ConfigurationError``.
    """
    return result if objects is None or not operation.fetches else await operation.fetched(result, objects)
