"""The demonstration: a manager and six agents over a source tree, one of them killed; what it promises is checked.

It has a project of its own, deleted at the end unless it is to be kept, and ends every process that it started. What it
tells comes from the events that it followed, compared with the log at the end. It does not take longer than
``LIMIT_S`` seconds: then it says how far it came.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import anyio
import msgspec

from coordinator.client import Client, connect
from coordinator.config import Config
from coordinator.demo import processes, source
from coordinator.demo.board import AGENTS, MANAGER, Board, Settings
from coordinator.demo.manager import SHARES
from coordinator.demo.place import Place, open_place
from coordinator.demo.report import Report, print_report
from coordinator.demo.story import Kill, Received, tell
from coordinator.demo.verdict import deliver, faults, recount
from coordinator.errors import InvalidArgument
from coordinator.model.event import Event
from coordinator.telemetry import logs

__all__ = ["run"]

LIMIT_S = 60.0
PACE_S = 1.5  # an agent takes so long over a share, for people to follow
FINISHED = "custom.demo_finished"
WATCH_S = 0.1
PAGE = 10_000


def run(config: Config, path: Path, *, keep: bool = False) -> int:
    """Demonstrate on a source tree and print a summary; answer with the exit code: 0 if all went as promised, else 1.

    ``keep``: leave the project in the database, and a database of the demonstration's own on disk.

    Raises: ``InvalidArgument`` for a tree that is too small; ``DatabaseUnavailable``; ``ConfigurationError``.
    """
    logs.configure(format=config.log_format, level="error")
    root = path.expanduser().resolve()
    files, more = source.find(root)
    if len(files) < SHARES:
        raise InvalidArgument(
            f"{root} has {len(files)} files; the demonstration divides at least {SHARES} among its agents",
            hint="Give the path of a larger source tree.",
        )
    folder = Path(tempfile.mkdtemp(prefix="coordinator-demo-"))
    try:
        report = anyio.run(_demonstrate, config, root, folder, keep)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
    notes = list(report.notes)
    if more:
        notes.insert(0, f"Only the first {source.FILES_MOST:,} files were taken.")
    if keep:
        own = folder / "data"
        look = f' (look with: coordinator serve --data-dir "{own}")' if own.exists() else ""
        notes.append(f'Kept: project "{report.project}" in {report.place}{look}; logs in {folder}.')
    print_report(msgspec.structs.replace(report, notes=notes))
    return 0 if report.ok else 1


async def _demonstrate(config: Config, root: Path, folder: Path, keep: bool) -> Report:
    began = time.monotonic()
    async with (
        open_place(config, folder) as place,
        _project(place, config, keep) as client,
    ):
        play = Play(client, place, root, folder, await client.events.head())
        await play.run(began + LIMIT_S)
        log = await play.read_log()
        story = tell(play.received, play.kill)
        counted, changed = await anyio.to_thread.run_sync(recount, root, story)
        delivery = deliver(play.received, [e.seq for e in log if e.project == client.project], [e.seq for e in log])
        settled = place.settled_at is not None
        found = [*play.faults, *faults(story, delivery, counted, SHARES, settled=settled)]
        notes = [f"Share {number} was not recounted: its files changed meanwhile." for number in changed]
        return Report(
            ok=not found,
            faults=found,
            notes=notes,
            root=str(root),
            place=place.description,
            project=client.project,
            seconds=round(time.monotonic() - began, 1),
            shares=SHARES,
            accepted=len(story.accepted),
            totals=story.totals,
            agents=sorted(story.parts.values(), key=lambda part: part.agent),
            rejection=story.rejection,
            redirect=story.redirect,
            broadcast=story.broadcast,
            killed=story.killed,
            events=delivery,
        )


@asynccontextmanager
async def _project(place: Place, config: Config, keep: bool) -> AsyncIterator[Client]:
    """Have a project of one's own for as long as the context lasts."""
    project = f"demo-{uuid4().hex[:8]}"
    own = msgspec.structs.replace(config, direct_url=place.direct_url, min_connections=1, max_connections=3)
    async with connect(place.url, project=project, config=own) as client:
        await client.projects.create(project, description="A demonstration; may be deleted.")
        try:
            yield client
        finally:
            if not keep:
                with anyio.move_on_after(5, shield=True):
                    await client.projects.delete(project)


