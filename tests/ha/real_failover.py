"""A primary that dies, is paused, or is isolated, under Patroni with synchronous replication: part of ``make operations``.

Two daemons, two sidecars, subscribers and clients of locks work through it. What was acknowledged is in the log once, streams bring exactly
the log, and the history of locks has no token twice. `COORDINATOR_TEST_NOTES` names a file for the seconds without a write.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path

import anyio
import httpx
import pytest

from coordinator.db import schema
from tests.concurrency.lock_fleet import Fleet, prepare
from tests.concurrency.lock_history import grants
from tests.daemon import Daemon, log_of, note, opened
from tests.faults.subscriber import ClientSubscriber, Subscriber
from tests.ha.patroni import Cluster, Node, cluster
from tests.http_client import http_client
from tests.sidecar.conftest import Sidecar
from tests.waiting import until

LAST = "last"
PATIENCE_S = 15  # with a call that gets no answer


@asynccontextmanager
async def killed(running: Cluster, node: Node) -> AsyncIterator[None]:
    node.kill()
    yield
    running.start(node)


@asynccontextmanager
async def paused(running: Cluster, node: Node) -> AsyncIterator[None]:
    """Pause the node. When it continues, it considers itself the primary until its Patroni demotes it, and clients may reach it.

    What its Patroni was about to write to etcd must not arrive: it would take the leader's key from the successor.
    """
    node.send(signal.SIGSTOP)
    yield
    with node.cut_off_from(running.etcd_port):
        node.send(signal.SIGCONT)

        async def demoted() -> bool:
            return not await node.is_primary()

        await until(demoted, "the old primary has stepped down", every_s=0.1)


@asynccontextmanager
async def cut_off(_running: Cluster, node: Node) -> AsyncIterator[None]:
    with node.cut_off():
        yield


FAULTS: dict[str, Callable[[Cluster, Node], AbstractAsyncContextManager[None]]] = {
    "killed": killed,
    "paused": paused,
    "cut off": cut_off,
}


class Writer:
    """Emits events through a daemon or sidecar, one after another, each with a key of its own."""

    def __init__(self, name: str, url: str) -> None:
        self.name = name
        self.url = url
        self.acknowledged: dict[str, float] = {}  # keys, and when the answer came
        self.asked = 0

    async def run(self) -> None:
        async with http_client(self.url) as client:
            while True:
                self.asked += 1
                await self.emit(client, f"{self.name}/{self.asked}")
                await anyio.sleep(0.02)

    async def emit(self, client: httpx.AsyncClient, key: str) -> bool:
        try:
            answer = await client.post("/v1/events/emit", json={"type": "custom.tick", "key": key}, timeout=PATIENCE_S)
        except httpx.HTTPError:
            return False
        if answer.is_success:
            self.acknowledged[key] = time.monotonic()
        else:
            assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE, answer.text
        return answer.is_success

    def since(self, start: float) -> list[float]:
        return [at for at in self.acknowledged.values() if at > start]

    def outage_s(self, start: float, end: float) -> float:
        """Return the longest time without an acknowledged write."""
        instants = [start, *(at for at in self.acknowledged.values() if start < at < end), end]
        return max(after - before for before, after in pairwise(instants))


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder in which users of nodes may look, in memory where there is any."""
    shared = Path("/dev/shm")  # noqa: S108
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        yield Path(name)


@asynccontextmanager
async def processes(running: Cluster) -> AsyncIterator[tuple[list[Daemon], list[Sidecar]]]:
    """Run two daemons, a sidecar on the database, and one on a daemon."""
    async with AsyncExitStack() as stack:
        daemons = [stack.enter_context(Daemon(running.url)) for _ in range(2)]
        for daemon in daemons:
            await daemon.ready()
        sidecars = []
        for url in (running.url, daemons[0].url):
            sidecar = Sidecar(url, "--agent", f"coder-{len(sidecars)}", "--role", "coder", "--ttl", "1h")
            stack.callback(sidecar.close)
            sidecars.append(await sidecar.started())
        yield daemons, sidecars


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_primary_that_fails_loses_nothing(folder: Path, tmp_path: Path, seed: int, fault: str) -> None:
    async with cluster(folder, tmp_path) as running:
        async with opened(running.url) as connection:
            await schema.apply(connection)
        await prepare(running.url)
        fleet = Fleet(running.url, tmp_path, seed=seed)
        async with processes(running) as (daemons, sidecars), anyio.create_task_group() as tasks:
            urls = [each.url for each in (*daemons, *sidecars)]
            writers = [Writer(f"w{number}", url) for number, url in enumerate(urls)]
            readers = [Subscriber(daemon.url, seed + number) for number, daemon in enumerate(daemons)]
            readers += [ClientSubscriber(each.url, seed) for each in sidecars]
            agents = [sidecar.agent for sidecar in sidecars]
            tokens = [await locked(sidecar) for sidecar in sidecars]
            async with anyio.create_task_group() as writing:
                for writer in writers:
                    writing.start_soon(writer.run)
                for reader in readers:
                    tasks.start_soon(reader.run, LAST)
                with fleet.running():
                    await fleet.working()
                    await befall(running, fault, writers)
                writing.cancel_scope.cancel()

            async with http_client(daemons[1].url) as client:
                assert await writers[0].emit(client, LAST)
            # a commit that waits for a standby keeps its locks meanwhile: calls that need them report that the database is busy
            violations = [each for each in await fleet.violations() if not each.endswith("ended with 55P03")]
            assert not violations, violations[:5]
            note("failover: grants, answers", [len(grants(fleet.lines())), len(fleet.lines())])
            for sidecar, agent, token in zip(sidecars, agents, tokens, strict=True):
                assert sidecar.agent == agent
                assert await locked(sidecar) == token, "the lock was kept"

        log = {row["seq"]: row["key"] for row in await log_of(running.url) if row["type"] == "custom.tick"}
        keys = [*log.values()]
        assert len(set(keys)) == len(keys), "nothing was written twice"
        acknowledged = {key for writer in writers for key in writer.acknowledged}
        assert acknowledged <= set(keys), f"lost: {sorted(acknowledged - set(keys))[:5]}"
        for reader in readers:
            assert reader.seen == log


async def locked(sidecar: Sidecar) -> int:
    """Acquire a lock through a sidecar, or learn that its agent has it; return its token."""
    async with http_client(sidecar.url) as client:
        lock = {"resources": [f"held/{sidecar.agent}"], "agent": str(sidecar.agent), "ttl": "1h"}
        answer = await client.post("/v1/locks/acquire", json=lock)
        assert answer.is_success, answer.text
        (held,) = answer.json()["items"]
        assert held["granted"]
        return int(held["fencing_token"])


async def befall(running: Cluster, fault: str, writers: list[Writer]) -> None:
    """Cause the fault at the leader until another one leads and everybody writes again; then wait until it is back."""
    old = await running.leader()
    began = time.monotonic()

    async def written() -> bool:
        return all(len(writer.since(began)) > 20 for writer in writers)

    await until(written, "everybody writes before the fault")
    struck = time.monotonic()
    async with FAULTS[fault](running, old):

        async def succeeded() -> bool:
            return await running.primary() not in (None, old)

        await until(succeeded, "another node leads", every_s=0.1)
        began = time.monotonic()
        await until(written, "everybody writes again")
        end = time.monotonic()
    note(
        f"failover, {fault}: seconds without a write, of each writer", [each.outage_s(struck, end) for each in writers]
    )
    assert await running.leader() is not old
    began = time.monotonic()
    await until(written, "everybody writes beside the node that is back")
