"""The output of an attempt: chunks are written together, at the latest ``FLUSH_S`` after the first of them."""

from __future__ import annotations

import asyncio

import anyio

from coordinator.client import Client
from coordinator.model.catalogue import LIMITS
from coordinator.model.job import JobGrant
from coordinator.model.json import encode
from coordinator.model.operation import Json

__all__ = ["JobOutput"]

FLUSH_S = 0.05
BYTES = 65536  # more than this is written at once


class JobOutput:
    """The output of a running job. A call whose response was lost is repeated, and writes nothing twice."""

    __slots__ = ("_bytes", "_client", "_error", "_grant", "_last", "_lock", "_pending", "_task")

    def __init__(self, grant: JobGrant, client: Client) -> None:
        self._client = client
        self._grant = grant
        self._last = 0 if grant.attempt == 1 else None  # the number of the last chunk, if it is known
        self._pending: list[Json] = []
        self._bytes = 0
        self._lock = anyio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    async def add(self, chunk: Json) -> None:
        """Append a chunk, and write what is pending if that is much.

        Raises: ``TypeError`` if it is not JSON; what an earlier chunk met when it was written.
        """
        if self._error is not None:
            raise self._error
        self._bytes += len(encode(chunk))
        self._pending.append(chunk)
        if self._bytes >= BYTES or len(self._pending) >= LIMITS["job_chunks_call"]:
            await self.flush()
        elif self._task is None or self._task.done():
            self._task = asyncio.create_task(self._later())

    async def flush(self) -> None:
        """Write what is pending.

        Raises: ``Conflict`` if the job is no longer the worker's; ``InvalidArgument`` if the output becomes too large.
        """
        async with self._lock:
            while self._pending:
                chunks = self._pending[: LIMITS["job_chunks_call"]]
                if self._last is None:
                    self._last = await self._client.jobs.write(self._grant, [])
                self._last = await self._client.jobs.write(self._grant, chunks, seq=self._last + 1)
                del self._pending[: len(chunks)]
                self._bytes = 0

    def drop(self) -> None:
        """Discard pending output."""
        self._pending.clear()
        if self._task is not None:
            self._task.cancel()

    async def _later(self) -> None:
        await anyio.sleep(FLUSH_S)
        try:
            await self.flush()
        except Exception as error:  # noqa: BLE001 - the function receives it at its next chunk, or at its end
            self._error = error