class Play:
    """One run: the processes, and what their follower received."""

    def __init__(self, client: Client, place: Place, root: Path, folder: Path, after: str) -> None:
        self.received: list[Received] = []
        self.kill: Kill | None = None
        self.faults: list[str] = []
        self._client = client
        self._place = place
        self._root = root
        self._folder = folder
        self._after = after
        self._board = Board()
        self._children: dict[str, processes.Child] = {}
        self._busy: set[str] = set()  # with a directive to themselves: they are not killed
        self._broadcast: str | None = None
        self._answered: set[str] = set()
        self._hold_until = max(place.settled_at or 0.0, time.time())

    async def run(self, deadline: float) -> None:
        """Run to the end, or to the deadline; afterwards every process is gone."""
        try:
            with anyio.move_on_after(deadline - time.monotonic()) as limit:
                self._start(deadline)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._follow)
                    await self._watch()
                    await self._client.events.emit(FINISHED)
            if limit.cancelled_caught:
                self.faults.append(f"not finished within {LIMIT_S:g} seconds")
        finally:
            await processes.end(list(self._children.values()))
            _show("")

    async def read_log(self) -> list[Event]:
        """Read what the log holds of all projects, from the beginning to the last event that was received."""
        last = self.received[-1].event.seq if self.received else 0
        log: list[Event] = []
        cursor = self._after
        while page := await self._client.events.since(cursor, everywhere=True, limit=PAGE):
            log += [event for event in page if event.seq <= last]
            cursor = page[-1].cursor
            if page[-1].seq >= last:
                break
        return log

    def _start(self, deadline: float) -> None:
        environment = processes.environment()
        for name in [MANAGER, *(f"agent-{number}" for number in range(1, AGENTS + 1))]:
            settings = Settings(
                url=self._place.url,
                direct_url=self._place.direct_url,
                project=self._client.project,
                name=name,
                root=str(self._root),
                after=self._after,
                hold_until=self._hold_until,
                pace_s=PACE_S,
                limit_s=deadline - time.monotonic(),
            )
            module = f"coordinator.demo.{'manager' if name == MANAGER else 'agent'}"
            child = processes.start(name, [module], self._folder, environment=environment)
            self._children[name] = child
            processes.tell(child, msgspec.json.encode(settings))

    async def _watch(self) -> None:
        """Return when every process has ended, or one has ended that should not have."""
        while True:
            codes = [(child, child.process.poll()) for child in self._children.values()]
            for child, code in codes:
                if code and not (self.kill and child.name == self.kill.agent):
                    self.faults.append(f"{child.name} ended with exit code {code}: {child.tail()}")
                    return
            if all(code is not None for _, code in codes):
                return
            await anyio.sleep(WATCH_S)

    async def _follow(self) -> None:
        async for event in self._client.events.stream(after=self._after):
            self.received.append(Received(event, datetime.now(UTC)))
            if event.type == FINISHED:
                return
            self._board.apply(event)
            self._react(event)
            accepted, taken = len(self._board.accepted()), len(self._board.shares)
            _show(f"{len(self.received)} events · {accepted} of {SHARES} shares accepted, {taken} given out")

    def _react(self, event: Event) -> None:
        """Kill an agent half-way: once everybody has answered the manager, and the server gives agents up."""
        if event.type == "directive.sent" and event.data["to_agent"] is not None:
            self._busy.add(str(event.data["to_agent"]))
        elif event.type == "directive.sent":
            self._broadcast = event.key
        elif event.type == "directive.acknowledged" and event.key == self._broadcast and event.data["status"] == "done":
            self._answered.add(event.actor)
        elif event.type == "custom.share_half_done" and self.kill is None:
            ready = len(self._answered) == AGENTS and time.time() >= self._hold_until
            if ready and event.actor not in self._busy and event.key is not None:
                self._children[event.actor].process.kill()
                self.kill = Kill(event.actor, int(event.key.rpartition("/")[2]), datetime.now(UTC))


def _show(line: str) -> None:
    """Show how far it is, where somebody looks."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
