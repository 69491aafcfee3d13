"""coordinator.limits is true: each limit is accepted, and the next value rejected with a code and a hint."""

from __future__ import annotations

import ast
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

import coordinator
from coordinator.db import schema
from coordinator.db.connection import connect, mapped_errors
from coordinator.errors import InvalidArgument
from coordinator.model.catalogue import LIMITS
from tests import nouns
from tests.catalogue.test_operations import OPERATIONS
from tests.conftest import Transaction
from tests.waiting import DEADLINE_S

PROGRAM = Path(coordinator.__file__).parent

AGENT = "(select id from coordinator.agents limit 1)"
# The payload is not refused: see the test below. Two are of queues: see the tests of locks. A body is of HTTP. Attempts are counted (also those of webhooks), and
# sessions are deleted in steps and forked, and trees of jobs cancelled in steps: see their tests. A window is not refused, either: see the tests of messages.
ELSEWHERE = {
    "notify_payload",
    "window_bytes",
    "lock_waiters",
    "lock_claim",
    "document_body",
    "log_body",
    "user_attempts",
    "session_delete",
    "session_fork",
    "job_change",
    "webhook_attempts",
}
STEP = {"ttl_min": -0.000001} | dict.fromkeys(["ttl_max", "agent_ttl_max", "lock_ttl_max", "lock_delay_max"], 0.000001)
CASES = [(name, sql) for name, statements in nouns.LIMITS.items() for sql in statements]


async def attempt(tx: Transaction, sql: str, value: float) -> None:
    with mapped_errors():
        async with tx.connection.transaction():
            await tx.connection.fetch(f"select {sql}", value)


@pytest.mark.parametrize(
    ("name", "sql"), CASES, ids=lambda part: re.sub(r"\(.*", "", part).removeprefix("coordinator.")
)
async def test_the_limit_is_accepted_and_the_next_value_rejected_with_a_hint(
    tx: Transaction, name: str, sql: str
) -> None:
    most = await tx.connection.fetchval("select value from coordinator.limits where name = $1", name)
    assert most is not None, f"there is no limit {name}"
    if "directives)" in sql:
        await tx.connection.execute("select coordinator.directive_send('default', 'x', 'a')")
    if "message_window" in sql:
        await tx.connection.execute("select coordinator.message_append('default', 's', '1', 'user')")
    if "coordinator.webhooks)" in sql:
        await tx.connection.execute("select coordinator.webhook_add('default', 'https://example.com/', '{*}')")
    if AGENT in sql:
        await tx.connection.execute("select coordinator.agent_register('default', 'a')")
    before = await tx.events()
    with pytest.raises(InvalidArgument) as raised:
        await attempt(tx, sql, most + STEP.get(name, 1))
    assert raised.value.code.startswith("ZC1")
    assert raised.value.hint
    assert await tx.events() == before, "a refused call changed something"
    await attempt(tx, sql, most)


def test_a_number_that_limits_an_argument_is_a_limit_of_the_same_noun() -> None:
    """A noun is a file or a folder of sql/functions. Other nouns call a check that has the number: check_key, check_page."""
    declared: dict[str, set[int]] = defaultdict(set)
    used: dict[str, set[int]] = defaultdict(set)
    for file in schema.files():
        if file.kind == "functions":
            noun = file.name.split("/")[0]
            for rows in re.findall(r"insert into coordinator\.limits .*?;\n\n", file.text, re.DOTALL):
                declared[noun] |= {int(value) for value in re.findall(r"\('\w+', +(\d+),", rows)}
            used[noun] |= {int(value) for value in re.findall(r"\.check_\w+\([^;]*, (\d+)\);", file.text)}
    assert used["check.sql"]
    assert used["lock"]
    assert {noun: values - declared[noun] for noun, values in used.items() if values - declared[noun]} == {}


async def test_every_limit_is_under_test_and_every_limit_tested_is_documented(tx: Transaction) -> None:
    rows = await tx.connection.fetch("select name from coordinator.limits")
    assert sorted(row["name"] for row in rows) == sorted({*nouns.LIMITS, *ELSEWHERE})


async def test_the_json_limit_counts_a_value_that_comes_compressed_from_a_table(tx: Transaction) -> None:
    await tx.connection.execute(
        "create temporary table big (v jsonb); insert into big select to_jsonb(repeat('x', 1000000))"
    )
    assert await tx.connection.fetchval("select pg_column_size(v) < 262144 from big")
    with pytest.raises(InvalidArgument) as raised:
        await attempt(tx, "coordinator.signal_set('default', 'k', v) from big where $1 > 0", 1)
    assert raised.value.code == "ZC102", raised.value


@pytest.mark.parametrize("surplus", [0, 1])
async def test_an_event_over_the_payload_limit_is_sent_as_a_pointer(database_url: str, surplus: int) -> None:
    """The limit holds for the JSON text of the event without "previous", and the pointer leads to it in the log."""
    heard: list[str] = []
    listener, writer = await connect(database_url), await connect(database_url)
    try:
        most = await writer.fetchval("select value from coordinator.limits where name = 'notify_payload'")
        frame = await writer.fetchval(
            "select 2 + octet_length(coordinator.event_members(epoch, 1, 'custom.x', 'default', null, session_user, now(), '{\"k\": \"\"}',"
            " pg_current_xact_id()::text, false, null)) from coordinator.relay"
        )
        await listener.add_listener("coordinator.default.custom", lambda *heard_: heard.append(heard_[3]))
        text = "x" * (most - frame + surplus)
        await writer.execute("select coordinator.event_emit('default', 'custom.x', p_data => $1)", {"k": text})
        await writer.execute("select coordinator.relay_step()")
        with anyio.fail_after(DEADLINE_S):
            while not heard:
                await listener.execute("select 1")
        (event,) = await writer.fetch("select * from coordinator.events_since()")
        payload: dict[str, Any] = json.loads(heard[0])
        assert event["data"] == {"k": text}
        assert payload["cursor"] == event["cursor"]
        if surplus:
            assert payload == {
                "cursor": event["cursor"], "seq": 1, "type": "custom.x", "project": "default", "pointer": True,
                "previous": 0,
            }  # fmt: skip
        else:
            assert len(heard[0].encode()) == most + len(', "previous": 0')
            assert payload["data"] == event["data"]
    finally:
        await listener.close()
        await writer.close()


# How much the program asks for in one call, where it does not take the limit itself; and the limit that holds.
SIZES = {
    "client/listing.PAGE": "page",
    "operations/log_reader.PAGE": "page",
    "worker/shift.BATCH": "job_claim",
}


def sizes() -> dict[str, int]:
    """The constants of the program that are called a page, a batch or a chunk."""
    found = {}
    for path in PROGRAM.rglob("*.py"):
        for statement in ast.parse(path.read_text("utf-8")).body:
            match statement:
                case ast.Assign([ast.Name(name)], ast.Constant(int(value))) if re.search(r"PAGE|BATCH|CHUNK", name):
                    found[f"{path.relative_to(PROGRAM).with_suffix('')}.{name}"] = value
    return found


def test_no_constant_of_the_program_contradicts_a_limit() -> None:
    found = sizes()
    assert found.keys() == SIZES.keys(), "take the value from coordinator.model.catalogue, or name the limit here"
    for name, limit in SIZES.items():
        assert found[name] <= LIMITS[limit], name


def test_what_an_operation_asks_for_by_default_is_within_the_limit() -> None:
    for kind in OPERATIONS:
        for field in msgspec.structs.fields(kind):
            if field.name == "limit":
                assert 0 < field.default <= LIMITS["page"], kind.function
