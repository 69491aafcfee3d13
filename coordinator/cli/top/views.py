"""The views of ``coordinator top``: what each view shows of a project, and the actions on its rows."""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, TypeVar

import msgspec

from coordinator.cli.output import cell
from coordinator.model.event import Event
from coordinator.model.lock import LockBlocker
from coordinator.model.operation import Operation
from coordinator.model.server import ServerCalls
from coordinator.operations import agents, events, job_history, jobs, locks, server
from coordinator.operations.executor import Runner

__all__ = ["VIEWS", "View", "ViewAction", "ViewRow", "ViewSource", "chain", "described"]

ROWS = 1000  # rows of a view
EVENTS = 1000  # events per read
WINDOW_S = 60.0  # window for the rates of events
CHAIN = 10  # agents of a chain that are shown

Op = TypeVar("Op", bound=Operation[Any])


class ViewSource(NamedTuple):
    """The source of the views' data: an executor, and the settings that operations need."""

    executor: Runner
    project: str
    actor: str | None

    async def run(self, kind: type[Op], /, **fields: Any) -> Any:
        """Run an operation in the project.

        Raises: what the operation raises.
        """
        own = {"project": self.project, "actor": self.actor}
        names = kind.__struct_fields__
        return await self.executor.run(kind(**{name: own[name] for name in own if name in names}, **fields))


class ViewRow(NamedTuple):
    """A row: its key, its cells in the order of the columns, and the item that it shows."""

    key: str
    cells: tuple[object, ...]
    item: msgspec.Struct


class ViewAction(NamedTuple):
    """An action on a row, after a confirmation."""

    label: str
    question: Callable[[Any], str]
    run: Callable[[ViewSource, Any], Awaitable[object]]


class View:
    """One view. ``sort`` is the initial sort column; ``descending`` is its direction."""

    title: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    sort: ClassVar[str]
    descending: ClassVar[bool] = False
    action: ClassVar[ViewAction | None] = None

    async def rows(self, source: ViewSource) -> list[ViewRow]:
        """Read the rows.

        Raises: what the operations raise.
        """
        raise NotImplementedError

    async def opened(self, source: ViewSource, item: Any) -> list[msgspec.Struct]:  # noqa: ARG002 - most views ignore the source
        """Read the details of one row.

        Raises: what the operations raise.
        """
        return [item]


class AgentsView(View):
    """The registered agents."""

    title = "Agents"
    columns = ("agent", "role", "job_types", "registered", "heartbeat", "expires", "id")
    sort = "agent"
    action = ViewAction(
        "Deregister",
        lambda agent: f'Deregister agent "{agent.name}"? It loses its locks, signals and jobs.',
        lambda source, agent: source.run(agents.Deregister, agent=agent.id),
    )

    async def rows(self, source: ViewSource) -> list[ViewRow]:
        """Read the agents."""
        found = await source.run(agents.List, limit=ROWS)
        return [
            ViewRow(
                str(one.id),
                (one.name, one.role, one.job_types, one.registered_at, one.heartbeat_at, one.expires_at, str(one.id)),
                one,
            )
            for one in found
        ]

    async def opened(self, source: ViewSource, item: Any) -> list[msgspec.Struct]:
        """Also read the agent's locks."""
        return [item, *await source.run(locks.List, agent=item.id, limit=ROWS)]


