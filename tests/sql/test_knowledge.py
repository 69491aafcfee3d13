from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from coordinator.operations import documents, knowledge, projects
from tests.conftest import Transaction
from tests.sql.refusal import refused

P = "default"


def put(key: str = "runbooks/rollback", content: str = "Run it.", **fields: Any) -> knowledge.Put:
    return knowledge.Put(**{"project": P, "key": key, "content": content, **fields})


async def test_an_entry_is_put_read_listed_and_deleted(tx: Transaction) -> None:
    made = await tx.run(
        put(title="Roll back", source_type="file", source_url="docs/a.md", metadata={"n": [1]}, actor="coder")
    )
    assert (made.title, made.content, made.source_type, made.source_url) == (
        "Roll back",
        "Run it.",
        "file",
        "docs/a.md",
    )
    assert (made.metadata, made.language, made.version, made.actor) == ({"n": [1]}, "english", 1, "coder")
    assert await tx.run(knowledge.Get(project=P, key=made.key)) == made
    changed = await tx.run(put(content="Run it twice."))
    assert (changed.version, changed.title, changed.metadata) == (2, made.key, {})
    assert changed.created_at == made.created_at
    assert await tx.run(knowledge.List(project=P)) == [changed]
    (row,) = await tx.connection.fetch("select title, content, source_type, version from coordinator.knowledge_entries")
    assert tuple(row) == (made.key, "Run it twice.", None, 2)
    assert await tx.run(knowledge.Delete(project=P, key=made.key)) is True
    assert await tx.run(knowledge.List(project=P)) == []
    for call in (knowledge.Get(project=P, key=made.key), knowledge.Delete(project=P, key=made.key)):
        assert "document restore knowledge" in ((await refused(tx, call, "ZC222")).hint or "")


async def test_an_expected_version_must_be_there(tx: Transaction) -> None:
    made = await tx.run(put(expect=0))
    await refused(tx, put(expect=0), "ZC301")
    await refused(tx, put(expect=2), "ZC301")
    await refused(tx, put(expect=1, epoch="00000000"), "ZC301")
    await refused(tx, knowledge.Delete(project=P, key=made.key, expect=7), "ZC301")
    changed = await tx.run(put(expect=made.version, epoch=made.epoch))
    assert await tx.run(knowledge.Delete(project=P, key=made.key, expect=changed.version, epoch=changed.epoch))


async def test_an_entry_that_does_not_exist_is_not_found_and_the_one_that_was_meant_is_named(tx: Transaction) -> None:
    await tx.run(put())
    error = await refused(tx, knowledge.Get(project=P, key="runbook/rollback"), "ZC222")
    assert (error.hint or "").startswith('Did you mean "runbooks/rollback"?')
    await refused(tx, knowledge.Get(project=P, key="x" * 500), "ZC222")


async def test_entries_are_listed_by_when_they_were_put(tx: Transaction) -> None:
    for key in ("b", "a", "c", "b"):
        await tx.run(put(key))
    assert [entry.key for entry in await tx.run(knowledge.List(project=P))] == ["b", "c", "a"]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"content": ""}, "ZC101"),
        ({"title": ""}, "ZC101"),
        ({"title": "a\nb"}, "ZC103"),
        ({"source_type": ""}, "ZC101"),
        ({"key": ""}, "ZC101"),
        ({"metadata": [1]}, "ZC105"),
        ({"content": "\u20ac" * 400_000}, "ZC102"),
    ],
    ids=lambda part: str(part)[:30],
)
async def test_bad_input_is_refused(tx: Transaction, fields: dict[str, Any], code: str) -> None:
    await refused(tx, put(**fields), code)


@pytest.mark.parametrize(
    "value", [b"1", b"{}", b'{"title": "t", "content": 1, "language": "english", "metadata": {}}', b'{"title": "t", "content": "c", "language": "english"}',
              b'{"title": "t", "content": "c", "language": "english", "metadata": {}, "source_url": 1}'],
)  # fmt: skip
async def test_a_document_that_is_not_an_entry_is_refused(tx: Transaction, value: bytes) -> None:
    await refused(tx, documents.Put(project=P, kind="knowledge", key="k", value=Raw(value)), "ZC105")


async def test_projects_have_knowledge_of_their_own(tx: Transaction) -> None:
    await tx.run(projects.Create(project="other"))
    await tx.run(put())
    assert await tx.run(knowledge.Search(project="other", words="run")) == []
    assert await tx.run(knowledge.List(project="other")) == []
    await refused(tx, knowledge.Get(project="other", key="runbooks/rollback"), "ZC222")
