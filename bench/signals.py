"""Signals set per second by 32 writers: with their events, without events, and with a NOTIFY per commit."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from statistics import median

from bench.load import SET_KEYS, throughput
from bench.place import Options, Place, daemon, fresh
from bench.report import Table, load, ratio

__all__ = ["run"]

WRITERS = 32
APPEND = re.compile(
    r"insert into coordinator\.events \(type, project, key, actor, at, data\)\s+values \('signal\.set'(.*?)\);\n",
    re.DOTALL,
)
# The payload that a writer without a log would send; it has no number, because none is assigned.
NOTIFY = (
    "perform pg_notify('coordinator.' || p_project || '.signal', "
    "'{' || coordinator.event_members('', 0, 'signal.set'{arguments}, '', false, null) || '}');\n"
)
VARIANTS = {
    "events": "coordinator.signal_set",
    "no event": "bench.signal_set_mute",
    "notify": "bench.signal_set_notify",
}


async def run(options: Options) -> AsyncIterator[Table]:
    """Measure on the native disk, and with 2 ms added to each commit's flush."""
    async with fresh(options) as place:
        await _make_variants(place)
        async with daemon(place):
            yield await _measure(place, options, "native disk", 0.78, 2.5)
            await place.execute(
                "alter system set commit_delay = 2000",
                "alter system set commit_siblings = 0",
                "select pg_reload_conf()",
            )
            yield await _measure(place, options, "+2 ms commit latency", 0.88, 10)


async def _make_variants(place: Place) -> None:
    connection = await place.connect()
    try:
        await connection.execute("create schema bench")
        source = await connection.fetchval("select pg_get_functiondef('coordinator.signal_set'::regproc)")
        for name, replacement in (("mute", ""), ("notify", NOTIFY)):
            found = APPEND.search(source)
            if found is None:
                raise SystemExit("signal_set no longer appends its event as the benchmark expects")
            text = source.replace(found[0], replacement.replace("{arguments}", found[1]))
            await connection.execute(text.replace("coordinator.signal_set(", f"bench.signal_set_{name}(", 1))
    finally:
        await connection.close()


async def _measure(place: Place, options: Options, title: str, mute_target: float, notify_target: float) -> Table:
    scripts = {
        name: SET_KEYS
        + f"select * from {function}('default', 'task/' || :client_id || '/' || :k, '{{\"state\": \"done\"}}');"
        for name, function in VARIANTS.items()
    }
    for script in scripts.values():
        await throughput(place, script, clients=WRITERS, seconds=2)
    await place.drained()
    found: dict[str, list[float]] = {name: [] for name in scripts}
    drains: list[float] = []
    for _ in range(options.rounds):
        for name, script in scripts.items():
            found[name].append(await throughput(place, script, clients=WRITERS, seconds=options.round_s))
            if name == "events":  # otherwise, the relay would finish its work in the next round
                drains.append(await place.drained())
    mute, notify = (ratio(found["events"], found[name]) for name in ("no event", "notify"))
    verdicts = {"no event": (mute, mute_target), "notify": (notify, notify_target)}
    rows = [["signal_set", _rates(found["events"]), "", ""]]
    for name, label in (("no event", "event emission left out"), ("notify", "a NOTIFY per commit instead")):
        value, least = verdicts[name]
        verdict = f"≥ {least:g}: {'met' if value >= least else 'MISSED'}"
        rows.append([label, _rates(found[name]), f"{value:.2f}", verdict])
    return Table(
        f"Signals set by {WRITERS} writers, {title}",
        ["variant", "signals a second (rounds)", "signal_set / it", "target"],
        rows,
        [
            f"{options.rounds} rounds of {options.round_s:g} s, interleaved; load average at the end {load():.1f}.",
            f"After a round the relay had numbered the last event within {max(drains) * 1000:.0f} ms.",
            "Nobody listens but the relay: NOTIFY per commit is shown at its best.",
        ],
    )


def _rates(values: list[float]) -> str:
    return f"{median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"
