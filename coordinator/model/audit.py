"""The audit trail of a project: who did what, when, and from where. The hash of each entry covers all entries before it.

``Chain`` verifies the hashes outside of the database. ``docs/audit.md`` explains how other programs can do this.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from coordinator.errors import Conflict
from coordinator.model.json import Exact, value_of
from coordinator.model.operation import JsonText

__all__ = ["AuditCheck", "AuditEntry", "AuditHead", "AuditState", "Chain"]

_BEFORE_FIRST = "0" * 64


class AuditEntry(Exact, frozen=True, dict=True):
    """An entry of a trail. ``text`` is its content, exactly as it was hashed, ``data`` the value of that; without ``hash`` it is from before there were hashes."""

    seq: int
    epoch: str
    hash: str | None
    text: JsonText = msgspec.field(name="entry")

    @cached_property
    def data(self) -> Any:
        """The content as a value: ``event``, with ``role``, ``address``, ``origin`` and ``traceparent``; or ``pruned``; or ``lost``."""
        return value_of(self.text)


class AuditHead(msgspec.Struct, frozen=True):
    """The newest entry of a trail, to be kept and signed elsewhere. Without a project: of the trail of projects that do not exist."""

    project: str | None
    seq: int
    epoch: str | None
    hash: str | None


class AuditState(msgspec.Struct, frozen=True):
    """A trail: ``topics`` are audited, ``hash`` is that of entry ``last_seq``, of ``epoch``.

    The chain begins after ``anchor_seq``, with ``anchor_hash``, if retention has removed entries. ``behind`` events were not copied yet
    at ``copied_at``.
    """

    project: str | None
    topics: list[str]
    is_default: bool
    first_seq: int | None
    last_seq: int
    count: int
    epoch: str | None
    hash: str | None
    anchor_seq: int | None
    anchor_hash: str | None
    copied_at: datetime
    behind: int

    @property
    def head(self) -> AuditHead:
        """Its newest entry."""
        return AuditHead(self.project, self.last_seq, self.epoch, self.hash)


class AuditCheck(msgspec.Struct, frozen=True):
    """The progress of a verification: ``checked`` entries are correct, the last one is ``seq`` with ``hash``, then ``fault``, if any."""

    checked: int
    seq: int
    hash: str | None
    fault: str | None


class Chain:
    """Verifies the entries of a trail, in their order, from its anchor on; and that it has ``head``, which was exported before."""

    def __init__(self, state: AuditState, head: AuditHead | None = None) -> None:
        self.checked = 0
        self.unchained = 0
        """Entries from before there were hashes."""
        self._anchor = None if state.anchor_seq is None else (state.anchor_seq, state.anchor_hash)
        self._anchored = self._anchor is None
        self.seq = state.anchor_seq
        self.hash = state.anchor_hash
        self.epoch: str | None = None
        self._wanted = head if head is not None and head.seq else None
        if self._wanted is not None and (self._wanted.seq, self._wanted.hash) == self._anchor:
            self._wanted = None

    def add(self, entry: AuditEntry) -> None:
        """Verify the next entry.

        Raises: ``Conflict`` for one that was changed, removed, inserted or moved.
        """
        if entry.hash is None and self.seq is None:
            self.unchained += 1
            return
        if self.seq is not None and entry.seq != self.seq + 1:
            raise _fault(f"entry {self.seq + 1} is missing")
        text = bytes(entry.text)
        if entry.hash != _hash_after(self.hash, text):
            raise _fault(f"entry {entry.seq} or an earlier one was changed")
        if not text.startswith(b'{"entry": %d, "epoch": "%s"' % (entry.seq, entry.epoch.encode())):
            raise _fault(f"entry {entry.seq} is out of place")
        if b'"pruned": ' in text[:80]:
            self._add_pruned(entry)
        self.seq, self.hash, self.epoch = entry.seq, entry.hash, entry.epoch
        self.checked += 1
        wanted = self._wanted
        if wanted is not None and entry.seq == wanted.seq:
            if entry.hash != wanted.hash:
                raise _fault(
                    f"entry {entry.seq} is not the one of the head: it has the hash {entry.hash} of epoch {entry.epoch},"
                    f" and the head has {wanted.hash} of epoch {wanted.epoch}"
                )
            self._wanted = None

    def end(self, last_seq: int) -> None:
        """Verify that nothing is missing after the last entry, up to ``last_seq``.

        Raises: ``Conflict``.
        """
        if self.seq is not None and self.seq < last_seq:
            raise _fault(f"entry {self.seq + 1} is missing")
        if not self._anchored:
            raise _fault("the entries before the anchor are gone, and no entry says that retention removed them")
        if self._wanted is not None:
            raise _fault(
                f"entry {self._wanted.seq} of the head is not in the trail: its end was removed, or retention has removed it since"
            )

    def _add_pruned(self, entry: AuditEntry) -> None:
        pruned = entry.data["pruned"]
        if not pruned["intact"] or pruned["count"] != pruned["last"] - pruned["first"] + 1:
            raise _fault(f"entries {pruned['first']} to {pruned['last']} were not intact when retention removed them")
        self._anchored = self._anchored or (pruned["last"], pruned["hash"]) == self._anchor


def _hash_after(previous: str | None, text: bytes) -> str:
    return hashlib.sha256((previous or _BEFORE_FIRST).encode() + b"\n" + text).hexdigest()


def _fault(message: str) -> Conflict:
    return Conflict(
        f"the audit trail is not intact: {message}",
        hint="Compare it with an export or a backup. After a restore of the database, what was appended later is gone.",
    )
