"""Traces, as every other module uses them: spans, and the context that leads from one process to the next (W3C Trace Context).

``telemetry.otel`` makes the spans, with OpenTelemetry, once ``start`` was called. Until then, nothing imports it, and a
span costs two calls. A context that came from elsewhere is passed on in any case: a trace does not end at a daemon
without tracing.

An invalid context is ignored, as the specification requires, so the contexts from this module are safe in any header
and statement.
"""

from __future__ import annotations

import atexit
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self

from coordinator.errors import ConfigurationError

if TYPE_CHECKING:
    from coordinator.model.operation import Operation

__all__ = [
    "OFF",
    "Kind",
    "Span",
    "TraceContext",
    "Tracer",
    "apart",
    "current",
    "exemplar",
    "headers",
    "on",
    "operation",
    "parsed",
    "received",
    "record",
    "span",
    "start",
    "statement",
    "stop",
    "trace_id",
    "traceparent",
    "use",
]

Kind = Literal["internal", "server", "client", "producer", "consumer"]
Value = str | int | float | bool

STATE_BYTES = 512  # of tracestate: the size that everyone must pass on
STATE_MEMBERS = 32

# Compiled where they are used, since most short programs have no context.
_PARENT = r"(?!ff)([0-9a-f]{2})-((?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?"
_KNOWN_FLAGS = 0x03  # sampled, random
_PARENT_BYTES = 256  # later versions may be longer
_STATE = r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]"

# The roles of operations in terms of messaging.
_MESSAGING: Mapping[str, tuple[Kind, str]] = {
    "directive_send": ("producer", "send"),
    "event_emit": ("producer", "send"),
    "job_claim": ("client", "receive"),
    "job_enqueue": ("producer", "send"),
    "job_enqueue_many": ("producer", "send"),
    "message_append": ("producer", "send"),
}


class TraceContext(NamedTuple):
    """A position in a trace, as in its headers."""

    traceparent: str
    tracestate: str | None = None


class Span(Protocol):
    """One piece of work, within ``with``. An exception that leaves the context is its failure."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""

    def rename(self, name: str) -> None:
        """Change its name."""

    def fail(self, kind: str) -> None:
        """Record that it failed, and how (the attribute error.type)."""


class Tracer(Protocol):
    """Makes spans."""

    def span(self, name: str, kind: Kind, attributes: Mapping[str, Value], parent: TraceContext | None) -> Span:
        """Make a span below ``parent``, or below the current one."""

    def record(self, name: str, began_ns: int, attributes: Mapping[str, Value]) -> None:
        """Make a separate span that began at a time since 1970 and ends now."""

    def current(self) -> TraceContext | None:
        """Return the current context."""

    def apart(self) -> AbstractContextManager[None]:
        """Have no current span within the context."""

    def close(self) -> None:
        """Send the remaining spans, for a limited time."""


class _Off:
    """The span of a tracer that is off."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set(self, name: str, value: Value) -> None:
        pass

    def rename(self, name: str) -> None:
        pass

    def fail(self, kind: str) -> None:
        pass


class _Carried(_Off):
    """The same, but it passes on a context that came from elsewhere."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: TraceContext) -> None:
        self._context = context

    def __enter__(self) -> Self:
        self._token: Token[TraceContext | None] = _carried.set(self._context)
        return self

    def __exit__(self, *_: object) -> None:
        _carried.reset(self._token)


OFF: Span = _Off()
_NOTHING: Mapping[str, Value] = {}
_carried: ContextVar[TraceContext | None] = ContextVar("trace_context", default=None)
_tracer: Tracer | None = None


def start(service: str) -> None:
    """Trace from now on, in the name of ``service`` unless OTEL_SERVICE_NAME is set; remaining spans are sent at the end of the process.

    Raises: ``ConfigurationError`` if OpenTelemetry is not installed.
    """
    if _tracer is not None:
        return
    for module in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"):
        if not _installed(module):
            raise ConfigurationError(
                "the setting tracing is on, but OpenTelemetry is not installed",
                hint='Install the extra: pip install "coordinatord[otel]"; or set COORDINATOR_TRACING=off.',
            )
    from coordinator.telemetry.otel import OpenTelemetry  # noqa: PLC0415 - an extra, slow to import

    use(OpenTelemetry.opened(service))
    atexit.register(stop)


def stop() -> None:
    """Send the remaining spans, for a limited time, and stop tracing."""
    tracer = _tracer
    use(None)
    if tracer is not None:
        tracer.close()


def use(tracer: Tracer | None) -> None:
    """Use this tracer for all spans."""
    global _tracer  # noqa: PLW0603 - one for the process, like the metrics
    _tracer = tracer


def on() -> bool:
    """Return whether spans are made."""
    return _tracer is not None


def span(name: str, kind: Kind = "internal", attributes: Mapping[str, Value] = _NOTHING) -> Span:
    """Return a span below the current one."""
    return OFF if _tracer is None else _tracer.span(name, kind, attributes, None)


def received(name: str, kind: Kind, attributes: Mapping[str, Value], parent: TraceContext | None) -> Span:
    """Return a span for a request or message from elsewhere, with its context, if that is valid."""
    if _tracer is not None:
        return _tracer.span(name, kind, attributes, parent)
    return OFF if parent is None else _Carried(parent)


def operation(call: Operation[Any]) -> Span:
    """Return the span of an operation. The daemon's own operations of every second have none, except within another span."""
    if _tracer is None or (call.internal and _tracer.current() is None):
        return OFF
    function = call.function
    attributes: dict[str, Value] = {"coordinator.operation": function}
    if isinstance(about := call.about(), str):
        attributes["coordinator.project"] = about
    kind: Kind
    verb: str | None
    kind, verb = _MESSAGING.get(function, ("internal", None))
    if verb is not None:
        attributes |= {
            "messaging.system": "coordinator",
            "messaging.operation.name": function,
            "messaging.operation.type": verb,
        }
        if isinstance(queue := getattr(call, "queue", None), str):
            attributes["messaging.destination.name"] = queue
    return _tracer.span(function, kind, attributes, None)


