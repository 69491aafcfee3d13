from __future__ import annotations

from datetime import timedelta

from coordinator.operations import agents, jobs, limits
from tests.conftest import Transaction
from tests.nouns import Pages

HOUR = timedelta(hours=1)

HELD = "(select name from coordinator.limit_set('default', 'l', p_slots => 1) offset 0) l"
RUNNING = """(select c.*, w.id as agent from coordinator.limit_set('default', 'l', p_budget => 5, p_type => 'x') l,
               lateral coordinator.agent_register('default', 'w', p_job_types => array[l.type]) w,
               lateral coordinator.job_enqueue('default', w.job_types[1]) e,
               lateral coordinator.job_claim('default', w.id, p_types => array[e.type]) c offset 0) r"""

LIMITS = {
    "job_limits": [
        "count(l.name) from generate_series(1, $1::integer) n, lateral coordinator.limit_set('default', n::text, p_slots => 1) l",
    ],
    "job_limits_asked": [
        """coordinator.job_enqueue('default', 'x', p_limits => l.names)
           from (select jsonb_agg(l.name) as names
                 from generate_series(1, $1::integer) n, lateral coordinator.limit_set('default', n::text, p_slots => 1) l) l""",
    ],
    "job_limit_name": ["coordinator.limit_set('default', repeat('ü', $1::integer), p_slots => 1)"],
    "job_limit_slots": ["coordinator.limit_set('default', 'l', p_slots => $1::integer)"],
    "job_limit_tokens": [
        "coordinator.limit_set('default', 'l', p_rate => $1)",
        "coordinator.limit_set('default', 'l', p_rate => 1, p_burst => $1::integer)",
    ],
    "job_limit_budget": [
        "coordinator.limit_set('default', 'l', p_budget => $1::bigint)",
    ],
    "job_spend": [f"coordinator.job_spend('default', r.id, r.agent, r.fence, 'l', $1::bigint) from {RUNNING}"],
    "name": ["coordinator.limit_set('default', 'l', p_slots => 1, p_type => repeat('a', $1::integer))"],
    "queue_name": ["coordinator.limit_set('default', 'l', p_slots => 1, p_queue => repeat('a', $1::integer))"],
    "reason": [f"coordinator.limit_hold('default', l.name, '1 hour', repeat('x', $1::integer)) from {HELD}"],
    "ttl_max": [
        f"coordinator.limit_hold('default', l.name, make_interval(secs => $1)) from {HELD}",
        "coordinator.limit_set('default', 'l', p_rate => 1, p_per => make_interval(secs => $1))",
    ],
    "ttl_min": [f"coordinator.limit_hold('default', l.name, make_interval(secs => $1)) from {HELD}"],
    "page": [
        "coordinator.limit_list('default', p_limit => $1::integer)",
        "coordinator.limit_refill($1::integer)",
        "coordinator.limit_prune($1::integer)",
        "coordinator.limit_prune_keys($1::integer)",
    ],
}

ARGUMENTS = {
    "amount": "1",
    "budget": "'one'",
    ("limit_set", "slots"): "1",
}

SPELLED = {
    "limit_hold": {"ttl": "for"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(limits.Set(project="default", name="l", budget=5, type="x", queue="limited"))
    await tx.run(limits.Hold(project="default", name="l", ttl=HOUR))
    await tx.run(limits.Release(project="default", name="l"))
    worker = await tx.run(agents.Register(project="default", name="limited", job_types=["x"], ttl=HOUR))
    await tx.run(jobs.Enqueue(project="default", type="x", queue="limited"))
    (grant,) = await tx.run(jobs.Claim(project="default", agent=worker.id, queues=["limited"]))
    await tx.run(jobs.Spend(project="default", job=grant.id, agent=worker.id, fence=grant.fence, budget="l", amount=5))
    await tx.run(limits.Delete(project="default", name="l"))


async def some_limits(tx: Transaction) -> None:
    for name in ("a", "Z", "a b", "é", "mail", "mail/bulk"):
        await tx.run(limits.Set(project="default", name=name, slots=1))


PAGES = [
    Pages(some_limits, limits.List(project="default"), 6),
]
