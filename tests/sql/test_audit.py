"""The audit trail: what is in it, exactly once, whoever copies it and however that ends; and that nobody changes it unnoticed."""

from __future__ import annotations

import hashlib
from typing import Any

import asyncpg
import pytest

from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.errors import Conflict, InvalidArgument, PermissionDenied
from coordinator.model.audit import AuditHead
from coordinator.model.call_origin import CallOrigin, coming_from
from coordinator.operations import audits, logs, signals, tokens
from coordinator.operations.audit_chain import verified
from tests.conftest import ADOPT_EPOCH, admin, cloned
from tests.daemon import opened
from tests.nouns.user import PHC
from tests.waiting import until, until_over, until_true

SETUP = """
select coordinator.project_create('p');
select coordinator.user_create('old', 'admin');
select coordinator.session_create('p', 's');
select coordinator.document_put('p', 'plan', 'd', '{}');
select coordinator.log_append('p', 'note', 'l', '[{"data": 1}]'::json);
select coordinator.token_create('t', 'agent', repeat('c', 64), 'coo_abcd', 'p');
select coordinator.lock_acquire('p', '{src/}', (select id from coordinator.agent_register('p', 'a')));
select coordinator.role_bind('pg_read_all_data', 'p');
"""
# call, project, type, key
CALLS = {
    f"user_create('new', p_hash => '{PHC}')": ("default", "user.created", "new"),
    "user_set('OLD', 'reader')": ("default", "user.changed", "old"),
    f"user_password('old', '{PHC}')": ("default", "user.password_changed", "old"),
    "user_delete('old')": ("default", "user.deleted", "old"),
    "token_create('u', 'agent', repeat('d', 64), 'coo_dddd', 'p')": ("p", "token.created", None),
    "token_revoke((select max(id) from coordinator.tokens))": ("p", "token.revoked", None),
    "role_bind('pg_monitor', 'p')": ("p", "role.bound", "pg_monitor"),
    "role_unbind('pg_read_all_data', 'p')": ("p", "role.unbound", "pg_read_all_data"),
    "project_create('q')": ("q", "project.created", "q"),
    "project_set('p', p_title => 'T')": ("p", "project.changed", "p"),
    "lock_break('p', 'src/', 'it hangs')": ("p", "lock.broken", "src/"),
    "retention_set('p', 'log', 'note', '1 day')": ("p", "retention.set", "log/note"),
    "session_delete('p', 's')": ("p", "session.deleted", "s"),
    "document_delete('p', 'plan', 'd')": ("p", "document.deleted", "plan/d"),
    "log_delete('p', 'note', 'l')": ("p", "log.deleted", "note/l"),
    "audit_set('q', '{}')": ("q", "audit.set", "q"),
}
TRAIL = "select project, action, subject, actor from coordinator.audit_trail order by created_at, seq"
COPY = "select coordinator.audit_copy()"


async def number(connection: asyncpg.Connection) -> None:
    """Number all events."""
    while any(await connection.fetchrow("select moved > 0, again from coordinator.relay_step(p_notify => false)")):
        pass


async def copy(connection: asyncpg.Connection) -> None:
    await number(connection)
    await connection.execute(COPY)


async def fill(db: Database, count: int = 5) -> None:
    """Make a trail of this many entries."""
    async with opened(db.dsn) as connection:
        for n in range(count):
            await connection.execute("select coordinator.rule_set('default', $1, '{X}')", f"A{n}")
        await copy(connection)


async def fault(db: Database, head: AuditHead | None = None) -> str | None:
    """Return what is wrong with the trail, as the program finds it; the function in the database finds the same without a head."""
    try:
        await verified(db.run, "default", head)
        found = None
    except Conflict as error:
        found = error.message.partition(": ")[2]
    if head is None:
        check = await db.run(audits.Verify(project="default"))
        assert (check.fault is None) == (found is None) or "pruned" in str(found) or "retention" in str(found)
    return found


async def test_what_managers_do_is_in_the_trail_once_with_who_did_it_and_without_secrets(db: Database) -> None:
    async with opened(db.dsn) as connection:
        await connection.execute(SETUP)
        await copy(connection)
        before = await connection.fetch(TRAIL)
        for call in CALLS:
            await connection.execute(f"select coordinator.{call.removesuffix(')')}, p_actor => 'boss')")
        await copy(connection)
        await connection.execute(COPY)
        rows = await connection.fetch(TRAIL)
        added = [tuple(row) for row in rows if row not in before]
        for (project, type_, key), row in zip(CALLS.values(), added, strict=True):
            assert row == (project, type_, row[2] if key is None else key, "boss")
        text = str(await connection.fetch("select data::text from coordinator.entries where hash is not null"))
        assert "scrypt" not in text
        assert "dddd" not in text


