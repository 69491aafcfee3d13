"""Webhooks: what is delivered when, in which order, and what becomes of what fails."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.errors import InvalidArgument, NotFound
from coordinator.model.operation import Operation
from coordinator.model.webhook import Webhook, WebhookWork
from coordinator.operations import events, webhooks
from tests.waiting import until_blocked

R = TypeVar("R")
URL = "https://example.com/hook"
HOUR = timedelta(hours=1)


class Hooks:
    """One session with a clock of its own, whose transactions commit."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def run(self, operation: Operation[R]) -> R:
        return await call(self.connection, operation)

    async def set_clock(self, after: timedelta) -> None:
        """Stop the clock of the session, at this distance from an instant that all of them have."""
        await self.connection.execute(
            "select set_config('coordinator.fake_now', ('2030-01-01Z'::timestamptz + $1)::text, false)", after
        )

    async def add(self, *topics: str, project: str = "default", after: str | None = None) -> int:
        added = await self.run(webhooks.Add(project=project, url=URL, topics=[*topics] or ["custom.*"], after=after))
        return added.webhook

    async def show(self, webhook: int) -> Webhook:
        return await self.run(webhooks.Show(project="default", webhook=webhook))

    async def emit(self, *keys: str, project: str = "default", type: str = "custom.x") -> None:
        for key in keys:
            await self.run(events.Emit(project=project, type=type, key=key))
        await self.number()

    async def emit_large(self, size: int) -> None:
        """Emit an event of type custom.y, with this many bytes of data."""
        await self.run(events.Emit(project="default", type="custom.y", data={"x": "x" * size}))
        await self.number()

    async def number(self) -> None:
        while await self.connection.fetchval("select moved from coordinator.relay_step()"):
            pass

    async def fill(self) -> None:
        while await self.run(webhooks.Fill()):
            pass

    async def claim(self, **fields: Any) -> list[WebhookWork]:
        await self.fill()
        return await self.run(webhooks.ClaimDeliveries(**fields))

    async def finish(self, *works: WebhookWork, error: str | None = None, **fields: Any) -> list[int]:
        """Finish attempts that all ended in the same way."""
        return await self.run(webhooks.Finish(claims=outcomes(*works, error=error, **fields)))

    async def fail(self, work: WebhookWork, error: str = "no", **fields: Any) -> None:
        assert await self.finish(work, error=error, **fields) == []

    async def deliver(self) -> list[tuple[int, str | None]]:
        """Deliver everything that is due; return to which webhook, and the keys."""
        delivered = []
        while claimed := await self.claim():
            delivered += [(work.webhook, key_of(work)) for work in claimed]
            assert await self.finish(*claimed, response=200) == []
        return delivered

    async def due(self) -> bool:
        return "webhook" in await self.connection.fetchval("select coordinator.work_due()")

    async def events(self, type: str) -> list[dict[str, Any]]:
        await self.number()
        found = await self.run(events.Since(topics=[type]))
        return [event.data for event in found]


def outcomes(*works: WebhookWork, **fields: Any) -> list[Any]:
    """Return what ``Finish`` takes: of each webhook its claim, and how each attempt ended."""
    return [
        {
            "webhook": webhook,
            "claim": claim,
            "attempts": [
                {"delivery": work.delivery, "seconds": 0.1, **fields} for work in works if work.webhook == webhook
            ],
        }
        for webhook, claim in {work.webhook: work.claim for work in works}.items()
    ]


def key_of(work: WebhookWork) -> str | None:
    body = json.loads(work.body)
    return None if body["type"] == "reset" else body["data"].get("key")


@pytest.fixture
async def hooks(database_url: str) -> AsyncIterator[Hooks]:
    connection = await connect(database_url)
    hooks = Hooks(connection)
    await hooks.set_clock(timedelta())
    yield hooks
    await connection.close()


async def test_a_webhook_delivers_its_events_from_now_on_in_order(hooks: Hooks) -> None:
    await hooks.emit("before")
    one = await hooks.add("custom.x")
    two = await hooks.add("custom.*")
    await hooks.emit("a", "b")
    await hooks.emit("c", type="custom.y")
    await hooks.emit("elsewhere", project="default", type="custom.z.deep")
    delivered = await hooks.deliver()
    assert [key for webhook, key in delivered if webhook == one] == ["a", "b"]
    assert [key for webhook, key in delivered if webhook == two] == ["a", "b", "c", "elsewhere"]
    assert not await hooks.due()
    assert (await hooks.show(one)).delivered_at is not None


