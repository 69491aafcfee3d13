"""Jobs against a small model: whatever is done in whatever order, each job is in one place and ends once, and no stale fence changes anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from coordinator.operations import agents, jobs, queues
from tests.sql.machine import Machine, check

SETTLED = "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
GRACE_S = 30
STALL_S = 20

# Where limits apply, each to a queue, and which of them are per key.
LIMITED = {"pool": "other", "keys": "plain", "fair keys": "fair"}
PER_KEY = {"keys", "fair keys"}

workers = st.sampled_from(["ann", "bob"])
rescues = st.sampled_from(["retry", "resume", "fail"])


@dataclass
class Job:
    id: UUID
    queue: str
    priority: int
    at: float
    max_attempts: int
    rescue: str
    stalls: bool
    key: str | None  # for duplicates
    lane: str | None
    start_by: float | None
    status: str = "queued"
    worker: str | None = None
    fence: int = 0
    attempts: int = 0
    deaths: int = 0
    cancel_at: float | None = None
    stall_at: float | None = None
    checkpoint: int | None = None
    fences: list[tuple[str, int]] = field(default_factory=list)
    finished: bool = False  # by its worker

    @property
    def ended(self) -> bool:
        return self.status in ("completed", "failed", "cancelled", "expired")


class Jobs(Machine):
    @initialize()
    def begin(self) -> None:
        super().begin()
        self.do(self.connection.execute(SETTLED))
        # Whatever is drawn or counted is the same when an example is repeated.
        self.do(self.connection.execute("select setseed(0.5), setval('coordinator.job_turns', 1)"))
        self.start: datetime = self.do(self.connection.fetchval("select transaction_timestamp()"))
        self.now = 0.0
        self.do(self.tx.set_clock(timedelta(0)))
        self.ids: dict[str, UUID] = {}
        for name in ("ann", "bob"):
            self.register(name)
        self.do(self.tx.run(queues.Set(project="default", queue="fair", fair_by="key")))
        self.jobs: dict[UUID, Job] = {}
        self.slots: dict[str, int] = {}

    def register(self, name: str) -> None:
        made = agents.Register(project="default", name=name, job_types=["x"], ttl=timedelta(days=1))
        self.ids[name] = self.do(self.tx.run(made)).id

    def since(self, instant: datetime) -> float:
        return (instant - self.start).total_seconds()

    def of(self, *statuses: str) -> list[Job]:
        return [job for job in self.jobs.values() if job.status in statuses]

    # The model.

    def place(self, job: Job) -> tuple[int, float, UUID]:
        return (-job.priority, job.at, job.id)

    def ends(self, job: Job, status: str) -> None:
        job.status = "cancelled" if job.cancel_at is not None else status
        job.worker = job.cancel_at = job.stall_at = None
        job.finished = status == "completed"

    def leaves(self, job: Job, outcome: str, at: float | None = None) -> None:
        """An attempt ended, and that alone does not end the job."""
        counts = outcome in ("failed", "worker_lost", "stalled")
        job.deaths = job.deaths + 1 if outcome == "worker_lost" else 0
        attempts = job.attempts + counts
        if (
            job.cancel_at is not None
            or job.deaths == 3
            or (counts and (attempts >= job.max_attempts or (job.rescue == "fail" and outcome != "failed")))
        ):
            job.attempts = attempts
            self.ends(job, "failed")
            return
        if counts and job.rescue != "resume":
            job.checkpoint = None
        job.attempts, job.start_by, job.worker, job.stall_at = attempts, None, None, None
        if outcome in ("failed", "stalled", "snoozed"):
            job.at = at if at is not None else self.since(
                self.do(self.connection.fetchval("select scheduled_at from coordinator.jobs_open where id = $1", job.id))
            )  # fmt: skip
            assert job.at > self.now - 1e-6
        job.status = "scheduled" if job.at > self.now else "queued"

    def limits(self, queue: str) -> list[str]:
        return [name for name in self.slots if LIMITED[name] == queue]

    def limited(self, queue: str) -> list[str]:
        return [queue] if self.limits(queue) else []

    def lane(self, job: Job) -> str | None:
        """The key, if each has a limit."""
        return job.lane if PER_KEY & {*self.limits(job.queue)} else None

    def room(self, queue: str, lane: str | None) -> int:
        """How many more jobs may start."""
        names = self.limits(queue)
        if not names or (names[0] in PER_KEY and lane is None):
            return 1000
        running = sum(job.queue == queue and self.lane(job) == lane for job in self.of("running"))
        return max(0, self.slots[names[0]] - running)

    # What callers do.

    @rule(name=st.sampled_from(sorted(LIMITED)), slots=st.integers(1, 3))
    def set_limit(self, name: str, slots: int) -> None:
        query = "select coordinator.limit_set('default', $1, p_slots => $2, p_queue => $3, p_per_key => $4)"
        self.do(self.connection.execute(query, name, slots, LIMITED[name], name in PER_KEY))
        self.slots[name] = slots

    @precondition(lambda self: getattr(self, "slots", None))
    @rule(data=st.data())
    def delete_limit(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.slots)))
        self.do(self.connection.execute("select coordinator.limit_delete('default', $1)", name))
        del self.slots[name]

    @rule(
        given=st.fixed_dictionaries(
            {
                "queue": st.sampled_from(["plain", "other", "fair"]),
                "key": st.sampled_from([None, "k1", "k2"]),
                "priority": st.integers(-1, 1),
                "dedupe_key": st.sampled_from([None, None, "a", "b"]),
                "on_duplicate": st.sampled_from(["raise", "skip", "replace"]),
                "max_attempts": st.integers(1, 4),
                "rescue": rescues,
            }
        ),
        delay=st.sampled_from([None, 5]),
        stalls=st.booleans(),
        start_by=st.sampled_from([None, None, 12]),
    )
    def enqueue(self, given: dict[str, Any], delay: int | None, stalls: bool, start_by: int | None) -> None:
        dedupe, on_duplicate = given["dedupe_key"], given["on_duplicate"]
        self.now = round(self.now + 0.001, 6)  # no two have the same place
        self.do(self.tx.set_clock(timedelta(seconds=self.now)))
        first = next((job for job in self.jobs.values() if dedupe and job.key == dedupe and not job.ended), None)
        code, receipt = self.run(
            jobs.Enqueue(
                project="default",
                type="x",
                delay=timedelta(seconds=delay) if delay else None,
                stall=timedelta(seconds=STALL_S) if stalls else None,
                start_by=self.start + timedelta(seconds=self.now + start_by) if start_by else None,
                **given,
            )
        )
        if first and on_duplicate == "skip":
            assert (receipt.id, receipt.created, receipt.status) == (first.id, False, first.status)
            return
        if first and (on_duplicate == "raise" or first.status == "running"):
            assert code == "ZC321"
            return
        if first:
            self.ends(first, "cancelled")
        assert receipt.created
        assert receipt.status == ("scheduled" if delay else "queued")
        at = round(self.now + (delay or 0), 6)
        limit = round(self.now + start_by, 6) if start_by else None
        self.jobs[receipt.id] = Job(
            id=receipt.id,
            queue=given["queue"],
            priority=given["priority"],
            at=at,
            max_attempts=given["max_attempts"],
            rescue=given["rescue"],
            stalls=stalls,
            key=dedupe,
            lane=given["key"],
            start_by=limit,
            status=receipt.status,
        )

    def begun(self, worker: str, limit: int, grants: list[Any]) -> None:
        """Compare what a claim gave with what there was, and begin the attempts."""
        waiting = [job for job in self.of("queued") if job.start_by is None or job.start_by > self.now]
        given = [self.jobs[grant.id] for grant in grants]
        groups = Counter((job.queue, self.lane(job)) for job in waiting)
        most = {group: min(count, self.room(*group)) for group, count in groups.items()}
        assert len(given) == min(limit, sum(most.values())), "a job waits without need, or there are too many"
        assert all(job in waiting for job in given)
        counts = Counter((job.queue, self.lane(job)) for job in given)
        assert all(counts[group] <= most[group] for group in counts), "a limit is exceeded"
        # Queues without limits and lanes are claimed as one; of others, each group is in order.
        for queues_ in (
            [queue for queue in ("plain", "other") if not self.limits(queue)],
            *([queue] for queue in self.limited("other")),
        ):
            best = sorted((job for job in waiting if job.queue in queues_), key=self.place)
            taken = [job for job in given if job.queue in queues_]
            assert sorted(taken, key=self.place) == best[: len(taken)], "not the best"
        for job, grant in zip(given, grants, strict=True):
            assert grant.fence > max((one.fence for one in self.jobs.values()), default=0)
            assert (grant.attempt, grant.checkpoint) == (job.attempts + 1, job.checkpoint)
        for job, grant in zip(given, grants, strict=True):
            job.status, job.worker, job.fence = "running", worker, grant.fence
            job.stall_at = round(self.now + STALL_S, 6) if job.stalls else None
            job.fences.append((worker, grant.fence))
        for job in self.of("queued"):
            if job not in waiting and job.start_by is not None and len(given) < limit:
                job.status = self.status_of(job)  # it may have been put aside

    def status_of(self, job: Job) -> str:
        query = "select status from coordinator.job_find(1, $1)"
        found: str = self.do(self.connection.fetchval(query, job.id))
        assert found in ("queued", "scheduled")
        return found

    @rule(worker=workers, limit=st.integers(1, 5), data=st.data())
    def claim(self, worker: str, limit: int, data: st.DataObject) -> None:
        running = [job for job in self.jobs.values() if job.fences]
        finished = (
            data.draw(st.lists(st.sampled_from(running), max_size=3, unique_by=lambda job: job.id)) if running else []
        )
        code, grants = self.run(
            jobs.Claim(
                project="default", agent=self.ids[worker], limit=limit, finished=[job.id for job in finished],
                fences=[job.fence for job in finished], results=[None] * len(finished),
            )
        )  # fmt: skip
        assert code is None
        for job in finished:
            mine = job.status == "running" and job.worker == worker
            again = job.status in ("completed", "cancelled") and job.fences[-1][1] == job.fence and job.finished
            assert any(grant.stale and grant.id == job.id for grant in grants) == (not mine and not again)
            if mine:
                self.ends(job, "completed")
        self.begun(worker, limit, [grant for grant in grants if not grant.stale])

    @precondition(lambda self: any(job.fences for job in self.jobs.values()))
    @rule(data=st.data(), verb=st.sampled_from(["complete", "fail", "final", "snooze", "release", "report", "assert"]))
    def verb(self, data: st.DataObject, verb: str) -> None:
        job = data.draw(st.sampled_from([job for job in self.jobs.values() if job.fences]))
        worker, fence = data.draw(st.sampled_from(job.fences))
        who = data.draw(st.sampled_from([worker, *self.ids]))
        common: dict[str, Any] = {"project": "default", "job": job.id, "agent": self.ids[who], "fence": fence}
        call: Any = {
            "complete": lambda: jobs.Complete(**common),
            "fail": lambda: jobs.Fail(**common, error="e"),
            "final": lambda: jobs.Fail(**common, error="e", final=True),
            "snooze": lambda: jobs.Snooze(**common, delay=timedelta(seconds=5)),
            "release": lambda: jobs.Release(**common),
            "report": lambda: jobs.Report(**common, checkpoint=fence),
            "assert": lambda: jobs.Assert(project="default", job=job.id, fence=fence),
        }[verb]()
        valid = job.status == "running" and fence == job.fence and (verb == "assert" or who == job.worker)
        again = verb == "complete" and job.status in ("completed", "cancelled") and fence == job.fence and job.finished
        code, result = self.run(call)
        assert code == (None if valid or again else "ZC320")
        if not valid:
            return
        if verb == "complete":
            self.ends(job, "completed")
        elif verb == "final":
            job.attempts += 1
            self.ends(job, "failed")
        elif verb == "report":
            job.checkpoint = fence
            job.stall_at = round(self.now + STALL_S, 6) if job.stalls else None
            assert (result.cancel_at is not None) == (job.cancel_at is not None)
            return
        elif verb == "assert":
            return
        else:
            self.leaves(job, {"fail": "failed", "snooze": "snoozed", "release": "released"}[verb])
        assert result.status == job.status

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(list(self.jobs.values())))
        code, outcome = self.run(jobs.Cancel(project="default", job=job.id))
        if job.ended:
            assert code == "ZC323"
        elif job.status == "running":
            job.cancel_at = job.cancel_at if job.cancel_at is not None else round(self.now + GRACE_S, 6)
            assert self.since(outcome.due_at) == job.cancel_at
        else:
            assert outcome.status == "cancelled"
            self.ends(job, "cancelled")

    @rule(worker=workers, data=st.data())
    def reconcile(self, worker: str, data: st.DataObject) -> None:
        mine = [job for job in self.of("running") if job.worker == worker]
        known = data.draw(st.lists(st.sampled_from(mine), unique_by=lambda job: job.id)) if mine else []
        old = [
            fence
            for job in self.jobs.values()
            for _, fence in job.fences
            if job.status != "running" or fence != job.fence
        ][:2]
        code, verdicts = self.run(
            jobs.Reconcile(
                project="default",
                agent=self.ids[worker],
                fences=[*(job.fence for job in known), *old],
                grace=timedelta(0),
            )
        )
        assert code is None
        begun = "select fence from coordinator.jobs_running where started_at >= coordinator.now_utc()"
        fresh = {row[0] for row in self.do(self.connection.fetch(begun))}
        expected = {(fence, "lost") for fence in old} | {
            (job.fence, "cancel") for job in known if job.cancel_at is not None
        }
        for job in [job for job in mine if job not in known and job.fence not in fresh]:
            expected.add((job.fence, "released"))
            self.leaves(job, "released")
        assert {(verdict.fence, verdict.verdict) for verdict in verdicts} == expected

    # What happens to workers, and what time does.

    @rule(worker=workers, lost=st.booleans())
    def end(self, worker: str, lost: bool) -> None:
        if lost:
            query = "select coordinator.agent_end($1, 'agent.reaped', 'coordinator', '{\"reason\": \"expired\"}')"
            self.do(self.connection.execute(query, self.ids[worker]))
        else:
            self.do(self.tx.run(agents.Deregister(agent=self.ids[worker])))
        self.register(worker)
        for job in [job for job in self.of("running") if job.worker == worker]:
            self.leaves(job, "worker_lost" if lost else "released")

    @rule(seconds=st.integers(1, 25))
    def pass_time(self, seconds: int) -> None:
        self.now = round(self.now + seconds, 6)
        self.do(self.tx.set_clock(timedelta(seconds=self.now)))
        for loop in (jobs.Rescue(), jobs.Expire(), jobs.Promote()):
            while self.run(loop)[1]:
                pass
        for job in self.of("running"):
            due = [at for at in (job.stall_at, job.cancel_at) if at is not None]
            if due and min(due) <= self.now:
                self.leaves(job, "stalled")
        for job in self.of("queued", "scheduled"):
            if job.start_by is not None and job.start_by <= self.now:
                self.ends(job, "expired")
            elif job.at <= self.now:
                job.status = "queued"

    # What is always so.

    @invariant()
    def each_job_is_in_one_place(self) -> None:
        if not hasattr(self, "jobs"):
            return
        query = """
          select id, 'queued' as status, class_id, lane_id from coordinator.jobs_ready union all
          select id, 'scheduled', null, null from coordinator.jobs_later union all
          select id, 'running', null, null from coordinator.jobs_running union all
          select id, status, null, null from coordinator.jobs_ended"""
        rows = self.do(self.connection.fetch(query))
        assert Counter(row["id"] for row in rows) == Counter([*self.jobs])
        assert {row["id"]: row["status"] for row in rows} == {job.id: job.status for job in self.jobs.values()}
        opened = {row[0] for row in self.do(self.connection.fetch("select id from coordinator.jobs_open"))}
        assert opened == {job.id for job in self.jobs.values() if not job.ended}
        lanes = {row["lane_id"] for row in rows if row["lane_id"]}
        keyed = {LIMITED[name] for name in PER_KEY & {*self.slots}}
        assert all(
            bool(row["lane_id"]) == (self.jobs[row["id"]].queue in {"fair", *keyed})
            for row in rows
            if row["status"] == "queued"
        )
        permits = [row[0] for row in self.do(self.connection.fetch("select lane_id from coordinator.job_permits"))]
        full = {
            row["lane_id"] for row in rows
            if row["lane_id"] and self.room(self.jobs[row["id"]].queue, self.lane(self.jobs[row["id"]])) == 0
        }  # fmt: skip
        assert len(permits) == len({*permits}) or keyed
        assert lanes - full <= {*permits}, "a lane has jobs and no permit"

    @invariant()
    def each_slot_is_free_or_used(self) -> None:
        for name in {*getattr(self, "slots", {})} - PER_KEY:
            query = """
              select l.slots + l.surplus, (select count(*) from coordinator.job_slots s where s.limit_id = l.id),
                     (select count(*) from coordinator.jobs_running r where l.id = any (r.slots))
              from coordinator.job_limits l where l.name = $1"""
            slots, free, used = self.do(self.connection.fetchrow(query, name))
            assert free + used == slots
            assert used == sum(job.queue == LIMITED[name] for job in self.of("running"))

    @invariant()
    def each_end_has_one_event(self) -> None:
        if not hasattr(self, "jobs"):
            return
        query = """
          select type, jsonb_array_elements_text(data -> 'ids')::uuid as id from coordinator.events
          where xid = pg_current_xact_id() and type in ('job.completed', 'job.failed', 'job.cancelled', 'job.expired')"""
        ends = self.do(self.connection.fetch(query))
        assert sorted((row["id"], row["type"]) for row in ends) == sorted(
            (job.id, f"job.{job.status}") for job in self.jobs.values() if job.ended
        )

    @invariant()
    def a_dedupe_key_is_of_an_open_job(self) -> None:
        if not hasattr(self, "jobs"):
            return
        keys = self.do(self.connection.fetch("select key, job_id from coordinator.job_dedupes"))
        assert sorted((row["key"], row["job_id"]) for row in keys) == sorted(
            (job.key, job.id) for job in self.jobs.values() if job.key and not job.ended
        )


@pytest.mark.slow
def test_jobs_do_as_the_model_does(shared_url: str) -> None:
    check(Jobs, shared_url, examples=25)
