"""Runs a coding agent whose sessions end with it.

Guarantees: each session that a hook of the command registers belongs to this process. On PostgreSQL, the process holds
a liveness lock, so its sessions are reaped within 2 seconds of its death, with everything that they hold. When the
command ends, its sessions end at once. On Linux, if this program is killed, so are the command and all processes that
it started: see ``ward``.

On failure: while the database does not respond, the command continues. Through a daemon or sidecar, there is no such
lock: if this program dies, its sessions end when their TTL expires.

It does no job control: the command stays in the terminal's process group, and receives the signals of the terminal.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import anyio
from msgspec.structs import replace

from coordinator.cli import launcher, ward
from coordinator.cli.invocation import Invocation
from coordinator.cli.located import located
from coordinator.cli.report import report
from coordinator.client.transport import Transport, open_transport
from coordinator.errors import CoordinatorError
from coordinator.model.page import walk
from coordinator.operations import agents, files
from coordinator.operations.executor import Runner
from coordinator.operations.liveness import Liveness
from coordinator.telemetry import logs

__all__ = ["run"]

PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
OF_THE_TERMINAL = (signal.SIGINT, signal.SIGQUIT)  # the command receives them as well
STARTER = str(Path(ward.__file__ if sys.platform == "linux" else launcher.__file__).resolve())
END_S = 5.0


def run(call: Invocation, command: Sequence[str]) -> int:
    """Run a command; return its exit code, or 128 plus the number of the signal that ended it.

    Raises: ``DatabaseUnavailable``; ``ConfigurationError``.
    """
    if shutil.which(command[0]) is None:
        report(
            call.config.output,
            name="usage",
            code="usage",
            message=f"command not found: {command[0]}",
            hint="Give a program in PATH, or a path such as ./agent.",
        )
        return launcher.NOT_FOUND
    logs.configure(format=call.config.log_format, level="critical")  # the terminal belongs to the command
    config = replace(call.config, min_connections=1, max_connections=1)
    project = located(call, Path.cwd()).project

    async def within() -> int:
        async with open_transport(call.dsn(), config) as transport, _process(transport) as process:
            code = await _command(command, process)
            with (
                anyio.move_on_after(END_S),
                suppress(CoordinatorError),
            ):  # otherwise, the liveness lock ends the sessions
                await _end(transport.executor, project, process)
            return code

    return anyio.run(within)


@asynccontextmanager
async def _process(transport: Transport) -> AsyncIterator[str]:
    """Yield what identifies this process: on PostgreSQL, the number whose liveness lock is held within the context."""
    if transport.session is None:
        yield f"run-{uuid4().hex}"
        return
    session = transport.session()
    liveness = Liveness(session, "client")
    async with session.kept():
        yield str(liveness.process)


async def _command(command: Sequence[str], process: str) -> int:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", STARTER, str(os.getpid()), *command),
        env={**os.environ, "COORDINATOR_PROCESS": process},
    )

    async def signals() -> None:
        with anyio.open_signal_receiver(*PASSED_ON, *OF_THE_TERMINAL) as received:
            async for number in received:
                if number in PASSED_ON:
                    with suppress(ProcessLookupError):
                        child.send_signal(number)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(signals)
        code = await child.wait()
        tasks.cancel_scope.cancel()
    return code if code >= 0 else 128 - code


async def _end(executor: Runner, project: str, process: str) -> None:
    """End the sessions of this process."""
    async for page in walk(executor.run, agents.List(project=project)):
        for agent in page:
            if agent.metadata.get("process") == process:
                await executor.run(files.Leave(project=project, agent=str(agent.id), end=True))
