"""Start or attach, then keep it so: restart with back-off, take over from a dead owner, stop at the end.

Guarantees: at most one process is owner, and only the owner starts, restarts or stops the server; the lock
is given back only after the server has ended. An attached process is woken by the kernel when the owner
ends.

On failure after the first start: tried again, first at once, then with pauses of up to 30 s, for ever,
except when somebody has to change something (a `ConfigurationError`: the cluster is gone, its files are no
longer ours): then the block of `supervised` is cancelled and the error raised from it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import anyio
import structlog

from coordinator.embedded import account, binaries, cluster, files, processes
from coordinator.embedded.ownership import Ownership, holder
from coordinator.embedded.postmaster import Postmaster
from coordinator.embedded.server import Server, absolute, cluster_dir, find
from coordinator.errors import ConfigurationError, CoordinatorError, DatabaseUnavailable

__all__ = ["supervised"]

ATTACH_TIMEOUT_S = 60.0
CHECK_INTERVAL_S = 1.0  # socket still there? for the attached: lock free, should the kernel not have told us?
PRUNE_INTERVAL_CHECKS = 3600
BACK_OFF_MIN_S = 0.25
BACK_OFF_MAX_S = 30.0
STABLE_AFTER_S = 30.0  # a server that lived so long has earned a restart without a pause
_ATTACH_POLL_S = 0.02

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def supervised(
    data_dir: Path, *, bin_dir: Path | None, settings: Mapping[str, str], runtime_dir: Path | None
) -> AsyncIterator[Server]:
    """Do what `coordinator.embedded.run` says."""
    supervisor = Supervisor(data_dir, bin_dir, settings, runtime_dir)
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
        alone = group.exceptions[0]  # the task group's wrapping is no business of the caller
    finally:
        with anyio.CancelScope(shield=True):
            await supervisor.close()
    if alone is not None:
        raise alone


class Supervisor:
    """The server of one data directory, as this process sees it: owned, or attached to."""

    def __init__(
        self, data_dir: Path, bin_dir: Path | None, settings: Mapping[str, str], runtime_dir: Path | None
    ) -> None:
        self._data_dir = absolute(data_dir)
        self._bin_dir = absolute(bin_dir) if bin_dir else None
        self._settings = settings
        self._runtime_dir = runtime_dir
        self._ownership: Ownership | None = None
        self._postmaster: Postmaster | None = None

    async def open(self) -> Server:
        """Start the server, or attach to the one that runs; wait for its owner to get it ready."""
        files.make_private(self._data_dir)
        with anyio.move_on_after(ATTACH_TIMEOUT_S) as limit:
            while True:
                self._ownership = Ownership.try_acquire(self._data_dir)
                if self._ownership:
                    limit.deadline = float("inf")  # a start has deadlines of its own
                    return await self._start(create=True)
                if server := find(self._data_dir):
                    _log.info("postgres.attached", data_dir=str(self._data_dir), owner_pid=holder(self._data_dir))
                    return server
                await anyio.sleep(_ATTACH_POLL_S)
        raise DatabaseUnavailable(
            f"{self._data_dir} is held by process {holder(self._data_dir)}, whose PostgreSQL is not ready "
            f"after {ATTACH_TIMEOUT_S:.0f} s.",
            hint="Look at that process's log, or end it, or choose another --data-dir.",
        )

    async def watch(self) -> NoReturn:
        """Keep the server running, or wait to take it over, until cancelled."""
        while True:
            if self._ownership is None:
                await self._wait_for_ownership()
            await self._keep_running()

    async def close(self) -> None:
        """Stop an owned server, then give the lock back."""
        try:
            if self._postmaster:
                await self._postmaster.stop()
                _log.info("postgres.stopped", data_dir=str(self._data_dir))
        finally:
            if self._ownership:
                self._ownership.release()

    async def _start(self, *, create: bool) -> Server:
        made = cluster.major(self._data_dir)
        if made is None and not create:
            raise ConfigurationError(
                f"The database cluster in {self._data_dir} is gone.", hint="Restore it, then start again."
            )
        await cluster.remove_unfinished(self._data_dir)
        chosen, runs_as = await self._choose(made)
        if made is None:
            sync = self._settings.get("fsync", "on") != "off"
            await cluster.create(self._data_dir, chosen, runs_as, sync=sync)
        self._postmaster, record = await Postmaster.start(
            self._data_dir, chosen, runs_as, self._settings, runtime_dir=self._runtime_dir
        )
        _log.info("postgres.started", data_dir=str(self._data_dir), version=record.version, pid=record.pid)
        server = record.server(self._data_dir, owned=True)
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
            "PostgreSQL does not run as root, and here root may run it neither in a user namespace nor as "
            "another user.",
            hint="Run the coordinator as an ordinary user.",
            detail="; ".join(refusals),
        )

    async def _wait_for_ownership(self) -> None:
        while self._ownership is None:
            owner = holder(self._data_dir)
            if owner is None:
                await anyio.sleep(CHECK_INTERVAL_S)
            elif await processes.exited(owner, CHECK_INTERVAL_S):
                await anyio.sleep(_ATTACH_POLL_S)  # another one may be faster; its id is in the file then
            self._ownership = Ownership.try_acquire(self._data_dir)
        _log.warning("postgres.taken_over", data_dir=str(self._data_dir))

    async def _keep_running(self) -> None:
        pause_s = 0.0
        while True:
            if self._postmaster is None:
                await anyio.sleep(pause_s)
                pause_s = min(max(pause_s * 2, BACK_OFF_MIN_S), BACK_OFF_MAX_S)
                try:
                    await self._start(create=False)
                except ConfigurationError:
                    raise
                except CoordinatorError as error:
                    _log.warning("postgres.start_failed", retry_s=pause_s, error=error.message, detail=error.detail)
                continue
            started_at = anyio.current_time()
            await self._until_ended(self._postmaster)
            if anyio.current_time() - started_at > STABLE_AFTER_S:
                pause_s = 0.0
            self._postmaster = None

    async def _until_ended(self, postmaster: Postmaster) -> None:
        checks = 0
        while not await postmaster.exited(CHECK_INTERVAL_S):
            checks += 1
            if not postmaster.socket_is_there():
                _log.warning("postgres.socket_lost", socket_dir=str(postmaster.socket_dir))
                await postmaster.stop()
                return
            if checks % PRUNE_INTERVAL_CHECKS == 0:
                cluster.prune_logs(cluster_dir(postmaster.data_dir))
        _log.warning("postgres.exited", pid=postmaster.process.pid, code=postmaster.process.returncode)
