"""Access to HTTP: whether it requires tokens, and who sent a request.

A client presents a token (``Authorization: Bearer coo_…``). If access is open, which is only possible on loopback,
everyone is an administrator. ``api.principal`` defines what a principal may do; ``api.tokens`` defines for how long a
check is valid.

On failure: while the database is unavailable, a request whose token was not checked recently gets 503. What this
deliberately does not do: accept tokens from the address or from cookies. Addresses end up in logs, and other sites can
make a browser send cookies. A browser's ``EventSource`` cannot send a header; use ``fetch`` (``examples/follow.js``).
"""

from __future__ import annotations

import ipaddress

from starlette.types import Scope

from coordinator.api.principal import Principal
from coordinator.api.tokens import Tokens
from coordinator.config import Config
from coordinator.errors import ConfigurationError, Unauthenticated
from coordinator.model.token import OBTAIN, SECRET, digest
from coordinator.operations.executor import Runner, Wake

__all__ = ["IDENTIFIED", "Access", "is_loopback", "is_open"]

IDENTIFIED = "coordinator.principal"  # in a scope: the principal that was just identified as the sender of the request


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def is_open(config: Config) -> bool:
    """Return whether HTTP asks for no tokens: ``access`` says so, or is ``auto`` with a private database on loopback.

    Raises: ``ConfigurationError`` where others could reach what is open.
    """
    loopback = is_loopback(config.host)
    if config.access == "auto":
        return loopback and config.database_url is None
    if config.access == "open" and not loopback:
        raise ConfigurationError(
            f"open access on {config.host} lets in everyone who can reach it",
            hint=f"Set COORDINATOR_ACCESS=tokens, or listen on 127.0.0.1. {OBTAIN}",
        )
    return config.access == "open"


class Access:
    """Identifies the sender of a request. The daemon makes one; without an ``executor``, access is open."""

    def __init__(self, executor: Runner | None) -> None:
        self._tokens = None if executor is None else Tokens(executor)

    async def run_forever(self, wake: Wake) -> None:
        """End streams and waits of revoked tokens, until cancelled; ``wake`` listens to ``TOKEN_CHANNEL``."""
        if self._tokens is not None:
            await self._tokens.run_forever(wake)

    async def identify(self, scope: Scope) -> Principal:
        """Return the sender of a request.

        Raises: ``Unauthenticated``; ``DatabaseUnavailable`` if the token cannot be checked.
        """
        identified: Principal | None = scope.get(IDENTIFIED)
        if identified is not None:
            return identified
        if self._tokens is None:
            return Principal()
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        if not given:
            raise Unauthenticated(
                "the request has no token",
                hint=f'Send the header "Authorization: Bearer coo_…" (clients: COORDINATOR_TOKEN). {OBTAIN}',
            )
        scheme, _, secret = given[0].decode("latin-1").partition(" ")
        if len(given) > 1 or scheme.lower() != "bearer" or not SECRET.fullmatch(secret.strip()):
            raise Unauthenticated(
                "the header Authorization holds no valid token",
                hint=f"Send Authorization: Bearer coo_… once. {OBTAIN}",
                code="ZC501",
            )
        found = digest(secret.strip())
        return Principal(await self._tokens.check(found), found, self._tokens)