async def test_an_entry_says_from_where_and_readers_of_events_do_not_see_that(db: Database) -> None:
    with coming_from(CallOrigin(token=7, name="ci", address="192.0.2.4")):
        await db.run(tokens.Create(name="t", role="agent", project=None, hash="c" * 64, prefix="coo_abcd"))
    async with opened(db.dsn) as connection:
        await copy(connection)
        (entry,) = await db.run(audits.List(project="default"))
        assert entry.data["origin"] == {"token": 7, "name": "ci", "address": "192.0.2.4"}
        assert entry.data["role"] == await connection.fetchval("select session_user::text")
        seen = await connection.fetch("select * from coordinator.events_since()")
        assert "192.0.2.4" not in str(seen)


async def test_a_call_without_an_origin_has_none_in_its_entry(db: Database) -> None:
    async with opened(db.dsn) as connection:
        await connection.execute("select coordinator.rule_set('default', 'A', '{X}')")
        await copy(connection)
    (entry,) = await db.run(audits.List(project="default"))
    assert entry.data["origin"] is None
    assert await fault(db) is None


NUMBERS = '{"a": [' + ", ".join(["1e131071"] * 90) + "]}"  # 900 characters, and 12 MB as the text of jsonb


@pytest.mark.parametrize("claim", ["nonsense", '"text"', '{"a": "\\u0000"}', "x" * 5000, NUMBERS])
async def test_whatever_a_role_claims_is_copied(db: Database, claim: str) -> None:
    async with opened(db.dsn) as connection:
        await connection.execute("select set_config('coordinator.origin', $1, false)", claim)
        await connection.execute("select coordinator.rule_set('default', 'A', '{X}')")
        await copy(connection)
    (entry,) = await db.run(audits.List(project="default"))
    assert entry.data["origin"] == {"unreadable": claim[:1000]}
    assert await fault(db) is None


async def test_what_happens_in_a_project_that_is_gone_is_in_the_trail_of_no_project(db: Database) -> None:
    async with opened(db.dsn) as connection:
        await connection.execute(
            "select coordinator.project_create('p'); select coordinator.project_delete('p', 'boss')"
        )
        await copy(connection)
        assert await connection.fetch(TRAIL) == [
            (None, "project.created", "p", "coordinator"),
            (None, "project.deleted", "p", "boss"),
        ]
    assert [entry.data["event"]["type"] for entry in await db.run(audits.List())] == [
        "project.created",
        "project.deleted",
    ]


async def test_a_project_chooses_what_is_audited_and_its_choice_always_is(db: Database) -> None:
    async def types() -> list[str]:
        async with opened(db.dsn) as connection:
            await copy(connection)
        return [entry.data["event"]["type"] for entry in await db.run(audits.List(project="default"))]

    change = signals.Set(project="default", key="k", value=1)
    await db.run(change)
    assert await types() == []
    state = await db.run(audits.Set(project="default", topics=["signal.*"]))
    assert (state.topics, state.is_default) == (["signal.*"], False)
    await db.run(change)
    assert await types() == ["audit.set", "signal.set"]
    with pytest.raises(InvalidArgument, match="unknown topic"):
        await db.run(audits.Set(project="default", topics=["signals.*"]))
    await db.run(audits.Set(project="default", topics=[]))
    await db.run(change)
    assert await types() == ["audit.set", "signal.set", "audit.set"]
    assert (await db.run(audits.Reset(project="default"))).is_default
    await db.run(change)
    assert await types() == ["audit.set", "signal.set", "audit.set", "audit.reset"]


async def test_who_switches_the_audit_off_hides_nothing_that_was_before(db: Database) -> None:
    async with opened(db.dsn) as connection:
        async with connection.transaction():  # its events are in one chunk
            for call in (
                "rule_set('default', 'A', '{X}')",
                "audit_set('default', '{}')",
                "rule_set('default', 'B', '{X}')",
                "audit_reset('default')",
            ):
                await connection.execute(f"select coordinator.{call}")
        await copy(connection)
    found = [entry.data["event"]["type"] for entry in await db.run(audits.List(project="default"))]
    assert found == ["rule.set", "audit.set", "audit.reset"]


