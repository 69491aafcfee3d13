"""Files that several agents edit: leases before an edit, and the content that each has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from coordinator.client.caller import Duration, Verbs, as_duration
from coordinator.client.listing import PAGE, Listing
from coordinator.model.file import FileGrant, FileStep, FileView
from coordinator.model.operation import Json
from coordinator.operations import files

__all__ = ["Files"]

TTL_S = files.TTL.total_seconds()


class Files(Verbs):
    """The files of the client's project, for programs that start and end often under one name, such as the session of a tool."""

    async def edit(
        self,
        agent: str,
        paths: Sequence[str],
        *,
        hashes: Sequence[str] = (),
        owner: str = "",
        ttl: Duration = TTL_S,
        wait: Duration | None = None,
        shared: bool = False,
        told: bool = False,
        metadata: Mapping[str, Json] | None = None,
    ) -> list[FileGrant]:
        """Begin to edit files as the agent ``agent``: lease all of them, or none, and learn which have changed since they were last seen.

        ``hashes``: the hash of each file; - if there is none, empty if it is unknown. Hash again when the lease is
        granted, and call again if one differs. With ``wait``, a result that waits has a ticket: call again until it is
        granted. ``shared``: share the lease with others that only read. ``told``: for a caller that does not record
        what it reads.
        """
        return await self._caller.run(
            files.Edit(
                project=self._caller.project,
                agent=agent,
                paths=list(paths),
                hashes=list(hashes),
                owner=owner,
                ttl=as_duration(ttl),
                wait=None if wait is None else as_duration(wait),
                shared=shared,
                told=told,
                metadata=None if metadata is None else dict(metadata),
            )
        )

    async def record(
        self,
        agent: str,
        paths: Sequence[str],
        *,
        hashes: Sequence[str] = (),
        step: FileStep = FileStep.READ,
        owner: str = "",
        ttl: Duration = TTL_S,
        metadata: Mapping[str, Json] | None = None,
    ) -> int:
        """Record the content of files as the agent ``agent`` sees it: before a read, after it, or after a write; return how many."""
        return await self._caller.run(
            files.Record(
                project=self._caller.project,
                agent=agent,
                paths=list(paths),
                hashes=list(hashes),
                step=step,
                owner=owner,
                ttl=as_duration(ttl),
                metadata=None if metadata is None else dict(metadata),
            )
        )

    async def leave(
        self,
        agent: str,
        *,
        owner: str = "",
        paths: Sequence[str] | None = None,
        end: bool = False,
        heir: str | None = None,
    ) -> int:
        """Release everything that the agent ``agent`` holds, or one of its owners with those below it, or only ``paths``; return how many locks.

        ``end``: also deregister the agent. ``heir``: ``owner``, or one above it, which keeps the exclusive locks on
        files.
        """
        return await self._caller.run(
            files.Leave(
                project=self._caller.project,
                agent=agent,
                owner=owner,
                paths=None if paths is None else list(paths),
                end=end,
                heir=heir,
            )
        )

    def list(self, agent: str | None = None, *, after: str | None = None, limit: int = PAGE) -> Listing[FileView]:
        """List what the agents of the project, or the agent ``agent``, have seen of files, by path."""
        return Listing(self._caller, files.List(project=self._caller.project, agent=agent, limit=limit), after)
