from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from coordinator.db.database import Database
from coordinator.operations import rules
from tests.cli.conftest import Program


def test_projects_are_created_listed_shown_and_deleted(program: Program) -> None:
    assert program.json("project", "create", "shop", "--description", "The shop")["project"] == "shop"
    assert [p["project"] for p in program.json("project", "list")] == ["default", "shop"]
    program.json("--project", "shop", "signal", "set", "k", "1")
    assert program.json("project", "show", "shop")["signal_count"] == 1
    assert program.json("project", "set", "shop", "--paths", "exact")["paths"] == "exact"
    assert program.json("project", "show", "shop")["paths"] == "exact"
    changed = program.json("project", "set", "shop", "--title", "Shop", "--settings", '{"n": 1}')
    assert (changed["title"], changed["settings"], changed["paths"]) == ("Shop", {"n": 1}, "exact")
    assert program.fails(3, "project", "set", "shop", "--user", "nobody")["code"] == "ZC220"
    assert program.json("project", "delete", "shop", "--yes") == {"project": "shop", "deleted": True}
    program.fails(3, "project", "show", "shop")


def test_an_agent_registers_lives_and_deregisters(program: Program) -> None:
    agent = program.text(
        "agent",
        "register",
        "coder",
        "--role",
        "r",
        "--job-type",
        "a",
        "--job-type",
        "b",
        "--label",
        "gpu",
        "--metadata",
        '{"n": 1}',
        "--ttl",
        "1h30m",
    ).strip()
    assert str(UUID(agent)) == agent
    (listed,) = program.json("agent", "list", "--role", "r")
    assert (listed["id"], listed["job_types"], listed["labels"]) == (agent, ["a", "b"], ["gpu"])
    assert listed["metadata"] == {"n": 1}
    assert listed["ttl"] == "PT5400S"
    assert program.json("agent", "heartbeat", agent)["agent"] == agent
    program.json("agent", "deregister", agent)
    program.fails(3, "agent", "heartbeat", agent)


def test_a_value_is_json_if_it_parses_as_json_and_else_text(program: Program) -> None:
    def value(*arguments: str, stdin: bytes = b"") -> object:
        return program.json("signal", "set", "k", *arguments, stdin=stdin)["value"]

    assert value('{"a": [1, null]}') == {"a": [1, None]}
    assert value("1.5") == 1.5
    assert value("1.10", "--text") == "1.10"
    assert value("plain words") == "plain words"
    assert value("-", stdin=b"[true]\n") == [True]
    assert value("--", "-5") == -5
    assert program.text("signal", "get", "k", "--value") == "-5\n"
    program.fails(5, "signal", "set", "k", "{broken", "--json")


def test_compare_and_set_on_the_command_line(program: Program) -> None:
    first = program.json("signal", "set", "k", "1", "--expect", "0")["version"]
    assert program.json("signal", "set", "k", "2", "--expect", str(first))["value"] == 2
    error = program.fails(4, "signal", "set", "k", "3", "--expect", str(first))
    assert error["code"] == "ZC301"
    assert error["detail"]["version"] > first
    program.fails(4, "signal", "delete", "k", "--expect", str(first))
    assert program.json("signal", "delete", "k")["deleted"] is True
    program.fails(3, "signal", "get", "k")


def test_a_list_has_pages(program: Program) -> None:
    for key in ("a/1", "a/2", "b/1"):
        program.json("signal", "set", key, "1", "--critical")
    assert [s["key"] for s in program.json("signal", "list", "--prefix", "a/")] == ["a/1", "a/2"]
    page = program.run("signal", "list", "--limit", "2", "-o", "text")
    after = page.stderr.partition("--after ")[2].strip()
    assert [s["key"] for s in program.json("signal", "list", "--after", after)] == ["b/1"]
    assert program.fails(5, "lock", "list", "--after", after)["code"] == "ZC103"
    assert program.fails(5, "signal", "list", "--limit", "0")["code"] == "ZC104"


