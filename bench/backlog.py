"""The rate at which a relay drains a backlog, by the size of its steps. For information; it has no target."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from bench.load import transactions
from bench.place import Options, fresh
from bench.report import Table, load
from coordinator.db.call import call
from coordinator.operations.work import RelayStep

__all__ = ["run"]

EVENTS = 200_000
EVENTS_A_TRANSACTION = 10
CLIENTS = 8
EMIT = (
    "select count(coordinator.event_emit('default', 'custom.bench', 'task/' || n, '{\"state\": \"done\"}')) "
    f"from generate_series(1, {EVENTS_A_TRANSACTION}) n;"
)


async def run(options: Options) -> AsyncIterator[Table]:
    """Emit and number once for each batch size, on one server."""
    rows = []
    async with fresh(options) as place:
        connection = await place.connect()
        try:
            for batch in (100, 500):
                await transactions(place, EMIT, clients=CLIENTS, count=EVENTS // EVENTS_A_TRANSACTION)
                moved, steps, slowest = 0, 0, 0.0
                began = time.perf_counter()
                while True:
                    step_began = time.perf_counter()
                    step = await call(connection, RelayStep(limit=batch))
                    slowest = max(slowest, time.perf_counter() - step_began)
                    moved, steps = moved + step.moved, steps + 1
                    if not step.again:
                        break
                elapsed = time.perf_counter() - began
                if moved != EVENTS:
                    raise SystemExit(f"{moved} events were moved, {EVENTS} were emitted")
                rows.append(
                    [f"{batch:,}", f"{moved / elapsed:,.0f}", f"{elapsed / steps * 1000:.1f}", f"{slowest * 1000:.0f}"]
                )
        finally:
            await connection.close()
    yield Table(
        f"A backlog of {EVENTS:,} events through the relay",
        ["step", "events a second", "ms a step", "slowest ms"],
        rows,
        [
            (
                f"relay_step with NOTIFY on, {EVENTS_A_TRANSACTION} events a writing transaction, nobody listening; "
                f"load average at the end {load():.1f}."
            )
        ],
    )
