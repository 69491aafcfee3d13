"""What listens hears the one reader of the log of its process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from coordinator.api.gateway import Gateway
from coordinator.api.principal import Principal
from coordinator.db.database import Database
from coordinator.errors import Unauthenticated
from coordinator.mcp.changes import NewestChange, ResourceChanges
from tests.api.test_gateway import emit, running

A, B, ALL = (f"coordinator://default/signals{end}" for end in ("/a", "/b", ""))


def changes(gateway: Gateway, *wanted: str, principal: Principal | None = None) -> ResourceChanges:
    return ResourceChanges(gateway, NewestChange(), principal or Principal(), "default", wanted)


async def test_changes_since_it_listened_are_reported_once_for_each_uri_until_the_process_closes(db: Database) -> None:
    async with running(db) as gateway:
        await emit(db, "a")
        async with changes(gateway, A, ALL).listening() as changed, changes(gateway, B).listening() as others:
            await emit(db, "b", "b")
            assert await anext(changed) == ALL
            assert await anext(others) == B
            await emit(db, "a")
            assert [await anext(changed), await anext(changed)] == [ALL, A]
            gateway.close()
            assert [uri async for uri in changed] == []
            assert [uri async for uri in others] == []
        assert gateway._groups == {}


async def test_where_events_may_be_missing_everything_may_have_changed(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def publish(*_: Any) -> None:
        raise ZeroDivisionError

    async with running(db) as gateway, changes(gateway, A, B).listening() as changed:
        monkeypatch.setattr(Gateway, "_publish", publish)
        await emit(db, "elsewhere")
        assert {await anext(changed), await anext(changed)} == {A, B}


async def test_it_ends_when_its_token_does(db: Database) -> None:
    ends: list[Callable[[], None]] = []

    class Revocable(Principal):
        @contextmanager
        def watching(self, on_end: Callable[[], None]) -> Iterator[None]:
            ends.append(on_end)
            yield

    async with running(db) as gateway, changes(gateway, A, principal=Revocable()).listening() as changed:
        await emit(db, "a")
        assert await anext(changed) == A
        ends[0]()
        with pytest.raises(Unauthenticated):
            await anext(changed)
