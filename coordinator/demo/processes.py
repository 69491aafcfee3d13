"""Processes of the demonstration: started in sessions of their own, told what to do on standard input, ended for sure.

A process ends when its standard input does, so none outlives the demonstration, however that ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import anyio
import msgspec

from coordinator.client import Client, connect
from coordinator.config import Config
from coordinator.demo.board import Settings
from coordinator.errors import CoordinatorError
from coordinator.telemetry import logs

__all__ = ["Child", "end", "environment", "play", "start", "tell"]

END_S = 12.0  # a daemon drains for 10
TTL_S = 10.0


class Part(Protocol):
    """What a process does."""

    async def run(self) -> None:
        """Do it to the end."""


class Child(msgspec.Struct, frozen=True):
    """A process of ours, and where it writes what went wrong."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        """Give the last thing it wrote that says anything."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        telling = [line.strip(" |+-") for line in lines if any(map(str.isalpha, line))]
        return telling[-1][:500] if telling else "nothing"


def start(name: str, arguments: Sequence[str], folder: Path, *, environment: Mapping[str, str]) -> Child:
    """Start ``python -m …``; its standard input stays open as long as this process lives or ``end`` is called."""
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=environment,
            start_new_session=True,
        )
    return Child(name, process, log)


def tell(child: Child, line: bytes) -> None:
    """Tell a process what to do, in one line; nothing happens where it is gone already."""
    assert child.process.stdin is not None  # noqa: S101 - start made it a pipe
    with suppress(BrokenPipeError):
        child.process.stdin.write(line + b"\n")
        child.process.stdin.flush()


def environment(**settings: str) -> dict[str, str]:
    """Give what a process inherits: everything but this process's own settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COORDINATOR_")}
    for alias in ("DATABASE_URL", "MAX_CONNECTIONS"):
        inherited.pop(alias, None)
    return inherited | settings


async def end(children: Sequence[Child]) -> None:
    """End processes in order, and by force where that takes too long; returns when all are gone."""
    with anyio.CancelScope(shield=True):
        for child in children:
            if child.process.stdin is not None:
                with suppress(BrokenPipeError):
                    child.process.stdin.close()
            if child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        with anyio.move_on_after(END_S):
            for child in children:
                await anyio.to_thread.run_sync(child.process.wait, abandon_on_cancel=True)
        for child in children:
            if child.process.poll() is None:
                child.process.kill()
                child.process.wait()


def play(part: Callable[[Client, Settings], Part], role: str) -> None:
    """Be one process of the demonstration: read the settings, be an agent of that role, do the part."""
    logs.configure(format="json", level="warning")
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=Settings)
    failure = anyio.run(_play, part, role, settings)
    if failure is not None:
        sys.exit(failure)


async def _play(part: Callable[[Client, Settings], Part], role: str, settings: Settings) -> str | None:
    """Do the part; say what went wrong, if anything."""
    config = Config(min_connections=1, max_connections=3, direct_url=settings.direct_url)
    failure: str | None = None
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_alone)
            with anyio.move_on_after(settings.limit_s) as limit:
                async with connect(
                    settings.url, project=settings.project, agent=settings.name, role=role, ttl=TTL_S, config=config
                ) as client:
                    await part(client, settings).run()
            if limit.cancelled_caught:
                failure = "the time is up"
            tasks.cancel_scope.cancel()
    except* CoordinatorError as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        failure = f"{type(first).__name__}: {first}"
    return failure


async def _until_alone() -> None:
    """End this process at once when the demonstration's is gone."""
    while True:
        await anyio.wait_readable(sys.stdin.fileno())
        if not os.read(sys.stdin.fileno(), 4096):
            os._exit(1)
