"""Running a command under locks: ``flock`` for a fleet.

Guarantees: the command runs only while the locks are held, as far as this machine can know. They are renewed beside it. When
one is lost, or can no longer be known to be held, the command's whole process group gets SIGTERM, and SIGKILL after a grace.
Signals are passed on to it. The locks are given back when it has ended.

On failure: killed itself, this process takes the command along, by the death signal of its parent and by a guard that reads
the end of a pipe and kills the rest of the group; the agent is reaped within 2 seconds, and the locks with it. Paused itself
(SIGSTOP), it can end nothing until it goes on; only fencing covers that.

It deliberately does not fence: what the command writes elsewhere, it guards with the token in its environment
(COORDINATOR_FENCING_TOKEN; COORDINATOR_FENCING_TOKENS, by resource, where there are several).
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

import anyio
import msgspec
from msgspec.structs import replace

from coordinator.cli import launcher
from coordinator.cli.invocation import Invocation
from coordinator.client import Client, Held, connect
from coordinator.model.lock import Grant
from coordinator.operations.locks import Acquire
from coordinator.telemetry import logs

__all__ = ["Run", "acquire"]

PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
LAUNCHER = str(Path(launcher.__file__).resolve())
GUARD = 'read -r _ || kill -s KILL -- "-$1"'  # an end without a word: this process died


def acquire(call: Invocation, request: Acquire) -> list[Grant]:
    """Acquire locks and wait for them; SIGTERM and Ctrl-C leave the queue."""
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
            )
            tasks.cancel_scope.cancel()

    anyio.run(wait)
    ended.exit()
    return grants


class Run:
    """One run of ``coordinator lock run``."""

    def __init__(self, call: Invocation, name: str | None, command: Sequence[str], grace: timedelta) -> None:
        self._call = call
        self._name = name or call.actor or f"run-{socket.gethostname()[:100]}-{os.getpid()}"
        self._command = command
        self._grace_s = grace.total_seconds()
        self._process: asyncio.subprocess.Process | None = None
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
        """Run the command under locks; the exit code is its own, or 128 and the number of the signal that ended it.

        Raises: ``Conflict``; ``WaitTimedOut``; ``LockLost`` when the command had to be ended.
        """
        if shutil.which(self._command[0]) is None:
            sys.stderr.write(f"error: there is no command {self._command[0]}\n")
            return launcher.NOT_FOUND

        code = 0

        async def within() -> None:
            nonlocal code
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._pass_signals, tasks.cancel_scope)
                async with (
                    _connected(self._call, agent=self._name) as client,
                    client.lock(*resources, ttl=ttl, wait=wait, shared=shared, slots=slots, on_lost="keep") as held,
                ):
                    code = await self._under(held, client.agent.id)
                    if held.lost.is_set():
                        held.check()
                tasks.cancel_scope.cancel()

        anyio.run(within)
        self._ended.exit()
        return code

    async def _under(self, held: Held, agent: object) -> int:
        """Run the command while the locks are held."""
        environment = {
            **os.environ,
            "COORDINATOR_AGENT_ID": str(agent),
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
                    self._signal(signal.SIGKILL)  # what is left of the group, too
        return code if code >= 0 else 128 - code

    async def _end_when_lost(self, held: Held) -> None:
        await held.lost.wait()
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        await anyio.sleep(self._grace_s)
        self._signal(signal.SIGKILL)

    async def _pass_signals(self, scope: anyio.CancelScope) -> None:
        """Pass signals on to the command; before there is one, they end the wait for it."""
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


@asynccontextmanager
async def _connected(call: Invocation, agent: str | None) -> AsyncIterator[Client]:
    logs.configure(format=call.config.log_format, level="error")
    config = replace(call.config, min_connections=1, max_connections=4)
    async with connect(call.dsn(), project=call.project, agent=agent, config=config) as client:
        yield client


@contextmanager
def _guarded(group: int) -> Iterator[None]:
    """See that the group is killed when this process dies without a word."""
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
    """Put the command in the foreground of the terminal, if this process is: else it could not read from it."""
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
            os.killpg(group, signal.SIGCONT)  # it may have tried to read already
        yield
    finally:
        with suppress(OSError):
            os.tcsetpgrp(0, own)
        signal.signal(signal.SIGTTOU, before)