async def test_the_body_is_the_event(hooks: Hooks) -> None:
    webhook = await hooks.add()
    await hooks.run(events.Emit(project="default", type="custom.x", key="k", data={"n": 1.5, "é": ['"']}, actor="me"))
    await hooks.number()
    (work,) = await hooks.claim()
    (event,) = await hooks.run(events.Since(topics=["custom.x"]))
    body = json.loads(work.body)
    assert (body["type"], body["timestamp"]) == ("custom.x", body["data"]["at"])
    assert body["data"]["data"] == {"n": 1.5, "é": ['"']}
    assert (body["data"]["cursor"], body["data"]["actor"], body["data"]["seq"]) == (event.cursor, "me", event.seq)
    assert (work.webhook, work.url, work.attempt, work.project) == (webhook, URL, 1, "default")
    assert work.message.startswith(f"msg_{webhook}_")


async def test_a_webhook_begins_after_a_cursor_and_gets_a_reset_where_events_are_gone(hooks: Hooks) -> None:
    await hooks.emit("a", "b")
    first, *_ = await hooks.run(events.Since(topics=["custom.x"]))
    webhook = await hooks.add(after=first.cursor)
    gone = await hooks.add(after="0abc.7")
    delivered = await hooks.deliver()
    assert [key for one, key in delivered if one == webhook] == ["b"]
    assert [key for one, key in delivered if one == gone] == [None]
    (reset,) = await hooks.run(webhooks.Deliveries(project="default", webhook=gone))
    assert (reset.type, reset.message) == ("reset", f"msg_{gone}_reset_7")
    for cursor in ("x", "1.2.3", "-1"):
        with pytest.raises(InvalidArgument):
            await hooks.add(after=cursor)


async def test_history_that_was_pruned_under_a_paused_webhook_is_delivered_as_a_reset(hooks: Hooks) -> None:
    webhook = await hooks.add()
    await hooks.emit("a")
    await hooks.fill()
    await hooks.run(webhooks.Pause(project="default", webhook=webhook))
    await hooks.emit("lost")
    await hooks.fill()
    floor = await hooks.connection.fetchval(
        "select last_seq from coordinator.event_chunks order by first_seq desc limit 1"
    )
    await hooks.connection.execute("select setval('coordinator.event_floor', $1)", floor)
    await hooks.run(webhooks.Resume(project="default", webhook=webhook))
    await hooks.emit("b")
    assert [key for _, key in await hooks.deliver()] == ["a", None, "b"]
    (reset,) = [
        one for one in await hooks.run(webhooks.Deliveries(project="default", webhook=webhook)) if one.type == "reset"
    ]
    assert reset.status == "delivered"


async def test_a_webhook_that_follows_and_whose_loop_stood_still_gets_a_reset(hooks: Hooks) -> None:
    await hooks.add()
    await hooks.fill()
    await hooks.emit("lost")
    floor = await hooks.connection.fetchval(
        "select last_seq from coordinator.event_chunks order by first_seq desc limit 1"
    )
    await hooks.connection.execute("select setval('coordinator.event_floor', $1)", floor)
    await hooks.emit("b")
    assert [key for _, key in await hooks.deliver()] == [None, "b"]


async def test_a_failed_delivery_blocks_those_after_it_is_retried_with_backoff_and_dies(hooks: Hooks) -> None:
    webhook = await hooks.add()
    other = await hooks.add()
    await hooks.emit("a", "b")
    clock = timedelta()
    waits = []
    message = None
    for attempt in range(1, 11):
        claimed = await hooks.claim()
        if attempt == 1:
            await hooks.finish(*(one for one in claimed if one.webhook == other))
        mine = next(one for one in claimed if one.webhook == webhook)
        assert (key_of(mine), mine.attempt) == ("a", attempt)
        assert message in (None, mine.message)
        message = mine.message
        await hooks.fail(mine, "refused", response=503)
        (delivery,) = [
            one for one in await hooks.run(webhooks.Deliveries(project="default", webhook=webhook)) if one.key == "a"
        ]
        assert (delivery.attempts, delivery.response, delivery.error) == (attempt, 503, "refused")
        if attempt < 10:
            assert (await hooks.show(webhook)).status == "failing"
            assert webhook not in [one.webhook for one in await hooks.claim()]
            assert delivery.due_at is not None
            wait = (delivery.due_at - delivery.attempted_at).total_seconds()  # type: ignore[operator]
            assert 0.79 * 5 * 2 ** (attempt - 1) <= wait <= 1.21 * 5 * 2 ** (attempt - 1)
            waits.append(wait)
            clock += timedelta(seconds=wait)
            await hooks.set_clock(clock)
    assert delivery.status == "dead"
    assert len({round(wait / 2**n, 6) for n, wait in enumerate(waits)}) > 1, "there is no jitter"
    assert [data["attempts"] for data in await hooks.events("webhook.dead")] == [10]
    assert (webhook, "b") in await hooks.deliver()
    shown = await hooks.show(webhook)
    assert (shown.status, shown.dead_count, shown.waiting_count) == ("active", 1, 0)


