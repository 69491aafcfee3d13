"""Artifacts of 32 MiB, in and out, compared with a large object through the same driver: text and random bytes.

Both move parts of 1 MiB over one connection, one after the other. A large object is written and read in a transaction; nothing verifies it.
An artifact is one transaction for each part, is verified by its SHA-256 at the end, and replaces the one of its name.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median

import asyncpg

from bench.place import Options, fresh
from bench.report import Table, load
from coordinator.db.single import Single
from coordinator.operations import artifacts
from coordinator.operations.transfer import PART_BYTES, download, upload

__all__ = ["run"]

MIB = 32
TARGET = 0.8  # of large objects
WRITE = 0x20000
READ = 0x40000

Timed = Callable[[], Awaitable[None]]


async def run(options: Options) -> AsyncIterator[Table]:
    """Compare in turns, each with bytes that it has not stored before."""
    rows, notes = [], []
    async with fresh(options) as place:
        connection = await place.connect()
        for kind, make in (("text", _text), ("random", _random)):
            seconds: dict[str, list[float]] = {}
            for number in range(options.rounds):
                data = make(number)
                sides = _artifact(connection, data), _large_object(connection, data)
                for side in sides if number % 2 else reversed(sides):
                    for what, act in side.items():
                        began = time.perf_counter()
                        await act()
                        seconds.setdefault(what, []).append(time.perf_counter() - began)
            rate = {what: MIB / median(taken) for what, taken in seconds.items()}
            for way in ("in", "out"):
                ratio = rate[f"artifact {way}"] / rate[f"large object {way}"]
                verdict = f"≥ {TARGET}: {'met' if ratio >= TARGET else 'MISSED'}"
                mine, theirs = rate[f"artifact {way}"], rate[f"large object {way}"]
                rows.append([kind, way, f"{mine:.0f}", f"{theirs:.0f}", f"{ratio:.2f}", verdict])
            finishing = MIB / rate["artifact finish"]
            notes.append(
                f"{kind}: of the time in, artifact_finish takes {finishing * 1000:.0f} ms; it computes the SHA-256."
            )
        await connection.close()
    notes.append(f"Medians of {options.rounds} rounds in turns, in MiB/s; load average at the end {load():.1f}.")
    yield Table(
        f"Artifacts of {MIB} MiB beside large objects",
        ["bytes", "way", "artifact", "large object", "ratio", "target"],
        rows,
        notes,
    )


def _text(number: int) -> bytes:
    words = [f"word{n} " for n in range(200)]
    generator = random.Random(number)
    return "".join(generator.choices(words, k=6 * PART_BYTES)).encode()[: MIB * PART_BYTES]


def _random(number: int) -> bytes:
    return random.Random(number).randbytes(MIB * PART_BYTES)


def _artifact(connection: asyncpg.Connection, data: bytes) -> dict[str, Timed]:
    single = Single(connection)
    begin = artifacts.Begin(
        project="default", artifact="bench", bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), PART_BYTES):
            yield data[start : start + PART_BYTES]

    async def put() -> None:
        await upload(single, begin, pieces(), resume=True)

    async def get() -> None:
        found = await single.run(artifacts.Show(project="default", artifact="bench"))
        async for _part in download(single, found):
            pass

    async def finish() -> None:
        """Verify as artifact_finish does."""
        await connection.fetchval(
            "select v.sha256 from coordinator.artifacts a, coordinator.artifact_verify(a.blob_id, a.bytes, a.sha256) v"
        )

    return {"artifact in": put, "artifact out": get, "artifact finish": finish}


def _large_object(connection: asyncpg.Connection, data: bytes) -> dict[str, Timed]:
    oids: list[int] = []

    async def put() -> None:
        async with connection.transaction():
            oids.append(await connection.fetchval("select lo_create(0)"))
            handle = await connection.fetchval("select lo_open($1, $2)", oids[0], WRITE)
            for start in range(0, len(data), PART_BYTES):
                await connection.execute("select lowrite($1, $2)", handle, data[start : start + PART_BYTES])

    async def get() -> None:
        async with connection.transaction():
            handle = await connection.fetchval("select lo_open($1, $2)", oids[0], READ)
            while await connection.fetchval("select loread($1, $2)", handle, PART_BYTES):
                pass
        await connection.execute("select lo_unlink($1)", oids[0])

    return {"large object in": put, "large object out": get}
