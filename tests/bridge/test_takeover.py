"""Taking over the databases of recac: SQLite files and PostgreSQL, old and new, again and after an interruption."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from coordinator.bridge import takeover
from coordinator.bridge.bridge import Bridge, project_name
from coordinator.config import Config
from coordinator.config.bridge import BridgeSettings
from coordinator.errors import DatabaseUnavailable
from coordinator.operations import locks, signals
from tests.bridge.conftest import Agent
from tests.daemon import opened

SCHEMA = """
create table observations (
  id integer primary key, project_id text not null, agent_id text not null, content text not null, created_at timestamp);
create table signals (project_id text not null, key text not null, value text, created_at timestamp, primary key (project_id, key));
create table project_features (project_id text primary key, content text not null, updated_at timestamp);
create table project_specs (project_id text primary key, content text not null, updated_at timestamp);
create table file_locks (
  project_id text not null, path text not null, agent_id text not null, lock_type text, created_at timestamp,
  expires_at timestamp not null, primary key (project_id, path));
"""
ROWS = """
insert into observations values (1, 'PROJECT', 'a', 'one', 'EARLIER'), (2, 'PROJECT', 'b', 'two', 'EARLIER'),
  (3, 'PROJECT', 'a', 'three', 'EARLIER'), (4, 'T-PROJECT', 'a', 'elsewhere', 'EARLIER');
insert into signals values ('PROJECT', 'COMPLETED', 'true', 'EARLIER'), ('PROJECT', 'REJECTED', 'no', 'EARLIER'),
  ('PROJECT', 'BLOCKER', null, 'EARLIER');
insert into project_features values ('PROJECT', '{"features": [{"id": "F1"}]}', 'EARLIER');
insert into project_specs values ('PROJECT', '# Spec', 'EARLIER');
insert into file_locks values ('PROJECT', 'src/[a].py', 'a', null, 'EARLIER', '2999-01-01 00:00:00'),
  ('PROJECT', 'old.py', 'a', null, 'EARLIER', 'EARLIER');
"""
DROP = "drop table if exists public.observations, public.signals, public.project_features, public.project_specs, public.file_locks;"


def rows(project: str) -> str:
    return ROWS.replace("PROJECT", project).replace("EARLIER", "2020-01-01 00:00:00")


@pytest.fixture(params=["sqlite", "postgres"])
def old(request: pytest.FixtureRequest, agent: Agent) -> tuple[str, str]:
    """A database of recac, and the id of another project in it."""
    other = f"T-{agent.project}"
    statements = SCHEMA + rows(agent.project)
    if request.param == "sqlite":
        file = agent.folder / "old database?.db"
        fill(file, statements)
        return str(file), other

    async def make() -> None:
        async with opened(agent.database_url) as connection:
            await connection.execute(DROP + statements)

    asyncio.run(make())
    return agent.database_url, other


def fill(file: Path, statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(statements)


def test_a_database_is_taken_over_and_a_repetition_changes_nothing(agent: Agent, old: tuple[str, str]) -> None:
    place, other = old
    done = agent.run("import-database", place)
    assert (done.returncode, done.stdout) == (0, "Imported 10 rows; 0 were there already.\n"), done
    assert done.stderr.splitlines() == [
        "observations: 4 imported, 0 already there",
        "signals: 3 imported, 0 already there",
        "project_features: 1 imported, 0 already there",
        "project_specs: 1 imported, 0 already there",
        "file_locks: 1 imported, 0 already there",
    ]
    assert [agent.signal(key) for key in ("COMPLETED", "REJECTED", "BLOCKER")] == ["true", "no", ""]
    assert agent.ask(signals.Get(project=agent.project, key="COMPLETED")).critical
    assert agent.features() == '{"features": [{"id": "F1"}]}'
    assert agent.says("spec") == "# Spec\n"
    observed = json.loads(agent.says("history"))
    assert sorted((one["agent_id"], one["content"]) for one in observed) == [("a", "one"), ("a", "three"), ("b", "two")]
    assert json.loads(agent.says("history", RECAC_PROJECT_ID=other))[0]["content"] == "elsewhere"
    (held,) = agent.ask(locks.List(project=agent.project))
    assert (held.resource, held.agent) == ("path:src/[a].py", "a")

    agent.says("signal", "BLOCKER", "newer")
    again = agent.run("import-database", place)
    assert again.stdout == "Imported 1 rows; 9 were there already.\n", "the lock was renewed"
    assert agent.signal("BLOCKER") == "newer"
    assert json.loads(agent.says("history")) == observed


def test_early_versions_have_fewer_tables_and_one_project(agent: Agent) -> None:
    file = agent.folder / "early.db"
    fill(
        file,
        """
        create table observations (id integer primary key, agent_id text not null, content text not null, created_at datetime);
        insert into observations values (1, 'a', 'x', null), (2, '', x'ff00', null), (3, 'a' || char(10), 7, null);
        """,
    )
    assert agent.run("import-database", str(file)).stdout == "Imported 3 rows; 0 were there already.\n"
    found = {one["agent_id"]: one["content"] for one in json.loads(agent.says("history"))}
    assert found == {"a": "x", project_name(""): "\ufffd\0", project_name("a\n"): "7"}


def test_a_lock_in_a_sqlite_file_ends_in_the_time_zone_that_recac_wrote(agent: Agent) -> None:
    """Go prints a time with its offset, as the clock on the wall of recac's machine shows it."""

    def go(minutes: int, hours: int) -> str:
        wall = datetime.now(timezone(timedelta(hours=hours))) + timedelta(minutes=minutes)
        return f"{wall:%Y-%m-%d %H:%M:%S.%f}789 {wall:%z} CET m=+0.1"

    ends = {
        "east.py": go(30, +2),
        "east-ended.py": go(-30, +2),
        "west.py": go(30, -8),
        "west-ended.py": go(-30, -8),
        "default.py": f"{datetime.now(UTC) + timedelta(minutes=30):%Y-%m-%d %H:%M:%S}",
        "odd.py": "tomorrow",
        "month.py": "2999-13-01 00:00:00",
    }
    values = [f"('{agent.project}', '{path}', 'a', null, '', '{end}')" for path, end in ends.items()]
    values.append(f"('{agent.project}', 'number.py', 'a', null, '', 7)")
    file = agent.folder / "old.db"
    fill(file, f"{SCHEMA} insert into file_locks values {', '.join(values)};")
    assert agent.run("import-database", str(file)).stdout == "Imported 3 rows; 0 were there already.\n"
    held = {one.resource for one in agent.ask(locks.List(project=agent.project))}
    assert held == {"default.py", "east.py", "west.py"}


