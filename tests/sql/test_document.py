"""Documents: versions, expectations, patches, items, history."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from coordinator.db.call import call
from coordinator.db.connection import connect
from coordinator.errors import Conflict
from coordinator.model.document import Document, DocumentHeader
from coordinator.model.json import text_of, value_of
from coordinator.model.operation import JsonText
from coordinator.operations import documents, projects, sessions
from tests.conftest import Transaction
from tests.sql.refusal import refused
from tests.waiting import while_uncommitted

P = "default"
AGENTS, UPDATES = 12, 240


def put(value: Any = 1, key: str = "k", kind: str = "plan", **fields: Any) -> documents.Put:
    return documents.Put(project=P, kind=kind, key=key, value=text_of(value), **fields)


def get(key: str = "k", kind: str = "plan", **fields: Any) -> documents.Get:
    return documents.Get(project=P, kind=kind, key=key, **fields)


def patch(value: Any, key: str = "k", **fields: Any) -> documents.Patch:
    return documents.Patch(project=P, kind="plan", key=key, patch=text_of(value), **fields)


def item(of: str, value: Any, key: str = "k", kind: str = "todo", **fields: Any) -> documents.Item:
    return documents.Item(project=P, kind=kind, key=key, item=of, patch=text_of(value), **fields)


def delete(key: str = "k", **fields: Any) -> documents.Delete:
    return documents.Delete(project=P, kind="plan", key=key, **fields)


def restore(key: str = "k", **fields: Any) -> documents.Restore:
    return documents.Restore(project=P, kind="plan", key=key, **fields)


def read_as(document: Document | DocumentHeader) -> dict[str, Any]:
    return {"expect": document.version, "epoch": document.epoch}


async def versions(tx: Transaction, key: str = "k") -> list[int]:
    return [row.version for row in await tx.run(documents.History(project=P, kind="plan", key=key))]


async def test_versions_count_from_one_and_each_can_be_read(tx: Transaction) -> None:
    for number in (1, 2, 3):
        header = await tx.run(put({"n": number}, actor="me"))
        assert (header.version, header.actor, header.project) == (number, "me", P)
    assert (await tx.run(get())).value == {"n": 3}
    assert (await tx.run(get(version=2))).value == {"n": 2}
    assert [row["data"] for row in await tx.events()] == [{"kind": "plan", "version": n} for n in (1, 2, 3)]
    assert {row["key"] for row in await tx.events()} == {"plan/k"}
    await refused(tx, get(version=4), "ZC217")
    await refused(tx, get(version=0), "ZC104")
    await refused(tx, get("l"), "ZC217")


async def test_an_expected_version_that_is_not_there_is_a_conflict_that_says_what_is(tx: Transaction) -> None:
    await refused(tx, put(expect=1), "ZC301")
    first = await tx.run(put(expect=0))
    error = await refused(tx, put(expect=0), "ZC301")
    assert json.loads(error.detail or "") == {"version": 1, "epoch": first.epoch}
    await tx.run(put(**read_as(first)))
    for operation in (put(**read_as(first)), patch({}, expect=1), delete(expect=1), restore(expect=1)):
        error = await refused(tx, operation, "ZC301")
        assert json.loads(error.detail or "")["version"] == 2
    assert await versions(tx) == [2, 1]
    await tx.run(delete(expect=2))
    for absent in (delete(expect=3), patch({}, expect=3), delete()):
        await refused(tx, absent, "ZC217")


async def test_the_hint_of_a_conflict_blames_a_restore_only_if_the_version_was_read(tx: Transaction) -> None:
    await tx.run(put())
    beyond = await refused(tx, put(expect=7), "ZC301")
    absent = await refused(tx, put(key="other", expect=7), "ZC301")
    behind = await refused(tx, put(expect=0), "ZC301")
    assert str(beyond.hint).startswith("Read the document and decide again. If the expected version was read,")
    assert str(absent.hint).startswith("Expect 0 to create it. If this version was read,")
    assert "restored" not in str(behind.hint)


async def test_a_negative_expectation_holds_of_no_document_and_of_no_absent_one(tx: Transaction) -> None:
    await refused(tx, put(expect=-1), "ZC301")
    await tx.run(put())
    await refused(tx, put(expect=-1), "ZC301")
    await tx.run(delete())
    for operation in (put(expect=-1), restore(expect=-1)):
        await refused(tx, operation, "ZC301")


async def test_the_same_version_of_another_epoch_is_a_conflict(tx: Transaction) -> None:
    """A restored database gives a version again; who has read the lost one is not to match it."""
    lost = await tx.run(put())
    other = f"{int(lost.epoch, 16) ^ 1:08x}"
    for operation in (put(expect=1, epoch=other), patch({}, expect=1, epoch=other), delete(expect=1, epoch=other)):
        error = await refused(tx, operation, "ZC301")
        assert "earlier state" in (error.hint or "")
    await refused(tx, put(expect=1, epoch="x"), "ZC103")
    assert (await tx.run(put(**read_as(lost)))).version == 2


async def test_a_deleted_document_is_absent_and_its_versions_are_not_given_again(tx: Transaction) -> None:
    first = await tx.run(put({"n": 1}))
    deleted = await tx.run(delete())
    assert deleted.version == 2
    await refused(tx, get(), "ZC217")
    await refused(tx, get(version=2), "ZC217")
    assert (await tx.run(get(version=1))).value == {"n": 1}
    assert await tx.run(documents.List(project=P)) == []
    again = await tx.run(put({"n": 3}, expect=0))
    assert (again.version, again.created_at > first.created_at, again.expires_at) == (3, True, None)
    history = await tx.run(documents.History(project=P, kind="plan", key="k"))
    assert [(row.version, row.deleted, row.text_bytes) for row in history] == [
        (3, False, 8),
        (2, True, None),
        (1, False, 8),
    ]


async def test_an_expired_document_is_absent_for_everybody(tx: Transaction) -> None:
    await tx.run(put({"n": 1}, ttl=timedelta(seconds=10)))
    assert (await tx.run(patch({"m": 2}))).expires_at is not None
    await tx.set_clock(timedelta(minutes=1))
    for operation in (get(), patch({}), delete(), put(expect=2)):
        with pytest.raises((Exception,)) as raised:
            await tx.run(operation)
        assert raised.value.code in ("ZC217", "ZC301")  # type: ignore[attr-defined]
    assert await tx.run(documents.List(project=P)) == []
    assert (await tx.run(put(expect=0))).version == 3


async def test_the_command_that_a_hint_names_is_one_for_a_shell(tx: Transaction) -> None:
    key = "it's $HOME"
    await tx.run(put(key=key))
    await tx.run(delete(key=key))
    error = await refused(tx, get(key=key), "ZC217")
    command = (error.hint or "").rpartition('"')[0].rpartition('"')[2]
    assert shlex.split(command) == ["coordinator", "document", "restore", "plan", key]


async def test_a_restore_brings_back_a_version_or_what_was_deleted(tx: Transaction) -> None:
    for number in (1, 2):
        await tx.run(put({"n": number}))
    assert (await tx.run(restore(version=1))).version == 3
    assert (await tx.run(get())).value == {"n": 1}
    await tx.run(delete())
    error = await refused(tx, get(), "ZC217")
    assert 'It was deleted; "coordinator document restore plan k" brings it back.' in (error.hint or "")
    assert (await tx.run(restore(expect=0))).version == 5
    assert (await tx.run(get())).value == {"n": 1}
    await refused(tx, restore(version=4), "ZC217")
    await refused(tx, restore(version=9), "ZC217")
    await refused(tx, restore("other"), "ZC217")
    await tx.run(put(ttl=timedelta(seconds=10)))
    await tx.set_clock(timedelta(minutes=1))
    assert "It has expired; " in ((await refused(tx, get(), "ZC217")).hint or "")
    assert "restore" not in ((await refused(tx, get("other"), "ZC217")).hint or "")
    assert (await tx.run(restore())).expires_at is None


async def test_history_is_bounded_and_a_version_that_is_not_kept_says_so(tx: Transaction) -> None:
    for number in range(1, 13):
        await tx.run(put(number))
    assert await versions(tx) == list(range(12, 2, -1))
    await refused(tx, get(version=2), "ZC218")
    await refused(tx, restore(version=2), "ZC218")
    await refused(tx, documents.Diff(project=P, kind="plan", key="k", version=2), "ZC218")
    assert (await tx.run(get(version=3))).value == 3


async def test_an_instant_names_the_version_of_that_time(tx: Transaction) -> None:
    start = await tx.connection.fetchval("select transaction_timestamp()")

    def at(minutes: float) -> documents.Get:
        return get(at=start + timedelta(minutes=minutes))

    for minutes, operation in (
        (1, put(1)), (2, put(2, ttl=timedelta(seconds=30))), (3, put(3)), (4, delete()), (5, put(5)),
    ):  # fmt: skip
        await tx.set_clock(timedelta(minutes=minutes))
        await tx.run(operation)
    for minutes, value in ((1, 1), (1.9, 1), (2, 2), (3.5, 3), (5, 5), (90, 5)):
        assert (await tx.run(at(minutes))).value == value
    for minutes in (0.5, 2.6, 4.5):
        await refused(tx, at(minutes), "ZC217")
    for number in range(10):
        await tx.run(put(number))
    await refused(tx, at(3), "ZC218")
    await refused(tx, get(at=start, version=1), "ZC105")


async def test_a_path_leads_to_a_part(tx: Transaction) -> None:
    await tx.run(put({"a": [{"b": None}, 5], "": "empty"}))
    for path, value in (
        (["a", "1"], 5),
        (["a", "0", "b"], None),
        ([""], "empty"),
        ([], {"a": [{"b": None}, 5], "": "empty"}),
    ):
        assert (await tx.run(get(path=path))).value == value
    for path in (["b"], ["a", "2"], ["a", "1", "x"], ["a", "b"]):
        await refused(tx, get(path=path), "ZC219")
    await refused(tx, get(path=["a"] * 33), "ZC102")


async def test_a_list_is_of_a_kind_and_a_prefix(tx: Transaction) -> None:
    for kind, key in (("plan", "a/1"), ("plan", "a/2"), ("plan", "b"), ("other", "a/1")):
        await tx.run(put(key=key, kind=kind))
    every = await tx.run(documents.List(project=P))
    assert [(d.kind, d.key) for d in every] == [("other", "a/1"), ("plan", "a/1"), ("plan", "a/2"), ("plan", "b")]
    assert [d.key for d in await tx.run(documents.List(project=P, kind="plan", prefix="a/"))] == ["a/1", "a/2"]


# The table of RFC 7396, appendix A.
RFC_7396 = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'), ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'), ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'), ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'), ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'), ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'), ('{"a":"b"}', '["c"]', '["c"]'), ('{"a":"foo"}', "null", "null"), ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'), ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'), ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]  # fmt: skip


@pytest.mark.parametrize(("target", "change", "result"), RFC_7396)
async def test_a_merge_is_that_of_the_rfc(tx: Transaction, target: str, change: str, result: str) -> None:
    merged = await tx.connection.fetchval(
        "select coordinator.json_merge($1::text::jsonb, $2::text::jsonb)", target, change
    )
    assert merged == json.loads(result)
    if isinstance(json.loads(target), dict) and isinstance(json.loads(change), dict):
        await tx.run(put(json.loads(target)))
        await tx.run(patch(json.loads(change)))
        assert (await tx.run(get())).value == json.loads(result)


async def test_a_patch_is_of_an_object_and_for_an_object(tx: Transaction) -> None:
    await refused(tx, patch({}), "ZC217")
    await tx.run(put([1]))
    await refused(tx, patch({"a": 1}), "ZC105")
    await refused(tx, patch([1]), "ZC105")
    await refused(tx, patch(None), "ZC105")


TODO = {"goal": "ship", "items": [{"id": 1, "status": "PENDING"}, {"id": "b", "sub": {"x": 1}}]}


async def test_an_item_is_found_by_its_id_and_merged(tx: Transaction) -> None:
    await tx.run(put(TODO, kind="todo"))
    assert (await tx.run(item("1", {"status": "COMPLETED"}))).version == 2
    await tx.run(item("b", {"sub": {"x": None, "y": 2}}, expect=2))
    assert (await tx.run(get(kind="todo"))).value == {
        "goal": "ship",
        "items": [{"id": 1, "status": "COMPLETED"}, {"id": "b", "sub": {"y": 2}}],
    }
    error = await refused(tx, item("c", {}), "ZC219")
    assert error.hint
    await refused(tx, item("1", {"id": 2}), "ZC105")
    await refused(tx, item("1", []), "ZC105")
    await refused(tx, item("1", {"status": 5}), "ZC105")
    await refused(tx, item("1", {}, expect=2), "ZC301")
    await refused(tx, item("1", {}, key="none"), "ZC217")


async def test_an_item_of_any_list_at_a_path(tx: Transaction) -> None:
    await tx.run(put({"a": [{"hosts": [{"name": "x"}, {"name": "y"}, {"name": "y"}, 5]}]}))
    there: dict[str, Any] = {"kind": "plan", "path": ["a", "0", "hosts"], "field": "name"}
    await tx.run(item("x", {"up": True}, **there))
    assert (await tx.run(get(path=["a", "0", "hosts", "0"]))).value == {"name": "x", "up": True}
    error = await refused(tx, item("y", {}, **there), "ZC333")
    assert json.loads(error.detail or "") == {"item": "y", "count": 2}
    nothing = await refused(tx, item("x", {}, **there | {"path": ["b"]}), "ZC219")
    assert nothing.message == 'document "k" of kind "plan" has no list at the path b'
    other = await refused(tx, item("x", {}, **there | {"path": ["a", "0"]}), "ZC105")
    assert other.message == 'document "k" of kind "plan" has no list at the path a/0, but a JSON object'
    root = await refused(tx, item("x", {}, kind="plan", field="name"), "ZC105")
    assert root.message == 'document "k" of kind "plan" is a JSON object, not a list'


WRONG: list[tuple[str, Any, str]] = [
    ("state", [], "ZC105"), ("state", 5, "ZC105"), ("todo", {}, "ZC105"), ("todo", 5, "ZC105"), ("todo", {"items": {}}, "ZC105"),
    ("todo", [1], "ZC105"), ("todo", [{}], "ZC105"), ("todo", [{"id": None}], "ZC105"), ("todo", [{"id": 1}, {"id": "1"}], "ZC333"),
    ("features", {"items": []}, "ZC105"), ("features", [{"id": 1, "passes": "yes"}], "ZC105"), ("features", [{"id": 1, "status": 1}], "ZC105"),
]  # fmt: skip
RIGHT: list[tuple[str, Any]] = [
    ("state", {}), ("todo", []), ("todo", TODO), ("todo", [{"id": 1, "status": None}]), ("features", {"features": []}),
    ("features", [{"id": "login", "passes": False, "status": "open", "steps": []}]), ("own", 5),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "code"), WRONG)
async def test_a_kind_of_ours_has_a_shape(tx: Transaction, kind: str, value: Any, code: str) -> None:
    error = await refused(tx, put(value, kind=kind), code)
    assert error.hint
    for right in (value for its, value in RIGHT if its == kind):
        await tx.run(put(right, kind=kind))
    await refused(tx, put(value, kind=kind), code)


def applied(value: Any, operations: list[dict[str, Any]]) -> Any:
    """Apply a JSON Patch of add, remove and replace."""
    document = {"": json.loads(json.dumps(value))}
    for operation in operations:
        steps = [s.replace("~1", "/").replace("~0", "~") for s in operation["path"].split("/")]
        place: Any = document
        for step in steps[:-1]:
            place = place[int(step) if isinstance(place, list) else step]
        last = int(steps[-1]) if isinstance(place, list) else steps[-1]
        match operation["op"], place:
            case "remove", _:
                del place[last]
            case "add", list():
                place.insert(last, operation["value"])
            case _:
                assert operation["op"] == "add" or last in place or isinstance(place, list)
                place[last] = operation["value"]
    return document[""]


DIFFS: list[tuple[Any, Any]] = [
    ({"a": 1}, {"a": 1}), ({"a": 1}, {"a": 2, "b": [1]}), ({"a/b": {"~": 1}, "x": 1}, {"a/b": {"~": 2}}), ([1, 2, 3, 4], [1, 5]),
    ([1], [1, 2, {"a": 3}]), ({"a": [{"id": 1, "s": "x" * 99}, {"id": 2, "s": "y" * 99}]}, {"a": [{"id": 1, "s": "x" * 99}, {"id": 2, "s": "z"}]}),
    (1, [1]), ({"a": None}, {}), ({}, {"a": None}), ([[1, 2, 3]], [[]]), ({"a": "\x00"}, {"a": "\x01"}),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), DIFFS)
async def test_a_diff_leads_from_one_version_to_the_other(tx: Transaction, one: Any, other: Any) -> None:
    await tx.run(put(one))
    await tx.run(put(other))
    forth = value_of(await tx.run(documents.Diff(project=P, kind="plan", key="k", version=1)))
    back = value_of(await tx.run(documents.Diff(project=P, kind="plan", key="k", version=2, other=1)))
    assert applied(one, forth) == other
    assert applied(other, back) == one
    assert (forth == []) == (one == other)


EXACT = [
    "1e16", "-0.0", "1.50", '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '{"\\u0000":{"\\udfff":"\\\\u0000"}}', '"\\ue000d800"',
    '{"a": 100000000000000000000000000000000001, "b": 1E+2}',
]  # fmt: skip


@pytest.mark.parametrize("text", EXACT)
async def test_what_jsonb_refuses_or_rewrites_is_returned_unchanged(tx: Transaction, text: str) -> None:
    await tx.run(put(JsonText(text.encode())))
    assert bytes((await tx.run(get())).text).decode() == text
    assert await tx.connection.fetchval("select value is not null from coordinator.documents_live")
    await tx.run(delete())
    await tx.run(restore())
    assert bytes((await tx.run(get())).text).decode() == text


async def test_a_change_keeps_parts_that_jsonb_refuses(tx: Transaction) -> None:
    text = '{"nul": "\\u0000", "half": ["\\ud800", {"id": "x"}], "mark": "\ue000dead", "escaped": "\\ue0001234", "no": "\\\\u0000"}'
    await tx.run(put(JsonText(text.encode())))
    await tx.run(patch(JsonText(b'{"new\\u0000": "\\udfff"}')))
    await tx.run(item("x", {"\x00": 1}, kind="plan", path=["half"]))
    expected = json.loads(text) | {"new\x00": "\udfff", "half": ["\ud800", {"id": "x", "\x00": 1}]}
    assert (await tx.run(get())).value == expected
    assert (await tx.run(get(path=["nul"]))).value == "\x00"
    change = value_of(await tx.run(documents.Diff(project=P, kind="plan", key="k", version=1)))
    assert applied(json.loads(text), change) == expected


# What several sessions do at once.


@pytest.fixture
async def several(database_url: str) -> AsyncIterator[list[asyncpg.Connection]]:
    async with AsyncExitStack() as stack:
        found = [await connect(database_url) for _ in range(AGENTS)]
        for connection in found:
            stack.push_async_callback(connection.close)
        yield found


async def test_twelve_agents_change_items_of_one_list_and_lose_none(several: list[asyncpg.Connection]) -> None:
    await call(several[0], put([{"id": n, "done": 0} for n in range(UPDATES)], kind="todo"))

    async def agent(number: int) -> None:
        for n in range(number, UPDATES, AGENTS):
            await call(several[number], item(str(n), {"done": 1}))

    await asyncio.gather(*map(agent, range(AGENTS)))
    document = await call(several[0], get(kind="todo"))
    assert document.version == UPDATES + 1
    assert [one["done"] for one in document.value] == [1] * UPDATES


async def test_the_same_by_get_and_put_without_expect_loses_some(several: list[asyncpg.Connection]) -> None:
    """Twelve read before one of them writes: each put replaces the one before."""
    await call(several[0], put([{"id": n, "done": 0} for n in range(UPDATES)], kind="todo"))
    for first in range(0, UPDATES, AGENTS):
        read = await asyncio.gather(*(call(session, get(kind="todo")) for session in several))
        for number, (session, document) in enumerate(zip(several, read, strict=True)):
            document.value[first + number]["done"] = 1
            await call(session, put(document.value, kind="todo"))
    done = sum(one["done"] for one in (await call(several[0], get(kind="todo"))).value)
    assert done == UPDATES // AGENTS


async def test_of_first_writers_who_expect_absence_one_succeeds(several: list[asyncpg.Connection]) -> None:
    found = await asyncio.gather(
        *(call(session, put(n, expect=0)) for n, session in enumerate(several)), return_exceptions=True
    )
    assert [type(one) for one in found if not isinstance(one, DocumentHeader)] == [Conflict] * (AGENTS - 1)
    for turn in range(10):
        free = await asyncio.gather(*(call(session, put(n, f"free/{turn}")) for n, session in enumerate(several)))
        assert sorted(header.version for header in free) == list(range(1, AGENTS + 1))


async def test_a_change_waits_for_another_and_builds_on_it(several: list[asyncpg.Connection]) -> None:
    await call(several[0], put({}))
    await while_uncommitted(*several[:3], patch({"a": 1}), patch({"b": 2}))
    assert (await call(several[0], get())).value == {"a": 1, "b": 2}
    _, error = await while_uncommitted(*several[:3], delete(), patch({"c": 3}))
    assert getattr(error, "code", None) == "ZC217"


async def test_a_deleted_project_leaves_no_document(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))
    await tx.run(documents.Put(project="p", kind="plan", key="k", value=text_of(1)))
    await tx.run(put())
    await tx.run(projects.Delete(project="p"))
    counts = "select (select count(*) from coordinator.documents), (select count(*) from coordinator.document_versions)"
    assert tuple(await tx.connection.fetchrow(counts) or ()) == (1, 1)


async def test_a_state_belongs_to_the_session_that_is_its_key_and_others_by_name(tx: Transaction) -> None:
    assert (await tx.run(put({}, key="s", kind="state"))).session == "s"
    assert (await tx.run(put({}, key="s/plan", session="s"))).session == "s"
    assert (await tx.run(get("s/plan"))).session == "s"
    assert (await tx.run(put({}, key="s/plan"))).session == "s"
    assert (await tx.run(put({}))).session is None
    await refused(tx, put({}, key="other", session="s"), "ZC105")
    await refused(tx, put({}, key="s/x", kind="state", session="s"), "ZC105")
    await tx.run(sessions.Archive(project=P, session="s"))
    for operation in (
        put({}, key="s", kind="state"),
        patch({}, "s/plan"),
        delete("s/plan"),
        put({}, key="s/new", session="s"),
    ):
        await refused(tx, operation, "ZC332")


async def test_the_views_of_our_kinds_have_what_people_look_for(tx: Transaction) -> None:
    text = '{"a": "\\u0000\\ud800"}'
    await tx.run(put(JsonText(text.encode()), "s", "state"))
    for key, statuses, of_list in (
        ("a", ["PENDING", None], "PENDING"), ("b", ["COMPLETED", "PENDING"], "IN_PROGRESS"), ("c", ["COMPLETED", "done"], "COMPLETED"),
    ):  # fmt: skip
        await tx.run(put({"items": [{"id": n, "status": s} for n, s in enumerate(statuses)]}, key, "todo"))
        assert of_list == await tx.connection.fetchval(
            "select status from coordinator.todo_lists where todolist_id = $1", key
        )
    await tx.run(put({"items": [], "status": "own"}, "d", "todo"))
    await tx.run(put([{"id": 1}], "main", "features"))
    state = await tx.connection.fetchrow(
        "select id, session_id, state_json ->> 'a' as a, version, timestamp from coordinator.states"
    )
    assert state
    assert (state["a"], state["session_id"] is not None) == ("\ufffd\ufffd", True)
    lists = await tx.connection.fetch(
        "select todolist_id, session_id, plan_json, status, created_at, updated_at from coordinator.todo_lists order by 1"
    )
    assert [row["status"] for row in lists] == ["PENDING", "IN_PROGRESS", "COMPLETED", "own"]
    assert await tx.connection.fetchval("select content -> 0 ->> 'id' from coordinator.project_features") == "1"
    await tx.set_clock(timedelta(days=400))
    assert len(await tx.connection.fetch("select from coordinator.states")) == 1


async def test_a_document_put_while_its_project_is_deleted_is_never_seen_and_is_pruned(
    several: list[asyncpg.Connection],
) -> None:
    one, two = several[:2]
    await call(one, projects.Create(project="p"))
    transaction = one.transaction()
    await transaction.start()
    await call(one, documents.Put(project="p", kind="plan", key="k", value=text_of(1)))
    assert await call(two, projects.Delete(project="p"))
    await transaction.commit()
    assert await two.fetch("select from coordinator.documents_live") == []
    assert await call(two, documents.Prune()) == 1
    assert await call(two, documents.Prune()) == 0
    assert await two.fetchval("select count(*) from coordinator.documents") == 0


async def test_of_repeated_keys_the_last_counts_as_in_every_reader(tx: Transaction) -> None:
    await tx.run(put(JsonText(b'{"b": 1, "a": 2, "b": 3}')))
    assert (await tx.run(get())).value == {"a": 2, "b": 3}


async def test_a_document_can_be_kept_from_retention_also_after_it_was_deleted(tx: Transaction) -> None:
    def keep(**fields: Any) -> documents.Keep:
        return documents.Keep(project=P, kind="plan", key="k", **fields)

    await refused(tx, keep(), "ZC217")
    await tx.run(put())
    assert [await tx.run(keep()), await tx.run(keep()), (await tx.run(get())).kept] == [True, False, True]
    await tx.run(delete())
    assert [await tx.run(keep(kept=False)), await tx.run(keep(kept=False))] == [True, False]
    assert await tx.connection.fetchval("select expires_at is not null from coordinator.documents")


async def test_with_many_documents_every_call_finds_its_rows_by_an_index(tx: Transaction) -> None:
    await tx.connection.execute("""
      insert into coordinator.documents (project_id, kind, key, version, epoch, actor, created_at, updated_at, expires_at)
        select 1 + n % 20, 'k' || n % 7, 'key' || n, 12, 0, 'a', now(), now(), case when n % 50 = 0 then now() + n * interval '1 second' end
        from generate_series(1, 4000) n;
      insert into coordinator.document_versions (document_id, version, epoch, actor, written_at, value)
        select d.id, v, 0, 'a', now(), '1' from coordinator.documents d, generate_series(3, 12) v;
      analyze coordinator.documents; analyze coordinator.document_versions""")

    async def read(operation: Any) -> int:
        count = (
            "select sum(seq_tup_read) from pg_stat_xact_all_tables where relname in ('documents', 'document_versions')"
        )
        before = await tx.connection.fetchval(count)
        await tx.run(operation)
        return int(await tx.connection.fetchval(count) - before)

    await tx.run(put())
    for operation in (
        put(2), put({"a": 1}), patch({"a": 2}), get(), get(version=2), get(path=["a"]), delete(), restore(), put([{"id": 1}], key="t", kind="todo"),
        item("1", {"x": 1}, key="t"), documents.List(project=P), documents.List(project=P, kind="plan", prefix="k"),
        documents.History(project=P, kind="plan", key="k"), documents.Diff(project=P, kind="plan", key="k", version=1),
    ):  # fmt: skip
        assert await read(operation) == 0, operation