async def test_filters_find_entries_by_actor_topic_and_time(db: Database) -> None:
    async with opened(db.dsn) as connection:
        for actor in ("ann", "bob"):
            await connection.execute("select coordinator.rule_set('default', 'A', '{X}', p_actor => $1)", actor)
            await connection.execute("select coordinator.queue_set('default', 'q', p_actor => $1)", actor)
        await copy(connection)
    entries = await db.run(audits.List(project="default"))
    at = [entry.data["event"]["at"] for entry in entries]

    async def found(**filters: Any) -> list[int]:
        return [entry.seq for entry in await db.run(audits.List(project="default", **filters))]

    assert await found(actors=["bob"]) == [3, 4]
    assert await found(topics=["queue.*"]) == [2, 4]
    assert await found(actors=["ann"], topics=["rule.set"]) == [1]
    async with opened(db.dsn) as connection:
        instants = await connection.fetchrow("select $1::text::timestamptz, $2::text::timestamptz", at[1], at[3])
    assert await found(since=instants[0], until=instants[1]) == [2, 3]


# ------------------------------------------------------------------------------------------------------- exactly once


async def test_a_copy_that_is_killed_before_its_commit_is_made_once(db: Database) -> None:
    await fill(db, 2)
    async with opened(db.dsn) as connection, opened(db.dsn) as killed:
        await connection.execute("select coordinator.rule_delete('default', 'A0')")
        await number(connection)
        await killed.execute("begin")
        assert await killed.fetchval(COPY) == 1
        await connection.execute("select pg_terminate_backend($1)", killed.get_server_pid())
        await until(lambda: connection.fetchval(COPY), "the session of the former has ended", every_s=0.02)
        assert await connection.fetchval(COPY) == 0
    assert [entry.data["event"]["type"] for entry in await db.run(audits.List(project="default"))] == [
        "rule.set",
        "rule.set",
        "rule.deleted",
    ]
    assert await fault(db) is None


async def test_of_two_leaders_that_copy_at_once_one_does_and_nobody_waits(db: Database) -> None:
    async with opened(db.dsn) as one, opened(db.dsn) as other:
        await one.execute("select coordinator.rule_set('default', 'A', '{X}')")
        await number(one)
        await one.execute("begin")
        assert await one.fetchval(COPY) == 1
        assert await other.fetchval(COPY) == 0  # at once
        await other.execute("select coordinator.rule_set('default', 'B', '{X}')")  # nor does who writes
        await number(other)
        await one.execute("commit")
        assert await other.fetchval(COPY) == 1
        assert await one.fetchval(COPY) == 0
    assert [entry.data["event"]["key"] for entry in await db.run(audits.List(project="default"))] == ["A", "B"]
    assert await fault(db) is None


async def test_a_run_is_bounded_and_the_next_continues(db: Database) -> None:
    async with opened(db.dsn) as connection:
        for n in range(3):
            await connection.execute("select coordinator.rule_set('default', $1, '{X}')", f"A{n}")
            await number(connection)
        assert [await connection.fetchval("select coordinator.audit_copy(2)") for _ in range(3)] == [2, 1, 0]
    assert len(await db.run(audits.List(project="default"))) == 3


async def test_events_stay_until_they_are_copied_and_not_for_ever(db: Database) -> None:
    """What is lost then is said in the trails."""
    await fill(db, 1)
    async with opened(db.dsn) as connection:
        await connection.execute("select coordinator.rule_set('default', 'B', '{X}')")
        await number(connection)
        # A full partition, and a later event with a number.
        await connection.execute("select setval('coordinator.event_ids', 2000000)")
        await connection.execute("select coordinator.event_emit('default', 'custom.x')")
        await number(connection)
        await connection.execute("select coordinator.event_emit('default', 'custom.x')")
        await until_over(connection)
        await number(connection)

        async def pruned(age: str) -> int:
            await connection.execute(
                "update coordinator.event_chunks set stamped_at = coordinator.now_utc() - $1::text::interval", age
            )
            return int(await connection.fetchval("select coordinator.event_prune('1 day')"))

        assert await pruned("2 days") == 0, "an event is not copied yet"
        head = await connection.fetchval("select seq from coordinator.audit_cursor")
        gone = await until(lambda: pruned("5 days"), "nobody uses the partition", every_s=0.02)
        await connection.execute(COPY)
    entries = await db.run(audits.List(project="default"))
    assert entries[-1].data["lost"] == {"after": head, "last": gone}
    assert [entry.data["lost"]["last"] for entry in await db.run(audits.List())] == [gone]
    assert await fault(db) is None


