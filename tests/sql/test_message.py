from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from coordinator.model.json import text_of
from coordinator.model.log import LogEntry
from coordinator.model.operation import JsonText
from coordinator.operations import logs, messages, observations, projects, steps
from tests.conftest import Transaction
from tests.sql.conversation import SHAPES, Message, conversation, entries, left_out, needs, window
from tests.sql.refusal import refused

SESSION = "chat/7"


def raw(text: str) -> JsonText:
    return JsonText(text.encode())


async def append(tx: Transaction, *data: Any, session: str = SESSION) -> None:
    drafts = [{"data": one} for one in data]
    await tx.run(logs.Append(project="default", kind="message", key=session, entries=text_of(drafts)))


async def read(tx: Transaction, session: str = SESSION, **limits: Any) -> list[LogEntry]:
    return await tx.run(messages.Window(project="default", session=session, **limits))


async def seqs(tx: Transaction, **limits: Any) -> list[int]:
    return [message.seq for message in await read(tx, **limits)]


async def needed(tx: Transaction) -> list[int | None]:
    rows = await tx.run(logs.Read(project="default", kind="message", key=SESSION))
    return [row.needs for row in rows]


def use(*ids: str) -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "tool_use", "id": one, "name": "f", "input": {}} for one in ids]}


def result(*ids: str) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": one, "content": "x"} for one in ids]}


async def test_a_message_is_a_role_and_a_content_or_a_whole_one(tx: Transaction) -> None:
    for content, role in (
        ('"Hello"', "user"),
        ('[{"type" :  "text", "n": 1e16}]', "assistant"),
        ('{"role": "system",  "content": "Be kind."}', None),
    ):
        await tx.run(messages.Append(project="default", session=SESSION, content=raw(content), role=role))
    found = await read(tx, last=10)
    assert [message.role for message in found] == ["user", "assistant", "system"]
    assert [bytes(message.text).decode() for message in found] == [
        '{"role": "user", "content": "Hello"}',
        '{"role": "assistant", "content": [{"type" :  "text", "n": 1e16}]}',
        '{"role": "system",  "content": "Be kind."}',
    ]


async def test_tokens_are_those_given_or_one_for_four_bytes(tx: Transaction) -> None:
    first = messages.Append(project="default", session=SESSION, content=raw('"Hello"'), role="user", tokens=7)
    await tx.run(first)
    await tx.run(msgspec.structs.replace(first, tokens=None))
    assert [message.tokens for message in await read(tx, last=10)] == [
        7,
        len('{"role": "user", "content": "Hello"}') // 4,
    ]


async def test_a_repeated_message_with_a_uid_is_appended_once(tx: Transaction) -> None:
    message = messages.Append(
        project="default", session=SESSION, content=raw('"Hello"'), role="user", uid="a", expect=0
    )
    assert (await tx.run(message)).appended == 1
    assert (await tx.run(message)).appended == 0
    await refused(tx, msgspec.structs.replace(message, uid="b"), "ZC301")
    await refused(tx, msgspec.structs.replace(message, content=raw('"Bye"')), "ZC331")


@pytest.mark.parametrize("shape", list(SHAPES))
async def test_windows_of_random_conversations_are_closed_within_budget_and_the_longest(
    tx: Transaction, shape: str, seed: int
) -> None:
    rng = random.Random(seed)
    for number in range(6):
        session = f"{shape}/{number}"
        conversed = conversation(rng, shape, rng.choice([3, 10, 40]))
        await written(tx, session, entries(conversed, shape), rng)
        wanted = needs(conversed, shape)
        rows = await tx.run(logs.Read(project="default", kind="message", key=session))
        assert [row.needs for row in rows] == [min(wants) + 1 if wants else None for wants in wanted]
        for _ in range(8):
            limits = {
                "last": rng.choice([None, 1, 3, 10, 100]),
                "turns": rng.choice([None, None, 1, 2, 5]),
                "tokens": rng.choice([1, 50, 300, 1000]),
            }
            start = window(conversed, wanted, **limits)
            found = await read(tx, session, **limits)
            assert [message.seq - 1 for message in found] == list(range(start, len(conversed))), limits
            whole = await read(tx, session, complete=True, **limits)
            out = left_out(conversed, shape, start)
            assert [message.seq - 1 for message in whole] == [
                at for at in range(start, len(conversed)) if at not in out
            ], limits


