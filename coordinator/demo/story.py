"""What happened, put together from the events alone, in the order in which a follower received them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

import msgspec

from coordinator.demo.board import MANAGER, ROLE, Board, Flag, Plan, share_key
from coordinator.demo.source import Review, add
from coordinator.model.event import Event

__all__ = ["Broadcast", "Kill", "Killed", "Part", "Received", "Redirect", "Rejection", "Story", "tell"]


class Received(msgspec.Struct, frozen=True):
    """An event, and when a follower had it, by this machine's clock."""

    event: Event
    at: datetime


class Kill(msgspec.Struct, frozen=True):
    """Who was killed over which share, and when."""

    agent: str
    share: int
    at: datetime


class Part(msgspec.Struct):
    """What one agent did."""

    agent: str
    shares: int = 0
    files: int = 0
    lines: int = 0
    checked: int = 0
    answered: int = 0
    end: str = ""


class Rejection(msgspec.Struct):
    """A result that the manager sent back. ``cleared`` is what the rule cleared in the rejection's own transaction."""

    share: int
    cleared: list[str]
    done_by: str
    done_again_by: str | None = None


class Redirect(msgspec.Struct):
    """An agent that was told to leave a share and take another."""

    agent: str
    left: int
    took: int
    answers: list[str]
    has_left: bool = False
    has_taken: bool = False


class Broadcast(msgspec.Struct):
    """A directive to everyone, and who has done it."""

    directive: str
    done_by: list[str]


class Killed(msgspec.Struct):
    """What became of a killed agent and its share."""

    agent: str
    share: int
    reason: str | None = None
    reaped_after_s: float | None = None
    claim_ended: bool = False
    claimed_again_by: str | None = None
    claimed_again_after_s: float | None = None
    completed_by: str | None = None


class Story(msgspec.Struct):
    """The whole."""

    parts: dict[str, Part]
    plans: dict[int, Plan]
    results: dict[int, Review]
    accepted: list[int]
    completions: dict[int, int]
    rejections: dict[int, int]
    rejection: Rejection | None = None
    redirect: Redirect | None = None
    broadcast: Broadcast | None = None
    killed: Killed | None = None
    totals: Review = Review()


def tell(received: Sequence[Received], kill: Kill | None) -> Story:
    """Tell the story of the events."""
    board = Board()
    story = Story({}, {}, {}, [], {}, {})
    completions: Counter[int] = Counter()
    rejections: Counter[int] = Counter()
    if kill is not None:
        story.killed = Killed(kill.agent, kill.share)
    for index, one in enumerate(received):
        event = one.event
        change = board.apply(event)
        _tell_agent(story, event)
        _tell_directive(story, event)
        if change is not None:
            number, flag = change
            if event.type == "signal.set" and flag == "COMPLETED":
                completions[number] += 1
                story.results[number] = msgspec.convert(event.data["value"], Review)
            elif event.type == "signal.set" and flag == "REJECTED":
                rejections[number] += 1
            _tell_rejection(story, received, index, change)
            _tell_share(story, event, change)
        if kill is not None and story.killed is not None:
            _tell_killed(story.killed, one, change, kill)
    story.plans = {number: board.plan(number) for number, flags in board.shares.items() if "FILES" in flags}
    story.accepted = sorted(board.accepted())
    story.completions, story.rejections = dict(completions), dict(rejections)
    for number, flags in board.shares.items():
        if "COMPLETED" in flags:
            story.totals = add(story.totals, story.results[number])
        _credit(story, number, flags)
    return story


def _credit(story: Story, number: int, flags: dict[str, Flag]) -> None:
    """Count a share for those who did and checked it, as it stands at the end."""
    by, checked_by = flags.get("COMPLETED"), flags.get("QA_PASSED")
    if by is not None and by.actor in story.parts:
        part, result = story.parts[by.actor], story.results[number]
        part.shares, part.files, part.lines = part.shares + 1, part.files + result.files, part.lines + result.lines
    if checked_by is not None and checked_by.actor in story.parts:
        story.parts[checked_by.actor].checked += 1


def _tell_agent(story: Story, event: Event) -> None:
    if event.type == "agent.registered" and event.data["role"] == ROLE:
        story.parts[event.actor] = Part(event.actor)
    elif event.type in ("agent.deregistered", "agent.reaped") and event.data["name"] in story.parts:
        reason = event.data.get("reason")
        story.parts[str(event.data["name"])].end = f"reaped ({reason})" if reason else "went by itself"


def _tell_directive(story: Story, event: Event) -> None:
    if event.type == "directive.sent" and event.data["to_agent"] is not None:
        data = msgspec.convert(event.data["data"], dict[str, int])
        story.redirect = Redirect(f"{event.data['to_agent']}", data["leave"], data["take"], [event.key or ""])
    elif event.type == "directive.sent":
        story.broadcast = Broadcast(event.key or "", [])
    elif event.type == "directive.acknowledged":
        status = str(event.data["status"])
        if story.redirect is not None and event.key == story.redirect.answers[0]:
            story.redirect.answers.append(status)
        elif story.broadcast is not None and event.key == story.broadcast.directive and status == "done":
            story.broadcast.done_by.append(event.actor)
        if status != "seen" and event.actor in story.parts:
            story.parts[event.actor].answered += 1


def _tell_rejection(story: Story, received: Sequence[Received], index: int, change: tuple[int, str]) -> None:
    """Tell the manager's rejection, and what the rule cleared in its transaction: that is one instant in all its events."""
    event = received[index].event
    number, flag = change
    if event.type == "signal.set" and flag == "REJECTED" and event.actor == MANAGER and story.rejection is None:
        cleared: list[str] = []
        done_by = ""
        for one in reversed(received[:index]):
            earlier = one.event
            if earlier.type == "signal.cleared" and earlier.data["rule"] == event.key and earlier.at == event.at:
                cleared.append((earlier.key or "").rpartition("/")[2])
            elif earlier.type == "signal.set" and earlier.key == share_key(number, "COMPLETED"):
                done_by = earlier.actor
                break
        story.rejection = Rejection(number, sorted(cleared), done_by)
    elif story.rejection is not None and number == story.rejection.share and change[1] == "COMPLETED":
        story.rejection.done_again_by = event.actor if event.type == "signal.set" else story.rejection.done_again_by


def _tell_share(story: Story, event: Event, change: tuple[int, str]) -> None:
    if story.redirect is None or change[1] != "CLAIMED" or event.actor != story.redirect.agent:
        return
    if change[0] == story.redirect.left and event.type == "signal.deleted":
        story.redirect.has_left = True
    elif change[0] == story.redirect.took and event.type == "signal.set":
        story.redirect.has_taken = True


def _tell_killed(killed: Killed, one: Received, change: tuple[int, str] | None, kill: Kill) -> None:
    event = one.event
    if event.type == "agent.reaped" and event.data["name"] == killed.agent:
        killed.reason = str(event.data["reason"])
        killed.reaped_after_s = (event.at - kill.at).total_seconds()
    elif change == (killed.share, "CLAIMED") and event.type == "signal.ended":
        killed.claim_ended = True
    elif change == (killed.share, "CLAIMED") and event.type == "signal.set" and killed.claim_ended:
        if killed.claimed_again_by is None:
            killed.claimed_again_by = event.actor
            killed.claimed_again_after_s = (event.at - kill.at).total_seconds()
    elif change == (killed.share, "COMPLETED") and event.type == "signal.set":
        killed.completed_by = event.actor
