from __future__ import annotations

from tests.cli.conftest import Program


def test_an_agent_is_briefed_once_of_what_is_new(program: Program) -> None:
    program.text("agent", "register", "coder", "--ttl", "1h")
    assert program.text("briefing", "subscribe", "coder", "build/*", "DONE").strip() == "coder watches build/*, DONE"
    program.text("signal", "set", "build/state", '"green"', "--actor", "ci")
    number = program.text("directive", "send", "Add tests.", "--to-agent", "coder", "--actor", "lead").split()[-1]
    shown = program.text("briefing", "read", "coder", "--news")
    assert "Add tests." in shown
    assert "build/state" in shown
    assert program.json("briefing", "read", "coder", "--news") == []
    again = program.json("briefing", "read", "coder")
    assert [item["key"] for item in again] == [number, "build/state"]
    assert program.json("briefing", "read", "coder", "--not-again") == []
    assert [briefing["agent"] for briefing in program.json("briefing", "list")] == ["coder"]
    assert program.text("briefing", "subscribe", "coder").strip() == "coder watches nothing"
