"""Tokens: who may use HTTP, as what, in which project, and for how long."""

from __future__ import annotations

from datetime import timedelta

from coordinator.model.operation import Operation, Scope
from coordinator.model.token import Token

__all__ = ["Authenticate", "Create", "List", "Live", "Revoke", "Use"]


class Create(Operation[Token], frozen=True, kw_only=True):
    """Record a token by the SHA-256 of its secret, which stays with the caller; ``project`` none: for all projects.

    ``role`` is reader, agent, manager or admin; ``ttl`` is 1 second to 366 days; ``prefix``: the secret's first 8
    characters, to recognise it by. A secret is ``coo_`` and 43 characters of base64url: 256 random bits.

    Raises: ``InvalidArgument``; ``NotFound`` where there is no such project.
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
    actor: str | None = None


class List(Operation[list[Token]], frozen=True, kw_only=True):
    """List tokens in the order of their making; ended ones, too."""

    function = "token_list"
    reads = True
    scope = Scope.ALL
    page_by = ("id",)

    after: list[str] | None = None
    limit: int = 1000


class Revoke(Operation[bool], frozen=True, kw_only=True):
    """Revoke a token, at once and with the streams that it opened; false if it was revoked already.

    Raises: ``NotFound``.
    """

    function = "token_revoke"
    scope = Scope.ALL
    speakers = ("actor",)

    token: int
    actor: str | None = None


class Authenticate(Operation[Token], frozen=True, kw_only=True):
    """Find the token of a secret by its hash.

    Raises: ``Unauthenticated`` where it is not known, revoked or expired.
    """

    function = "token_authenticate"
    reads = True
    internal = True

    hash: str


class Use(Operation[bool], frozen=True, kw_only=True):
    """Note that a token was used."""

    function = "token_use"
    internal = True

    token: int


class Live(Operation[list[int]], frozen=True, kw_only=True):
    """Tell which of up to 1,000 tokens still open something."""

    function = "token_live"
    reads = True
    internal = True

    tokens: list[int]
