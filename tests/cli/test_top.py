"""``coordinator top`` on a real database, driven by Textual's pilot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_DNS, uuid5

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from coordinator.cli.top.app import Details, Opener, Question, Top, source_of
from coordinator.cli.top.views import CallsView, EventsView, ViewSource, chain
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.errors import Conflict, DatabaseUnavailable, NotFound
from coordinator.model.lock import LockBlocker
from coordinator.model.server import ServerCalls
from coordinator.operations import agents, events, job_history, jobs, locks
from coordinator.operations.work import RelayStep
from tests.cli.conftest import Program
from tests.daemon import Daemon, opened
from tests.waiting import until

pytestmark = pytest.mark.slow

HOUR, NOT_AT_ALL = timedelta(hours=1), timedelta(0)
HOSTILE = "[red]bold\x1b[2J"


async def acquire(db: Database, resource: str, name: str, *, wait: timedelta | None = None) -> None:
    registered = await db.run(agents.Register(project="default", name=name, ttl=HOUR))
    await db.run(
        locks.Acquire(project="default", resources=[resource], agent=registered.id, ttl=HOUR, wait=wait or NOT_AT_ALL)
    )


@asynccontextmanager
async def screen(db: Database | Opener, interval_s: float = 0.2) -> AsyncIterator[tuple[Top, Pilot[None]]]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[ViewSource]:
        yield ViewSource(db, "default", "tester")  # type: ignore[arg-type]

    top = Top(opened if isinstance(db, Database) else db, "here", interval_s)
    async with top.run_test(size=(140, 40)) as pilot:
        yield top, pilot


def text_of(top: Top, selector: str) -> str:
    return str(top.screen_stack[0].query_one(selector, Static).render())


async def cells(top: Top, name: str) -> list[list[str]]:
    table = top.table(name)
    return [[str(cell) for cell in table.get_row_at(at)] for at in range(table.row_count)]


async def until_rows(top: Top, name: str, condition: Callable[[list[list[str]]], object]) -> list[list[str]]:
    async def look() -> list[list[str]] | None:
        found = await cells(top, name)
        return found or [[]] if condition(found) else None

    return await until(look, f"{name} shows it")


async def until_screen(top: Top, kind: type[Any]) -> Any:
    return await until(
        lambda: top.screen if isinstance(top.screen, kind) and top.screen.is_mounted else None,
        f"{kind.__name__} is shown",
    )


async def test_agents_are_shown_sorted_and_filtered_and_one_is_deregistered(db: Database) -> None:
    for name in ("coder-1", "coder-2", "tester-1", HOSTILE.replace("\x1b", "")):
        await db.run(agents.Register(project="default", name=name, ttl=HOUR))
    async with screen(db) as (top, pilot):
        rows = await until_rows(top, "agents", lambda rows: len(rows) == 4)
        assert [row[0] for row in rows] == sorted(row[0] for row in rows)
        assert any(row[0] == "[red]bold[2J" for row in rows), "no markup"
        assert " see coordinator doctor; default at here: 4 agents" in text_of(top, "#status"), "no daemon leads"
        await pilot.press("r")
        assert [row[0] for row in await cells(top, "agents")] == sorted((row[0] for row in rows), reverse=True)
        await pilot.press("r", "slash", *"coder", "enter")
        await until_rows(top, "agents", lambda rows: [row[0] for row in rows] == ["coder-1", "coder-2"])
        await pilot.press("down", "x")
        question = await until_screen(top, Question)
        assert 'Deregister agent "coder-2"?' in str(question.query_one(Static).render())
        await pilot.press("n")
        assert await db.run(agents.Find(project="default", agent="coder-2"))
        await pilot.press("x")
        await until_screen(top, Question)
        await pilot.press("y")
        await until_rows(top, "agents", lambda rows: [row[0] for row in rows] == ["coder-1"])
        await pilot.press("escape")
        await until_rows(top, "agents", lambda rows: len(rows) == 3)
    with pytest.raises(NotFound):
        await db.run(agents.Find(project="default", agent="coder-2"))


async def test_locks_show_who_waits_and_one_is_broken(db: Database) -> None:
    await acquire(db, "src/a.py", "a")
    await acquire(db, "src/b.py", "b")
    await acquire(db, "src/a.py", "c", wait=HOUR)
    async with screen(db) as (top, pilot):
        await pilot.press("2")
        rows = await until_rows(top, "locks", lambda rows: len(rows) == 2)
        assert [row[:3] for row in rows] == [["src/a.py", "a", "1"], ["src/b.py", "b", "0"]]
        await pilot.press("enter")
        details = await until_screen(top, Details)
        assert "agent            c" in str(details.query_one(Static).render())
        await pilot.press("escape", "3")
        rows = await until_rows(top, "waits", lambda rows: len(rows) == 1)
        assert rows[0][1:] == ["c", "src/a.py", "a (src/a.py)"]
        await pilot.press("2", "x")
        await until_screen(top, Question)
        await pilot.press("y")

        async def passed_on() -> bool:
            return [lock.agent for lock in await db.run(locks.Show(project="default", resource="src/a.py"))] == ["c"]

        await until(passed_on, "the lock went to who waited for it")


async def test_jobs_are_opened_with_their_reason_and_cancelled(db: Database) -> None:
    receipt = await db.run(jobs.Enqueue(project="default", type="build", payload={"n": 1}))
    async with screen(db) as (top, pilot):
        await pilot.press("4")
        rows = await until_rows(top, "jobs", lambda rows: len(rows) == 1)
        assert rows[0][:2] == ["build", "queued"]
        await pilot.press("enter")
        details = await until_screen(top, Details)
        assert "no_worker" in str(details.query_one(Static).render())
        await pilot.press("escape", "x")
        await until_screen(top, Question)
        await pilot.press("y")
        await until_rows(top, "jobs", lambda rows: rows[0][1] == "cancelled")
    assert (await db.run(job_history.Show(project="default", job=receipt.id))).ended_by == "tester"


async def test_events_have_rates_by_type(db: Database) -> None:
    now = 100.0
    view, source = EventsView(lambda: now), ViewSource(db, "default", None)
    assert await view.rows(source) == []
    for n in range(30):
        await db.run(events.Emit(project="default", type=f"custom.{n % 3}", key=str(n)))
    while (await db.run(RelayStep())).again:
        pass
    now += 10.0
    rows = {row.key: row.cells[:4] for row in await view.rows(source)}
    assert rows["custom.0"] == ("custom.0", 1.0, 10, "27")
    now += 100.0
    rows = {row.key: row.cells[:3] for row in await view.rows(source)}
    assert rows["custom.0"] == ("custom.0", 0.0, 10), "the window has passed"
    async with screen(db) as (top, pilot):
        await pilot.press("5")

        async def begun() -> bool:
            await db.run(events.Emit(project="default", type="custom.live"))
            await db.run(RelayStep())
            return any(row[0] == "custom.live" for row in await cells(top, "events"))

        await until(begun, "the event is shown", every_s=0.05)


async def test_every_view_works_through_a_daemon(db: Database, database_url: str) -> None:
    """What a view reads, opens and does has a route, and its answer says the same there."""
    with Daemon(database_url) as daemon:
        await (await daemon.ready()).lead()
        await acquire(db, "src/a.py", "holder")
        await acquire(db, "src/a.py", "waiter", wait=HOUR)
        await db.run(jobs.Enqueue(project="default", type="build", payload=1))
        async with screen(lambda: source_of(daemon.url, Config(), "default", "tester")) as (top, pilot):
            rows = await until_rows(top, "agents", lambda rows: len(rows) == 2)
            assert {row[0] for row in rows} == {"holder", "waiter"}
            assert "default at here: 2 agents, 1 lock, 1 waiting; " in text_of(top, "#status")
            for number, name, count in ((2, "locks", 1), (3, "waits", 1), (4, "jobs", 1), (7, "sizes", 1)):
                await pilot.press(str(number))
                await until_rows(top, name, lambda rows, count=count: len(rows) >= count and rows[0])
                if name in ("locks", "jobs"):  # which read more of a row
                    await pilot.press("enter")
                    await until_screen(top, Details)
                    await pilot.press("escape")
                assert text_of(top, "#message") == ""
            await pilot.press("5")

            async def seen() -> bool:
                await db.run(events.Emit(project="default", type="custom.live"))
                return any(row[0] == "custom.live" for row in await cells(top, "events"))

            await until(seen, "the event is shown", every_s=0.05)
            await pilot.press("6")
            async with opened(database_url) as busy:
                running = asyncio.ensure_future(busy.execute("select pg_sleep(600)"))
                await until_rows(top, "calls", lambda rows: "other" in [row[0] for row in rows if row])
                running.cancel()
                with suppress(asyncio.CancelledError):
                    await running
            await pilot.press("4", "x")
            await until_screen(top, Question)
            await pilot.press("y")
            await until_rows(top, "jobs", lambda rows: rows[0][1] == "cancelled")
            await pilot.press("2", "x")
            await until_screen(top, Question)
            await pilot.press("y")
            await until_rows(top, "locks", lambda rows: [row[1] for row in rows] == ["waiter"])
            await pilot.press("1")
            await until_rows(top, "agents", lambda rows: len(rows) == 2)
            await pilot.press("x")
            await until_screen(top, Question)
            await pilot.press("y")
            await until_rows(top, "agents", lambda rows: len(rows) == 1)
            daemon.kill()
            await until(lambda: text_of(top, "#message") != "", "it says that nobody answers")
            assert len(await cells(top, "agents")) == 1, "what there was stays"


class Answers:
    """Returns one list of calls after the other."""

    def __init__(self, *answers: list[ServerCalls]) -> None:
        self._answers = [*answers]

    async def run(self, _operation: Any) -> Any:
        return self._answers.pop(0)


async def test_calls_have_rates_and_means_where_the_server_counts_them(db: Database) -> None:
    assert await CallsView().rows(ViewSource(db, "default", None)) is not None
    now = 0.0
    view = CallsView(lambda: now)
    before, after = (
        ServerCalls("signal_set", 1, 0.5, calls, seconds) for calls, seconds in ((100.0, 1.0), (300.0, 2.0))
    )
    source = ViewSource(Answers([before], [after], [ServerCalls("signal_set", 0, None, None, None)]), "default", None)  # type: ignore[arg-type]
    assert (await view.rows(source))[0].cells == ("signal_set", 1, 0.5, None, None, None)
    now = 10.0
    assert (await view.rows(source))[0].cells == ("signal_set", 1, 0.5, 20.0, 5.0, 0.1)
    now = 20.0
    assert (await view.rows(source))[0].cells == ("signal_set", 0, None, None, None, None)


def blocker(ticket: int, agent: str, other: str, *, earlier: int | None = None) -> LockBlocker:
    ids = [uuid5(NAMESPACE_DNS, name) for name in (agent, other)]
    return LockBlocker("default", ticket, ids[0], agent, "x", ids[1], other, "y", earlier, "", "")


def test_a_chain_follows_blockers_to_its_end_or_its_cycle() -> None:
    one, two, three = blocker(1, "a", "b"), blocker(2, "b", "c", earlier=1), blocker(3, "c", "a")
    assert chain(one, [one]) == "b (y)"
    assert chain(one, [one, two]) == "b (y) → c (y, waits too)"
    assert chain(one, [one, two, three]) == "b (y) → c (y, waits too) → a (y) → a cycle"
    long = [blocker(n, f"a{n}", f"a{n + 1}") for n in range(20)]
    assert chain(long[0], long).endswith("a10 (y) → …")


async def test_an_error_is_shown_and_what_there_was_stays(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    await db.run(agents.Register(project="default", name="a", ttl=HOUR))
    async with screen(db) as (top, pilot):
        await until_rows(top, "agents", lambda rows: len(rows) == 1)
        away = DatabaseUnavailable("the database is away", hint="Wait.")

        async def fail(_operation: Any) -> Any:
            raise away

        with monkeypatch.context() as patched:
            patched.setattr(db, "run", fail)
            await until(lambda: "the database is away. Wait." in text_of(top, "#message"), "the error is shown")
            assert len(await cells(top, "agents")) == 1
            await pilot.press("enter", "x", "y")
        await until(lambda: text_of(top, "#message") == "", "the error is gone")


async def test_what_cannot_be_done_is_said(db: Database) -> None:
    receipt = await db.run(jobs.Enqueue(project="default", type="build", payload=1))
    async with screen(db) as (top, pilot):
        await pilot.press("4")
        await until_rows(top, "jobs", lambda rows: len(rows) == 1)
        await pilot.press("x")
        await until_screen(top, Question)
        await db.run(jobs.Cancel(project="default", job=receipt.id))
        await pilot.press("y")
        await until(lambda: any(note.severity == "error" for note in top._notifications), "the refusal is shown")
    with pytest.raises(Conflict):
        await db.run(jobs.Cancel(project="default", job=receipt.id))


async def test_it_opens_the_database_of_the_settings(database_url: str) -> None:
    async with source_of(database_url, Config(), "default", None) as source:
        assert await source.run(agents.List) == []


def test_without_a_terminal_or_the_extra_it_says_what_to_do(program: Program) -> None:
    assert "coordinator status" in program.fails(2, "top")["message"]
    broken = program.folder / "broken"
    (broken / "textual").mkdir(parents=True)
    (broken / "textual" / "__init__.py").write_text("raise ModuleNotFoundError('no', name='textual')", "utf-8")
    error = program.fails(78, "top", PYTHONPATH=f"{broken}:{program.environment['PYTHONPATH']}")
    assert 'pip install "coordinatord[top]"' in error["hint"]
