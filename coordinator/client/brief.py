"""A small client for programs that make a few calls and exit: cheap to import, with one connection and without tasks.

Guarantees: those of ``client.http`` for single calls. ``model.route`` determines where an operation is sent, a problem
is raised as the error from which it was made, and every call ends in time. Calls over HTTP never suspend, so they need
no event loop: see ``finish``.

What it deliberately does not do: run calls concurrently, or listen.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from coordinator.config import Config
from coordinator.model.address import is_gateway

if TYPE_CHECKING:
    from coordinator.model.operation import Objects
    from coordinator.operations.executor import AtLeastRunner

__all__ = ["finish", "opened", "pause"]

R = TypeVar("R")


@asynccontextmanager
async def opened(url: str, config: Config, objects: Objects | None = None) -> AsyncIterator[AtLeastRunner]:
    """Open the database, daemon or sidecar at an address, and close it when the context ends.

    ``objects`` completes results of the database; a daemon has already done so.

    Raises: ``DatabaseUnavailable``, ``ConfigurationError``.
    """
    if is_gateway(url):
        from coordinator.client.brief_http import BriefExecutor  # noqa: PLC0415 - slow to import

        gateway = BriefExecutor(url, config)
        try:
            yield gateway
        finally:
            gateway.close()
        return
    from coordinator.db.single import Single  # noqa: PLC0415 - the driver takes 0.1 s to import

    async with Single.open(url, config, objects) as single:
        yield single


def finish(url: str, work: Coroutine[Any, Any, R]) -> R:
    """Run a coroutine to its end. If the address is that of a gateway, the coroutine may wait only for its calls and for ``pause``."""
    if is_gateway(url):
        try:
            work.send(None)
        except StopIteration as end:
            return cast("R", end.value)
        work.close()
        raise RuntimeError("a call over HTTP waited for an event loop")
    import asyncio  # noqa: PLC0415 - slow to import

    return asyncio.run(work)


async def pause(url: str, seconds: float) -> None:
    """Wait between two calls at this address."""
    if is_gateway(url):
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop
        return
    import asyncio  # noqa: PLC0415 - slow to import

    await asyncio.sleep(seconds)
