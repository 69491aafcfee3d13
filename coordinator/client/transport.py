"""How a client reaches the plane: the one place that looks at the address's scheme."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import msgspec

from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.db.session import Session
from coordinator.errors import ConfigurationError
from coordinator.operations.executor import Executor

__all__ = ["Transport", "open_transport"]

POSTGRESQL_SCHEMES = ("postgresql", "postgres")


class Transport(msgspec.Struct, frozen=True):
    """What runs operations, and what makes a direct connection that can prove that this process lives."""

    executor: Executor
    session: Callable[[], Session]


@asynccontextmanager
async def open_transport(url: str, config: Config) -> AsyncIterator[Transport]:
    """Open what the address names, until the context ends.

    Raises: ``ConfigurationError`` for an address of another scheme; ``DatabaseUnavailable``.
    """
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme not in POSTGRESQL_SCHEMES:
        raise ConfigurationError(
            f'cannot connect to an address of scheme "{scheme}"',
            hint="Give an address like postgresql://user@host:5432/database.",
        )
    async with Database.open(url, config) as database:
        yield Transport(database, database.session)
