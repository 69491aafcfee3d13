"""Claude Code: hooks in settings.json, as commands or as HTTP requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.hooks.dialects.entries import Element, Member, SettingsScope, Setup
from coordinator.hooks.dialects.family import CALLS, LIFE, Family

__all__ = ["answer", "hooks", "mcp", "read"]

# Text after a Stop makes the session continue, so it is not sent there.
HEARS = frozenset(
    {"SessionStart", "UserPromptSubmit", "PreToolUse", "PostToolUse", "PostToolUseFailure", "SubagentStart"}
)
CLAUDE = Family(name="claude-code", events=LIFE, uses=CALLS, hears=HEARS)
MATCHERS = {
    "PreToolUse": "Read|Edit|MultiEdit|Write|NotebookEdit|Bash|PowerShell",
    "PostToolUse": "Read|Edit|MultiEdit|Write|NotebookEdit|Bash|PowerShell",
    "PostToolUseFailure": "Edit|MultiEdit|Write|NotebookEdit|Bash|PowerShell",
}
QUICK_S = 10  # for hooks that wait for nobody

read = CLAUDE.read
answer = CLAUDE.answer


def hooks(_scope: SettingsScope, command: str, url: str | None, timeout_s: int) -> Setup:
    """Return the entries of settings.json. Claude Code sends no HTTP request when a session starts, so that event stays a command."""
    elements = []
    for event in LIFE:
        wait_s = timeout_s if event == "PreToolUse" else QUICK_S
        handler: dict[str, Any] = {"type": "command", "command": command, "timeout": wait_s}
        if url and event != "SessionStart":
            handler = {
                "type": "http",
                "url": url,
                "timeout": wait_s,
                "headers": {"Authorization": "Bearer $COORDINATOR_TOKEN"},
                "allowedEnvVars": ["COORDINATOR_TOKEN"],
            }
        group = {"matcher": MATCHERS[event], "hooks": [handler]} if event in MATCHERS else {"hooks": [handler]}
        elements.append(Element(("hooks", event), group))
    file = Path(".claude/settings.json")
    return Setup(file, elements=tuple(elements), lists=("hooks",), moved=("CLAUDE_CONFIG_DIR", ".claude"))


def mcp(scope: SettingsScope, command: list[str], url: str | None) -> Setup:
    """Return the entry of .mcp.json, or of the user's .claude.json."""
    entry: dict[str, Any] = {"type": "stdio", "command": command[0], "args": command[1:]}
    if url:
        entry = {"type": "http", "url": url, "headers": {"Authorization": "Bearer ${COORDINATOR_TOKEN}"}}
    file = Path(".mcp.json" if scope is SettingsScope.PROJECT else ".claude.json")
    return Setup(file, members=(Member(("mcpServers", "coordinator"), entry),), moved=("CLAUDE_CONFIG_DIR", "."))
