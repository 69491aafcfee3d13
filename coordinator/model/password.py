"""Passwords: as they are entered, and as they are stored.

A password is stored as a PHC string: ``$scrypt$ln=15,r=8,p=3$<salt>$<hash>``. One hash takes 32 MiB and a quarter of a
second. No representation, log line, event or SQL statement contains a plain password: it is a ``Password`` until it is
hashed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
import unicodedata
from typing import Any, get_args

from coordinator.errors import InvalidArgument

__all__ = ["MAX_CHARACTERS", "MIN_CHARACTERS", "Password", "check_strength", "takes_password"]

MIN_CHARACTERS = 10
MAX_CHARACTERS = 1000
DISTINCT_CHARACTERS = 5
PART_MIN = 3  # characters of a name
LEFT_CHARACTERS = 6  # of a password, without words that an attacker would try first
_COST = "$scrypt$ln=15,r=8,p=3$"
_SALT = re.compile(re.escape(_COST) + r"([A-Za-z0-9+/]{22})")
_COMMON = (
    "password", "passwort", "passw0rd", "p@ssword", "p@ssw0rd", "motdepasse", "contraseña", "qwertyuiop", "qwertzuiop", "azertyuiop", "qwerty",
    "qwertz", "azerty", "asdfghjkl", "asdfgh", "zxcvbnm", "1q2w3e4r5t", "1q2w3e4r", "1qaz2wsx", "zaq12wsx", "letmein", "welcome", "iloveyou",
    "sunshine", "princess", "football", "baseball", "superman", "trustno1", "whatever", "changeme", "administrator", "admin", "coordinator",
    "secret", "dragon", "monkey", "master", "shadow", "login", "test", "user", "abc123", "1234567890", "123456789", "12345678", "123456", "12345",
    "0987654321", "987654321", "abcdefghij", "abcdefgh", "abcdef", "abc", "123",
)  # fmt: skip


class Password:
    """A password as it was entered. Only ``hashed`` and the body of a request to a daemon use its text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return "Password(…)"

    def reveal(self) -> str:
        """Return the text, to send it to a daemon."""
        return self._text

    def hashed(self, salted: str | None = None) -> str:
        """Return the PHC string, with a new salt or with the salt of ``salted``, the start of another PHC string. This takes 32 MiB.

        Raises: ``InvalidArgument`` for a text that cannot be a password.
        """
        found = _SALT.match(salted) if salted else None
        salt = secrets.token_bytes(16) if found is None else base64.b64decode(found[1] + "==")
        key = hashlib.scrypt(self._bytes(), salt=salt, n=2**15, r=8, p=3, maxmem=2**26, dklen=32)
        return f"{_COST}{_base64(salt)}${_base64(key)}"

    def _bytes(self) -> bytes:
        if len(self._text) > MAX_CHARACTERS:
            raise InvalidArgument(
                f"the password has more than {MAX_CHARACTERS} characters", hint="Shorten it.", code="ZC102"
            )
        try:
            return _normal(self._text).encode()
        except UnicodeEncodeError:
            raise InvalidArgument("the password is not valid Unicode", hint="Type it again.", code="ZC103") from None


def takes_password(type: Any) -> bool:
    """Return whether values of a type are passwords."""
    return any(one is Password for one in (type, *get_args(type)))


def check_strength(password: Password, *related: str | None) -> None:
    """Refuse a password that is easy to guess; ``related`` are words that an attacker would try, such as the username.

    Raises: ``InvalidArgument``.
    """
    text = _normal(password.reveal())
    hint = f"Use at least {MIN_CHARACTERS} characters, for instance four words that have nothing to do with each other."
    if len(text) < MIN_CHARACTERS:
        raise InvalidArgument(f"the password has fewer than {MIN_CHARACTERS} characters", hint=hint, code="ZC105")
    if len({*text}) < DISTINCT_CHARACTERS:
        raise InvalidArgument(
            f"the password has fewer than {DISTINCT_CHARACTERS} different characters", hint=hint, code="ZC105"
        )
    left = text.lower()
    parts = [part for word in related if word for part in re.split(r"[\W_]+", word.lower()) if len(part) >= PART_MIN]
    for word in (*parts, *_COMMON):
        left = left.replace(word, "")
    if len({*left}) < DISTINCT_CHARACTERS or len(left) < LEFT_CHARACTERS:
        raise InvalidArgument("the password is easily guessed", hint=hint, code="ZC105")


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")
