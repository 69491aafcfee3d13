"""Gemini CLI: hooks in settings.json, with timeouts in milliseconds.

It announces a compaction before each request to the model, even if it does not compact, so that is not treated as an
event here. The prompt that a hook receives begins with the context that another hook has added.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from coordinator.errors import InvalidArgument
from coordinator.hooks.dialects.entries import Element, Member, SettingsScope, Setup
from coordinator.hooks.dialects.family import BEFORE, Family, written
from coordinator.hooks.dialects.reading import Effect, text
from coordinator.hooks.event import Decision, HookEvent, HookReply, Kind, Verdict

__all__ = ["answer", "hooks", "mcp", "read"]

NAME = "gemini"
EVENTS: dict[str, str] = {
    "SessionStart": Kind.SESSION_START,
    "SessionEnd": Kind.SESSION_END,
    "BeforeAgent": Kind.PROMPT,
    "BeforeTool": "before",
    "AfterTool": "after",
    "AfterAgent": Kind.STOP,
}
USES = {
    "write_file": Effect.WRITE,
    "replace": Effect.EDIT,
    "edit": Effect.EDIT,
    "read_file": Effect.READ,
    "read_many_files": Effect.READ,
    "run_shell_command": Effect.SHELL,
}
GEMINI = Family(name=NAME, events=EVENTS, uses=USES, hears=frozenset({"SessionStart", "BeforeAgent", "AfterTool"}))
MATCHER = "^(write_file|replace|read_file|run_shell_command)$"
ADDED = re.compile(r"\A(<hook_context>.*?</hook_context>\s*)+", re.DOTALL)
SETTINGS = Path(".gemini/settings.json")
MOVED = ("GEMINI_CLI_HOME", ".")


def read(payload: dict[str, Any]) -> HookEvent:
    """Parse a payload into an event."""
    event = GEMINI.read(payload)
    return replace(event, prompt=ADDED.sub("", event.prompt)) if event.prompt else event


def answer(event: HookEvent, verdict: Verdict) -> HookReply:
    """Format the verdict as a decision, a message to the user, and context for the model."""
    reply: dict[str, Any] = {}
    if event.kind is Kind.OTHER:
        return HookReply()
    if verdict.decision in (Decision.DENY, Decision.ASK) and event.kind in BEFORE:
        reply = {"decision": str(verdict.decision), "reason": verdict.reason}
        if verdict.decision is Decision.ASK:
            reply["systemMessage"] = verdict.reason
    elif verdict.decision is Decision.DENY and event.kind in (Kind.PROMPT, Kind.STOP):
        reply = {"decision": "deny", "reason": verdict.reason}
    elif verdict.reason:
        reply = {"systemMessage": verdict.reason}
    if verdict.context and event.hears:
        named = text(event.raw, "hook_event_name")
        reply["hookSpecificOutput"] = {"hookEventName": named, "additionalContext": verdict.context}
    return written(reply)


def hooks(_scope: SettingsScope, command: str, url: str | None, timeout_s: int) -> Setup:
    """Return the entries of settings.json."""
    if url:
        raise InvalidArgument("Gemini CLI has no HTTP hooks", hint="Omit --url.")
    elements = []
    for event, moment in EVENTS.items():
        handler = {
            "type": "command",
            "name": "coordinator",
            "command": f"{command} --dialect {NAME}",
            "timeout": (timeout_s if event == "BeforeTool" else 10) * 1000,
        }
        group: dict[str, Any] = {"matcher": MATCHER} if moment in ("before", "after") else {}
        elements.append(Element(("hooks", event), {**group, "hooks": [handler]}))
    return Setup(SETTINGS, elements=tuple(elements), lists=("hooks",), moved=MOVED)


def mcp(_scope: SettingsScope, command: list[str], url: str | None) -> Setup:
    """Return the entry of settings.json."""
    entry: dict[str, Any] = {"command": command[0], "args": command[1:]}
    if url:
        entry = {"httpUrl": url, "headers": {"Authorization": "Bearer $COORDINATOR_TOKEN"}}
    return Setup(SETTINGS, members=(Member(("mcpServers", "coordinator"), entry),), moved=MOVED)