async def test_a_receiver_says_when_to_try_again_within_an_hour(hooks: Hooks) -> None:
    webhook = await hooks.add()
    await hooks.emit("a")
    for retry, wanted in ((timedelta(minutes=20), 1200), (timedelta(days=3), 3600)):
        (work,) = await hooks.claim()
        await hooks.fail(work, "slow down", response=429, retry_s=retry.total_seconds())
        (delivery,) = await hooks.run(webhooks.Deliveries(project="default", webhook=webhook))
        assert (delivery.due_at - delivery.attempted_at).total_seconds() == wanted  # type: ignore[operator]
        await hooks.set_clock(HOUR)


async def test_a_receiver_that_is_gone_or_fails_for_three_days_disables_the_webhook(hooks: Hooks) -> None:
    gone, failing = await hooks.add(), await hooks.add()
    await hooks.emit("a", "b")
    for work in await hooks.claim():
        if key_of(work) == "a":
            await hooks.fail(work, response=410 if work.webhook == gone else None)
    assert (await hooks.show(gone)).status == "disabled"
    await hooks.set_clock(timedelta(days=3, seconds=1))
    work, _ = await hooks.claim()
    assert work.webhook == failing
    await hooks.fail(work)
    shown = await hooks.show(failing)
    assert (shown.status, shown.paused_by) == ("disabled", "coordinator")
    assert "three days" in (shown.pause_reason or "")
    assert len(await hooks.events("webhook.disabled")) == 2
    warnings = await hooks.connection.fetchval("select warnings from coordinator.status_show('default')")
    assert any("2 webhooks of the project are disabled" in warning for warning in warnings)
    assert await hooks.claim() == []
    await hooks.run(webhooks.Resume(project="default", webhook=failing))
    assert [key for one, key in await hooks.deliver() if one == failing] == ["a", "b"]


async def test_deliveries_of_a_webhook_that_does_not_exist_are_an_error(hooks: Hooks) -> None:
    added = await hooks.run(webhooks.Add(project="default", url="https://example.com/", topics=["*"]))
    listing = webhooks.Deliveries(project="default", webhook=added.webhook)
    assert await hooks.run(listing) == []
    await hooks.run(webhooks.Remove(project="default", webhook=added.webhook))
    with pytest.raises(NotFound) as raised:
        await hooks.run(listing)
    assert raised.value.code == "ZC223"
    assert raised.value.hint


async def test_dead_deliveries_are_redriven_by_number_and_by_filter_with_the_same_id(hooks: Hooks) -> None:
    webhook = await hooks.add()
    for key in ("a", "b", "c"):
        await hooks.emit(key, type=f"custom.{key}")
        (work,) = await hooks.claim()
        await hooks.fail(work, response=410)
        await hooks.run(webhooks.Resume(project="default", webhook=webhook))
    dead = await hooks.run(webhooks.Deliveries(project="default", webhook=webhook, status="dead"))
    assert [one.key for one in dead] == ["c", "b", "a"]
    redrive = webhooks.Redrive(project="default", webhook=webhook)
    assert await hooks.run(webhooks.Redrive(project="default", webhook=webhook, delivery=dead[1].delivery)) == 1
    await hooks.emit("later")
    work, _ = await hooks.claim()
    assert (work.message, work.attempt) == (dead[1].message, 1)
    await hooks.finish(work)
    with pytest.raises(NotFound):
        await hooks.run(webhooks.Redrive(project="default", webhook=webhook, delivery=dead[1].delivery))
    nothing = webhooks.Redrive(project="default", webhook=webhook, until=dead[2].at)
    assert await hooks.run(nothing) == 0
    assert await hooks.run(webhooks.Redrive(project="default", webhook=webhook, topics=["custom.c"])) == 1
    assert await hooks.run(redrive) == 1
    assert [key for _, key in await hooks.deliver()] == ["a", "c", "later"]


