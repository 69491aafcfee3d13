from __future__ import annotations

from datetime import timedelta

from coordinator.operations import crons, queues
from tests.conftest import Transaction
from tests.nouns import Pages

LIMITS = {
    "queue_name": ["coordinator.cron_set('default', repeat('ü', $1::integer), '@daily', '{\"type\": \"t\"}')"],
    "cron_schedule": [
        "coordinator.cron_set('default', 'c', '@daily' || repeat(' ', $1::integer - 6), '{\"type\": \"t\"}')"
    ],
    "crons": [
        "count(*) from generate_series(1, $1::integer) n cross join lateral coordinator.cron_set('default', 'c' || n, '@daily', '{\"type\": \"t\"}')"
    ],
    "reason": [
        "coordinator.cron_pause('default', c.cron, repeat('x', $1::integer)) from coordinator.cron_set('default', 'c', '@daily', '{\"type\": \"t\"}') c"
    ],
    "cron_preview": ["coordinator.cron_preview('@hourly', p_limit => $1::integer)"],
    "page": ["coordinator.cron_list('default', p_limit => $1::integer)", "coordinator.cron_fire($1::integer)"],
}

JSON = {
    "cron_set": "from coordinator.cron_set('default', 'c', '@daily', jsonb_build_object('type', 't', 'payload', $1::text::jsonb))",
}

ARGUMENTS = {
    ("cron_set", "schedule"): "'@daily'",
    ("cron_set", "job"): """'{{"type": "x"}}'""",
}

OPTIONS_ADD = {
    "cron_set": {"payload": "a field of the job", "queue": "a field of the job", "type": "a field of the job"},
}


async def drive(tx: Transaction) -> None:
    for name, missed in (("nightly", "once"), ("late", "skip"), ("full", "once")):
        queue = "full" if name == "full" else "default"
        await tx.run(
            crons.Set(
                project="default", cron=name, schedule="0 2 * * *", missed=missed, job={"type": "t", "queue": queue}
            )
        )
    await tx.run(crons.Run(project="default", cron="full"))
    await tx.run(queues.Set(project="default", queue="full", max_waiting=1))
    await tx.run(crons.Pause(project="default", cron="nightly"))
    await tx.run(crons.Resume(project="default", cron="nightly"))
    await tx.set_clock(timedelta(days=2))
    while await tx.run(crons.Fire()):
        pass
    await tx.run(crons.Delete(project="default", cron="nightly"))


async def some_crons(tx: Transaction) -> None:
    for name in ("a", "Z", "a b", "é", "mail", "mail/bulk"):
        await tx.run(crons.Set(project="default", cron=name, schedule="@daily", job={"type": "t"}))


PAGES = [
    Pages(some_crons, crons.List(project="default"), 6),
]
