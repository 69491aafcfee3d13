"""Artifacts in SQL: what readers see, and when."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from msgspec.structs import replace

from coordinator.errors import Conflict, NotFound
from coordinator.model.artifact import Artifact, Upload
from coordinator.model.catalogue import LIMITS
from coordinator.model.operation import Operation
from coordinator.operations import artifacts, files, retentions, transfers
from tests.catalogue.test_operations import OPERATIONS
from tests.conftest import Transaction
from tests.sql.refusal import refused

MIB = 1 << 20
HOUR = timedelta(minutes=90)  # far more than one, so that a slow machine changes nothing


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def put(tx: Transaction, name: str, data: bytes, **fields: str) -> Artifact:
    return await tx.run(artifacts.Put(project="default", artifact=name, data=data, **fields))  # type: ignore[arg-type]


async def begin(tx: Transaction, name: str = "a", **fields: object) -> Upload:
    return await tx.run(artifacts.Begin(project="default", artifact=name, **fields))  # type: ignore[arg-type]


async def write(tx: Transaction, upload: UUID, number: int, data: bytes) -> bool:
    return await tx.run(artifacts.Write(project="default", upload=upload, number=number, data=data))


def finish(upload: UUID, name: str = "a", **fields: object) -> artifacts.Finish:
    return artifacts.Finish(project="default", upload=upload, artifact=name, **fields)  # type: ignore[arg-type]


async def read(tx: Transaction, name: str, **fields: object) -> bytes:
    part = await tx.run(artifacts.Part(project="default", artifact=name, **fields))  # type: ignore[arg-type]
    assert part.data is not None
    return part.data


async def stored(tx: Transaction) -> tuple[int, int]:
    """Count contents and parts."""
    blobs = await tx.connection.fetchval("select count(*) from coordinator.artifact_blobs")
    return blobs, await tx.connection.fetchval("select count(*) from coordinator.artifact_chunks")


# How many projects have another number of artifacts or bytes than is counted.
USAGE_DIFFERS = """
select count(*) from coordinator.projects p left join coordinator.artifact_usage u on u.project_id = p.id
where (coalesce(u.count, 0), coalesce(u.bytes, 0)) is distinct from (
  (select count(*) from coordinator.artifacts a where a.project_id = p.id),
  (select coalesce(sum(b.bytes), 0)::bigint from coordinator.artifact_blobs b where b.project_id = p.id))"""


async def prune(tx: Transaction) -> None:
    while await tx.run(artifacts.Prune()):
        pass


async def test_an_artifact_is_returned_as_it_was_put(tx: Transaction) -> None:
    data = bytes(range(256)) * 100
    made = await put(tx, "logs/build.bin", data, media_type="application/x-tar")
    assert (made.bytes, made.sha256, made.media_type) == (len(data), sha256(data), "application/x-tar")
    assert await read(tx, "logs/build.bin") == data
    assert await read(tx, "logs/build.bin", offset=250, length=12) == data[250:262]
    assert await read(tx, "logs/build.bin", offset=len(data)) == b""
    assert await tx.run(artifacts.Show(project="default", artifact="logs/build.bin")) == made


async def test_bytes_are_compressed_with_lz4_or_not_at_all(tx: Transaction) -> None:
    has_lz4 = "(select 'lz4' = any (enumvals) from pg_settings where name = 'default_toast_compression')"
    await put(tx, "a", b"text " * 100_000)
    found = await tx.connection.fetchval(
        f"select case when {has_lz4} then pg_column_compression(data) = 'lz4' and pg_column_size(data) < 50000"
        " else pg_column_size(data) >= 500000 and pg_column_compression(data) is null end from coordinator.artifact_chunks"
    )
    assert found is True


async def test_parts_come_in_any_order_and_nobody_sees_them_before_the_end(tx: Transaction) -> None:
    parts = [b"a" * MIB, b"b" * MIB, b"end"]
    upload = (await begin(tx)).upload
    for number in (3, 1, 2):
        assert await write(tx, upload, number, parts[number - 1])
        await refused(tx, artifacts.Show(project="default", artifact="a"), "ZC221")
        await refused(tx, artifacts.Part(project="default", artifact="a", sha256=sha256(b"".join(parts))), "ZC221")
    whole = b"".join(parts)
    made = await tx.run(finish(upload, bytes=len(whole), sha256=sha256(whole)))
    assert made.sha256 == sha256(whole)
    for offset, length in ((0, MIB), (MIB - 2, 5), (MIB, MIB), (2 * MIB - 1, 4), (2 * MIB, 99), (1, MIB)):
        assert await read(tx, "a", offset=offset, length=length) == whole[offset : offset + length]


async def test_finishing_again_after_a_lost_answer_changes_nothing(tx: Transaction) -> None:
    upload = (await begin(tx)).upload
    await write(tx, upload, 1, b"x")
    first = await tx.run(finish(upload))
    events = await tx.events()
    assert await tx.run(finish(upload)) == first
    assert await put(tx, "a", b"x") == first
    assert await tx.events() == events


async def test_an_upload_continues_with_the_parts_that_are_missing(tx: Transaction) -> None:
    data = b"a" * MIB + b"b"
    started = await begin(tx, sha256=sha256(data))
    await write(tx, started.upload, 2, b"b")
    again = await begin(tx, "other", sha256=sha256(data), bytes=len(data))
    assert (again.upload, again.complete, again.parts) == (started.upload, False, [2])
    await write(tx, started.upload, 1, b"a" * MIB)
    assert not await write(tx, started.upload, 1, b"a" * MIB)
    await tx.run(finish(started.upload, "other"))
    whole = await begin(tx, sha256=sha256(data))
    assert whole.complete
    assert (await tx.run(finish(whole.upload))).sha256 == sha256(data)
    assert await stored(tx) == (1, 2)


async def test_what_is_not_complete_or_not_as_said_is_refused_and_says_why(tx: Transaction) -> None:
    started = await begin(tx)
    await write(tx, started.upload, 3, b"c")
    missing = await refused(tx, finish(started.upload), "ZC336")
    assert missing.detail == '{"short": [], "missing": [1, 2]}'
    await write(tx, started.upload, 1, b"a")
    await write(tx, started.upload, 2, b"b" * MIB)
    short = await refused(tx, finish(started.upload), "ZC336")
    assert short.detail == '{"short": [1], "missing": []}'
    await refused(tx, artifacts.Write(project="default", upload=started.upload, number=1, data=b"z"), "ZC336")
    right = (await begin(tx)).upload
    await write(tx, right, 1, b"abc")
    assert (await refused(tx, finish(right, bytes=2), "ZC336")).detail == '{"bytes": 3}'
    assert sha256(b"abc") in str((await refused(tx, finish(right, sha256=sha256(b"")), "ZC336")).detail)
    assert (await refused(tx, finish(right, bytes=2 * MIB), "ZC336")).detail == '{"short": [1], "missing": [2]}'
    lied = (await begin(tx, sha256=sha256(b"abc"))).upload
    await write(tx, lied, 1, b"abd")
    await refused(tx, finish(lied), "ZC336")
    await tx.run(finish(right, bytes=3, sha256=sha256(b"abc")))
    await refused(tx, finish(right, bytes=4), "ZC336")
    await refused(tx, artifacts.Put(project="default", artifact="b", data=b"abc", sha256=sha256(b"")), "ZC336")
    assert [a.artifact for a in await tx.run(artifacts.List(project="default"))] == ["a"]


async def test_the_same_bytes_are_kept_once(tx: Transaction) -> None:
    await put(tx, "a", b"same")
    await put(tx, "b", b"same", media_type="text/plain")
    plain = (await begin(tx)).upload
    await write(tx, plain, 1, b"same")
    await tx.run(finish(plain, "c"))
    await prune(tx)
    assert await stored(tx) == (1, 1)
    await tx.run(artifacts.Delete(project="default", artifact="a"))
    await tx.set_clock(HOUR)
    await prune(tx)
    assert await read(tx, "b") == await read(tx, "c") == b"same"
    for name in "bc":
        await tx.run(artifacts.Delete(project="default", artifact=name))
    await prune(tx)
    assert await stored(tx) == (1, 1)
    await tx.set_clock(2 * HOUR)
    await prune(tx)
    assert await stored(tx) == (0, 0)


async def test_the_same_bytes_of_two_projects_know_nothing_of_each_other(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.project_create('other')")
    await put(tx, "a", b"same")
    assert not (await tx.run(artifacts.Begin(project="other", artifact="a", sha256=sha256(b"same")))).complete
    theirs = artifacts.Part(project="other", artifact="a", sha256=sha256(b"same"))
    await refused(tx, theirs, "ZC221")
    mine = (await begin(tx)).upload
    await refused(tx, artifacts.Write(project="other", upload=mine, number=1, data=b"x"), "ZC221")
    await refused(tx, artifacts.Finish(project="other", upload=mine, artifact="a"), "ZC221")
    assert not await tx.run(artifacts.Abort(project="other", upload=mine))


async def test_a_new_content_replaces_the_old_one_which_its_readers_finish(tx: Transaction) -> None:
    old = await put(tx, "a", b"old")
    new = await put(tx, "a", b"new", media_type="text/plain")
    assert (new.id, new.created_at) == (old.id, old.created_at)
    assert await read(tx, "a") == b"new"
    assert await read(tx, "a", sha256=old.sha256, offset=1) == b"ld"
    await tx.set_clock(HOUR)
    await prune(tx)
    with pytest.raises(NotFound):
        await read(tx, "a", sha256=old.sha256)
    assert await read(tx, "a", sha256=new.sha256) == b"new"


async def test_what_is_left_of_an_upload_goes_after_an_hour_without_a_part(tx: Transaction) -> None:
    upload = (await begin(tx)).upload
    await write(tx, upload, 1, b"x" * MIB)
    await tx.set_clock(timedelta(minutes=59))
    await write(tx, upload, 2, b"y")
    await tx.set_clock(HOUR)
    await prune(tx)
    assert await stored(tx) == (1, 2)
    await tx.set_clock(2 * HOUR)
    assert "artifact_prune" in await tx.connection.fetchval("select coordinator.work_due()")
    await prune(tx)
    assert await stored(tx) == (0, 0)
    assert "artifact_prune" not in await tx.connection.fetchval("select coordinator.work_due()")
    await refused(tx, artifacts.Write(project="default", upload=upload, number=1, data=b"x"), "ZC221")
    await refused(tx, finish(upload), "ZC221")


async def test_an_aborted_upload_leaves_nothing_and_a_finished_one_cannot_be_aborted(tx: Transaction) -> None:
    upload = (await begin(tx)).upload
    await write(tx, upload, 1, b"x")
    assert await tx.run(artifacts.Abort(project="default", upload=upload))
    assert not await tx.run(artifacts.Abort(project="default", upload=upload))
    assert await stored(tx) == (0, 0)
    done = (await begin(tx)).upload
    await tx.run(finish(done))
    assert not await tx.run(artifacts.Abort(project="default", upload=done))
    assert await read(tx, "a") == b""


async def test_an_artifact_of_a_session_has_a_name_of_its_own_and_ends_with_it(tx: Transaction) -> None:
    await put(tx, "a", b"of the project")
    mine = await put(tx, "a", b"of the session", session="s")
    assert mine.session == "s"
    assert await read(tx, "a", session="s") == b"of the session"
    assert await read(tx, "a") == b"of the project"
    assert [a.session for a in await tx.run(artifacts.List(project="default"))] == [None, "s"]
    assert [a.session for a in await tx.run(artifacts.List(project="default", session="s"))] == ["s"]
    await refused(tx, artifacts.Show(project="default", artifact="a", session="t"), "ZC215")
    await refused(tx, artifacts.List(project="default", session="t"), "ZC215")
    await tx.connection.execute("delete from coordinator.sessions")
    assert [a.session for a in await tx.run(artifacts.List(project="default"))] == [None]
    await tx.set_clock(HOUR)
    await prune(tx)
    assert await stored(tx) == (1, 1)


async def test_artifacts_are_listed_by_prefix_and_media_type(tx: Transaction) -> None:
    for name, media_type in (("b/1", "text/plain"), ("b/2", "text/x_y"), ("b/3", "textual/x"), ("c", "text/plain")):
        await put(tx, name, name.encode(), media_type=media_type)

    async def names(**fields: str) -> list[str]:
        return [a.artifact for a in await tx.run(artifacts.List(project="default", **fields))]  # type: ignore[arg-type]

    assert await names(prefix="b/") == ["b/1", "b/2", "b/3"]
    assert await names(media_type="text/*") == ["b/1", "b/2", "c"]
    assert await names(media_type="text/plain", prefix="b") == ["b/1"]
    assert await names(media_type="t%/*") == await names(media_type="te_t/*") == []


async def test_an_artifact_is_kept_and_no_longer(tx: Transaction) -> None:
    await put(tx, "a", b"x")
    assert (await tx.run(artifacts.Keep(project="default", artifact="a"))).kept
    events = await tx.events()
    assert (await tx.run(artifacts.Keep(project="default", artifact="a"))).kept
    assert await tx.events() == events
    assert (await put(tx, "a", b"y")).kept
    assert not (await tx.run(artifacts.Keep(project="default", artifact="a", kept=False))).kept


@pytest.mark.parametrize(
    "media_type",
    ["text", "text/", "/plain", "text/plain\r\nX-Evil: 1", "text/plain; x", "text/pläin", 'a/b; c="\\"', ""],
)
async def test_a_media_type_that_could_say_anything_else_in_a_header_is_refused(
    tx: Transaction, media_type: str
) -> None:
    before = await stored(tx)
    code = "ZC103" if media_type else "ZC101"
    await refused(tx, artifacts.Put(project="default", artifact="a", data=b"x", media_type=media_type), code)
    assert await stored(tx) == before


async def test_bad_requests_are_refused(tx: Transaction) -> None:
    upload = (await begin(tx)).upload
    for operation, code in (
        (artifacts.Put(project="default", artifact="", data=b"x"), "ZC101"),
        (artifacts.Put(project="default", artifact="a", data=b"x", sha256="A" * 64), "ZC103"),
        (artifacts.Begin(project="default", artifact="a", bytes=-1), "ZC104"),
        (artifacts.Begin(project="default", artifact="a", bytes=(64 << 20) + 1), "ZC102"),
        (artifacts.Write(project="default", upload=upload, number=0, data=b"x"), "ZC102"),
        (artifacts.Write(project="default", upload=upload, number=65, data=b"x"), "ZC102"),
        (artifacts.Write(project="default", upload=upload, number=1, data=b""), "ZC101"),
        (artifacts.Write(project="default", upload=uuid4(), number=1, data=b"x"), "ZC221"),
        (artifacts.Delete(project="default", artifact="a"), "ZC221"),
        (artifacts.Show(project="default", artifact="a" * 512), "ZC221"),
        (artifacts.Keep(project="default", artifact="a"), "ZC221"),
        (artifacts.Part(project="default", artifact="a", offset=-1), "ZC104"),
        (artifacts.Part(project="default", artifact="a", length=MIB + 1), "ZC104"),
        (artifacts.Part(project="default", artifact="a", length=0), "ZC104"),
    ):
        await refused(tx, operation, code)


async def test_a_project_that_is_deleted_leaves_no_row(tx: Transaction) -> None:
    await tx.connection.execute("select coordinator.project_create('other')")
    await tx.run(artifacts.Put(project="other", artifact="a", data=b"x", session="s"))
    await tx.run(artifacts.Begin(project="other", artifact="b"))
    await tx.connection.execute("select coordinator.project_delete('other')")
    assert await stored(tx) == (0, 0)
    assert not await tx.connection.fetchval("select count(*) from coordinator.artifacts")


async def test_a_part_is_not_flushed_and_what_follows_is(tx: Transaction) -> None:
    """32 flushes take a third of an upload of 32 MiB; the commit of artifact_finish flushes all that came before."""
    setting = "select current_setting('synchronous_commit')"
    upload = (await begin(tx)).upload
    async with tx.connection.transaction():
        await write(tx, upload, 1, b"x")
        # Until the end of the transaction, which is that of the call.
        assert await tx.connection.fetchval(setting) == "off"
    assert {kind for kind in OPERATIONS if not kind.durable} == {artifacts.Write, files.Record}


async def test_an_archived_session_takes_no_artifact(tx: Transaction) -> None:
    await put(tx, "a", b"x", session="s")
    await tx.connection.execute("select coordinator.session_archive('default', 's')")
    await refused(tx, artifacts.Put(project="default", artifact="b", data=b"x", session="s"), "ZC332")
    await refused(tx, artifacts.Begin(project="default", artifact="b", session="s"), "ZC332")
    await refused(tx, finish((await begin(tx)).upload, session="s"), "ZC332")
    assert await read(tx, "a", session="s") == b"x"


FILL = """
with blobs as (
  insert into coordinator.artifact_blobs (project_id, sha256, bytes, finished_at, due_at)
  select p.id, lpad(to_hex(n), 64, '0'), n, now(), case when n > 5990 then now() end
  from coordinator.projects p, generate_series(1, 6000) n where p.name = 'default' returning id, project_id, sha256, bytes)
