"""The HTTP server: uvicorn on a socket that is already bound. Its owner stops it, not a shutdown signal."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from math import ceil
from types import MappingProxyType
from typing import Any, cast

import anyio
import structlog
import uvicorn
from msgspec.structs import replace
from starlette.types import ASGIApp

from coordinator.api.connection import LimitedConnection
from coordinator.api.tls import Certificate
from coordinator.config import Config
from coordinator.errors import ConfigurationError

__all__ = ["bind", "fitted", "serving", "url_of"]

BACKLOG = 2048
DRAIN_S = 4.0
FILES_BESIDE = 128  # open files other than HTTP connections and the pool's connections
HINTS: Mapping[int, str] = MappingProxyType(
    {
        errno.EADDRINUSE: "Is a daemon already running? Choose another port with --port; 0 picks a free one.",
        errno.EACCES: "This user may not listen on that port. Choose a higher one with --port.",
        0: "This machine does not have that address. Give one of its own with --host, or 0.0.0.0 for all of them.",
    }
)
SILENT_PEER_MS = 90_000  # a peer that acknowledges nothing for this long counts as disconnected

log = structlog.get_logger()


class _HttpServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave shutdown signals to the daemon."""
        yield


def bind(host: str, port: int, *, hints: Mapping[int, str] = HINTS) -> socket.socket:
    """Bind the listening socket, before anything else starts. ``hints`` says what to do, by the number of the error.

    Raises: ``ConfigurationError`` if the address is in use or not ours.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections inherit it
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_PEER_MS)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}", hint=hints.get(error.errno or 0, hints[0])
        ) from error
    return listener


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    """Return the address of a listening socket for clients."""
    name = listener.getsockname()
    if listener.family is socket.AF_UNIX:
        return f"unix://{name}"
    host, port = name[:2]
    return f"http{'s' * tls}://" + (f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def fitted(config: Config) -> Config:
    """Raise the process's limit of open files as far as needed and allowed; lower ``http_connections`` to what fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    beside = config.max_connections + FILES_BESIDE
    wanted = config.http_connections + beside
    if soft != resource.RLIM_INFINITY and soft < wanted:
        raised = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):  # some systems allow less than they report
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return config
    connections = max(1, soft - beside)
    # Few machines allow the default. Only if a number of connections was configured must the user learn that there are fewer.
    asked = config.http_connections != Config().http_connections
    (log.warning if asked else log.debug)(
        "http.few_files", files=soft, connections=connections, wanted=config.http_connections
    )
    return replace(config, http_connections=connections)


@asynccontextmanager
async def serving(
    app: ASGIApp,
    listener: socket.socket,
    config: Config,
    certificate: Certificate | None = None,
    *,
    also: Sequence[socket.socket] = (),
) -> AsyncIterator[None]:
    """Serve within the context. At its end, requests that have started get ``DRAIN_S`` seconds to finish.

    With a certificate it serves only HTTPS, and reloads the certificate when its files change.
    """
    config = fitted(config)
    server = _HttpServer(
        uvicorn.Config(
            app,
            http=cast("Any", partial(LimitedConnection, config)),
            ssl_context_factory=None if certificate is None else lambda _config, _default: certificate.context,
            loop="none",
            lifespan="off",
            access_log=False,
            proxy_headers=False,  # see api/forwarded.py
            log_config=None,
            server_header=False,
            timeout_keep_alive=ceil(config.http_keep_alive_s),
            timeout_graceful_shutdown=int(DRAIN_S),
        )
    )
    ended = anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            try:
                await server.serve(sockets=[listener, *also])
            finally:
                ended.set()
            if not server.should_exit:
                raise RuntimeError("the HTTP server ended unexpectedly")

        tasks.start_soon(run)
        if certificate is not None:
            tasks.start_soon(certificate.run_forever)
        try:
            yield
        finally:
            server.should_exit = True
            with anyio.move_on_after(DRAIN_S + 1, shield=True):
                await ended.wait()
            server.force_exit = True
            tasks.cancel_scope.cancel()
