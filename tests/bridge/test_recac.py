"""recac's own cases: arguments, output and exit codes of its program, with what is in the coordinator afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coordinator.operations import signals
from tests.bridge.conftest import Agent

USAGE = "Usage: agent-bridge <command> [arguments]\nCommands:\n"
LIST = b'{"project_name": "Test", "features": [{"id": "F1", "name": "Feature 1"}]}'
TWO = b'{"features": [{"id": "F1", "status": "todo"}, {"id": "F2", "status": "Done", "passes": true, "x": 1e16}]}'
REQUEST = '{"requests": [{"feature_id": "F1", "instruction": "Check UI", "status": "pending_human"}]}'


@pytest.mark.parametrize(
    ("arguments", "said", "key", "value"),
    [
        (["blocker", "Something is wrong"], "Blocker signal set.\n", "BLOCKER", "Something is wrong"),
        (["blocker", "", "and more"], "Blocker signal set.\n", "BLOCKER", ""),
        (["qa"], "QA trigger signal set.\n", "TRIGGER_QA", "true"),
        (["manager"], "Manager trigger signal set.\n", "TRIGGER_MANAGER", "true"),
        (["signal", "MY_KEY", "MY_VALUE"], "Signal MY_KEY set to MY_VALUE.\n", "MY_KEY", "MY_VALUE"),
        (["signal", "QA_PASSED", "true", "and more"], "Signal QA_PASSED set to true.\n", "QA_PASSED", "true"),
    ],
)
def test_a_signal_is_set(anywhere: Agent, arguments: list[str], said: str, key: str, value: str) -> None:
    assert anywhere.says(*arguments) == said
    assert anywhere.signal(key) == value


@pytest.mark.parametrize("key", ["PROJECT_SIGNED_OFF", "TRIGGER_QA", "TRIGGER_MANAGER"])
def test_a_privileged_signal_takes_the_flag_anywhere_on_the_line(agent: Agent, key: str) -> None:
    said = agent.refuses("signal", key, "true")
    assert said == f"signal '{key}' is privileged and cannot be set via agent-bridge without --privileged flag"
    assert agent.signal(key) is None
    for number, line in enumerate(
        [
            ["--privileged", "signal", key],
            ["signal", "--privileged", key],
            ["signal", key, "--privileged"],
            ["signal", key],
        ]
    ):
        flag = [] if "--privileged" in line else ["--privileged"]
        assert agent.says(*line, str(number), *flag) == f"Signal {key} set to {number}.\n"
        assert agent.signal(key) == str(number)


def test_critical_signals_never_expire_and_rejected_clears_two_of_them(agent: Agent) -> None:
    for key in ("COMPLETED", "QA_PASSED", "PROJECT_SIGNED_OFF", "REJECTED", "COMPLETED"):
        agent.says("signal", key, "true", "--privileged")
        assert agent.ask(signals.Get(project=agent.project, key=key)).critical == (key != "REJECTED")
        if key == "REJECTED":
            assert [agent.signal(one) for one in ("COMPLETED", "QA_PASSED")] == [None, None]
    assert agent.signal("PROJECT_SIGNED_OFF") == "true"


def test_clear_signal_clears_that_of_the_project_that_the_directory_is_named_after(anywhere: Agent) -> None:
    name = f"d-{anywhere.project}"
    anywhere.folder = anywhere.folder / name
    anywhere.folder.mkdir()
    anywhere.says("signal", "KEY", "VALUE", RECAC_PROJECT_ID=name)
    for _ in range(2):  # it is harmless to clear what is clear
        said = anywhere.says("clear-signal", "KEY", RECAC_PROJECT_ID="")
        assert said == f"Signal 'KEY' cleared for project '{name}'.\n"
        assert anywhere.signal("KEY", name) is None


def test_clear_signal_takes_the_project_that_is_named(agent: Agent) -> None:
    agent.says("signal", "KEY", "VALUE")
    assert agent.says("clear-signal", "KEY") == f"Signal 'KEY' cleared for project '{agent.project}'.\n"
    assert agent.signal("KEY") is None


def test_features_are_listed_as_they_were_imported(anywhere: Agent) -> None:
    assert anywhere.says("feature", "list") == '{"features":[]}\n'
    assert anywhere.says("import", stdin=LIST + b"\n") == "Successfully imported 1 features.\n"
    assert anywhere.says("feature", "list", "--json") == LIST.decode() + "\n"
    assert anywhere.says("import", "--file", "x.json", stdin=TWO) == "Successfully imported 2 features.\n"
    assert anywhere.says("feature", "list") == TWO.decode() + "\n"


def test_the_last_feature_that_is_done_completes_the_project(anywhere: Agent) -> None:
    anywhere.says("import", stdin=TWO)
    said = anywhere.says("feature", "set", "F1", "--status", "done", "--passes", "no")
    assert said == "Feature F1 updated: status=done, passes=false\n"
    assert anywhere.signal("COMPLETED") is None
    said = anywhere.says("feature", "set", "F1", "--passes", "true", "--status", "DONE")
    assert said == (
        "Feature F1 updated: status=DONE, passes=true\nAll features completed and passed. Auto-signaling COMPLETED.\n"
    )
    assert anywhere.signal("COMPLETED") == "true"
    assert anywhere.ask(signals.Get(project=anywhere.project, key="COMPLETED")).critical
    kept = '{"features":[{"id":"F1","status":"DONE","passes":true},{"id":"F2","status":"Done","passes":true,"x":1e16}]}'
    assert anywhere.says("feature", "list") == kept.replace('"features":', '"features":') + "\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["completed"], ""),
        (["--status"], ""),
        (["--unknown", "x"], ""),
        (["--status", "--passes", "true"], "--passes"),
        (["--status", "a", "--passes", "TRUE", "--status", "b"], "b"),
    ],
)
def test_what_feature_set_does_not_know_says_nothing(agent: Agent, words: list[str], status: str) -> None:
    agent.says("import", stdin=TWO)
    assert agent.says("feature", "set", "F2", *words) == f"Feature F2 updated: status={status}, passes=false\n"


def test_a_feature_that_is_unknown_is_refused(agent: Agent) -> None:
    assert "no features found in DB" in agent.refuses("feature", "set", "F1", "--status", "done")
    agent.says("import", stdin=LIST)
    assert "feature ID F9 not found" in agent.refuses("feature", "set", "F9", "--status", "done")


@pytest.mark.parametrize(
    ("given", "count", "listed"),
    [
        (b"{}", 0, '{"features":[]}'),
        (b"null", 0, '{"features":[]}'),
        (b'{"features": null, "project_name": "x"}', 0, '{"features":[],"project_name":"x"}'),
        (b' {"features": []} ', 0, '{"features": []}'),
        (
            b'{"features": [{"description": "a"}, {"id": null, "x": [1.50]}, null, {"id": ""}]}',
            4,
            '{"features":[{"id":"feature-1","description":"a"},{"id":"feature-2","x":[1.50]},{"id":"feature-3"},{"id":""}]}',
        ),
        (
            b'{"features": [{"id": "a", "d": "\\u0000 \\ud83d\\ude00"}]}',
            1,
            '{"features": [{"id": "a", "d": "\\u0000 \\ud83d\\ude00"}]}',
        ),
    ],
)
def test_an_import_keeps_what_recac_takes(agent: Agent, given: bytes, count: int, listed: str) -> None:
    assert agent.says("import", stdin=given) == f"Successfully imported {count} features.\n"
    assert agent.features() == listed


def test_a_list_that_coordinator_saved_is_set_too(agent: Agent) -> None:
    from coordinator.model.operation import JsonText
    from coordinator.operations import documents

    agent.says("import", stdin=LIST)
    text = JsonText(b'[{"id": 7}, {"id": "x", "status": "done", "passes": true}]')
    agent.ask(documents.Put(project=agent.project, kind="features", key="main", value=text))
    assert "Auto-signaling" in agent.says("feature", "set", "7", "--status", "done", "--passes", "true")
    assert json.loads(agent.features())[0] == {"id": 7, "status": "done", "passes": True}


def test_verify_sets_the_status_and_keeps_the_rest(anywhere: Agent) -> None:
    file = anywhere.folder / "ui_verification.json"
    file.write_text('{"v": 1.0, "requests": [{"feature_id": "F1", "status": "pending", "shot": "a.png"}]}', "utf-8")
    file.chmod(0o640)
    assert anywhere.says("verify", "F1", "pass") == "UI verification for F1 updated to pass.\n"
    assert file.read_text("utf-8") == (
        '{\n  "v": 1.0,\n  "requests": [\n    {\n      "feature_id": "F1",\n      "status": "pass",\n      "shot": "a.png"\n    }\n  ]\n}'
    )
    assert file.stat().st_mode & 0o777 == 0o640
    assert [path.name for path in anywhere.folder.iterdir() if "verification" in path.name] == [file.name]


def test_the_blocker_is_cleared_when_no_verification_is_left(anywhere: Agent) -> None:
    file = anywhere.folder / "ui_verification.json"
    waiting = {"feature_id": "F2", "instruction": "Look", "status": "pending_human", "feedback": ""}
    file.write_text(json.dumps({"requests": [*json.loads(REQUEST)["requests"], waiting]}), "utf-8")
    anywhere.says("blocker", "UI Verification Required: F1, F2")
    assert anywhere.says("verify", "F1", "fail") == "UI verification for F1 updated to fail.\n"
    assert anywhere.signal("BLOCKER")
    assert anywhere.says("verify", "F2", "pass") == (
        "UI verification for F2 updated to pass.\nAll UI verifications complete. Clearing blocker.\n"
    )
    assert anywhere.signal("BLOCKER") is None
    twice = [{"feature_id": "F3", "status": "pending_human"}] * 2
    file.write_text(json.dumps({"requests": twice}), "utf-8")
    anywhere.says("blocker", "No database")
    assert anywhere.says("verify", "F3", "looks odd", "and more") == "UI verification for F3 updated to looks odd.\n"
    assert [one["status"] for one in json.loads(file.read_text("utf-8"))["requests"]] == ["looks odd"] * 2
    file.write_text(json.dumps({"requests": [waiting]}), "utf-8")
    assert anywhere.says("verify", "F2", "pass") == "UI verification for F2 updated to pass.\n"
    assert anywhere.signal("BLOCKER") == "No database"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["clear-signal"], "usage: agent-bridge clear-signal <key>"),
        (["blocker"], "usage: agent-bridge blocker <message>"),
        (["verify", "id1"], "usage: agent-bridge verify <id> <pass/fail>"),
        (["verify", "id1", "pass"], "could not read ui_verification.json"),
        (["signal", "key"], "usage: agent-bridge signal [--privileged] <key> <value>"),
        (["signal", "--privileged", "key"], "usage: agent-bridge signal [--privileged] <key> <value>"),
        (["feature"], "usage: agent-bridge feature <set|list> [args]"),
        (["feature", "set"], "usage: agent-bridge feature set <id> --status <status> --passes <true/false>"),
        (["feature", "set", "x"], "usage: agent-bridge feature set <id> --status <status> --passes <true/false>"),
        (["feature", "unknown"], "unknown feature subcommand: unknown"),
        (["import"], "empty input"),
    ],
)
def test_what_is_missing_is_said(agent: Agent, arguments: list[str], error: str) -> None:
    done = agent.run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Error: {error}\n")


@pytest.mark.parametrize(("arguments", "error"), [([], "missing command"), (["unknown"], "unknown command: unknown")])
def test_without_a_command_the_usage_is_printed(agent: Agent, arguments: list[str], error: str) -> None:
    done = agent.run(*arguments, RECAC_DB_URL="", COORDINATOR_PORT="no port")
    assert (done.returncode, done.stderr) == (1, f"Error: {error}\n")
    assert done.stdout.startswith(USAGE)
    assert done.stdout.endswith("\n  feature list           List features (JSON)\n")


def test_help_has_every_command(agent: Agent) -> None:
    from coordinator.bridge.main import COMMANDS

    text = agent.says("--help")
    assert text.startswith(USAGE)
    for name in COMMANDS:
        assert f"\n  {name} " in text


def test_verify_refuses_a_request_that_is_unknown(agent: Agent) -> None:
    file = agent.folder / "ui_verification.json"
    file.write_text(REQUEST, "utf-8")
    assert agent.refuses("verify", "F9", "pass") == "feature ID F9 not found in ui_verification.json"
    assert file.read_text("utf-8") == REQUEST


def test_verify_leaves_a_malformed_file_alone_and_says_so(agent: Agent, tmp_path: Path) -> None:
    file = tmp_path / "ui_verification.json"
    for malformed in (
        b"",
        b'{"requests": [{"feature_id": "\xff"}]}',
        b"{",
        b"[]",
        b"\x00",
        b'{"requests": {}}',
        b'{"requests": [{"status": 1}]}',
        b"[" * 100_000,
    ):
        file.write_bytes(malformed)
        done = agent.run("verify", "F1", "pass")
        assert (done.returncode, done.stdout) == (0, ""), "as recac does"
        (line,) = done.stderr.splitlines()
        assert line.startswith("Warning: ui_verification.json is not a list of verification requests")
        assert file.read_bytes() == malformed
