from __future__ import annotations

from typing import Any, TypeVar, cast

import anyio
import pytest
from msgspec.structs import replace

from coordinator.db.database import Database
from coordinator.db.session import SessionWake
from coordinator.model.json import text_of
from coordinator.model.operation import Operation
from coordinator.operations import logs, waiting
from coordinator.operations.events import Since
from coordinator.operations.waiting import until_answered
from tests.waiting import DEADLINE_S

R = TypeVar("R")


class Restored:
    """A database whose log of events no longer continues the position of its reader, once the reader waits."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._reads = 0

    async def run(self, operation: Operation[R]) -> R:
        if isinstance(operation, Since):
            self._reads += 1
            if self._reads > 1:  # the event of this append is lost, because the reader gets a reset
                await self._database.run(
                    logs.Append(project="default", kind="note", key="k", entries=text_of([{"data": 1}]))
                )
                operation = replace(cast("Any", operation), after="elsewhere.7")
        return await self._database.run(operation)


async def test_a_reset_of_the_log_of_events_ends_a_wait_since_any_event_may_be_lost(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "POLL_S", 3600)
    read = logs.Read(project="default", kind="note", key="k")
    with anyio.fail_after(DEADLINE_S):
        entries = await until_answered(Restored(db), read, SessionWake(), None)
    assert [entry.data for entry in entries] == [1]