class LocksView(View):
    """The locks that are held."""

    title = "Locks"
    columns = ("resource", "agent", "waiting", "mode", "acquired", "expires", "token", "owner")
    sort = "waiting"
    descending = True
    action = ViewAction(
        "Break",
        lambda lock: f'Break the lock of "{lock.resource}" that agent "{lock.agent}" holds?',
        lambda source, lock: source.run(
            locks.Break, resource=lock.resource, reason="coordinator top", agent=lock.agent_id, token=lock.fencing_token
        ),
    )

    async def rows(self, source: ViewSource) -> list[ViewRow]:
        """Read the locks, and count the waiters of each."""
        held = await source.run(locks.List, limit=ROWS)
        waiting: defaultdict[tuple[Any, str], set[int]] = defaultdict(set)
        for one in await _blockers(source):
            waiting[one.for_agent_id, one.for_resource].add(one.ticket)
        return [
            ViewRow(
                str(lock.fencing_token),
                (
                    lock.resource,
                    lock.agent,
                    len(waiting[lock.agent_id, lock.resource]),
                    lock.mode,
                    lock.acquired_at,
                    lock.expires_at,
                    lock.fencing_token,
                    lock.owner,
                ),
                lock,
            )
            for lock in held
        ]

    async def opened(self, source: ViewSource, item: Any) -> list[msgspec.Struct]:
        """Also read the waiters of the lock."""
        return [item, *await source.run(locks.ListWaiting, resource=item.resource, limit=ROWS)]


class WaitsView(View):
    """Who waits for whom, along the chain of holders that wait themselves."""

    title = "Waits"
    columns = ("ticket", "agent", "resource", "waits for")
    sort = "ticket"

    async def rows(self, source: ViewSource) -> list[ViewRow]:
        """Read the waiters, with the chain of agents in their way."""
        blockers = await _blockers(source)
        first = {(one.ticket, one.resource): one for one in reversed(blockers)}
        return [
            ViewRow(f"{one.ticket} {one.resource}", (one.ticket, one.agent, one.resource, chain(one, blockers)), one)
            for one in first.values()
        ]

    async def opened(self, source: ViewSource, item: Any) -> list[msgspec.Struct]:
        """Read all holders that block it."""
        return [one for one in await _blockers(source) if one.ticket == item.ticket]


class JobsView(View):
    """The jobs that have not ended, and the jobs that ended most recently."""

    title = "Jobs"
    columns = ("type", "status", "queue", "worker", "attempts", "percent", "created", "message", "id")
    sort = "created"
    descending = True
    action = ViewAction(
        "Cancel",
        lambda job: f"Cancel job {job.id} ({job.type}, {job.status})?",
        lambda source, job: source.run(jobs.Cancel, job=job.id, reason="coordinator top"),
    )

    async def rows(self, source: ViewSource) -> list[ViewRow]:
        """Read the newest jobs."""
        return [
            ViewRow(
                str(job.id),
                (
                    job.type,
                    job.status,
                    job.queue,
                    job.worker,
                    job.attempts,
                    job.percent,
                    job.created_at,
                    job.message,
                    str(job.id),
                ),
                job,
            )
            for job in await source.run(job_history.List, limit=ROWS)
        ]

    async def opened(self, source: ViewSource, item: Any) -> list[msgspec.Struct]:
        """Read the job again, and why it is in its state."""
        return [
            await source.run(job_history.Show, job=item.id),
            await source.run(job_history.Why, job=item.id),
        ]


class EventsView(View):
    """Events by type, with their number per second. Counting starts when the view is first shown."""

    title = "Events"
    columns = ("type", "per second", "seen", "last key", "last actor", "last")
    sort = "per second"
    descending = True

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._cursor: str | None = None
        self._since = 0.0
        self._seen: Counter[str] = Counter()
        self._recent: deque[tuple[float, Counter[str]]] = deque()
        self._last: dict[str, Event] = {}

    async def rows(self, source: ViewSource) -> list[ViewRow]:
        """Read the events since the last read, at most ``EVENTS`` at once."""
        if self._cursor is None:
            self._cursor, self._since = await source.run(events.Head), self._now()
        page: list[Event] = await source.run(events.Since, after=self._cursor, limit=EVENTS)
        now = self._now()
        self._recent.append((now, Counter(event.type for event in page)))
        self._last |= {event.type: event for event in page}
        if page:
            self._cursor = page[-1].cursor
        self._seen += self._recent[-1][1]
        while self._recent[0][0] < now - WINDOW_S:
            self._recent.popleft()
        span_s = max(1.0, min(WINDOW_S, now - self._since))
        recent: Counter[str] = sum((counted for _, counted in self._recent), Counter())
        return [
            ViewRow(name, (name, recent[name] / span_s, self._seen[name], event.key, event.actor, event.at), event)
            for name, event in self._last.items()
        ]


