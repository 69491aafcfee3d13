"""A tree of jobs as text: a line for each job, below its parent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from uuid import UUID

from coordinator.cli.output import plain
from coordinator.model.job_history import Job

__all__ = ["branches"]


def branches(jobs: Sequence[Job]) -> Iterator[str]:
    """Yield a line for each job, a parent before its children. A job whose parent is missing is the root of a tree."""
    known = {job.id for job in jobs}
    below: dict[UUID | None, list[Job]] = defaultdict(list)
    for job in jobs:
        below[job.parent_id if job.parent_id in known else None].append(job)
    open_: list[tuple[Job, str, str]] = [(job, "", "") for job in reversed(below[None])]
    while open_:
        job, own, indent = open_.pop()
        yield plain(own + _line(job))
        children = below[job.id]
        for place, child in reversed(list(enumerate(children, 1))):
            last = place == len(children)
            open_.append((child, indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  ")))


def _line(job: Job) -> str:
    state = job.status
    detail = job.reason or job.waiting_for
    if detail not in (None, job.status):
        state += f" ({detail})"
    parts = [job.type, str(job.id), state]
    if job.percent is not None:
        parts.append(f"{job.percent:g} %")
    if job.worker is not None:
        parts.append(f"by {job.worker}")
    if job.after:
        parts.append(f"after {', '.join(map(str, job.after[:3]))}" + (" …" if len(job.after) > 3 else ""))
    return "  ".join(parts)