async def test_events_that_cannot_be_inserted_are_not_retried_at_once(hooks: Hooks) -> None:
    webhook = await hooks.add()
    await hooks.run(webhooks.Pause(project="default", webhook=webhook))
    await hooks.emit("bad")
    await hooks.fill()
    await hooks.run(webhooks.Resume(project="default", webhook=webhook))
    await hooks.connection.execute(
        "alter table coordinator.webhook_deliveries add constraint good check (key <> 'bad')"
    )
    assert 0 in [await hooks.run(webhooks.Fill()) for _ in range(5)]
    await hooks.connection.execute("alter table coordinator.webhook_deliveries drop constraint good")
    assert await hooks.deliver() == [(webhook, "bad")]


async def test_a_paused_webhook_keeps_its_events_in_the_log_and_delivers_tests(hooks: Hooks) -> None:
    webhook = await hooks.add()
    this = {"project": "default", "webhook": webhook}
    await hooks.emit("a")
    await hooks.fill()
    assert (await hooks.run(webhooks.Pause(**this, reason="move"))).status == "paused"
    assert (await hooks.run(webhooks.Pause(**this))).pause_reason == "move"
    await hooks.emit("b")
    assert await hooks.claim() == []
    assert not await hooks.due()
    sent = await hooks.run(webhooks.Test(**this))
    (work,) = await hooks.claim()
    assert (json.loads(work.body)["type"], work.delivery) == ("test", sent.delivery)
    await hooks.fail(work, response=500)
    assert (await hooks.run(webhooks.Delivery(project="default", delivery=sent.delivery))).status == "dead"
    assert [data["response"] for data in await hooks.events("webhook.tested")] == [500]
    assert (await hooks.show(webhook)).failing_since is None
    assert await hooks.run(webhooks.Redrive(**this)) == 0
    await hooks.run(webhooks.Resume(**this))
    await hooks.emit("c")
    assert [key for _, key in await hooks.deliver()] == ["a", "b", "c"]


async def test_a_test_goes_before_what_is_retried(hooks: Hooks) -> None:
    webhook = await hooks.add()
    await hooks.emit("a")
    (work,) = await hooks.claim()
    await hooks.fail(work)
    sent = await hooks.run(webhooks.Test(project="default", webhook=webhook))
    (work,) = await hooks.claim()
    assert work.delivery == sent.delivery
    await hooks.finish(work)
    assert await hooks.claim() == []


async def test_a_rotated_secret_signs_with_the_former_one_until_the_overlap_ends(hooks: Hooks) -> None:
    added = await hooks.run(webhooks.Add(project="default", url=URL, topics=["custom.*"]))
    assert added.secret.startswith("whsec_")
    assert len(base64.b64decode(added.secret.removeprefix("whsec_"), validate=True)) == 32
    this = {"project": "default", "webhook": added.webhook}
    second = await hooks.run(webhooks.Rotate(**this, overlap=HOUR))
    third = await hooks.run(webhooks.Rotate(**this, overlap=HOUR))
    assert len({added.secret, second.secret, third.secret}) == 3
    await hooks.emit("a")
    (work,) = await hooks.claim()
    assert work.secrets == [third.secret, second.secret]
    await hooks.fail(work)
    await hooks.set_clock(2 * HOUR)
    (work,) = await hooks.claim()
    assert work.secrets == [third.secret]
    shown = json.dumps(await hooks.connection.fetchval("select json_agg(e)::text from coordinator.events e"))
    assert "whsec_" not in shown


async def test_a_claim_that_ended_is_taken_over_and_its_holder_changes_nothing_more(hooks: Hooks) -> None:
    webhook = await hooks.add()
    await hooks.emit("a", "b")
    first, _ = await hooks.claim()
    assert await hooks.claim() == []
    await hooks.set_clock(timedelta(seconds=61))
    second, third = await hooks.claim()
    assert (second.message, second.claim) == (first.message, first.claim + 1)
    await hooks.fail(first)
    assert (await hooks.show(webhook)).failing_since is None
    for _ in range(2):  # the answer was lost
        assert await hooks.finish(second, third) == []
    await hooks.fail(first)
    found = await hooks.run(webhooks.Deliveries(project="default", webhook=webhook))
    assert [(one.status, one.attempts) for one in found] == [("delivered", 1), ("delivered", 1)]


