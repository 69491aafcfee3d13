"""A history of lock calls by many processes, and the checker that judges it.

A history is lines of two kinds, by the monotonic clock of one machine: a call, written before it is sent, and its answer. A
call without an answer may or may not have been done. Beside it stands what fenced transactions left in the database.

What must hold, and is judged only where it is certain:

- Exclusion of fenced work: along the versions of a cell the tokens of writers never go back, a reader comes after all
  writers it saw and before all it did not see, and nothing changes under a reader's open transaction.
- Exclusion of holders: from a grant's answer to the first of its last release, break, end of its agent or TTL (counted from the
  call), nobody has a grant in conflict: neither another agent nor another owner of the agent. Only an owner below may use what
  is held above it. What an owner acquires again has the same token, and it releases it as often.
- Order: who was told to wait before another one asked is served first, if both are served and they conflict.
- Tokens: one per grant, greater than that of any grant that was answered before this one was asked for.
- Durability: fenced work that was acknowledged is there, work that was refused is not.
- Nobody saw a deadlock or an undocumented error.

Two resources conflict here if they share a cell, so the checker knows nothing of how the product decides it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from math import inf
from pathlib import Path

import msgspec

__all__ = [
    "COVERS",
    "POOL",
    "POOL_SLOTS",
    "POOL_SLOTS_MAX",
    "Access",
    "Answer",
    "Call",
    "Grant",
    "cells_of",
    "check",
    "grants",
    "read",
]

POOL, POOL_SLOTS, POOL_SLOTS_MAX = "name:pool", 2, 3
# What each resource covers of what is written under locks, by hand.
COVERS: dict[str, tuple[str, ...]] = {
    "src/a.py": ("src/a.py",),
    "src/b.py": ("src/b.py",),
    "src/": ("src/a.py", "src/b.py", "src/lib/c.py"),
    "src/lib/": ("src/lib/c.py",),
    "src/*.py": ("src/a.py", "src/b.py"),
    "src/[bc].py": ("src/b.py",),
    "**/c.*": ("src/lib/c.py",),
    "**/*.py": ("src/a.py", "src/b.py", "src/lib/c.py"),
    "src/lib/c.py": ("src/lib/c.py",),
    "docs/d.md": ("docs/d.md",),
    "docs/": ("docs/d.md", "docs/e.md"),
    "docs/[!d].md": ("docs/e.md",),
    "**/*.md": ("docs/d.md", "docs/e.md"),
    "name:deploy": ("deploy",),
    "name:test": ("test",),
    POOL: tuple(f"pool/{slot}" for slot in range(1, POOL_SLOTS_MAX + 1)),
}
CLOCKS_APART_S = 0.05  # the database counts by the wall clock, which may be set meanwhile


class Call(msgspec.Struct, tag=True):
    """A call is about to be sent."""

    op: str
    verb: str
    at: float
    agent: str
    resources: tuple[str, ...] = ()
    shared: bool = False
    ttl: float = 0
    ticket: int | None = None
    token: int | None = None
    request: str | None = None  # the same for a call that is asked again
    owner: str = ""


class Answer(msgspec.Struct, tag=True):
    """Its answer came: granted, waiting, done, or the error's code."""

    op: str
    at: float
    outcome: str
    ticket: int | None = None
    token: int | None = None
    slot: int | None = None


class Access(msgspec.Struct, frozen=True):
    """What a fenced transaction left in the database: the versions of a cell at its begin and end."""

    op: str
    cell: str
    writes: bool
    token: int
    first: int
    last: int


class Grant(msgspec.Struct):
    """A grant as its client knows it; it surely holds from ``since`` to ``until``."""

    token: int
    agent: str
    cells: tuple[str, ...]
    resources: tuple[str, ...]
    shared: bool
    ticket: int | None
    called: float
    waiting: float | None
    since: float
    until: float
    owner: str = ""
    uses: int = 1

    @property
    def nested(self) -> bool:
        """Whether its owner is a part of another, which need not wait for what that one holds."""
        return "/" in self.owner

    def conflicts(self, later: Grant) -> bool:
        """Return whether this grant excludes a later one."""
        above = self.agent == later.agent and (
            self.owner in ("", later.owner) or later.owner.startswith(f"{self.owner}/")
        )
        return not above and not (self.shared and later.shared)


