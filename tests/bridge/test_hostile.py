"""Hostile input: each is refused in one line, and nothing is changed."""

from __future__ import annotations

import pytest

from tests.bridge.conftest import Agent

MIB = 1 << 20


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"not json", "invalid json: "),
        (b"[]", "invalid json: "),
        (b"7", "invalid json: "),
        (b'{"features": {}}', "invalid json: "),
        (b'{"features": [7]}', "invalid json: "),
        (b'{"features": [{"id": 7}]}', "invalid json: "),
        (b'{"features": [{"id": "a", "passes": "yes"}]}', "invalid json: "),
        (b'{"features": []} and more', "invalid json: "),
        (b'{"features": [{"id": "a\x00b"}]}', "invalid json: "),
        (b'{"features": [{"id": "\xff"}]}', "invalid json: "),
        (b'{"features": [{"id": "a", "x": ' + b"[" * 100_000, "invalid json: "),
        (b'{"features": [{"id": "a", "x": ' + b"[" * 100 + b"]" * 100 + b"}]}", "nest"),
        (b'{"features": [{"id": "a"}, {"id": "a"}]}', 'have the id "a"'),
        (b'{"features": [{"id": "a", "x": 1e999999}]}', ""),
        (b'{"features": [{"id": "' + b"a" * MIB + b'"}]}', "more than 1048576 bytes"),
        (b" " * MIB + b"{}", "more than 1048576 bytes"),
    ],
    ids=lambda given: repr(given)[:60],
)
def test_an_import_of_something_else_is_refused(agent: Agent, given: bytes, said: str) -> None:
    assert said in agent.refuses("import", stdin=given)


@pytest.mark.parametrize(
    "arguments",
    [
        ["signal", "", "1"],
        ["signal", "a\nb", "1"],
        ["signal", "\x1b[2J", "1"],
        ["signal", "k" * 600, "1"],
        ["signal", "\u202e", "1"],
        ["signal", b"\xff", "1"],
        ["signal", "K", b"\xff"],
        ["blocker", b"\xff"],
        ["clear-signal", "a\nb"],
        ["\x1b[2J"],
        ["observe", "x", "--agent"],
        ["observe", "x", "--agent", "a\nb"],
        ["observe", "--unknown", "x"],
        ["observe"],
        ["observe", "a", "b"],
        ["history", "x"],
        ["history", "0"],
        ["history", "99999"],
        ["history", "9" * 100],
        ["lock", "a"],
        ["lock", "../a", "--agent", "c"],
        ["lock", "/etc/passwd", "--agent", "c"],
        ["lock", "a", "--agent", "c", "--wait", "soon"],
        ["lock", "a", "--agent", "c", "--wait", "1d"],
        ["unlock", "a", "--wait", "1s"],
        ["directives", "done", "x", "--agent", "c"],
        ["directives", "done", "999", "--agent", "c"],
        ["directives", "refused", "1", "--agent", "c"],
        ["spec", "unknown"],
        ["import-database"],
        ["import-database", "--help"],
        ["import-database", "absent.db"],
        ["import-database", "ftp://x"],
    ],
    ids=lambda words: repr(words)[:60],
)
def test_a_command_line_that_means_nothing_is_refused(agent: Agent, arguments: list[str | bytes]) -> None:
    assert agent.refuses(*arguments)


def test_what_a_terminal_would_obey_is_escaped_in_errors(agent: Agent) -> None:
    assert agent.refuses("\x1b[2J\nx") == "unknown command: \\x1b[2J\\nx"
