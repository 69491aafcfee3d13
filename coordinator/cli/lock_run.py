"""Runs a command under locks: ``flock`` for a fleet.

Guarantees: as far as this machine can know, the command runs only while the locks are held. They are renewed in the
meantime. If one is lost, or its state is unknown for too long, the command's process group gets SIGTERM, and SIGKILL
after a grace period. Signals are forwarded to the command. The locks are released when the command has ended.

On failure: if this process is killed, so is the command: by its parent-death signal, and by a guard that reads the end
of a pipe and kills the rest of the group. The agent is reaped within 2 seconds, and its locks end. If this process is
paused (SIGSTOP), it cannot end the command; only fencing protects against that.

It deliberately does not fence. The command protects its own writes with the token in its environment
(COORDINATOR_FENCING_TOKEN; by resource: COORDINATOR_FENCING_TOKENS).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import anyio
import msgspec
from msgspec.structs import replace

from coordinator.cli import launcher
from coordinator.cli.invocation import Invocation
from coordinator.cli.report import notice, report
from coordinator.client import Client, Held, LockLost, connect
from coordinator.errors import Conflict, CoordinatorError, NotFound
from coordinator.model.agent_ref import agent_ref
from coordinator.model.lock import Grant, Lock
from coordinator.operations.locks import Acquire
from coordinator.telemetry import logs

__all__ = ["LockRun", "acquire"]

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
LAUNCHER = str(Path(launcher.__file__).resolve())
SILENT_S = 2.0  # a shorter wait is not reported
SHOWN = 3  # holders that a waiting caller is shown
GUARD = 'read -r _ || kill -s KILL -- "-$1"'  # end of file without a line: this process has died


def acquire(call: Invocation, request: Acquire) -> list[Grant]:
    """Acquire locks, and wait for them. SIGTERM and Ctrl-C end the wait."""
    ended = _Ended()
    grants: list[Grant] = []

    async def wait() -> None:
        nonlocal grants
        async with _connected(call, agent=None) as client, anyio.create_task_group() as tasks:
            tasks.start_soon(ended.by_signal, tasks.cancel_scope)
            grants = await client.locks.acquire(
                *request.resources,
                ttl=request.ttl,
                wait=request.wait,
                shared=request.shared,
                slots=request.slots,
                delay=request.delay,
                agent=request.agent,
                request_id=request.request_id,
                owner=request.owner,
            )
            tasks.cancel_scope.cancel()

    anyio.run(wait)
    ended.exit()
    return grants


class LockRun:
    """One run of ``coordinator lock run``."""

    def __init__(self, call: Invocation, name: str | None, command: Sequence[str], grace: timedelta) -> None:
        self._call = call
        self._own_agent = name
        self._name = name or call.config.actor or f"run-{socket.gethostname()[:100]}-{os.getpid()}"
        self._command = command
        self._grace_s = grace.total_seconds()
        self._process: asyncio.subprocess.Process | None = None
        self._told = False  # whether the loss of a lock was reported
        self._ended = _Ended()

    def run(
        self,
        resources: Sequence[str],
        *,
        ttl: timedelta,
        wait: timedelta | None,
        shared: bool,
        slots: int | None,
    ) -> int:
        """Run the command under locks; return its exit code, or 128 plus the number of the signal that ended it.

        Raises: ``Conflict``; ``WaitTimedOut``; ``LockLost`` if the command was ended because a lock was lost.
        """
        if shutil.which(self._command[0]) is None:
            report(
                self._call.config.output,
                name="usage",
                code="usage",
                message=f"command not found: {self._command[0]}",
                hint="Give a program in PATH, or a path such as ./deploy.sh; for a shell's own command, sh -c '…'.",
            )
            return launcher.NOT_FOUND

        code = 0

        async def within() -> None:
            nonlocal code
            saying = anyio.CancelScope()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pass_signals, tasks.cancel_scope)
                async with (
                    _connected(self._call, agent=None if self._outer else self._name) as client,
                    client.lock(
                        *resources,
                        ttl=ttl,
                        wait=wait,
                        shared=shared,
                        slots=slots,
                        on_lost="keep",
                        on_wait=lambda ticket: tasks.start_soon(
                            _say_whom, saying, self._call, client, resources, ticket
                        ),
                        **self._within(),
                    ) as held,
                ):
                    saying.cancel()
                    code = await self._under(held)
                    if held.lost.is_set() and not self._told:
                        held.check()
                tasks.cancel_scope.cancel()

        anyio.run(within)
        self._ended.exit()
        return Conflict.exit_code if self._told else code

    @property
    def _outer(self) -> bool:
        """Whether this runs within another run, as a part of its agent."""
        config = self._call.config
        return self._own_agent is None and None not in (config.agent_id, config.lock_owner)

    def _within(self) -> dict[str, Any]:
        config = self._call.config
        if not self._outer:
            return {}
        return {"agent": agent_ref(config.agent_id or ""), "owner": f"{config.lock_owner}/{uuid4().hex[:8]}"}

    async def _under(self, held: Held) -> int:
        """Run the command while the locks are held."""
        environment = {
            **os.environ,
            "COORDINATOR_AGENT_ID": str(held.handle.agent),
            "COORDINATOR_LOCK_OWNER": held.owner,
            "COORDINATOR_FENCING_TOKEN": str(held.token),
            "COORDINATOR_FENCING_TOKENS": msgspec.json.encode(held.tokens).decode(),
        }
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", LAUNCHER, str(os.getpid()), *self._command),
            env=environment,
            process_group=0,
        )
        with _guarded(process.pid), _terminal_lent(process.pid):
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._end_when_lost, held)
                    code = await process.wait()
                    tasks.cancel_scope.cancel()
            finally:
                if held.lost.is_set() or process.returncode is None:
                    self._signal(signal.SIGKILL)  # also the rest of the group
        return code if code >= 0 else 128 - code

    async def _end_when_lost(self, held: Held) -> None:
        await held.lost.wait()
        self._tell(held)
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        await anyio.sleep(self._grace_s)
        self._signal(signal.SIGKILL)

    def _tell(self, held: Held) -> None:
        """Report at once who took the lock and why; the command may take its time to end."""
        try:
            held.check()
        except LockLost as error:
            self._told = True
            report(
                self._call.config.output,
                name=error.name, code=error.code, message=error.message, hint=error.hint, detail=error.detail,
            )  # fmt: skip

    async def _pass_signals(self, scope: anyio.CancelScope) -> None:
        """Forward signals to the command. Before it starts, a signal ends the wait for the locks."""
        with anyio.open_signal_receiver(*PASSED_ON) as signals:
            async for number in signals:
                if self._process is None:
                    self._ended.number = number
                    scope.cancel()
                self._signal(number)

    def _signal(self, number: int) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)


class _Ended:
    """Whether a signal ended the wait."""

    number: int | None = None

    async def by_signal(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                self.number = number
                scope.cancel()

    def exit(self) -> None:
        if self.number is not None:
            raise SystemExit(128 + self.number)


async def _say_whom(
    waiting: anyio.CancelScope, call: Invocation, client: Client, resources: Sequence[str], ticket: int
) -> None:
    """Unless the wait is short, report whom a ticket waits for, and its place in the queue."""
    holders: list[Lock] = []
    ahead: set[int] = set()
    with waiting, suppress(CoordinatorError):
        await anyio.sleep(SILENT_S)
        for resource in resources:
            with suppress(NotFound):
                holders += await client.locks.show(resource)
            ahead |= {one.ticket for one in await client.locks.waiting(resource) if one.ticket < ticket}
        held = [
            f'agent "{one.agent}" ({one.agent_id}) holds "{one.resource}" until {one.expires_at:%H:%M:%SZ}'
            for one in holders[:SHOWN]
        ]
        queue = f"{len(ahead)} before this one in the queue" if ahead else "next in the queue"
        notice(
            call.config.output,
            message=f"waiting for {', '.join(resources)}: {'; '.join([*held, queue])}",
            holders=holders,
            place=len(ahead) + 1,
            ticket=ticket,
        )


@asynccontextmanager
async def _connected(call: Invocation, agent: str | None) -> AsyncIterator[Client]:
    # The error that ends the command is reported only once.
    logs.configure(format=call.config.log_format, level="critical")
    config = replace(call.config, min_connections=1, max_connections=4)
    async with connect(call.dsn(), project=call.project, agent=agent, config=config) as client:
        yield client


@contextmanager
def _guarded(group: int) -> Iterator[None]:
    """Kill the group if this process is killed."""
    with subprocess.Popen(
        ["/bin/sh", "-c", GUARD, "guard", str(group)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as guard:
        try:
            yield
        finally:
            guard.communicate(b"over\n")


@contextmanager
def _terminal_lent(group: int) -> Iterator[None]:
    """Put the command in the terminal's foreground if this process is there, so that it can read from the terminal."""
    try:
        own = os.getpgrp()
        ours = os.isatty(0) and os.tcgetpgrp(0) == own
    except OSError:
        ours = False
    if not ours:
        yield
        return
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        with suppress(OSError):
            os.tcsetpgrp(0, group)
            os.killpg(group, signal.SIGCONT)  # it may have been stopped by a read
        yield
    finally:
        with suppress(OSError):
            os.tcsetpgrp(0, own)
        signal.signal(signal.SIGTTOU, before)
