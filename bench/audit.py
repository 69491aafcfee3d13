"""What the server pays to record where events come from, and to copy them into audit trails.

The processor time of one backend counts, as the kernel says it in nanoseconds: other work on the machine changes that less than it changes wall time. Variants run in
turns, a hundred calls each, and medians of the turns are compared, so a slow moment hits few of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from statistics import median

import asyncpg

from bench.place import Options, Place, fresh
from bench.report import Table
from coordinator.db.call import call
from coordinator.model.call_origin import CallOrigin, coming_from
from coordinator.operations import signals
from coordinator.telemetry import tracing

__all__ = ["run"]

CALLS = 100
TURNS = 32
CHUNK = 500  # events that are numbered together
CHUNKS = 30
ORIGIN = CallOrigin(token=17, name="ci-main", address="192.0.2.44")
PARENT = tracing.parsed("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
BARE = "without the columns"
DEFAULTS = {
    "role": "session_user",
    "address": "inet_client_addr()",
    "origin": "coordinator.origin()",
    "traceparent": "coordinator.traceparent()",
}
PLANNED = 12
COPY = "select coordinator.audit_copy(1)"
EMIT = "select coordinator.event_emit('default', 'custom.x', 'k/' || n, '{\"state\": \"done\"}') from generate_series(1, $1) n"


class _Backend:
    """A connection, and the processor time of its backend."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection
        self._path = Path(f"/proc/{connection.get_server_pid()}/schedstat")

    async def spent_us(self, work: Callable[[], Awaitable[object]]) -> float:
        """Return what a piece of work takes."""
        before = self._now_ns()
        await work()
        return (self._now_ns() - before) / 1000

    def _now_ns(self) -> int:
        return int(self._path.read_text().split()[0])


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure writes with and without an origin, then the loop that copies."""
    async with fresh(options) as place:
        writes = await _writes(place)
        copies = await _copies(place)
    yield Table(
        "What it costs the server to record where an event comes from",
        ["signal set", "µs of a processor", "ratio"],
        writes,
        [f"{TURNS} turns of {CALLS} calls, without the wait for the disk; medians of the turns and of their ratios."],
    )
    yield Table(
        "What it costs the server to copy events into the audit trail",
        ["what", "µs of a processor"],
        copies,
        [f"Medians of {CHUNKS} chunks of {CHUNK} events; an entry is what a chunk takes more if all of it is audited."],
    )


async def _writes(place: Place) -> list[list[str]]:
    connection = await place.connect()
    backend = _Backend(connection)
    await connection.execute("set synchronous_commit = off")

    async def calls(count: int = CALLS) -> None:
        for n in range(count):
            await call(connection, signals.Set(project="default", key=f"k/{n}", value={"state": "done"}))

    async def told() -> None:
        with coming_from(ORIGIN), tracing.received("x", "server", {}, PARENT):
            await calls()

    origins = {"role", "address", "origin"}
    variants: dict[str, tuple[set[str], Callable[[], Awaitable[object]]]] = {
        BARE: (set(), calls),
        "with those of origins": (origins, calls),
        "with that of traces, switched off, too": ({*DEFAULTS}, calls),
        "with a token and a trace in them": ({*DEFAULTS}, told),
    }
    turns: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(-3, TURNS):
        for name in _turned(variants, number):
            filled, work = variants[name]
            for column, value in DEFAULTS.items():
                change = f"set default {value}" if column in filled else "drop default"
                await connection.execute(f"alter table coordinator.events alter column {column} {change}")
            await calls(PLANNED)  # with new plans
            spent = await backend.spent_us(work) / CALLS
            if number >= 0:
                turns[name].append(spent)
    await connection.close()
    bare = turns[BARE]
    return [
        [name, f"{median(spent):.1f}", f"{median(a / b for a, b in zip(spent, bare, strict=True)):.3f}"]
        for name, spent in turns.items()
    ]


def _turned(names: Iterable[str], number: int) -> list[str]:
    """Return the names, each turn in another order."""
    listed = [*names]
    start = number % len(listed)
    return listed[start:] + listed[:start]


async def _copies(place: Place) -> list[list[str]]:
    connection = await place.connect()
    backend = _Backend(connection)
    policies = {
        "a chunk of which nothing is audited": "select coordinator.audit_reset('default')",
        "the same, where a project has chosen other topics": "select coordinator.audit_set('default', '{custom.other}')",
        "a chunk of which all is audited": "select coordinator.audit_set('default', '{*}')",
    }
    spent: dict[str, list[float]] = {name: [] for name in policies}
    for number in range(-2, CHUNKS):
        for name, policy in policies.items():
            await connection.execute(policy)
            await _number(connection)
            while await connection.fetchval(COPY):  # with the change of the policy
                pass
            await connection.execute(EMIT, CHUNK)
            await _number(connection)
            took = await backend.spent_us(lambda: connection.fetchval(COPY))
            if number >= 0:
                spent[name].append(took)
    await connection.close()
    medians = {name: median(values) for name, values in spent.items()}
    _, others, everything = medians.values()
    rows = [[name, f"{took:.0f}"] for name, took in medians.items()]
    return [*rows, ["an entry", f"{(everything - others) / CHUNK:.1f}"]]


async def _number(connection: asyncpg.Connection) -> None:
    while any(await connection.fetchrow("select moved > 0, again from coordinator.relay_step(p_notify => false)")):
        pass
