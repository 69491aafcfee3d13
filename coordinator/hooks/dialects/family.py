"""The protocol that Claude Code introduced, and that Codex, Copilot and VS Code adopted with differences.

A dialect of it has a table of events, a table of calls, and what an answer can contain at each event.
"""

from __future__ import annotations

from typing import Any

import msgspec

from coordinator.hooks.dialects.reading import Effect, choose, files, kind_of, mapping, text
from coordinator.hooks.event import Decision, HookEvent, HookReply, Kind, Verdict

__all__ = ["BEFORE", "CALLS", "EDITING", "LIFE", "Family", "written"]

BEFORE = frozenset({Kind.BEFORE_READ, Kind.BEFORE_EDIT, Kind.BEFORE_SHELL})
STOPS = frozenset({Kind.STOP, Kind.SUBAGENT_STOP})
RESUMED = frozenset({"resume", "compact"})

# event → before or after a call, or the kind
LIFE: dict[str, str] = {
    "SessionStart": Kind.SESSION_START,
    "SessionEnd": Kind.SESSION_END,
    "UserPromptSubmit": Kind.PROMPT,
    "PreToolUse": "before",
    "PostToolUse": "after",
    "PostToolUseFailure": "after",
    "SubagentStart": Kind.SUBAGENT_START,
    "SubagentStop": Kind.SUBAGENT_STOP,
    "PreCompact": Kind.COMPACT,
    "Stop": Kind.STOP,
}
EDITING: dict[str, Effect] = {
    "edit": Effect.EDIT,
    "multiedit": Effect.EDIT,
    "notebookedit": Effect.EDIT,
    "write": Effect.WRITE,
    "apply_patch": Effect.EDIT,
}
CALLS: dict[str, Effect] = {**EDITING, "read": Effect.READ, "bash": Effect.SHELL, "powershell": Effect.SHELL}


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """One dialect: ``hears`` are the events whose additionalContext reaches the model, ``ends`` the events that end a session for it."""

    name: str
    events: dict[str, str]
    uses: dict[str, Effect]
    hears: frozenset[str]
    asks: bool = True
    flat: bool = False  # the permission is also outside of hookSpecificOutput

    def read(self, payload: dict[str, Any]) -> HookEvent:
        """Parse a payload into an event."""
        named = text(payload, "hook_event_name", "hookEventName") or ""
        arguments = payload.get("tool_input", payload.get("toolInput"))
        use = choose(self.uses, text(payload, "tool_name", "toolName"))
        moment = self.events.get(named, Kind.OTHER)
        kind = kind_of(moment, use) if moment in ("before", "after") else Kind(moment)
        call = kind_of("before", use) is not Kind.OTHER and moment in ("before", "after")
        return HookEvent(
            kind=kind,
            tool=self.name,
            session=text(payload, "session_id", "sessionId") or "",
            subagent=text(payload, "agent_id", "agentId"),
            cwd=text(payload, "cwd") or "",
            files=files(arguments, use) if call else (),
            command=text(mapping(arguments), "command") if call and use is Effect.SHELL else None,
            prompt=text(payload, "prompt") if kind is Kind.PROMPT else None,
            task=text(payload, "initial_prompt", "session_title", "task"),
            resumed=kind is Kind.SESSION_START and payload.get("source") in RESUMED,
            hears=kind is not Kind.OTHER and named in self.hears,
            raw=payload,
        )

    def answer(self, event: HookEvent, verdict: Verdict) -> HookReply:
        """Format the verdict for the tool."""
        named = text(event.raw, "hook_event_name", "hookEventName") or ""
        reply: dict[str, Any] = {}
        specific: dict[str, Any] = {}
        refused = verdict.decision is Decision.DENY or (verdict.decision is Decision.ASK and self.asks)
        if event.kind is Kind.OTHER:
            return HookReply()
        if refused and event.kind in BEFORE:
            specific["permissionDecision"] = str(verdict.decision)
            specific["permissionDecisionReason"] = verdict.reason
            if self.flat:
                reply |= specific
        elif verdict.decision is Decision.DENY and event.kind in {Kind.PROMPT, *STOPS}:
            reply["decision"] = "block"
            reply["reason"] = verdict.reason
        elif verdict.reason:
            reply["systemMessage"] = verdict.reason
        if verdict.context and event.hears:
            specific["additionalContext"] = verdict.context
            if self.flat:
                reply["additionalContext"] = verdict.context
        if specific:
            reply["hookSpecificOutput"] = {"hookEventName": named, **specific}
        return written(reply)


def written(reply: dict[str, Any]) -> HookReply:
    """Return a reply that prints an object, or nothing if it is empty."""
    return HookReply(stdout=msgspec.json.encode(reply).decode() + "\n") if reply else HookReply()
