"""Ports for servers that stop and start again at the same address."""

from __future__ import annotations

import socket

__all__ = ["reserve_port"]

_RESERVED: list[socket.socket] = []


def reserve_port() -> int:
    """Return a port that nobody else gets until this process ends, and that refuses connections while nobody listens on it.

    A socket that is bound and does not listen keeps the port. Servers may bind it too: they set SO_REUSEADDR.
    """
    kept = socket.socket()
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    kept.bind(("127.0.0.1", 0))
    _RESERVED.append(kept)
    return int(kept.getsockname()[1])