Line = Call | Answer
_decode = msgspec.json.Decoder(Line).decode
EXPECTED = {"granted", "waiting", "done", "ZC202", "ZC207", "ZC208", "ZC310", "ZC311", "ZC312", "ZC314", "ZC401"}


def read(paths: Iterable[Path]) -> list[Line]:
    """Read what processes wrote; one that was killed may leave half a line."""
    return [_decode(line) for path in paths for line in path.read_bytes().rpartition(b"\n")[0].splitlines()]


def cells_of(resources: Sequence[str], slot: int | None) -> tuple[str, ...]:
    """List what a grant covers; of a counted lock only its own place."""
    if slot is not None:
        return (f"pool/{slot}",)
    return tuple(sorted({cell for resource in resources for cell in COVERS[resource]}))


def grants(history: Sequence[Line]) -> list[Grant]:
    """Put together what was granted and how long it surely lasted, in the order of the tokens."""
    calls = {line.op: line for line in history if isinstance(line, Call)}
    answers = {line.op: line for line in history if isinstance(line, Answer)}
    begun: dict[str | None, float] = {}
    for call in calls.values():
        begun[call.request] = min(begun.get(call.request, call.at), call.at)
    asked: dict[tuple[str, int], tuple[Call, Answer]] = {}
    found: list[Grant] = []
    for op, answer in sorted(answers.items(), key=lambda item: item[1].at):
        call = calls[op]
        if answer.outcome == "waiting" and call.verb == "acquire" and answer.ticket is not None:
            asked[call.agent, answer.ticket] = (call, answer)
        if answer.outcome != "granted" or answer.token is None:
            continue
        first, waiting = call, None
        if call.verb == "poll" and call.ticket is not None:
            first, told = asked[call.agent, call.ticket]
            waiting = told.at
        found.append(
            Grant(
                token=answer.token, agent=call.agent, cells=cells_of(first.resources, answer.slot), resources=first.resources,
                shared=first.shared, ticket=answer.ticket, called=begun[first.request], waiting=waiting, since=answer.at,
                until=call.at + first.ttl - CLOCKS_APART_S, owner=first.owner,
            )
        )  # fmt: skip
    found = list(_merged(found))
    by_token = {grant.token: grant for grant in found}
    for call in sorted(calls.values(), key=lambda call: call.at):
        if call.verb == "renew" and call.op in answers and answers[call.op].outcome == "done":
            renewed = by_token[call.token or 0]
            renewed.until = max(renewed.until, call.at + call.ttl - CLOCKS_APART_S)
    ends: dict[str, float] = {}
    releases: dict[int, list[float]] = defaultdict(list)
    for call in calls.values():
        if call.verb == "break":  # of whoever holds it by then
            over = answers[call.op].at if call.op in answers else inf
            for grant in found:
                if grant.called < over and call.resources[0] in grant.resources:
                    grant.until = min(grant.until, call.at)
        elif call.verb == "release":
            releases[call.token or 0].append(call.at)
        elif call.verb == "deregister":
            ends[call.agent] = min(ends.get(call.agent, call.at), call.at)
    for grant in found:
        last = sorted(releases[grant.token])[grant.uses - 1 : grant.uses]
        grant.until = min(grant.until, *last, ends.get(grant.agent, inf))
    return sorted(found, key=lambda grant: grant.token)


def _merged(found: Sequence[Grant]) -> Iterable[Grant]:
    """Make one grant of those that an owner was granted again, under the same token."""
    first: dict[tuple[int, str, str], Grant] = {}
    for grant in found:
        held = first.setdefault((grant.token, grant.agent, grant.owner or str(id(grant))), grant)
        if held is not grant:
            held.uses += 1
            held.until = max(held.until, grant.until)
    return first.values()


def check(history: Sequence[Line], accesses: Sequence[Access]) -> list[str]:
    """Judge a history, and return what is wrong with it."""
    found = grants(history)
    return [
        *_answers(history, accesses),
        *_tokens(found),
        *_holders(found),
        *_order(found),
        *_fenced(accesses),
    ]


