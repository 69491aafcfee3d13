from __future__ import annotations

import random
from typing import Any

import pytest

from coordinator.errors import Conflict, InvalidArgument, NotFound
from tests.daemon import Daemon


@pytest.fixture(params=["postgresql", "http"])
def url(request: pytest.FixtureRequest, daemon: tuple[Daemon, str]) -> str:
    return daemon[1] if request.param == "postgresql" else daemon[0].url


async def test_lessons_and_knowledge_are_kept_found_and_removed(connect: Any) -> None:
    async with connect(agent="coder") as client:
        made = await client.memories.record(
            "Run the migrations first.", context="tests", scope="web", embedding=[0.25, -1.5]
        )
        assert (made.actor, made.scope, made.confidence) == ("coder", "web", 50)
        assert (
            await client.memories.record("Run the migrations first.", context="tests", scope="web")
        ).reinforcements == 2
        new = await client.memories.supersede(made.memory_id, "The migrations run automatically.", confidence=90)
        assert [match.lesson async for match in client.memories.search("migrations", scope="web")] == [new.lesson]
        assert len(await client.memories.search("migrations", superseded=True)) == 2
        assert [memory.memory_id for memory in await client.memories.list()] == [new.memory_id]
        assert (await client.memories.get(made.memory_id)).superseded_by == new.memory_id
        assert await client.memories.forget(new.memory_id)
        with pytest.raises(NotFound):
            await client.memories.get(new.memory_id)
        with pytest.raises(InvalidArgument) as missing:
            await client.memories.search(embedding=[random.uniform(-1, 1) for _ in range(1536)])
        assert "create extension vector" in (missing.value.hint or "")

        entry = await client.knowledge.put(
            "a/b c?", "A text about releases.", metadata={"team": "core", "n": 1.5}, source_type="url"
        )
        assert entry == await client.knowledge.get("a/b c?")
        with pytest.raises(Conflict):
            await client.knowledge.put("a/b c?", "x", expect=0)
        for number in range(5):
            await client.knowledge.put(f"k{number}", f"release {number}")
        assert [
            match.key async for match in client.knowledge.search("release", metadata={"team": "core", "n": 1.5})
        ] == ["a/b c?"]
        page = await client.knowledge.search("release", limit=4)
        rest = await client.knowledge.search("release", limit=4, after=page.cursor)
        assert len({match.key for match in [*page, *rest]}) == 6
        page = await client.knowledge.list(limit=4)
        assert len({one.key for one in [*page, *await client.knowledge.list(limit=4, after=page.cursor)]}) == 6
        assert await client.knowledge.delete("a/b c?", expect=entry)
        with pytest.raises(NotFound):
            await client.knowledge.get("a/b c?")


@pytest.mark.parametrize(
    "text",
    ["\x01", "'; drop table x; --", "\x1b[31m\u202e", "%00&a=b#c?d", '"\\u0000"', "\ufffd\U0001f600\r\n\t", "<b>&lt;"],
)
async def test_hostile_text_is_returned_unchanged(connect: Any, text: str) -> None:
    async with connect() as client:
        made = await client.memories.record(f"needle {text}", context=text)
        assert (made.lesson, made.context) == (f"needle {text}", text)
        assert [match.lesson async for match in client.memories.search(f"needle {text}", limit=1)] in (
            [made.lesson],
            [],
        )
        assert [match.lesson async for match in client.memories.search("needle")] == [made.lesson]
        entry = await client.knowledge.put("k", f"needle {text}", metadata={"x": text, text: 1})
        assert (entry.content, entry.metadata) == (f"needle {text}", {"x": text, text: 1})
        assert [match.key async for match in client.knowledge.search("needle", metadata={"x": text, text: 1})] == ["k"]