def statement(call: Operation[Any], sql: str) -> Span:
    """Return the span of an operation's SQL call. The statement contains no values."""
    if _tracer is None or (call.internal and _tracer.current() is None):
        return OFF
    function = f"coordinator.{call.function}"
    verb = "CALL" if call.procedure else "SELECT"
    attributes = {
        "db.system.name": "postgresql",
        "db.operation.name": verb,
        "db.stored_procedure.name": function,
        "db.query.summary": f"{verb} {function}",
        "db.query.text": sql,
    }
    return _tracer.span(f"{verb} {function}", "client", attributes, None)


@contextmanager
def apart() -> Iterator[None]:
    """Belong to no trace within the context. Tasks that are started there outlive the current span: heartbeats, for example."""
    token = _carried.set(None)
    try:
        with nullcontext() if _tracer is None else _tracer.apart():
            yield
    finally:
        _carried.reset(token)


def record(name: str, began_ns: int, attributes: Mapping[str, Value]) -> None:
    """Make a span of finished work that began at a time since 1970."""
    if _tracer is not None:
        _tracer.record(name, began_ns, attributes)


def current() -> TraceContext | None:
    """Return the current context; None: there is none."""
    return _carried.get() if _tracer is None else _tracer.current()


def traceparent() -> str | None:
    """Return the current context without its state."""
    context = current()
    return None if context is None else context.traceparent


def trace_id() -> str | None:
    """Return the id of the current trace."""
    context = current()
    return None if context is None else context.traceparent[3:35]


def exemplar() -> dict[str, str] | None:
    """Return the current span as the labels of an exemplar, if its trace is recorded."""
    context = current()
    if context is None or not int(context.traceparent[-1], 16) & 1:
        return None
    return {"trace_id": context.traceparent[3:35], "span_id": context.traceparent[36:52]}


def headers() -> dict[str, str]:
    """Return the headers for the current context."""
    context = current()
    if context is None:
        return {}
    if context.tracestate is None:
        return {"traceparent": context.traceparent}
    return {"traceparent": context.traceparent, "tracestate": context.tracestate}


def parsed(parent: str | None, state: str | None = None) -> TraceContext | None:
    """Parse a context; None if it is not valid. If only its state is invalid or too long, the state is dropped."""
    if parent is None or len(parent) > _PARENT_BYTES or (match := re.fullmatch(_PARENT, parent)) is None:
        return None
    version, ids, flags, rest = match.groups()
    if rest is not None and version == "00":
        return None
    return TraceContext(f"00-{ids}-{int(flags, 16) & _KNOWN_FLAGS:02x}", None if state is None else _state(state))


def _state(text: str) -> str | None:
    if len(text) > STATE_BYTES:
        return None
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    names = {member.partition("=")[0] for member in members}
    valid = (
        0 < len(members) <= STATE_MEMBERS
        and len(names) == len(members)
        and all(re.fullmatch(_STATE, member) for member in members)
    )
    return ",".join(members) if valid else None


def _installed(module: str) -> bool:
    from importlib.util import find_spec  # noqa: PLC0415 - slow to import, and only tracing needs it

    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a package above it
        return False