async def test_a_claim_whose_answer_was_lost_ends_when_its_holder_claims_again(hooks: Hooks) -> None:
    held, lost = await hooks.add(), await hooks.add()
    await hooks.emit("a")
    me, other = uuid4(), uuid4()
    first = await hooks.claim(holder=me)
    assert [work.webhook for work in first] == [held, lost]
    assert await hooks.claim(holder=other) == []
    assert await hooks.claim(holder=me, held=[held, lost]) == []
    (again,) = await hooks.claim(holder=me, held=[held])
    assert (again.webhook, again.claim) == (lost, first[1].claim + 1)
    await hooks.finish(first[0], again)
    assert not await hooks.due()


async def test_an_outcome_waits_for_the_transaction_that_holds_its_webhook_and_delays_no_other(
    hooks: Hooks, database_url: str
) -> None:
    held, other = await hooks.add(), await hooks.add()
    await hooks.emit("a")
    claimed = await hooks.claim()
    session = await connect(database_url)
    try:
        async with session.transaction():
            await call(session, webhooks.Pause(project="default", webhook=held))
            assert await hooks.finish(*claimed) == [held]
            assert (await hooks.show(other)).waiting_count == 0
        assert await hooks.finish(*claimed) == []
        assert (await hooks.show(held)).waiting_count == 0
    finally:
        await session.close()


async def test_a_claim_hands_out_what_fits_into_a_slot_up_to_what_is_not_due(hooks: Hooks) -> None:
    webhook = await hooks.add()
    await hooks.emit(*map(str, range(20)))
    assert [key_of(work) for work in await hooks.claim()] == [str(n) for n in range(16)]
    sized = await hooks.add("custom.y")
    for size in (60_000, 60_000, 60_000, 200_000):
        await hooks.emit_large(size)
    claims = []
    while mine := [work for work in await hooks.claim() if work.webhook == sized]:
        claims.append((len(mine), mine[0].slots))
        await hooks.finish(*mine)
    assert claims == [(2, 1), (1, 1), (1, 2)]
    await hooks.set_clock(timedelta(seconds=61))
    first, *_ = await hooks.claim()
    await hooks.fail(first, response=500)
    await hooks.connection.execute("update coordinator.webhook_deliveries set due_at = now() where key = '0'")
    await hooks.connection.execute("update coordinator.webhook_deliveries set due_at = '2040-01-01' where key = '2'")
    await hooks.connection.execute("select coordinator.webhook_next(array[$1::bigint], coordinator.now_utc())", webhook)
    assert [key_of(work) for work in await hooks.claim()] == ["0", "1"]


async def test_claims_are_bounded_by_bytes_and_one_is_always_possible(hooks: Hooks) -> None:
    """A delivery takes a slot for each 128 KiB, so large ones of one project take its 16 slots, and slow ones its 8."""
    number = [await hooks.add("custom.y") for _ in range(5)]
    await hooks.emit_large(200_000)
    one, two = await hooks.claim(limit=3)
    assert (one.slots, two.slots) == (2, 2), "it begins while fewer than 3 are taken"
    for work in (one, two):
        await hooks.fail(work)
    rest = await hooks.claim()
    assert [work.webhook for work in rest] == number[2:]
    await hooks.finish(*rest)
    await hooks.set_clock(HOUR)
    assert [len(await hooks.claim(slow=slow)) for slow in (1, 2, 3, 4)] == [0, 1, 0, 1], (
        "both failed, and take 2 slots each"
    )


async def test_a_claim_that_ends_after_a_pause_leaves_nothing_due(hooks: Hooks) -> None:
    webhook = await hooks.add()
    await hooks.emit("a")
    (_,) = await hooks.claim()
    await hooks.run(webhooks.Pause(project="default", webhook=webhook))
    await hooks.set_clock(timedelta(seconds=61))
    assert await hooks.due()
    assert await hooks.claim() == []
    assert not await hooks.due()


