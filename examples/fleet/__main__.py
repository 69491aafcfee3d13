"""Starts everything, follows the events, kills an agent half-way and tells the outcome; see the package."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import msgspec

import coordinator
from examples.fleet import work
from examples.fleet.board import AGENTS, SHARES, Board
from examples.fleet.outcome import Kill, lines, tell

HERE = Path(__file__).parents[2]
LIMIT_S = 120.0
START_S = 60.0
END_S = 15.0
SETTLES_S = 10.0  # nobody is reaped until PostgreSQL has run for this long
FINISHED = "custom.fleet_finished"
# Runs a command that ends when standard input does: with this process, however it ends.
LEASH = 'exec 3<&0; "$@" & command=$!; (cat <&3 >/dev/null; kill $command) & wait $command'

Start = Callable[..., subprocess.Popen[bytes]]


@contextmanager
def processes(folder: Path) -> Iterator[Start]:
    """Start Python programs that end with this block."""
    config = folder / "coordinator.yaml"
    config.touch()  # so that the configuration of this machine does not count
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COORDINATOR_")}
    environment.pop("DATABASE_URL", None)
    environment |= {"COORDINATOR_CONFIG": str(config), "PYTHONPATH": str(HERE)}
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *program: str) -> subprocess.Popen[bytes]:
        command = ["sh", "-c", LEASH, "sh", sys.executable, "-m", *program]
        with (folder / f"{name}.log").open("wb") as log:
            started.append(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=folder, env=environment,
                    start_new_session=True,
                )
            )  # fmt: skip
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.stdin.close()  # type: ignore[union-attr]
        for process in started:
            try:
                process.wait(END_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


async def daemon(start: Start, folder: Path) -> str:
    """Start a daemon with a PostgreSQL of its own; return the address of the database."""
    process = start(
        "daemon", "coordinator", "serve", "--port", "0", "--data-dir", str(folder / "data"), "--log-format", "json"
    )
    log = folder / "daemon.log"
    with anyio.move_on_after(START_S):
        while process.poll() is None:
            for line in log.read_text().splitlines(keepends=True):
                if line.endswith("\n") and (entry := json.loads(line))["event"] == "daemon.started":
                    words = shlex.split(entry["psql"])
                    return f"postgresql://coordinator@/coordinator?host={words[words.index('-h') + 1]}"
            await anyio.sleep(0.05)
    sys.exit(f"The daemon did not start:\n{log.read_text()}")


class Fleet:
    """The manager and the agents, as this process sees them."""

    def __init__(self, client: coordinator.Client, folder: Path, start: Start) -> None:
        self.events: list[Any] = []
        self.kill: Kill | None = None
        self._client = client
        self._folder = folder
        self._start = start
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def run(self, arguments: tuple[str, ...], after: str, settled_at: float) -> str | None:
        """Run to the end; return what went wrong with the processes, if anything."""
        self._processes["manager"] = self._start("manager", "examples.fleet.manager", *arguments)
        for name in (f"agent-{number}" for number in range(1, AGENTS + 1)):
            self._processes[name] = self._start(name, "examples.fleet.agent", *arguments, name)
        failure = f"not finished within {LIMIT_S:g} seconds"
        with anyio.move_on_after(LIMIT_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._follow, after, settled_at)
                failure = await self._watch()
                await self._client.events.emit(FINISHED)
        return failure

    async def _watch(self) -> str:
        """Wait until every process has ended, or one has failed."""
        running = True
        while running:
            running = any(process.poll() is None for process in self._processes.values())
            for name, process in self._processes.items():  # also when all have ended since the last look
                if process.poll() and not (self.kill and self.kill.agent == name):
                    return f"{name} failed:\n{(self._folder / f'{name}.log').read_text()}"
            await anyio.sleep(0.1 if running else 0)
        return ""

    async def _follow(self, after: str, settled_at: float) -> None:
        board = Board()
        async for event in self._client.events.stream(after=after):
            self.events.append(event)
            board.apply(event)
            if event.type == FINISHED:
                return
            if event.type == "custom.share_half_done" and self.kill is None and time.monotonic() >= settled_at:
                with suppress(ProcessLookupError):
                    os.killpg(self._processes[event.actor].pid, signal.SIGKILL)
                self.kill = Kill(event.actor, int(event.key.rpartition("/")[2]), datetime.now(UTC))
            if sys.stderr.isatty():
                progress = f"{len(self.events)} events, {len(board.accepted())} of {SHARES} shares accepted"
                print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)

    async def missing(self, after: str) -> int:
        """Count the events of the log that did not come, came twice, or came out of order."""
        seqs = [event.seq for event in self.events]
        log: list[int] = []
        while page := await self._client.events.since(after):
            log += [event.seq for event in page]
            after = page[-1].cursor
        return sum(one != other for one, other in zip(seqs, log, strict=False)) + abs(len(log) - len(seqs))


async def main(root: Path, url: str | None, record: Path | None) -> int:
    began, project = time.monotonic(), f"fleet-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="coordinator-fleet-") as name, processes(Path(name)) as start:
        address = url or await daemon(start, Path(name))
        settled_at = began if url else time.monotonic() + SETTLES_S
        async with coordinator.connect(address, project=project) as client:
            await client.projects.create(project, description="A demonstration; may be deleted.")
            try:
                after = await client.events.head()
                fleet = Fleet(client, Path(name), start)
                failure = await fleet.run((address, project, str(root), after), after, settled_at)
                missing = await fleet.missing(after)
            finally:
                with anyio.move_on_after(END_S, shield=True):
                    await client.projects.delete(project)
    if record is not None:
        await anyio.Path(record).write_bytes(msgspec.json.encode(fleet.events))
    outcome = tell(fleet.events, fleet.kill)
    print("\r\x1b[K" if sys.stderr.isatty() else "", end="", file=sys.stderr, flush=True)
    print(*lines(outcome, fleet.kill), f"Events    {len(fleet.events)} received, {missing} missing", sep="\n")
    if failure or missing or not outcome.complete:
        print(f"Failed: {failure or 'not everything was done'}")
        return 1
    print(f"Nothing lost. {time.monotonic() - began:.0f} seconds.")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.fleet", description=__doc__)
    parser.add_argument("path", type=Path, nargs="?", default=Path(), help="the source tree; default: this folder")
    parser.add_argument(
        "--url", help="a database with a running daemon; default: starts both for the time of the demonstration"
    )
    parser.add_argument("--events", type=Path, metavar="FILE", help="write the events to this file, as JSON")
    given = parser.parse_args()
    tree = given.path.expanduser().resolve()
    if len(work.find(tree)) < SHARES:
        parser.error(f"{tree} has fewer than {SHARES} files; give a larger source tree")
    sys.exit(anyio.run(main, tree, given.url, given.events))
