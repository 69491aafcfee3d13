"""Races of messages: the result of a tool is appended while its call is not committed yet."""

from __future__ import annotations

import pytest

from coordinator.db.call import call
from coordinator.model.json import text_of
from coordinator.operations import messages
from tests.conftest import Open
from tests.waiting import while_uncommitted


def append(data: object) -> messages.Append:
    return messages.Append(project="default", session="s", content=text_of(data))


@pytest.mark.parametrize("commit", [True, False])
async def test_a_result_waits_for_its_call_and_needs_it_if_it_was_appended(session: Open, commit: bool) -> None:
    one, two, watcher = await session(), await session(), await session()
    await call(one, append({"role": "user", "content": "x"}))
    await while_uncommitted(
        one,
        two,
        watcher,
        append({"role": "assistant", "tool_calls": [{"id": "c"}]}),
        append({"role": "tool", "tool_call_id": "c"}),
        commit=commit,
    )
    rows = await call(one, messages.Window(project="default", session="s", last=10))
    assert [(row.seq, row.needs) for row in rows] == [(1, None), *([(2, None), (3, 2)] if commit else [(2, None)])]