async def test_a_webhook_that_is_removed_while_it_delivers_is_gone(hooks: Hooks) -> None:
    webhook = await hooks.add()
    await hooks.emit("a")
    (work,) = await hooks.claim()
    await hooks.run(webhooks.Remove(project="default", webhook=webhook))
    assert await hooks.finish(work) == []
    with pytest.raises(NotFound):
        await hooks.show(webhook)
    assert await hooks.run(webhooks.Fill()) is None


async def test_projects_take_turns_and_slow_webhooks_leave_half_of_the_slots(hooks: Hooks) -> None:
    for project in ("many", "few"):
        await hooks.connection.execute("select coordinator.project_create($1)", project)
    many = [await hooks.add(project="many") for _ in range(20)]
    (few,) = [await hooks.add(project="few")]
    await hooks.emit("a", project="many")
    await hooks.emit("a", project="few")
    first = await hooks.claim(limit=2)
    assert {work.project for work in first} == {"many", "few"}
    rest = await hooks.claim()
    assert len(rest) == 15, "a project has at most 16 attempts in progress"
    assert {work.project for work in rest} == {"many"}
    for work in [*first, *rest]:
        await hooks.finish(work, error=None if work.webhook == few else "no")
    left = await hooks.claim()
    assert sorted(work.webhook for work in left) == many[16:]
    for work in left:
        await hooks.fail(work)
    await hooks.set_clock(HOUR)
    assert len(await hooks.claim(slow=5)) == 5
    assert len(await hooks.claim()) == 3, "of slow ones, a project has at most 8"


async def test_receivers_that_have_never_responded_leave_slots_for_those_that_have(hooks: Hooks) -> None:
    proven = await hooks.add()
    await hooks.emit("a")
    assert len(await hooks.deliver()) == 1
    projects = [f"p{number}" for number in range(4)]
    for project in projects:
        await hooks.connection.execute("select coordinator.project_create($1)", project)
        await hooks.connection.execute(
            "select coordinator.webhook_add($1, $2, '{custom.*}') from generate_series(1, 16)", project, URL
        )
        await hooks.emit("a", project=project)
    fresh = await hooks.claim()
    assert len(fresh) == 48
    assert {work.project for work in fresh} == {*projects}
    assert await hooks.claim(limit=16) == []
    await hooks.emit("b")
    (work,) = await hooks.claim(limit=16)
    assert work.webhook == proven
    await hooks.finish(*fresh[:40])
    assert len(await hooks.claim(limit=16)) == 16, "what the others leave is taken"


async def test_what_cannot_take_more_waits_in_the_log(hooks: Hooks) -> None:
    webhook, other = await hooks.add(), await hooks.add()
    for part in range(3):
        await hooks.connection.execute(
            "select coordinator.event_emit('default', 'custom.x', format('%s', n)) from generate_series($1::integer, $2) n",
            part * 60, part * 60 + 59,
        )  # fmt: skip
        await hooks.number()
        await hooks.fill()
    assert (await hooks.show(webhook)).waiting_count == 120
    delivered = await hooks.deliver()
    for one in (webhook, other):
        assert [key for each, key in delivered if each == one] == [str(n) for n in range(180)]


async def test_a_webhook_that_another_transaction_has_misses_nothing_and_delays_no_other(
    hooks: Hooks, database_url: str
) -> None:
    held, other = await hooks.add(), await hooks.add()
    await hooks.fill()
    session = await connect(database_url)
    try:
        transaction = session.transaction()
        await transaction.start()
        await call(session, webhooks.Pause(project="default", webhook=held))
        await hooks.emit("a")
        assert await hooks.deliver() == [(other, "a")]
        await hooks.emit("b")
        assert await hooks.deliver() == [(other, "b")]
        await transaction.rollback()
        assert await hooks.due()
        assert await hooks.deliver() == [(held, "a"), (held, "b")]
    finally:
        await session.close()


async def test_an_event_about_dead_deliveries_is_delivered_to_no_webhook(hooks: Hooks) -> None:
    webhook = await hooks.add("webhook.*")
    await hooks.number()
    await hooks.deliver()
    await hooks.run(webhooks.Rotate(project="default", webhook=webhook))
    await hooks.number()
    (work,) = await hooks.claim()
    assert json.loads(work.body)["type"] == "webhook.rotated"
    await hooks.fail(work, response=410)
    await hooks.run(webhooks.Resume(project="default", webhook=webhook))
    await hooks.number()
    await hooks.deliver()
    types = [one.type for one in await hooks.run(webhooks.Deliveries(project="default", webhook=webhook))]
    assert "webhook.dead" not in types
    assert "webhook.disabled" in types


