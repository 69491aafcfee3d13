"""This release and the previous one on one database, under load: upgrade, downgrade, restarts, in both orders.

The previous release is the commit that sql/previous.json names. It is taken from git and runs in the same environment, from a folder of its own.
"""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import anyio
import asyncpg
import pytest

from tests.conftest import cloned
from tests.daemon import Daemon, log_of, opened
from tests.generate.previous import PREVIOUS, HistoryMissing, previous, unpack
from tests.upgrade.mixed_load import MixedLoad

# What may be said of the instants in which the schema changes, or in which another daemon is killed.
PASSING = (
    "another transaction held for too long",  # the previous release
    "another transaction blocked this call",
    "the schema was changed during the call",
)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the previous release."""
    try:
        return unpack(json.loads(PREVIOUS.read_text())["commit"], tmp_path_factory.mktemp("previous"))
    except HistoryMissing as error:
        pytest.fail(str(error), pytrace=False)


class Fleet:
    """Daemons of both releases under load. `older` and `newer` start one; `stop` and `kill` end one."""

    def __init__(self, url: str, root: Path, load: MixedLoad, stack: ExitStack) -> None:
        self.load = load
        self._url, self._root, self._stack = url, root, stack
        self.all: list[Daemon] = []

    async def older(self) -> Daemon:
        return await self._started(self._root)

    async def newer(self) -> Daemon:
        return await self._started(None)

    async def _started(self, root: Path | None) -> Daemon:
        daemon = self._stack.enter_context(Daemon(self._url, root=root, schema="apply"))
        await daemon.ready()
        self.all.append(daemon)
        self.load.daemons.append(daemon)
        return daemon

    async def stop(self, daemon: Daemon) -> None:
        self.load.daemons.remove(daemon)
        daemon.send(signal.SIGTERM)
        assert await daemon.ended() == 0

    def kill(self, daemon: Daemon) -> None:
        self.load.daemons.remove(daemon)
        daemon.kill()

    def leader(self) -> Daemon:
        return next(daemon for daemon in self.load.daemons if daemon.leads)

    def judge(self) -> None:
        """Check what the daemons' logs say."""
        for daemon in self.all:
            for event in ("loop.failed", "relay.failed", "gateway.failed", "leader.renew_failed"):
                wrong = [line for line in daemon.lines(event) if not str(line["error"]).startswith(PASSING)]
                assert wrong == []


@pytest.fixture
async def url(server_url: str) -> AsyncIterator[str]:
    async with cloned(server_url, None) as url:
        yield url


@asynccontextmanager
async def fleet_of(url: str, older: Path, seed: int) -> AsyncIterator[Fleet]:
    load = MixedLoad(seed)
    with ExitStack() as stack:
        fleet = Fleet(url, older, load, stack)
        yield fleet
        fleet.judge()
    seqs = [event["seq"] for event in await log_of(url)]
    assert seqs == list(range(1, len(seqs) + 1))
    assert load.seqs == seqs[: len(load.seqs)], "a reader missed or repeated something"
    print(f"{len(seqs)} events, {sum(load.rounds.values())} calls, repeated: {dict(load.busy)}")  # noqa: T201


async def recorded(url: str) -> list[asyncpg.Record]:
    async with opened(url) as connection:
        return await connection.fetch("select kind, name, checksum from coordinator.schema_files order by 1, 2")


async def test_the_file_has_what_the_previous_release_uses(older: Path, url: str, tmp_path: Path) -> None:
    facts = json.loads(PREVIOUS.read_text())
    async with opened(url) as connection:
        assert await previous(connection, facts["commit"], tmp_path) == facts


async def test_an_upgrade_goes_from_daemon_to_daemon(older: Path, url: str, seed: int) -> None:
    async with fleet_of(url, older, seed) as fleet, anyio.create_task_group() as tasks:
        first, second = await fleet.older(), await fleet.older()
        tasks.start_soon(fleet.load.run)
        await fleet.load.worked(first, second)
        third = await fleet.newer()  # applies its schema under those two
        applied = await recorded(url)
        await fleet.load.worked(first, second, third)
        await fleet.stop(first)
        await fleet.load.worked(second, third)
        restarted = await fleet.older()  # one of the old ones is restarted in the middle
        await fleet.load.worked(second, third, restarted)
        fleet.kill(fleet.leader())
        fourth = await fleet.newer()
        await fleet.load.worked(*fleet.load.daemons)
        for daemon in (second, restarted):
            if daemon in fleet.load.daemons:
                await fleet.stop(daemon)
        await fleet.load.worked(fourth)
        assert await recorded(url) == applied, "an older program changed the schema"
        tasks.cancel_scope.cancel()


async def test_a_downgrade_goes_from_daemon_to_daemon_and_back_again(older: Path, url: str, seed: int) -> None:
    async with fleet_of(url, older, seed) as fleet, anyio.create_task_group() as tasks:
        first, second = await fleet.newer(), await fleet.newer()
        applied = await recorded(url)
        tasks.start_soon(fleet.load.run)
        await fleet.load.worked(first, second)
        third = await fleet.older()
        assert (await third.logged("schema.newer"))["program"]
        await fleet.load.worked(first, second, third)
        await fleet.stop(first)
        fleet.kill(second)  # an old one leads, with the loops that it has
        await third.lead()
        fourth = await fleet.older()
        await fleet.load.worked(third, fourth)
        fleet.kill(third)
        fifth = await fleet.newer()
        await fleet.load.worked(fourth, fifth)
        await fleet.stop(fourth)
        await fifth.lead()
        await fleet.load.worked(fifth)
        assert await recorded(url) == applied, "an older program changed the schema"
        tasks.cancel_scope.cancel()