async def test_copying_continues_after_a_loss_that_no_trail_or_only_a_late_one_is_affected_by(db: Database) -> None:
    """The loss is said once, whether a trail exists or is written later."""
    lose = "update coordinator.audit_cursor set seq = -7; select setval('coordinator.event_floor', 1)"
    async with opened(db.dsn) as connection:
        await connection.execute(lose)
        await connection.execute(COPY)
        await fill(db, 2)
        assert await db.run(audits.List(project="default"))
        await connection.execute(lose)
        await connection.execute("""update coordinator.audit_cursor set late = '{"default": -9}'""")
        await connection.execute(COPY)
        assert await connection.fetchval("select late from coordinator.audit_cursor") == {}
    entries = await db.run(audits.List(project="default"))
    assert [entry.data["lost"] for entry in entries if "lost" in entry.data] == [{"after": -9, "last": 1}]


async def test_events_that_are_copied_are_pruned_in_time(db: Database) -> None:
    await fill(db, 1)
    async with opened(db.dsn) as connection:
        await connection.execute("select setval('coordinator.event_ids', 2000000)")
        for _ in range(2):
            await connection.execute("select coordinator.event_emit('default', 'custom.x')")
            await until_over(connection)
            await copy(connection)
        await connection.execute(
            "update coordinator.event_chunks set stamped_at = coordinator.now_utc() - interval '2 days'"
        )
        await until_true(connection, "select coordinator.event_prune('1 day') > 0")


# ----------------------------------------------------------------------------------------------------------- the chain

LOG = "(select id from coordinator.logs where kind = 'audit' and project_id > 0)"
ENTRY = f"log_id = {LOG} and seq = 3"
TAMPERED = {
    "changed": (
        f"update coordinator.entries set data = replace(data::text, 'A2', 'A9')::json where {ENTRY}",
        "entry 3 or an earlier one was changed",
    ),
    "changed with its hash": (
        f"update coordinator.entries set hash = sha256('x'), data = replace(data::text, 'A2', 'A9')::json where {ENTRY}",
        "entry 3 or an earlier one was changed",
    ),
    "removed": (f"delete from coordinator.entries where {ENTRY}", "entry 3 is missing"),
    "removed and closed up": (
        f"delete from coordinator.entries where {ENTRY}; update coordinator.entries set seq = seq - 1 where log_id = {LOG} and seq > 3",
        "entry 3 or an earlier one was changed",
    ),
    "reordered": (
        (
            f"update coordinator.entries set seq = -seq where log_id = {LOG} and seq in (3, 4);"
            f"update coordinator.entries set seq = 7 + seq where log_id = {LOG} and seq < 0"
        ),
        "entry 3 or an earlier one was changed",
    ),
    "first removed": (
        f"delete from coordinator.entries where log_id = {LOG} and seq = 1",
        "entry 2 or an earlier one was changed",
    ),
    "last removed": (f"delete from coordinator.entries where log_id = {LOG} and seq = 5", "entry 5 is missing"),
    "inserted": (
        (
            f"insert into coordinator.entries (log_id, seq, epoch, actor, created_at, data, hash)"
            f" select log_id, 6, epoch, actor, created_at, data, hash from coordinator.entries where {ENTRY}"
        ),
        "entry 6 or an earlier one was changed",
    ),
    "epoch changed": (f"update coordinator.entries set epoch = epoch + 1 where {ENTRY}", "entry 3 is out of place"),
}


@pytest.mark.parametrize("how", TAMPERED)
async def test_what_was_changed_is_found(db: Database, how: str) -> None:
    await fill(db)
    assert await fault(db) is None
    statement, expected = TAMPERED[how]
    await admin(db.dsn, statement)
    found = await fault(db)
    assert found is not None
    assert found.startswith(expected)


async def kept_head(db: Database) -> AuditHead:
    return (await db.run(audits.Show(project="default"))).head


