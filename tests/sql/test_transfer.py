"""Export and import: the round trip is equal, an import continues where it was killed, and refuses what it cannot read."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.errors import CoordinatorError
from coordinator.model.page import walk
from coordinator.model.transfer import ExportLine, ImportProgress, place_of_line
from coordinator.operations import documents, logs, projects, retentions, rules, sessions, signals, transfers
from tests.conftest import Transaction
from tests.sql.refusal import refused

TEXTS = ['{"b":1e16,"a":[ 1,\n 2 ]}', '"\\u0000\\ud800 \U0001f600"', "1.50", '{"role":"user","content":"é"}', "null"]


async def filled(tx: Transaction, texts: list[str] = TEXTS) -> None:
    """Put something of each kind into a project "a"; project "b" is empty."""
    for name in ("a", "b"):
        await tx.run(projects.Create(project=name))
    await tx.run(retentions.Set(project="a", subject="log", kind="note", max_age=timedelta(days=400), max_count=5))
    await tx.run(rules.Set(project="a", when_set="R", clears=["X"]))
    await tx.run(signals.Set(project="a", key="k/é", value={"x": 1.5}, ttl=timedelta(hours=1)))
    await tx.run(sessions.Create(project="a", session="s", title="T", context={"a": [1]}))
    for key, session in (("s", "s"), ("other", None)):
        entries = ", ".join(f'{{"data": {text}, "uid": "u{place}"}}' for place, text in enumerate(texts))
        append = logs.Append(
            project="a", kind="note", key=key, entries=msgspec.Raw(f"[{entries}]".encode()), session=session
        )
        await tx.run(append)
    await tx.run(logs.Pop(project="a", kind="note", key="other"))
    await tx.run(logs.Append(project="a", kind="note", key="other", entries=msgspec.Raw(b'[{"data":1,"needs":-1}]')))
    await tx.run(logs.Keep(project="a", kind="note", key="other", first_seq=1))
    for text in texts * 3:
        await tx.run(documents.Put(project="a", kind="plan", key="p", value=msgspec.Raw(text.encode())))
    await tx.run(documents.Put(project="a", kind="plan", key="gone", value=msgspec.Raw(b"1")))
    await tx.run(documents.Delete(project="a", kind="plan", key="gone"))
    for session in ("s", None):
        await stored(tx, session)


async def stored(tx: Transaction, session: str | None) -> None:
    """Store an artifact of two parts."""
    await tx.connection.execute(
        """
        with data (part, data) as (values (1, '\\x616263'::bytea), (2, '\\x00ff'::bytea)),
        blob as (insert into coordinator.artifact_blobs (project_id, sha256, bytes, finished_at)
          select p.id, encode(sha256((select string_agg(data, ''::bytea order by part) from data)), 'hex'), 5, now()
          from coordinator.projects p where name = 'a' on conflict do nothing returning id, project_id, sha256, bytes),
        chunks as (insert into coordinator.artifact_chunks select b.id, d.part, d.data from blob b, data d)
        select"""
        if session
        else "select"
    )
    await tx.connection.execute(
        """
        insert into coordinator.artifacts (project_id, session_id, name, media_type, bytes, sha256, actor, created_at, updated_at, blob_id)
        select b.project_id, (select id from coordinator.sessions where key = $1 and project_id = b.project_id), 'report', 'text/plain', b.bytes,
               b.sha256, 'me', now(), now(), b.id
        from coordinator.artifact_blobs b join coordinator.projects p on p.id = b.project_id and p.name = 'a' where b.finished_at is not null""",
        session,
    )


async def exported(tx: Transaction, project: str, limit: int = 1000) -> list[ExportLine]:
    return [row async for page in walk(tx.run, transfers.Export(project=project, limit=limit)) for row in page]


async def imported(tx: Transaction, lines: list[str], project: str = "b") -> ImportProgress:
    return await transfers.import_lines(tx.run, project, lines)


async def test_the_round_trip_is_equal_with_numbers_and_content(tx: Transaction) -> None:
    await filled(tx)
    rows = await exported(tx, "a")
    lines = [row.line for row in rows]
    types = [json.loads(line).get("type") for line in lines]
    assert {*types} == {
        None, "project", "retention", "rule", "signal", "session", "log", "entry", "document", "version", "part", "content", "artifact", "end",
    }  # fmt: skip
    entries = [json.loads(line) for line in lines if json.loads(line).get("type") == "entry"]
    assert [entry["data"] for entry in entries if entry["key"] == "s"] == TEXTS
    done = await imported(tx, lines)
    assert (done.lines, done.finished) == (len(lines), True)
    again = [row.line for row in await exported(tx, "b")]
    assert again[1:] == lines[1:]
    assert [event["type"] for event in await tx.events()][-1] == "project.imported"
    counts = "select bool_and(count = (select count(*) from coordinator.entries where log_id = l.id)) from coordinator.logs l"
    assert await tx.connection.fetchval(counts)
    receipt = await tx.run(logs.Append(project="b", kind="note", key="other", entries=msgspec.Raw(b'[{"data":1}]')))
    assert receipt.first_seq == len(TEXTS) + 2


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_pages_are_the_whole_and_each_line_says_where_it_is(tx: Transaction, limit: int) -> None:
    await filled(tx)
    rows = await exported(tx, "a")
    assert await exported(tx, "a", limit) == rows
    for row in rows:
        place = place_of_line(json.loads(row.line))
        expected = None if row.section == 9 else [str(row.section), row.kind, row.key, str(row.number)]
        assert place == expected


async def test_a_page_reads_only_the_parts_of_artifacts_that_it_has_room_for(tx: Transaction) -> None:
    await tx.run(projects.Create(project="a"))
    await tx.connection.execute("""
        with blob as (insert into coordinator.artifact_blobs (project_id, sha256, bytes, finished_at)
          select id, repeat('0', 64), 4 << 20, now() from coordinator.projects where name = 'a' returning id),
        chunks as (insert into coordinator.artifact_chunks
          select b.id, n, decode(repeat('0' || n, 1 << 20), 'hex') from blob b, generate_series(1, 4) n)
        select""")
    await stored(tx, None)
    at_once = "select count(*) from coordinator.project_export('a', p_limit => 1000) where section >= 7"
    assert await tx.connection.fetchval(at_once) == 2, "one for which there is room, and one that says that more follow"
    lines = [json.loads(row.line) for row in await exported(tx, "a") if row.section >= 7]
    assert [line["type"] for line in lines] == ["part"] * 4 + ["content", "artifact", "end"]
    assert [base64.b64decode(line["data"]) for line in lines[:4]] == [bytes([n]) * (1 << 20) for n in range(1, 5)]


async def test_an_import_continues_where_it_was_killed_and_a_repeated_batch_changes_nothing(tx: Transaction) -> None:
    await filled(tx)
    lines = [row.line for row in await exported(tx, "a")]
    decoded = [json.loads(line) for line in lines]
    for end in (1, 9, 9, 20):
        progress = await tx.run(transfers.Import(project="b", export=decoded[0]["export"], lines=decoded[:end]))
        assert (progress.lines, progress.finished) == (max(end, progress.lines), False)
    assert (await imported(tx, lines)).finished
    assert (await imported(tx, lines)).lines == len(lines)
    assert [row.line for row in await exported(tx, "b")][1:] == lines[1:]


async def test_an_export_that_was_cut_off_is_refused_and_continues(tx: Transaction) -> None:
    await filled(tx)
    lines = [row.line for row in await exported(tx, "a")]
    with pytest.raises(CoordinatorError) as raised:
        await imported(tx, lines[:10])
    assert (raised.value.code, "line 10" in raised.value.message) == ("ZC103", True)
    assert (await imported(tx, lines)).finished


async def test_an_import_goes_into_an_empty_project_only_and_another_export_is_a_conflict(tx: Transaction) -> None:
    await filled(tx)
    decoded = [json.loads(row.line) for row in await exported(tx, "a")]
    header = decoded[0]
    await refused(tx, transfers.Import(project="a", export=header["export"], lines=[header]), "ZC301")
    await tx.run(transfers.Import(project="b", export=header["export"], lines=[header]))
    other = {**header, "export": "0" * 32}
    await refused(tx, transfers.Import(project="b", export="0" * 32, lines=[other]), "ZC301")
    await refused(tx, transfers.Import(project="b", export=header["export"], lines=[decoded[5]], done=5), "ZC301")
    await refused(tx, transfers.Import(project="default", export=header["export"], lines=[decoded[5]], done=5), "ZC301")


HEADER = {"format": "coordinator-project", "version": 1, "export": "1" * 32}


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({**HEADER, "format": "tar"}, "ZC105"),
        ({**HEADER, "version": 2}, "ZC105"),
        ({**HEADER, "export": "x"}, "ZC103"),
        ({"a": 1}, "ZC105"),
    ],
)
async def test_another_format_or_version_is_refused(tx: Transaction, line: dict[str, Any], code: str) -> None:
    error = await refused(tx, transfers.Import(project="default", export=str(line.get("export")), lines=[line]), code)
    assert error.hint


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"type": "nonsense"}, "ZC105"),
        (1, "ZC105"),
        ({"type": "log", "kind": "audit", "key": "k"}, "42501"),
        ({"type": "entry", "kind": "audit", "key": "k", "data": "1"}, "42501"),
        ({"type": "entry", "kind": "note", "key": "k", "seq": 1, "data": "1"}, "ZC103"),
        ({"type": "log", "kind": "A", "key": "k"}, "ZC103"),
        ({"type": "signal", "key": "k", "value": "{"}, "ZC103"),
        ({"type": "session", "key": ""}, "ZC101"),
        ({"type": "document", "kind": "plan", "key": "k", "version": "x"}, "ZC103"),
        ({"type": "part", "sha256": "x", "part": 1, "data": "!"}, "ZC103"),
        ({"type": "content", "sha256": "0" * 64, "bytes": 1}, "ZC336"),
        ({"type": "artifact", "name": "n", "sha256": "0" * 64, "actor": "a"}, "ZC103"),
        ({"type": "rule", "when_set": "A", "clears": 1}, "ZC103"),
        ({"type": "retention", "subject": "log", "kind": "note", "max_age": "PT0S"}, "ZC104"),
        ({"type": "retention", "subject": "log", "kind": "note", "max_count": 0}, "ZC104"),
        ({"type": "project", "title": "two\nlines"}, "ZC103"),
        ({"type": "project", "settings": "[]"}, "ZC105"),
        ({"type": "project", "paths": "none"}, "ZC105"),
    ],
)
async def test_a_damaged_line_is_refused_with_its_number_and_nothing_is_imported(
    tx: Transaction, line: Any, code: str
) -> None:
    await tx.run(projects.Create(project="b"))
    rule = {"type": "rule", "when_set": "R", "clears": ["X"], "created_at": "2026-01-01T00:00:00Z"}
    operation = transfers.Import(project="b", export=HEADER["export"], lines=[HEADER, rule, line])
    error = await refused(tx, operation, code)
    assert code == "42501" or error.message.startswith("line 3: ")
    assert [row.when_set for row in await tx.run(rules.List(project="b"))] == ["REJECTED"]


json_texts = st.recursive(
    st.sampled_from(['"\\u0000"', '"\\udfff"', "1e16", "-0.0", "1E2", "null", '" "'])
    | st.text(max_size=5).map(json.dumps),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: "[" + ", ".join(items) + "]"),
    max_leaves=5,
)


@settings(max_examples=6, deadline=None, suppress_health_check=[*HealthCheck])
@given(texts=st.lists(json_texts, min_size=1, max_size=4), limit=st.integers(1, 9))
async def test_any_content_makes_the_round_trip(tx: Transaction, texts: list[str], limit: int) -> None:
    savepoint = tx.connection.transaction()
    await savepoint.start()
    try:
        await filled(tx, texts)
        lines = [row.line for row in await exported(tx, "a", limit)]
        await imported(tx, lines)
        assert [row.line for row in await exported(tx, "b")][1:] == lines[1:]
    finally:
        await savepoint.rollback()
