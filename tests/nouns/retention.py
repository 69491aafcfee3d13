from __future__ import annotations

from datetime import timedelta
from typing import Any

from coordinator.operations import retentions
from tests.conftest import Transaction
from tests.nouns import Pages

LIMITS = {
    "retention_age": ["coordinator.retention_set('default', 'log', 'a', p_max_age => make_interval(secs => $1))"],
    "retention_count": ["coordinator.retention_set('default', 'log', 'a', p_max_count => $1::bigint)"],
    "retention_versions": ["coordinator.retention_set('default', 'document', 'a', p_max_count => $1::bigint)"],
    "page": [
        "coordinator.document_expire($1::integer)",
        "coordinator.session_expire($1::integer)",
        "coordinator.artifact_expire($1::integer)",
        "coordinator.log_trim($1::integer)",
        "coordinator.retention_plan('default', p_limit => $1::integer)",
        "coordinator.retention_sweep($1::integer)",
        "coordinator.retention_show('default', p_limit => $1::integer)",
    ],
}

ARGUMENTS = {
    "subject": "'log'",
}

NOT_ON_THE_COMMAND_LINE = {
    "retention_plan": "retention run --dry-run",
}
OPTIONS_ADD = {
    "retention_run": {"dry_run": "retention_plan", "after": "retention_plan", "limit": "retention_plan"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(retentions.Set(project="default", subject="log", kind="observation", max_count=5))
    await tx.run(retentions.Reset(project="default", subject="log", kind="observation"))
    await tx.run(retentions.Run(project="default"))


async def some_retention(tx: Transaction) -> None:
    for kind, everywhere in (("a", True), ("a", False), ("b", True), ("c", False)):
        await tx.run(retentions.Set(project="default", subject="log", kind=kind, everywhere=everywhere))


async def some_beyond_retention(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for kind in ("a", "b", "c"):
        for days in (0, 2):
            await tx.set_clock(timedelta(days=days))
            entries = "[" + ", ".join(['{"data": 1}'] * 5) + "]"
            await tx.connection.execute(
                "select coordinator.log_append($1, $2, 'k', $3::text::json)", "default", kind, entries
            )
        bounds: dict[str, Any] = {"max_age": timedelta(days=1), "max_count": 3}
        await tx.run(retentions.Set(project="default", subject="log", kind=kind, **bounds))


PAGES = [
    Pages(some_retention, retentions.Show(project="default"), 10),
    Pages(some_beyond_retention, retentions.Preview(project="default"), 6),
]
