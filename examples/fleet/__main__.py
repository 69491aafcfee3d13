"""Starts everything, follows the events, kills a coder and restarts the daemon half-way, and shows the outcome; see the package."""

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
from pathlib import Path
from typing import Any

import anyio
import msgspec

import coordinator
from coordinator.errors import CoordinatorError
from examples.fleet import outcome, work
from examples.fleet.outcome import Message
from examples.fleet.work import CODERS, HALF_DONE, PASSED, SHARES

HERE = Path(__file__).parents[2]
LIMIT_S = 300.0
START_S = 60.0
END_S = 15.0
RESTART_AT = SHARES // 2  # half of the shares are done
FINISHED = "custom.fleet_finished"
# Runs a command that ends when standard input closes: together with this process, however it ends.
LEASH = 'exec 3<&0; "$@" & command=$!; (cat <&3 >/dev/null; kill $command) & wait $command'

Start = Callable[..., subprocess.Popen[bytes]]


@contextmanager
def processes(folder: Path) -> Iterator[Start]:
    """Start Python programs that end with this block."""
    config = folder / "coordinator.yaml"
    config.touch()  # an empty file, so that the configuration of this machine does not apply
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


class Daemon:
    """A daemon with its own PostgreSQL, which can be restarted."""

    def __init__(self, start: Start, folder: Path) -> None:
        self._start = start
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    async def start(self) -> str:
        """Start it; return the address of the database."""
        self._starts += 1
        name = f"daemon-{self._starts}"
        data = str(self._folder / "data")
        self._process = self._start(
            name, "coordinator", "serve", "--port", "0", "--data-dir", data, "--log-format", "json"
        )
        log = self._folder / f"{name}.log"
        with anyio.move_on_after(START_S):
            while self._process.poll() is None:
                for line in log.read_text().splitlines(keepends=True):
                    if line.endswith("\n") and (entry := json.loads(line))["event"] == "daemon.started":
                        words = shlex.split(entry["psql"])
                        return f"postgresql://coordinator@/coordinator?host={words[words.index('-h') + 1]}"
                await anyio.sleep(0.05)
        sys.exit(f"The daemon did not start:\n{log.read_text()}")

    async def restart(self) -> None:
        """Stop the daemon and its PostgreSQL in order, and start both again on the same data."""
        if self._process is not None:
            self._process.stdin.close()  # type: ignore[union-attr]
            await anyio.to_thread.run_sync(self._process.wait)
        await self.start()


class Fleet:
    """The manager, the coders and QA, from the point of view of this process."""

    def __init__(self, client: coordinator.Client, folder: Path, start: Start, daemon: Daemon | None = None) -> None:
        self.events: list[Any] = []
        self.killed: str | None = None
        self.before: list[Message] = []  # messages from before the restart
        self.restarted = False
        self._client = client
        self._folder = folder
        self._start = start
        self._daemon = daemon
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    async def run(self, url: str, project: str, root: str, after: str) -> str | None:
        """Run to the end; return the errors of the processes, if any."""
        where = (url, project, root)
        self._processes["manager"] = self._start("manager", "examples.fleet.manager", *where)
        for name in (f"coder-{number}" for number in range(1, CODERS + 1)):
            self._processes[name] = self._start(name, "examples.fleet.coder", *where, name)
        self._processes["qa-1"] = self._start("qa-1", "examples.fleet.qa", *where, "qa-1")
        failure = f"not finished within {LIMIT_S:g} seconds"
        with anyio.move_on_after(LIMIT_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._follow, after)
                failure = await self._watch()
                if failure:
                    tasks.cancel_scope.cancel()
                await self._client.events.emit(FINISHED)
        return failure

    async def _watch(self) -> str:
        """Wait until the manager has signed off, or a process has failed."""
        while True:
            signed_off = self._processes["manager"].poll() == 0
            for name, process in self._processes.items():
                if process.poll() is not None and name != self.killed and (name != "manager" or process.poll()):
                    return f"{name} failed:\n{(self._folder / f'{name}.log').read_text()}"
            if signed_off:
                return ""
            await anyio.sleep(0.1)

    async def _follow(self, after: str) -> None:
        half_done = passed = 0
        async for event in self._client.events.stream(after=after):
            self.events.append(event)
            passed += event.type == "signal.set" and event.key.endswith(PASSED)
            half_done += event.type == HALF_DONE
            if event.type == FINISHED:
                return
            if half_done == RESTART_AT and self.killed is None:
                await self._trouble(event.actor)
            if sys.stderr.isatty():
                progress = f"{len(self.events)} events, {passed} of {SHARES} shares passed"
                print(f"\r\x1b[K{progress}", end="", file=sys.stderr, flush=True)

    async def _trouble(self, coder: str) -> None:
        """Kill a coder in the middle of a share, and restart the daemon."""
        self.killed = coder
        with suppress(ProcessLookupError):
            os.killpg(self._processes[coder].pid, signal.SIGKILL)
        if self._daemon:
            self.before = await outcome.conversation(self._client)
            await self._daemon.restart()
            self.restarted = True

    async def missing(self, after: str) -> int:
        """Count events of the log that were missing, repeated or out of order."""
        seqs = [event.seq for event in self.events]
        log: list[int] = []
        while page := await self._client.events.since(after):
            log += [event.seq for event in page]
            after = page[-1].cursor
        return sum(one != other for one, other in zip(seqs, log, strict=False)) + abs(len(log) - len(seqs))


async def main(root: Path, url: str | None, record: Path | None) -> int:
    began, project = time.monotonic(), f"fleet-{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="coordinator-fleet-") as name, processes(Path(name)) as start:
        own = None if url else Daemon(start, Path(name))
        address = url or await own.start()  # type: ignore[union-attr]
        async with coordinator.connect(address, project=project) as client:
            await client.projects.create(project, description="A demonstration; may be deleted.")
            try:
                after = await client.events.head()
                fleet = Fleet(client, Path(name), start, own)
                failure = await fleet.run(address, project, str(root), after)
                missing = await fleet.missing(after)
                found = await outcome.read(client)
            finally:
                with anyio.move_on_after(END_S, shield=True):
                    await client.projects.delete(project)
    kept = found.messages[: len(fleet.before)] == fleet.before
    if record is not None:
        state = {"outcome": found, "before": fleet.before, "restarted": fleet.restarted, "killed": fleet.killed}
        await anyio.Path(record).write_bytes(msgspec.json.encode({**state, "missing": missing}))
    print("\r\x1b[K" if sys.stderr.isatty() else "", end="", file=sys.stderr, flush=True)
    print(*outcome.lines(found), sep="\n")
    print(f"Killed    {fleet.killed or 'nobody'} in the middle of a share; another coder finished it")
    if fleet.restarted:
        print(
            f"Restarted the daemon and its PostgreSQL after {len(fleet.before)} messages; {'all are still there' if kept else 'SOME ARE LOST'}"
        )
    print(f"Events    {len(fleet.events)} received, {missing} missing")
    if failure or missing or not kept or not found.complete or not fleet.killed:
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
    parser.add_argument("--record", type=Path, metavar="FILE", help="write the state at the end to this file, as JSON")
    given = parser.parse_args()
    tree = given.path.expanduser().resolve()
    if len(work.find(tree)) < SHARES:
        parser.error(f"{tree} has fewer than {SHARES} files; give a larger source tree")
    try:
        sys.exit(anyio.run(main, tree, given.url, given.record))
    except CoordinatorError as error:
        sys.exit(f"{error}\n{error.hint or error.remedy}")
    except KeyboardInterrupt:
        sys.exit(130)
