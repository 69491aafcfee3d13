"""Samples of the database's metrics: what is declared, what is shown of names that users choose, and how little is read."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bench.metrics import FILL
from coordinator.db.database import Database
from coordinator.model.catalogue import METRICS
from coordinator.model.metric import Sample
from coordinator.operations import events
from coordinator.operations.work import RelayStep, SampleMetrics
from coordinator.telemetry.samples import Samples
from tests.conftest import Transaction
from tests.daemon import opened
from tests.populated import populate

# What is there only with a standby, an extension, or events that have been committed.
ELSEWHERE = {name for name in METRICS if "replication_lag" in name or "statement" in name or "_number_" in name}
SHOWN = 51  # the largest, and the rest

Figures = dict[tuple[str, ...], float]


async def sampled(tx: Transaction, *samplers: str) -> list[Sample]:
    everything = list(dict.fromkeys(metric.sampler for metric in METRICS.values()))
    since = await tx.connection.fetchval("select coordinator.now_utc() - interval '1 day'")
    return await tx.run(SampleMetrics(samplers=list(samplers) or everything, since=since))


async def figures(tx: Transaction, name: str) -> Figures:
    """Sample one metric, by its labels."""
    found = [sample for sample in await sampled(tx, METRICS[name].sampler) if sample.name == name]
    labels = [tuple(sample.labels) for sample in found]
    assert len(labels) == len(set(labels)), "a series comes twice"
    return {tuple(sample.labels): sample.value for sample in found}


def rendered(samples: list[Sample]) -> bytes:
    registry = CollectorRegistry()
    Samples(METRICS, registry, (1.0,)).keep(samples)
    return generate_latest(registry)


async def test_samplers_return_what_is_declared_of_them_and_all_of_it(tx: Transaction) -> None:
    await populate(tx.connection)
    # Its maximum is known.
    await tx.connection.execute("select coordinator.server_measure(p_limit_bytes => 1000000000000)")
    found = await sampled(tx)
    assert all(sample.value >= 0 for sample in found), [sample for sample in found if sample.value < 0]
    seen = {}
    sampler = ""
    for sample in reversed(found):  # each sampler's own figures end with how long it took
        if sample.name.startswith("coordinator_sample_"):
            (sampler,) = sample.labels
        else:
            seen[sample.name] = (sampler, len(sample.labels))
    declared = {name: (metric.sampler, len(metric.labels)) for name, metric in METRICS.items()}
    assert seen == {name: declared[name] for name in seen}
    assert declared.keys() - seen.keys() <= ELSEWHERE


async def test_no_age_is_negative_where_the_clock_was_set_back_or_a_transaction_began_meanwhile(
    tx: Transaction, server_url: str
) -> None:
    await populate(tx.connection)
    text = await tx.connection.fetchval("select pg_get_functiondef('coordinator.server_sample'::regproc)")
    now = "v_now timestamptz := clock_timestamp()"
    assert now in text
    await tx.connection.execute(text.replace(now, f"{now} - interval '1 hour'"))
    await tx.set_clock(timedelta(hours=-1))
    async with opened(server_url) as other, other.transaction():
        await other.execute("select 1")
        await tx.connection.execute("select pg_stat_clear_snapshot()")
        found = await sampled(tx)
    assert [sample for sample in found if sample.value < 0] == []


def test_a_metric_says_in_its_name_what_kind_and_unit_it_has() -> None:
    for name, metric in METRICS.items():
        assert name.endswith("_total") == (metric.kind == "counter"), name
        if metric.unit:
            assert name.removesuffix("_total").endswith(f"_{metric.unit}"), name


async def test_jobs_are_counted_by_state_queue_and_type_with_the_age_of_the_oldest(tx: Transaction) -> None:
    for second, (queue, work) in enumerate((("q", "a"), ("q", "b"), ("r", "b"))):
        await tx.set_clock(timedelta(seconds=second))
        await tx.connection.execute("select coordinator.job_enqueue('default', $1, '1', p_queue => $2)", work, queue)
    await tx.set_clock(timedelta(seconds=10))
    assert await figures(tx, "coordinator_jobs") == {
        ("queued",): 3, ("scheduled",): 0, ("waiting",): 0, ("running",): 0
    }  # fmt: skip
    assert await figures(tx, "coordinator_queue_jobs") == {("default", "q", "queued"): 2, ("default", "r", "queued"): 1}
    assert await figures(tx, "coordinator_type_jobs") == {("default", "a", "queued"): 1, ("default", "b", "queued"): 2}
    assert await figures(tx, "coordinator_queue_oldest_seconds") == pytest.approx(
        {("default", "q", "queued"): 10, ("default", "r", "queued"): 8}, abs=0.01
    )


async def test_locks_and_tickets_are_counted_with_the_longest_wait(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    one, two = [
        await tx.connection.fetchval("select id from coordinator.agent_register('default', $1)", name)
        for name in ("one", "two")
    ]
    acquire = "select * from coordinator.lock_acquire('default', $1, $2, p_ttl => '1 hour', p_wait => '1 hour')"
    await tx.connection.execute(acquire, ["a", "b"], one)
    before = (await figures(tx, "coordinator_lock_tickets_total"))[()]
    await tx.connection.execute(acquire, ["a", "b"], two)
    await tx.set_clock(timedelta(seconds=7))
    assert await figures(tx, "coordinator_locks") == {("default", "exclusive"): 2}
    assert await figures(tx, "coordinator_lock_waits") == {("default",): 1}
    assert await figures(tx, "coordinator_lock_wait_oldest_seconds") == pytest.approx({("default",): 7})
    assert (await figures(tx, "coordinator_lock_tickets_total"))[()] > before


async def test_a_directive_counts_until_an_agent_acknowledges_it(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.agent_register('default', 'coder')")
    directive = await tx.connection.fetchval(
        "select id from coordinator.directive_send('default', 'stop', p_to_agent => 'coder')"
    )
    assert await figures(tx, "coordinator_directives_unacknowledged") == {("default",): 1}
    await tx.connection.execute("select coordinator.directive_acknowledge('default', $1, 'coder', 'seen')", directive)
    assert await figures(tx, "coordinator_directives_unacknowledged") == {}


async def test_logs_and_documents_are_counted_by_kind(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.project_create('counted')")
    for kind, key in (("message", "a"), ("message", "b"), ("step", "a")):
        await tx.connection.execute(
            "select coordinator.log_append('counted', $1, $2, '[{\"data\": 1}, {\"data\": 2}]')", kind, key
        )
    for key in ("a", "b", "gone"):
        await tx.connection.execute("select coordinator.document_put('counted', 'todo', $1, '[]')", key)
    await tx.connection.execute("select coordinator.document_delete('counted', 'todo', 'gone')")

    async def counted(name: str) -> dict[str, float]:
        return {kind: value for (project, kind), value in (await figures(tx, name)).items() if project == "counted"}

    assert await counted("coordinator_logs") == {"message": 2, "step": 1}
    assert await counted("coordinator_log_entries") == {"message": 4, "step": 2}
    assert await counted("coordinator_documents") == {"todo": 2}


async def test_limits_say_which_share_of_them_is_used(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.limit_set('default', 'four', p_slots => 4, p_queue => 'default')")
    await tx.connection.execute("select coordinator.limit_set('default', 'rate', p_rate => 10, p_burst => 10)")
    await tx.connection.execute(
        "select coordinator.limit_set('default', 'cost', p_budget => 100, p_reserve => 30, p_queue => 'default')"
    )
    worker = await tx.connection.fetchval(
        "select id from coordinator.agent_register('default', 'w', p_job_types => '{t}')"
    )
    await tx.connection.execute("select coordinator.job_enqueue('default', 't', '1')")
    await tx.connection.execute("select * from coordinator.job_claim('default', $1)", worker)
    assert await figures(tx, "coordinator_limit_used_ratio") == pytest.approx(
        {("default", "four", "slots"): 0.25, ("default", "rate", "rate"): 0, ("default", "cost", "budget"): 0.3}
    )


async def test_the_time_to_a_number_is_observed_once_for_each_chunk(db: Database) -> None:
    name = "coordinator_event_number_seconds"
    await db.run(events.Emit(project="default", type="custom.x"))
    before = await taken_at(db)
    while not (await db.run(RelayStep())).moved:
        pass
    seen = await db.run(SampleMetrics(samplers=["event_sample"], since=before))
    assert len([sample for sample in seen if sample.name == name]) == 1
    later = await db.run(SampleMetrics(samplers=["event_sample"], since=await taken_at(db)))
    assert [sample for sample in later if sample.name == name] == []


async def taken_at(db: Database) -> datetime:
    samples = await db.run(SampleMetrics(samplers=["agent_sample"]))
    kept = Samples(METRICS, CollectorRegistry(), (1.0,))
    kept.keep(samples)
    assert kept.taken_at is not None
    return kept.taken_at


async def test_a_thousand_projects_and_queues_make_a_bounded_number_of_series(tx: Transaction) -> None:
    for statement in FILL:
        await tx.connection.execute(statement)
    found = await sampled(tx)
    count: dict[str, int] = {}
    for sample in found:
        count[sample.name] = count.get(sample.name, 0) + 1
    assert count["coordinator_agents"] == SHOWN
    assert count["coordinator_queue_jobs"] == count["coordinator_type_oldest_seconds"] == 3 * SHOWN
    assert max(count.values()) <= 4 * SHOWN
    assert len(found) < 2500
    queues = await figures(tx, "coordinator_queue_jobs")
    assert queues["other", "other", "queued"] == 950
    assert sum(queues.values()) == 3000
    assert len(rendered(found)) < 250_000


async def test_names_of_users_cannot_break_the_format_or_grow_without_bound(tx: Transaction) -> None:
    hostile = ['a"b\\c\n} 1\nevil{x="', "x\u2028y\r\x1b[31m", "é" * 90, "é" * 95, "other"]
    await tx.connection.execute(  # some of them only a former release can have admitted
        """
        with queue as (insert into coordinator.queues (project_id, name, actor, created_at, updated_at)
                       select id, 'q', 'a', now(), now() from coordinator.projects returning *),
             class as (insert into coordinator.job_classes (project_id, queue, type) select project_id, 'q', unnest($1::text[]) from queue returning id)
        insert into coordinator.jobs_ready (class_id, lane_id, rank, id) select id, 0, 0, coordinator.job_id(1, gen_random_uuid()) from class""",
        hostile,
    )
    text = rendered(await sampled(tx)).decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    types = {sample.labels["type"]: sample.value for sample in families["coordinator_type_jobs"].samples}
    assert types == {'a"b\\c?} 1?evil{x="': 1, "x?y??[31m": 1, "é" * 64: 2, "other": 1}
    assert not any(name.startswith("evil") for name in families)


async def test_a_table_that_is_large_is_read_in_part_and_the_rest_estimated(db: Database, database_url: str) -> None:
    """In a database of its own: what is rolled back leaves a large table."""
    share = "select coordinator.metric_share('coordinator.jobs_ready')"
    async with opened(database_url) as connection:
        assert await connection.fetchval(share) == 1
        await connection.execute("select coordinator.job_enqueue('default', 't', '1')")
        await connection.execute("alter table coordinator.jobs_ready set (fillfactor = 10)")  # a page for 12 rows
        await connection.execute(
            "insert into coordinator.jobs_ready (class_id, lane_id, rank, id)"
            " select c.id, 0, n, coordinator.job_id(n, gen_random_uuid()) from coordinator.job_classes c, generate_series(1, 40000) n"
        )
        pages = await connection.fetchval("select pg_relation_size('coordinator.jobs_ready') / 8192")
        assert 0 < await connection.fetchval(share) * pages <= 2001 < pages
    found = await db.run(SampleMetrics(samplers=["job_sample"]))
    (queued,) = [one.value for one in found if one.name == "coordinator_jobs" and one.labels == ["queued"]]
    assert queued == pytest.approx(40_000, rel=0.2)
