"""Messages: what was said in a session, and windows of it for a model."""

from __future__ import annotations

from coordinator.model.log import LogEntry, LogReceipt
from coordinator.model.operation import InProject, JsonText

__all__ = ["Append", "Window"]


class Append(InProject[LogReceipt], frozen=True, kw_only=True):
    """Append a message to a session; the first message creates it.

    With ``role``, ``content`` is the content of the message; without it, a whole message: an object in any format. Both
    are returned byte for byte. ``tokens``: how many tokens of a model it takes, by default one per four bytes. ``uid``
    makes a repetition harmless. ``needs``: the number of the earliest message that it needs, or -1 for the previous
    one; known formats show this themselves. ``expect`` and ``epoch``: as in ``logs.Append``, which appends several.

    Raises: ``Conflict`` with the current state in ``detail``, or if the ``uid`` belongs to other content.
    """

    function = "message_append"
    speakers = ("actor",)
    conditional = True
    max_bytes = "log_body"
    examples = {"role": "user", "content": "What is the weather in Paris?"}

    session: str
    content: JsonText
    role: str | None = None
    tokens: int | None = None
    uid: str | None = None
    needs: int | None = None
    expect: int | None = None
    epoch: str | None = None
    actor: str | None = None


class Window(InProject[list[LogEntry]], frozen=True, kw_only=True):
    """Return the longest tail of a conversation within ``last`` messages, ``turns`` and ``tokens``, whichever are given.

    It never begins between a tool call and its result, or between reasoning and the message that needs it. A turn
    begins with a message of a user, and so does a window with ``turns``. ``complete`` omits calls without a result,
    results without a call, and messages that need them.

    Raises: ``NotFound`` if there is no such session.
    """

    function = "message_window"
    reads = True
    max_result = "window_bytes"

    session: str
    last: int | None = None
    turns: int | None = None
    tokens: int | None = None
    complete: bool = False