@pytest.mark.long
@pytest.mark.parametrize("shape", list(SHAPES))
async def test_windows_of_many_random_conversations(tx: Transaction, shape: str, seed: int) -> None:
    for number in range(60):
        await test_windows_of_random_conversations_are_closed_within_budget_and_the_longest(tx, shape, seed + number)
        await tx.connection.execute("delete from coordinator.entries; delete from coordinator.logs")


async def written(tx: Transaction, session: str, drafts: list[dict[str, Any]], rng: random.Random) -> None:
    """Append in batches of any size."""
    while drafts:
        count = rng.choice([1, 1, 2, 5])
        batch, drafts = drafts[:count], drafts[count:]
        await tx.run(logs.Append(project="default", kind="message", key=session, entries=text_of(batch)))


async def test_parallel_calls_whose_results_come_late_and_in_another_order_stay_whole(tx: Transaction) -> None:
    await append(tx, {"role": "user", "content": "1"}, use("a", "b"), {"role": "user", "content": "3"})
    await append(tx, result("b"), {"role": "user", "content": "5"}, result("a", "b"), {"role": "user", "content": "7"})
    assert await needed(tx) == [None, None, None, 2, None, 2, None]
    assert await seqs(tx, last=4) == [7]
    assert await seqs(tx, last=6) == [2, 3, 4, 5, 6, 7]
    assert await seqs(tx, turns=2) == [7]
    assert await seqs(tx, turns=4) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_call_is_found_however_far_it_is(tx: Transaction) -> None:
    await append(tx, use("far"))
    for _ in range(3):
        await append(tx, *({"role": "user", "content": str(n)} for n in range(400)))
    await append(tx, *(message for n in range(50) for message in (use(f"c{n}"), result(f"c{n}"))))
    await append(tx, result("far"))
    assert (await read(tx, last=1)) == []
    assert (await read(tx, last=1302))[0].seq == 1


async def test_what_follows_reasoning_needs_it_until_somebody_else_speaks(tx: Transaction) -> None:
    reasoning = {"type": "reasoning", "id": "rs_1", "summary": []}
    call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
    other = {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"}
    answer = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]}
    for item in (reasoning, call, other):
        await append(tx, item)
    await append(tx, *({"type": "function_call_output", "call_id": one, "output": "x"} for one in ("c2", "c1")), answer)
    await append(tx, reasoning, answer, {"role": "user", "content": "x"}, answer, reasoning)
    assert await needed(tx) == [None, 1, 1, 3, 2, None, None, 7, None, None, None]
    assert await seqs(tx, last=4) == [9, 10, 11]
    assert await seqs(tx, last=5) == [7, 8, 9, 10, 11]
    assert await seqs(tx, last=10) == [6, 7, 8, 9, 10, 11]
    assert await seqs(tx, last=11, complete=True) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ({"type": "computer_call", "id": "cu_1", "call_id": "c"}, {"type": "computer_call_output", "call_id": "c"}),
        (
            {"type": "custom_tool_call", "call_id": "c", "input": "x"},
            {"type": "custom_tool_call_output", "call_id": "c"},
        ),
        ({"type": "local_shell_call", "call_id": "c"}, {"type": "local_shell_call_output", "id": "c", "output": "x"}),
        ({"type": "shell_call", "call_id": "c"}, {"type": "shell_call_output", "call_id": "c", "output": []}),
        ({"type": "apply_patch_call", "call_id": "c"}, {"type": "apply_patch_call_output", "call_id": "c"}),
        ({"type": "mcp_approval_request", "id": "c"}, {"type": "mcp_approval_response", "approval_request_id": "c"}),
        (
            {"type": "ai", "content": "", "tool_calls": [{"id": "c", "name": "f"}]},
            {"type": "tool", "tool_call_id": "c"},
        ),
        (
            {"type": "ai", "data": {"content": "", "additional_kwargs": {"tool_calls": [{"id": "c"}]}}},
            {"type": "tool", "data": {"tool_call_id": "c"}},
        ),
        (
            {"type": "ai", "data": {"content": "", "additional_kwargs": {"function_call": {"name": "c"}}}},
            {"type": "function", "data": {"name": "c", "content": "x"}},
        ),
        (
            {"type": "ai", "data": {"content": "", "invalid_tool_calls": [{"id": "c", "error": "x"}]}},
            {"type": "tool", "data": {"tool_call_id": "c"}},
        ),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "c", "arguments": {}}}]},
            {"role": "tool", "tool_name": "c", "content": "x"},
        ),
        (
            {"role": "assistant", "content": [{"type": "mcp_tool_use", "id": "c"}]},
            {"role": "user", "content": [{"type": "mcp_tool_result", "tool_use_id": "c"}]},
        ),
    ],
)
async def test_calls_and_results_of_the_known_shapes_belong_together(tx: Transaction, call: Any, answer: Any) -> None:
    await append(tx, {"role": "user", "content": "x"}, call)
    await append(tx, answer)
    assert await needed(tx) == [None, None, 2]
    assert [message.role for message in await read(tx, last=3)] == ["user", "assistant", "tool"]
    assert await seqs(tx, last=1) == []