async def test_a_trail_without_its_end_is_found_by_a_head_that_was_kept(db: Database) -> None:
    await fill(db)
    head = await kept_head(db)
    await admin(
        db.dsn,
        f"delete from coordinator.entries where log_id = {LOG} and seq > 3",
        f"update coordinator.logs set last_seq = 3, count = 3 where id = {LOG}",
    )
    assert await fault(db) is None, "nothing but the head shows it"
    assert str(await fault(db, head)).startswith("entry 5 of the head is not in the trail")


async def test_a_trail_that_was_written_again_is_found_by_a_head_that_was_kept(db: Database) -> None:
    await fill(db)
    head = await kept_head(db)
    async with opened(db.dsn) as connection:
        await connection.execute(
            f"update coordinator.entries set data = replace(data::text, 'A2', 'A9')::json where {ENTRY}"
        )
        previous = b"0" * 64
        for row in await connection.fetch(
            f"select seq, data::text from coordinator.entries where log_id = {LOG} order by seq"
        ):
            previous = hashlib.sha256(previous + b"\n" + row["data"].encode()).hexdigest().encode()
            await connection.execute(
                f"update coordinator.entries set hash = decode($1, 'hex') where log_id = {LOG} and seq = $2",
                previous.decode(),
                row["seq"],
            )
    assert await fault(db) is None
    assert str(await fault(db, head)).startswith("entry 5 is not the one of the head")


async def test_a_head_stays_in_the_trail_while_it_grows(db: Database) -> None:
    await fill(db)
    head = await kept_head(db)
    await fill(db)
    assert await fault(db, head) is None
    assert (await verified(db.run, "default", head)).head.seq == 10
    assert await fault(db, AuditHead("default", 5, head.epoch, "0" * 64)) is not None


async def test_the_trail_of_a_restored_database_lacks_the_head_and_says_of_which_epoch_it_is(
    database_url: str, server_url: str, config: Config
) -> None:
    name = database_url.partition("?")[0].rpartition("/")[2]
    async with Database.open(database_url, config) as db:
        await fill(db)
    async with opened(server_url) as connection:
        sessions = f"select from pg_stat_activity where datname = '{name}'"
        await until(lambda: connection.fetchval(f"select not exists ({sessions})"), "nobody uses the database")
    # A copy represents the backup; later changes in the first database are lost with it.
    async with cloned(server_url, name) as restored:
        async with Database.open(database_url, config) as db:
            await fill(db)
            head = await kept_head(db)
        await admin(restored, ADOPT_EPOCH)
        async with Database.open(restored, config) as db:
            assert await fault(db) is None
            assert str(await fault(db, head)).startswith("entry 10 of the head is not in the trail")
            async with opened(restored) as connection:
                for n in range(5):
                    await connection.execute("select coordinator.rule_set('default', $1, '{Y}')", f"B{n}")
                await copy(connection)
            assert await fault(db) is None
            assert str(await fault(db, head)).startswith("entry 10 is not the one of the head")


async def test_a_page_of_the_database_s_own_verification_continues_the_former(db: Database) -> None:
    await fill(db)
    check = await db.run(audits.Verify(project="default", limit=2))
    assert (check.checked, check.seq, check.fault) == (2, 2, None)
    check = await db.run(audits.Verify(project="default", after=check.seq, hash=check.hash, limit=10))
    assert (check.checked, check.seq, check.fault) == (3, 5, None)
    assert check.hash == (await kept_head(db)).hash
    wrong = await db.run(audits.Verify(project="default", after=2, hash="0" * 64))
    assert (wrong.checked, wrong.fault) == (0, "entry 3 or an earlier one was changed")


# ----------------------------------------------------------------------------------------------------------- retention


async def prune(db: Database, last: int) -> None:
    """Let retention remove the entries up to that."""
    await admin(
        db.dsn,
        "select coordinator.retention_set('default', 'log', 'audit', '1 day')",
        f"update coordinator.entries set created_at = created_at - interval '2 days' where log_id = {LOG} and seq <= {last}",
        f"update coordinator.logs set trim_at = coordinator.now_utc() where id = {LOG}",
        "select coordinator.log_trim()",
    )


