"""Checks a run of `examples/fleet`, by its events alone, against everything that the run promises."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from coordinator.model.event import Event
from examples.fleet.board import AGENTS, MANAGER, ROLE, SHARES, Board
from tests.waiting import DEADLINE_S

__all__ = ["faults"]

REAPED_WITHIN_S = DEADLINE_S  # 2 on a machine that is not busy, after the server's first 10 seconds


@dataclass
class _Run:
    """What the events say, where the board at the end does not."""

    board: Board = field(default_factory=Board)
    agents: list[str] = field(default_factory=list)
    left: set[str] = field(default_factory=set)
    reaped: list[tuple[str, Any]] = field(default_factory=list)
    reaped_after_s: float = 0.0
    last_seen: dict[str, datetime] = field(default_factory=dict)
    claims: dict[int, str] = field(default_factory=dict)
    ended: dict[int, str] = field(default_factory=dict)  # claims that ended with their agent
    claimed_again: set[int] = field(default_factory=set)
    completions: Counter[int] = field(default_factory=Counter)
    rejections: Counter[int] = field(default_factory=Counter)
    rejected: int | None = None
    cleared: list[str] = field(default_factory=list)
    done_by: set[str] = field(default_factory=set)


def faults(events: Sequence[Event], counted: Mapping[int, Mapping[str, int]]) -> list[str]:
    """List what is wrong; `counted` has the true results by share."""
    run = _Run()
    for index, event in enumerate(events):
        _apply(run, events, index, event)
    return [*_of_events(events), *_of_shares(run, counted), *_of_agents(run), *_of_death(run)]


def _apply(run: _Run, events: Sequence[Event], index: int, event: Event) -> None:
    changed = run.board.apply(event)
    if event.type == "agent.registered" and event.data["role"] == ROLE:
        run.agents.append(event.actor)
    elif event.type == "agent.deregistered":
        run.left.add(str(event.data["name"]))
    elif event.type == "agent.reaped":
        name = str(event.data["name"])
        run.reaped.append((name, event.data["reason"]))
        run.reaped_after_s = (event.at - run.last_seen[name]).total_seconds()
    elif event.type == "directive.acknowledged" and event.data["status"] == "done":
        run.done_by.add(event.actor)
    elif changed is not None:
        _apply_share(run, events, index, *changed)
    run.last_seen[event.actor] = event.at


def _apply_share(run: _Run, events: Sequence[Event], index: int, number: int, flag: str) -> None:
    event = events[index]
    match event.type, flag:
        case "signal.set", "CLAIMED":
            run.claims[number] = event.actor
            if number in run.ended:
                run.claimed_again.add(number)
        case "signal.ended", "CLAIMED":
            run.ended[number] = run.claims[number]
        case "signal.set", "COMPLETED":
            run.completions[number] += 1
        case "signal.set", "REJECTED":
            run.rejections[number] += 1
            if event.actor == MANAGER:
                run.rejected = number
                run.cleared = sorted(
                    (one.key or "").rpartition("/")[2]
                    for one in events[:index]
                    if one.type == "signal.cleared" and one.data["rule"] == event.key and one.at == event.at
                )


def _of_events(events: Sequence[Event]) -> list[str]:
    seqs = [event.seq for event in events]
    found = [] if seqs else ["no event came at all"]
    if repeated := len(seqs) - len(set(seqs)):
        found.append(f"{repeated} events came twice")
    if wrong := sum(later < earlier for earlier, later in itertools.pairwise(seqs)):
        found.append(f"{wrong} events came out of order")
    if gaps := sum(later > earlier + 1 for earlier, later in itertools.pairwise(seqs)):
        found.append(f"{gaps} gaps in the numbers")
    return found


def _of_shares(run: _Run, counted: Mapping[int, Mapping[str, int]]) -> list[str]:
    accepted = run.board.accepted()
    unfinished = [str(number) for number in range(1, SHARES + 1) if number not in accepted]
    found = [f"not completed and checked: share {', '.join(unfinished)}"] if unfinished else []
    for number in accepted:
        wanted = 1 + run.rejections[number]
        if run.completions[number] != wanted:
            found.append(f"share {number} was completed {run.completions[number]} times instead of {wanted}")
        if number in counted and run.board.shares[number]["COMPLETED"].value != counted[number]:
            found.append(f"the numbers of share {number} differ from those of a recount")
    return found


def _of_agents(run: _Run) -> list[str]:
    found = []
    if len(run.agents) != AGENTS:
        found.append(f"{len(run.agents)} agents registered instead of {AGENTS}")
    if run.rejected is None:
        found.append("no result was rejected")
    elif run.cleared != ["COMPLETED", "QA_PASSED"]:
        found.append(f"the rejection of share {run.rejected} cleared {run.cleared} in its transaction")
    if run.done_by != set(run.agents):
        found.append(f"{len(run.done_by)} agents acknowledged the directive to everyone")
    dead = {name for name, _ in run.reaped}
    return found + [f"{name} did not leave" for name in run.agents if name not in run.left | dead]


def _of_death(run: _Run) -> list[str]:
    if len(run.reaped) != 1 or run.reaped[0][1] != "process died":
        return [f"one agent was to be reaped because its process died, but: {run.reaped}"]
    ((dead, _),) = run.reaped
    found = []
    if run.reaped_after_s > REAPED_WITHIN_S:
        found.append(f"the death of {dead} was noticed after {run.reaped_after_s:.1f} s")
    shares = [number for number, agent in run.ended.items() if agent == dead]
    if len(shares) != 1:
        found.append(f"the claim of {dead} did not end with it")
    for number in shares:
        by = run.board.shares[number].get("COMPLETED")
        if number not in run.claimed_again or by is None or by.actor == dead:
            found.append(f"share {number} of {dead} was not finished by others")
    return found
