"""The state of an agent outlives everything: between its steps, daemon and database are killed and started again."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import coordinator
from coordinator import embedded
from coordinator.client import Client
from tests.daemon import Daemon
from tests.faults.plane import IMMEDIATE, SETTINGS, restart

SESSION = "chat/7"
MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the weather in Paris?"},
    {"role": "assistant", "content": None, "tool_calls": [{"id": "call_1", "type": "function"}]},
    {"role": "tool", "tool_call_id": "call_1", "content": "Rain"},
    {"role": "assistant", "content": "It rains."},
]
MORE = [{"role": "user", "content": "And tomorrow?"}, {"role": "assistant", "content": "Sun."}]
ITEMS = [{"id": 1, "status": "PENDING"}, {"id": 2, "status": "PENDING"}]
Step = Callable[[Client], Awaitable[Any]]


async def begin(client: Client) -> None:
    await client.sessions.create(SESSION, title="Weather")
    await client.todos.save("plan", ITEMS, session=None)


async def converse(client: Client) -> None:
    assert (await client.sessions.show(SESSION)).title == "Weather"
    for number, message in enumerate(MESSAGES):
        receipt = await client.messages.extend(SESSION, message, expect=number or None)
        assert receipt.last_seq == number + 1


async def load(client: Client) -> None:
    assert [message.data for message in await client.messages.window(SESSION, last=100, complete=True)] == MESSAGES


async def ask(client: Client) -> None:
    (last,) = await client.messages.window(SESSION, last=1)
    await client.messages.extend(SESSION, *MORE, expect=last)


async def save(client: Client) -> None:
    window = await client.messages.window(SESSION, turns=1)
    assert [message.data for message in window] == MORE
    await client.states.save(SESSION, {"step": 2, "seen": window[-1].seq})
    await client.memories.record("Paris is rainy in November.", context="weather")


async def do(client: Client) -> None:
    assert (await client.states.load(SESSION)).value == {"step": 2, "seen": 7}
    await client.todos.item("plan", 1, {"status": "COMPLETED"})


async def recall(client: Client) -> None:
    assert (await client.todos.load("plan")).value == [{"id": 1, "status": "COMPLETED"}, ITEMS[1]]
    assert [found.lesson for found in await client.memories.search("rainy")] == ["Paris is rainy in November."]
    assert [message.data async for message in client.messages.list(SESSION)] == MESSAGES + MORE


STEPS = (begin, converse, load, ask, save, do, recall)


@pytest.mark.parametrize("cuts", [2, pytest.param(len(STEPS) - 1, marks=pytest.mark.long)])
async def test_everything_is_killed_between_the_steps_of_an_agent_and_nothing_is_lost(
    data_dir: Path, cuts: int, seed: int
) -> None:
    after = random.Random(seed).sample(STEPS[:-1], cuts)
    left = [*STEPS]
    async with embedded.run(data_dir, settings=SETTINGS) as server:
        while left:
            with await Daemon(server.dsn).ready() as daemon:
                async with coordinator.connect(daemon.url) as client:
                    while left:
                        step = left.pop(0)
                        await step(client)
                        if step in after:
                            break
                daemon.kill()
            if left:
                await restart(server, IMMEDIATE)
