from __future__ import annotations

from coordinator.model.token import new_secret
from coordinator.operations import tokens
from tests.conftest import Transaction

LIMITS = {
    "list": [
        "coordinator.token_live(array_fill(1::bigint, array[$1::integer]))",
    ],
    "page": [
        "coordinator.token_list(p_limit => $1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    secret = new_secret()
    made = await tx.run(tokens.Create(name="t", role="agent", hash=secret.hash, prefix=secret.prefix))
    await tx.run(tokens.Revoke(token=made.id))
