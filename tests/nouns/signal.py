from __future__ import annotations

from datetime import timedelta

import asyncpg

from coordinator.operations import signals
from tests.conftest import Transaction
from tests.nouns import Known, Pages

HOUR = timedelta(hours=1)

LIMITS = {
    "name": [
        "coordinator.signal_set('default', 'k', '1', p_actor => repeat('a', $1::integer))",
    ],
    "key": [
        "coordinator.signal_set('default', repeat('ä', $1::integer), '1')",
    ],
    "json": [
        "coordinator.signal_set('default', 'k', to_jsonb(repeat('x', $1::integer - 2)))",
    ],
    "json_depth": [
        "coordinator.signal_set('default', 'k', (repeat('[', $1::integer) || repeat(']', $1::integer))::jsonb)",
    ],
    "json_number": [
        "coordinator.signal_set('default', 'k', ('1.' || repeat('1', $1::integer - 2))::jsonb)",
    ],
    "ttl_min": [
        "coordinator.signal_set('default', 'k', '1', make_interval(secs => $1))",
    ],
    "ttl_max": [
        "coordinator.signal_set('default', 'k', '1', make_interval(secs => $1))",
    ],
    "page": [
        "coordinator.signal_list('default', p_limit => $1::integer)",
        "coordinator.signal_expire($1::integer)",
    ],
}

JSON = {
    "signal_set": "coordinator.signal_set('default', 'k', $1::text::jsonb)",
}

ARGUMENTS = {
    ("assert_signal", "key"): "'k'",
}

OPTIONS_ADD = {
    "signal_get": {"value": "the output"},
    "signal_set": {"json": "how the argument is read", "text": "how the argument is read"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(signals.Set(project="default", key="t/COMPLETED", value=1))
    await tx.run(signals.Set(project="default", key="t/REJECTED", value=1, critical=True))
    await tx.run(signals.Delete(project="default", key="t/REJECTED"))
    await tx.run(signals.Set(project="default", key="k", value=1, ttl=timedelta(seconds=1)))
    await tx.set_clock(HOUR)
    await tx.run(signals.Expire())


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    await connection.execute("select coordinator.signal_set($1, 'k', '1')", project)


async def some_signals(tx: Transaction) -> None:
    for key in ("a", "a/1", "a/10", "a/2", "a/é", "b", "\U0001f600"):
        await tx.run(signals.Set(project="default", key=key, value=1))


PAGES = [
    Pages(some_signals, signals.List(project="default"), 7),
    Pages(some_signals, signals.List(project="default", prefix="a/"), 4),
]
