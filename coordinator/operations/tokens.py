"""Tokens: who may use HTTP, with which role, in which project, and for how long."""

from __future__ import annotations

from datetime import timedelta

from coordinator.model.operation import Operation, Scope
from coordinator.model.token import Token

__all__ = ["Authenticate", "Create", "List", "Live", "Revoke", "Use"]


class Create(Operation[Token], frozen=True, kw_only=True):
    """Create a token from the SHA-256 of its secret, which stays with the caller. Without ``project``, it is for all projects.

    ``role`` is reader, agent, manager or admin. ``ttl`` is 1 second to 366 days. ``prefix`` is the secret's first 8
    characters, for recognising it. A secret is ``coo_`` and 43 characters of base64url: 256 random bits.

    It may belong to the user ``username``, whose role includes its role; it then ends with the user.

    Raises: ``InvalidArgument``; ``NotFound`` if the project or the user does not exist.
    """

    function = "token_create"
    scope = Scope.IN_PROJECT
    speakers = ("actor",)

    name: str
    role: str
    hash: str
    prefix: str
    project: str | None = None
    ttl: timedelta = timedelta(days=90)
    username: str | None = None
    actor: str | None = None


class List(Operation[list[Token]], frozen=True, kw_only=True):
    """List tokens in order of creation, including those that have ended."""

    function = "token_list"
    reads = True
    scope = Scope.ALL
    page_by = ("id",)

    after: list[str] | None = None
    limit: int = 1000


class Revoke(Operation[bool], frozen=True, kw_only=True):
    """Revoke a token immediately and end the streams that it opened; return false if it was already revoked.

    Raises: ``NotFound``.
    """

    function = "token_revoke"
    scope = Scope.ALL
    speakers = ("actor",)

    token: int
    actor: str | None = None


class Authenticate(Operation[Token], frozen=True, kw_only=True):
    """Find a token by the hash of its secret.

    Raises: ``Unauthenticated`` if the token is unknown, revoked or expired.
    """

    function = "token_authenticate"
    reads = True
    internal = True

    hash: str


class Use(Operation[bool], frozen=True, kw_only=True):
    """Record that a token was used."""

    function = "token_use"
    internal = True

    token: int


class Live(Operation[list[int]], frozen=True, kw_only=True):
    """Return which of up to 1,000 tokens are still valid."""

    function = "token_live"
    reads = True
    internal = True

    tokens: list[int]
