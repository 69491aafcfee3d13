"""Starts the server or attaches to it, restarts it, takes it over from a dead owner, and stops it at the end.

At most one process is the owner. Only the owner starts, restarts or stops the server, and it releases the lock only
after the server has ended. The kernel wakes an attached process when the owner ends.

If a restart fails, the supervisor tries again at once, and then with pauses of up to 30 seconds. A ``ConfigurationError``
ends the block instead, because somebody has to act: the cluster is gone, or its files belong to somebody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, NoReturn

import anyio
import structlog

from coordinator.backoff import Backoff
from coordinator.embedded import account, binaries, cluster, files, ownership, processes
from coordinator.embedded.postmaster import Postmaster
from coordinator.embedded.server import Server, absolute, cluster_dir, find
from coordinator.errors import ConfigurationError, CoordinatorError, DatabaseUnavailable

__all__ = ["supervised"]

ATTACH_TIMEOUT_S = 60.0
CHECK_INTERVAL_S = 1.0  # of the socket, and of the lock, in case the kernel did not report the owner's end
PRUNE_INTERVAL_CHECKS = 3600
BACKOFF_FIRST_S = 0.25
BACKOFF_MAX_S = 30.0
STABLE_AFTER_S = 30.0  # a server that ran this long is restarted without a wait
_ATTACH_POLL_S = 0.02

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def supervised(data_dir: Path, bin_dir: Path | None, settings: Mapping[str, str]) -> AsyncIterator[Server]:
    """Implement ``coordinator.embedded.run``."""
    supervisor = Supervisor(data_dir, bin_dir, settings)
    alone: BaseException | None = None
    try:
        server = await supervisor.open()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(supervisor.watch)
            yield server
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        if len(group.exceptions) > 1:
            raise
        alone = group.exceptions[0]  # callers expect no exception group
    finally:
        with anyio.CancelScope(shield=True):
            await supervisor.close()
    if alone is not None:
        raise alone


class Supervisor:
    """The server of one data directory, as this process sees it: owned, or attached to."""

    def __init__(self, data_dir: Path, bin_dir: Path | None, settings: Mapping[str, str]) -> None:
        self._data_dir = absolute(data_dir)
        self._bin_dir = absolute(bin_dir) if bin_dir else None
        self._settings = settings
        self._lock: IO[str] | None = None
        self._postmaster: Postmaster | None = None

    async def open(self) -> Server:
        """Start the server, or attach once its owner has made it ready."""
        with files.errors_named(self._data_dir):
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with anyio.move_on_after(ATTACH_TIMEOUT_S) as limit:
            while True:
                self._lock = ownership.try_acquire(self._data_dir)
                if self._lock:
                    limit.deadline = float("inf")  # a start has its own deadlines
                    return await self._start(create=True)
                if server := find(self._data_dir):
                    owner = ownership.holder(self._data_dir)
                    _log.info("postgres.attached", data_dir=str(self._data_dir), owner_pid=owner)
                    return server
                await anyio.sleep(_ATTACH_POLL_S)
        raise DatabaseUnavailable(
            f"{self._data_dir} is held by process {ownership.holder(self._data_dir)}, whose PostgreSQL is not ready "
            f"after {ATTACH_TIMEOUT_S:.0f} seconds",
            hint="Read that process's log, or end it, or choose another --data-dir.",
        )

    async def watch(self) -> NoReturn:
        """Keep an owned server running, or wait to take it over, until cancelled."""
        while True:
            if self._lock is None:
                await self._wait_for_lock()
            await self._keep_running()

    async def close(self) -> None:
        """Stop an owned server, then release the lock."""
        try:
            if self._postmaster:
                await self._postmaster.stop()
                _log.info("postgres.stopped", data_dir=str(self._data_dir))
        finally:
            if self._lock:
                self._lock.close()

    async def _start(self, *, create: bool) -> Server:
        made = cluster.major(self._data_dir)
        if made is None and not create:
            raise ConfigurationError(
                f"the database cluster in {self._data_dir} is gone", hint="Restore it, then start again."
            )
        await cluster.remove_unfinished(self._data_dir)
        chosen, runs_as = await self._choose(made)
        if made is None:
            sync = self._settings.get("fsync", "on") != "off"
            await cluster.create(self._data_dir, chosen, runs_as, sync=sync)
        self._postmaster, server = await Postmaster.start(self._data_dir, chosen, runs_as, self._settings)
        _log.info("postgres.started", data_dir=str(self._data_dir), version=server.version, pid=server.pid)
        if newer := server.upgrade:
            _log.warning("postgres.outdated", version=newer.version, newest=newer.newest, upgrade=newer.command)
        return server

    async def _choose(self, made: int | None) -> tuple[binaries.Binaries, account.Account]:
        existing = self._data_dir if made is None else cluster_dir(self._data_dir)
        refusals = []
        for runs_as in account.candidates(existing, new=made is None):
            try:
                return await binaries.choose(runs_as, home=existing, bin_dir=self._bin_dir, major=made), runs_as
            except binaries.AccountRefused as refusal:
                refusals.append(str(refusal))
        raise ConfigurationError(
            "PostgreSQL refuses to run as root, and here root can run it neither in a user namespace nor as another user",
            hint="Run the coordinator as an ordinary user.",
            detail="; ".join(refusals),
        )

    async def _wait_for_lock(self) -> None:
        while self._lock is None:
            owner = ownership.holder(self._data_dir)
            if owner is None:
                await anyio.sleep(CHECK_INTERVAL_S)
            elif await processes.exited(owner, CHECK_INTERVAL_S):
                await anyio.sleep(_ATTACH_POLL_S)  # another process may be faster, and write its id
            self._lock = ownership.try_acquire(self._data_dir)
        _log.warning("postgres.taken_over", data_dir=str(self._data_dir))

    async def _keep_running(self) -> None:
        backoff = Backoff(BACKOFF_FIRST_S, BACKOFF_MAX_S)
        at_once = True
        while True:
            if self._postmaster is None:
                if not at_once:
                    await backoff.wait()
                at_once = False
                try:
                    await self._start(create=False)
                except ConfigurationError:
                    raise
                except CoordinatorError as error:
                    _log.warning(
                        "postgres.start_failed", retry_s=backoff.next_s, error=error.message, detail=error.detail
                    )
                continue
            started_at = anyio.current_time()
            await self._until_ended(self._postmaster)
            if anyio.current_time() - started_at > STABLE_AFTER_S:
                backoff.reset()
                at_once = True
            self._postmaster = None

    async def _until_ended(self, postmaster: Postmaster) -> None:
        checks = 0
        while not await postmaster.exited(CHECK_INTERVAL_S):
            checks += 1
            if not postmaster.has_socket():
                _log.warning("postgres.socket_lost", socket_dir=str(postmaster.socket_dir))
                await postmaster.stop()
                return
            if checks % PRUNE_INTERVAL_CHECKS == 0:
                cluster.prune_logs(cluster_dir(postmaster.data_dir))
        _log.warning("postgres.exited", pid=postmaster.process.pid, code=postmaster.process.returncode)
