"""Jobs that wait for each other, and trees of them, against a small model: whatever is done in whatever order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from coordinator.operations import agents, job_trees, jobs
from tests.sql.machine import Machine, check

ENDS = ("completed", "failed", "cancelled")


@dataclass
class Job:
    id: UUID
    parent: UUID | None
    pending: list[UUID]  # the jobs that it still waits for
    mode: str
    on_failure: str
    paused: str | None  # "tree" or "alone"
    status: str = "queued"  # or "jobs" or "tree", which it waits for
    fence: int = 0
    cancelling: bool = False


class Trees(Machine):
    @initialize()
    def begin(self) -> None:
        super().begin()
        self.now = 0.0
        self.do(self.tx.set_clock(timedelta(0)))
        made = agents.Register(project="default", name="w", job_types=["x"], ttl=timedelta(days=1))
        self.worker = self.do(self.tx.run(made)).id
        self.jobs: dict[UUID, Job] = {}

    def any_job(self, data: st.DataObject) -> Job:
        return data.draw(st.sampled_from(list(self.jobs.values())))

    # The model.

    def settle(self, ended: list[Job]) -> None:
        for job in sorted(ended, key=lambda job: job.status != "completed"):
            for one in self.jobs.values():
                if job.id not in one.pending or one.status in ENDS:  # perhaps since another job ended
                    continue
                one.pending.remove(job.id)
                if job.status == "completed":
                    start, stop = one.mode == "any" or not one.pending, False
                else:
                    start = one.on_failure == "run" or (one.on_failure == "ignore" and not one.pending)
                    stop = one.on_failure == "cancel" and (one.mode == "all" or not one.pending)
                if start:
                    one.pending.clear()
                    if one.status == "jobs":
                        self.ready(one)
                elif stop:
                    one.status = "cancelled"
                    self.settle([one])

    def ready(self, job: Job) -> None:
        job.status = "tree" if job.paused else "queued"

    def members(self, job: Job, tree: bool) -> list[Job]:
        found = [job]
        for one in found:
            found += [child for child in self.jobs.values() if tree and child.parent == one.id]
        return [one for one in found if one.status not in ENDS]

    # What callers do.

    @rule(
        data=st.data(),
        mode=st.sampled_from(["all", "any"]),
        on_failure=st.sampled_from(["cancel", "ignore", "run"]),
        child=st.booleans(),
    )
    def enqueue(self, data: st.DataObject, mode: str, on_failure: str, child: bool) -> None:
        self.now = round(self.now + 0.001, 6)  # no two have the same place
        self.do(self.tx.set_clock(timedelta(seconds=self.now)))
        parent = self.any_job(data) if child and self.jobs else None
        named = data.draw(st.lists(st.sampled_from([*self.jobs]), max_size=3, unique=True)) if self.jobs else []
        how = {"after_mode": mode, "on_failure": on_failure} if named else {}
        code, receipt = self.run(
            jobs.Enqueue(project="default", type="x", parent=parent and parent.id, after=named, **how)
        )
        if parent and (parent.status in ENDS or parent.cancelling):
            assert code == "ZC328"
            return
        assert code is None
        paused = "tree" if parent and parent.paused == "tree" else None
        job = Job(receipt.id, parent and parent.id, list(named), mode, on_failure, paused)
        self.jobs[job.id] = job
        if named:
            job.status = "jobs"
            self.settle([self.jobs[one] for one in named if self.jobs[one].status in ENDS])
        else:
            self.ready(job)
        assert receipt.status == ("waiting" if job.status in ("jobs", "tree") else job.status)

    @rule(limit=st.integers(1, 3))
    def claim(self, limit: int) -> None:
        code, grants = self.run(jobs.Claim(project="default", agent=self.worker, limit=limit))
        assert code is None
        queued = [job for job in self.jobs.values() if job.status == "queued"]
        assert [grant.id for grant in grants] == [job.id for job in queued][:limit]
        for grant in grants:
            job = self.jobs[grant.id]
            job.status, job.fence = "running", grant.fence

    @precondition(lambda self: any(job.status == "running" for job in self.jobs.values()))
    @rule(data=st.data(), verb=st.sampled_from(["complete", "fail", "release"]))
    def verb(self, data: st.DataObject, verb: str) -> None:
        job = data.draw(st.sampled_from([job for job in self.jobs.values() if job.status == "running"]))
        own: dict[str, Any] = {"project": "default", "job": job.id, "agent": self.worker, "fence": job.fence}
        call: Any = {
            "complete": lambda: jobs.Complete(**own),
            "fail": lambda: jobs.Fail(**own, error="e", final=True),
            "release": lambda: jobs.Release(**own),
        }[verb]()
        code, outcome = self.run(call)
        assert code is None
        if verb == "release" and not job.cancelling:
            self.ready(job)
        else:
            job.status = "cancelled" if job.cancelling else "completed" if verb == "complete" else "failed"
            self.settle([job])
        assert outcome.status == ("waiting" if job.status == "tree" else job.status)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), tree=st.booleans())
    def cancel(self, data: st.DataObject, tree: bool) -> None:
        job = self.any_job(data)
        found = self.members(job, tree)
        code, _ = self.run(jobs.Cancel(project="default", job=job.id, tree=tree))
        assert code == (None if found else "ZC323")
        ended = [one for one in found if one.status != "running"]
        for one in found:
            if one in ended:
                one.status = "cancelled"
            else:
                one.cancelling = True
        self.settle(ended)

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), tree=st.booleans(), pause=st.booleans())
    def pause(self, data: st.DataObject, tree: bool, pause: bool) -> None:
        job = self.any_job(data)
        found = self.members(job, tree)
        kind = job_trees.Pause if pause else job_trees.Resume
        code, _ = self.run(kind(project="default", job=job.id, tree=tree))
        assert code == (None if found else "ZC323")
        for one in found:
            if pause:
                one.paused = "tree" if tree else one.paused or "alone"
                one.status = "tree" if one.status == "queued" else one.status
            else:
                one.paused = None
                one.status = "queued" if one.status == "tree" else one.status

    # What is always so.

    @invariant()
    def the_database_says_the_same(self) -> None:
        if not hasattr(self, "jobs"):
            return
        rows = self.do(
            self.connection.fetch("select id, coalesce(waiting_for, status) as status from coordinator.jobs")
        )
        assert {row["id"]: row["status"] for row in rows} == {job.id: job.status for job in self.jobs.values()}
        edges = self.do(self.connection.fetch("select job_id, after_id from coordinator.job_dependencies"))
        assert sorted(map(tuple, edges)) == sorted(
            (job.id, one) for job in self.jobs.values() if job.status not in ENDS for one in job.pending
        )
        assert self.do(self.connection.fetchval("select count(*) from coordinator.jobs_unsettled")) == 0


@pytest.mark.slow
def test_trees_do_as_the_model_does(shared_url: str) -> None:
    check(Trees, shared_url, examples=25)
