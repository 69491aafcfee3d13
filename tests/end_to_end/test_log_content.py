"""The content of entries, byte for byte: appended on each interface, read on each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import coordinator
from coordinator.model.catalogue import LIMITS
from coordinator.model.json import value_of
from coordinator.model.operation import JsonText
from tests.cli.conftest import Program
from tests.daemon import Daemon, opened
from tests.http_client import http_client

JSON = {"Content-Type": "application/json"}

blank = st.sampled_from(["", "", " ", "\n", "\t ", "\r\n"])
strange = [
    "\\u0000",
    "\\ud800",
    "\\uDFFF",
    "\\ud83d\\ude00",
    "\\\\",
    "\\\\u0000",
    '\\"',
    "\\/",
    "\x7f",
    "\u2028",
    "\ufffd",
]
plain = st.characters(exclude_categories=["Cs"], exclude_characters='"\\', min_codepoint=32)
string = st.lists(st.sampled_from(strange) | plain, max_size=8).map(lambda parts: f'"{"".join(parts)}"')
number = st.sampled_from(["0", "-0", "1e16", "1E+2", "10000000000000001", "0.10", "-1.5e-7", "1.7976931348623157e308"])
member = st.tuples(string, blank, st.deferred(lambda: text), blank).map(
    lambda one: f"{one[0]}{one[1]}:{one[2]}{one[3]}"
)
array = st.lists(st.deferred(lambda: text), max_size=3).map(lambda items: f"[{' ,'.join(items)}]")
mapping = st.tuples(blank, st.lists(member, max_size=3)).map(lambda one: f"{{{one[0]}{', '.join(one[1])}}}")
text: st.SearchStrategy[str] = st.one_of(string, number, st.sampled_from(["null", "true", "[ ]"]), array, mapping)


def texts(count: int) -> list[str]:
    """Return different texts of JSON."""
    found: dict[str, None] = {"[" + '"\\ud800",' * 3 + "1]": None}

    @settings(max_examples=count, deadline=None, database=None)
    @given(text)
    def collect(one: str) -> None:
        found[one] = None

    collect()
    return [*found]


@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=[pytest.mark.long, pytest.mark.slow])])
async def test_content_is_returned_byte_for_byte_on_every_interface(
    database_url: str, tmp_path: Path, count: int
) -> None:
    program = Program(tmp_path, {"COORDINATOR_DATABASE_URL": database_url})
    given_texts = texts(count)
    batches = [given_texts[at : at + 500] for at in range(0, len(given_texts), 500)]
    with Daemon(database_url) as daemon:
        await daemon.ready()
        async with (
            opened(database_url) as root,
            http_client(daemon.url) as http,
            coordinator.connect(database_url) as direct,
            coordinator.connect(daemon.url) as remote,
        ):
            for batch in batches:
                entries = "[" + ",".join(f'{{"data":{one}}}' for one in batch) + "]"
                sql = "select coordinator.log_append('default', 'note', 'sql', $1::text::json)"
                await root.execute(sql, entries)
                body = f'{{"kind": "note", "key": "http", "entries": {entries}}}'
                answer = await http.post("/v1/logs/append", content=body.encode(), headers=JSON)
                assert answer.status_code == 200, answer.text
                for key, client in (("direct", direct), ("remote", remote)):
                    await client.logs.append("note", key, *(JsonText(one.encode()) for one in batch))
                program.json("log", "append", "note", "program", "--entries", "-", stdin=entries.encode())
            printed = program.text("log", "read", "note", "program", "--data")
            assert printed == "".join(f"{one}\n" for one in given_texts)
            for key in ("sql", "http", "direct", "remote", "program"):
                read = "select data::text from coordinator.log_read('default', 'note', $1, p_limit => 10000)"
                assert [row[0] for row in await root.fetch(read, key)] == given_texts
                for client in (direct, remote):
                    entries_read = [entry async for entry in client.logs.read("note", key)]
                    assert [bytes(entry.text).decode() for entry in entries_read] == given_texts
                answer = await http.get("/v1/logs/read", params={"kind": "note", "key": key})
                assert f'"data":{given_texts[0]}}}'.encode() in answer.content
                assert f'"data":{given_texts[-1]}}}'.encode() in answer.content or answer.json()["cursor"]
            assert [entry.data async for entry in remote.logs.read("note", "sql")] == [*map(json.loads, given_texts)]
            # What SQL can look into: a value without what it cannot hold.
            await root.fetch("select data #>> '{}', data::jsonb, data -> 'a' from coordinator.entries_live")


async def test_a_value_of_a_megabyte_is_returned_and_a_byte_more_is_refused(database_url: str) -> None:
    largest = JsonText(b'"' + b"x" * (2**20 - 8) + b'\\ud800"')
    with Daemon(database_url) as daemon:
        await daemon.ready()
        for key, url in (("direct", database_url), ("remote", daemon.url)):
            async with coordinator.connect(url) as client:
                await client.logs.append("note", key, largest, largest, largest)
                assert {bytes(entry.text) async for entry in client.logs.read("note", key)} == {bytes(largest)}
                with pytest.raises(coordinator.InvalidArgument) as raised:
                    await client.logs.append("note", key, 1, JsonText(b" " + bytes(largest)[:-1] + b'x"'))
                assert json.loads(raised.value.detail or "") == {"entry": 1}
        async with http_client(daemon.url) as http:
            whole = b'{"kind": "note", "key": "k", "entries": [{"data": 1}]}'.ljust(LIMITS["log_body"])
            assert (await http.post("/v1/logs/append", content=whole, headers=JSON)).status_code == 200
            assert (await http.post("/v1/logs/append", content=whole + b" ", headers=JSON)).status_code == 413
    assert value_of(largest)[-1] == "\ud800"
