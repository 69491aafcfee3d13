"""How a client reaches the coordinator: the only module that examines the scheme of an address."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import msgspec

from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.db.session import ServerSession
from coordinator.errors import ConfigurationError
from coordinator.model import address
from coordinator.objects import ObjectStore
from coordinator.operations.executor import Executor

__all__ = ["Transport", "open_transport"]


class Transport(msgspec.Struct, frozen=True):
    """Runs operations, and opens a direct connection that can prove that this process is alive.

    Over HTTP, there is no ``session``: heartbeats, or a sidecar's proof of life, keep an agent alive.
    """

    executor: Executor
    session: Callable[[], ServerSession] | None


@asynccontextmanager
async def open_transport(url: str, config: Config) -> AsyncIterator[Transport]:
    """Open what the address names; close it when the context ends.

    Raises: ``ConfigurationError`` for a malformed address or another scheme; ``DatabaseUnavailable``.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme in address.GATEWAY_SCHEMES:
        from coordinator.client.http import HttpExecutor  # noqa: PLC0415 - aiohttp takes 0.1 s to import

        try:
            address.check_gateway(url)
        except address.AddressError as error:
            raise ConfigurationError(f"the address {error}", hint=error.hint) from None
        async with HttpExecutor.open(url, config) as executor:
            yield Transport(executor, None)
        return
    if scheme not in address.SCHEMES:
        raise ConfigurationError(
            f'cannot connect to an address with the scheme "{scheme}"',
            hint="Use an address like postgresql://user@host:5432/database, https://host:7420 or unix:///path.",
        )
    async with Database.open(url, config, objects=ObjectStore(config)) as database:
        yield Transport(database, database.session)
