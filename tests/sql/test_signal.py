from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import asyncpg
import pytest

from coordinator.errors import Conflict, InvalidArgument, NotFound
from coordinator.operations import agents, signals
from tests.conftest import Transaction
from tests.sql.refusal import refused


async def test_set_returns_a_version_that_grows(tx: Transaction) -> None:
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
    await tx.set_clock(timedelta(0))
    await tx.run(signals.Set(project="default", key="k", value=1, ttl=timedelta(seconds=10)))
    await tx.set_clock(timedelta(seconds=11))
    with pytest.raises(NotFound):
        await tx.run(signals.Get(project="default", key="k"))
    assert await tx.run(signals.List(project="default")) == []
    again = await tx.run(signals.Set(project="default", key="k", value=2, expect=0))
    assert again.value == 2


async def test_setting_rejected_clears_completed_and_qa_passed_next_to_it(tx: Transaction) -> None:
    for key in ("t/1/COMPLETED", "t/1/QA_PASSED", "t/2/COMPLETED"):
        await tx.run(signals.Set(project="default", key=key, value=True))
    await tx.run(signals.Set(project="default", key="t/1/REJECTED", value="no tests"))
    assert [s.key for s in await tx.run(signals.List(project="default", prefix="t/"))] == [
        "t/1/REJECTED",
        "t/2/COMPLETED",
    ]
    cleared = [(r["key"], r["data"]["rule"]) for r in await tx.events() if r["type"] == "signal.cleared"]
    assert cleared == [("t/1/COMPLETED", "t/1/REJECTED"), ("t/1/QA_PASSED", "t/1/REJECTED")]


async def test_ephemeral_signals_end_with_their_agent(tx: Transaction) -> None:
    agent = await tx.run(agents.Register(project="default", name="coder"))
    await tx.run(signals.Set(project="default", key="here", value=1, agent=agent.id, ephemeral=True))
    await tx.run(signals.Set(project="default", key="stays", value=1, agent=agent.id))
    await tx.run(agents.Deregister(agent=agent.id))
    assert [s.key for s in await tx.run(signals.List(project="default"))] == ["stays"]
    assert [r["type"] for r in await tx.events()][-2:] == ["signal.ended", "agent.deregistered"]


