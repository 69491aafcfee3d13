from __future__ import annotations

from coordinator.operations import jobs, queues
from tests.conftest import Transaction
from tests.nouns import Pages

LIMITS = {
    "queue_name": ["coordinator.queue_set('default', repeat('ü', $1::integer))"],
    "key": ["coordinator.queue_set('default', 'q', p_weights => jsonb_build_object(repeat('k', $1::integer), 2))"],
    "reason": [
        "coordinator.queue_pause('default', q.queue, repeat('x', $1::integer)) from coordinator.queue_set('default', 'q') q"
    ],
    "ttl_max": ["coordinator.queue_set('default', 'q', p_ageing => make_interval(secs => $1))"],
    "ttl_min": ["coordinator.queue_set('default', 'q', p_ageing => make_interval(secs => $1))"],
    "queue_weight": ["coordinator.queue_set('default', 'q', p_weights => jsonb_build_object('k', $1::integer))"],
    "queue_weights": [
        "coordinator.queue_set('default', 'q', p_weights => (select jsonb_object_agg(n, 2) from generate_series(1, $1::integer) n))"
    ],
    "queue_max_waiting": [
        "coordinator.queue_set('default', 'q', p_max_waiting => $1::integer)",
        "coordinator.queue_set('default', 'q', p_max_waiting_per_key => $1::integer)",
    ],
    "page": ["coordinator.queue_list('default', p_limit => $1::integer)"],
}

JSON = {
    "queue_set": "coordinator.queue_set('default', 'q', p_weights => jsonb_build_object('k', $1::text::jsonb))",
}

OPTIONS_ADD = {
    "queue_set": {"strict": "an ageing of 0"},
}
SPELLED = {
    "queue_set": {"weights": "weight"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(queues.Set(project="default", queue="mail"))
    await tx.run(queues.Pause(project="default", queue="mail"))
    await tx.run(queues.Resume(project="default", queue="mail"))
    await tx.run(queues.Delete(project="default", queue="mail"))
    await tx.run(jobs.Enqueue(project="default", type="x", queue="long"))
    await tx.connection.execute("""
        insert into coordinator.job_placements (class_id, ageings, began_at)
        select c.id, '{}', now() from coordinator.job_classes c where c.queue = 'long'""")
    while await tx.run(queues.Arrange()):
        pass


async def some_queues(tx: Transaction) -> None:
    for name in ("a", "Z", "a b", "é", "mail", "mail/bulk"):
        await tx.run(queues.Set(project="default", queue=name))


PAGES = [
    Pages(some_queues, queues.List(project="default"), 6),
]
