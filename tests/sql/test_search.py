"""Search: what is found, in which order, and in whose project; the same for memories and knowledge."""

from __future__ import annotations

from datetime import timedelta
from hashlib import sha256
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from coordinator.errors import InvalidArgument
from coordinator.model.knowledge import KnowledgeEntry, KnowledgeMatch
from coordinator.model.page import walk
from coordinator.operations import documents, knowledge, memories, projects
from tests.conftest import Transaction
from tests.sql.refusal import refused

P = "default"


async def put(tx: Transaction, key: str, content: str, **fields: Any) -> KnowledgeEntry:
    return await tx.run(knowledge.Put(**{"project": P, "key": key, "content": content, **fields}))


async def search(tx: Transaction, words: str | None, **fields: Any) -> list[KnowledgeMatch]:
    return await tx.run(knowledge.Search(**{"project": P, "words": words, **fields}))


async def keys(tx: Transaction, words: str | None, **fields: Any) -> list[str]:
    return [match.key for match in await search(tx, words, **fields)]


async def test_words_are_found_in_title_and_content_and_those_of_the_title_count_more(tx: Transaction) -> None:
    await put(tx, "a", "How to roll back a release.", title="Deploying")
    await put(tx, "b", "Call the manager.", title="A release that failed")
    await put(tx, "c", "Nothing of the kind.")
    found = await search(tx, "releases")
    assert [match.key for match in found] == ["b", "a"]
    assert found[0].rank > found[1].rank > 0
    assert found[1].snippet == "How to roll back a **release**."
    assert not found[0].partial


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("red apple", ["both"]),
        ("red or apple", ["both", "one", "other"]),
        ('"red apple"', ["both"]),
        ('"apple red"', []),
        ("red -apple", ["one"]),
        ("-apple", ["one"]),
        ("apples", ["both", "other"]),
        ("pear", []),
        ("red & | ! ) ( <-> :*", ["both", "one"]),
        ("'red", ["both", "one"]),
        ("\x01red\x01", ["both", "one"]),
    ],
)
async def test_words_are_as_in_a_web_search(tx: Transaction, words: str, expected: list[str]) -> None:
    await put(tx, "both", "a red apple")
    await put(tx, "one", "a red car")
    await put(tx, "other", "a green apple")
    assert sorted(await keys(tx, words)) == expected


async def test_a_search_without_words_is_refused(tx: Transaction) -> None:
    for words in ("", None):
        await refused(tx, knowledge.Search(project=P, words=words), "ZC101")
    error = await refused(tx, knowledge.Search(project=P, words="the of"), "ZC101")
    assert "english" in (error.hint or "")
    assert await search(tx, "the of", language="simple") == []


async def test_each_text_has_a_language_and_so_has_each_search(tx: Transaction) -> None:
    await put(tx, "en", "The houses are burning.")
    await put(tx, "de", "Die Häuser brennen.", language="german")
    assert await keys(tx, "house") == ["en"]
    assert await keys(tx, "Haus", language="german") == ["de"]
    assert await keys(tx, "Häusern brennen", language="german") == ["de"]
    for call in (
        knowledge.Search(project=P, words="house", language="germn"),
        knowledge.Put(project=P, key="x", content="x", language="germn"),
        memories.Search(project=P, words="house", language="germn"),
        memories.Record(project=P, lesson="x", language="germn"),
    ):
        error = await refused(tx, call, "ZC105")
        assert (error.hint or "").startswith('Did you mean "german"?')


