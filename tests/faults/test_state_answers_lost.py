"""The connection breaks after the server has stored a write, before its answer: the writer repeats it, and it is stored once."""

from __future__ import annotations

import pytest

import coordinator
from coordinator.errors import Conflict, DatabaseUnavailable
from coordinator.model.log import NewEntry
from tests.faults.proxy import Proxy


async def test_an_append_whose_answer_was_lost_is_repeated_with_its_uids_and_stored_once(database_url: str) -> None:
    batch = [NewEntry({"n": 1}, uid="a"), NewEntry({"n": 2}, uid="b")]
    async with Proxy(database_url).serving() as network, coordinator.connect(network.url) as client:
        await client.logs.append("note", "k", 0)  # the statement is prepared
        network.lose_answer()
        with pytest.raises(DatabaseUnavailable):
            await client.logs.append("note", "k", *batch)
        again = await client.logs.append("note", "k", *batch)
        assert (again.appended, again.last_seq) == (0, 3)
        assert [entry.data async for entry in client.logs.read("note", "k")] == [0, {"n": 1}, {"n": 2}]
        with pytest.raises(Conflict):
            await client.logs.append("note", "k", NewEntry({"n": 3}, uid="b"))


async def test_a_put_whose_answer_was_lost_is_refused_when_it_is_repeated_with_the_version_it_expects(
    database_url: str,
) -> None:
    async with Proxy(database_url).serving() as network, coordinator.connect(network.url) as client:
        first = await client.documents.put("plan", "k", {"step": 1}, expect=0)
        network.lose_answer()
        with pytest.raises(DatabaseUnavailable):
            await client.documents.put("plan", "k", {"step": 2}, expect=first.version)
        with pytest.raises(Conflict):
            await client.documents.put("plan", "k", {"step": 2}, expect=first.version)
        found = await client.documents.get("plan", "k")
        assert (found.version, found.value) == (2, {"step": 2})
