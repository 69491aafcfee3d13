from __future__ import annotations

from coordinator.operations import sessions
from tests.conftest import Transaction

LIMITS = {
    "key": [
        "coordinator.session_create('default', repeat('a', $1::integer))",
    ],
    "session_title": [
        "coordinator.session_create('default', 's', p_title => repeat('a', $1::integer))",
    ],
    "session_mission": [
        "coordinator.session_create('default', 's', p_mission => repeat('a', $1::integer))",
    ],
    "session_status": [
        "coordinator.session_create('default', 's', p_status => repeat('a', $1::integer))",
    ],
    "json": [
        "coordinator.session_create('default', 's', p_context => jsonb_build_object('k', repeat('a', $1::integer - 9)))",
    ],
    "page": [
        "coordinator.session_list('default', p_limit => $1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.run(sessions.Create(project="default", session="driven"))
    await tx.run(sessions.Set(project="default", session="driven", title="t"))
    await tx.run(sessions.Archive(project="default", session="driven"))
    await tx.connection.execute(
        """select coordinator.log_append('default', 'message', 'forked', '[{"data": 1}]'::json)"""
    )
    await tx.run(sessions.Fork(project="default", session="forked"))
    await tx.run(sessions.Delete(project="default", session="driven"))
