from __future__ import annotations

import pytest

import coordinator
from coordinator.errors import Conflict
from tests.conftest import admin
from tests.daemon import opened
from tests.sql.test_audit import copy


async def test_a_trail_is_listed_verified_and_chosen(database_url: str) -> None:
    async with coordinator.connect(database_url, agent="boss") as client:
        assert (await client.audits.set(["signal.*"])).topics == ["signal.*"]
        for value in range(3):
            await client.signals.set("k", value)
        assert (await client.audits.reset()).is_default
        assert (await client.audits.show()).behind == 0, "they have no number yet"
        async with opened(database_url) as connection:
            await copy(connection)
        entries = [entry async for entry in client.audits.list(actors=["boss"], topics=["signal.set"], limit=2)]
        assert [entry.data["event"]["data"]["value"] for entry in entries] == [0, 1, 2]
        told: list[tuple[int, int]] = []
        head = await client.audits.verify(progress=lambda *counts: told.append(counts))
        assert head == (await client.audits.show()).head
        assert told[-1] == (5, 5)
        assert await client.audits.verify(head) == head
        assert await client.audits.list(gone=True) == []
        assert (await client.audits.verify(gone=True)).seq == 0
        await admin(database_url, "delete from coordinator.entries where hash is not null and seq = 2")
        with pytest.raises(Conflict, match="entry 2 is missing"):
            await client.audits.verify()
