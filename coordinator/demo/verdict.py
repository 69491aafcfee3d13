"""What is wrong with a story, if anything: every promise of the demonstration, checked."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from coordinator.demo import source
from coordinator.demo.board import AGENTS
from coordinator.demo.story import Received, Story

__all__ = ["Delivery", "deliver", "faults", "recount"]

REAPED_WITHIN_S = 5.0  # 2 on a machine that is not busy
REAPED_YOUNG_S = 20.0  # where the server may be in its first 10 seconds


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How the events came: those of the project, compared with the log; ``gaps`` are in the log's numbers."""

    delivered: int
    lost: int
    duplicates: int
    out_of_order: int
    gaps: int
    latency_p50_ms: float
    latency_p99_ms: float


def deliver(received: Sequence[Received], project_seqs: Sequence[int], log_seqs: Sequence[int]) -> Delivery:
    """Compare what a follower received with what the log holds: of its project, and in all."""
    seqs = [one.event.seq for one in received]
    latencies = sorted((one.at - one.event.at).total_seconds() * 1000 for one in received) or [0.0]
    return Delivery(
        delivered=len(seqs),
        lost=len(set(project_seqs) - set(seqs)),
        duplicates=len(seqs) - len(set(seqs)),
        out_of_order=sum(later < earlier for earlier, later in itertools.pairwise(seqs)),
        gaps=sum(later != earlier + 1 for earlier, later in itertools.pairwise(log_seqs)),
        latency_p50_ms=round(latencies[len(latencies) // 2], 1),
        latency_p99_ms=round(latencies[min(len(latencies) - 1, len(latencies) * 99 // 100)], 1),
    )


def recount(root: Path, story: Story) -> tuple[dict[int, source.Review], list[int]]:
    """Do all the work once more in this process; shares with a file that was changed meanwhile are told apart."""
    counted: dict[int, source.Review] = {}
    changed: list[int] = []
    for number, plan in story.plans.items():
        total = source.Review()
        same = True
        for file in plan.files:
            total = source.add(total, source.review(root, file.path))
            try:
                status = (root / file.path).stat()
                same = same and (status.st_size, status.st_mtime_ns) == (file.size, file.modified_ns)
            except OSError:
                same = False
        if same:
            counted[number] = total
        else:
            changed.append(number)
    return counted, changed


def faults(
    story: Story, delivery: Delivery, counted: Mapping[int, source.Review], shares: int, *, settled: bool
) -> list[str]:
    """List what is wrong; nothing, if all promises were kept. ``settled``: the server gave agents up when one was killed."""
    return [*_of_events(delivery), *_of_shares(story, counted, shares), *_of_people(story), *_of_death(story, settled)]


def _of_events(delivery: Delivery) -> list[str]:
    counts = {
        "events of the log did not reach the follower": delivery.lost,
        "events reached the follower twice": delivery.duplicates,
        "events came out of order": delivery.out_of_order,
        "numbers are missing in the log": delivery.gaps,
    }
    found = [f"{count} {what}" for what, count in counts.items() if count]
    return found if delivery.delivered else [*found, "no event came at all"]


def _of_shares(story: Story, counted: Mapping[int, source.Review], shares: int) -> list[str]:
    unfinished = [str(number) for number in range(1, shares + 1) if number not in story.accepted]
    found = [f"not completed and checked: share {', '.join(unfinished)}"] if unfinished else []
    for number, completions in story.completions.items():
        wanted = 1 + story.rejections.get(number, 0)
        if number in story.accepted and completions != wanted:
            found.append(f"share {number} was completed {completions} times instead of {wanted}")
    for number, review in counted.items():
        if number in story.results and story.results[number] != review:
            found.append(f"the numbers of share {number} differ from those of a recount")
    return found


def _of_people(story: Story) -> list[str]:
    found = []
    if len(story.parts) != AGENTS:
        found.append(f"{len(story.parts)} agents registered instead of {AGENTS}")
    rejection, redirect, broadcast = story.rejection, story.redirect, story.broadcast
    if rejection is None:
        found.append("no result was rejected")
    else:
        if rejection.cleared != ["COMPLETED", "QA_PASSED"]:
            found.append(
                f"the rejection of share {rejection.share} cleared {rejection.cleared or 'nothing'} in its transaction"
            )
        if rejection.done_again_by is None:
            found.append(f"the rejected share {rejection.share} was not done again")
    if redirect is None:
        found.append("no agent was redirected")
    elif redirect.answers[1:] != ["seen", "done"] or not redirect.has_left or not redirect.has_taken:
        found.append(f"{redirect.agent} did not leave share {redirect.left} for share {redirect.took} as it was told")
    if broadcast is None or sorted(broadcast.done_by) != sorted(story.parts):
        found.append(f"the directive to everyone was done by {len(broadcast.done_by) if broadcast else 0} agents")
    dead = story.killed.agent if story.killed else None
    found += [
        f"{part.agent} did not end by itself"
        for part in story.parts.values()
        if part.agent != dead and part.end != "went by itself"
    ]
    return found


def _of_death(story: Story, settled: bool) -> list[str]:
    killed = story.killed
    if killed is None:
        return ["no agent was killed"]
    limit_s = REAPED_WITHIN_S if settled else REAPED_YOUNG_S
    if killed.reaped_after_s is None or killed.reason != "process died":
        return [f"the death of {killed.agent} was not noticed"]
    found = []
    if killed.reaped_after_s > limit_s:
        found.append(f"the death of {killed.agent} was noticed after {killed.reaped_after_s:.1f} s")
    if not killed.claim_ended:
        found.append(f"the claim of {killed.agent} on share {killed.share} did not end with it")
    if killed.claimed_again_by is None or killed.completed_by in (None, killed.agent):
        found.append(f"share {killed.share} of {killed.agent} was not finished by others")
    return found
