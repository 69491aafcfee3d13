"""The wait between two attempts."""

from __future__ import annotations

import anyio
import pytest

from coordinator.backoff import Backoff


@pytest.fixture
def slept_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    return slept


async def test_waits_double_up_to_the_maximum_and_are_shortened_by_at_most_a_half(slept_s: list[float]) -> None:
    backoff = Backoff(1.0, 5.0)
    whole = []
    for _ in range(5):
        whole.append(backoff.next_s)
        await backoff.wait()
    assert whole == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert all(w / 2 <= s <= w for s, w in zip(slept_s, whole, strict=True))
    assert len({s / w for s, w in zip(slept_s, whole, strict=True)}) > 1


async def test_a_success_begins_again_with_the_first_wait(slept_s: list[float]) -> None:
    backoff = Backoff(1.0)
    await backoff.wait()
    backoff.reset()
    await backoff.wait()
    assert slept_s[1] <= 1.0
