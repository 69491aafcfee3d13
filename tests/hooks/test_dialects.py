"""Each dialect reads what its tool's documentation says, and answers as the tool expects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.errors import InvalidArgument
from coordinator.hooks import dialects
from coordinator.hooks.dialects.reading import MOST, Effect, files
from coordinator.hooks.event import Decision, HookEvent, Kind, Verdict

FILES = {path.stem: json.loads(path.read_text("utf-8")) for path in (Path(__file__).parent / "payloads").glob("*.json")}
CASES = [(name, case["payload"], case["expect"]) for name, file in FILES.items() for case in file["payloads"]]
DENY = Verdict(Decision.DENY, "a.py is held by coder-2", "Work on something else.")


def event_of(name: str, kind: str, **fields: Any) -> HookEvent:
    """Return the first documented event of a kind, with other fields of the payload."""
    payload = next(payload for dialect, payload, expect in CASES if (dialect, expect["kind"]) == (name, kind))
    return dialects.load(name).read({**payload, **fields})


def printed(name: str, event: HookEvent, verdict: Verdict) -> Any:
    reply = dialects.load(name).answer(event, verdict)
    assert (reply.exit_code, reply.stderr) == (0, "")
    return json.loads(reply.stdout) if reply.stdout else {}


def test_every_dialect_has_payloads_with_source_and_date() -> None:
    assert set(FILES) == set(dialects.NAMES)
    assert all(file["source"] and file["date"] for file in FILES.values())


@pytest.mark.parametrize("name", dialects.NAMES)
def test_a_documented_payload_is_read_recognised_and_answered(name: str) -> None:
    for case in FILES[name]["payloads"]:
        payload, expect = case["payload"], case["expect"]
        assert dialects.decode(msgspec.json.encode(payload)) == payload
        # A session of Codex starts with the words of Claude Code; what is installed names the dialect.
        started = name == "codex" and payload["hook_event_name"] == "SessionStart"
        assert dialects.recognise(payload) == ("claude-code" if started else name), payload
        event = dialects.load(name).read(payload)
        found = {**msgspec.to_builtins(event), "files": [[file.path, file.action.value] for file in event.files]}
        assert {field: found[field] for field in expect} == expect, payload
        for verdict in (Verdict(), Verdict(Decision.ALLOW, "", "Text."), DENY, Verdict(Decision.ASK, "Unreachable.")):
            answer = printed(name, event, verdict)
            assert event.kind is not Kind.OTHER or answer in ({}, {"permission": "allow"}), payload


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (rb"\ud83d", "\ufffd"),
        (rb"a\uDE00b\ud83d\ud83d\ude00", "a\ufffdb\ufffd\U0001f600"),
        (rb"\\ud83d \\\ud83d", "\\ud83d \\\ufffd"),
    ],
)
def test_half_of_a_character_that_a_tool_has_cut_is_replaced(written: bytes, read: str) -> None:
    assert dialects.decode(b'{"output": "%s"}' % written) == {"output": read}


@pytest.mark.parametrize("name", dialects.NAMES)
@pytest.mark.parametrize("kind", ["before_read", "before_edit", "before_shell"])
def test_a_refused_call_is_refused_with_the_reason_in_the_words_of_the_tool(name: str, kind: str) -> None:
    if (name, kind) == ("codex", "before_read"):
        return  # Codex reads with shell commands
    answer = printed(name, event_of(name, kind), DENY)
    match name:
        case "gemini":
            assert (answer["decision"], answer["reason"]) == ("deny", DENY.reason)
        case "cursor":
            assert (answer["permission"], answer["agent_message"]) == ("deny", DENY.reason)
        case _:
            specific = answer["hookSpecificOutput"]
            assert specific["hookEventName"] == "PreToolUse"
            assert (specific["permissionDecision"], specific["permissionDecisionReason"]) == ("deny", DENY.reason)
            assert name not in ("copilot", "vscode") or answer["permissionDecision"] == "deny"


@pytest.mark.parametrize("name", dialects.NAMES)
def test_an_allowed_call_never_skips_what_the_tool_asks_its_user(name: str) -> None:
    answer = printed(name, event_of(name, "before_edit"), Verdict(Decision.ALLOW))
    assert answer == ({"permission": "allow"} if name == "cursor" else {})


def test_only_tools_that_can_ask_ask_and_others_show_why() -> None:
    ask = Verdict(Decision.ASK, "The coordinator is unreachable.")
    for name, kind in [("claude-code", "before_edit"), ("copilot", "before_edit"), ("vscode", "before_shell")]:
        assert printed(name, event_of(name, kind), ask)["hookSpecificOutput"]["permissionDecision"] == "ask"
    assert printed("gemini", event_of("gemini", "before_edit"), ask)["decision"] == "ask"
    shell = next(p for n, p, _ in CASES if n == "cursor" and p["hook_event_name"] == "beforeShellExecution")
    assert printed("cursor", dialects.load("cursor").read(shell), ask)["permission"] == "ask"
    assert printed("codex", event_of("codex", "before_edit"), ask) == {"systemMessage": ask.reason}
    edit = printed("cursor", event_of("cursor", "before_edit"), ask)
    assert edit == {"permission": "allow", "user_message": ask.reason}


@pytest.mark.parametrize("name", dialects.NAMES)
def test_context_is_sent_exactly_where_the_model_reads_it(name: str) -> None:
    for case in FILES[name]["payloads"]:
        event = dialects.load(name).read(case["payload"])
        answer = printed(name, event, Verdict(context="2 agents are at work."))
        assert ("2 agents are at work." in json.dumps(answer)) is event.hears, event
        assert not (event.hears and event.kind in (Kind.STOP, Kind.SUBAGENT_STOP))  # the session would go on


@pytest.mark.parametrize("name", dialects.NAMES)
def test_unknown_events_fields_and_calls_pass(name: str) -> None:
    module = dialects.load(name)
    for payload in (
        {},
        {"hook_event_name": "Tomorrow", "tool_name": "Edit", "tool_input": {"file_path": "a"}},
        {"hook_event_name": 7, "session_id": None, "cwd": [], "tool_input": "x", "agent_id": 1},
        {"conversation_id": 1, "workspace_roots": {}, "toolName": [], "toolArgs": 3},
        {"hook_event_name": {"a": 1}, "hookEventName": [[]], "source": {}, "tool_name": {}, "prompt": []},
    ):
        assert dialects.recognise(payload) in dialects.NAMES
        event = module.read(payload)
        assert event.files == ()
        assert printed(name, event, Verdict()) in ({}, {"permission": "allow"})
    known = event_of(name, "before_edit", of_tomorrow={"a": [1]})
    assert known.kind is Kind.BEFORE_EDIT
    assert known.files


@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
def test_whatever_the_arguments_of_a_call_are_they_are_read(arguments: Any) -> None:
    for name in dialects.NAMES:
        event = event_of(name, "before_edit", tool_input=arguments, toolArgs=arguments)
        assert all(isinstance(file.path, str) and file.path for file in event.files)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"a": "', b'{"a": 1}}', b"[]", b"null", b'"x"', b"\xff", b'{"a": "\xff"}', b'{"a":' * 100_000],
)
def test_a_payload_that_is_not_an_object_is_refused_in_one_line(body: bytes) -> None:
    with pytest.raises(InvalidArgument) as refused:
        dialects.decode(body)
    assert "\n" not in refused.value.message
    assert len(refused.value.message) < 200


def test_ten_megabytes_are_refused_in_one_line() -> None:
    with pytest.raises(InvalidArgument, match="larger than 8388608 bytes") as refused:
        dialects.decode(b'{"a": "' + b"x" * 10_000_000 + b'"}')
    assert "\n" not in refused.value.message


def test_an_unknown_dialect_has_a_hint() -> None:
    with pytest.raises(InvalidArgument) as refused:
        dialects.load("claude")
    assert refused.value.hint == 'Did you mean "claude-code"?'


@pytest.mark.parametrize("use", Effect)
def test_a_patch_that_names_no_file_is_read(use: Effect) -> None:
    assert files({"command": "grep '*** Begin Patch' a"}, use) == ()


def test_of_very_many_files_the_first_are_read() -> None:
    patch = "*** Begin Patch\n" + "".join(f"*** Update File: {number}\n" for number in range(MOST + 1))
    for arguments in ({"patch": patch}, {"files": [str(number) for number in range(MOST + 1)]}):
        assert [file.path for file in files(arguments, Effect.EDIT)] == [str(number) for number in range(MOST)]


def test_a_patch_with_a_line_of_spaces_is_read_in_time_of_its_size() -> None:
    """Eight megabytes: what looks at each space once for each space never ends."""
    gap = " " * (8 << 20)
    patch = (
        f"*** Begin Patch\n*** Add File: a{gap}b\n*** Update File: c.py \t\r\n{gap}*** Delete File: d.py\n*** End Patch"
    )
    found = files({"input": patch}, Effect.EDIT)
    assert [file.path for file in found] == [f"a{gap}b", "c.py", "d.py"]
