"""Codex: hooks in hooks.json, and the MCP server in config.toml. It has no HTTP hooks, and a hook cannot make it ask the user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.errors import InvalidArgument
from coordinator.hooks.dialects.entries import Element, Member, SettingsScope, Setup
from coordinator.hooks.dialects.family import CALLS, LIFE, Family
from coordinator.hooks.dialects.reading import Effect

__all__ = ["REPORTS_READS", "answer", "hooks", "mcp", "read"]

REPORTS_READS = False  # it reads with shell commands

USES = {
    **CALLS,
    "shell": Effect.SHELL,
    "local_shell": Effect.SHELL,
    "shell_command": Effect.SHELL,
    "exec_command": Effect.SHELL,
}
EVENTS = {event: kind for event, kind in LIFE.items() if event != "PostToolUseFailure"}
HEARS = frozenset({"SessionStart", "UserPromptSubmit", "PreToolUse", "PostToolUse", "SubagentStart"})
CODEX = Family(name="codex", events=EVENTS, uses=USES, hears=HEARS, asks=False)
MATCHED = ("PreToolUse", "PostToolUse")
MATCHER = "^(Bash|apply_patch|Edit|Write)$"
MOVED = ("CODEX_HOME", ".codex")
QUICK_S = 3  # Codex's limit when a session ends

read = CODEX.read
answer = CODEX.answer


def hooks(_scope: SettingsScope, command: str, url: str | None, timeout_s: int) -> Setup:
    """Return the entries of hooks.json."""
    if url:
        raise InvalidArgument(
            "Codex has no HTTP hooks", hint="Omit --url; the command can reach a daemon by --url after --."
        )
    elements = []
    for event in EVENTS:
        wait_s = timeout_s if event == "PreToolUse" else QUICK_S if event == "SessionEnd" else 10
        handler = {"type": "command", "command": f"{command} --dialect codex", "timeout": wait_s}
        group: dict[str, Any] = {"matcher": MATCHER} if event in MATCHED else {}
        elements.append(Element(("hooks", event), {**group, "hooks": [handler]}))
    note = "Codex runs new hooks only after you trust them: start codex, and accept them under /hooks."
    return Setup(Path(".codex/hooks.json"), elements=tuple(elements), lists=("hooks",), moved=MOVED, note=note)


def mcp(_scope: SettingsScope, command: list[str], url: str | None) -> Setup:
    """Return the table of config.toml."""
    entry: dict[str, Any] = {"command": command[0], "args": command[1:]}
    if url:
        entry = {"url": url, "bearer_token_env_var": "COORDINATOR_TOKEN"}
    members = (Member(("mcp_servers", "coordinator"), entry),)
    return Setup(Path(".codex/config.toml"), members=members, moved=MOVED)
