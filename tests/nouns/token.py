from __future__ import annotations

import asyncpg

from coordinator.model.token import new_secret
from coordinator.operations import tokens
from tests.conftest import Transaction
from tests.nouns import Known, Pages

LIMITS = {
    "list": [
        "coordinator.token_live(array_fill(1::bigint, array[$1::integer]))",
    ],
    "page": [
        "coordinator.token_list(p_limit => $1::integer)",
    ],
}

ARGUMENTS = {
    ("token_create", "role"): "'reader'",
    "hash": "repeat('a', 64)",
    "prefix": "'coo_abcd'",
}

NOT_IN_PYTHON = {
    "token_create": "for administrators; the command line draws the secret",
    "token_list": "for administrators",
    "token_revoke": "for administrators",
}
OPTIONS_LACK = {
    "token_create": {
        "hash": "made from the secret that the command draws",
        "prefix": "made from the secret that the command draws",
    },
}
OPTIONS_ADD = {
    "token_create": {"everywhere": "--project has a default"},
}
SPELLED = {
    "token_create": {"username": "user"},
}


async def drive(tx: Transaction) -> None:
    secret = new_secret()
    made = await tx.run(tokens.Create(name="t", role="agent", hash=secret.hash, prefix=secret.prefix))
    await tx.run(tokens.Revoke(token=made.id))


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    create = "select coordinator.token_create('of ' || $1, 'reader', encode(sha256($1::bytea), 'hex'), 'coo_abcd', $1)"
    await connection.execute(create, project)


async def some_tokens(tx: Transaction) -> None:
    for _ in range(5):
        secret = new_secret()
        await tx.run(tokens.Create(name="same", role="reader", hash=secret.hash, prefix=secret.prefix))


PAGES = [
    Pages(some_tokens, tokens.List(), 5),
]
