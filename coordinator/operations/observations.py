"""Observations: what an agent noticed."""

from __future__ import annotations

from coordinator.model.log import LogReceipt
from coordinator.model.operation import InProject, JsonText

__all__ = ["Append"]


class Append(InProject[LogReceipt], frozen=True, kw_only=True):
    """Append an observation, a text or any JSON value, to those of ``agent``: a name, or the id of one that is or was registered.

    ``uid`` makes a repetition harmless.

    Raises: ``NotFound`` for an unknown id; ``Conflict`` if the ``uid`` belongs to other content.
    """

    function = "observation_append"
    speakers = ("agent", "actor")
    max_bytes = "log_body"
    examples = {"content": "The build takes ten minutes."}

    content: JsonText
    agent: str | None = None
    uid: str | None = None
    actor: str | None = None