@pytest.mark.parametrize("key", ["", "x" * 513, "a\nb", " a", "a\x00b", "a\ud800"])
async def test_bad_keys_are_refused_with_a_hint_and_change_nothing(tx: Transaction, key: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await tx.run(signals.Set(project="default", key=key, value=1))
    assert raised.value.hint
    assert await tx.events() == []


async def test_list_is_in_byte_order_by_prefix_and_page(tx: Transaction) -> None:
    for key in ("b", "a/2", "a/10", "a", "A", "a/ü", "a0", "a%", "a_"):
        await tx.run(signals.Set(project="default", key=key, value=1))
    everything = [s.key for s in await tx.run(signals.List(project="default"))]
    assert everything == sorted(everything, key=str.encode)
    assert [s.key for s in await tx.run(signals.List(project="default", prefix="a/"))] == ["a/10", "a/2", "a/ü"]
    assert [s.key for s in await tx.run(signals.List(project="default", prefix="a%"))] == ["a%"]
    assert [s.key for s in await tx.run(signals.List(project="default", prefix="a/", after=["a/10"], limit=1))] == [
        "a/2"
    ]


@pytest.mark.parametrize("value", [None, True, 0, -1.5, "", "x", [], {}, [None, {"a": [1]}], {"ü": "\u2028"}, 2**60])
async def test_any_json_value_is_returned_unchanged(tx: Transaction, value: object) -> None:
    await tx.run(signals.Set(project="default", key="k", value=value))  # type: ignore[arg-type]
    assert (await tx.run(signals.Get(project="default", key="k"))).value == value


async def test_a_signal_lives_24_hours_by_default(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    made = await tx.run(signals.Set(project="default", key="k", value=1))
    assert made.expires_at
    assert made.expires_at - made.updated_at == timedelta(hours=24)
    lasting = await tx.run(signals.Set(project="default", key="k", value=1, critical=True))
    assert (lasting.critical, lasting.expires_at) == (True, None)
    mortal = await tx.run(signals.Set(project="default", key="k", value=1))
    assert (mortal.critical, mortal.expires_at) == (False, made.expires_at)


async def test_expect_zero_wins_only_where_nothing_is_set(tx: Transaction) -> None:
    first = await tx.run(signals.Set(project="default", key="k", value=1, expect=0))
    error = await refused(tx, signals.Set(project="default", key="k", value=2, expect=0), "ZC301")
    assert error.detail == f'{{"version": {first.version}}}'


async def test_expecting_a_version_of_a_signal_that_is_not_set_is_a_conflict(tx: Transaction) -> None:
    error = await refused(tx, signals.Set(project="default", key="k", value=1, expect=7), "ZC301")
    assert error.detail == '{"version": null}'


async def test_an_expired_version_is_not_there_to_be_expected(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    first = await tx.run(signals.Set(project="default", key="k", value=1, ttl=timedelta(seconds=1)))
    await tx.set_clock(timedelta(seconds=2))
    await refused(tx, signals.Set(project="default", key="k", value=2, expect=first.version), "ZC301")
    await refused(tx, signals.Delete(project="default", key="k"), "ZC203")


async def test_created_at_is_of_this_life_of_the_key(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    first = await tx.run(signals.Set(project="default", key="k", value=1, ttl=timedelta(seconds=10)))
    await tx.set_clock(timedelta(seconds=5))
    second = await tx.run(signals.Set(project="default", key="k", value=1, ttl=timedelta(seconds=10)))
    assert second.created_at == first.created_at < second.updated_at
    await tx.set_clock(timedelta(seconds=20))
    third = await tx.run(signals.Set(project="default", key="k", value=1))
    assert third.created_at == third.updated_at > second.updated_at


async def test_delete_returns_the_version_and_compares_it(tx: Transaction) -> None:
    made = await tx.run(signals.Set(project="default", key="k", value=1))
    await refused(tx, signals.Delete(project="default", key="k", expect=made.version + 1), "ZC301")
    assert await tx.run(signals.Delete(project="default", key="k", expect=made.version)) == made.version
    await refused(tx, signals.Delete(project="default", key="k"), "ZC203")
    await refused(tx, signals.Get(project="default", key="k"), "ZC203")


async def test_the_actor_is_who_was_named_else_the_agent_else_the_role(tx: Transaction) -> None:
    agent = await tx.run(agents.Register(project="default", name="coder"))
    role = await tx.connection.fetchval("select session_user::text")
    assert (await tx.run(signals.Set(project="default", key="k", value=1, agent=agent.id, actor="x"))).actor == "x"
    assert (await tx.run(signals.Set(project="default", key="k", value=1, agent=agent.id))).actor == "coder"
    assert (await tx.run(signals.Set(project="default", key="k", value=1))).actor == role


async def test_a_signal_that_another_caller_sets_again_no_longer_ends_with_the_agent(tx: Transaction) -> None:
    agent = await tx.run(agents.Register(project="default", name="coder"))
    await tx.run(signals.Set(project="default", key="k", value=1, agent=agent.id, ephemeral=True))
    await tx.run(signals.Set(project="default", key="k", value=2))
    await tx.run(agents.Deregister(agent=agent.id))
    assert (await tx.run(signals.Get(project="default", key="k"))).value == 2


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (signals.Set(project="default", key="k", value=1, ttl=timedelta(0)), "ZC104"),
        (signals.Set(project="default", key="k", value=1, ttl=timedelta(seconds=-1)), "ZC104"),
        (signals.Set(project="default", key="k", value=1, ttl=timedelta(days=365000)), "ZC104"),
        (signals.Set(project="default", key="k", value=1, ttl=timedelta(1), critical=True), "ZC105"),
        (signals.Set(project="default", key="k", value=1, ephemeral=True), "ZC105"),
        (signals.Set(project="default", key="k", value=1, agent=UUID(int=1)), "ZC202"),
        (signals.Set(project="default", key="k", value="a\x00b"), "22P05"),
        (signals.Set(project="default", key="k", value=1, actor=""), "ZC101"),
        (signals.List(project="default", limit=0), "ZC104"),
        (signals.List(project="default", limit=10001), "ZC104"),
        (signals.List(project="default", prefix="x" * 513), "ZC102"),
        (signals.Delete(project="default", key=""), "ZC101"),
    ],
)
async def test_bad_input_is_refused(tx: Transaction, operation: object, code: str) -> None:
    await refused(tx, operation, code)  # type: ignore[arg-type]


async def test_a_missing_value_is_not_the_json_null(tx: Transaction) -> None:
    with pytest.raises(asyncpg.PostgresError) as raised:
        await tx.connection.execute("select coordinator.signal_set('default', 'k', null)")
    assert raised.value.sqlstate == "ZC101"


async def test_null_flags_in_sql_mean_their_defaults(tx: Transaction) -> None:
    row = await tx.connection.fetchrow(
        "select * from coordinator.signal_set('default', 'k', '1', p_critical => null, p_ephemeral => null)"
    )
    assert row["critical"] is False
    assert row["expires_at"]


async def test_expire_deletes_up_to_its_limit_oldest_first_with_events(tx: Transaction) -> None:
    for seconds, key in ((3, "c"), (1, "a"), (2, "b"), (100, "d")):
        await tx.run(signals.Set(project="default", key=key, value=1, ttl=timedelta(seconds=seconds)))
    await tx.set_clock(timedelta(seconds=50))
    assert [await tx.run(signals.Expire(limit=2)) for _ in range(3)] == [2, 1, 0]
    expired = [row for row in await tx.events() if row["type"] == "signal.expired"]
    assert [row["key"] for row in expired][-1] == "c"
    assert {row["actor"] for row in expired} == {"coordinator"}
    assert await tx.connection.fetchval("select count(*) from coordinator.signals") == 1


async def test_the_view_shows_what_readers_see(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    await tx.run(signals.Set(project="default", key="gone", value=1, ttl=timedelta(seconds=1)))
    await tx.run(signals.Set(project="default", key="there", value=1))
    await tx.set_clock(timedelta(seconds=2))
    rows = await tx.connection.fetch("select project, key from coordinator.signals_live")
    assert [tuple(row) for row in rows] == [("default", "there")]