async def test_fields_restrict_a_search(tx: Transaction) -> None:
    await put(
        tx, "a", "a text", source_type="url", source_url="http://x/", metadata={"team": "core", "n": 1.0, "ok": True}
    )
    await put(
        tx, "b", "a text", source_type="file", metadata={"team": "web", "n": 2, "ok": [True], "source_type": "url"}
    )
    for fields, expected in (
        ({}, ["a", "b"]),
        ({"source_type": "url"}, ["a"]),
        ({"source_type": "file", "source_url": "http://x/"}, []),
        ({"metadata": {"team": "web"}}, ["b"]),
        ({"metadata": {"n": 1}}, ["a"]),
        ({"metadata": {"n": "1"}}, []),
        ({"metadata": {"n": 2, "team": "web"}, "source_type": "file"}, ["b"]),
        ({"metadata": {"ok": True}}, ["a"]),
        ({"metadata": {"source_type": "url"}}, ["b"]),
    ):
        assert sorted(await keys(tx, "text", **fields)) == expected, fields
        listed = await tx.run(knowledge.List(**{"project": P, **fields}))
        assert sorted(entry.key for entry in listed) == expected, fields
    for value in ([1], {"a": 1}, None):
        await refused(tx, knowledge.Search(project=P, words="text", metadata={"ok": value}), "ZC105")


async def test_an_entry_is_found_by_its_latest_version_alone(tx: Transaction) -> None:
    await put(tx, "a", "apples", metadata={"n": 1})
    await put(tx, "a", "pears", metadata={"n": 2})
    assert await keys(tx, "apples") == await keys(tx, "pears", metadata={"n": 1}) == []
    assert await keys(tx, "pears", metadata={"n": 2}) == ["a"]
    await tx.run(knowledge.Delete(project=P, key="a"))
    assert await keys(tx, "pears") == []
    await tx.run(documents.Restore(project=P, kind="knowledge", key="a"))
    assert await keys(tx, "pears") == ["a"]
    await tx.run(documents.Patch(project=P, kind="knowledge", key="a", patch=Raw(b'{"content": "plums"}')))
    assert await keys(tx, "plums") == ["a"]


async def test_what_expired_is_neither_found_nor_listed(tx: Transaction) -> None:
    await put(tx, "a", "a text")
    entry = b'{"title": "t", "content": "a text", "language": "english", "metadata": {}}'
    await tx.run(documents.Put(project=P, kind="knowledge", key="b", value=Raw(entry), ttl=timedelta(hours=1)))
    assert sorted(await keys(tx, "text")) == ["a", "b"]
    await tx.set_clock(timedelta(hours=2))
    assert await keys(tx, "text") == [entry.key for entry in await tx.run(knowledge.List(project=P))] == ["a"]


async def fill(tx: Transaction, count: int, text: str, project: str = P) -> None:
    """Put entries as knowledge_put would, in two statements."""
    await tx.connection.execute(
        """
        with put as (
          insert into coordinator.documents (project_id, kind, key, version, epoch, actor, created_at, updated_at)
          select coordinator.project_id($3), 'knowledge', 'k' || lpad(n::text, 6, '0'), 1, 1, 'a', now(), now() + n * interval '1 second'
          from generate_series(1, $1::integer) n
          returning id, project_id, kind, key, updated_at
        ), written as (
          insert into coordinator.document_versions (document_id, version, epoch, actor, written_at, value)
          select id, 1, 1, 'a', now(),
                 jsonb_build_object('title', key, 'content', replace($2, '{n}', substr(key, 2)), 'language', 'english', 'metadata', '{}'::jsonb)
          from put returning document_id, value
        )
        insert into coordinator.document_words (document_id, project_id, kind, updated_at, words)
        select p.id, p.project_id, p.kind, p.updated_at,
               coordinator.search_vector('english', coordinator.search_text('knowledge', w.value))
               || array_to_tsvector(array[coordinator.search_lexeme(p.project_id, 'knowledge'), coordinator.search_lexeme(p.project_id, 'knowledge', 'current', 'true')])
        from put p join written w on w.document_id = p.id""",
        count,
        text,
        project,
    )


async def test_of_common_words_the_newest_matches_are_ranked_and_say_so(tx: Transaction) -> None:
    await fill(tx, 250, "a common text")
    found = await search(tx, "common", limit=1000)
    assert len(found) == 200
    assert {match.partial for match in found} == {True}
    assert {match.key for match in found} == {f"k{n:06}" for n in range(51, 251)}


