"""Who did what, from the events alone, in the order in which they came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from examples.fleet.board import MANAGER, ROLE, SHARES, Board

__all__ = ["Kill", "Outcome", "tell"]


@dataclass(frozen=True)
class Kill:
    """Who was killed over which share, and when."""

    agent: str
    share: int
    at: datetime


@dataclass
class Outcome:
    """What came of it."""

    board: Board = field(default_factory=Board)
    ends: dict[str, str] = field(default_factory=dict)  # how each agent ended
    acknowledged: list[str] = field(default_factory=list)
    rejected: int | None = None
    cleared: list[str] = field(default_factory=list)  # by the rule, in the transaction of the rejection
    reaped_after_s: float | None = None
    finished_by: str | None = None  # the share of the killed agent

    @property
    def complete(self) -> bool:
        """Whether every share is done and checked, and others finished that of the killed agent."""
        return len(self.board.accepted()) == SHARES and self.finished_by is not None


def tell(events: Sequence[Any], kill: Kill | None) -> Outcome:
    """Print the outcome."""
    outcome = Outcome()
    for event in events:
        changed = outcome.board.apply(event)
        match event.type:
            case "agent.registered" if event.data["role"] == ROLE:
                outcome.ends[event.actor] = "running"
            case "agent.deregistered" if event.data["name"] in outcome.ends:
                outcome.ends[event.data["name"]] = "left"
            case "agent.reaped":
                outcome.ends[event.data["name"]] = f"reaped: {event.data['reason']}"
                if kill and event.data["name"] == kill.agent:
                    outcome.reaped_after_s = (event.at - kill.at).total_seconds()
            case "directive.acknowledged" if event.data["status"] == "done":
                outcome.acknowledged.append(event.actor)
            case "signal.cleared" if event.actor == MANAGER and changed:
                outcome.cleared.append(changed[1])
            case "signal.set" if changed and changed[1] == "REJECTED" and event.actor == MANAGER:
                outcome.rejected = changed[0]
            case "signal.set" if kill and changed == (kill.share, "COMPLETED"):
                outcome.finished_by = event.actor
    return outcome


def lines(outcome: Outcome, kill: Kill | None) -> list[str]:
    """Write the outcome for a person."""
    done: dict[str, Counter[str]] = {agent: Counter() for agent in outcome.ends}
    total: Counter[str] = Counter()
    for number in outcome.board.accepted():
        flags = outcome.board.shares[number]
        result = flags["COMPLETED"].value
        done[flags["COMPLETED"].actor].update({"shares": 1, **result})
        done[flags["QA_PASSED"].actor].update(checked=1)
        total.update(result)
    columns = ("shares", "files", "lines", "checked")
    text = ["agent    " + "".join(f"{column:>9}" for column in columns) + "  end"]
    for agent, end in sorted(outcome.ends.items()):
        text.append(f"{agent:9}" + "".join(f"{done[agent][column]:9,}" for column in columns) + f"  {end}")
    counted = ", ".join(f"{number:,} {what}" for what, number in total.items())
    text += ["", f"Counted   {counted} in {len(outcome.board.accepted())} of {SHARES} shares"]
    if outcome.rejected is not None:
        again = outcome.board.shares[outcome.rejected].get("COMPLETED")
        text.append(
            f"Rejected  share {outcome.rejected}: {' and '.join(sorted(outcome.cleared))} cleared in the same transaction; "
            f"done again by {again.actor if again else 'nobody'}"
        )
    text.append(f"Directive acknowledged by {len(outcome.acknowledged)} agents")
    if kill:
        reaped = "not reaped" if outcome.reaped_after_s is None else f"reaped after {outcome.reaped_after_s:.1f} s"
        text.append(
            f"Killed    {kill.agent} over share {kill.share}: {reaped}, share finished by {outcome.finished_by or 'nobody'}"
        )
    return text
