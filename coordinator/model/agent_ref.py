"""References to an agent in a call: its id, or its name in the call's project.

``coordinator.agent_find`` finds an agent by name, in the statement of the call: see ``db.call``.
"""

from __future__ import annotations

import re
from abc import ABC
from typing import TYPE_CHECKING, Any, get_args
from uuid import UUID

__all__ = ["AgentRef", "agent_ref", "is_agent_id", "takes_agent"]

_ID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

if TYPE_CHECKING:
    AgentRef = UUID | str
else:

    class AgentRef(ABC):  # noqa: B024 - what counts is who is registered
        """An id or a name; msgspec uses a hook to distinguish them."""

    AgentRef.register(UUID)
    AgentRef.register(str)


def is_agent_id(text: str) -> bool:
    """Return whether a text is the id of an agent rather than a name."""
    return _ID.fullmatch(text) is not None


def agent_ref(text: str) -> AgentRef:
    """Read an id or a name."""
    return UUID(text) if is_agent_id(text) else text


def takes_agent(type: Any) -> bool:
    """Return whether a type refers to an agent, by id or name."""
    return any(one is AgentRef for one in (type, *get_args(type)))
