"""The object store for contents of artifacts, if it is configured. The only module that uses its client, obstore.

Any S3-compatible store works. The setting ``artifact_store`` names bucket and prefix; the client finds endpoint, region
and credentials itself: in the ``AWS_…`` variables, a web identity, the container or the instance.

Guarantees: an object is written in one request, which the store verifies by its signed SHA-256, so a killed process
leaves a whole object or none. A read ends within ``call_timeout_s``. Objects of a store that is not the configured one
are neither read nor deleted.

On failure: ``StoreUnavailable`` with a hint. The client repeats a request for a few seconds; after that, the caller
repeats it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from coordinator.config import Config
from coordinator.errors import ConfigurationError, StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import S3Store

__all__ = ["ObjectStore"]

CONNECT_S = 5.0
WRITE_S = 300.0  # far less than the hour after which artifact_object_delete deletes unfinished objects
RETRY_S = 5.0
RETRIES = 3
PIECE_BYTES = 4 << 20


class ObjectStore:
    """The configured store; opened when it is first used. ``url`` is None if there is none."""

    def __init__(self, config: Config) -> None:
        self.url = config.artifact_store
        self._read_s = config.call_timeout_s

    def check(self) -> None:
        """Open the store without connecting to it, if one is configured.

        Raises: ``ConfigurationError``.
        """
        if self.url is not None:
            self._store  # noqa: B018 - opens it

    async def read(self, store: str, key: str, first: int, length: int) -> bytes:
        """Return ``length`` bytes of an object of a store from byte ``first`` on.

        Raises: ``StoreUnavailable``; ``ConfigurationError``.
        """
        self._check_store(store)
        async with self._errors(self._read_s):
            from obstore import get_range_async  # noqa: PLC0415

            data = await get_range_async(self._store, key, start=first, length=length)
        if len(data) != length:
            raise StoreUnavailable(
                f"object {key} of {store} has {len(data)} bytes from {first} on, not {length}",
                hint="Restore the object from a copy.",
                code="ZC802",
            )
        return bytes(data)

    async def pieces(self, key: str, size: int) -> AsyncIterator[bytes]:
        """Yield an object of ``size`` bytes."""
        for first in range(0, size, PIECE_BYTES):
            yield await self.read(self.url or "", key, first, min(PIECE_BYTES, size - first))

    async def write(self, key: str, parts: Sequence[bytes]) -> None:
        """Write an object, replacing any object with the same key.

        Raises: ``StoreUnavailable``; ``ConfigurationError``.
        """
        async with self._errors(WRITE_S):
            from obstore import put_async  # noqa: PLC0415

            await put_async(self._store, key, parts, use_multipart=False)

    async def size(self, key: str) -> int:
        """Return the size of an object.

        Raises: ``StoreUnavailable``; ``ConfigurationError``.
        """
        async with self._errors(self._read_s):
            from obstore import head_async  # noqa: PLC0415

            return (await head_async(self._store, key))["size"]

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; missing ones count as deleted.

        Raises: ``StoreUnavailable``; ``ConfigurationError``.
        """
        async with self._errors(self._read_s):
            from obstore import delete_async  # noqa: PLC0415

            await delete_async(self._store, keys)

    def _check_store(self, store: str) -> None:
        if self.url == store:
            return
        used = "no object store" if self.url is None else self.url
        raise StoreUnavailable(
            f"the bytes are in the object store {store}, and this process uses {used}",
            hint=f"Set COORDINATOR_ARTIFACT_STORE={store}, or read them through a daemon that has it.",
            code="ZC801",
        )

    @cached_property
    def _store(self) -> S3Store:
        assert self.url is not None  # noqa: S101
        try:
            from obstore.exceptions import BaseError  # noqa: PLC0415
            from obstore.store import S3Store  # noqa: PLC0415
        except ImportError:
            raise ConfigurationError(
                "artifact_store is set, but the client of object stores is not installed",
                hint="Install it: pip install 'coordinatord[s3]'.",
            ) from None
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")

        try:
            return S3Store(
                bucket,
                prefix=prefix or None,
                config={"disable_bulk_delete": True},  # not every store supports it
                client_options={
                    "connect_timeout": timedelta(seconds=CONNECT_S),
                    "timeout": timedelta(seconds=WRITE_S),
                    "allow_http": True,  # if the endpoint uses it
                },
                retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
            )
        except (BaseError, ValueError) as error:
            raise ConfigurationError(
                f"the object store {self.url} cannot be used: {_reason(error)}", hint="Check the AWS_… variables."
            ) from None

    @asynccontextmanager
    async def _errors(self, limit_s: float) -> AsyncIterator[None]:
        """Limit the time of a request, and map its errors."""
        self._store  # noqa: B018 - raises if it cannot be opened
        import anyio  # noqa: PLC0415 - not needed by a command that reads no object
        from obstore.exceptions import BaseError  # noqa: PLC0415

        try:
            with anyio.fail_after(limit_s):
                yield
        except FileNotFoundError as error:
            raise StoreUnavailable(
                f"the object store {self.url} lacks an object: {_reason(error)}",
                hint="Restore the bucket and its objects from a copy; see the versions of the bucket.",
                code="ZC802",
            ) from None
        except TimeoutError:
            raise StoreUnavailable(
                f"the object store {self.url} gave no answer within {limit_s:g} seconds",
                hint="Check that it runs and is reachable, then try again.",
            ) from None
        except (BaseError, OSError, ValueError) as error:
            raise StoreUnavailable(
                f"the object store {self.url} failed: {_reason(error)}",
                hint="Check that it runs, the AWS_… variables and the rights to the bucket, then try again.",
            ) from None


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
