"""Durations in messages are written as people write them, and as every interface reads them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from coordinator.errors import InvalidArgument
from coordinator.model import duration
from coordinator.operations import agents, signals
from tests.conftest import Transaction


@pytest.mark.parametrize("text", ["0s", "0.5s", "1s", "59s", "1m", "1m30s", "1h", "1d", "1d1s", "366d", "2d3h4m5.25s"])
async def test_a_duration_is_written_as_it_can_be_given(tx: Transaction, text: str) -> None:
    length = duration.parse(text)
    assert await tx.connection.fetchval("select coordinator.duration_text($1)", length) == text
    if length:
        assert await tx.connection.fetchval("select coordinator.duration_text(-$1::interval)", length) == f"-{text}"


async def test_a_ttl_out_of_range_is_named_with_its_limits(tx: Transaction) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await tx.run(signals.Set(project="default", key="k", value=1, ttl=timedelta(milliseconds=500)))
    assert (refused.value.message, refused.value.hint) == ("a TTL of 0.5s is out of range", "Give 1s to 366d.")
    with pytest.raises(InvalidArgument) as refused:
        await tx.run(agents.Register(project="default", name="a", ttl=timedelta(hours=36)))
    assert (refused.value.message, refused.value.hint) == ("a TTL of 1d12h is out of range", "Give 1s to 1d.")
