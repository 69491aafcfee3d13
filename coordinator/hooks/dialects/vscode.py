"""VS Code's agents, with the names of their tools. Their hooks are in the same file as those of Copilot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from coordinator.errors import InvalidArgument
from coordinator.hooks.dialects import copilot
from coordinator.hooks.dialects.entries import Member, SettingsScope, Setup
from coordinator.hooks.dialects.family import CALLS, LIFE, Family
from coordinator.hooks.dialects.reading import Effect

__all__ = ["HEARS_PROMPTS", "answer", "hooks", "mcp", "read"]

HEARS_PROMPTS = False  # text at a prompt does not reach the model

USES = {
    **CALLS,
    "create_file": Effect.WRITE,
    "createfile": Effect.WRITE,
    "insert_edit_into_file": Effect.EDIT,
    "replace_string_in_file": Effect.EDIT,
    "multi_replace_string_in_file": Effect.EDIT,
    "edit_notebook_file": Effect.EDIT,
    "editfiles": Effect.EDIT,
    "deletefile": Effect.DELETE,
    "delete_file": Effect.DELETE,
    "rename_file": Effect.RENAME,
    "read_file": Effect.READ,
    "readfile": Effect.READ,
    "run_in_terminal": Effect.SHELL,
    "runterminalcommand": Effect.SHELL,
}
HEARS = frozenset({"SessionStart", "PreToolUse", "PostToolUse", "SubagentStart"})
VSCODE = Family(name="vscode", events=LIFE, uses=USES, hears=HEARS, flat=True)

read = VSCODE.read
answer = VSCODE.answer


def hooks(scope: SettingsScope, command: str, url: str | None, timeout_s: int) -> Setup:
    """Return the entries of the file that VS Code shares with Copilot."""
    if url:
        raise InvalidArgument("VS Code has no HTTP hooks", hint="Omit --url.")
    return copilot.hooks(scope, command, url, timeout_s)


def mcp(scope: SettingsScope, command: list[str], url: str | None) -> Setup:
    """Return the entry of .vscode/mcp.json. The user's own file is in a folder of VS Code's profile."""
    if scope is SettingsScope.USER:
        hint = "Use --project, or run the command “MCP: Open User Configuration” in VS Code."
        raise InvalidArgument("the place of VS Code's user configuration depends on the profile", hint=hint)
    entry: dict[str, Any] = {"type": "stdio", "command": command[0], "args": command[1:]}
    if url:
        entry = {"type": "http", "url": url, "headers": {"Authorization": "Bearer ${env:COORDINATOR_TOKEN}"}}
    return Setup(Path(".vscode/mcp.json"), members=(Member(("servers", "coordinator"), entry),))
