"""Files that several agents edit: leases before an edit, and what each agent has seen, so that no agent overwrites another's work."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from coordinator.model.file import FileGrant, FileStep, FileView
from coordinator.model.operation import InProject, Json, Operation

__all__ = ["TTL", "Edit", "Leave", "List", "Prune", "Record"]

TTL = timedelta(minutes=10)  # longer than a model usually thinks between two calls


class Edit(InProject[list[FileGrant]], frozen=True, kw_only=True):
    """Begin to edit files: lease all of them, or none, and compare each with what its editor last saw.

    ``agent`` is a name or an id. It is registered if necessary, and lives for ``ttl`` after each call; ``owner`` edits
    below it. ``hashes`` has one for each path: - if there is no such file, empty if its content is unknown. Hash again
    when the lease is granted, and repeat the call if one differs. With ``wait``, the result may have a ticket: poll
    with it, then repeat the call.

    ``shared`` shares the files with others that only read. ``told`` is for a caller that does not record what it reads:
    it is told about a change once, and may edit then. ``metadata`` is merged into the agent's own. ``unreserved`` is as
    in ``agents.Register``.
    """

    function = "file_edit"
    examples = {"paths": ["src/a.py", "src/b.py"], "hashes": ["5891b5b5", "-"], "owner": "s1"}
    speakers = ("agent",)
    registers = True

    agent: str
    paths: list[str]
    hashes: list[str] = msgspec.field(default_factory=list)
    owner: str = ""
    ttl: timedelta = TTL
    wait: timedelta | None = None
    shared: bool = False
    told: bool = False
    metadata: dict[str, Json] | None = None
    unreserved: bool = False


class Record(InProject[int], frozen=True, kw_only=True):
    """Record the content of files as an agent, or its ``owner``, sees it; return how many were recorded.

    ``step`` is ``reading`` before a read, ``read`` after it, ``written`` after a write. The agent is registered if necessary.
    """

    function = "file_record"
    examples = {"paths": ["src/a.py"], "hashes": ["5891b5b5"], "step": "written", "owner": "s1"}
    speakers = ("agent",)
    registers = True
    durable = False  # a crash that loses a view also loses the server of its session

    agent: str
    paths: list[str]
    hashes: list[str] = msgspec.field(default_factory=list)
    step: FileStep = FileStep.READ
    owner: str = ""
    ttl: timedelta = TTL
    metadata: dict[str, Json] | None = None
    unreserved: bool = False


class Leave(InProject[int], frozen=True, kw_only=True):
    """Release everything that an agent holds and waits for, or one of its owners with those below it; return how many locks.

    ``paths`` limits it to these. ``end`` also deregisters the agent. ``heir`` is ``owner`` or one above it, which keeps
    the exclusive locks on files. Tokens and the number of acquisitions do not matter. An agent that is not registered
    holds nothing: 0.
    """

    function = "file_leave"
    examples = {"paths": ["src/a.py"], "owner": "s1"}
    speakers = ("agent",)

    agent: str
    owner: str = ""
    paths: list[str] | None = None
    end: bool = False
    heir: str | None = None


class List(InProject[list[FileView]], frozen=True, kw_only=True):
    """List what the agents of a project, or the agent ``agent``, have seen of files, by path."""

    function = "file_list"
    reads = True
    page_by = ("path", "agent", "owner")

    agent: str | None = None
    after: list[str] | None = None
    limit: int = 1000


class Prune(Operation[int], frozen=True, kw_only=True):
    """Delete views of files that are older than ``retention``; return how many. Repeat until 0."""

    function = "file_prune"
    internal = True

    retention: timedelta = timedelta(days=14)
    limit: int = 10_000