async def test_ended_deliveries_are_pruned(hooks: Hooks) -> None:
    webhook = await hooks.add()
    await hooks.connection.execute(
        "insert into coordinator.webhook_deliveries (webhook_id, message, type, at, status, due_at, ended_at, body)"
        " select $1, 'm', 'x', now(), s, now(), coordinator.now_utc(), case s when 'dead' then repeat('x', 20000) end"
        " from generate_series(1, 1010) n, unnest('{dead,delivered}'::text[]) s",
        webhook,
    )
    while await hooks.run(webhooks.Prune()):
        pass
    count = "select count(*) from coordinator.webhook_deliveries where status = $1"
    assert await hooks.connection.fetchval(count, "delivered") == 1000
    assert await hooks.connection.fetchval(count, "dead") == (16 << 20) // 20000
    await hooks.set_clock(timedelta(days=31))
    while await hooks.run(webhooks.Prune()):
        pass
    assert await hooks.connection.fetchval("select count(*) from coordinator.webhook_deliveries") == 0


@pytest.mark.parametrize(
    "url",
    [
        "", "example.com", "ftp://example.com/", "http:///x", "https://user@example.com/", "https://user:pw@example.com/", "https://example.com/#f",
        "https://example.com/a b", "https://example.com/\n", "https://exämple.com/", "https://example.com:port/", "https://[::1/", "https://a\\b/",
        "javascript:alert(1)", "https://", "https://?x", "//example.com/",
    ],
)  # fmt: skip
async def test_a_malformed_url_is_refused(hooks: Hooks, url: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await hooks.run(webhooks.Add(project="default", url=url, topics=["*"]))
    assert raised.value.hint


async def test_topics_are_needed_and_checked(hooks: Hooks) -> None:
    for topics in ([], ["Signal"], ["signal.**"], ["a b"], ["jobs.*"], ["*", "job.complete"]):
        with pytest.raises(InvalidArgument) as raised:
            await hooks.run(webhooks.Add(project="default", url=URL, topics=topics))
    assert raised.value.message == 'unknown topic "job.complete"'
    assert (raised.value.hint or "").startswith('Did you mean "job.completed"?')
    for url in ("http://example.com", "https://[2001:db8::1]:8443/x?token=1", "https://a_b.example.com/%C3%A9"):
        await hooks.run(webhooks.Add(project="default", url=url, topics=["*"]))


async def test_two_who_fill_at_once_insert_each_event_once(hooks: Hooks, database_url: str) -> None:
    webhook = await hooks.add()
    await hooks.fill()
    await hooks.emit("a")
    session = await connect(database_url)
    try:
        transaction = session.transaction()
        await transaction.start()
        assert await call(session, webhooks.Fill())
        assert await hooks.run(webhooks.Fill()) == 0
        await transaction.commit()
        assert await hooks.deliver() == [(webhook, "a")]
    finally:
        await session.close()


async def test_a_webhook_that_is_added_while_others_fill_misses_nothing(hooks: Hooks, database_url: str) -> None:
    await hooks.add()
    await hooks.fill()
    session = await connect(database_url)
    try:
        transaction = session.transaction()
        await transaction.start()
        late = (await call(session, webhooks.Add(project="default", url=URL, topics=["custom.*"]))).webhook
        await hooks.emit("a")
        await hooks.deliver()
        await transaction.commit()
        await hooks.emit("b")
        assert [key for webhook, key in await hooks.deliver() if webhook == late] == ["a", "b"]
    finally:
        await session.close()


async def test_the_deletion_of_a_project_takes_its_webhooks(hooks: Hooks, database_url: str) -> None:
    await hooks.connection.execute("select coordinator.project_create('other')")
    await hooks.add(project="other")
    await hooks.emit("a", project="other")
    await hooks.fill()
    session = await connect(database_url)
    try:
        transaction = session.transaction()
        await transaction.start()
        await Hooks(session).set_clock(timedelta())
        (work,) = await call(session, webhooks.ClaimDeliveries())
        deletion = asyncio.create_task(hooks.connection.execute("select coordinator.project_delete('other')"))
        watcher = await connect(database_url)
        await until_blocked(watcher, hooks.connection)
        await watcher.close()
        await transaction.commit()
        await deletion
        assert await hooks.finish(work) == []
    finally:
        await session.close()
