"""Transactions: all of their writes under all of their conditions, or nothing."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import anyio
import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.errors import Conflict, CoordinatorError, NotFound
from coordinator.model.operation import Json, JsonText, Operation
from coordinator.model.transaction import Outcome
from coordinator.operations import agents, directives, documents, events, locks, projects, rules, signals
from coordinator.operations.transactions import Run
from tests.conftest import Open, Transaction
from tests.sql.refusal import refused
from tests.waiting import until_blocked, while_uncommitted

Part = dict[str, Json]


def run(*writes: Part, conditions: tuple[Part, ...] = (), **fields: Any) -> Run:
    return Run(project="default", writes=list(writes), conditions=list(conditions), **fields)


def put(key: str, value: Json = 1, **fields: Json) -> Part:
    return {"verb": "signal_set", "key": key, "value": value, **fields}


def send(key: str) -> Part:
    return {"verb": "directive_send", "body": "x", "everyone": True, "key": key}


def at(key: str, version: int) -> Part:
    return {"verb": "assert_signal", "key": key, "version": version}


async def version_of(tx: Transaction, key: str) -> int:
    return (await tx.run(signals.Set(project="default", key=key, value=0))).version


async def granted(tx: Transaction, *resources: str) -> tuple[UUID, int]:
    agent = await tx.run(agents.Register(project="default", name="holder"))
    (grant, *_) = await tx.run(locks.Acquire(project="default", resources=list(resources), agent=agent.id))
    assert grant.fencing_token is not None
    return agent.id, grant.fencing_token


async def test_every_verb_writes_in_one_transaction_and_returns_what_it_returns_alone(tx: Transaction) -> None:
    version = await version_of(tx, "old")
    agent, token = await granted(tx, "src/a.py", "src/b.py")
    sent = await tx.run(directives.Send(project="default", body="stop", everyone=True))
    revoked = await tx.run(directives.Send(project="default", body="go", everyone=True))
    before = len(await tx.events())
    transaction = run(
        put("new", {"a": [1, None]}, ttl=60),
        {"verb": "signal_delete", "key": "old"},
        {"verb": "event_emit", "type": "custom.done", "key": "k", "data": {"n": 1}},
        {"verb": "directive_send", "body": "next", "to_role": "coder", "ttl": "2 hours"},
        {"verb": "directive_acknowledge", "directive": sent.id, "agent": "holder"},
        {"verb": "directive_revoke", "directive": revoked.id},
        {"verb": "lock_release", "resources": ["src/b.py", "src/a.py"], "agent": str(agent), "tokens": [token]},
        conditions=(at("new", 0), at("old", version), {"verb": "assert_fence", "resource": "src/a.py", "token": token}),
        actor="manager",
    )
    outcomes = await tx.run(transaction)
    assert [(o.write, o.verb) for o in outcomes] == [(n, w["verb"]) for n, w in enumerate(transaction.writes)]
    signal, deleted, emitted, directive, receipt, revocation, released = transaction.results(outcomes)
    assert signal == await tx.run(signals.Get(project="default", key="new"))
    assert (signal.actor, signal.expires_at - signal.updated_at) == ("manager", timedelta(seconds=60))
    assert (deleted, emitted, revocation, released) == (version, None, True, 2)
    assert (directive.to_role, directive.expires_at - directive.sent_at) == ("coder", timedelta(hours=2))
    assert (receipt.agent, receipt.status) == ("holder", "done")
    assert [row["type"] for row in (await tx.events())[before:]] == [
        "signal.set", "signal.deleted", "custom.done", "directive.sent", "directive.acknowledged", "directive.revoked",
        "lock.released", "lock.released",
    ]  # fmt: skip
    assert {row["actor"] for row in (await tx.events())[before:]} == {"manager", "holder"}


async def test_a_part_that_fails_undoes_all_and_is_named_with_its_facts(tx: Transaction) -> None:
    version = await version_of(tx, "k")
    error = await refused(tx, run(put("a"), conditions=(at("a", 0), at("k", version + 1))), "ZC301")
    assert error.message == f'condition 1 (assert_signal): signal "k" is at version {version}, not {version + 1}'
    assert error.detail == f'{{"version": {version}, "condition": 1}}'
    error = await refused(tx, run(put("a"), put("k", expect=0)), "ZC301")
    assert error.message == f'write 1 (signal_set): signal "k" is already set, at version {version}'
    error = await refused(tx, run(put("a"), conditions=(at("b", 7),)), "ZC301")
    assert error.detail == '{"version": null, "condition": 0}'
    await refused(tx, run(put("a"), {"verb": "signal_delete", "key": "b"}), "ZC203")
    assert [signal.key for signal in await tx.run(signals.List(project="default"))] == ["k"]


async def test_a_stale_fence_is_a_failed_condition(tx: Transaction) -> None:
    _, token = await granted(tx, "name:deploy")
    fence: Part = {"verb": "assert_fence", "resource": "name:deploy", "token": token}
    await tx.run(run(put("a"), conditions=(fence,)))
    error = await refused(tx, run(put("b"), conditions=({**fence, "token": token - 1},)), "ZC312")
    assert '"condition": 0' in (error.detail or "")
    await tx.set_clock(timedelta(minutes=1))
    await refused(tx, run(put("b"), conditions=(fence,)), "ZC312")


async def test_an_expired_signal_is_absent_for_a_condition(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    await tx.run(signals.Set(project="default", key="k", value=1, ttl=timedelta(seconds=5)))
    await refused(tx, run(put("a"), conditions=(at("k", 0),)), "ZC301")
    await tx.set_clock(timedelta(seconds=6))
    await tx.run(run(put("k"), conditions=(at("k", 0),)))


async def test_a_condition_on_an_absent_key_leaves_no_trace(tx: Transaction) -> None:
    before = len(await tx.events())
    await tx.run(run(put("a"), conditions=(at("b", 0),)))
    assert [row["type"] for row in (await tx.events())[before:]] == ["signal.set"]
    assert [signal.key for signal in await tx.run(signals.List(project="default"))] == ["a"]


async def test_writes_see_the_writes_before_them(tx: Transaction) -> None:
    transaction = run(put("a", 1), {"verb": "signal_delete", "key": "a"}, put("a", 2, expect=0), put("a", 3))
    first, deleted, *_, last = transaction.results(await tx.run(transaction))
    assert (deleted, last.value) == (first.version, 3)


async def test_rules_apply_within_a_transaction(tx: Transaction) -> None:
    await tx.run(rules.Set(project="default", when_set="FAILED", clears=["PASSED"]))
    await tx.run(run(put("b/PASSED"), put("b/FAILED"), put("c/PASSED")))
    assert [signal.key for signal in await tx.run(signals.List(project="default"))] == ["b/FAILED", "c/PASSED"]


async def test_an_actor_of_a_write_is_kept(tx: Transaction) -> None:
    transaction = run(put("a", actor="me"), put("b"), put("c", actor=None), actor="you")
    assert [s.actor for s in transaction.results(await tx.run(transaction))] == ["me", "you", "you"]


MALFORMED: dict[str, tuple[Any, str, str]] = {
    "nothing": ([], "ZC101", "at least one write"),
    "no list": ({"verb": "signal_set"}, "ZC103", "array of objects"),
    "null": (None, "ZC103", "array of objects"),
    "a number as a part": ([1], "ZC103", '"verb"'),
    "a number as a verb": ([{"verb": 1}], "ZC103", '"verb"'),
    "no verb": ([{"key": "k"}], "ZC103", '"verb"'),
    "an unknown verb": ([{"verb": "signal_sett"}], "ZC105", 'Did you mean "signal_set"?'),
    "a huge verb": ([{"verb": "x" * 100_000}], "ZC105", "Use one of signal_delete"),
    "a verb that waits": ([{"verb": "lock_acquire"}], "ZC105", "Use one of"),
    "an internal function": ([{"verb": "event_append"}], "ZC105", "Use one of"),
    "a condition as a write": ([{"verb": "assert_signal", "key": "k", "version": 0}], "ZC105", "Use one of"),
    "a transaction": ([{"verb": "transaction_run", "writes": []}], "ZC105", "Use one of"),
    "an unknown field": ([put("k", valeu=1)], "ZC105", 'Did you mean "value"? signal_set has the fields key, value'),
    "another project": ([put("k", project="other")], "ZC105", "All parts are in the project"),
    "a missing field": ([{"verb": "signal_set", "value": 1}], "ZC101", "has the fields"),
    "a number as text": ([put("k", expect="5")], "ZC103", "a whole number"),
    "a broken number": ([put("k", expect=1.5)], "ZC103", "a whole number"),
    "a huge number": ([put("k", expect=10**30)], "ZC103", "a whole number"),
    "text as a truth value": ([put("k", critical="yes")], "ZC103", "true or false"),
    "a list as text": ([put(["k"])], "ZC103", "a text"),  # type: ignore[arg-type]
    "an unknown name": ([put("k", agent="holdr")], "ZC202", "agent list --all"),
    "a number as an agent": ([put("k", agent=7)], "ZC103", "UUID"),
    "an object as a duration": ([put("k", ttl={"s": 1})], "ZC103", "a duration"),
    "words as a duration": ([put("k", ttl="soon")], "22007", "Correct this part"),
    "a huge duration": ([put("k", ttl=1e300)], "ZC103", "a duration"),
    "text as a list": ([{"verb": "lock_release", "resources": "a", "agent": str(UUID(int=1)), "tokens": [1]}], "ZC103", "a list"),
    "a list of lists": ([{"verb": "lock_release", "resources": [["a"]], "agent": str(UUID(int=1)), "tokens": [1]}], "ZC103", "a list"),
    "tokens as text": ([{"verb": "lock_release", "resources": ["a"], "agent": str(UUID(int=1)), "tokens": ["1"]}], "ZC103", "whole numbers"),
    "a malformed key": ([put("a\nb")], "ZC103", "control characters"),
    "a key that is too long": ([put("k" * 513)], "ZC102", "Shorten"),
    "null as a key": ([{"verb": "signal_set", "key": None, "value": 1}], "ZC101", "at least one character"),
    "an event of ours": ([{"verb": "event_emit", "type": "signal.set"}], "ZC103", "custom."),
}  # fmt: skip


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_malformed_list_is_refused_with_a_hint_and_changes_nothing(tx: Transaction, what: str) -> None:
    given, code, hint = MALFORMED[what]
    writes = [put("first"), *given] if isinstance(given, list) and given else given
    error = await refused(tx, Run(project="default", writes=writes), code)
    assert hint in (error.hint or "")
    assert len(error.message) < 300
    assert await tx.run(signals.List(project="default")) == []


async def test_nul_is_refused(tx: Transaction) -> None:
    with pytest.raises(CoordinatorError) as raised:
        await tx.run(run(put("k", "a\0b")))
    assert raised.value.code.startswith("22")


async def test_a_project_that_does_not_exist_is_an_error_of_the_transaction(tx: Transaction) -> None:
    with pytest.raises(NotFound) as raised:
        await tx.run(Run(project="other", writes=[put("k")]))
    assert raised.value.code == "ZC201"


async def test_every_verb_is_a_public_function_of_a_project_whose_parameters_have_a_form_in_json(
    tx: Transaction,
) -> None:
    rows = await tx.connection.fetch(
        """
        select v.function, v.part, v.entered_by, r.role, p.proargnames[1] as first,
               array(select format_type(t, null) from unnest(p.proargtypes) t) as types
        from coordinator.transaction_verbs v
        left join pg_proc p on p.proname = v.function and p.pronamespace = 'coordinator'::regnamespace
        left join coordinator.rights r on r.function = v.function"""
    )
    assert len(rows) > 5
    for row in rows:
        assert (row["first"], row["role"] in ("agent", "manager")) == ("p_project", True), row["function"]
        for kind in row["types"]:
            known = await tx.connection.fetchval("select coordinator.json_misfit('{}', $1)", kind)
            assert known != "a value of another type", (row["function"], kind)


# What several sessions do at once.


@pytest.fixture
async def sessions(session: Open) -> list[asyncpg.Connection]:
    found = [await session() for _ in range(6)]
    for connection in found:  # shorter than the bound of a wait, so that a deadlock is found as one
        await connection.execute("set deadlock_timeout = '100ms'")
    return found


@pytest.mark.parametrize("set_before", [False, True])
async def test_two_transactions_on_crossed_keys_take_turns(
    sessions: list[asyncpg.Connection], *, set_before: bool
) -> None:
    if set_before:
        await call(sessions[0], run(put("a"), put("b")))
    _, second = await while_uncommitted(*sessions[:3], run(put("a"), put("b")), run(put("b", 2), put("a", 2)))
    assert [(o.write, o.verb) for o in second] == [(0, "signal_set"), (1, "signal_set")]
    assert {s.value for s in await call(sessions[0], signals.List(project="default"))} == {2}


async def test_a_key_that_must_be_absent_stays_so_until_the_commit(sessions: list[asyncpg.Connection]) -> None:
    _, other = await while_uncommitted(
        *sessions[:3],
        run(put("done"), conditions=(at("k", 0),)),
        signals.Set(project="default", key="k", value=1, expect=0),
    )
    assert other.value == 1
    _, error = await while_uncommitted(
        *sessions[:3], run(put("b"), conditions=(at("k", other.version),)), signals.Delete(project="default", key="k")
    )
    assert error == other.version


async def test_a_transaction_that_waited_sees_what_it_waited_for(sessions: list[asyncpg.Connection]) -> None:
    first, error = await while_uncommitted(
        *sessions[:3], signals.Set(project="default", key="k", value=1), run(put("a"), conditions=(at("k", 0),))
    )
    assert isinstance(error, Conflict)
    assert f'"version": {first.version}' in (error.detail or "")


async def test_a_transaction_of_a_deleted_project_ends_with_an_error(sessions: list[asyncpg.Connection]) -> None:
    await call(sessions[0], projects.Create(project="p"))
    _, error = await while_uncommitted(
        *sessions[:3],
        projects.Delete(project="p"),
        Run(project="p", writes=[put("a"), {"verb": "directive_send", "body": "x", "everyone": True}]),
    )
    assert isinstance(error, NotFound)
    assert await sessions[0].fetchval("select count(*) from coordinator.signals where key = 'a'") == 0


@pytest.mark.slow
async def test_transactions_that_move_between_two_keys_lose_nothing(
    sessions: list[asyncpg.Connection], seed: int
) -> None:
    keys = ["a", "b", "c"]
    for key in keys:
        await call(sessions[0], signals.Set(project="default", key=key, value=100))
    moved = 0

    async def mover(connection: asyncpg.Connection, chance: random.Random) -> None:
        nonlocal moved
        done = 0
        while done < 10:
            one, other = chance.sample(keys, 2)
            source, target = [await call(connection, signals.Get(project="default", key=k)) for k in (one, other)]
            transaction = run(
                put(one, source.value - 1),
                put(other, target.value + 1),
                conditions=(at(other, target.version), at(one, source.version)),
            )
            try:
                await call(connection, transaction)
                done += 1
                moved += 1
            except Conflict as error:
                assert error.code == "ZC301", error

    async with anyio.create_task_group() as tasks:
        for n, connection in enumerate(sessions):
            tasks.start_soon(mover, connection, random.Random(seed + n))
    found = await call(sessions[0], signals.List(project="default"))
    assert sum(signal.value for signal in found) == 300  # type: ignore[misc]
    assert await sessions[0].fetchval("select count(*) from coordinator.events") == 3 + 2 * moved


async def test_what_a_rule_may_clear_is_held_even_if_it_is_not_set(sessions: list[asyncpg.Connection]) -> None:
    """Set meanwhile, by one that then waits for another key, it would be met too late."""
    await call(sessions[0], rules.Set(project="default", when_set="A", clears=["B"]))
    await while_uncommitted(*sessions[:3], run(put("A")), signals.Set(project="default", key="B", value=1))
    present = await call(sessions[0], signals.List(project="default"))
    assert [signal.key for signal in present] == ["A", "B"]


@pytest.mark.parametrize(("key", "turns"), [("x/A", 1), ("x/B", 1), ("x/other", 0)])
async def test_a_key_takes_turns_with_the_rules_that_set_or_clear_it(
    sessions: list[asyncpg.Connection], key: str, turns: int
) -> None:
    one = sessions[0]
    await call(one, rules.Set(project="default", when_set="A", clears=["B"]))
    async with one.transaction():
        await call(one, run(put(key)))
        held = "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
        assert await one.fetchval(held) == turns


@pytest.mark.slow
async def test_transactions_and_calls_of_all_kinds_never_deadlock(
    sessions: list[asyncpg.Connection], seed: int
) -> None:
    """Lists in every order over few keys, concurrent with single calls, agents that end, rules, directives and locks."""
    owner = sessions[0]
    await call(owner, rules.Set(project="default", when_set="A", clears=["B", "C"]))
    await call(owner, rules.Set(project="default", when_set="C", clears=["A", "D"]))
    keys = [f"{prefix}{name}" for prefix in ("", "x/") for name in "ABCD"]
    sent = [(await call(owner, directives.Send(project="default", body="x", everyone=True))).id for _ in range(3)]
    finished = 0

    async def worker(connection: asyncpg.Connection, name: str, chance: random.Random) -> None:
        nonlocal finished
        agent: UUID | None = None

        def write() -> Part:
            kinds: list[Callable[[], Part]] = [
                lambda: put(chance.choice(keys), **({"agent": str(agent), "ephemeral": True} if agent else {})),
                lambda: put(chance.choice(keys)),
                lambda: {"verb": "signal_delete", "key": chance.choice(keys)},
                lambda: send(chance.choice("pqr")),
                lambda: {"verb": "directive_acknowledge", "directive": chance.choice(sent), "agent": name, "status": "seen"},
                lambda: {"verb": "event_emit", "type": "custom.x"},
            ]  # fmt: skip
            return chance.choice(kinds)()

        for _ in range(25):
            if agent is None:
                agent = (await call(connection, agents.Register(project="default", name=name))).id
            calls: list[Operation[Any]] = [
                run(*(write() for _ in range(chance.randrange(2, 7)))),
                run(*(put(key) for key in chance.sample(keys, 5))),
                run(*(send(key) for key in chance.sample("pqr", 3))),
                run(put("z"), conditions=tuple(at(key, 0) for key in chance.sample(keys, 3))),
                signals.Set(project="default", key=chance.choice(keys), value=1),
                directives.Send(project="default", body="x", everyone=True, key=chance.choice("pqr")),
                directives.Acknowledge(project="default", directive=chance.choice(sent), agent=name, status="seen"),
                agents.Deregister(agent=agent),
            ]
            chosen = chance.choice(calls)
            try:
                if chance.random() < 0.3:
                    resource = chance.choice(["src/a", "src/b", "src/"])
                    taken = locks.Acquire(project="default", resources=[resource], agent=agent)
                    (grant,) = await call(connection, taken)
                    chosen = run(
                        *(put(key) for key in chance.sample(keys, 2)),
                        {"verb": "lock_release", "resources": [resource], "agent": str(agent), "tokens": [grant.fencing_token]},
                        conditions=({"verb": "assert_fence", "resource": resource, "token": grant.fencing_token},),
                    )  # fmt: skip
                await call(connection, chosen)
                if isinstance(chosen, agents.Deregister):
                    agent = None
            except CoordinatorError as error:
                assert error.code.startswith("ZC"), f"{error.code}: {error.message} ({chosen})"
            finished += 1

    async with anyio.create_task_group() as tasks:
        for n, connection in enumerate(sessions):
            tasks.start_soon(worker, connection, f"agent{n}", random.Random(seed * 10 + n))
    assert finished == 25 * len(sessions)


@pytest.mark.slow
async def test_transactions_that_release_the_same_locks_in_any_order_never_deadlock(
    sessions: list[asyncpg.Connection], seed: int
) -> None:
    resources = ["src/a", "src/b", "src/c", "name:d"]

    async def holder(connection: asyncpg.Connection, name: str, chance: random.Random) -> None:
        agent = (await call(connection, agents.Register(project="default", name=name))).id
        for _ in range(8):
            (grant, *_) = await call(
                connection, locks.Acquire(project="default", resources=resources, agent=agent, shared=True)
            )
            release: Part = {"verb": "lock_release", "agent": str(agent), "tokens": [grant.fencing_token]}
            fence: Part = {"verb": "assert_fence", "token": grant.fencing_token}
            order = chance.sample(resources, 4)
            await call(
                connection,
                run(
                    *({**release, "resources": [one]} for one in order),
                    conditions=tuple({**fence, "resource": one} for one in reversed(order)),
                ),
            )

    async with anyio.create_task_group() as tasks:
        for n, connection in enumerate(sessions):
            tasks.start_soon(holder, connection, f"agent{n}", random.Random(seed * 10 + n))
    assert await sessions[0].fetchval("select count(*) from coordinator.locks") == 0


async def test_a_transaction_is_guarded_to_the_end_of_the_callers_own(sessions: list[asyncpg.Connection]) -> None:
    """Called after writes of its caller, it commits and rolls back with them."""
    one, two, *_ = sessions
    transaction = one.transaction()
    await transaction.start()
    await call(one, run(put("a")))
    await transaction.rollback()
    assert await call(two, signals.List(project="default")) == []
    outcome: list[Outcome] = await call(two, run({"verb": "event_emit", "type": "custom.x"}))
    assert outcome == [Outcome(write=0, verb="event_emit", result=None)]
    assert await call(two, events.Emit(project="default", type="custom.x")) is None


async def test_a_transaction_whose_session_dies_changes_nothing(sessions: list[asyncpg.Connection]) -> None:
    one, two, watcher, *_ = sessions
    transaction = one.transaction()
    await transaction.start()
    await call(one, signals.Set(project="default", key="b", value=1))
    task = asyncio.create_task(call(two, run(put("a"), put("b"))))
    await until_blocked(watcher, two)
    await watcher.execute("select pg_terminate_backend($1)", two.get_server_pid())
    with pytest.raises(CoordinatorError):
        await task
    await transaction.commit()
    assert [signal.key for signal in await call(watcher, signals.List(project="default"))] == ["b"]
    await call(watcher, run(put("a"), put("b")))


# Logs and documents.


def append(key: str, *data: Json, kind: str = "note", **fields: Json) -> Part:
    return {"verb": "log_append", "kind": kind, "key": key, "entries": [{"data": one} for one in data], **fields}


def document(key: str, value: Json, kind: str = "plan", **fields: Json) -> Part:
    return {"verb": "document_put", "kind": kind, "key": key, "value": value, **fields}


def item(key: str, of: str, patch: Json) -> Part:
    return {"verb": "document_item", "kind": "todo", "key": key, "item": of, "patch": patch}


async def content(connection: asyncpg.Connection) -> list[int]:
    """Count entries, but those of audits, documents, their versions, and sessions."""
    entries = "entries e join coordinator.logs l on l.id = e.log_id and l.kind <> 'audit'"
    tables = (entries, "documents", "document_versions", "sessions")
    return [await connection.fetchval(f"select count(*) from coordinator.{table}") for table in tables]


async def test_history_state_and_a_list_are_written_under_a_fence_or_not_at_all(tx: Transaction) -> None:
    agent, token = await granted(tx, "name:deploy")
    fence: Part = {"verb": "assert_fence", "resource": "name:deploy", "token": token}
    await tx.run(run(document("t", [{"id": 3}, {"id": 4}], kind="todo")))
    before = await content(tx.connection)

    def writes(**expected: Json) -> tuple[Part, ...]:
        return (
            append("s", {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}, kind="message"),
            document("s", {"step": 1}, kind="state", **expected),
            {"verb": "document_patch", "kind": "state", "key": "s", "patch": {"note": "x"}},
            item("t", "3", {"status": "COMPLETED"}),
            {"verb": "document_delete", "kind": "todo", "key": "t"},
        )

    outcomes = await tx.run(run(*writes(expect=0), conditions=(fence,), actor="me"))
    receipt, *headers = run(*writes()).results(outcomes)
    assert (receipt.first_seq, receipt.last_seq) == (1, 2)
    assert [header.version for header in headers] == [1, 2, 2, 3]
    assert {header.actor for header in headers} == {"me"}
    after = await content(tx.connection)
    assert [now - then for now, then in zip(after, before, strict=True)] == [2, 1, 4, 1]
    await refused(tx, run(*writes(expect=1), conditions=(fence,)), "ZC301")
    await refused(tx, run(*writes()[:3], item("t", "3", {}), conditions=(fence,)), "ZC217")
    await tx.run(locks.Release(project="default", resources=["name:deploy"], agent=agent, tokens=[token]))
    await refused(tx, run(*writes()[:3], conditions=(fence,)), "ZC312")
    assert await content(tx.connection) == after


async def test_a_document_can_be_a_condition(tx: Transaction) -> None:
    def at_version(version: int, **fields: Json) -> Part:
        return {"verb": "assert_document", "kind": "plan", "key": "k", "version": version, **fields}

    await tx.run(run(put("a"), conditions=(at_version(0),)))
    (made,) = run(document("k", 1)).results(await tx.run(run(document("k", 1))))
    await tx.run(run(put("a"), conditions=(at_version(1), at_version(1, epoch=made.epoch))))
    for wrong in (at_version(0), at_version(2), at_version(1, epoch="00000000")):
        error = await refused(tx, run(put("a"), conditions=(wrong,)), "ZC301")
        assert '"condition": 0' in (error.detail or "")
        assert '"version": 1' in (error.detail or "")


async def test_a_value_given_as_text_stays_as_it_is(tx: Transaction) -> None:
    text = '{"b": 1e16, "a": "\\u0000\\ud800", "a": 2}'
    await tx.run(run({"verb": "document_put", "kind": "plan", "key": "k", "value_text": text}))
    await tx.run(
        Run.of("default", [documents.Put(project="default", kind="plan", key="l", value=JsonText(text.encode()))])
    )
    for key in "kl":
        found = await tx.run(documents.Get(project="default", kind="plan", key=key))
        assert bytes(found.text).decode() == text
    await refused(tx, run({"verb": "document_put", "kind": "plan", "key": "k", "value_text": "{"}), "22P02")


@pytest.mark.parametrize("made", [False, True])
async def test_transactions_over_the_same_headers_in_opposite_orders_take_turns(
    sessions: list[asyncpg.Connection], *, made: bool
) -> None:
    """Headers, absent or not, and the sessions that the first of them make."""
    parts = (
        append("y", 1, kind="message"), append("x", 1), document("x", {}, kind="state"), document("b", 1, session="b"), document("a", 1),
        document("y", {}, kind="state"), put("s"),
    )  # fmt: skip
    if made:
        await call(sessions[0], run(*parts))
    _, second = await while_uncommitted(*sessions[:3], run(*parts), run(*reversed(parts)))
    assert [(o.write, o.verb) for o in second] == [(n, part["verb"]) for n, part in enumerate(reversed(parts))]

    async def work(connection: asyncpg.Connection, chance: random.Random) -> None:
        for turn in range(4):
            chosen = (
                [*chance.sample(parts, 5), document(f"new {turn}", 1, session=f"new {turn}"[: 5 + turn % 2 * 9])]
                if made
                else chance.sample(parts, 5)
            )
            await call(connection, run(*chosen))

    async with anyio.create_task_group() as tasks:
        for n, connection in enumerate(sessions):
            tasks.start_soon(work, connection, random.Random(n))


async def test_a_worker_that_lost_its_lock_meanwhile_writes_no_history(sessions: list[asyncpg.Connection]) -> None:
    agent = await call(sessions[0], agents.Register(project="default", name="a"))
    (grant,) = await call(sessions[0], locks.Acquire(project="default", resources=["name:x"], agent=agent.id))
    assert grant.fencing_token is not None
    fence: Part = {"verb": "assert_fence", "resource": "name:x", "token": grant.fencing_token}
    release = locks.Release(project="default", resources=["name:x"], agent=agent.id, tokens=[grant.fencing_token])
    write = run(append("l", 1), document("d", 1), conditions=(fence,))
    _, error = await while_uncommitted(*sessions[:3], release, write)
    assert getattr(error, "code", None) == "ZC312"
    assert (await content(sessions[0]))[:3] == [0, 0, 0]


async def test_sessions_of_all_parts_are_taken_before_any_header(sessions: list[asyncpg.Connection]) -> None:
    """Otherwise two transactions that make two sessions, each one for a log and one for a document, could wait for each other."""
    holder, one, two, watcher, *_ = sessions
    await call(holder, run(append("held", 1)))
    holding = holder.transaction()
    await holding.start()
    await holder.execute("select from coordinator.logs where key = 'held' for update")
    first = asyncio.create_task(call(one, run(append("held", 2), document("s/plan", 1, session="s"))))
    await until_blocked(watcher, one)
    second = asyncio.create_task(call(two, run(document("s", {}, kind="state"))))
    await until_blocked(watcher, two)
    await holding.rollback()
    assert [len(await first), len(await second)] == [2, 1]
