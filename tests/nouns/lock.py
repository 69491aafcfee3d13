from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from coordinator.operations import agents, locks
from tests.conftest import Transaction

HOUR = timedelta(hours=1)

AGENT = "(select id from coordinator.agents limit 1)"

LIMITS = {
    "page": [
        "coordinator.lock_list('default', p_limit => $1::integer)",
        "coordinator.lock_waiting('default', 'x', p_limit => $1::integer)",
    ],
    "reason": [
        "coordinator.lock_break('default', 'a', repeat('a', $1::integer)) from (select coordinator.lock_acquire('default', '{a}', (select id from coordinator.agents limit 1)) offset 0) held",
    ],
    "lock_resource": [
        f"coordinator.lock_acquire('default', array[repeat('a', $1::integer)], {AGENT})",
    ],
    "lock_wildcards": [
        f"coordinator.lock_acquire('default', array[repeat('*a', $1::integer)], {AGENT})",
    ],
    "lock_resources": [
        f"coordinator.lock_acquire('default', array(select 'f' || n from generate_series(1, $1::integer) n), {AGENT})",
    ],
    "lock_check": [
        "coordinator.lock_check('default', array(select 'f' || n from generate_series(1, $1::integer) n))",
    ],
    "lock_slots": [
        f"coordinator.lock_acquire('default', '{{name:x}}', {AGENT}, p_slots => $1::integer)",
    ],
    "lock_owner": [
        f"coordinator.lock_acquire('default', '{{x}}', {AGENT}, p_owner => repeat('x', $1::integer))",
    ],
    "lock_uses": [
        f"coordinator.lock_acquire('default', '{{x}}', {AGENT}, p_owner => 's') from generate_series(1, $1::integer) n",
    ],
    "lock_ttl_max": [
        f"coordinator.lock_acquire('default', '{{x}}', {AGENT}, p_ttl => make_interval(secs => $1))",
        f"coordinator.lock_acquire('default', '{{x}}', {AGENT}, p_wait => make_interval(secs => $1))",
    ],
    "lock_delay_max": [
        f"coordinator.lock_acquire('default', '{{x}}', {AGENT}, p_delay => make_interval(secs => $1))",
    ],
}


async def drive(tx: Transaction) -> None:
    async def acquire(agent: UUID, wait: timedelta | None = None) -> locks.model.Grant:
        (grant,) = await tx.run(locks.Acquire(project="default", resources=["src/a.py"], agent=agent, wait=wait))
        return grant

    first, second = [await tx.run(agents.Register(project="default", name=name)) for name in "ab"]
    held = await acquire(first.id)
    waiting = await acquire(second.id, HOUR)
    await tx.run(
        locks.Release(project="default", resources=["src/a.py"], agent=first.id, tokens=[held.fencing_token or 0])
    )
    await tx.run(locks.Poll(project="default", ticket=waiting.ticket or 0, agent=second.id))
    await tx.run(locks.Break(project="default", resource="src/a.py", reason="stuck"))
    await acquire(first.id)
    await tx.run(locks.Acquire(project="default", resources=["name:gpu"], agent=second.id, slots=1))
    await tx.run(locks.Resize(project="default", resource="name:gpu", slots=2))
    await tx.run(agents.Deregister(agent=first.id))
    await acquire(second.id)
    await tx.set_clock(HOUR)
    await tx.run(locks.Expire())
