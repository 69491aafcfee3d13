from __future__ import annotations

from datetime import timedelta

import asyncpg

from coordinator.operations import webhooks
from tests.conftest import Transaction
from tests.nouns import Known, Pages

ADDED = "coordinator.webhook_add('default', 'https://example.com/', '{*}') w"

LIMITS = {
    "webhooks": [
        "count(*) from generate_series(1, $1::integer) n cross join lateral coordinator.webhook_add('default', 'https://example.com/' || n, '{*}')"
    ],
    "webhook_url": ["coordinator.webhook_add('default', 'https://example.com/' || repeat('x', $1::integer - 20), '{*}')"],
    "webhook_topics": [
        "coordinator.webhook_add('default', 'https://example.com/', array(select 'custom.t' || n from generate_series(1, $1::integer) n))"
    ],
    "webhook_overlap": [f"coordinator.webhook_rotate('default', w.webhook, make_interval(secs => $1)) from {ADDED}"],
    "reason": [f"coordinator.webhook_pause('default', w.webhook, repeat('x', $1::integer)) from {ADDED}"],
    "list": [f"coordinator.webhook_redrive('default', w.webhook, null, array_fill('x'::text, array[$1::integer])) from {ADDED}"],
    "page": [
        "coordinator.webhook_list('default', p_limit => $1::integer)",
        "coordinator.webhook_deliveries('default', (select max(id) from coordinator.webhooks), p_limit => $1::integer)",
        "coordinator.webhook_fill($1::integer)",
        "coordinator.webhook_claim($1::integer)",
        "coordinator.webhook_prune($1::integer)",
    ],
}  # fmt: skip

ARGUMENTS = {
    "url": "'https://example.com/hook'",
    ("webhook_add", "topics"): "'{{*}}'",
    "webhook": "{webhook}",
    "delivery": "{delivery}",
    ("webhook_finish", "claims"): "'[]'",
}

OPTIONS_ADD = {"webhook_test": {"wait": "the test is delivered while the command waits"}}
SPELLED = {"webhook_add": {"topics": "topic", "url": "address"}, "webhook_redrive": {"topics": "topic"}}


async def deliver(tx: Transaction, response: int) -> None:
    """Make one attempt of everything that is due."""
    while await tx.run(webhooks.Fill()):
        pass
    for work in await tx.run(webhooks.ClaimDeliveries()):
        error = None if response == 200 else f"the receiver responded with {response}"
        attempt = {"delivery": work.delivery, "seconds": 0.1, "response": response, "error": error}
        claim = {"webhook": work.webhook, "claim": work.claim, "attempts": [attempt]}
        await tx.run(webhooks.Finish(claims=[claim]))


async def drive(tx: Transaction) -> None:
    added = await tx.run(webhooks.Add(project="default", url="https://example.com/", topics=["*"]))
    this = {"project": "default", "webhook": added.webhook}
    await tx.run(webhooks.Rotate(**this))
    await tx.run(webhooks.Test(**this))
    await deliver(tx, 200)
    await tx.run(webhooks.Pause(**this, reason="why"))
    await tx.run(webhooks.Resume(**this))
    await tx.connection.execute("select coordinator.webhook_queue($1, '', 'x', null, '{}', now())", added.webhook)
    await tx.set_clock(timedelta(minutes=1))
    await deliver(tx, 410)
    await tx.run(webhooks.Redrive(**this))
    await tx.run(webhooks.Remove(**this))


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    add = "select webhook from coordinator.webhook_add($1, 'https://example.com/hook', '{*}')"
    known["webhook"] = await connection.fetchval(add, project)
    # No daemon delivers.
    await connection.execute("select coordinator.webhook_pause($1, $2)", project, known["webhook"])
    queue = "select coordinator.webhook_queue($1, '', 'x', null, '{}', now())"
    known["delivery"] = await connection.fetchval(queue, known["webhook"])


async def some_webhooks(tx: Transaction) -> None:
    for number in range(5):
        await tx.run(webhooks.Add(project="default", url=f"https://example.com/{number}", topics=["*"]))


async def some_deliveries(tx: Transaction) -> None:
    await tx.connection.execute(
        "alter table coordinator.webhooks alter id restart with 1000000; alter table coordinator.webhook_deliveries alter id restart with 1"
    )
    added = await tx.run(webhooks.Add(project="default", url="https://example.com/", topics=["*"]))
    assert added.webhook == 1_000_000
    for _ in range(5):
        await tx.run(webhooks.Test(project="default", webhook=added.webhook))


PAGES = [
    Pages(some_webhooks, webhooks.List(project="default"), 5),
    Pages(some_deliveries, webhooks.Deliveries(project="default", webhook=1_000_000), 5),
]
