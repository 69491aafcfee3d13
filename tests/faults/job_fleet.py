"""Worker processes on a database, what befalls them, and what must be true of their jobs in the end."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import anyio
import asyncpg
import msgspec

from coordinator import embedded
from tests.daemon import Daemon, Reopened, opened
from tests.faults.job_worker import LOST, TABLE, Settings
from tests.faults.plane import IMMEDIATE, restart
from tests.forked import Forked
from tests.sql.test_queue_place import at_once
from tests.waiting import until

__all__ = ["LIGHT", "QUEUES", "Fleet", "check_ends", "enqueue", "prepare"]

QUEUES = ["plain", "fair"]
LIGHT = ("kill", "pause", "stop", "terminate", "kill_daemon", "cancel", "reshape")
BATCH = 20
KEYS = 5
ENQUEUE = "select id from coordinator.job_enqueue_many('default', $1)"
OPEN = "select count(*) from coordinator.jobs_open"


async def prepare(url: str) -> None:
    """Make the table that is written under fences, and a queue in which keys take turns."""
    async with opened(url) as connection:
        await connection.execute(TABLE)
        await connection.execute("select coordinator.queue_set('default', 'fair', p_fair_by => 'key')")
        await at_once(connection, 5)  # jobs beyond that get their places by the loop of a daemon


async def enqueue(url: str, jobs: int, *, first: int = 0, queues: Sequence[str] = QUEUES) -> set[UUID]:
    """Enqueue jobs in batches, each repeated until it is answered: its keys say which jobs were there already."""
    ids: set[UUID] = set()
    kept = Reopened(url)
    for begin in range(first, first + jobs, BATCH):
        batch = [
            {
                "type": "work",
                "queue": queues[number % len(queues)],
                "key": f"k{number % KEYS}",
                "payload": number,
                "priority": number % 3,
                "max_attempts": 1000,
                "dedupe_key": f"job/{number}",
                "dedupe_for": "1 hour",
                "on_duplicate": "skip",
                "deadline": "1 hour",
            }
            for number in range(begin, min(begin + BATCH, first + jobs))
        ]
        while True:
            try:
                async with kept.lent() as connection:
                    ids |= {row["id"] for row in await connection.fetch(ENQUEUE, batch)}
                break
            except (asyncpg.PostgresError, *LOST) as error:
                if (getattr(error, "sqlstate", "") or "").startswith("ZC"):
                    raise
                await anyio.sleep(0.05)
    kept.close()
    assert len(ids) == jobs
    return ids


class Fleet:
    """Workers and daemons on one database."""

    def __init__(
        self,
        url: str,
        *,
        seed: int,
        ttl_s: float,
        steady: bool = False,
        batch: int = 5,
        program: str = "tests.faults.job_worker",
    ) -> None:
        self.url = url
        self.seed = seed
        self.ttl_s = ttl_s
        self.steady = steady
        self.batch = batch
        self.program = program
        self.choose = random.Random(seed)
        self.workers: dict[str, Forked] = {}
        self.daemons: list[Daemon] = []
        self.befallen: Counter[str] = Counter()
        self.started = 0

    @contextmanager
    def running(self, workers: int = 3, daemons: int = 2) -> Iterator[None]:
        """Run them during the block, and kill them at its end."""
        try:
            self.daemons += [Daemon(self.url) for _ in range(daemons)]
            for _ in range(workers):
                self.start()
            yield
        finally:
            for process in self.workers.values():
                process.kill()
            for process in self.workers.values():
                process.wait()
            for daemon in self.daemons:
                daemon.__exit__(None, None, None)

    def start(self) -> None:
        self.started += 1
        name = f"w{self.started}"
        settings = Settings(self.url, name, self.seed, QUEUES, self.ttl_s, self.batch, self.steady)
        self.workers[name] = Forked(self.program, msgspec.json.encode(settings))

    async def befall(self, faults: Sequence[str], count: int) -> None:
        """Inject this many faults, at random."""
        for _ in range(count):
            fault = self.choose.choice(faults)
            try:
                await getattr(self, fault)()
            except (asyncpg.PostgresError, *LOST):
                await anyio.sleep(0.05)
            self.befallen[fault] += 1
            await anyio.sleep(self.choose.uniform(0, 0.2))

    async def kill(self) -> None:
        name = self.choose.choice(sorted(self.workers))
        worker = self.workers.pop(name)
        worker.kill()
        worker.wait()
        self.start()

    async def stop(self) -> None:
        """Have a worker finish, and start another."""
        name = self.choose.choice(sorted(self.workers))
        worker = self.workers.pop(name)
        worker.send_signal(signal.SIGTERM)
        await until(lambda: worker.poll() is not None, "the worker has stopped")
        assert worker.returncode in (0, -signal.SIGTERM), (
            "it failed; the signal itself ends one that has only just started"
        )
        self.start()

    async def pause(self) -> None:
        """Pause a worker for longer than its agent lives."""
        worker = self.choose.choice(sorted(self.workers.items()))[1]
        worker.send_signal(signal.SIGSTOP)
        try:
            await anyio.sleep(self.ttl_s * 1.5)
        finally:
            worker.send_signal(signal.SIGCONT)

    async def terminate(self) -> None:
        """Terminate half of the backends, whatever they are doing."""
        async with opened(self.url) as connection:
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
                "and pid <> pg_backend_pid() and backend_type = 'client backend' and random() < 0.5"
            )

    async def kill_daemon(self) -> None:
        daemon = self.daemons.pop(self.choose.randrange(len(self.daemons)))
        daemon.__exit__(None, None, None)
        self.daemons.append(Daemon(self.url))

    async def cancel(self) -> None:
        """Cancel a few jobs, whether they wait or run."""
        async with opened(self.url) as connection:
            for row in await connection.fetch("select id from coordinator.jobs_open order by random() limit 3"):
                await connection.execute("select coordinator.job_cancel('default', $1, 'a test')", row["id"])

    async def reshape(self) -> None:
        """Change the policy of a queue, with jobs in it."""
        policy = self.choose.choice(
            ["p_fair_by => 'key'", "p_fair_by => 'none'", "p_ageing => '1 minute'", "p_ageing => '0'"]
        )
        async with opened(self.url) as connection:
            await connection.execute(
                f"select coordinator.queue_set('default', $1, {policy})", self.choose.choice(QUEUES)
            )

    async def restart(self, server: embedded.Server) -> None:
        """Kill the database server, and wait until another one accepts connections."""
        await restart(server, IMMEDIATE)
        self.befallen["restart"] += 1

    async def finished(self) -> None:
        """Wait until no job is open, as long as jobs end."""
        left: int | None = None
        kept = Reopened(self.url)

        async def fewer() -> bool:
            nonlocal left
            for name, worker in self.workers.items():
                assert worker.poll() is None, f"{name} has ended"
            before = left
            try:
                async with kept.lent() as connection:
                    left = await connection.fetchval(OPEN)
            except (asyncpg.PostgresError, *LOST):
                return False
            return left == 0 or before is None or left < before

        while left != 0:
            await until(fewer, "another job has ended", every_s=0.1)
        kept.close()


async def check_ends(url: str, jobs: set[UUID]) -> Counter[str]:
    """Check that each job ended once, as the attempt did that ended it, and that nothing is left; return the statuses."""
    async with opened(url) as connection:
        ended = await connection.fetch("select id, status, fence, result from coordinator.jobs_ended")
        assert {row["id"] for row in ended} == jobs, "a job is missing, or nobody enqueued it"
        assert len(ended) == len(jobs), "a job ended twice"
        told = await connection.fetch(
            "select job::uuid as id, type from coordinator.events, jsonb_array_elements_text(data -> 'ids') job"
            " where type in ('job.completed', 'job.failed', 'job.cancelled', 'job.expired')"
        )
        assert sorted((row["id"], f"job.{row['status']}") for row in ended) == sorted(map(tuple, told))
        for table in ("jobs_open", "jobs_ready", "jobs_later", "jobs_running"):
            assert not await connection.fetchval(f"select count(*) from coordinator.{table}"), table
        # Each write was made under the fence of the newest attempt, and the attempt that ended the job wrote last.
        assert not await connection.fetch(
            "select e.job from (select job, fence, lag(fence) over (partition by job order by n) before from public.effects) e"
            " where fence < before"
        )
        last = dict(await connection.fetch("select job, max(fence) from public.effects group by job"))
        for row in ended:
            if row["status"] == "completed":
                assert row["result"] == {"fence": row["fence"]}
                assert last[row["id"]] == row["fence"]
        asleep = await connection.fetch(
            "select lane_id from coordinator.job_lanes l full join coordinator.job_permits p on p.lane_id = l.id"
            " group by lane_id having count(l.id) <> 1 or count(p.lane_id) <> 1"
        )
        assert not asleep, "a lane has no permit, or two"
    return Counter(row["status"] for row in ended)