async def test_rare_words_are_found_however_old_they_are(tx: Transaction) -> None:
    await put(tx, "old", "a rare word among common ones")
    await fill(tx, 2500, "a common text")
    assert [(match.key, match.partial) for match in await search(tx, "rare")] == [("old", False)]
    assert await keys(tx, "rare common") == ["old"]
    assert [match.key for match in await search(tx, "k000007")] == ["k000007"]


async def test_pages_together_are_the_whole_and_what_comes_later_does_not_repeat_a_row(tx: Transaction) -> None:
    await fill(tx, 30, "common words {n}")
    whole = await search(tx, "common", limit=100)
    assert len(whole) == 30
    seen: list[str] = []
    async for page in walk(tx.run, knowledge.Search(project=P, words="common", limit=7)):
        seen += [match.key for match in page]
        if len(seen) == 7:
            await put(tx, "new", "common " * 50)  # better than all others
    assert seen == [match.key for match in whole]


@pytest.mark.parametrize("rank", ["", "x", "1.5x", "-1", "nan", "9" * 19, "1\n", "1e999"])
async def test_what_is_not_a_rank_is_not_a_place_in_the_list(tx: Transaction, rank: str) -> None:
    await refused(tx, knowledge.Search(project=P, words="x", after=[rank, "k"]), "ZC103")
    await refused(tx, memories.Search(project=P, words="x", after=[rank, "k"]), "ZC103")


@pytest.mark.parametrize("at", ["", "x", "2026-11-26 07:00:00", "infinity", "2026-11-26 07:00:00+02:00"])
async def test_what_is_not_an_instant_is_not_a_place_in_the_list(tx: Transaction, at: str) -> None:
    await refused(tx, knowledge.List(project=P, after=[at, "k"]), "ZC103")


# Texts that mean something to a parser, an index or a terminal.
HOSTILE = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=60),
    st.sampled_from(
        ["\x01", "\x011/knowledge", "'\x011/knowledge'", "\\", "'", "''", '"', "%s", "$1", "{}", "<b>x</b>", "http://a.b/c?d=e", "a-b-c", "x:*A",
         "& | !", "\u202e", "\x1b[31m", "E'\\\\x'", "1e400", "-", "a\nb\r\n", "\ufffd", "😀", "ß" * 40]
    ),
)  # fmt: skip


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=HOSTILE, words=HOSTILE)
async def test_hostile_text_is_returned_unchanged_and_never_leaves_its_project(
    tx: Transaction, text: str, words: str
) -> None:
    savepoint = tx.connection.transaction()
    await savepoint.start()
    try:
        await tx.run(projects.Create(project="other"))
        # The lexemes of the other project, as text and as a field.
        forged = f"{text} \x01{await tx.connection.fetchval('select coordinator.search_lexeme(coordinator.project_id($1), $2)', 'other', 'knowledge')}"
        made = await put(tx, "k", forged, metadata={"x": text}, source_type="t")
        learned = await tx.run(memories.Record(project=P, lesson=text, context=forged))
        assert (made.content, made.metadata) == (forged, {"x": text})
        assert (learned.lesson, learned.context) == (text, forged)
        assert await tx.run(knowledge.Get(project=P, key="k")) == made
        assert await tx.run(memories.Get(project=P, memory=learned.memory_id)) == learned
        assert [match.metadata for match in await search(tx, "zzz or knowledge", metadata={"x": text})] in (
            [{"x": text}],
            [],
        )
        for word in (words, text, forged, f"-{words}", f"-zzz {words}"):
            for kind in (knowledge.Search, memories.Search):
                nested = tx.connection.transaction()
                await nested.start()
                try:
                    assert await tx.run(kind(project="other", words=word[:500])) == []
                except InvalidArgument as error:
                    assert error.code == "ZC101"  # there is no word in it
                    await nested.rollback()
                else:
                    await nested.commit()
        for view in ("memories", "knowledge_entries"):
            assert await tx.connection.fetchval(f"select count(*) from coordinator.{view}") == 1
    finally:
        await savepoint.rollback()


