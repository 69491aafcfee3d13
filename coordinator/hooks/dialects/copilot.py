"""GitHub Copilot CLI and its cloud agent, in both formats of their payloads: Copilot's own, and VS Code's.

Copilot and VS Code read the same files, so both share one set of entries, and the payload shows which one calls.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from coordinator.hooks.dialects import claude_code
from coordinator.hooks.dialects.entries import Element, Member, SettingsScope, Setup
from coordinator.hooks.dialects.family import CALLS, LIFE, Family
from coordinator.hooks.dialects.reading import Effect
from coordinator.hooks.event import HookEvent

__all__ = ["HEARS_PROMPTS", "answer", "hooks", "mcp", "read"]

HEARS_PROMPTS = False  # text at a prompt does not reach the model

USES = {**CALLS, "view": Effect.READ, "create": Effect.WRITE, "str_replace_editor": Effect.EDIT}
HEARS = frozenset({"SessionStart", "PostToolUse", "PostToolUseFailure", "SubagentStart"})
COPILOT = Family(name="copilot", events=LIFE, uses=USES, hears=HEARS, flat=True)
MOVED = ("COPILOT_HOME", ".copilot")
MATCHER = "Read|Write|Edit|Bash|view|create|edit|str_replace_editor|apply_patch|bash|powershell"
FIELDS = {
    "sessionId": "session_id",
    "agentId": "agent_id",
    "toolName": "tool_name",
    "toolArgs": "tool_input",
    "initialPrompt": "initial_prompt",
}
# Copilot's own payloads do not name the event: the first of these fields that is present determines it.
EVENT_OF = {
    "toolResult": "PostToolUse",
    "errorContext": "ErrorOccurred",
    "error": "PostToolUseFailure",
    "toolName": "PreToolUse",
    "transformedPrompt": "UserPromptTransformed",
    "prompt": "UserPromptSubmit",
    "agentId": "SubagentStop",
    "agentName": "SubagentStart",
    "stopReason": "Stop",
    "trigger": "PreCompact",
    "reason": "SessionEnd",
    "source": "SessionStart",
}

answer = COPILOT.answer


def read(payload: dict[str, Any]) -> HookEvent:
    """Parse a payload into an event."""
    return COPILOT.read(payload if "hook_event_name" in payload else _renamed(payload))


def _renamed(payload: dict[str, Any]) -> dict[str, Any]:
    """Convert a payload in Copilot's own format to VS Code's."""
    renamed = {FIELDS.get(name, name): value for name, value in payload.items()}
    if isinstance(arguments := renamed.get("tool_input"), str):
        with suppress(msgspec.MsgspecError):  # older versions send JSON inside a string; a patch is a string, too
            renamed["tool_input"] = msgspec.json.decode(arguments)
    event = next((event for field, event in EVENT_OF.items() if field in payload), "")
    return {**renamed, "hook_event_name": event}


def hooks(scope: SettingsScope, command: str, url: str | None, timeout_s: int) -> Setup:
    """Return the entries of a separate file among the hooks. Requests before a call must use HTTPS."""
    elements = []
    for event in LIFE:
        wait_s = timeout_s if event == "PreToolUse" else 10
        entry: dict[str, Any] = {"type": "command", "command": command, "timeout": wait_s}
        if url:
            entry = {
                "type": "http",
                "url": url,
                "timeout": wait_s,
                "headers": {"Authorization": "Bearer $COORDINATOR_TOKEN"},
                "allowedEnvVars": ["COORDINATOR_TOKEN"],
            }
        if "ToolUse" in event:
            entry["matcher"] = MATCHER
        elements.append(Element(("hooks", event), entry))
    folder = Path(".github" if scope is SettingsScope.PROJECT else ".copilot")
    return Setup(
        folder / "hooks" / "coordinator.json",
        members=(Member(("version",), 1, shared=True),),
        elements=tuple(elements),
        lists=("hooks",),
        moved=MOVED,
        note="Copilot and VS Code read the same file.",
    )


def mcp(scope: SettingsScope, command: list[str], url: str | None) -> Setup:
    """Return the entry of the user's mcp-config.json; in a repository, Copilot reads that of Claude Code."""
    if scope is SettingsScope.PROJECT:
        return claude_code.mcp(scope, command, url)
    entry: dict[str, Any] = {"type": "stdio", "command": command[0], "args": command[1:], "tools": ["*"]}
    if url:
        header = {"Authorization": "Bearer $COORDINATOR_TOKEN"}
        entry = {"type": "http", "url": url, "headers": header, "tools": ["*"]}
    members = (Member(("mcpServers", "coordinator"), entry),)
    return Setup(Path(".copilot/mcp-config.json"), members=members, moved=MOVED)
