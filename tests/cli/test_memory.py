from __future__ import annotations

import re

from tests.cli.conftest import Program
from tests.cli.test_output import on_terminal
from tests.conftest import admin


def test_a_memory_is_recorded_found_listed_superseded_and_forgotten(program: Program) -> None:
    made = program.json(
        "memory",
        "record",
        "Run the migrations first.",
        "--context",
        "tests",
        "--tool-name",
        "pytest",
        "--confidence",
        "80",
    )
    assert (made["context"], made["tool_name"], made["confidence"]) == ("tests", "pytest", 80)
    again = program.json(
        "memory", "record", "-", "--context", "tests", "--tool-name", "pytest", stdin=b"Run the migrations first."
    )
    assert (again["memory_id"], again["confidence"], again["reinforcements"]) == (made["memory_id"], 90, 2)
    (found,) = program.json("memory", "search", "migration", "--tool-name", "pytest")
    assert (found["memory_id"], found["snippet"]) == (made["memory_id"], "Run the **migrations** first. tests pytest")
    shown = program.text("memory", "search", "migration")
    assert re.search(r" 0\.\d{1,3} ", shown), shown
    assert program.json("memory", "search", "migration", "--scope", "ops") == []
    new = program.text("memory", "supersede", made["memory_id"], "The migrations run automatically.").strip()
    assert [memory["memory_id"] for memory in program.json("memory", "list")] == [new]
    assert len(program.json("memory", "list", "--superseded", "--tool-name", "pytest")) == 2
    assert program.json("memory", "get", made["memory_id"])["superseded_by"] == new
    assert program.json("memory", "forget", new) == {"memory_id": new, "forgotten": True}
    program.fails(3, "memory", "get", new)
    program.fails(5, "memory", "search", "the")
    program.fails(5, "memory", "record", "x", "--confidence", "101")
    assert "create extension vector" in program.fails(5, "memory", "search", "--embedding", "[1, 0.5]")["hint"]
    program.fails(5, "memory", "search", "--embedding", "[true]")
    assert "[0.1, -0.2]" in program.fails(5, "memory", "search", "--embedding", "0.1, 0.2")["hint"]


def test_a_narrow_terminal_shows_the_texts_that_a_search_found(program: Program) -> None:
    text = "Run the migrations before the tests, because the tests read what the migrations write"
    program.json("memory", "record", text, "--context", "integration tests", "--tool-name", "pytest")
    program.json("knowledge", "put", "runbooks/migrations", text, "--title", "How to run the migrations of a release")
    for line in (
        ("memory", "list"),
        ("memory", "search", "tests"),
        ("knowledge", "list"),
        ("knowledge", "search", "tests"),
    ):
        shown = on_terminal(program, *line, columns=80)
        assert "un the migrations" in shown, (
            shown
        )  # of the text or the title; cells of other columns are between its lines
        assert max(map(len, shown.splitlines())) <= 80, shown


async def test_a_search_of_which_only_a_part_was_ranked_says_so(program: Program, database_url: str) -> None:
    put = "select coordinator.knowledge_put('default', 'k' || n, 'a common word' || n) from generate_series(1, 201) n"
    await admin(database_url, put)
    assert program.json("knowledge", "search", "common", "--limit", "1")[0]["partial"] is True
    for word, said in (("common", True), ("word7", False)):
        seen = program.run("knowledge", "search", word, "--limit", "3", "--output", "text")
        assert "PARTIAL" not in seen.stdout
        assert ("only the newest matches were ranked" in seen.stderr) == said


def test_a_hostile_lesson_is_harmless_on_a_terminal(program: Program) -> None:
    text = "\x1b[31mred\x07 \u202e lesson"
    assert program.json("memory", "record", text)["lesson"] == text
    for verb in (["list"], ["search", "lesson"]):
        shown = program.text("memory", *verb)
        assert not {"\x1b", "\x07", "\u202e"} & {*shown}


def test_knowledge_is_put_found_listed_and_deleted(program: Program) -> None:
    made = program.json(
        "knowledge",
        "put",
        "runbooks/rollback",
        "-",
        "--title",
        "Roll back",
        "--metadata",
        '{"team": "core"}',
        stdin=b"Run it.\n",
    )
    assert (made["title"], made["content"], made["version"]) == ("Roll back", "Run it.\n", 1)
    program.fails(4, "knowledge", "put", "runbooks/rollback", "x", "--expect", "0")
    program.json(
        "knowledge", "put", "glossary/lane", "The jobs of one key.", "--source-type", "file", "--language", "simple"
    )
    assert program.json("knowledge", "get", "glossary/lane")["source_type"] == "file"
    assert [entry["key"] for entry in program.json("knowledge", "list")] == ["glossary/lane", "runbooks/rollback"]
    assert [
        entry["key"] for entry in program.json("knowledge", "search", "rolling", "--metadata", '{"team": "core"}')
    ] == ["runbooks/rollback"]
    assert program.json("knowledge", "search", "rolling", "--metadata", '{"team": "web"}') == []
    program.fails(5, "knowledge", "search", "x", "--language", "klingon")
    assert program.json("knowledge", "delete", "glossary/lane", "--expect", "1") == {
        "key": "glossary/lane",
        "deleted": True,
    }
    assert "glossary" in program.fails(3, "knowledge", "get", "glossary/lane")["message"]
