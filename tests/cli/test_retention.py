from __future__ import annotations

from tests.cli.conftest import Program


def test_a_policy_is_set_shown_and_reset(program: Program) -> None:
    made = program.json("retention", "set", "log", "observation", "--max-age", "14d", "--max-count", "50")
    assert (made["project"], made["max_count"]) == ("default", 50)
    assert made in program.json("retention", "show")
    assert program.text("retention", "show").split()[:2] == ["SUBJECT", "KIND"]
    assert program.text("retention", "set", "log", "step") == "log step: kept without a bound\n"
    assert (
        program.text("retention", "reset", "log", "observation") == "log observation: kept for 7d, the newest 10000\n"
    )
    assert program.text("retention", "set", "session", "--max-age", "1d", "--everywhere") == "session: kept for 1d\n"
    assert program.text("retention", "reset", "session", "--everywhere") == "session: kept for 90d\n"
    for bad in (("log", "a", "--max-age", "-1d"), ("log", "a", "--max-count", "-1"), ("logs", "a"), ("session", "a")):
        assert program.fails(5, "retention", "set", *bad)["hint"]