async def test_a_number_that_jsonb_cannot_have_is_refused(tx: Transaction) -> None:
    for number in ("1e-16384", "1e-99999"):
        content = raw(f'{{"type": "x", "n": {number}}}')
        await refused(tx, messages.Append(project="default", session=SESSION, content=content), "ZC104")


async def test_escaped_names_are_names(tx: Transaction) -> None:
    text = '[{"data": {"role": "assistant", "\\u0074ool_calls": [{"id": "c"}]}}, {"data": {"role": "tool", "t\\u006f\\u006fl_call_id": "\\u0063"}}]'
    await tx.run(logs.Append(project="default", kind="message", key=SESSION, entries=raw(text)))
    assert await needed(tx) == [None, 1]


async def test_what_a_server_did_automatically_needs_nothing(tx: Transaction) -> None:
    content = [{"type": "server_tool_use", "id": "s"}, {"type": "web_search_tool_result", "tool_use_id": "s"}]
    await append(tx, {"role": "assistant", "content": content}, {"type": "web_search_call", "id": "ws_1"})
    assert await seqs(tx, last=2, complete=True) == [1, 2]


async def test_the_writer_says_what_an_entry_of_another_shape_needs(tx: Transaction) -> None:
    await append(tx, {"role": "user", "parts": ["x"]}, {"role": "model", "parts": [{"functionCall": {"name": "f"}}]})
    draft = {"data": {"role": "function", "parts": [{"functionResponse": {"name": "f"}}]}}
    for needed_seq in (-1, 1):
        batch = text_of([{**draft, "needs": needed_seq}])
        await tx.run(logs.Append(project="default", kind="message", key=SESSION, entries=batch))
    assert await needed(tx) == [None, None, 2, 1]
    assert await seqs(tx, last=3) == []
    content = text_of({"role": "model", "parts": []})
    await tx.run(messages.Append(project="default", session=SESSION, content=content, needs=-1))
    assert await seqs(tx, last=2) == []
    for malformed in (0, -6, 6, 7):
        await refused(
            tx, messages.Append(project="default", session=SESSION, content=content, needs=malformed), "ZC104"
        )


async def test_turns_begin_with_a_user_not_with_a_result(tx: Transaction) -> None:
    await append(tx, {"role": "system", "content": "x"}, {"role": "user", "content": "2"}, use("a"), result("a"))
    await append(
        tx, {"type": "human", "data": {"content": "5"}}, {"role": "assistant", "content": "6"}, result("unknown")
    )
    assert await seqs(tx, turns=1) == [5, 6, 7]
    assert await seqs(tx, turns=2) == [1, 2, 3, 4, 5, 6, 7]
    assert await seqs(tx, turns=2, last=6) == [2, 3, 4, 5, 6, 7]
    assert await seqs(tx, turns=2, last=4) == [5, 6, 7]
    assert await seqs(tx, turns=1, complete=True) == [5, 6]


async def test_a_window_ends_with_the_newest_message_and_has_at_most_4_mib(tx: Transaction) -> None:
    long = {"role": "user", "content": "x" * 900_000}
    await append(tx, long, use("a"), {**result("a"), "note": long["content"]}, long)
    await append(tx, long, long, {"role": "user", "content": "last"})
    assert await seqs(tx, last=10) == [2, 3, 4, 5, 6, 7]
    await append(tx, long)
    assert await seqs(tx, last=10) == [4, 5, 6, 7, 8]
    assert await seqs(tx, last=10, turns=3) == [6, 7, 8]