insert into coordinator.artifacts (project_id, session_id, name, media_type, bytes, sha256, actor, created_at, updated_at, blob_id)
select b.project_id, case when b.bytes % 100 = 0 then s.id end, 'dir' || b.bytes % 50 || '/' || b.bytes, 'text/plain', b.bytes, b.sha256, 'a',
       now(), now(), b.id
from blobs b, coordinator.sessions s where s.key = 's'"""
TABLES = "coordinator.artifacts, coordinator.artifact_blobs, coordinator.artifact_chunks"


async def rows_read(tx: Transaction) -> tuple[int, int]:
    row = await tx.connection.fetchrow(
        "select sum(seq_tup_read), sum(idx_tup_fetch) from pg_stat_xact_all_tables where relname ~ '^artifact' and schemaname = 'coordinator'"
    )
    assert row
    return int(row[0]), int(row[1])


@pytest.mark.parametrize("stale", [False, True])
async def test_every_call_finds_its_rows_by_an_index(tx: Transaction, *, stale: bool) -> None:
    await put(tx, "mine", b"x", session="s")
    await tx.connection.execute(f"analyze {TABLES}")
    await tx.connection.execute(FILL)
    if not stale:
        await tx.connection.execute(f"analyze {TABLES}")

    async def lists(**fields: object) -> list[Artifact]:
        return await tx.run(artifacts.List(project="default", limit=10, **fields))  # type: ignore[arg-type]

    calls: dict[str, tuple[Callable[[], Awaitable[object]], int]] = {
        "all": (lists, 60),
        "by prefix": (lambda: lists(prefix="dir7/"), 60),
        "a further page": (lambda: lists(prefix="dir7/", after=["dir7/1007", "0"]), 60),
        "of a session": (lambda: lists(session="s"), 120),
        "read": (lambda: read(tx, "mine", session="s"), 10),
        "put": (lambda: put(tx, "dir7/7", uuid4().bytes), 40),
        "due": (lambda: tx.connection.fetchval("select coordinator.work_due()"), 10),
        "prune": (lambda: tx.run(artifacts.Prune(limit=2)), 30),
    }
    for name, (call, most) in calls.items():
        for _ in range(7):  # the sixth has a plan for any values
            before = await rows_read(tx)
            await call()
            after = await rows_read(tx)
            assert after[0] - before[0] < 50, name  # of the parts, of which there are few here
            assert after[1] - before[1] <= most, name


async def test_any_order_of_calls_leaves_what_a_model_has(tx: Transaction, seed: int) -> None:
    """Names and contents at random, with uploads that are shared, repeated, aborted and left behind."""
    rng = random.Random(seed)
    contents = [b"", b"a", b"b" * MIB, b"c" * (MIB + 1)]
    names: dict[str, bytes] = {}
    uploads: dict[UUID, bytes] = {}
    now = timedelta(0)
    for _ in range(120):
        data, name = rng.choice(contents), rng.choice("xyz")
        match rng.randrange(7):
            case 0 if len(data) <= MIB:
                await put(tx, name, data)
                names[name] = data
            case 1:
                begun = await begin(tx, name, **({"sha256": sha256(data)} if rng.random() < 0.6 else {}))
                if not begun.complete:
                    uploads[begun.upload] = data
            case 2 | 3 if uploads:
                upload, data = rng.choice(sorted(uploads.items()))
                number = rng.randrange(2)
                if part := data[number * MIB : (number + 1) * MIB]:
                    with suppress(NotFound):
                        await write(tx, upload, number + 1, part)
            case 4 if uploads:
                upload, data = rng.choice(sorted(uploads.items()))
                try:
                    await tx.run(finish(upload, name, bytes=len(data), sha256=sha256(data)))
                except (Conflict, NotFound):
                    continue
                names[name] = data
            case 5 if name in names:
                await tx.run(artifacts.Delete(project="default", artifact=name))
                del names[name]
            case 6:
                now += timedelta(minutes=rng.randrange(40))
                await tx.set_clock(now)
                await prune(tx)
                if uploads and rng.random() < 0.3:
                    await tx.run(artifacts.Abort(project="default", upload=uploads.popitem()[0]))
        assert {a.artifact: a.sha256 for a in await tx.run(artifacts.List(project="default"))} == {
            name: sha256(data) for name, data in names.items()
        }
        assert await tx.connection.fetchval(USAGE_DIFFERS) == 0
    for name, data in names.items():
        pieces = [await read(tx, name, offset=offset) for offset in range(0, len(data) + 1, MIB)]
        assert b"".join(pieces) == data
    await tx.set_clock(now + 3 * HOUR)
    await prune(tx)
    assert (await stored(tx))[0] == len(set(names.values()))
    assert await tx.connection.fetchval(USAGE_DIFFERS) == 0


async def test_what_forks_imports_and_ends_of_sessions_add_and_remove_is_counted(tx: Transaction) -> None:
    await put(tx, "a", b"one", session="s")
    await put(tx, "b", b"one")
    await put(tx, "b", b"three")
    await tx.connection.execute("select coordinator.session_fork('default', 's', p_copy => 't')")
    await tx.connection.execute("select coordinator.project_create('b')")
    lines = [row.line for page in [await tx.run(transfers.Export(project="default"))] for row in page]
    await transfers.import_lines(tx.run, "b", lines)
    used = "select array_agg((count, bytes)::text order by project_id) from coordinator.artifact_usage"
    assert await tx.connection.fetchval(used) == ["(3,8)", "(3,8)"]
    assert await tx.connection.fetchval(USAGE_DIFFERS) == 0
    await tx.connection.execute("select coordinator.session_delete('default', 's')")
    await tx.connection.execute("delete from coordinator.artifacts where name = 'b'")
    await tx.set_clock(2 * 24 * HOUR)
    await prune(tx)
    assert await tx.connection.fetchval(used) == ["(1,3)", "(2,3)"]
    assert await tx.connection.fetchval(USAGE_DIFFERS) == 0
    await tx.connection.execute("select coordinator.project_delete('b')")
    assert await tx.connection.fetchval(used) == ["(1,3)"]


async def test_a_project_that_is_full_takes_no_more_and_says_what_to_do(tx: Transaction) -> None:
    await put(tx, "a", b"old")

    async def use(count: int, size: int) -> None:
        await tx.connection.execute("update coordinator.artifact_usage set count = $1, bytes = $2", count, size)

    async def refuses(*operations: Operation[Any]) -> None:
        before = await stored(tx)
        for operation in operations:
            assert "retention set artifact" in (await refused(tx, operation, "ZC102")).hint  # type: ignore[operator]
        assert await stored(tx) == before

    upload = (await begin(tx, "late")).upload
    await write(tx, upload, 1, b"12345")
    new = artifacts.Put(project="default", artifact="new", data=b"new")
    await use(LIMITS["artifacts"], 3)
    await refuses(new, artifacts.Begin(project="default", artifact="new"), finish(upload, "late"))
    await put(tx, "a", b"in place of another")
    await use(1, LIMITS["artifacts_bytes"] - 4)
    large = artifacts.Begin(project="default", artifact="a", bytes=5)
    await refuses(large, finish(upload, "late"), replace(new, data=b"12345"))
    await put(tx, "b", b"old")  # which the project has
    await put(tx, "c", b"1234")
    await tx.run(artifacts.Delete(project="default", artifact="c"))
    await refuses(new)
    await tx.set_clock(HOUR)
    await prune(tx)
    await tx.run(new)


async def test_what_a_name_must_have_is_compared_and_the_conflict_says_what_is_there(tx: Transaction) -> None:
    def putting(data: bytes, expect: str) -> artifacts.Put:
        return artifacts.Put(project="default", artifact="a", data=data, expect=expect)

    def beginning(expect: str) -> artifacts.Begin:
        return artifacts.Begin(project="default", artifact="a", expect=expect)

    for absent in (putting(b"x", sha256(b"x")), beginning(sha256(b"x"))):
        assert (await refused(tx, absent, "ZC301")).detail == '{"sha256": null}'
    upload = (await tx.run(beginning("0"))).upload
    await write(tx, upload, 1, b"late")
    made = await tx.run(putting(b"one", "0"))
    for taken in (putting(b"one", "0"), beginning("0"), finish(upload, expect="0"), putting(b"two", sha256(b"two"))):
        error = await refused(tx, taken, "ZC301")
        assert error.detail == f'{{"sha256": "{made.sha256}"}}'
    assert await read(tx, "a") == b"one"
    assert (await stored(tx))[0] == 2  # with the upload in progress
    assert (await tx.run(finish(upload, expect=made.sha256))).sha256 == sha256(b"late")
    await put(tx, "a", b"of a session", session="s", expect="0")
    for malformed in ("", "*", "1", "A" * 64, f'"{made.sha256}"'):
        await refused(tx, putting(b"x", malformed), "ZC103")


async def test_artifacts_of_no_session_go_by_age_if_a_policy_says_so_unless_they_are_kept(tx: Transaction) -> None:
    day = timedelta(days=1)
    await tx.set_clock(timedelta(0))
    for name, session in (("old", None), ("kept", None), ("replaced", None), ("of a session", "s")):
        await put(tx, name, b"x", **({"session": session} if session else {}))
    await tx.run(artifacts.Keep(project="default", artifact="kept"))

    async def work() -> int:
        while await tx.run(retentions.Sweep()):
            pass
        gone = 0
        while results := await tx.run(retentions.ExpireArtifacts(limit=1)):
            gone += sum(result.removed for result in results)
        return gone

    async def due() -> bool:
        return "artifact_expire" in await tx.connection.fetchval("select coordinator.work_due()")

    await tx.set_clock(5000 * day)
    assert (await work(), await due()) == (0, False)
    await put(tx, "replaced", b"new")
    await tx.run(retentions.Set(project="default", subject="artifact", max_age=day))
    forecast = await tx.run(retentions.Preview(project="default"))
    assert ("artifact", "max_age", 1) in [(row.subject, row.reason, row.removed) for row in forecast]
    assert await work() == 1
    assert [(event["type"], event["key"], event["actor"]) for event in await tx.events()][-1] == (
        "artifact.deleted", "old", "coordinator",
    )  # fmt: skip
    await tx.set_clock(5001 * day)
    await put(tx, "young", b"y")
    assert await due()
    assert (await work(), await due()) == (1, False)
    await tx.run(artifacts.Keep(project="default", artifact="kept", kept=False))
    assert await work() == 1
    await tx.run(retentions.Reset(project="default", subject="artifact"))
    await tx.set_clock(5003 * day)
    assert await work() == 0
    assert [row.artifact for row in await tx.run(artifacts.List(project="default"))] == ["of a session", "young"]
