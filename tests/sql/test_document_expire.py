from __future__ import annotations

from datetime import timedelta

import msgspec

from coordinator.operations import documents, retentions
from tests.conftest import Transaction

P = "default"
DAY = timedelta(days=1)


async def put(tx: Transaction, key: str, times: int = 1, *, ttl: timedelta | None = None) -> None:
    for _ in range(times):
        await tx.run(documents.Put(project=P, kind="plan", key=key, value=ONE, ttl=ttl))


ONE = msgspec.Raw(b"1")


async def expire(tx: Transaction) -> int:
    gone = 0
    while results := await tx.run(retentions.ExpireDocuments()):
        gone += sum(result.removed for result in results)
    return gone


async def sweep(tx: Transaction) -> None:
    while await tx.run(retentions.Sweep()):
        pass


async def rows(tx: Transaction) -> tuple[int, int]:
    """Return how many documents there are, with deleted ones, and how many versions."""
    query = "select (select count(*) from coordinator.documents), (select count(*) from coordinator.document_versions)"
    return tuple(await tx.connection.fetchrow(query))


async def due(tx: Transaction) -> bool:
    return "document_expire" in await tx.connection.fetchval("select coordinator.work_due()")


async def test_a_deleted_document_goes_with_its_history_a_week_later(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    await put(tx, "a", 3)
    await put(tx, "b")
    await tx.run(documents.Delete(project=P, kind="plan", key="a"))
    await tx.set_clock(6 * DAY)
    assert (await due(tx), await expire(tx), await rows(tx)) == (False, 0, (2, 5))
    await tx.set_clock(7 * DAY)
    assert [(row.reason, row.removed) for row in await tx.run(retentions.Preview(project=P))] == [("max_age", 1)]
    assert (await due(tx), await expire(tx), await rows(tx), await due(tx)) == (True, 1, (1, 1), False)


async def test_a_document_whose_ttl_has_passed_is_deleted_and_goes_later(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    await put(tx, "a", ttl=DAY)
    await tx.set_clock(DAY)
    assert [(row.reason, row.removed) for row in await tx.run(retentions.Preview(project=P))] == [("ttl", 1)]
    assert (await expire(tx), await rows(tx)) == (0, (1, 2))
    assert [event["type"] for event in await tx.events()][-1] == "document.deleted"
    await tx.set_clock(8 * DAY)
    assert (await expire(tx), await rows(tx)) == (1, (0, 0))


async def test_a_document_that_is_kept_stays_after_its_deletion(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    await put(tx, "a")
    await tx.run(documents.Delete(project=P, kind="plan", key="a"))
    await tx.connection.execute("update coordinator.documents set kept = true")
    await tx.set_clock(8 * DAY)
    assert (await expire(tx), await rows(tx), await due(tx)) == (0, (1, 2), False)


async def test_a_policy_bounds_versions_and_reaches_what_is_there(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    await put(tx, "a", 12)
    await put(tx, "deleted")
    await tx.run(documents.Delete(project=P, kind="plan", key="deleted"))
    assert await rows(tx) == (2, 12)
    await tx.run(retentions.Set(project=P, subject="document", kind="plan", max_age=DAY, max_count=3))
    assert [(row.reason, row.removed) for row in await tx.run(retentions.Preview(project=P))] == [("max_count", 7)]
    await sweep(tx)
    assert await rows(tx) == (2, 5)
    await put(tx, "a", 2)
    assert await rows(tx) == (2, 5)
    await tx.set_clock(DAY)
    assert (await expire(tx), await rows(tx)) == (1, (1, 3))
    await tx.run(retentions.Set(project=P, subject="document", kind="plan"))
    await put(tx, "a", 20)
    assert await rows(tx) == (1, 23)