async def test_retention_leaves_an_anchor_from_which_the_rest_is_verified(db: Database) -> None:
    await fill(db)
    head = await kept_head(db)
    await prune(db, 3)
    entries = await db.run(audits.List(project="default"))
    assert [entry.seq for entry in entries] == [4, 5, 6]
    pruned = entries[-1].data["pruned"]
    assert (pruned["first"], pruned["last"], pruned["count"], pruned["intact"]) == (1, 3, 3, True)
    state = await db.run(audits.Show(project="default"))
    assert (state.first_seq, state.anchor_seq, state.anchor_hash) == (4, 3, pruned["hash"])
    assert await fault(db, head) is None
    await fill(db)
    await prune(db, 7)
    assert await fault(db) is None
    assert str(await fault(db, head)).startswith("entry 5 of the head is not in the trail")


async def test_all_of_a_trail_may_be_pruned(db: Database) -> None:
    await fill(db)
    await prune(db, 5)
    assert [entry.seq for entry in await db.run(audits.List(project="default"))] == [6]
    assert await fault(db) is None


async def test_a_forged_anchor_is_found(db: Database) -> None:
    await fill(db)
    await admin(
        db.dsn,
        f"insert into coordinator.audit_anchors select log_id, seq, hash from coordinator.entries where {ENTRY}",
        f"delete from coordinator.entries where log_id = {LOG} and seq <= 3",
    )
    with pytest.raises(Conflict, match="no entry says that retention removed them"):
        await verified(db.run, "default")


async def test_retention_does_not_hide_what_was_changed_before(db: Database) -> None:
    await fill(db)
    await admin(db.dsn, TAMPERED["changed"][0])
    await prune(db, 4)
    with pytest.raises(Conflict, match="entries 1 to 4 were not intact"):
        await verified(db.run, "default")


async def test_retention_does_not_hide_a_gap(db: Database) -> None:
    await fill(db)
    await admin(db.dsn, TAMPERED["removed"][0])
    await prune(db, 4)
    with pytest.raises(Conflict, match="entries 1 to 4 were not intact"):
        await verified(db.run, "default")


async def test_a_verification_that_retention_overtakes_begins_again(db: Database) -> None:
    await fill(db)
    calls: list[Any] = []

    async def run(operation: Any) -> Any:
        calls.append(operation)
        if isinstance(operation, audits.List) and len(calls) == 2:
            await prune(db, 3)  # after it knows the anchor
        return await db.run(operation)

    result = await verified(run, "default")
    assert (result.checked, result.head.seq) == (3, 6)


async def test_entries_from_before_there_were_hashes_stay_as_they_are(db: Database) -> None:
    await admin(
        db.dsn,
        "insert into coordinator.logs (project_id, kind, key, epoch, updated_at, last_seq, count)"
        " values (coordinator.project_id('default'), 'audit', 'audit', coordinator.epoch_stamp(), now(), 2, 2)",
        f"insert into coordinator.entries (log_id, seq, epoch, actor, created_at, data)"
        f' select {LOG}, n, 1, \'ann\', now(), \'{{"action": "user_create", "subject": "x", "detail": {{}}}}\' from generate_series(1, 2) n',
    )
    await fill(db)
    result = await verified(db.run, "default")
    assert (result.unchained, result.checked, result.head.seq) == (2, 5, 7)
    assert await fault(db) is None
    async with opened(db.dsn) as connection:
        rows = await connection.fetch("select action, subject from coordinator.audit_trail order by seq limit 3")
    assert [tuple(row) for row in rows] == [("user_create", "x"), ("user_create", "x"), ("rule.set", "A0")]
    await prune(db, 3)
    assert (await verified(db.run, "default")).checked == 5


# -------------------------------------------------------------------------------------------------------------- access


@pytest.mark.parametrize(
    "read",
    [logs.Read(project="default", kind="audit", key="audit"), logs.Show(project="default", kind="audit", key="audit")],
)
async def test_the_trail_is_not_read_as_a_log(db: Database, read: Any) -> None:
    await fill(db)
    with pytest.raises(PermissionDenied, match="may not read logs of kind"):
        await db.run(read)
    async with opened(db.dsn) as connection:
        assert await connection.fetch("select from coordinator.entries_live where kind = 'audit'") == []


@pytest.mark.parametrize(("role", "sees"), [("reader", False), ("agent", False), ("manager", True), ("admin", True)])
async def test_managers_see_the_trail(db: Database, role: str, sees: bool) -> None:
    await fill(db, 1)
    async with opened(db.dsn) as connection:
        await connection.execute("begin")
        await connection.execute(f"set local role coordinator_{role}")
        assert bool(await connection.fetch("select * from coordinator.audit_trail")) is sees
        if sees:
            assert await connection.fetch("select * from coordinator.audit_list('default')")
