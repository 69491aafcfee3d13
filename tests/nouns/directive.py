from __future__ import annotations

from datetime import timedelta

from coordinator.operations import directives
from tests.conftest import Transaction

HOUR = timedelta(hours=1)

LIMITS = {
    "name": [
        "coordinator.directive_send('default', 'x', repeat('a', $1::integer))",
    ],
    "key": [
        "coordinator.directive_send('default', 'x', 'a', p_key => repeat('a', $1::integer))",
    ],
    "text": [
        "coordinator.directive_send('default', repeat('ä', $1::integer), 'a')",
    ],
    "reason": [
        "coordinator.directive_revoke('default', (select max(id) from coordinator.directives), repeat('a', $1::integer))",
        "coordinator.directive_acknowledge('default', (select max(id) from coordinator.directives), 'a', 'refused', repeat('a', $1::integer))",
    ],
    "json": [
        "coordinator.directive_send('default', 'x', 'a', p_data => jsonb_build_object('k', repeat('x', $1::integer - 9)))",
    ],
    "ttl_min": [
        "coordinator.directive_send('default', 'x', 'a', p_ttl => make_interval(secs => $1))",
    ],
    "ttl_max": [
        "coordinator.directive_send('default', 'x', 'a', p_ttl => make_interval(secs => $1))",
    ],
    "page": [
        "coordinator.directive_list('default', p_limit => $1::integer)",
        "coordinator.directive_inbox('default', (select id from coordinator.agents limit 1)::text, p_limit => $1::integer)",
        "coordinator.directive_pending('default', p_limit => $1::integer)",
        "coordinator.directive_expire($1::integer)",
        "coordinator.directive_prune(p_limit => $1::integer)",
    ],
    "priority": [
        "coordinator.directive_send('default', 'x', 'a', p_priority => $1::integer)",
        "coordinator.directive_send('default', 'x', 'a', p_priority => -$1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.run(directives.Send(project="default", body="x", to_agent="a", key="k"))
    sent = await tx.run(directives.Send(project="default", body="y", to_agent="a", key="k"))
    await tx.run(directives.Acknowledge(project="default", directive=sent.id, agent="a", status="seen"))
    await tx.run(directives.Acknowledge(project="default", directive=sent.id, agent="a", status="refused", reason="no"))
    await tx.run(directives.Revoke(project="default", directive=sent.id))
    await tx.run(directives.Send(project="default", body="z", everyone=True, ttl=timedelta(seconds=1)))
    await tx.set_clock(HOUR)
    await tx.run(directives.Expire())
