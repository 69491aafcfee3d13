"""Events and verdicts of hooks, for every tool."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

__all__ = ["Action", "Decision", "File", "HookEvent", "HookReply", "Kind", "Verdict"]


class Kind(StrEnum):
    """When the tool called. ``OTHER`` is an event that a dialect does not know; its answer is empty."""

    SESSION_START = "session_start"
    SESSION_END = "session_end"
    PROMPT = "prompt"
    BEFORE_READ = "before_read"
    AFTER_READ = "after_read"
    BEFORE_EDIT = "before_edit"
    AFTER_EDIT = "after_edit"
    BEFORE_SHELL = "before_shell"
    AFTER_SHELL = "after_shell"
    STOP = "stop"
    SUBAGENT_START = "subagent_start"
    SUBAGENT_STOP = "subagent_stop"
    COMPACT = "compact"
    OTHER = "other"


class Action(StrEnum):
    """What happens to a file. A rename consists of the old path and the new one, each as a file."""

    READ = "read"
    WRITE = "write"
    EDIT = "edit"
    RENAME = "rename"
    DELETE = "delete"


class File(msgspec.Struct, frozen=True):
    """A path as written in the payload, absolute or relative to the event's ``cwd``."""

    path: str
    action: Action


class HookEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a hook. ``session`` and ``subagent`` are the tool's own ids, ``tool`` is the dialect.

    ``session`` is empty if the payload does not contain one. ``hears``: a verdict's context reaches the model at this
    event. ``task`` is what the session works on, if the payload contains it.
    """

    kind: Kind
    tool: str
    session: str
    cwd: str
    subagent: str | None = None
    files: tuple[File, ...] = ()
    command: str | None = None
    prompt: str | None = None
    task: str | None = None
    resumed: bool = False
    hears: bool = False
    raw: dict[str, Any] = {}


class Decision(StrEnum):
    """The decision about the call. ``ALLOW`` never skips the tool's own question to its user."""

    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"


class Verdict(msgspec.Struct, frozen=True):
    """The answer to an event. Without a ``decision``, the tool proceeds as without hooks.

    ``context`` is text for the model. A ``reason`` without a denial or a question is shown to the user.
    """

    decision: Decision | None = None
    reason: str = ""
    context: str | None = None


class HookReply(msgspec.Struct, frozen=True):
    """A verdict in the format of a tool: the output of its hook, and the exit code."""

    stdout: str = ""
    stderr: str = ""
    exit_code: int = 0
