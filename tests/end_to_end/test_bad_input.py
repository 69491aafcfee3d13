"""What is refused of agent state, on every interface: the same typed error with a hint, and nothing has changed."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

import coordinator
from coordinator.client import Client
from coordinator.db.call import call
from coordinator.errors import CoordinatorError, from_sqlstate
from coordinator.model.catalogue import LIMITS
from coordinator.model.log import NewEntry
from coordinator.model.operation import JsonText, Operation
from coordinator.model.page import walk
from coordinator.model.password import Password
from coordinator.operations import (
    artifacts,
    documents,
    knowledge,
    logs,
    memories,
    messages,
    retentions,
    sessions,
    transfers,
    users,
)
from tests.api.test_access import run
from tests.api.test_problems import problem
from tests.cli.conftest import Program
from tests.client.conftest import daemon_on
from tests.daemon import Daemon, opened
from tests.http_client import http_client

P = "default"
WEAK = "password123"
OTHER_FORMAT = '{"format": "tar", "version": 1, "export": "e"}'


def text(value: str) -> JsonText:
    return JsonText(value.encode())


def letters(count: int) -> str:
    """Return a JSON string of this many bytes."""
    return json.dumps("x" * (count - 2))


class Case(NamedTuple):
    """What is refused, with which code: as an operation (SQL and HTTP), by the client, and by the program."""

    code: str
    operation: Operation[Any]
    python: Callable[[Client], Awaitable[Any]]
    arguments: tuple[str, ...]
    stdin: str = ""
    detail: Mapping[str, Any] = MappingProxyType({})
    http_code: str | None = None  # where a body is too large before anybody looks into it
    command_code: str | None = None  # where the program itself cannot read it
    in_sql: bool = True


def log_case(code: str, entries: list[Any], key: str = "run", expect: int | None = None, **fields: Any) -> Case:
    """An append to a log: entries are values, or objects with all their fields."""
    given = [entry if isinstance(entry, NewEntry) else NewEntry(entry) for entry in entries]
    written = json.dumps([{"data": entry.data, **({} if entry.uid is None else {"uid": entry.uid})} for entry in given])
    return Case(
        code,
        logs.Append(project=P, kind="note", key=key, entries=text(written), expect=expect),
        lambda client: client.logs.append("note", key, *given, expect=expect),
        ("log", "append", "note", key, "--entries", "-", *(["--expect", str(expect)] if expect is not None else [])),
        written,
        **fields,
    )


def put_case(code: str, kind: str, key: str, value: str, expect: int | None = None, **fields: Any) -> Case:
    return Case(
        code,
        documents.Put(project=P, kind=kind, key=key, value=text(value), expect=expect),
        lambda client: client.documents.put(kind, key, text(value), expect=expect),
        ("document", "put", kind, key, "-", *(["--expect", str(expect)] if expect is not None else [])),
        value,
        **fields,
    )


def item_case(code: str, key: str, item: str, patch: str) -> Case:
    return Case(
        code,
        documents.Item(project=P, kind="plan", key=key, item=item, patch=text(patch), path=["items"]),
        lambda client: client.documents.item("plan", key, item, text(patch), path=["items"]),
        ("document", "item", "plan", key, item, patch, "--path", "items"),
    )


def fork_case(session: str, seq: int | None, code: str) -> Case:
    return Case(
        code,
        sessions.Fork(project=P, session=session, seq=seq),
        lambda client: client.sessions.fork(session, seq),
        ("session", "fork", session, *([] if seq is None else [str(seq)])),
    )


def retention_case(subject: Any, kind: str, count: int | None = None, age: timedelta | None = None) -> Case:
    bounds = {"max_age": age, "max_count": count}
    given = [] if age is None else [f"--max-age={age.total_seconds():g}s"]
    given += [] if count is None else [f"--max-count={count}"]
    return Case(
        "ZC104",
        retentions.Set(project=P, subject=subject, kind=kind, **bounds),
        lambda client: client.retentions.set(subject, kind, **bounds),
        ("retention", "set", subject, kind, *given),
        command_code="ZC100" if age else None,
    )


def large_file() -> Path:
    """Make a file of one byte more than an artifact may have; it takes no room."""
    path = Path("large")
    path.touch()
    os.truncate(path, LIMITS["artifact_bytes"] + 1)
    return path


async def first_of(listing: Any) -> Any:
    return await anext(aiter(listing))


CASES = {
    "unknown session, read": Case(
        "ZC215",
        messages.Window(project=P, session="none", last=1),
        lambda client: client.messages.window("none", last=1),
        ("message", "window", "none", "--last", "1"),
    ),
    "unknown session, shown": Case(
        "ZC215",
        sessions.Show(project=P, session="none"),
        lambda client: client.sessions.show("none"),
        ("session", "show", "none"),
    ),
    "unknown session, forked": fork_case("none", None, "ZC215"),
    "unknown session, archived": Case(
        "ZC215",
        sessions.Archive(project=P, session="none"),
        lambda client: client.sessions.archive("none"),
        ("session", "archive", "none"),
    ),
    "wrong shape of a todo list": put_case("ZC105", "todo", "new", '{"items": [{"status": "PENDING"}]}'),
    "wrong shape of features": put_case("ZC105", "features", "new", '"all"'),
    "wrong shape of a state": put_case("ZC105", "state", "new", "[1]"),
    "expect of a log": log_case("ZC301", [1], expect=9, detail={"last_seq": 1}),
    "expect of a log that is there": log_case("ZC301", [1], expect=0, detail={"last_seq": 1}),
    "expect of a document": put_case("ZC301", "plan", "one", "1", expect=9, detail={"version": 1}),
    "expect of a document that is there": put_case("ZC301", "plan", "one", "1", expect=0, detail={"version": 1}),
    "uid of other content": log_case("ZC331", [NewEntry({"n": 2}, uid="u1")]),
    "batch with one bad entry": Case(
        "ZC104",
        logs.Append(project=P, kind="note", key="new", entries=text('[{"data": 1}, {"data": 1e999}, {"data": 2}]')),
        lambda client: client.logs.append("note", "new", 1, text("1e999"), 2),
        ("log", "append", "note", "new", "--entries", "-"),
        '[{"data": 1}, {"data": 1e999}, {"data": 2}]',
        {"entry": 1},
    ),
    "entry too large": log_case("ZC102", ["x" * (LIMITS["log_entry"] - 1)], "new", detail={"entry": 0}),
    "batch of too many entries": log_case("ZC102", [1] * (LIMITS["log_batch"] + 1), "new"),
    "batch too large": log_case("ZC102", ["x" * 900_000] * 5, "new", http_code="ZH413"),
    "document too large": put_case("ZC102", "plan", "new", letters(LIMITS["document"] + 1)),
    "path too deep": Case(
        "ZC102",
        documents.Get(project=P, kind="plan", key="one", path=["0"] * (LIMITS["document_path"] + 1)),
        lambda client: client.documents.get("plan", "one", path=["0"] * (LIMITS["document_path"] + 1)),
        ("document", "get", "plan", "one", *["--path", "0"] * (LIMITS["document_path"] + 1)),
    ),
    "version no longer kept": Case(
        "ZC218",
        documents.Get(project=P, kind="state", key="s", version=1),
        lambda client: client.documents.get("state", "s", version=1),
        ("document", "get", "state", "s", "--version", "1"),
    ),
    "artifact too large": Case(
        "ZC102",
        artifacts.Begin(project=P, artifact="new", bytes=LIMITS["artifact_bytes"] + 1),
        lambda client: client.artifacts.put("new", large_file()),
        ("artifact", "put", "large"),
    ),
    "item absent": item_case("ZC219", "list", "9", "{}"),
    "item id twice": item_case("ZC333", "twice", "1", "{}"),
    "patch that is not an object": Case(
        "ZC105",
        documents.Patch(project=P, kind="plan", key="list", patch=text("[1]")),
        lambda client: client.documents.patch("plan", "list", text("[1]")),
        ("document", "patch", "plan", "list", "[1]"),
    ),
    "patch of an item that is not an object": item_case("ZC105", "list", "1", "1"),
    "empty search": Case(
        "ZC101",
        memories.Search(project=P, words=" "),
        lambda client: first_of(client.memories.search(" ")),
        ("memory", "search", " "),
    ),
    "empty search of knowledge": Case(
        "ZC101",
        knowledge.Search(project=P),
        lambda client: first_of(client.knowledge.search()),
        ("knowledge", "search"),
    ),
    "unknown language": Case(
        "ZC105",
        memories.Record(project=P, lesson="x", language="klingon"),
        lambda client: client.memories.record("x", language="klingon"),
        ("memory", "record", "x", "--language", "klingon"),
    ),
    "unknown language of a search": Case(
        "ZC105",
        memories.Search(project=P, words="x", language="klingon"),
        lambda client: first_of(client.memories.search("x", language="klingon")),
        ("memory", "search", "x", "--language", "klingon"),
    ),
    "username taken": Case(
        "ZC301",
        users.Create(username="Ada", role="agent"),
        lambda client: client.users.create("Ada"),
        ("user", "create", "Ada", "--no-password"),
    ),
    "email taken": Case(
        "ZC301",
        users.Create(username="eve", role="agent", email="ADA@example.org"),
        lambda client: client.users.create("eve", email="ADA@example.org"),
        ("user", "create", "eve", "--no-password", "--email", "ADA@example.org"),
    ),
    "weak password": Case(
        "ZC105",
        users.Create(username="eve", role="agent", password=Password(WEAK)),
        lambda client: client.users.create("eve", password=WEAK),
        ("user", "create", "eve"),
        WEAK + "\n",
        in_sql=False,  # which gets a hash
    ),
    "negative retention by age": retention_case("log", "note", age=timedelta(days=-1)),
    "negative retention by count": retention_case("document", "plan", count=-1),
    "too many versions kept": retention_case("document", "plan", count=LIMITS["retention_versions"] + 1),
    "archived session": Case(
        "ZC332",
        messages.Append(project=P, session="old", content=text('"x"'), role="user"),
        lambda client: client.messages.append("old", "user", "x"),
        ("message", "append", "old", "x", "--role", "user"),
    ),
    "fork beyond the end": fork_case("s", 3, "ZC335"),
    "fork before what is kept": fork_case("s", 1, "ZC335"),
    "import of another format": Case(
        "ZC105",
        transfers.Import(project="empty", export="e", lines=[json.loads(OTHER_FORMAT)]),
        lambda client: client.projects.import_([OTHER_FORMAT], "empty"),
        ("project", "import", "empty"),
        OTHER_FORMAT + "\n",
    ),
}


# Siblings of other cases: a process for each of them would show nothing more.
WITHOUT_A_PROCESS = {
    "unknown session, shown", "wrong shape of features", "wrong shape of a state", "expect of a log that is there",
    "expect of a document that is there", "empty search of knowledge", "unknown language of a search",
    "patch of an item that is not an object", "negative retention by count",
}  # fmt: skip


async def fill(client: Client) -> None:
    await client.states.save("s", {"n": 0})
    await client.messages.append("s", "user", "one")
    for number in range(1, 12):
        await client.states.save("s", {"n": number})
    await client.messages.append("s", "user", "two")
    await client.messages.append("old", "user", "one")
    await client.sessions.archive("old")
    await client.logs.append("note", "run", NewEntry({"n": 1}, uid="u1"))
    await client.documents.put("plan", "one", 1)
    await client.documents.put("plan", "list", {"items": [{"id": 1}]})
    await client.documents.put("plan", "twice", {"items": [{"id": 1}, {"id": 1}]})
    await client.users.create("ada", email="ada@example.org")
    await client.projects.create("empty")


@pytest.fixture(scope="module")
def daemon(server_url: str, template: str) -> Iterator[tuple[Daemon, str]]:
    async def prepared(url: str) -> None:
        async with coordinator.connect(url) as client:
            await fill(client)

    with daemon_on(server_url, template) as running:
        asyncio.run(prepared(running[1]))
        yield running


async def content(url: str) -> list[Any]:
    """Return all that a project exports, and how much there is of what it does not."""
    async with opened(url) as connection:
        export = transfers.Export(project=P)
        lines = [row.line async for page in walk(partial(call, connection), export) for row in page]
        tables = "users retention retention_sweeps artifact_blobs project_imports"
        counts = [await connection.fetchval(f"select count(*) from coordinator.{table}") for table in tables.split()]
        written = "select count(*) from coordinator.events where type not in ('token.created', 'relay.started')"
        return [lines[1:], counts, await connection.fetchval(written)]


@pytest.mark.parametrize("interface", ["sql", "http", "python", "command line"])
async def test_bad_input_is_refused_alike_and_changes_nothing(
    daemon: tuple[Daemon, str], interface: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, url = daemon
    monkeypatch.chdir(tmp_path)
    large_file()
    program = Program(tmp_path, {"COORDINATOR_DATABASE_URL": server.url})
    before = await content(url)
    wrong = {}
    async with opened(url) as connection, http_client(server.url) as http, coordinator.connect(server.url) as client:
        for name, case in CASES.items():
            if (interface == "sql" and not case.in_sql) or (interface == "command line" and name in WITHOUT_A_PROCESS):
                continue
            code = (case.http_code or case.code) if interface != "sql" else case.code
            code = case.command_code or code if interface == "command line" else code
            kind = from_sqlstate(case.code)
            try:
                match interface:
                    case "sql" | "python":
                        with pytest.raises(CoordinatorError) as raised:
                            await (call(connection, case.operation) if interface == "sql" else case.python(client))
                        error = raised.value
                        found = {"code": error.code, "hint": error.hint, **json.loads(error.detail or "{}")}
                        assert case.http_code or isinstance(error, kind)
                    case "http":
                        answer = await run(http, case.operation)
                        found = answer.json()
                        status, kind_name = (413, "too-large") if case.http_code else (kind.http_status, kind.name)
                        assert problem(answer, status, kind_name)
                        found = {**found, **(found.get("facts") or {})}
                    case _:
                        found = program.fails(
                            5 if case.http_code else kind.exit_code, *case.arguments, stdin=case.stdin.encode()
                        )
                        found = {**found, **(found.get("detail") or found.get("facts") or {})}
                assert found["code"] == code
                assert found["hint"]
                assert {key: found[key] for key in case.detail} == case.detail
            except (AssertionError, KeyError, TypeError, pytest.fail.Exception) as error:
                wrong[name] = " ".join(str(error).split())[:120]
    assert wrong == {}
    assert await content(url) == before
