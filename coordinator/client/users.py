"""Users and their passwords. For administrators."""

from __future__ import annotations

from typing import Literal

from coordinator.client.caller import Verbs
from coordinator.client.listing import PAGE, Listing
from coordinator.model.password import Password
from coordinator.model.user import User
from coordinator.operations import users

__all__ = ["Users"]

RoleName = Literal["reader", "agent", "manager", "admin"]


class Users(Verbs):
    """All users."""

    async def create(
        self, username: str, *, role: RoleName = "agent", email: str | None = None, password: str | None = None
    ) -> User:
        """Create a user. Without ``password``, nobody can verify the user.

        Raises: ``Conflict`` if the username or the email is taken; ``InvalidArgument``, also for a weak password.
        """
        return await self._caller.run(
            users.Create(
                username=username,
                role=role,
                email=email,
                password=None if password is None else Password(password),
                actor=await self._caller.actor(),
            )
        )

    async def verify(self, username: str, password: str) -> User:
        """Verify a password, and return its user.

        Raises: ``Unauthenticated`` for a wrong password, an unknown or disabled user (``ZC504``), or after too many attempts (``ZC505``).
        """
        return await self._caller.run(
            users.Verify(username=username, password=Password(password), actor=await self._caller.actor())
        )

    async def password(self, username: str, password: str) -> User:
        """Set the password of a user.

        Raises: ``NotFound``; ``InvalidArgument`` for a weak password.
        """
        return await self._caller.run(
            users.ChangePassword(username=username, password=Password(password), actor=await self._caller.actor())
        )

    def list(self, *, after: str | None = None, limit: int = PAGE) -> Listing[User]:
        """List users, by username."""
        return Listing(self._caller, users.List(limit=limit), after)

    async def set(
        self,
        username: str,
        *,
        role: RoleName | None = None,
        email: str | None = None,
        disabled: bool | None = None,
    ) -> User:
        """Change a user; omitted fields keep their values. An empty ``email`` removes it.

        Disabling a user revokes the user's tokens; a lower role revokes those with more.

        Raises: ``Conflict`` if the email is taken; ``NotFound``.
        """
        return await self._caller.run(
            users.Set(username=username, role=role, email=email, disabled=disabled, actor=await self._caller.actor())
        )

    async def delete(self, username: str) -> None:
        """Delete a user. The user's tokens are revoked; projects and sessions stay, without a user.

        Raises: ``NotFound``.
        """
        await self._caller.run(users.Delete(username=username, actor=await self._caller.actor()))
