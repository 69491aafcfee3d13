from __future__ import annotations

from datetime import timedelta

import pytest

from coordinator.errors import Conflict
from coordinator.operations import idempotency
from tests.conftest import Transaction

DAY = timedelta(days=1)


async def test_a_claimed_key_returns_what_was_stored_until_its_time_has_passed(tx: Transaction) -> None:
    claim = idempotency.Claim(project="default", caller="1", key="k", request="digest", ttl=DAY)
    assert await tx.run(claim) is None
    await tx.run(idempotency.Store(project="default", caller="1", key="k", response='{"a":  1}'))
    assert await tx.run(claim) == '{"a":  1}'
    assert await tx.run(idempotency.Claim(project="default", caller="2", key="k", request="another", ttl=DAY)) is None
    assert await tx.run(idempotency.Claim(project="other", caller="1", key="k", request="digest", ttl=DAY)) is None
    await tx.set_clock(after=DAY + timedelta(seconds=1))
    assert await tx.run(claim) is None


async def test_a_key_of_another_request_is_refused(tx: Transaction) -> None:
    await tx.run(idempotency.Claim(project="default", caller="1", key="k", request="digest", ttl=DAY))
    with pytest.raises(Conflict) as raised:
        await tx.run(idempotency.Claim(project="default", caller="1", key="k", request="another", ttl=DAY))
    assert raised.value.code == "ZC305"
    assert raised.value.hint


async def test_prune_deletes_what_has_passed_and_nothing_else(tx: Transaction) -> None:
    for number in range(3):
        await tx.run(
            idempotency.Claim(project="default", caller="1", key=f"k{number}", request="digest", ttl=DAY * (number + 1))
        )
    await tx.set_clock(after=DAY * 2 + timedelta(seconds=1))
    assert await tx.run(idempotency.Prune(limit=1)) == 1
    assert await tx.run(idempotency.Prune()) == 1
    assert await tx.run(idempotency.Prune()) == 0
