"""Where the sidecar listens: on loopback, on a unix socket, or on both."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType

from coordinator.api.access import is_loopback
from coordinator.api.server import BACKLOG, bind
from coordinator.errors import ConfigurationError

__all__ = ["listeners"]

HINTS: Mapping[int, str] = MappingProxyType(
    {
        errno.EADDRINUSE: "Is another sidecar running? Choose another port with --listen HOST:PORT; 0 picks a free one.",
        0: "Choose another address with --listen, such as 127.0.0.1:0.",
    }
)
SOCKET_MODE = 0o660  # the agent's container has the same group or user


@contextmanager
def listeners(listen: str, path: Path | None) -> Iterator[list[socket.socket]]:
    """Bind ``host:port``, unless it is ``none``, and the socket at ``path``, whose file is removed when the context ends.

    Raises: ``ConfigurationError``.
    """
    with ExitStack() as stack:
        sockets = []
        if listen != "none":
            host, _, port = listen.rpartition(":")
            host = host.strip("[]")
            if not host or not port.isdecimal() or not 0 <= int(port[:9]) < 65536:
                raise ConfigurationError(
                    f'invalid address "{listen[:100]}" to listen on', hint="Write it like 127.0.0.1:7421."
                )
            if not is_loopback(host):
                raise ConfigurationError(
                    f"a sidecar does not listen on {host}",
                    hint="It serves this machine only. Listen on 127.0.0.1, or run a daemon.",
                )
            sockets.append(stack.enter_context(bind(host, int(port), hints=HINTS)))
        if path is not None:
            sockets.append(stack.enter_context(_bind(path)))
            stack.callback(path.unlink, missing_ok=True)
        if not sockets:
            raise ConfigurationError(
                "the sidecar has no address to listen on", hint="Pass --listen, --socket, or both."
            )
        yield sockets


def _bind(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        _clear(path)
        listener.bind(str(path))
        path.chmod(SOCKET_MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"cannot listen on {path}: {error.strerror or error}",
            hint="Choose a path of at most 100 characters in a folder that this user can write to.",
        ) from error
    return listener


def _clear(path: Path) -> None:
    """Remove the file of a socket that no process listens on."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
