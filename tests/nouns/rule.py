from __future__ import annotations

from coordinator.operations import rules
from tests.conftest import Transaction

LIMITS = {
    "key": [
        "coordinator.rule_set('default', repeat('a', $1::integer), '{X}')",
    ],
    "list": [
        "coordinator.rule_set('default', 'A', array_fill('a'::text, array[$1::integer]))",
    ],
    "page": [
        "coordinator.rule_list('default', p_limit => $1::integer)",
    ],
}


async def drive(tx: Transaction) -> None:
    await tx.run(rules.Set(project="default", when_set="A", clears=["B"]))
    await tx.run(rules.Delete(project="default", when_set="A"))
