"""Observations, locks, directives and the specification."""

from __future__ import annotations

import json

from coordinator.operations import directives, locks
from tests.bridge.conftest import Agent
from tests.waiting import DEADLINE_S


def test_history_has_the_newest_observations_first(anywhere: Agent) -> None:
    assert anywhere.says("history") == "[]\n"
    for text, name in (("one", "a"), ("two", "b"), ("three\n\x00"[:6], "a")):
        assert anywhere.says("observe", text, "--agent", name) == "Observation recorded.\n"
    found = json.loads(anywhere.says("history"))
    assert [(one["content"], one["agent_id"], one["id"]) for one in found] == [
        ("three\n", "a", "a/2"),
        ("two", "b", "b/1"),
        ("one", "a", "a/1"),
    ]
    assert [one["content"] for one in json.loads(anywhere.says("history", "1"))] == ["three\n"]
    assert [one["content"] for one in json.loads(anywhere.says("history", "--agent", "b"))] == ["two"]
    assert anywhere.says("history", "--agent", "c") == "[]\n"


def test_a_lock_excludes_other_agents_and_is_renewed_for_its_own(anywhere: Agent) -> None:
    said = anywhere.says("lock", "src/[id].py", "--agent", "a")
    assert said.startswith("Locked src/[id].py until ")
    assert "a" in anywhere.refuses("lock", "src/[id].py", "--agent", "b")
    assert anywhere.says("lock", str(anywhere.folder / "src/[id].py"), "--agent", "a")
    (held,) = anywhere.ask(locks.List(project=anywhere.project))
    assert (held.agent, held.resource) == ("a", "path:src/[id].py")
    assert anywhere.says("unlock", "src/[id].py", "--agent", "b") == "src/[id].py was not locked by b.\n"
    assert anywhere.says("unlock", "src", RECAC_AGENT_ID="a") == "src was not locked by a.\n"
    assert anywhere.says("unlock", "src/[id].py", RECAC_AGENT_ID="a") == "Unlocked src/[id].py.\n"
    assert anywhere.says("lock", "src/[id].py", "--agent", "b", "--wait", "0s")
    assert anywhere.says("unlock", "src/[id].py", "--agent", "MANAGER") == "Unlocked src/[id].py.\n"
    assert anywhere.says("unlock", "src/[id].py", "--agent", "MANAGER") == "src/[id].py was not locked by MANAGER.\n"
    assert anywhere.ask(locks.List(project=anywhere.project)) == []


def test_a_lock_is_waited_for(anywhere: Agent) -> None:
    anywhere.says("lock", "a", "--agent", "a")
    with anywhere.start("lock", "a", "--agent", "b", "--wait", "5m") as waiting:
        while not anywhere.ask(locks.ListWaiting(project=anywhere.project, resource="path:a")):
            assert waiting.poll() is None
        anywhere.says("unlock", "a", "--agent", "a")
        out, error = waiting.communicate(timeout=DEADLINE_S)
    assert (waiting.returncode, error) == (0, "")
    assert out.startswith("Locked a until ")
    assert [one.agent for one in anywhere.ask(locks.List(project=anywhere.project))] == ["b"]


def test_two_registrations_of_one_name_do_not_shut_each_other_out(agent: Agent) -> None:
    from datetime import timedelta

    from coordinator.operations import agents

    agent.says("lock", "a", "--agent", "twin")
    agent.ask(agents.Register(project=agent.project, name="twin", ttl=timedelta(hours=1)))
    agent.says("lock", "b", "--agent", "twin")
    (first, _) = sorted(agent.ask(agents.List(project=agent.project)), key=lambda one: one.registered_at)
    (later,) = [one for one in agent.ask(agents.List(project=agent.project)) if one.id != first.id]
    agent.ask(locks.Acquire(project=agent.project, resources=["path:c"], agent=later.id, ttl=timedelta(hours=1)))
    assert agent.says("lock", "c", "--agent", "twin").startswith("Locked c until ")
    for path in "abc":
        assert agent.says("unlock", path, "--agent", "twin") == f"Unlocked {path}.\n"


def test_directives_are_listed_and_answered(anywhere: Agent) -> None:
    assert anywhere.says("directives", "--agent", "a") == "[]\n"
    send = {"project": anywhere.project, "to_agent": "a"}
    first = anywhere.ask(directives.Send(body="Rebase", **send)).id
    second = anywhere.ask(directives.Send(body="Stop", **send)).id
    assert [one["body"] for one in json.loads(anywhere.says("directives", "--agent", "a"))] == ["Rebase", "Stop"]
    assert anywhere.says("directives", "done", str(first), "--agent", "a") == f"Directive {first} is done.\n"
    said = anywhere.says("directives", "refused", str(second), "not now", "--agent", "a")
    assert said == f"Directive {second} is refused.\n"
    assert anywhere.says("directives", "--agent", "a") == "[]\n"


def test_the_specification_is_saved_and_printed(anywhere: Agent) -> None:
    assert anywhere.says("spec") == ""
    assert anywhere.says("spec", "set", stdin="# Größe\n\0".encode()) == "Specification saved.\n"
    assert anywhere.says("spec") == "# Größe\n\0\n"
    for _ in range(2):
        anywhere.says("spec", "set", stdin=anywhere.says("spec").encode())
    assert anywhere.says("spec") == "# Größe\n\0\n"
    assert "not valid UTF-8" in anywhere.refuses("spec", "set", stdin=b"\xff")
