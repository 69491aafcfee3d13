from __future__ import annotations

from coordinator.operations import retentions
from tests.conftest import Transaction

LIMITS = {
    "retention_age": ["coordinator.retention_set('default', 'log', 'a', p_max_age => make_interval(secs => $1))"],
    "retention_count": ["coordinator.retention_set('default', 'log', 'a', p_max_count => $1::bigint)"],
    "retention_versions": ["coordinator.retention_set('default', 'document', 'a', p_max_count => $1::bigint)"],
    "page": [
        "coordinator.document_expire($1::integer)",
        "coordinator.session_expire($1::integer)",
        "coordinator.log_trim($1::integer)",
        "coordinator.retention_plan('default', p_limit => $1::integer)",
        "coordinator.retention_sweep($1::integer)",
        "coordinator.retention_show('default', p_limit => $1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.run(retentions.Set(project="default", subject="log", kind="observation", max_count=5))
    await tx.run(retentions.Reset(project="default", subject="log", kind="observation"))
    await tx.run(retentions.Run(project="default"))
