"""Documents after the database continued from an earlier state: what was read before never matches what was written after."""

from __future__ import annotations

from uuid import uuid4

import pytest

from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.errors import Conflict
from tests.conftest import admin, with_database
from tests.sql.test_document import get, put, read_as


async def test_what_was_read_before_a_restore_never_matches_what_was_written_after(
    server_url: str, database_url: str
) -> None:
    before = await connect(database_url)
    await call(before, put({"n": 1}))
    source = await before.fetchval("select current_database()")
    await before.close()
    name = f"restored_{uuid4().hex[:8]}"
    await admin(server_url, f"create database {name} template {source}")
    lost, restored = await connect(database_url), await connect(with_database(server_url, name))
    try:
        await call(lost, put({"n": "lost"}))
        read = await call(lost, get())
        await call(restored, put({"n": "other"}))
        again = await call(restored, get())
        assert (read.version, again.version) == (2, 2)
        assert read.epoch != again.epoch
        with pytest.raises(Conflict) as raised:
            await call(restored, put({"n": 3}, **read_as(read)))
        assert "earlier state" in (raised.value.hint or "")
        assert (await call(restored, put({"n": 3}, **read_as(again)))).version == 3
    finally:
        await lost.close()
        await restored.close()
        await admin(server_url, f"drop database {name} with (force)")
