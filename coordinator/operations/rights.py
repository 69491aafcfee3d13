"""Rights: the least role that may call an operation, and in which project it works. The same table as the view ``rights``.

An operation that is not here is open to nobody but the daemon itself. What is done in one project is told by the field
``project``, or by ``agent`` where there is no other: an agent is of one project. Everything else concerns all projects,
and so does a call with ``everywhere``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from coordinator.model.token import Role

__all__ = ["ANYWHERE", "NARROWED", "RIGHTS"]

# What tells nothing of any project: open to a token of one, too.
ANYWHERE = frozenset({"event_head"})

# What concerns all projects, and gives a token of one the rows of its own: the field that names a row's project.
NARROWED: Mapping[str, str] = MappingProxyType({"project_list": "name"})

RIGHTS: Mapping[str, Role] = MappingProxyType(
    {
        function: role
        for role, functions in {
            Role.reader: (
                "agent_list",
                "directive_inbox",
                "directive_list",
                "directive_pending",
                "event_head",
                "events_since",
                "lock_check",
                "lock_list",
                "lock_show",
                "lock_waiting",
                "project_list",
                "project_show",
                "rule_list",
                "signal_get",
                "signal_list",
            ),
            Role.agent: (
                "agent_deregister",
                "agent_heartbeat",
                "agent_register",
                "directive_acknowledge",
                "event_emit",
                "lock_acquire",
                "lock_cancel",
                "lock_poll",
                "lock_release",
                "lock_renew",
                "signal_delete",
                "signal_set",
            ),
            Role.manager: (
                "directive_revoke",
                "directive_send",
                "lock_break",
                "rule_delete",
                "rule_set",
            ),
            Role.admin: (
                "project_create",
                "project_delete",
                "token_create",
                "token_list",
                "token_revoke",
            ),
        }.items()
        for function in functions
    }
)
