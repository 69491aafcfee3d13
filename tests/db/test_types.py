"""A call needs no query for the types of its parameters and results: the driver makes one for each connection, which takes longer than most calls."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NoReturn
from uuid import uuid4

import asyncpg
import pytest

from coordinator.db.connection import connect

TYPES = """
select distinct t.typname::text
from pg_proc p
cross join unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]) || p.prorettype) given
join pg_type t on t.oid = given and t.typnamespace = 'pg_catalog'::regnamespace
where p.pronamespace = 'coordinator'::regnamespace and t.typtype = 'b'
"""
VALUES: dict[str, list[Any]] = {
    "_bool": [True, False],
    "_float8": [0.1],
    "_int4": [[1, 2], [3, 4]],
    "_int8": [2**62],
    "_interval": [timedelta(seconds=1)],
    "_jsonb": [{"a": [1]}],
    "_text": ["a", None],
    "_uuid": [uuid4(), None],
    "_xid8": [2**40],
}


async def test_the_driver_asks_for_no_type_of_a_function(shared_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def asked(_: object, oids: object, __: object) -> NoReturn:
        pytest.fail(f"the driver asks the server for types {oids}: add them to _ARRAYS")

    connection = await connect(shared_url)
    try:
        types = await connection.fetch(TYPES)
        monkeypatch.setattr(asyncpg.Connection, "_introspect_types", asked)
        for (name,) in types:
            value = VALUES.get(name)
            assert await connection.fetchval(f"select $1::{name}", value) == value, name
    finally:
        await connection.close()
