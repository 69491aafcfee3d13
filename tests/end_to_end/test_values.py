"""Values that no reader could take, on every interface; and what happens if one is in the log all the same."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import anyio
import asyncpg
import pytest

import coordinator
from coordinator.errors import InvalidArgument
from tests.api.sse import emit, stream
from tests.api.test_operations import post
from tests.api.test_problems import JSON, problem
from tests.cli.conftest import Program
from tests.daemon import Daemon
from tests.http_client import http_client
from tests.waiting import DEADLINE_S, until


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


TOO_DEEP = [65, 900, 970, 1490, 3_000, 100_000]
BAD_NUMBERS = ["1e309", "-1e5000", "1" + "0" * 309, "1" + "0" * 5000, "NaN", "Infinity"]


@pytest.fixture
def program(tmp_path: Path, database_url: str) -> Program:
    return Program(tmp_path, {"COORDINATOR_DATABASE_URL": database_url})


async def test_every_interface_refuses_what_no_reader_could_take(database_url: str, program: Program) -> None:
    with Daemon(database_url) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as http:
            texts = ["[" * levels + "]" * levels for levels in TOO_DEEP] + BAD_NUMBERS
            for text in texts:
                for verb, body in {
                    "signals/set": f'{{"key": "k", "value": {text}}}',
                    "events/emit": f'{{"type": "custom.x", "data": {{"a": {text}}}}}',
                    "agents/register": f'{{"name": "a", "metadata": {{"a": {text}}}}}',
                    "directives/send": f'{{"body": "b", "everyone": true, "data": {{"a": {text}}}}}',
                }.items():
                    headers = {**JSON, "Idempotency-Key": f"{verb} {len(text)}"} if len(text) % 4 else JSON
                    answer = await http.post(f"/v1/{verb}", content=body, headers=headers)
                    assert answer.status_code in (400, 422), (verb, text[:80], answer.text)
                    problem(answer, answer.status_code, answer.json()["type"].rpartition(":")[2])
            assert (await http.get("/v1/signals")).json()["items"] == []
        for url in (database_url, daemon.url):
            async with coordinator.connect(url) as client:
                for value in (*map(nested, TOO_DEEP), math.inf, -math.inf, math.nan, {"a": [1, math.nan]}, 10**309):
                    with pytest.raises(InvalidArgument) as raised:
                        await client.signals.set("k", value)
                    assert raised.value.hint
                await client.signals.set("k", {"null": None, "f": 1.5})
        for text in ("[" * 65 + "]" * 65, "[" * 3_000 + "]" * 3_000, *BAD_NUMBERS[:5]):
            program.fails(5, "signal", "set", "--json", "--", "k", text)
            program.fails(5, "agent", "register", "a", "--metadata", f'{{"a": {text}}}')


BAD_DATA = {
    "json_depth": "jsonb_build_object('value', (repeat('[', 3000) || repeat(']', 3000))::jsonb)",
    "json_number": """'{"value": 1e5000}'::jsonb""",
    "json": "jsonb_build_object('value', repeat('x', 3000000))",
}


async def insert(root: asyncpg.Connection, project: str) -> None:
    """Put events past the checks, in one transaction."""
    async with root.transaction():
        for reason, data in BAD_DATA.items():
            await root.execute(
                "insert into coordinator.events (type, project, key, actor, at, data)"
                f" values ('custom.bad', $1, $2, 'x', now(), {data})",
                project, reason,
            )  # fmt: skip


async def test_a_bad_event_in_the_log_is_replaced_and_nothing_waits_behind_it(
    database_url: str, program: Program
) -> None:
    root = await asyncpg.connect(database_url)
    try:
        with Daemon(database_url) as daemon:
            await daemon.ready()
            async with http_client(daemon.url) as http:
                await post(http, "projects/create", project="a")
                await post(http, "projects/create", project="b")
                async with (
                    stream(http, project="a", topic="custom.*") as own,
                    stream(http, project="b", topic="custom.*") as other,
                ):
                    await own.until("ready")
                    await other.until("ready")
                    await emit(http, "a", "before")
                    await own.events(1)
                    await insert(root, "a")
                    await emit(http, "a", "after")
                    await emit(http, "b", "after")
                    (frame,) = await other.events(1)
                    assert frame.data["key"] == "after"
                    found = [frame.data for frame in await own.events(4)]
                assert [event["key"] for event in found] == [*BAD_DATA, "after"]
                assert [event["data"] for event in found[:3]] == [{"unreadable": reason} for reason in BAD_DATA]
                assert all(event["cursor"] and event["seq"] and event["project"] == "a" for event in found)
                page = (await http.get("/v1/events", params={"project": "a", "after": "start"})).json()["items"]
                assert page[-4:] == found
            for reason in BAD_DATA:
                assert await daemon.metric(f'coordinator_value_unreadable_total{{reason="{reason}"}}') > 0
        with Daemon(database_url) as daemon:
            await daemon.ready()
            async with (
                http_client(daemon.url) as http,
                stream(http, project=["a", "b"], topic="custom.*", after="start") as frames,
            ):
                assert [frame.data["key"] for frame in await frames.events(6)] == [
                    "before",
                    *BAD_DATA,
                    "after",
                    "after",
                ]
            for url in (database_url, daemon.url):
                async with coordinator.connect(url, project="a") as client:
                    keys = []
                    with anyio.fail_after(DEADLINE_S):
                        async for event in client.events.stream(topics=["custom.*"], after=None):
                            keys.append(event.key)
                            if event.key == "after":
                                break
                    assert keys == ["before", *BAD_DATA, "after"]
        tail = program.run("event", "tail", "--project", "a", "--topic", "custom.*")
        assert tail.returncode == 0
        assert [line.split()[-1] for line in tail.stderr.splitlines()] == [*BAD_DATA]  # each by name
        assert [json.loads(line)["key"] for line in tail.stdout.splitlines()] == ["before", *BAD_DATA, "after"]
    finally:
        await root.close()


async def test_a_bad_value_in_a_table_hides_no_other_row(database_url: str, program: Program) -> None:
    root = await asyncpg.connect(database_url)
    try:
        await root.execute(
            "select coordinator.signal_set('default', k, '1') from unnest('{json,json_depth,json_number,z}'::text[]) k"
        )
        for reason, data in BAD_DATA.items():
            await root.execute(f"update coordinator.signals set value = {data} where key = $1", reason)
    finally:
        await root.close()
    expected = {**{reason: {"unreadable": reason} for reason in BAD_DATA}, "z": 1}
    with Daemon(database_url) as daemon:
        await daemon.ready()
        for url in (database_url, daemon.url):
            async with coordinator.connect(url) as client:
                assert {s.key: s.value async for s in client.signals.list()} == expected
    assert {signal["key"]: signal["value"] for signal in program.json("signal", "list")} == expected


@pytest.mark.parametrize(("function", "reason"), [("events_since", "cannot be read"), ("relay_step", "not numbered")])
async def test_a_daemon_without_progress_is_unready_with_the_reason_until_it_makes_progress(
    database_url: str, function: str, reason: str
) -> None:
    root = await asyncpg.connect(database_url)
    try:
        whole = await root.fetchval(f"select pg_get_functiondef('coordinator.{function}'::regproc)")
        head, tag, _ = whole.partition("$function$")
        broken = (
            f"{head}{tag}\nbegin raise exception using errcode = '54000', message = 'broken on purpose'; end\n{tag}"
        )
        with Daemon(database_url, constants={"coordinator.daemon.READY_WITHIN_S": 2.0}) as daemon:
            await daemon.ready()
            async with http_client(daemon.url) as http, stream(http, project="default", topic="custom.*") as reader:
                await reader.until("ready")  # else nothing would be read
                await root.execute(broken)
                await root.execute("select coordinator.signal_set('default', 'k', '1')")
                await root.execute("select pg_notify('coordinator', '')")

                async def unready() -> bool:  # a busy machine may be unready for another reason before
                    said = (await daemon.get("/readyz")).json().get("reason") or ""
                    return reason in said and "broken on purpose" in said

                await until(unready, "it says why it makes no progress")
                await root.execute(whole)
                await until(daemon.is_ready)
    finally:
        await root.close()
