from __future__ import annotations

import asyncpg

from coordinator.operations import users
from tests.conftest import Transaction
from tests.nouns import Known, Pages

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

ARGUMENTS = {
    "username": "'user-of-{project}'",
    ("user_create", "username"): "'new'",
    ("user_password", "hash"): f"'{PHC}'",
}

OPTIONS_LACK = {
    "user_create": {"password": "asked for, or on standard input"},
    "user_password": {"password": "asked for, or on standard input"},
    "user_verify": {"password": "asked for, or on standard input"},
}
OPTIONS_ADD = {
    "user_create": {"no_password": "instead of the question"},
}


async def drive(tx: Transaction) -> None:
    await tx.run(users.Create(username="u"))
    await tx.run(users.Set(username="u", email="u@example.org"))
    await tx.run(users.ChangePassword(username="u", password=PHC))  # type: ignore[arg-type]
    await tx.run(users.Delete(username="u"))


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    await connection.execute("select coordinator.user_create('user-of-' || $1, p_hash => $2)", project, PHC)
    await connection.execute("select coordinator.session_set($1, 's', p_username => 'user-of-' || $1)", project)


async def some_users(tx: Transaction) -> None:
    for name in ("a", "0", "a.b", "a-b", "a_b"):
        await tx.run(users.Create(username=name))


PAGES = [
    Pages(some_users, users.List(), 5),
]