def _answers(history: Sequence[Line], accesses: Sequence[Access]) -> Iterable[str]:
    calls = {line.op: line for line in history if isinstance(line, Call)}
    there = {access.op for access in accesses}
    for line in history:
        if not isinstance(line, Answer):
            continue
        if line.outcome not in EXPECTED:
            yield f"answer: {calls[line.op].verb} of {calls[line.op].resources} ended with {line.outcome}"
        if calls[line.op].verb in ("write", "read"):
            if line.outcome == "done" and line.op not in there:
                yield f"durability: {line.op} was acknowledged and is not there"
            if line.outcome == "ZC312" and line.op in there:
                yield f"durability: {line.op} was refused and is there"


def _tokens(found: Sequence[Grant]) -> Iterable[str]:
    for one, two in pairwise(found):
        if one.token == two.token:
            yield f"token: {one.token} was granted to {one.agent} and to {two.agent}"
    answered = sorted(found, key=lambda grant: grant.since)
    times = [grant.since for grant in answered]
    greatest = list(accumulate((grant.token for grant in answered), max))
    for grant in found:
        before = bisect_left(times, grant.called)
        if before and greatest[before - 1] > grant.token:
            yield f"token: {grant.token} came after {greatest[before - 1]}"


def _by_cell(found: Sequence[Grant]) -> dict[str, list[Grant]]:
    cells: dict[str, list[Grant]] = defaultdict(list)
    for grant in found:
        for cell in grant.cells:
            cells[cell].append(grant)
    return cells


def _holders(found: Sequence[Grant]) -> Iterable[str]:
    for cell, held in _by_cell(found).items():
        held.sort(key=lambda grant: grant.since)
        open_: list[Grant] = []
        for grant in held:
            if grant.since >= grant.until:
                continue
            open_ = [other for other in open_ if other.until > grant.since]
            for other in open_:
                first, second = sorted((grant, other), key=lambda one: one.token)
                if first.conflicts(second):
                    yield f"holders: {cell} was held by tokens {other.token} and {grant.token} at once"
            open_.append(grant)


def _order(found: Sequence[Grant]) -> Iterable[str]:
    queued = [grant for grant in found if not grant.nested]
    cells = _by_cell([grant for grant in queued if POOL not in grant.resources])
    cells[POOL] = [grant for grant in queued if POOL in grant.resources]
    for cell, held in cells.items():
        waited = sorted((g for g in held if g.waiting is not None), key=lambda g: g.waiting or 0)
        for strong in (False, True):  # a sharer passes other sharers only
            before = [g for g in waited if not (strong and g.shared)]
            times = [g.waiting or 0 for g in before]
            greatest = list(accumulate((g.token for g in before), max))
            for grant in held:
                if grant.shared is not strong:
                    continue
                count = bisect_left(times, grant.called)
                if count and greatest[count - 1] > grant.token:
                    yield f"order: on {cell} token {grant.token} went before {greatest[count - 1]}, which waited already"
        last = {False: 0, True: 0}
        for grant in sorted((g for g in held if g.ticket is not None), key=lambda g: g.ticket or 0):
            if grant.token < (last[False] if grant.shared else max(last.values())):
                yield f"order: on {cell} ticket {grant.ticket} was served before an earlier one"
            last[grant.shared] = max(last[grant.shared], grant.token)


def _fenced(accesses: Sequence[Access]) -> Iterable[str]:
    cells: dict[str, list[Access]] = defaultdict(list)
    for access in accesses:
        cells[access.cell].append(access)
    for cell, done in cells.items():
        writes = sorted((access for access in done if access.writes), key=lambda access: access.last)
        versions = [write.last for write in writes]
        if versions != list(range(1, len(writes) + 1)):
            yield f"fence: writes of {cell} are missing"
            continue
        for one, two in pairwise(writes):
            if two.first != one.last:
                yield f"fence: {cell} changed under the writer with token {two.token}"
            if two.token < one.token:
                yield f"fence: {cell} was written with token {two.token} after {one.token}"
        for read in (access for access in done if not access.writes):
            if read.first != read.last:
                yield f"fence: {cell} changed under the reader with token {read.token}"
            elif read.last and writes[read.last - 1].token > read.token:
                yield f"fence: {cell} was read with token {read.token} after {writes[read.last - 1].token} had written"
            elif read.last < len(writes) and writes[read.last].token < read.token:
                yield f"fence: {cell} was written with token {writes[read.last].token} after {read.token} had read"
