from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
import pytest_asyncio

from coordinator.errors import Conflict, InvalidArgument, NotFound
from coordinator.model.agent import Agent
from coordinator.model.lock import Grant
from coordinator.operations import agents, locks, projects
from tests.conftest import Transaction


def s(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


@pytest_asyncio.fixture(loop_scope="session")
async def tx(tx: Transaction) -> Transaction:
    """With the clock stopped from the start."""
    await tx.set_clock(s(0))
    return tx


async def register(tx: Transaction, name: str) -> Agent:
    return await tx.run(agents.Register(project="default", name=name, ttl=timedelta(days=1)))


async def acquire(tx: Transaction, agent: Agent, *resources: str, **options: object) -> list[Grant]:
    return await tx.run(locks.Acquire(project="default", resources=list(resources), agent=agent.id, **options))  # type: ignore[arg-type]


async def release(tx: Transaction, agent: Agent, *grants: Grant) -> int:
    return await tx.run(
        locks.Release(
            project="default",
            resources=[g.resource for g in grants],
            agent=agent.id,
            tokens=[g.fencing_token or 0 for g in grants],
        )
    )


async def holders(tx: Transaction) -> set[tuple[str, str]]:
    return {(lock.agent, lock.resource) for lock in await tx.run(locks.List(project="default"))}


async def fence(tx: Transaction, resource: str, token: int | None) -> str | None:
    """The SQLSTATE that assert_fence raises, or None."""
    try:
        async with tx.connection.transaction():
            await tx.connection.execute("select coordinator.assert_fence('default', $1, $2)", resource, token)
    except asyncpg.PostgresError as error:
        return error.sqlstate
    return None


async def types(tx: Transaction) -> list[str]:
    return [row["type"] for row in await tx.events() if row["type"].startswith("lock.")]


async def test_a_lock_is_granted_to_one_and_refused_to_another_with_the_holder_named(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    (mine,) = await acquire(tx, ann, "src/a.py")
    assert mine.granted
    with pytest.raises(Conflict) as raised:
        await acquire(tx, bob, "src/a.py")
    assert raised.value.code == "ZC310"
    assert "ann" in raised.value.message
    assert str(ann.id) in raised.value.message
    assert raised.value.hint
    detail = json.loads(raised.value.detail or "")
    assert detail["agent_id"] == str(ann.id)
    assert detail["fencing_token"] == mine.fencing_token
    assert detail["mode"] == "exclusive"
    assert detail["expires_at"]
    assert await types(tx) == ["lock.granted"]


async def test_every_grant_has_a_greater_token_and_one_call_has_one(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    first = await acquire(tx, ann, "b.py", "a.py", "./a.py")
    assert [g.resource for g in first] == ["a.py", "b.py"]
    assert len({g.fencing_token for g in first}) == 1
    assert await release(tx, ann, *first) == 2
    (second,) = await acquire(tx, bob, "a.py")
    assert (second.fencing_token or 0) > (first[0].fencing_token or 0)


async def test_several_resources_are_granted_all_or_none(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "b.py")
    with pytest.raises(Conflict):
        await acquire(tx, bob, "a.py", "b.py", "c.py")
    assert await holders(tx) == {("ann", "b.py")}


async def test_shared_locks_are_compatible_with_each_other_only(tx: Transaction) -> None:
    ann, bob, cid = [await register(tx, name) for name in ("ann", "bob", "cid")]
    await acquire(tx, ann, "src/", shared=True)
    await acquire(tx, bob, "src/a.py", shared=True)
    for resource in ("src/a.py", "src/b.py", "src/", "src/*.py", "**"):
        with pytest.raises(Conflict):
            await acquire(tx, cid, resource)
    await acquire(tx, cid, "src/*.py", shared=True)


@pytest.mark.parametrize("expired", ["src/", "src/a.py", "src/*.py"])
async def test_an_expired_lock_is_free_before_it_is_swept(tx: Transaction, expired: str) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    (old,) = await acquire(tx, ann, expired, ttl=s(10))
    await tx.set_clock(s(9))
    with pytest.raises(Conflict):
        await acquire(tx, bob, "src/a.py")
    await tx.set_clock(s(10))
    (new,) = await acquire(tx, bob, "src/a.py")
    assert (new.fencing_token or 0) > (old.fencing_token or 0)
    assert await types(tx) == ["lock.granted", "lock.expired", "lock.granted"]
    with pytest.raises(Conflict) as raised:
        await tx.run(locks.Renew(project="default", resources=[expired], agent=ann.id, tokens=[old.fencing_token or 0]))
    assert raised.value.code == "ZC311"


async def test_acquiring_again_renews_with_the_same_token(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    (first,) = await acquire(tx, ann, "a", ttl=s(10))
    await tx.set_clock(s(5))
    (again,) = await acquire(tx, ann, "a", ttl=s(10))
    assert again.fencing_token == first.fencing_token
    assert again.expires_at > first.expires_at
    (less,) = await acquire(tx, ann, "a", ttl=s(10), shared=True)
    assert (less.mode, less.fencing_token) == ("exclusive", first.fencing_token)
    assert await types(tx) == ["lock.granted"]


async def test_an_own_expired_lock_is_granted_again_with_another_token(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    (first,) = await acquire(tx, ann, "a", ttl=s(10))
    await tx.set_clock(s(11))
    (again,) = await acquire(tx, ann, "a", ttl=s(10))
    assert (again.fencing_token or 0) > (first.fencing_token or 0)
    assert await fence(tx, "a", first.fencing_token) == "ZC312"


async def test_a_sole_sharer_becomes_exclusive_with_a_new_token(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    (shared,) = await acquire(tx, ann, "a", shared=True)
    (other,) = await acquire(tx, bob, "a", shared=True)
    with pytest.raises(Conflict):
        await acquire(tx, ann, "a")
    await release(tx, bob, other)
    (mine,) = await acquire(tx, ann, "a")
    assert (mine.fencing_token or 0) > (shared.fencing_token or 0)
    assert [(lock.mode, lock.fencing_token) for lock in await tx.run(locks.List(project="default"))] == [
        ("exclusive", mine.fencing_token)
    ]


async def test_an_agent_does_not_conflict_with_itself(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    await acquire(tx, ann, "src/")
    await acquire(tx, ann, "src/a.py")
    await acquire(tx, ann, "src/**")
    assert len(await holders(tx)) == 3


async def test_as_many_hold_slots_as_there_are_and_each_has_its_own(tx: Transaction) -> None:
    crew = [await register(tx, name) for name in ("a", "b", "c")]
    first, second = [(await acquire(tx, agent, "name:gpu", slots=2))[0] for agent in crew[:2]]
    assert (first.slot, second.slot) == (1, 2)
    with pytest.raises(Conflict) as raised:
        await acquire(tx, crew[2], "name:gpu", slots=2)
    assert raised.value.code == "ZC310"
    (again,) = await acquire(tx, crew[0], "name:gpu", slots=2)
    assert (again.slot, again.fencing_token) == (1, first.fencing_token)
    await release(tx, crew[0], first)
    (third,) = await acquire(tx, crew[2], "name:gpu", slots=2)
    assert third.slot == 1


@pytest.mark.parametrize("slots", [None, 3])
async def test_another_number_of_slots_is_refused_with_the_present_one(tx: Transaction, slots: int | None) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "name:gpu", slots=2)
    for agent in (ann, bob):
        with pytest.raises(Conflict) as raised:
            await acquire(tx, agent, "name:gpu", slots=slots)
        assert raised.value.code == "ZC314"
        assert json.loads(raised.value.detail or "")["slots"] == 2


async def test_renew_and_release_compare_holder_and_token(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    (mine,) = await acquire(tx, ann, "a", ttl=s(10))
    token = mine.fencing_token or 0
    await tx.set_clock(s(9))
    (kept,) = await tx.run(locks.Renew(project="default", resources=["a"], agent=ann.id, tokens=[token]))
    assert kept.expires_at == mine.acquired_at + s(19) if mine.acquired_at else False
    for agent, wrong in ((bob, token), (ann, token - 1), (ann, token + 1)):
        for operation in (locks.Renew, locks.Release):
            with pytest.raises(Conflict) as raised:
                await tx.run(operation(project="default", resources=["a"], agent=agent.id, tokens=[wrong]))
            assert raised.value.code == "ZC311"
            assert json.loads(raised.value.detail or "")["fencing_token"] == token
            assert "ann" in raised.value.message
    await tx.set_clock(s(20))
    with pytest.raises(Conflict) as raised:
        await tx.run(locks.Renew(project="default", resources=["a"], agent=ann.id, tokens=[token]))
    assert "expired" in raised.value.message


async def test_renew_of_several_changes_none_if_one_is_lost(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    a, b = await acquire(tx, ann, "a", "b", ttl=s(10))
    await release(tx, ann, b)
    await tx.set_clock(s(5))
    with pytest.raises(Conflict):
        await tx.run(locks.Renew(project="default", resources=["a", "b"], agent=ann.id, tokens=[a.fencing_token or 0]))
    (lock,) = await tx.run(locks.List(project="default"))
    assert lock.expires_at == a.expires_at


async def test_the_fence_passes_the_present_token_and_no_other(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    (old,) = await acquire(tx, ann, "./a", ttl=s(10))
    assert await fence(tx, "a", old.fencing_token) is None
    assert await fence(tx, "b", old.fencing_token) == "ZC312"
    await tx.set_clock(s(10))
    assert await fence(tx, "a", old.fencing_token) == "ZC312"
    (new,) = await acquire(tx, bob, "a")
    assert await fence(tx, "a", old.fencing_token) == "ZC312"
    assert await fence(tx, "a", new.fencing_token) is None


async def test_a_broken_lock_is_lost_at_once_with_an_event(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    (mine,) = await acquire(tx, ann, "a")
    assert await tx.run(locks.Break(project="default", resource="a", reason="it hangs", actor="boss")) == 1
    assert await fence(tx, "a", mine.fencing_token) == "ZC312"
    with pytest.raises(Conflict):
        await release(tx, ann, mine)
    event = (await tx.events())[-1]
    assert (event["type"], event["key"], event["actor"]) == ("lock.broken", "a", "boss")
    assert event["data"] == {
        "agent_id": str(ann.id), "agent": "ann", "owner": "", "fencing_token": mine.fencing_token, "reason": "it hangs",
    }  # fmt: skip
    row = await tx.connection.fetchrow("select * from coordinator.lock_breaks order by id desc limit 1")
    assert (row["resource"], row["agent_id"], row["reason"], row["actor"]) == ("a", ann.id, "it hangs", "boss")
    await acquire(tx, bob, "a")
    with pytest.raises(NotFound):
        await tx.run(locks.Break(project="default", resource="b", reason="x"))


async def test_a_break_can_be_meant_for_one_holder_only(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    (one,) = await acquire(tx, ann, "a", shared=True)
    await acquire(tx, bob, "a", shared=True)
    token = one.fencing_token or 0
    with pytest.raises(Conflict) as raised:
        await tx.run(locks.Break(project="default", resource="a", reason="x", agent=ann.id, token=token - 1))
    assert raised.value.code == "ZC311"
    assert await tx.run(locks.Break(project="default", resource="a", reason="x", agent=ann.id, token=token)) == 1
    assert await holders(tx) == {("bob", "a")}
    await acquire(tx, ann, "a", shared=True)
    assert await tx.run(locks.Break(project="default", resource="a", reason="all")) == 2


async def test_old_breaks_are_pruned(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    await acquire(tx, ann, "a")
    await tx.run(locks.Break(project="default", resource="a", reason="x"))
    assert await tx.run(locks.PruneBreaks()) == 0
    await tx.set_clock(timedelta(days=91))
    assert await tx.run(locks.PruneBreaks()) == 1


@pytest.mark.parametrize("end", ["expire", "break", "break with a delay", "agent"])
async def test_nobody_gets_a_lock_during_its_lock_delay(tx: Transaction, end: str) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    delay = s(0) if end == "break with a delay" else s(5)
    (mine,) = await acquire(tx, ann, "a", ttl=s(10), delay=delay)
    await tx.set_clock(s(10) if end == "expire" else s(9))
    if end == "agent":
        await tx.run(agents.Deregister(agent=ann.id))
    elif end != "expire":
        given = s(5) if end == "break with a delay" else None
        await tx.run(locks.Break(project="default", resource="a", reason="x", delay=given))
    assert await holders(tx) == set()
    assert await fence(tx, "a", mine.fencing_token) == "ZC312"
    (state,) = await tx.run(locks.Check(project="default", paths=["a"], agent=bob.id))
    assert state.state == "held"
    for agent in [bob] if end == "agent" else [ann, bob]:
        with pytest.raises(Conflict):
            await acquire(tx, agent, "a")
    await tx.set_clock(s(15))
    assert (await acquire(tx, bob, "a"))[0].granted
    assert (await types(tx)).count("lock.expired") == (end == "expire")


async def test_a_release_starts_no_lock_delay(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    (mine,) = await acquire(tx, ann, "a", delay=s(5))
    await release(tx, ann, mine)
    await acquire(tx, bob, "a")


async def test_what_an_agent_holds_ends_with_it(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    (mine, _) = await acquire(tx, ann, "a", "name:b")
    await tx.run(agents.Deregister(agent=ann.id))
    assert await types(tx) == ["lock.granted", "lock.granted", "lock.ended", "lock.ended"]
    assert await fence(tx, "a", mine.fencing_token) == "ZC312"
    await acquire(tx, bob, "a", "name:b")
    with pytest.raises(NotFound):
        await acquire(tx, ann, "c")


async def test_expire_deletes_expired_locks_once_with_events(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    await acquire(tx, ann, "a", ttl=s(10))
    await acquire(tx, ann, "b", ttl=s(20))
    await tx.set_clock(s(10))
    assert "lock_expire" in await tx.connection.fetchval("select coordinator.work_due()")
    assert await tx.run(locks.Expire()) == 1
    assert await tx.run(locks.Expire()) == 0
    assert "lock_expire" not in await tx.connection.fetchval("select coordinator.work_due()")
    assert (await types(tx))[-1] == "lock.expired"
    assert await holders(tx) == {("ann", "b")}


async def test_locks_of_ended_attempts_in_one_project_hide_none_of_another(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    await acquire(tx, ann, "a", "b")
    await tx.run(projects.Create(project="p"))
    bob = await tx.run(agents.Register(project="p", name="bob"))
    await tx.run(locks.Acquire(project="p", resources=["c"], agent=bob.id))
    await tx.connection.execute(
        "update coordinator.locks set free_at = 'infinity', owner = format('job/%s/1', gen_random_uuid())"
    )
    ids = await tx.connection.fetchrow(
        "select min(id) as first, max(id) as last from coordinator.projects where name in ('default', 'p')"
    )
    found = "select array_agg(resource order by resource) from coordinator.lock_orphans(1, $1, $2)"
    assert await tx.connection.fetchval(found, [ids["first"]], None) == ["c"]
    assert await tx.connection.fetchval(found, [], ids["last"]) == ["c"]


async def test_check_says_free_mine_or_held_and_by_whom(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "src/")
    await acquire(tx, bob, "docs/*.md", shared=True)
    paths = ["src/a.py", "docs/x.md", "docs/x.txt", "app/[id].tsx"]
    before = await tx.events()
    states = await tx.run(locks.Check(project="default", paths=paths, agent=ann.id))
    assert [(c.path, c.state, c.agent, c.resource) for c in states] == [
        ("src/a.py", "mine", "ann", "src/"),
        ("docs/x.md", "held", "bob", "docs/*.md"),
        ("docs/x.txt", "free", None, None),
        ("app/[id].tsx", "free", None, None),
    ]
    assert {c.state for c in await tx.run(locks.Check(project="default", paths=["src/a.py"]))} == {"held"}
    assert await tx.events() == before


async def test_check_of_a_path_that_others_share_too_is_held(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "a", shared=True)
    assert (await tx.run(locks.Check(project="default", paths=["a"], agent=ann.id)))[0].state == "mine"
    await acquire(tx, bob, "a", shared=True)
    assert (await tx.run(locks.Check(project="default", paths=["a"], agent=ann.id)))[0].state == "held"


async def test_list_and_show_return_what_is_held(tx: Transaction) -> None:
    ann, bob = await register(tx, "ann"), await register(tx, "bob")
    await acquire(tx, ann, "src/a.py", "src/b/c.py", "name:deploy")
    await acquire(tx, bob, "docs/")
    everything = [lock.resource for lock in await tx.run(locks.List(project="default"))]
    assert everything == ["docs/", "name:deploy", "src/a.py", "src/b/c.py"]
    assert [lock.resource for lock in await tx.run(locks.List(project="default", under="src"))] == [
        "src/a.py",
        "src/b/c.py",
    ]
    assert [lock.resource for lock in await tx.run(locks.List(project="default", agent=bob.id))] == ["docs/"]
    assert [
        lock.resource
        for lock in await tx.run(locks.List(project="default", after=["name:deploy", str(2**53)], limit=1))
    ] == ["src/a.py"]
    assert [lock.agent for lock in await tx.run(locks.Show(project="default", resource="docs/readme.md"))] == ["bob"]
    with pytest.raises(NotFound):
        await tx.run(locks.Show(project="default", resource="nothing"))
    rows = await tx.connection.fetch(
        "select path, agent_id, lock_type, created_at, expires_at from coordinator.file_locks order by path"
    )
    assert [(r["path"], r["lock_type"]) for r in rows] == [
        ("docs/", "exclusive"),
        ("src/a.py", "exclusive"),
        ("src/b/c.py", "exclusive"),
    ]


async def test_locks_of_another_project_do_not_matter(tx: Transaction) -> None:
    await tx.run(projects.Create(project="other"))
    ann = await register(tx, "ann")
    bob = await tx.run(agents.Register(project="other", name="bob"))
    await acquire(tx, ann, "a")
    await tx.run(locks.Acquire(project="other", resources=["a"], agent=bob.id))
    with pytest.raises(NotFound):
        await tx.run(locks.Acquire(project="other", resources=["b"], agent=ann.id))
    await tx.run(projects.Delete(project="other"))
    assert await tx.connection.fetchval("select count(*) from coordinator.locks") == 1


@pytest.mark.parametrize(
    "options",
    [
        {"resources": []}, {"resources": ["a"] * 101}, {"resources": [f"f{n}" for n in range(10000)]},
        {"ttl": s(0)}, {"ttl": s(0.5)}, {"ttl": timedelta(days=1, seconds=1)}, {"ttl": timedelta(days=365000)},
        {"wait": s(-1)}, {"wait": timedelta(days=2)}, {"delay": s(-1)}, {"delay": s(3601)},
        {"slots": 0}, {"slots": 10001}, {"slots": 2}, {"slots": 2, "resources": ["name:a"], "shared": True},
    ],
)  # fmt: skip
async def test_bad_requests_are_refused_with_a_hint_and_change_nothing(
    tx: Transaction, options: dict[str, object]
) -> None:
    agent = await register(tx, "a")
    before = await tx.events()
    with pytest.raises(InvalidArgument) as raised:
        await tx.run(locks.Acquire(**{"project": "default", "resources": ["a"], "agent": agent.id, **options}))  # type: ignore[arg-type]
    assert raised.value.hint
    assert await tx.events() == before
    assert await holders(tx) == set()


async def test_an_unknown_agent_or_project_is_not_found(tx: Transaction) -> None:
    agent = await register(tx, "a")
    for project, who in (("default", uuid4()), ("default", UUID(int=0)), ("nowhere", agent.id)):
        with pytest.raises(NotFound) as raised:
            await tx.run(locks.Acquire(project=project, resources=["a"], agent=who))
        assert raised.value.hint


@pytest.mark.parametrize("tokens", [[], [1, 2, 3]])
async def test_tokens_must_be_one_for_all_or_one_for_each(tx: Transaction, tokens: list[int]) -> None:
    agent = await register(tx, "a")
    with pytest.raises(InvalidArgument):
        await tx.run(locks.Release(project="default", resources=["a", "b"], agent=agent.id, tokens=tokens))


async def test_asking_again_with_the_request_id_finds_the_same_lock(tx: Transaction) -> None:
    ann = await register(tx, "ann")
    request = uuid4()
    (first,) = await acquire(tx, ann, "a", request_id=request)
    (again,) = await acquire(tx, ann, "a", request_id=request)
    assert again.fencing_token == first.fencing_token


async def test_locks_change_in_read_committed_transactions_only(shared_url: str) -> None:
    connection = await asyncpg.connect(shared_url)
    try:
        register = "select id from coordinator.agent_register('default', $1)"
        ann, bob = await connection.fetchval(register, "ann"), await connection.fetchval(register, "bob")
        acquire = "select fencing_token, ticket from coordinator.lock_acquire('default', $1, $2, p_wait => '1 minute')"
        plain = await connection.fetchval(acquire, ["a"], ann)
        directory = await connection.fetchval(acquire, ["d/"], ann)
        ticket = (await connection.fetchrow(acquire, ["a", "d/x"], bob))["ticket"]
        for query, *arguments in (
            (acquire, ["b"], bob),
            ("select coordinator.lock_release('default', '{a}', $1, array[$2::bigint])", ann, plain),
            ("select coordinator.lock_release('default', '{d/}', $1, array[$2::bigint])", ann, directory),
            ("select coordinator.lock_break('default', 'a', 'why')",),
            ("select coordinator.lock_cancel('default', $1, $2)", ticket, bob),
            ("select coordinator.agent_deregister($1)", ann),
        ):
            for isolation in ("repeatable_read", "serializable"):
                with pytest.raises(asyncpg.PostgresError, match="read committed"):
                    async with connection.transaction(isolation=isolation):
                        await connection.execute(query, *arguments)
        assert await connection.fetchval("select count(*) from coordinator.lock_holders") == 2
        for agent in (bob, ann):
            await connection.execute("select coordinator.agent_deregister($1)", agent)
    finally:
        await connection.close()


@pytest.mark.parametrize("text", ["/" * 500_000, "a/" * 500_000, "a//b", "name:" + "/" * 500_000, "/a/", ""])
async def test_release_rejects_a_malformed_resource_as_acquire_does_whatever_its_size(
    tx: Transaction, text: str
) -> None:
    """Not by taking an advisory lock for each of its segments, of which a server has some thousands."""
    ann = await register(tx, "ann")
    for operation in (
        locks.Acquire(project="default", resources=[text], agent=ann.id),
        locks.Release(project="default", resources=[text], agent=ann.id, tokens=[1]),
    ):
        with pytest.raises(InvalidArgument):
            await tx.run(operation)