@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"a{n}.bc/d{n}" for n in range(60_000)),
        " ".join(chr(0x4E00 + n % 20_000) + chr(0x4E00 + n // 20_000) for n in range(80_000)),
        "-".join(f"w{n}" for n in range(100_000)),
        "x" * 1_000_000,
    ],
    ids=["addresses", "chinese", "hyphens", "one word"],
)
async def test_the_longest_texts_are_indexed_as_far_as_a_vector_reaches(tx: Transaction, text: str) -> None:
    await put(tx, "k", f"needle {text}"[: 1_000_000 if text.isascii() else 340_000])
    assert await keys(tx, "needle") == ["k"]


async def plan(connection: asyncpg.Connection, query: str, *arguments: Any) -> str:
    rows = await connection.fetch(f"explain (costs off) {query}", *arguments)
    return "\n".join(row[0] for row in rows)


# The statements of search_recent and search_rare, with the settings of these functions.
RECENT = """select n.document_id from (
  select w.document_id, w.words, sum(pg_column_size(w.words)) over (order by w.updated_at desc rows unbounded preceding) as bytes
  from coordinator.document_words w where w.project_id = 1 and w.kind = 'knowledge' order by w.updated_at desc limit 2000) n
  where n.bytes <= 2097152 and n.words @@ 'x'::tsquery limit 201"""
RARE = "select w.document_id from coordinator.document_words w where w.words @@ 'x'::tsquery limit 501"


@pytest.mark.parametrize("size", ["empty", "small", "large", "stale"])
async def test_each_path_reads_its_index_whatever_the_statistics_say(tx: Transaction, size: str) -> None:
    if size in ("small", "large"):
        await fill(tx, 20 if size == "small" else 5000, "x common {n}")
        await tx.connection.execute("analyze coordinator.document_words")
    elif size == "stale":
        await tx.connection.execute("analyze coordinator.document_words")
        await fill(tx, 5000, "x common {n}")
    for function, query, index in (
        ("search_recent", RECENT, "document_words_recent_idx"),
        ("search_rare", RARE, "document_words_words_idx"),
    ):
        body = await tx.connection.fetchval(
            "select prosrc from pg_proc where proname = $1 and pronamespace = 'coordinator'::regnamespace", function
        )
        assert "limit 2000) n" in body or "limit 501" in body
        savepoint = tx.connection.transaction()
        await savepoint.start()
        for setting in await tx.connection.fetchval(
            "select proconfig from pg_proc where proname = $1 and pronamespace = 'coordinator'::regnamespace", function
        ):
            name, _, value = setting.partition("=")
            await tx.connection.execute(f"set local {name} = {value}")
        found = await plan(tx.connection, query)
        await savepoint.rollback()
        assert index in found, found
        assert "Seq Scan" not in found
        assert "Sort" not in found


WORD = st.sampled_from(["red", "green", "apple", "pear", "cars", "the"])
TEXT = st.lists(WORD, min_size=1, max_size=4).map(" ".join)
CHANGE = st.tuples(st.sampled_from([P, "other"]), st.sampled_from("abc"), st.one_of(st.none(), TEXT))
QUERY = st.one_of(
    TEXT, TEXT.map('"{}"'.format), st.tuples(TEXT, TEXT).map(" or ".join), st.tuples(WORD, WORD).map(" -".join)
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(CHANGE, max_size=8), queries=st.lists(QUERY, min_size=1, max_size=3))
async def test_after_any_history_a_search_finds_what_a_scan_of_every_text_finds(
    tx: Transaction, changes: list[tuple[str, str, str | None]], queries: list[str]
) -> None:
    savepoint = tx.connection.transaction()
    await savepoint.start()
    await tx.run(projects.Create(project="other"))
    there = set()
    for project, key, content in changes:
        if content is not None:
            await put(tx, key, content, project=project, title="x")
            there.add((project, key))
        elif (project, key) in there:
            await tx.run(knowledge.Delete(project=project, key=key))
            there.remove((project, key))
    for words in queries:
        for project in (P, "other"):
            rows = await tx.connection.fetch(
                "select key from coordinator.knowledge_entries where project = $1"
                " and to_tsvector('english', title) || to_tsvector('english', content) @@ websearch_to_tsquery('english', $2)",
                project,
                words,
            )
            if await tx.connection.fetchval("select numnode(websearch_to_tsquery('english', $1)) > 0", words):
                assert sorted(await keys(tx, words, project=project)) == sorted(row["key"] for row in rows)
    await savepoint.rollback()