async def test_windows_are_read_past_what_was_popped_and_trimmed(tx: Transaction) -> None:
    await append(tx, {"role": "user", "content": "1"}, use("a"), result("a"), {"role": "user", "content": "4"})
    await tx.connection.execute("delete from coordinator.entries where seq <= 2")
    assert await seqs(tx, last=10) == [4]
    await append(tx, {"type": "reasoning", "id": "rs"})
    await tx.connection.execute("delete from coordinator.entries where seq = 4")
    await append(tx, {"type": "web_search_call", "id": "ws"})
    assert (await needed(tx))[-1] == 5


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (messages.Window(project="default", session="none", last=1), "ZC215"),
        (messages.Window(project="default", session=SESSION), "ZC101"),
        (messages.Window(project="default", session=SESSION, last=0), "ZC104"),
        (messages.Window(project="default", session=SESSION, last=10001), "ZC104"),
        (messages.Window(project="default", session=SESSION, turns=0), "ZC104"),
        (messages.Window(project="default", session=SESSION, tokens=0), "ZC104"),
        (messages.Append(project="default", session=SESSION, content=raw('"x"')), "ZC105"),
        (messages.Append(project="default", session=SESSION, content=raw("[]")), "ZC105"),
        (messages.Append(project="default", session=SESSION, content=raw('"x"'), role=""), "ZC101"),
        (messages.Append(project="default", session="", content=raw('"x"'), role="user"), "ZC101"),
        (messages.Append(project="default", session=SESSION, content=raw('"x"'), role="user", tokens=-1), "ZC104"),
        (steps.Append(project="default", session=SESSION, step=raw('"x"')), "ZC105"),
        (steps.Append(project="default", session=SESSION, step=raw('{"though": 1}')), "ZC101"),
        (
            observations.Append(project="default", content=raw("1"), agent="5c6d032f-ca00-44ad-a17a-cf72f2a0acf7"),
            "ZC202",
        ),
        (observations.Append(project="default", content=raw("1"), agent=""), "ZC101"),
    ],
)
async def test_bad_input_is_refused(tx: Transaction, operation: Any, code: str) -> None:
    await append(tx, {"role": "user", "content": "x"})
    await refused(tx, operation, code)


HOSTILE = [
    "null",
    "5",
    '"x"',
    "[]",
    "{}",
    "[null, 1]",
    '"\\u0000 \\ud800 \\udc00"',
    '{"role": 5, "content": 7, "type": [], "tool_calls": "x", "data": {}, "kwargs": {}, "lc": {}, "metadata": 1}',
    '{"role": "tool", "content": [1, null, [], "x", {"type": 5}], "tool_calls": [1, null, "a", [{}]], "function_call": 5}',
    '{"type": "ai", "data": {"tool_calls": {"id": 1}, "content": {"type": "tool_use"}}}',
    '{"lc": 1, "id": "x", "kwargs": {"content": ["\\ud800"], "tool_call_id": {"\\u0000": 1}}}',
    '{"type": "function_call", "call_id": "\\ud800", "n": 1e-307, "arguments": "\\u0000"}',
    '{"type": "function_call_output", "call_id": null, "output": {"\\udfff": 1e16}}',
    '{"thought": "\\ud800", "action": null, "observation": [1e308, "\\u0000"]}',
    '{"content": "' + "x" * 1_000_000 + '", "type": "x"}',
]


async def test_no_hostile_row_breaks_a_view_or_a_window(tx: Transaction) -> None:
    text = "[" + ", ".join(f'{{"data": {one}}}' for one in HOSTILE) + "]"
    for kind in ("message", "step", "observation"):
        await tx.run(logs.Append(project="default", kind=kind, key=SESSION, entries=raw(text)))
    found = await read(tx, last=100)
    assert [bytes(message.text).decode() for message in found] == HOSTILE
    await read(tx, turns=100, tokens=10**9, complete=True)
    for view in ("messages", "execution_history", "observations"):
        rows = await tx.connection.fetch(f"select * from coordinator.{view} order by split_part(id, '.', 2)::integer")
        assert [row["raw"] or bytes(row["data"]).decode() for row in rows] == HOSTILE
        for row in rows:
            for column in ("tool_calls", "metadata", "action", "observation"):
                json.loads(bytes(row.get(column) or b"null"))