@pytest.mark.slow
async def test_a_list_is_read_to_its_end_however_many_pages_it_has(program: Program, db: Database) -> None:
    for number in range(2100):
        await db.run(rules.Set(project="default", when_set=f"R{number:04}", clears=["X"]))
    whole = [f"R{number:04}" for number in range(2100)]
    assert [rule["when_set"] for rule in program.json("rule", "list")] == [*whole, "REJECTED"]
    assert [rule["when_set"] for rule in program.json("rule", "list", "--limit", "1500")] == whole[:1500]
    page = program.run("rule", "list", "--limit", "1000", "-o", "text")
    rest = program.json("rule", "list", "--after", page.stderr.partition("--after ")[2].strip())
    assert [rule["when_set"] for rule in rest] == [*whole[1000:], "REJECTED"]


def test_rules_clear_what_they_say(program: Program) -> None:
    program.json("rule", "set", "STOP", "RUNNING", "READY")
    program.json("signal", "set", "t/RUNNING", "true")
    program.json("signal", "set", "t/STOP", "true")
    program.fails(3, "signal", "get", "t/RUNNING")
    assert {r["when_set"] for r in program.json("rule", "list")} >= {"REJECTED", "STOP"}
    program.json("rule", "delete", "STOP")
    program.fails(3, "rule", "delete", "STOP")


def test_a_directive_goes_from_the_manager_to_the_answer(program: Program) -> None:
    program.json("agent", "register", "coder", "--role", "r")
    sent = program.json(
        "--actor",
        "boss",
        "directive",
        "send",
        "Do it",
        "--to-role",
        "r",
        "--priority",
        "-7",
        "--ttl",
        "1h",
        "--key",
        "k",
    )
    number = str(sent["id"])
    assert (sent["actor"], sent["priority"]) == ("boss", -7)
    assert [d["id"] for d in program.json("directive", "inbox", "--agent", "coder")] == [sent["id"]]
    assert [p["agent"] for p in program.json("directive", "pending", number)] == ["coder"]
    program.fails(5, "directive", "acknowledge", number, "--agent", "coder", "--status", "refused")
    assert program.json("directive", "acknowledge", number, "--agent", "coder")["status"] == "done"
    assert program.json("directive", "pending") == []
    assert program.json("directive", "revoke", number)["changed"] is True
    assert program.json("directive", "revoke", number)["changed"] is False
    assert program.json("directive", "list") == []
    assert [d["status"] for d in program.json("directive", "list", "--all")] == ["revoked"]
    program.fails(2, "directive", "send", "To whom?")
    program.fails(2, "directive", "send", "To whom?", "--to-agent", "a", "--everyone")


def test_a_transaction_is_read_from_an_argument_or_from_standard_input(program: Program) -> None:
    parts = b"""{"writes": [{"verb": "signal_set", "key": "k", "value": 1, "ttl": "1h30m"}, {"verb": "event_emit", "type": "custom.x"}],
                 "conditions": [{"verb": "assert_signal", "key": "k", "version": 0}]}"""
    first, second = program.json("--actor", "me", "transaction", "run", "-", stdin=parts)
    assert (first["result"]["actor"], second) == ("me", {"write": 1, "verb": "event_emit", "result": None})
    assert program.fails(4, "transaction", "run", parts)["code"] == "ZC301"
    assert "signal_set" in program.text(
        "transaction", "run", '{"writes": [{"verb": "signal_set", "key": "k", "value": 2}]}'
    )
    for malformed in (
        "", "[]", "{}", "null", '{"writes": 1}', '{"writes": null}', '{"writes": [1]}', '{"writes": [], "x": 1}', '{"writes": []}',
        '{"writes": [{"verb": "signal_sett"}]}', '{"writes": [{"verb": "signal_set", "key": "k", "vale": 1}]}', '{"project": "x"}',
    ):  # fmt: skip
        assert program.fails(5, "transaction", "run", malformed)["hint"]
    assert program.json("signal", "get", "k")["value"] == 2


