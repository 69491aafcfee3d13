from __future__ import annotations

import json

from tests.cli.conftest import Program


def test_messages_are_appended_listed_and_windowed(program: Program) -> None:
    assert program.json("message", "append", "chat/7", "--role", "user", "42", "--tokens", "7")["last_seq"] == 1
    call = '{"role": "assistant", "content":  null, "tool_calls": [{"id": "c"}]}'
    for shown in ("chat/7 is at message 2\n", "it is there already, as message 2\n"):
        assert program.text("message", "append", "chat/7", call, "--uid", "a") == shown
    result = b'{"role": "tool", "tool_call_id": "c", "content": "\\u0000"}'
    program.json("message", "append", "chat/7", "-", "--expect", "2", stdin=result)
    program.json("message", "append", "chat/7", "--role", "user", "--json", '[{"type": "text", "text": "x"}]')
    assert next(row["data"]["content"] for row in program.json("message", "list", "chat/7")) == "42"
    assert [row["needs"] for row in program.json("message", "list", "chat/7", "--last", "2")] == [2, None]
    assert [row["seq"] for row in program.json("message", "window", "chat/7", "--last", "2")] == [4]
    assert [row["seq"] for row in program.json("message", "window", "chat/7", "--turns", "2", "--complete")] == [
        1,
        2,
        3,
        4,
    ]
    lines = program.text("message", "window", "chat/7", "--tokens", "1000", "--data").splitlines()
    assert lines[1:3] == [call, result.decode()]
    assert "SEQ" in program.text("message", "list", "chat/7")
    program.fails(4, "message", "append", "chat/7", "--role", "user", "x", "--expect", "2")
    for roleless in ("no role", "[1]", '"text"'):
        assert "--role" in program.fails(5, "message", "append", "chat/7", roleless)["hint"]
    assert (
        "contains spaces" in program.fails(2, "message", "append", "chat/7", "--role", "user", "no", "quotes")["hint"]
    )
    program.fails(5, "message", "window", "chat/7")
    program.fails(3, "message", "window", "chat/8", "--last", "1")


def test_steps_are_appended_and_listed(program: Program) -> None:
    step = (
        "step",
        "append",
        "run/7",
        "--thought",
        "1",
        "--action",
        '{"run":  "ls"}',
        "--observation",
        "-",
        "--uid",
        "a",
    )
    for appended in (1, 0):
        assert program.json(*step, stdin=b"a.txt")["appended"] == appended
    assert program.text(*step[:5]) == "run/7 is at step 2\n"
    (row, other) = program.json("step", "list", "run/7")
    assert json.dumps(row["data"]) == '{"thought": "1", "action": {"run": "ls"}, "observation": "a.txt"}'
    assert other["data"] == {"thought": "1"}
    program.fails(5, "step", "append", "run/7")


def test_an_observation_is_that_of_the_agent_or_of_the_caller(program: Program) -> None:
    agent = program.text("agent", "register", "coder-1").strip()
    assert program.text("observe", "It is slow.", "--agent", agent) == "coder-1 is at observation 1\n"
    assert program.json("observe", "--json", '{"s": 1}', "--agent", "coder-1")["last_seq"] == 2
    assert program.run("observe", "x", COORDINATOR_AGENT_ID=agent).stdout.startswith(
        '{"kind":"observation","key":"coder-1"'
    )
    assert program.json("--actor", "me", "observe", "7")["key"] == "me"
    assert [row["data"] for row in program.json("observation", "list", "coder-1")] == ["It is slow.", {"s": 1}, "x"]
    assert [row["data"] for row in program.json("observation", "list", "me", "--last", "1")] == ["7"]
    program.fails(3, "observation", "list", "nobody")
