"""One module for each tool: the format of its events, the files that its calls name, and the answers that it expects.

Each module has ``read(payload) -> HookEvent`` and ``answer(event, verdict) -> HookReply``, and knows where the tool's
settings are and which entries belong there. Unknown fields are ignored; the answer to an unknown event is empty.
"""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from typing import Any, Protocol, cast

import msgspec

from coordinator.errors import InvalidArgument
from coordinator.hooks.dialects.entries import SettingsScope, Setup
from coordinator.hooks.dialects.reading import text
from coordinator.hooks.event import HookEvent, HookReply, Verdict
from coordinator.suggestion import nearest

__all__ = ["NAMES", "PAYLOAD_BYTES", "Dialect", "decode", "load", "recognise"]

NAMES = ("claude-code", "codex", "copilot", "cursor", "gemini", "vscode")
PAYLOAD_BYTES = 8 << 20

CURSOR = frozenset({"conversation_id", "cursor_version", "workspace_roots"})
GEMINI = frozenset(
    {
        "BeforeTool",
        "AfterTool",
        "BeforeAgent",
        "AfterAgent",
        "BeforeModel",
        "AfterModel",
        "BeforeToolSelection",
        "PreCompress",
    }
)
COPILOT = frozenset({"stop_reason", "custom_instructions", "error_context"})

# A program that cuts a text may cut a character in two, and escape the half that is left. JSON allows it, UTF-8 does not.
# Compiled at first use.
LONE = rb"\\(?:[^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2}))"


class Dialect(Protocol):
    """The interface of each module."""

    def read(self, payload: dict[str, Any]) -> HookEvent:
        """Parse a payload into an event."""

    def answer(self, event: HookEvent, verdict: Verdict) -> HookReply:
        """Return the verdict in the format of the tool."""

    def hooks(self, scope: SettingsScope, /, command: str, url: str | None, timeout_s: int) -> Setup:
        """Return the file and the entries with which the tool calls ``command``, or posts to ``url``."""

    def mcp(self, scope: SettingsScope, /, command: list[str], url: str | None) -> Setup:
        """Return the file and the entry with which the tool starts the MCP server, or connects to ``url``."""


@cache
def load(name: str) -> Dialect:
    """Return a dialect by its name."""
    if name not in NAMES:
        meant = nearest(name, NAMES)
        hint = f'Did you mean "{meant}"?' if meant else f"Known are {', '.join(NAMES)}."
        raise InvalidArgument(f'unknown dialect "{name[:100]}"', hint=hint)
    return cast("Dialect", import_module(f"coordinator.hooks.dialects.{name.replace('-', '_')}"))


def decode(body: bytes) -> dict[str, Any]:
    """Return the payload of a hook.

    Raises:
        InvalidArgument: It is not a JSON object, or larger than ``PAYLOAD_BYTES``.

    """
    if len(body) > PAYLOAD_BYTES:
        raise InvalidArgument(
            f"hook payload is larger than {PAYLOAD_BYTES} bytes",
            hint="Write the file in several smaller edits.",
        )
    try:
        try:
            return msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError:
            whole = re.sub(LONE, _replaced, body)
            if whole == body:
                raise
            return msgspec.json.decode(whole, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InvalidArgument(
            f"hook payload is not a JSON object: {reason}",
            hint="The tool writes it on standard input; see docs/agents.md.",
        ) from None


def _replaced(found: re.Match[bytes]) -> bytes:
    return found[0] if found["lone"] is None else rb"\ufffd"


def recognise(payload: dict[str, Any]) -> str:
    """Return the dialect of a payload.

    Several tools read the settings of others, so the file that contains a hook does not determine which tool calls it.
    """
    event = text(payload, "hook_event_name", "hookEventName") or ""
    if CURSOR & payload.keys():
        return "cursor"
    if event in GEMINI:
        return "gemini"
    if "turn_id" in payload:
        return "codex"
    if "sessionId" in payload:
        return "vscode" if event else "copilot"
    if "timestamp" not in payload:
        return "claude-code"
    if event in ("SessionEnd", "Notification") or (event == "SessionStart" and payload.get("source") != "new"):
        return "gemini" if "transcript_path" in payload else "copilot"
    if COPILOT & payload.keys() or not payload.keys() & {"transcript_path", "tool_use_id"}:
        return "copilot"
    return "vscode"
