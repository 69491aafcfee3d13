"""Jobs: compared with other queues and a bare loop of SQL, in queues of different kinds, and while a snapshot is held open."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from statistics import median

from bench.place import Options, Place, daemon, fresh
from bench.queues.process import Cost, Side, peers, side
from bench.report import Table, load, ratio
from coordinator.db.connection import retire

__all__ = ["COLUMNS", "notes", "rounds", "row", "run"]

QUEUES = {
    "ours": "coordinator",
    "bare": "bare fenced loop of SQL",
    "pgqueuer": "PgQueuer 1.6.0",
    "procrastinate": "Procrastinate 3.10.0",
}
# A queue that takes a hundred times as long for a job gets fewer of them.
SHARE = {"procrastinate": 0.03}
TITLES = {
    "drain": "Jobs drained by one worker",
    "sustained": "Jobs worked on while they are enqueued",
    "enqueue": "Jobs enqueued, 100 a call",
}
KINDS = {"plain": "plain", "mute": "plain, no events", "fair": "fair over 10,000 keys"}
FAIR = "select coordinator.queue_set('default', 'fair', p_fair_by => 'key')"
# In a database of its own, where the function through which all events of jobs go does nothing.
MUTE = """
do $do$ begin
  execute format('create or replace function coordinator.job_tell(%s) returns void language sql as $$$$',
                 pg_get_function_arguments('coordinator.job_tell'::regproc));
end $do$"""
COLUMNS = ["jobs a second (rounds)", "first / it", "server + client + relay µs", "WAL B", "dead rows", "target"]
EDGE = 3  # turns at each end of the snapshot, whose medians are compared
SHOWN = 12


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure all three."""
    python = await peers()
    async with fresh(options) as place, daemon(place) as relay, AsyncExitStack() as stack:
        major = int(place.version.split(".", maxsplit=1)[0])
        sides = {"ours": await stack.enter_async_context(side(place, "ours", relay=relay))}
        sides["bare"] = await stack.enter_async_context(side(place, "bare"))
        for name in ("pgqueuer", "procrastinate"):
            sides[name] = await stack.enter_async_context(side(place, name, python=python))
        for table in await _beside(sides, options, major):
            yield table
    async with fresh(options) as place, daemon(place) as relay, AsyncExitStack() as stack:
        await place.execute(FAIR)
        mute = await place.muted(MUTE)
        sides = {
            "plain": await stack.enter_async_context(side(place, "ours", relay=relay)),
            "mute": await stack.enter_async_context(side(place, "ours", dsn=mute)),
            "fair": await stack.enter_async_context(side(place, "ours", "fair", "10000", relay=relay)),
        }
        yield await _kinds(sides, options)
    async with fresh(options) as place, daemon(place) as relay, side(place, "ours", relay=relay) as ours:
        yield await _held(place, ours, options, 0.75 if major >= 18 else 0.6)