async def test_views_show_messages_of_all_shapes_steps_and_observations(tx: Transaction) -> None:
    for shape in SHAPES.values():
        await append(
            tx,
            shape(Message(role="user", tokens=1, text="hi")),
            shape(Message(role="assistant", tokens=1, calls=("c",), text="")),
            shape(Message(role="tool", tokens=1, results=("c",), text="done")),
        )
    await tx.run(
        messages.Append(
            project="default", session="s2", content=raw('{"role": "user", "content": "x", "metadata": {"a": 1}}')
        )
    )
    rows = await tx.connection.fetch("select * from coordinator.messages where session = $1 order by seq", SESSION)
    assert {row["content"] for row in rows[::3]} == {"hi"}
    assert all("c" in str(row["tool_calls"]) for row in rows[1::3])
    assert all(row["tool_calls"] is None for row in rows[::3])
    assert all("done" in row["content"] for row in rows[2::3])
    assert len({row["id"] for row in rows}) == len(rows)
    metadata = await tx.connection.fetchval("select metadata::text from coordinator.messages where session = 's2'")
    assert metadata == '{"a": 1}'
    step = text_of({"thought": "Look.", "action": {"run": "ls"}, "observation": "a.txt"})
    await tx.run(steps.Append(project="default", session=SESSION, step=step))
    row = await tx.connection.fetchrow(
        "select step_id, thought, action::text, observation::text from coordinator.execution_history"
    )
    assert tuple(row) == (1, "Look.", '{"run":"ls"}', '"a.txt"')
    await tx.run(observations.Append(project="default", content=raw('"Slow."'), agent="coder-1"))
    await tx.run(observations.Append(project="default", content=raw('{"s": 1}'), actor="coder-1"))
    found = await tx.connection.fetch("select agent_id, content, actor from coordinator.observations order by seq")
    assert [tuple(row) for row in found] == [("coder-1", "Slow.", "coder-1"), ("coder-1", '{"s": 1}', "coder-1")]


async def test_conversations_have_the_title_the_number_of_messages_and_the_time_of_the_last_one(
    tx: Transaction,
) -> None:
    await tx.connection.execute("select coordinator.session_create('default', $1, p_title => 'Weather')", SESSION)
    await append(tx, {"role": "user", "content": "1"}, {"role": "assistant", "content": "2"})
    await append(tx, {"role": "user", "content": "3"})
    row = await tx.connection.fetchrow(
        """select title, message_count, last_message_at, c.id = m.session_id as same
           from coordinator.conversations c join coordinator.messages m using (session) where m.seq = 3 and last_message_at = m.created_at"""
    )
    assert row["title"] == "Weather"
    assert (row["message_count"], row["same"]) == (3, True)


async def test_an_observation_of_an_agent_that_is_given_by_its_id_is_kept_under_its_name(tx: Transaction) -> None:
    agent = await tx.connection.fetchval("select id from coordinator.agent_register('default', 'coder-1')")
    receipt = await tx.run(observations.Append(project="default", content=raw('"x"'), agent=str(agent)))
    assert receipt.key == "coder-1"


async def test_a_conversation_of_another_project_is_another_one(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))
    await append(tx, use("a"))
    other = text_of([{"data": result("a")}])
    await tx.run(logs.Append(project="p", kind="message", key=SESSION, entries=other))
    assert [message.needs for message in await tx.run(messages.Window(project="p", session=SESSION, last=5))] == [None]


MANY = 20_000


async def rows_read(tx: Transaction) -> int:
    return int(
        await tx.connection.fetchval(
            "select seq_tup_read + coalesce(idx_tup_fetch, 0) from pg_stat_xact_user_tables where relname = 'entries'"
        )
    )


@pytest.mark.parametrize("analysed", [False, True])
async def test_neither_a_window_nor_an_append_reads_a_long_conversation(tx: Transaction, analysed: bool) -> None:
    await append(tx, use("far"), {"role": "user", "content": "x"})
    await seqs(tx, last=2)  # a plan for a short one
    await tx.connection.execute(
        """insert into coordinator.entries (log_id, seq, role, tokens, epoch, links, actor, created_at, data)
           select l.id, n, 'user', 10, l.epoch, case when n % 100 = 50 then array['+call_' || n] end, 'a', now(), '{"role": "user", "content": "x"}'
           from coordinator.logs l, generate_series(3, $1::integer) n""",
        MANY,
    )
    await tx.connection.execute("update coordinator.logs set last_seq = $1, count = $1", MANY)
    if analysed:
        await tx.connection.execute("analyze coordinator.entries, coordinator.logs")
    for limits, most in (({"last": 20}, 200), ({"turns": 20}, 200), ({"tokens": 200, "complete": True}, 300)):
        before = await rows_read(tx)
        assert len(await read(tx, **limits)) == 20
        assert await rows_read(tx) - before <= most
    before = await rows_read(tx)
    await append(tx, result("far"))
    await append(tx, result("unknown"))
    await append(tx, {"type": "web_search_call", "id": "ws"})
    assert await rows_read(tx) - before <= 1000
    assert (await tx.run(logs.Read(project="default", kind="message", key=SESSION, last=3)))[0].needs == 1
