"""Races for one content or one name, each at the very moment when one call waits for the other."""

from __future__ import annotations

import asyncio
import hashlib

import asyncpg
from msgspec.structs import replace

from coordinator.db.call import call
from coordinator.errors import Conflict, NotFound
from coordinator.model.artifact import Artifact
from coordinator.operations import artifacts
from tests.conftest import Open
from tests.sql.test_artifact import USAGE_DIFFERS
from tests.waiting import until_blocked, while_uncommitted

SHA256 = hashlib.sha256(b"same").hexdigest()
COUNT = "select (select count(*) from coordinator.artifact_blobs), (select count(*) from coordinator.artifact_chunks)"


def put(name: str, data: bytes = b"same") -> artifacts.Put:
    return artifacts.Put(project="default", artifact=name, data=data)


async def read(connection: asyncpg.Connection, name: str) -> bytes | None:
    return (await call(connection, artifacts.Part(project="default", artifact=name))).data


async def prune(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "update coordinator.artifact_blobs b set due_at = now()"
        " from (select id from coordinator.artifact_blobs where due_at is not null for update skip locked) free where b.id = free.id"
    )
    while await call(connection, artifacts.Prune()):
        pass


async def test_two_uploads_of_the_same_bytes_that_finish_at_once_are_one(session: Open) -> None:
    one, two, third = [await session() for _ in range(3)]
    uploads = []
    for _ in range(2):  # neither says its hash
        begun = await call(one, artifacts.Begin(project="default", artifact="a"))
        await call(one, artifacts.Write(project="default", upload=begun.upload, number=1, data=b"same"))
        uploads.append(begun.upload)
    first, second = await while_uncommitted(
        one, two, third,
        artifacts.Finish(project="default", upload=uploads[0], artifact="a"),
        artifacts.Finish(project="default", upload=uploads[1], artifact="b"),
    )  # fmt: skip
    assert isinstance(first, Artifact)
    assert isinstance(second, Artifact)
    await prune(third)
    assert tuple(await third.fetchrow(COUNT) or ()) == (1, 1)
    for name in "ab":
        assert await read(third, name) == b"same"


async def test_an_upload_finishes_although_the_equal_content_is_deleted_at_that_moment(session: Open) -> None:
    """It meets the other content by its key, waits for it, and finds it deleted: then it is the first one itself."""
    one, two, third = [await session() for _ in range(3)]
    await call(one, put("a"))
    await call(one, artifacts.Delete(project="default", artifact="a"))
    await one.execute("update coordinator.artifact_blobs set due_at = now()")
    upload = (await call(two, artifacts.Begin(project="default", artifact="b"))).upload
    await call(two, artifacts.Write(project="default", upload=upload, number=1, data=b"same"))
    async with one.transaction():
        await one.execute("select from coordinator.artifact_blobs where finished for update")  # as artifact_prune does
        task = asyncio.create_task(call(two, artifacts.Finish(project="default", upload=upload, artifact="b")))
        await until_blocked(third, two)
        assert await call(one, artifacts.Prune()) == 1
    assert (await task).sha256 == SHA256
    assert tuple(await third.fetchrow(COUNT) or ()) == (1, 1)
    assert await read(third, "b") == b"same"
    assert await third.fetchval(USAGE_DIFFERS) == 0


async def test_only_one_of_two_creates_what_must_not_exist(session: Open) -> None:
    one, two, third = [await session() for _ in range(3)]
    first, second = [replace(put("a", data), expect="0") for data in (b"one", b"two")]
    made, refused = await while_uncommitted(one, two, third, first, second)
    assert isinstance(refused, Conflict)
    assert refused.code == "ZC301"
    assert await read(third, "a") == b"one"
    expecting = [replace(put("a", data), expect=made.sha256) for data in (b"three", b"four")]
    _, refused = await while_uncommitted(one, two, third, *expecting)
    assert isinstance(refused, Conflict)
    assert await read(third, "a") == b"three"


async def test_a_content_that_is_just_being_deleted_is_stored_again(session: Open) -> None:
    one, two, third = [await session() for _ in range(3)]
    await call(one, put("a"))
    await call(one, artifacts.Delete(project="default", artifact="a"))
    await one.execute("update coordinator.artifact_blobs set due_at = now()")
    _, again = await while_uncommitted(one, two, third, artifacts.Prune(), put("b"))
    assert isinstance(again, Artifact)
    assert await read(third, "b") == b"same"


async def test_an_upload_that_is_just_being_deleted_cannot_be_finished(session: Open) -> None:
    one, two, third = [await session() for _ in range(3)]
    upload = (await call(one, artifacts.Begin(project="default", artifact="a", sha256=SHA256))).upload
    await call(one, artifacts.Write(project="default", upload=upload, number=1, data=b"same"))
    await one.execute("update coordinator.artifact_blobs set due_at = now()")
    finish = artifacts.Finish(project="default", upload=upload, artifact="a")
    _, refused = await while_uncommitted(one, two, third, artifacts.Prune(), finish)
    assert isinstance(refused, NotFound)
    assert await call(third, artifacts.List(project="default")) == []


async def test_a_content_that_just_gets_a_name_again_is_not_deleted(session: Open) -> None:
    one, two = await session(), await session()
    await call(one, put("a"))
    await call(one, artifacts.Delete(project="default", artifact="a"))
    async with one.transaction():
        await call(one, put("b"))
        await prune(two)  # skips what the other has
    await prune(two)
    assert await read(two, "b") == b"same"


async def test_many_puts_of_few_names_and_contents_at_once_neither_deadlock_nor_mix(session: Open) -> None:
    connections = [await session() for _ in range(8)]
    contents = [bytes([65 + n]) * 9 for n in range(3)]

    async def work(worker: int) -> None:
        for turn in range(20):
            data = contents[(worker + turn) % 3]
            stored = await call(connections[worker], put(f"n{(worker * turn) % 4}", data))
            assert stored.sha256 == hashlib.sha256(data).hexdigest()
            if turn % 7 == worker % 7:
                await prune(connections[worker])

    await asyncio.gather(*map(work, range(len(connections))))
    await prune(connections[0])
    for artifact in await call(connections[0], artifacts.List(project="default")):
        data = await read(connections[0], artifact.artifact)
        assert hashlib.sha256(data).hexdigest() == artifact.sha256
    assert (await connections[0].fetchrow(COUNT) or ())[0] <= 3
    assert await connections[0].fetchval(USAGE_DIFFERS) == 0