async def rounds(
    sides: Mapping[str, Side], verbs: tuple[str, ...], options: Options
) -> dict[str, dict[str, list[Cost]]]:
    """Return the costs by verb and side."""
    found: dict[str, dict[str, list[Cost]]] = {verb: {name: [] for name in sides} for verb in verbs}
    jobs = {name: int(options.jobs * SHARE.get(name, 1)) for name in sides}
    for name, each in sides.items():  # plans are made, files have grown
        await each.order("sustained", jobs[name] // 10)
    for _ in range(options.rounds):
        for name, each in sides.items():
            for verb in verbs:
                found[verb][name].append(await each.order(verb, jobs[name]))
            await each.tidy()
    return found


async def _beside(sides: Mapping[str, Side], options: Options, major: int) -> list[Table]:
    found = await rounds(sides, ("enqueue", "drain", "sustained"), options)
    targets = {
        "drain": {"pgqueuer": 2.5 if major >= 18 else 1.8, "bare": 0.6},
        "sustained": {"pgqueuer": 2.0},
        "enqueue": {"pgqueuer": 1.0},
    }
    footnotes = notes(options)
    return [
        Table(title, ["queue", *COLUMNS], [row(QUEUES[name], found[verb]["ours"], costs, targets[verb].get(name))
                                           for name, costs in found[verb].items()], footnotes)
        for verb, title in TITLES.items()
    ]  # fmt: skip


async def _kinds(sides: Mapping[str, Side], options: Options) -> Table:
    costs = (await rounds(sides, ("enqueue", "drain"), options))["drain"]
    rows = [row(KINDS["plain"], costs["plain"], costs["plain"], None)]
    for name, target in (("mute", 0.7), ("fair", 0.85)):
        cells = row(KINDS[name], costs["plain"], costs[name], None)
        # The target applies to the plain queue without events, and to the other one with events.
        value = ratio(
            *([cost.rate for cost in costs[each]] for each in (("plain", name) if name == "mute" else (name, "plain")))
        )
        cells[2], cells[-1] = f"{value:.2f}", f"≥ {target:g}: {'met' if value >= target else 'MISSED'}"
        rows.append(cells)
    columns = ["kind", *COLUMNS]
    columns[2] = "ratio to plain"
    return Table(
        "Jobs drained from queues of different kinds", columns, rows, [*notes(options), "No events: plain / it."]
    )


async def _held(place: Place, ours: Side, options: Options, least: float) -> Table:
    """Work at full rate before, while and after a snapshot is held open."""
    holder = await place.connect()
    await holder.execute("set idle_in_transaction_session_timeout = 0")
    await ours.order("sustained", options.jobs)
    before = [(await ours.order("sustained", options.jobs)).rate for _ in range(EDGE)]
    snapshot = holder.transaction(isolation="repeatable_read", readonly=True)
    await snapshot.start()
    await holder.fetchval("select count(*) from coordinator.jobs_open")
    began, held = time.monotonic(), []
    while (elapsed := time.monotonic() - began) < options.snapshot_s:
        held.append((elapsed, (await ours.order("sustained", options.jobs)).rate))
    await snapshot.rollback()
    await retire(holder)
    rates = [rate for _, rate in held]
    last = median(rates[-EDGE:]) / median(before)
    worst = min(rates) / median(before)
    rows = [["before", f"{median(before):,.0f}", "1.00", ""]]
    step = max(1, len(held) // SHOWN)
    rows += [[f"{elapsed:.0f} s", f"{rate:,.0f}", f"{rate / median(before):.2f}", ""] for elapsed, rate in held[::step]]
    rows.append(
        [
            "the end",
            f"{median(rates[-EDGE:]):,.0f}",
            f"{last:.2f}",
            f"≥ {least:g}: {'met' if last >= least else 'MISSED'}",
        ]
    )
    return Table(
        f"Jobs worked on while they are enqueued, a snapshot held for {options.snapshot_s:g} s",
        ["held for", "jobs a second", "to before", "target"],
        rows,
        [
            f"Turns of {options.jobs:,} jobs; before and the end are medians of {EDGE} of them, and the worst was {worst:.2f}.",
            f"Load average at the end {load():.1f}.",
        ],
    )


def notes(options: Options) -> list[str]:
    return [
        f"{options.rounds} interleaved rounds of {options.jobs:,} jobs; processor time, WAL and dead rows are for each job.",
        f"Load average at the end {load():.1f}.",
    ]


def row(label: str, ours: list[Cost], costs: list[Cost], target: float | None) -> list[str]:
    rates = [cost.rate for cost in costs]
    value = ratio([cost.rate for cost in ours], rates)
    verdict = "" if target is None else f"≥ {target:g}: {'met' if value >= target else 'MISSED'}"
    server, client, relay = (
        median(getattr(cost, field) / cost.jobs * 1e6 for cost in costs)
        for field in ("server_s", "client_s", "relay_s")
    )
    wal, dead = (median(getattr(cost, field) / cost.jobs for cost in costs) for field in ("wal", "dead"))
    return [
        label, f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})", "" if costs is ours else f"{value:.2f}",
        f"{server:.1f} + {client:.1f} + {relay:.1f}", f"{wal:,.0f}", f"{dead:.1f}", verdict,
    ]  # fmt: skip