class CallsView(View):
    """Calls of the schema's functions in the server: running ones and, with pg_stat_statements, how long others took."""

    title = "Calls"
    columns = ("function", "running", "longest s", "per second", "mean ms", "share")
    sort = "longest s"
    descending = True

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._before: tuple[float, Mapping[str, ServerCalls]] | None = None

    async def rows(self, source: ViewSource) -> list[ViewRow]:
        """Read the calls, and compare them with the previous read."""
        now, found = self._now(), {one.function: one for one in await source.run(server.ListCalls)}
        then, before = self._before or (now, {})
        self._before = now, found
        rows = []
        for name, one in found.items():
            past = before.get(name)
            calls = _grown(one.calls, past.calls if past else None)
            seconds = _grown(one.seconds, past.seconds if past else None)
            span_s = now - then
            rate = None if calls is None or not span_s else calls / span_s
            mean = None if not calls or seconds is None else 1000 * seconds / calls
            share = None if seconds is None or not span_s else seconds / span_s
            rows.append(ViewRow(name, (name, one.running, one.longest_seconds, rate, mean, share), one))
        return rows


class SizesView(View):
    """The sizes of the database, its tables and its projects in megabytes, and how much they grew."""

    title = "Sizes"
    columns = ("kind", "name", "MB", "MB in a day", "MB in a week", "measured")
    sort = "MB"
    descending = True

    async def rows(self, source: ViewSource) -> list[ViewRow]:
        """Read the latest measured sizes."""
        return [
            ViewRow(
                f"{one.kind} {one.name}",
                (
                    one.kind,
                    one.name,
                    _megabytes(one.bytes),
                    _megabytes(one.day_bytes),
                    _megabytes(one.week_bytes),
                    one.measured_at,
                ),
                one,
            )
            for one in await source.run(server.ListSizes)
        ]


VIEWS: tuple[Callable[[], View], ...] = (
    AgentsView,
    LocksView,
    WaitsView,
    JobsView,
    EventsView,
    CallsView,
    SizesView,
)


def _megabytes(size: int | None) -> float | None:
    return None if size is None else round(size / 1e6, 1)


async def _blockers(source: ViewSource) -> list[LockBlocker]:
    found: list[LockBlocker] = await source.run(locks.Chains)
    return found


def chain(first: LockBlocker, blockers: Sequence[LockBlocker]) -> str:
    """Format for whom an agent waits, and so on, up to ``CHAIN`` agents; if several block it, use the first."""
    by_agent: dict[Any, LockBlocker] = {}
    for one in blockers:
        by_agent.setdefault(one.agent_id, one)
    parts, at, seen = [], first, {first.agent_id}
    for _ in range(CHAIN):
        parts.append(f"{at.for_agent} ({at.for_resource}{'' if at.for_ticket is None else ', waits too'})")
        if at.for_agent_id in seen:
            return " → ".join([*parts, "a cycle"])
        seen.add(at.for_agent_id)
        following = by_agent.get(at.for_agent_id)
        if following is None:
            return " → ".join(parts)
        at = following
    return " → ".join([*parts, "…"])


def described(items: Iterable[msgspec.Struct]) -> str:
    """Format items with a line for each field that has a value, and a line between items."""
    texts = []
    for item in items:
        fields = [(name, getattr(item, name)) for name in item.__struct_fields__]
        texts.append(
            "\n".join(f"{name:<16} {cell(value, None)}" for name, value in fields if value not in (None, [], {}, ""))
        )
    return "\n\n".join(texts)


def _grown(now: float | None, before: float | None) -> float | None:
    return None if now is None or before is None or now < before else now - before
