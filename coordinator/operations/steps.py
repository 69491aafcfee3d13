"""Steps: what an agent thought, did and saw in a session."""

from __future__ import annotations

from coordinator.model.log import LogReceipt
from coordinator.model.operation import InProject, JsonText

__all__ = ["Append"]


class Append(InProject[LogReceipt], frozen=True, kw_only=True):
    """Append a step to a session; the first step creates it.

    ``step`` is an object with at least one of ``thought``, ``action`` and ``observation``; each is any JSON value, and
    is returned byte for byte. ``uid`` makes a repetition harmless. ``expect`` and ``epoch``: as in ``logs.Append``.

    Raises: ``Conflict`` with the current state in ``detail``, or if the ``uid`` belongs to other content.
    """

    function = "step_append"
    speakers = ("actor",)
    conditional = True
    max_bytes = "log_body"
    examples = {"step": {"thought": "Look first.", "action": {"run": "ls"}}}

    session: str
    step: JsonText
    uid: str | None = None
    expect: int | None = None
    epoch: str | None = None
    actor: str | None = None
