"""Tokens: they grant access to the HTTP API; each has a secret.

A secret is ``coo_`` and 256 random bits. It is shown once, and only its SHA-256 is stored. A slow hash would protect
passwords that people choose; 256 random bits cannot be guessed.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from enum import IntEnum

import msgspec

__all__ = ["OBTAIN", "SECRET", "Role", "Secret", "Token", "digest", "new_secret"]

SECRET = re.compile(r"coo_[A-Za-z0-9_-]{43}")
PREFIX_LENGTH = 8
OBTAIN = (
    "An administrator creates a token, the first one with the address of the database instead of the daemon: "
    "coordinator token create NAME --role agent --url postgresql://…"
)


class Role(IntEnum):
    """Roles: each may do everything that the ones before it may."""

    reader = 1
    agent = 2
    manager = 3
    admin = 4


class Token(msgspec.Struct, frozen=True):
    """A token without its secret; without ``project``, it is for all projects. It ends with the user of ``username``."""

    id: int
    name: str
    role: str
    project: str | None
    prefix: str
    actor: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None
    revoked_at: datetime | None
    username: str | None


class Secret(msgspec.Struct, frozen=True):
    """A new secret, and the parts of it that may be kept."""

    text: str
    hash: str
    prefix: str

    def __repr__(self) -> str:
        return f"Secret({self.prefix}…)"


def new_secret() -> Secret:
    """Generate a secret."""
    import secrets  # noqa: PLC0415 - slow to import, and rarely needed

    text = "coo_" + secrets.token_urlsafe(32)
    return Secret(text, digest(text), text[:PREFIX_LENGTH])


def digest(secret: str) -> str:
    """Hash a secret; the database only receives this hash."""
    return hashlib.sha256(secret.encode()).hexdigest()
