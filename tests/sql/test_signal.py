from __future__ import annotations

from datetime import timedelta

import pytest

from coordinator.errors import Conflict, InvalidArgument, NotFound
from coordinator.operations import agents, signals
from tests.conftest import Transaction


async def test_set_gives_a_version_that_grows(tx: Transaction) -> None:
    first = await tx.run(signals.Set(project="default", key="build/state", value={"ok": True}))
    second = await tx.run(signals.Set(project="default", key="build/state", value=[1, "two", None]))
    assert second.version > first.version
    assert (await tx.run(signals.Get(project="default", key="build/state"))).value == [1, "two", None]


async def test_set_expecting_a_stale_version_is_refused_with_the_present_one(tx: Transaction) -> None:
    first = await tx.run(signals.Set(project="default", key="k", value=1))
    second = await tx.run(signals.Set(project="default", key="k", value=2, expect=first.version))
    with pytest.raises(Conflict) as raised:
        await tx.run(signals.Set(project="default", key="k", value=3, expect=first.version))
    assert raised.value.detail == f'{{"version": {second.version}}}'
    assert (await tx.run(signals.Get(project="default", key="k"))).value == 2


async def test_a_deleted_and_recreated_signal_never_has_an_old_version_again(tx: Transaction) -> None:
    first = await tx.run(signals.Set(project="default", key="k", value=1))
    await tx.run(signals.Delete(project="default", key="k"))
    await tx.run(signals.Set(project="default", key="k", value=1, expect=0))
    with pytest.raises(Conflict):
        await tx.run(signals.Set(project="default", key="k", value=2, expect=first.version))


async def test_an_expired_signal_is_absent_before_it_is_swept(tx: Transaction) -> None:
    await tx.run(signals.Set(project="default", key="k", value=1, ttl=timedelta(seconds=10)))
    await tx.set_clock(timedelta(seconds=11))
    with pytest.raises(NotFound):
        await tx.run(signals.Get(project="default", key="k"))
    assert await tx.run(signals.List(project="default")) == []
    again = await tx.run(signals.Set(project="default", key="k", value=2, expect=0))
    assert again.value == 2


async def test_setting_rejected_clears_completed_and_qa_passed_beside_it(tx: Transaction) -> None:
    for key in ("t/1/COMPLETED", "t/1/QA_PASSED", "t/2/COMPLETED"):
        await tx.run(signals.Set(project="default", key=key, value=True))
    await tx.run(signals.Set(project="default", key="t/1/REJECTED", value="no tests"))
    assert [s.key for s in await tx.run(signals.List(project="default", prefix="t/"))] == ["t/1/REJECTED", "t/2/COMPLETED"]
    cleared = [(r["key"], r["data"]["rule"]) for r in await tx.outbox() if r["type"] == "signal.cleared"]
    assert cleared == [("t/1/COMPLETED", "t/1/REJECTED"), ("t/1/QA_PASSED", "t/1/REJECTED")]


async def test_ephemeral_signals_end_with_their_agent(tx: Transaction) -> None:
    agent = await tx.run(agents.Register(project="default", name="coder"))
    await tx.run(signals.Set(project="default", key="here", value=1, agent=agent.id, ephemeral=True))
    await tx.run(signals.Set(project="default", key="stays", value=1, agent=agent.id))
    await tx.run(agents.Deregister(agent=agent.id))
    assert [s.key for s in await tx.run(signals.List(project="default"))] == ["stays"]
    assert [r["type"] for r in await tx.outbox()][-2:] == ["signal.ended", "agent.deregistered"]


@pytest.mark.parametrize("key", ["", "x" * 513, "a\nb", " a", "a\x00b", "a\ud800"])
async def test_bad_keys_are_refused_with_a_hint_and_change_nothing(tx: Transaction, key: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await tx.run(signals.Set(project="default", key=key, value=1))
    assert raised.value.hint
    assert await tx.outbox() == []
