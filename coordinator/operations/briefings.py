"""Briefings: what an agent should know before it continues."""

from __future__ import annotations

from datetime import timedelta

from coordinator.model.briefing import Briefing, BriefingItem
from coordinator.model.operation import InProject, Operation

__all__ = ["List", "Prune", "Read", "Subscribe"]


class Read(InProject[list[BriefingItem]], frozen=True, kw_only=True):
    """Brief an agent: return its directives, changes of the signals that it watches, the other agents, and the locks that they hold.

    Returned directives become seen. ``news``: only directives and signals, and only what is new: nothing is returned
    twice as news, whichever process asks. ``again``: also directives that it has seen and not answered, and all signals
    that it watches.

    Raises: ``NotFound`` if no agent of this name or id is known.
    """

    function = "briefing_read"
    speakers = ("agent",)

    agent: str
    news: bool = False
    again: bool = True


class Subscribe(InProject[Briefing], frozen=True, kw_only=True):
    """Choose the signals whose changes an agent is told about, by patterns such as ``build/*``. Without patterns, the subscription ends.

    Raises: ``NotFound`` if no agent of this name or id is known.
    """

    function = "briefing_subscribe"
    speakers = ("agent",)
    examples = {"patterns": ["build/*"]}

    agent: str
    patterns: list[str]


class List(InProject[list[Briefing]], frozen=True, kw_only=True):
    """List what agents watch and were told, by name."""

    function = "briefing_list"
    reads = True
    page_by = ("agent",)

    after: list[str] | None = None
    limit: int = 1000


class Prune(Operation[int], frozen=True, kw_only=True):
    """Delete the records of agents that have read no news for ``retention``; return how many, at most ``limit``."""

    function = "briefing_prune"
    internal = True

    retention: timedelta = timedelta(days=30)
    limit: int = 10_000