async def test_a_snippet_is_taken_from_the_beginning_of_a_long_text(tx: Transaction) -> None:
    await put(tx, "early", f"a needle {'hay ' * 2000}")
    await put(tx, "late", f"begins {'hay ' * 2000} needle")
    snippets = {match.key: match.snippet for match in await search(tx, "needle")}
    assert "**needle**" in snippets["early"]
    assert snippets["late"].startswith("begins hay")
    assert max(map(len, snippets.values())) < 300


async def test_of_long_texts_only_the_newest_are_read_before_the_index(tx: Transaction) -> None:
    await fill(tx, 30, "needle " + " ".join(sha256(bytes([n % 256, n // 256])).hexdigest()[:12] for n in range(7_500)))
    recent = await tx.connection.fetchval(
        "select cardinality(coordinator.search_recent(p.id, 'knowledge', 'needl')) from coordinator.projects p where name = 'default'"
    )
    assert 0 < recent < 30
    assert len(await keys(tx, "needle", limit=100)) == 30


async def rows_read(tx: Transaction) -> tuple[int, int]:
    """Return how many rows of the tables of documents this transaction has read without an index, and with one."""
    row = await tx.connection.fetchrow(
        "select sum(seq_tup_read), sum(idx_tup_fetch) from pg_stat_xact_all_tables where relname ~ '^document' and schemaname = 'coordinator'"
    )
    return int(row[0]), int(row[1])


@pytest.mark.parametrize("stale", [False, True])
async def test_a_search_reads_what_it_ranks_and_looks_it_up_by_index(tx: Transaction, *, stale: bool) -> None:
    await tx.connection.execute(
        "analyze coordinator.document_words, coordinator.documents, coordinator.document_versions"
    )
    await fill(tx, 6000, "a common text {n}")
    if not stale:
        await tx.connection.execute(
            "analyze coordinator.document_words, coordinator.documents, coordinator.document_versions"
        )
    for words, most in (("common", 1000), ("k000007", 3000), ('"common text"', 1000)):
        for _ in range(7):  # the sixth call has a plan for any values
            before = await rows_read(tx)
            await search(tx, words)
            after = await rows_read(tx)
            assert after[0] == before[0], words
            assert after[1] - before[1] < most, words
    page = await tx.run(knowledge.List(project=P, limit=10))
    for after_ in (None, [str(page[-1].updated_at), page[-1].key]):
        before = await rows_read(tx)
        assert len(await tx.run(knowledge.List(project=P, limit=10, after=after_))) == 10
        after = await rows_read(tx)
        assert after[0] == before[0]
        assert after[1] - before[1] < 100


async def test_a_project_leaves_no_words_and_no_embedding(tx: Transaction) -> None:
    await tx.run(projects.Create(project="other"))
    await put(tx, "k", "a text", project="other", embedding=[1.0, 2.0])
    await tx.run(memories.Record(project="other", lesson="a lesson", embedding=[1.0]))
    assert await tx.connection.fetchval("select count(*) from coordinator.document_embeddings") == 2
    await tx.run(projects.Delete(project="other"))
    for table in ("documents", "document_versions", "document_words", "document_embeddings"):
        assert await tx.connection.fetchval(f"select count(*) from coordinator.{table}") == 0, table


async def has_vector(tx: Transaction) -> bool:
    return bool(await tx.connection.fetchval("select count(*) from pg_available_extensions where name = 'vector'"))


async def test_a_search_by_embedding_without_the_extension_is_refused(tx: Transaction) -> None:
    await put(tx, "k", "a text", embedding=[1, 0])
    error = await refused(tx, knowledge.Search(project=P, embedding=[1, 0]), "ZC105")
    assert "create extension vector" in (error.hint or "")


async def test_an_embedding_finds_what_is_near_and_is_merged_with_the_words(tx: Transaction) -> None:
    if not await has_vector(tx):
        pytest.skip("this server has no pgvector")
    await tx.connection.execute("create schema elsewhere; create extension vector schema elsewhere")
    await put(tx, "far", "weather", embedding=[0, 1, 0])
    await put(tx, "near", "weather", embedding=[1, 0.1, 0])
    await put(tx, "word", "a release", embedding=[0, 0.1, 1])
    await put(tx, "other", "of two dimensions", embedding=[1, 0])
    await put(tx, "none", "a release")
    found = await search(tx, None, embedding=[1, 0, 0])
    assert [match.key for match in found] == ["near", "far", "word"]
    assert found[0].rank == pytest.approx(1 / 61)
    merged = await search(tx, "release", embedding=[0, 0, 1])
    assert (merged[0].key, merged[0].rank) == ("word", pytest.approx(1 / 61 + 1 / 61))
    assert "none" in {match.key for match in merged}
    # Another text has no embedding until one is given; other metadata keep it.
    await put(tx, "near", "weather", metadata={"n": 1})
    assert await keys(tx, None, embedding=[1, 0, 0], metadata={"n": 1}) == ["near"]
    await put(tx, "near", "climate", metadata={"n": 1})
    assert await keys(tx, None, embedding=[1, 0, 0], metadata={"n": 1}) == []
    pages = [
        page async for page in walk(tx.run, knowledge.Search(project=P, words="release", embedding=[0, 0, 1], limit=1))
    ]
    assert [match.key for page in pages for match in page] == [
        match.key for match in await search(tx, "release", embedding=[0, 0, 1])
    ]


async def test_the_confidence_of_memories_counts_in_the_ranking_by_words_alone(tx: Transaction) -> None:
    if not await has_vector(tx):
        pytest.skip("this server has no pgvector")
    await tx.connection.execute("create extension vector")
    for lesson, confidence, embedding in (
        ("deploy on Monday", 5, [1, 0, 0]),
        ("deploy on Friday", 100, [0, 1, 0]),
        ("lunch is at noon", 100, [0, 0.1, 1]),
    ):
        await tx.run(memories.Record(project=P, lesson=lesson, confidence=confidence, embedding=embedding))

    async def ranks(**fields: Any) -> dict[str, float]:
        return {match.lesson: match.rank for match in await tx.run(memories.Search(project=P, **fields))}

    assert list(await ranks(words="deploy")) == ["deploy on Friday", "deploy on Monday"]
    near = await ranks(embedding=[1, 0.2, 0])
    assert near == pytest.approx({"deploy on Monday": 1 / 61, "deploy on Friday": 1 / 62, "lunch is at noon": 1 / 63})
    assert list(near) == ["deploy on Monday", "deploy on Friday", "lunch is at noon"]
    merged = await ranks(words="deploy", embedding=[0, 0.2, 1])
    assert merged == pytest.approx(
        {"deploy on Friday": 1 / 61 + 1 / 62, "deploy on Monday": 1 / 62 + 1 / 63, "lunch is at noon": 1 / 61}
    )


@pytest.mark.parametrize("embedding", [[], [0.0, 0.0], [1e300], [1e-300], [0.5] * 4001], ids=lambda e: f"{len(e)}")
async def test_an_embedding_without_a_direction_is_refused(tx: Transaction, embedding: list[float]) -> None:
    code = "ZC104" if 0 < len(embedding) < 4001 else "ZC102"
    for call in (
        knowledge.Put(project=P, key="k", content="x", embedding=embedding),
        memories.Record(project=P, lesson="x", embedding=embedding),
    ):
        await refused(tx, call, code)


async def test_a_rank_is_the_same_on_each_page(tx: Transaction) -> None:
    await tx.run(memories.Record(project=P, lesson="one common lesson"))
    first = await tx.run(memories.Search(project=P, words="common"))
    assert [match.rank for match in await tx.run(memories.Search(project=P, words="common"))] == [first[0].rank]
    assert (
        await tx.run(
            replace(memories.Search(project=P, words="common"), after=[str(first[0].rank), first[0].memory_id])
        )
        == []
    )