def test_what_the_coordinator_refuses_is_reported_and_the_rest_is_taken(agent: Agent) -> None:
    file = agent.folder / "odd.db"
    project = agent.project
    fill(
        file,
        f"""{SCHEMA}
        insert into observations
          select n, '{project}', 'a', case when n = 5 then printf('%.*c', 1100000, 'x') else n end, ''
          from (with recursive s (n) as (select 1 union all select n + 1 from s where n < 9) select n from s);
        insert into signals values ('{project}', 'a' || char(10), '1', ''), ('{project}', 'ok', '1', ''),
          ('{project}', printf('%.*c', 1100000, 'k'), '1', '');
        insert into project_features values ('{project}', 'no json', '');
        """,
    )
    done = agent.run("import-database", str(file))
    assert (done.returncode, done.stdout) == (1, "Imported 9 rows; 0 were there already.\n")
    skipped = [line for line in done.stderr.splitlines() if line.startswith("Skipped: ")]
    assert len(skipped) == 4
    assert max(map(len, skipped)) < 1000, "a name is shown in part"
    assert done.stderr.splitlines()[-1] == "Error: 4 rows were skipped; the lines above say why"
    contents = {one["content"] for one in json.loads(agent.says("history"))}
    assert contents == {str(n) for n in (1, 2, 3, 4, 6, 7, 8, 9)}


def test_an_import_that_was_interrupted_continues(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = agent.folder / "old.db"
    fill(file, SCHEMA + rows(agent.project))
    monkeypatch.setattr(takeover, "BATCH", 1)
    config = Config(database_url=agent.database_url)
    left = 0

    class Interrupted(Bridge):
        async def run(self, operation: Any) -> Any:
            nonlocal left
            if left == 0:
                raise DatabaseUnavailable("gone")
            left -= 1
            return await super().run(operation)

    for calls in range(20):
        left = calls
        bridge = Interrupted(BridgeSettings(config, agent.project, named=True, agent=None))
        try:
            asyncio.run(bridge.perform(takeover.import_database, [str(file)]))
        except DatabaseUnavailable:
            continue
        break
    assert 9 <= calls < 20
    assert "observations: 0 imported, 4 already there" in capsys.readouterr().err
    assert len(json.loads(agent.says("history"))) == 3
    assert agent.signal("COMPLETED") == "true"


def test_what_is_not_a_database_of_recac_is_refused(agent: Agent) -> None:
    (agent.folder / "text.db").write_text("no database" * 100, "utf-8")
    fill(agent.folder / "other.db", "create table t (x)")
    assert "cannot be read as a SQLite database" in agent.refuses("import-database", "text.db")
    assert agent.refuses("import-database", "other.db") == "other.db has none of recac's tables"
    assert "is not the address of a PostgreSQL database" in agent.refuses("import-database", "http://h")
    assert agent.refuses("import-database", "postgresql://u:secret@127.0.0.1:1/x").find("secret") == -1
