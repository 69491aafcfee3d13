"""Contents move to an object store and stay readable; nothing is lost or forgotten, wherever it is interrupted."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from datetime import timedelta

import asyncpg
import pytest
from msgspec.structs import replace

from coordinator.config import Config
from coordinator.errors import StoreUnavailable
from coordinator.loops.artifact_objects import DeletingObjects, MovingContents
from coordinator.loops.table import table
from coordinator.model.artifact import Artifact, ArtifactObject
from coordinator.model.operation import complete
from coordinator.objects import ObjectStore
from coordinator.operations import artifacts, transfers
from tests.conftest import Transaction
from tests.fake_s3 import STORE, FakeS3
from tests.sql.refusal import refused

MIB = 1 << 20
DATA = random.Random(3).randbytes(MIB + 7)
SHA256 = hashlib.sha256(DATA).hexdigest()
HOUR = timedelta(minutes=90)  # far more than one, so that a slow machine changes nothing


def loops(store: str = STORE) -> tuple[MovingContents, DeletingObjects]:
    found = table(Config(artifact_store=store))
    (moving,) = [loop for loop in found if isinstance(loop, MovingContents)]
    (deleting,) = [loop for loop in found if isinstance(loop, DeletingObjects)]
    return moving, deleting


async def put(tx: Transaction, name: str = "a", data: bytes = DATA, **fields: str) -> Artifact:
    begun = await tx.run(artifacts.Begin(project="default", artifact=name, sha256=hashlib.sha256(data).hexdigest()))
    for number, start in enumerate(range(0, len(data), MIB), 1):
        part = data[start : start + MIB]
        await tx.run(artifacts.Write(project="default", upload=begun.upload, number=number, data=part))
    return await tx.run(artifacts.Finish(project="default", upload=begun.upload, artifact=name, **fields))


async def read(tx: Transaction, store: str | None = STORE, **fields: object) -> bytes | None:
    part = artifacts.Part(project="default", **{"artifact": "a", **fields})  # type: ignore[arg-type]
    return (await complete(part, await tx.run(part), ObjectStore(Config(artifact_store=store)))).data


async def run_all(tx: Transaction) -> None:
    for loop in loops():
        while (await loop.run(tx)).again_s == 0:
            pass


async def count(tx: Transaction, table: str) -> int:
    return int(await tx.connection.fetchval(f"select count(*) from coordinator.{table}"))


async def due(tx: Transaction) -> set[str]:
    found: list[str] = await tx.connection.fetchval("select coordinator.work_due()")
    return {name for name in found if name.startswith("artifact")}


async def test_a_content_moves_and_reads_as_before(tx: Transaction, fake_s3: FakeS3) -> None:
    before = await put(tx, session="s")
    await put(tx, "empty", b"")
    assert await due(tx) == {"artifact_move"}
    await run_all(tx)
    assert await due(tx) == set()
    assert list(fake_s3.objects.values()) == [DATA]
    assert await count(tx, "artifact_chunks") == 0
    after = await tx.run(artifacts.Show(project="default", artifact="a", session="s"))
    assert after == replace(before, store=STORE)
    assert [row.store for row in await tx.run(artifacts.List(project="default"))] == [STORE, None]
    assert await tx.run(artifacts.List(project="default", session="s")) == [after]
    assert await tx.connection.fetchval("select store from coordinator.artifacts_live where artifact = 'a'") == STORE
    for offset, length in ((0, MIB), (MIB - 2, 5), (MIB, MIB), (len(DATA), 1)):
        assert await read(tx, session="s", offset=offset, length=length) == DATA[offset : offset + length]
    assert await read(tx, artifact="empty") == b""
    assert await tx.connection.fetchval("select coordinator.artifact_read('default', 'empty')") == b""


async def test_what_was_moved_is_found_by_its_hash_and_need_not_be_uploaded_again(
    tx: Transaction, fake_s3: FakeS3
) -> None:
    await put(tx)
    await run_all(tx)
    begun = await tx.run(artifacts.Begin(project="default", artifact="b", sha256=SHA256))
    assert (begun.complete, begun.parts) == (True, [1, 2])
    again = artifacts.Write(project="default", upload=begun.upload, number=2, data=DATA[MIB:])
    assert not await tx.run(again)
    await refused(tx, replace(again, number=3), "ZC336")
    assert (await tx.run(artifacts.Finish(project="default", upload=begun.upload, artifact="b"))).store == STORE
    assert await read(tx, artifact="b", length=9) == DATA[:9]
    await run_all(tx)
    assert len(fake_s3.objects) == 1


async def test_an_object_goes_with_its_content(tx: Transaction, fake_s3: FakeS3) -> None:
    await tx.connection.execute("select coordinator.project_create('other')")
    await put(tx)
    await tx.run(artifacts.Put(project="other", artifact="a", data=b"x"))
    await run_all(tx)
    assert len(fake_s3.objects) == 2
    await tx.connection.execute("select coordinator.project_delete('other')")
    await run_all(tx)
    assert list(fake_s3.objects.values()) == [DATA]
    await tx.run(artifacts.Delete(project="default", artifact="a"))
    await tx.set_clock(HOUR)
    await tx.run(artifacts.Prune())
    assert await due(tx) == {"artifact_object_delete"}
    await run_all(tx)
    assert fake_s3.objects == {}
    assert await count(tx, "artifact_objects") == 0


async def test_a_store_that_fails_leaves_the_content_in_the_database(tx: Transaction, fake_s3: FakeS3) -> None:
    await put(tx)
    moving, _ = loops()
    for minutes, method in enumerate(("PUT", "GET", "HEAD")):
        await tx.set_clock(timedelta(minutes=2 * minutes))
        with fake_s3.failing(method), pytest.raises(StoreUnavailable) as raised:
            await moving.run(tx)
        assert raised.value.hint
        assert await read(tx, store=None, length=9) == DATA[:9]
    await tx.set_clock(timedelta(minutes=30))
    status = await tx.connection.fetchval("select warnings from coordinator.status_show('default')")
    assert any(STORE in warning for warning in status)
    await run_all(tx)
    assert len({key for _, key in fake_s3.requests}) == 1  # each attempt writes the same object
    assert await count(tx, "artifact_chunks") == 0


async def test_a_content_that_cannot_be_moved_keeps_no_other_one_waiting(tx: Transaction, fake_s3: FakeS3) -> None:
    await put(tx, "damaged")
    await put(tx, "sound", b"other")
    await tx.connection.execute("update coordinator.artifact_chunks set data = 'x' where length(data) > 5")
    moving, _ = loops()
    await tx.set_clock(timedelta())  # a second later, the first content has its turn again
    with pytest.raises(StoreUnavailable):
        await moving.run(tx)
    assert (await moving.run(tx)).handled == 1
    assert (await moving.run(tx)).again_s is None
    await tx.set_clock(timedelta(minutes=2))
    with pytest.raises(StoreUnavailable):
        await moving.run(tx)


async def test_an_object_with_other_bytes_takes_the_place_of_nothing(
    tx: Transaction, fake_s3: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(tx)
    moving, _ = loops()
    write = ObjectStore.write

    async def corrupted(self: ObjectStore, key: str, parts: list[bytes]) -> None:
        await write(self, key, [b"X" + parts[0][1:], *parts[1:]])

    monkeypatch.setattr(ObjectStore, "write", corrupted)
    with pytest.raises(StoreUnavailable, match="other bytes"):
        await moving.run(tx)
    assert await count(tx, "artifact_chunks") == 2


async def test_reads_of_what_was_moved_fail_with_a_hint_that_says_how_to_mend_it(
    tx: Transaction, fake_s3: FakeS3
) -> None:
    await put(tx)
    await run_all(tx)
    with fake_s3.failing("GET"), pytest.raises(StoreUnavailable) as down:
        await read(tx)
    for store in (None, "s3://other/prefix"):
        with pytest.raises(StoreUnavailable) as elsewhere:
            await read(tx, store)
        assert elsewhere.value.code == "ZC801"
        assert f"COORDINATOR_ARTIFACT_STORE={STORE}" in (elsewhere.value.hint or "")
    fake_s3.objects.clear()
    with pytest.raises(StoreUnavailable) as gone:
        await read(tx)
    assert (down.value.code, gone.value.code) == ("ZC800", "ZC802")
    with pytest.raises(asyncpg.PostgresError, match="are in the object store") as sql:
        async with tx.connection.transaction():
            await tx.connection.fetchval("select coordinator.artifact_read('default', 'a')")
    assert sql.value.sqlstate == "ZC801"


async def begun(tx: Transaction) -> ArtifactObject:
    (found,) = await tx.run(artifacts.Move(store=STORE))
    return found


async def test_a_writer_that_comes_too_late_cannot_use_an_object_that_is_being_deleted(
    tx: Transaction, fake_s3: FakeS3
) -> None:
    await put(tx)
    late = await begun(tx)
    await tx.set_clock(HOUR)
    assert [o.object for o in await tx.run(artifacts.DeleteObjects(store=STORE))] == [late.object]
    assert not await tx.run(artifacts.Moved(object=late.object))
    assert await count(tx, "artifact_chunks") == 2
    again = await begun(tx)
    assert again.key != late.key
    assert await tx.run(artifacts.Moved(object=again.object))
    assert not await tx.run(artifacts.Moved(object=again.object))
    assert await tx.run(artifacts.DeletedObjects(objects=[late.object, again.object])) == 1


async def test_a_content_that_goes_while_it_moves_leaves_an_object_that_is_deleted_an_hour_later(
    tx: Transaction, fake_s3: FakeS3
) -> None:
    await put(tx)
    found = await begun(tx)
    await tx.connection.execute("delete from coordinator.artifact_blobs")
    assert await tx.run(artifacts.Chunk(object=found.object, number=1)) is None
    assert not await tx.run(artifacts.Moved(object=found.object))
    assert await tx.run(artifacts.DeleteObjects(store=STORE)) == []  # a request may be on its way
    await tx.set_clock(HOUR)
    assert [o.key for o in await tx.run(artifacts.DeleteObjects(store=STORE))] == [found.key]
    assert await tx.run(artifacts.DeleteObjects(store=STORE)) == []
    await tx.set_clock(HOUR + timedelta(minutes=1))  # that deletion failed
    assert [o.key for o in await tx.run(artifacts.DeleteObjects(store=STORE))] == [found.key]


async def test_with_another_store_contents_move_there_and_the_old_objects_wait_for_the_old_one(
    tx: Transaction, fake_s3: FakeS3
) -> None:
    await put(tx)
    old = await begun(tx)
    (new,) = await tx.run(artifacts.Move(store="s3://new"))
    assert new.key != old.key
    assert not await tx.run(artifacts.Moved(object=old.object))
    assert await tx.run(artifacts.Moved(object=new.object))
    await tx.set_clock(HOUR)
    assert await tx.run(artifacts.DeleteObjects(store="s3://new")) == []
    assert [o.object for o in await tx.run(artifacts.DeleteObjects(store=STORE))] == [old.object]


async def test_an_export_has_the_bytes_of_a_store_as_it_has_those_of_the_database(
    tx: Transaction, fake_s3: FakeS3
) -> None:
    await put(tx)
    await put(tx, "b", b"small")

    async def exported() -> list[str]:
        lines: list[str] = []
        export = transfers.Export(project="default", limit=1000)
        while True:
            page = await tx.run(export)
            found = await complete(export, page, ObjectStore(Config(artifact_store=STORE)))
            lines += [row.line for row in found]
            if not getattr(found, "cut", False):
                return lines[1:]
            last = found[-1]
            export = replace(export, after=[str(last.section), last.kind, last.key, str(last.number)])

    before = await exported()
    await run_all(tx)
    assert await exported() == before
    parts = [json.loads(line) for line in before if json.loads(line)["type"] == "part"]
    assert {base64.b64decode(part["data"]) for part in parts} == {DATA[:MIB], DATA[MIB:], b"small"}
