"""Users and their passwords.

A plain password never reaches SQL: the process that runs an operation on PostgreSQL hashes it first, one at a time and
off the event loop. A check needs the salt, so it begins with a separate call (``Challenge``), which also counts the
attempt, so that a later failure cannot undo the count. An unknown user has a salt like any other, so the check takes as
long.
"""

from __future__ import annotations

from functools import partial
from typing import Self

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from msgspec.structs import replace

from coordinator.errors import DatabaseBusy
from coordinator.model.operation import Operation, Scope
from coordinator.model.password import Password, check_strength
from coordinator.model.user import User
from coordinator.operations.executor import Runner

__all__ = ["Challenge", "ChangePassword", "Create", "Delete", "List", "Set", "Verify"]

WAITING_MAX = 50  # maximum number of passwords that wait to be hashed


class _Turns:
    """Lets callers hash passwords one at a time, in one event loop."""

    def __init__(self) -> None:
        self.one = anyio.CapacityLimiter(1)
        self.asked = 0


_turns: RunVar[_Turns] = RunVar("passwords")


async def _hashed(password: Password, salted: str | None = None) -> str:
    """Hash a password when it is its turn.

    Raises: ``DatabaseBusy`` if too many wait; ``InvalidArgument``.
    """
    try:
        turns = _turns.get()
    except LookupError:
        turns = _Turns()
        _turns.set(turns)
    if turns.asked > WAITING_MAX:
        raise DatabaseBusy(f"{WAITING_MAX} passwords are waiting to be checked", hint="Try again in a few seconds.")
    turns.asked += 1
    try:
        return await anyio.to_thread.run_sync(partial(password.hashed, salted), limiter=turns.one)
    finally:
        turns.asked -= 1


class Create(Operation[User], frozen=True, kw_only=True):
    """Create a user with a role: reader, agent, manager or admin. Without ``password``, nobody can verify the user.

    Raises: ``Conflict`` if the username or the email is taken; ``InvalidArgument``, also for a weak password.
    """

    function = "user_create"
    scope = Scope.ALL
    speakers = ("actor",)
    prepares = True
    sql_names = {"password": "hash"}

    username: str
    role: str = "agent"
    email: str | None = None
    password: Password | None = None
    actor: str | None = None

    async def prepared(self, _runner: Runner) -> Self:
        """Return the call with the hash in place of the password."""
        given: object = self.password
        if not isinstance(given, Password):
            return self
        check_strength(given, self.username, self.email)
        return replace(self, password=await _hashed(given))


class ChangePassword(Operation[User], frozen=True, kw_only=True):
    """Set the password of a user.

    Raises: ``NotFound``; ``InvalidArgument`` for a weak password.
    """

    function = "user_password"
    scope = Scope.ALL
    speakers = ("actor",)
    prepares = True
    sql_names = {"password": "hash"}

    username: str
    password: Password
    actor: str | None = None

    async def prepared(self, _runner: Runner) -> Self:
        """Return the call with the hash in place of the password."""
        given: object = self.password
        if not isinstance(given, Password):
            return self
        check_strength(given, self.username)
        return replace(self, password=await _hashed(given))


class Verify(Operation[User], frozen=True, kw_only=True):
    """Verify a password, and return its user.

    Raises: ``Unauthenticated`` for a wrong password, an unknown or disabled user (``ZC504``), or after too many attempts (``ZC505``).
    """

    function = "user_verify"
    scope = Scope.ALL
    speakers = ("actor",)
    prepares = True
    sql_names = {"password": "hash"}

    username: str
    password: Password
    actor: str | None = None

    async def prepared(self, runner: Runner) -> Self:
        """Count the attempt, and return the call with the hash in place of the password."""
        given: object = self.password
        if not isinstance(given, Password):
            return self
        salted = await runner.run(Challenge(username=self.username))
        return replace(self, password=await _hashed(given, salted))


class Challenge(Operation[str], frozen=True, kw_only=True):
    """Count an attempt to verify a user, and return the salt of the password: the start of its PHC string.

    Raises: ``Unauthenticated`` after too many attempts.
    """

    function = "user_challenge"
    internal = True

    username: str


class List(Operation[list[User]], frozen=True, kw_only=True):
    """List users, by username."""

    function = "user_list"
    reads = True
    scope = Scope.ALL
    page_by = ("username",)

    after: list[str] | None = None
    limit: int = 1000


class Set(Operation[User], frozen=True, kw_only=True):
    """Change a user; omitted options keep their values. An empty ``email`` removes it.

    Disabling a user revokes the user's tokens; a lower role revokes those with more.

    Raises: ``Conflict`` if the email is taken; ``NotFound``.
    """

    function = "user_set"
    scope = Scope.ALL
    speakers = ("actor",)

    username: str
    role: str | None = None
    email: str | None = None
    disabled: bool | None = None
    actor: str | None = None


class Delete(Operation[bool], frozen=True, kw_only=True):
    """Delete a user. The user's tokens are revoked; projects and sessions stay, without a user.

    Raises: ``NotFound``.
    """

    function = "user_delete"
    scope = Scope.ALL
    speakers = ("actor",)

    username: str
    actor: str | None = None