@pytest.mark.slow
def test_the_schema_is_applied_verified_and_printed(program: Program, empty_url: str) -> None:
    at = ("--url", empty_url)
    error = program.fails(6, *at, "signal", "list")
    assert "schema apply" in error["hint"]
    program.fails(6, *at, "schema", "verify")
    assert "pending" in {file["state"] for file in program.json(*at, "schema", "status")}
    assert program.json(*at, "schema", "apply")["applied"]
    assert program.json(*at, "schema", "apply")["applied"] == []
    assert program.json(*at, "schema", "verify") == {"verified": True, "newer": None}
    assert program.json(*at, "signal", "list") == []
    program.fails(3, *at, "schema", "grant", "nobody_has_this_name")
    assert "create schema if not exists coordinator;" in program.run("schema", "print").stdout


def test_options_of_every_command_may_be_anywhere_and_the_nearer_one_wins(program: Program) -> None:
    program.json("project", "create", "one")
    program.json("project", "create", "two")
    for line in (("-p", "one", "signal", "set", "k", "1"), ("-p", "one", "signal", "set", "k", "2", "-p", "two")):
        program.json(*line)
    assert [s["value"] for s in program.json("signal", "--project", "one", "list")] == [1]
    assert [s["value"] for s in program.json("signal", "list", "--project=two")] == [2]


def test_an_agent_is_given_by_name_or_id_and_an_unknown_one_is_an_error(program: Program) -> None:
    one = program.text("agent", "register", "coder-1", "--role", "coder", "--ttl", "1h").strip()
    sent = program.json("directive", "send", "Do it", "--to-agent", one)
    number = str(sent["id"])
    assert sent["to_agent"] == "coder-1"
    for name in ("coder-1", one):
        assert [d["id"] for d in program.json("directive", "inbox", "--agent", name)] == [sent["id"]]
    unknown = str(uuid4())
    for arguments in (("inbox",), ("acknowledge", number)):
        assert program.fails(3, "directive", *arguments, "--agent", "coder-l")["hint"].startswith(
            'Did you mean "coder-1"?'
        )
        program.fails(3, "directive", *arguments, "--agent", unknown)
    program.fails(3, "directive", "send", "x", "--to-agent", unknown)
    assert program.json("directive", "acknowledge", number, "--agent", one)["agent"] == "coder-1"
    assert program.json("agent", "heartbeat", "coder-1")["agent"] == "coder-1"
    two = program.text("agent", "register", "coder-1", "--ttl", "1h").strip()
    several = program.fails(5, "signal", "set", "k", "1", "--agent", "coder-1")
    assert one in several["hint"]
    assert two in several["hint"]
    for agent in (one, two):
        program.json("agent", "deregister", agent)
    assert program.json("directive", "inbox", "--agent", "coder-1") == []  # it ended, and is known
    assert 'agent "coder-1"' in program.fails(3, "agent", "heartbeat", "coder-1")["message"]
    assert f"({one}) deregistered at" in program.fails(3, "lock", "acquire", "x", "--agent", one)["message"]
    assert program.json("agent", "list") == []
    ended = program.json("agent", "list", "--all")
    assert {(row["id"], row["end_reason"]) for row in ended} == {(one, "deregistered"), (two, "deregistered")}


def test_a_directive_for_nobody_who_is_registered_is_sent_with_a_note(program: Program) -> None:
    program.json("agent", "register", "coder-1", "--role", "coder", "--ttl", "1h")
    for target, name, note in (
        ("--to-role", "codr", 'No registered agent has the role "codr". Did you mean "coder"?'),
        ("--to-agent", "coder-l", 'No registered agent is called "coder-l". Did you mean "coder-1"?'),
    ):
        done = program.run("directive", "send", "x", target, name, "--output", "text")
        assert done.returncode == 0
        assert note in done.stderr
    told = program.run("directive", "send", "x", "--to-role", "coder", "--output", "text")
    assert "No registered agent" not in told.stderr
    for_nobody = program.json("directive", "send", "x", "--to-role", "tester")["id"]
    pending = program.run("directive", "pending", str(for_nobody), "--output", "text")
    assert "answered" not in pending.stdout + pending.stderr
