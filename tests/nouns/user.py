from __future__ import annotations

from coordinator.operations import users
from tests.conftest import Transaction

PHC = "$scrypt$ln=15,r=8,p=3$" + "s" * 22 + "$" + "h" * 43

LIMITS = {
    "username": [
        "coordinator.user_create(repeat('a', $1::integer))",
    ],
    "user_email": [
        "coordinator.user_create('u', p_email => repeat('a', $1::integer - 2) || '@b')",
    ],
    "page": [
        "coordinator.user_list(p_limit => $1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.run(users.Create(username="u"))
    await tx.run(users.Set(username="u", email="u@example.org"))
    await tx.run(users.ChangePassword(username="u", password=PHC))  # type: ignore[arg-type]
    await tx.run(users.Delete(username="u"))
