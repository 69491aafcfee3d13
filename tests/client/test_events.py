from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import asyncpg
import pytest

import coordinator
from coordinator import embedded
from coordinator.client import EventStream
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.errors import DatabaseUnavailable, InvalidArgument
from tests.client.conftest import relayed
from tests.waiting import DEADLINE_S, until


async def numbers(stream: EventStream, upto: int) -> list[int]:
    """The numbers in ``custom.tick`` events, up to a limit."""
    got: list[int] = []
    with anyio.fail_after(DEADLINE_S):
        async for event in stream:
            got.append(event.data["number"])
            if event.data["number"] == upto:
                break
    return got


async def test_a_stream_is_filtered_by_project_and_topic(db: Database, database_url: str) -> None:
    async with relayed(db), coordinator.connect(database_url, agent="coder") as client:
        registered = await anext(client.events.stream(topics=["agent.*"], after=None))
        after = registered.cursor
        await client.projects.create("other")
        await client.events.emit("custom.tick", data={"number": 1})
        await client.signals.set("k", 5)
        await client.events.emit("custom.tick", key="x", data={"number": 2})
        assert await numbers(client.events.stream(topics=["custom.*"], after=after), 2) == [1, 2]
        types = []
        async for event in client.events.stream(after=after, everywhere=True):
            types.append((event.project, event.type))
            if event.key == "x":
                break
        assert types == [
            ("other", "project.created"),
            ("default", "custom.tick"),
            ("default", "signal.set"),
            ("default", "custom.tick"),
        ]
        assert [e.actor for e in await client.events.since(after)] == ["coder"] * 3


async def test_a_stream_resumes_from_the_cursor_of_its_last_event(db: Database, database_url: str) -> None:
    async with relayed(db), coordinator.connect(database_url) as client:
        first = client.events.stream(topics=["custom.tick"], after=None)
        for number in range(10):
            await client.events.emit("custom.tick", data={"number": number})
        assert await numbers(first, 4) == [0, 1, 2, 3, 4]
        assert await numbers(client.events.stream(topics=["custom.tick"], after=first.cursor), 9) == [5, 6, 7, 8, 9]
        assert await numbers(first, 9) == [5, 6, 7, 8, 9]


async def test_a_stream_loses_nothing_when_every_connection_is_cut(
    db: Database, database_url: str, root: asyncpg.Connection
) -> None:
    async with relayed(db), coordinator.connect(database_url) as client:
        stream = client.events.stream(topics=["custom.tick"], after=await client.events.head())
        got: list[int] = []
        for cut in range(4):
            for number in range(3):
                await root.execute(
                    "select coordinator.event_emit('default', 'custom.tick', null, $1::text::jsonb)",
                    f'{{"number": {cut * 3 + number}}}',
                )
            got += await numbers(stream, cut * 3 + 2)
            await root.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        assert got == list(range(12))


@pytest.mark.slow
async def test_a_stream_loses_nothing_over_a_restart_of_the_database(data_dir: Path) -> None:
    async with embedded.run(data_dir) as server:
        config = Config(min_connections=1, max_connections=2, call_timeout_s=DEADLINE_S)
        async with (
            Database.open(server.dsn, config) as db,
            relayed(db),
            coordinator.connect(server.dsn, config=config) as client,
        ):
            stream = client.events.stream(topics=["custom.tick"], after=await client.events.head())
            await client.events.emit("custom.tick", data={"number": 1})
            assert await numbers(stream, 1) == [1]
            os.kill(server.pid, signal.SIGQUIT)  # an immediate shutdown; the supervisor starts it again
            with anyio.fail_after(DEADLINE_S):
                while True:
                    try:
                        await client.events.emit("custom.tick", data={"number": 2})
                        break
                    except DatabaseUnavailable:
                        await client.events.head()  # a read waits until the database is back
            got = await numbers(stream, 2)
            assert set(got) == {2}


async def test_a_stream_says_when_events_are_gone(db: Database, database_url: str) -> None:
    async with relayed(db), coordinator.connect(database_url) as client:
        stream = client.events.stream(after="00000000.5")
        with anyio.fail_after(DEADLINE_S):
            event = await anext(stream)
            assert (event.type, event.data["reason"]) == ("reset", "restored")
            await client.events.emit("custom.tick", data={"number": 1})
            assert (await anext(stream)).type == "custom.tick"


async def test_a_stream_with_an_invalid_topic_is_refused_at_its_first_step(database_url: str) -> None:
    async with coordinator.connect(database_url) as client:
        for stream in (client.events.stream(topics=["%"]), client.events.stream(after="yesterday")):
            with pytest.raises(InvalidArgument):
                await anext(stream)


async def test_streams_of_one_client_share_one_listening_connection(
    db: Database, database_url: str, root: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.db.session.PING_S", 3600)  # a ping would be its last statement
    async with relayed(db), coordinator.connect(database_url) as client:
        after = await client.events.head()
        streams = [client.events.stream(topics=["custom.tick"], after=after) for _ in range(20)]
        await client.events.emit("custom.tick", data={"number": 1})
        for stream in streams:
            assert await numbers(stream, 1) == [1]
        listening = "select count(*) from pg_stat_activity where datname = current_database() and query ~* '^listen.*coordinator\"'"
        assert await until(lambda: root.fetchval(listening), "one listens") == 1
