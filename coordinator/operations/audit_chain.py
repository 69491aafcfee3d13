"""Verifies an audit trail outside of the database: it reads the whole trail, and computes its hashes again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol, TypeVar

from coordinator.errors import Conflict
from coordinator.model.audit import AuditHead, AuditState, Chain
from coordinator.model.operation import Operation
from coordinator.operations import audits

__all__ = ["IntactTrail", "verified"]

R = TypeVar("R")


class _Runs(Protocol):
    def __call__(self, operation: Operation[R], /) -> Awaitable[R]: ...


class IntactTrail(NamedTuple):
    """An intact trail: its head, how many entries were verified, and how many are older than the hashes."""

    head: AuditHead
    checked: int
    unchained: int


async def verified(
    run: _Runs, project: str | None, head: AuditHead | None = None, progress: Callable[[int, int], None] | None = None
) -> IntactTrail:
    """Verify a trail.

    ``progress`` is called with the number of verified entries and of all entries. If retention removes entries during
    the verification, it starts again from the new anchor.

    Raises: ``Conflict``.
    """
    while True:
        state = await run(audits.Show(project=project))
        try:
            return await _verified(run, state, head, progress)
        except Conflict:
            now = await run(audits.Show(project=project))
            if now.anchor_seq == state.anchor_seq:
                raise


async def _verified(
    run: _Runs, state: AuditState, head: AuditHead | None, progress: Callable[[int, int], None] | None
) -> IntactTrail:
    chain = Chain(state, head)
    after: list[str] | None = None
    while True:
        entries = await run(audits.List(project=state.project, after=after))
        for entry in entries:
            chain.add(entry)
        if progress is not None:
            progress(chain.checked, state.count)
        if not entries:
            chain.end(state.last_seq)
            newest = AuditHead(state.project, chain.seq or 0, chain.epoch, chain.hash)
            return IntactTrail(newest, chain.checked, chain.unchained)
        after = [str(entries[-1].seq)]
