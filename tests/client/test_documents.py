from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

import coordinator
from coordinator import Conflict, InvalidArgument, JsonText, NotFound
from coordinator.model.catalogue import LIMITS
from tests.daemon import Daemon
from tests.http_client import http_client

EXACT = JsonText(b'{"b": 1e16, "a":"\\u0000 \\ud800", "a" : 2}')


async def test_documents_on_every_connection(database_url: str) -> None:
    with Daemon(database_url) as daemon:
        await daemon.ready()
        for number, url in enumerate((database_url, daemon.url)):
            async with coordinator.connect(url, agent="ann") as client:
                documents, key = client.documents, f"k{number}"
                first = await documents.put("plan", key, {"a": 1, "half": "\ud800", "nul": "\x00"}, expect=0)
                assert (first.version, first.actor) == (1, "ann")
                read = await documents.get("plan", key)
                assert read.value == {"a": 1, "half": "\ud800", "nul": "\x00"}
                second = await documents.patch(
                    "plan", key, {"b": [{"id": 1}, {"id": "x"}], "half": "\udfff"}, expect=read
                )
                await documents.item("plan", key, "x", {"done": True, "half": "\ud800"}, path=["b"], expect=second)
                assert (await documents.get("plan", key, path=["b", 1])).value == {
                    "id": "x",
                    "done": True,
                    "half": "\ud800",
                }  # type: ignore[list-item]
                assert (await documents.get("plan", key, path=["nul"])).value == "\x00"
                with pytest.raises(Conflict) as stale:
                    await documents.put("plan", key, 1, expect=read)
                assert json.loads(stale.value.detail or "")["version"] == 3
                with pytest.raises(Conflict):
                    await documents.put("plan", key, 1, expect=3, epoch="00000000")
                await documents.put("plan", key, EXACT)
                assert bytes((await documents.get("plan", key)).text) == bytes(EXACT)
                assert (await documents.get("plan", key, at=datetime.now(UTC))).version == 4
                assert (await documents.diff("plan", key, 1, 2))[-1] == {
                    "op": "replace",
                    "path": "/half",
                    "value": "\udfff",
                }
                assert [one.version async for one in documents.history("plan", key, limit=3)] == [4, 3, 2, 1]
                assert [await documents.keep("plan", key), await documents.keep("plan", key, kept=True)] == [
                    True,
                    False,
                ]
                await documents.delete("plan", key, expect=4)
                with pytest.raises(NotFound) as absent:
                    await documents.get("plan", key)
                assert absent.value.code == "ZC217"
                assert (await documents.restore("plan", key, version=1)).version == 6
                assert [one.key for one in await documents.list("plan", prefix=key)] == [key]


async def test_states_todo_lists_and_features_are_documents(database_url: str) -> None:
    async with coordinator.connect(database_url) as client:
        saved = await client.states.save("s", {"step": 1})
        await client.states.save("s", {"step": 2}, expect=saved)
        for value in ([1], "text", 5, None):
            with pytest.raises(InvalidArgument) as refused:
                await client.states.save("s", value)
            assert refused.value.hint
        assert (await client.states.load("s")).value == {"step": 2}
        assert (await client.states.load("s", version=1, path=["step"])).value == 1
        assert (await client.sessions.show("s")).session == "s"
        with pytest.raises(InvalidArgument):
            await client.documents.put("state", "s", [1])
        await client.todos.save("release", {"items": [{"id": 3, "status": "PENDING"}]}, session=None)
        await client.todos.item("release", 3, {"status": "COMPLETED"})
        assert (await client.todos.load("release")).value == {"items": [{"id": 3, "status": "COMPLETED"}]}
        text = JsonText(b'[ {"passes":false,  "id":"login"} ]')
        await client.features.save("main", text)
        assert bytes((await client.features.load("main")).text) == bytes(text)
        await client.features.set("main", "login", passes=True, status="done")
        assert (await client.features.load("main")).value == [{"id": "login", "passes": True, "status": "done"}]


async def test_over_http_an_etag_has_the_epoch_and_a_body_may_have_the_largest_document_or_batch(
    database_url: str,
) -> None:
    with Daemon(database_url) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as http:
            body = {"kind": "plan", "key": "k", "value": "x" * (LIMITS["document"] - 2)}
            made = await http.post("/v1/documents/put", json=body, headers={"If-None-Match": "*"})
            assert made.headers["etag"] == f'"{made.json()["epoch"]}.1"'
            assert (
                await http.post("/v1/documents/put", json=body | {"value": "x" * LIMITS["document"]})
            ).status_code == 422
            too_large = body | {"value": "x" * LIMITS["document_body"]}
            assert (await http.post("/v1/documents/put", json=too_large)).status_code == 413
            json = {"Content-Type": "application/json"}
            for beyond, status in ((0, 200), (1, 422), (LIMITS["log_body"] - LIMITS["log_batch_bytes"], 413)):
                entries = b'[{"data": 1}' + b" " * (LIMITS["log_batch_bytes"] - 13 + beyond) + b"]"
                batch = b'{"kind": "note", "key": "k", "entries": ' + entries + b"}"
                assert (await http.post("/v1/logs/append", content=batch, headers=json)).status_code == status
            read = await http.get("/v1/documents/get?kind=plan&key=k")
            assert (read.headers["etag"], read.json()["value"]) == (made.headers["etag"], body["value"])
            same = {"If-None-Match": read.headers["etag"]}
            assert (await http.get("/v1/documents/get?kind=plan&key=k", headers=same)).status_code == 304
            lost = {"If-Match": '"00000000.1"'}
            assert (await http.post("/v1/documents/put", json=body | {"value": 1}, headers=lost)).status_code == 412
            for tag in (read.headers["etag"], '"2"'):
                done = await http.post("/v1/documents/put", json=body | {"value": 1}, headers={"If-Match": tag})
                assert done.status_code == 200, done.text
            assert (await http.post("/v1/signals/set", json={"key": "k", "value": 1}, headers=lost)).status_code == 422
            text = '{"kind": "plan", "key": "e", "value": {"a": 1e16, "b": "\\u0000\\ud800"}}'
            headers = {"Content-Type": "application/json", "Idempotency-Key": "once"}
            for _ in range(2):
                assert (await http.post("/v1/documents/put", content=text, headers=headers)).json()["version"] == 1
            assert (
                '"value":{"a": 1e16, "b": "\\u0000\\ud800"}'
                in (await http.get("/v1/documents/get?kind=plan&key=e")).text
            )
