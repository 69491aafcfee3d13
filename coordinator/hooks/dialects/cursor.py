"""Cursor's editor and command line: hooks in hooks.json. Each event has its own format of payload and answer.

Cursor rejects a whole file with an event that its version does not know, so only events that have been documented since
2.0 are installed. A call without a permission in its answer is refused, so every call gets one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.errors import InvalidArgument
from coordinator.hooks.dialects.entries import Element, Member, SettingsScope, Setup
from coordinator.hooks.dialects.family import BEFORE, written
from coordinator.hooks.dialects.reading import Effect, choose, files, kind_of, mapping, text
from coordinator.hooks.event import Action, Decision, File, HookEvent, HookReply, Kind, Verdict

__all__ = ["HEARS_PROMPTS", "answer", "hooks", "mcp", "read"]

HEARS_PROMPTS = False  # text at a prompt does not reach the model

NAME = "cursor"
EVENTS: dict[str, str] = {
    "sessionStart": Kind.SESSION_START,
    "sessionEnd": Kind.SESSION_END,
    "beforeSubmitPrompt": Kind.PROMPT,
    "preToolUse": "before",
    "postToolUse": "after",
    "postToolUseFailure": "after",
    "beforeShellExecution": Kind.BEFORE_SHELL,
    "afterShellExecution": Kind.AFTER_SHELL,
    "beforeReadFile": Kind.BEFORE_READ,
    "afterFileEdit": Kind.AFTER_EDIT,
    "subagentStart": Kind.SUBAGENT_START,
    "subagentStop": Kind.SUBAGENT_STOP,
    "preCompact": Kind.COMPACT,
    "stop": Kind.STOP,
}
USES = {
    "write": Effect.WRITE,
    "edit": Effect.EDIT,
    "multiedit": Effect.EDIT,
    "strreplace": Effect.EDIT,
    "editnotebook": Effect.EDIT,
    "applypatch": Effect.EDIT,
    "apply_patch": Effect.EDIT,
    "delete": Effect.DELETE,
    "read": Effect.READ,
    "shell": Effect.SHELL,
}
PERMISSIONS = frozenset({"preToolUse", "beforeShellExecution", "beforeReadFile", "subagentStart"})
ASKS = frozenset({"beforeShellExecution"})
HEARS = frozenset({"sessionStart", "postToolUse"})
# beforeShellExecution can ask the user, which preToolUse cannot; so it handles shell commands.
MATCHER = "Write|Edit|MultiEdit|StrReplace|EditNotebook|ApplyPatch|Delete|Read"
INSTALLED = {
    "sessionStart": None,
    "sessionEnd": None,
    "beforeSubmitPrompt": None,
    "preToolUse": MATCHER,
    "postToolUse": MATCHER,
    "beforeShellExecution": None,
    "afterShellExecution": None,
    "subagentStart": None,
    "subagentStop": None,
    "preCompact": None,
    "stop": None,
}


def read(payload: dict[str, Any]) -> HookEvent:
    """Parse a payload into an event."""
    event = text(payload, "hook_event_name") or ""
    arguments = payload.get("tool_input")
    use = choose(USES, text(payload, "tool_name"))
    moment = EVENTS.get(event, Kind.OTHER)
    call = moment in ("before", "after")
    kind = kind_of(moment, use) if call else Kind(moment)
    shell = kind in (Kind.BEFORE_SHELL, Kind.AFTER_SHELL)
    found = files(arguments, use) if call else ()
    if not call and kind in (Kind.BEFORE_READ, Kind.AFTER_EDIT) and (path := text(payload, "file_path")):
        found = (File(path, Action.READ if kind is Kind.BEFORE_READ else Action.EDIT),)
    roots = payload.get("workspace_roots")
    root = roots[0] if isinstance(roots, list) and roots and isinstance(roots[0], str) else ""
    return HookEvent(
        kind=kind,
        tool=NAME,
        session=text(payload, "conversation_id", "session_id") or "",
        subagent=text(payload, "subagent_id"),
        cwd=text(payload, "cwd") or text(mapping(arguments), "working_directory") or root,
        files=found,
        command=(text(payload, "command") or text(mapping(arguments), "command")) if shell else None,
        prompt=text(payload, "prompt") if kind is Kind.PROMPT else None,
        task=text(payload, "task"),
        hears=kind is not Kind.OTHER and event in HEARS,
        raw=payload,
    )


def answer(event: HookEvent, verdict: Verdict) -> HookReply:
    """Format the verdict: a permission if Cursor waits for one, and context for the model if the event supports it."""
    named = text(event.raw, "hook_event_name") or ""
    reply: dict[str, Any] = {}
    if named in PERMISSIONS:
        reply["permission"] = "allow"
        if verdict.decision is Decision.DENY and event.kind in {*BEFORE, Kind.SUBAGENT_START}:
            reply = {"permission": "deny", "user_message": verdict.reason, "agent_message": verdict.reason}
        elif verdict.decision is Decision.ASK and named in ASKS:
            reply = {"permission": "ask", "user_message": verdict.reason, "agent_message": verdict.reason}
        elif verdict.reason and event.kind is not Kind.OTHER:
            reply["user_message"] = verdict.reason
    elif event.kind is Kind.PROMPT:
        refused = verdict.decision is Decision.DENY
        reply = {"continue": not refused, **({"user_message": verdict.reason} if verdict.reason else {})}
    elif event.kind is Kind.STOP and verdict.decision is Decision.DENY:
        reply["followup_message"] = verdict.reason
    if verdict.context and event.hears:
        reply["additional_context"] = verdict.context
    return HookReply(stdout=written(reply).stdout or "{}\n")


def hooks(_scope: SettingsScope, command: str, url: str | None, timeout_s: int) -> Setup:
    """Return the entries of hooks.json."""
    if url:
        raise InvalidArgument("Cursor has no HTTP hooks", hint="Omit --url.")
    elements = []
    for event, matcher in INSTALLED.items():
        wait_s = timeout_s if event in ("preToolUse", "beforeShellExecution") else 10
        entry: dict[str, Any] = {"command": f"{command} --dialect {NAME}", "timeout": wait_s}
        elements.append(Element(("hooks", event), {**entry, **({"matcher": matcher} if matcher else {})}))
    return Setup(
        Path(".cursor/hooks.json"),
        members=(Member(("version",), 1, shared=True),),
        elements=tuple(elements),
        lists=("hooks",),
    )


def mcp(_scope: SettingsScope, command: list[str], url: str | None) -> Setup:
    """Return the entry of mcp.json."""
    entry: dict[str, Any] = {"command": command[0], "args": command[1:]}
    if url:
        entry = {"url": url, "headers": {"Authorization": "Bearer ${env:COORDINATOR_TOKEN}"}}
    return Setup(Path(".cursor/mcp.json"), members=(Member(("mcpServers", "coordinator"), entry),))
