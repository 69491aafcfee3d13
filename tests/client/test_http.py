"""What only HTTP has: tokens, proxies, streams that are cut. The rest is in test_behaviour."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import anyio.abc
import msgspec
import pytest
from structlog.testing import capture_logs

import coordinator
from coordinator.api.endpoint import endpoints
from coordinator.api.ring import frame_of
from coordinator.client.http import HttpExecutor
from coordinator.client.wire import message_of, result_of
from coordinator.config import Config, load
from coordinator.db.database import Database
from coordinator.errors import (
    ConfigurationError,
    DatabaseUnavailable,
    InvalidArgument,
    PermissionDenied,
    SchemaMismatch,
    Unauthenticated,
)
from coordinator.model.event import Event
from coordinator.model.operation import Operation
from coordinator.model.token import new_secret
from coordinator.operations import events, projects, signals, tokens
from coordinator.operations.events import Since
from coordinator.telemetry import metrics
from tests.daemon import Daemon
from tests.waiting import DEADLINE_S, until


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that gives one answer on each connection and hangs up; with what it was sent."""
    asked: list[bytes] = []
    left = list(answers)

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            asked.append(await stream.receive())
            if left and (answer := left.pop(0)):
                await stream.send(answer)

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield f"http://127.0.0.1:{port}", asked
        tasks.cancel_scope.cancel()
    await listener.aclose()


def answer(status: int, body: bytes, media_type: str = "application/json") -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        status,
        media_type.encode(),
        len(body),
        body,
    )


async def test_a_token_opens_what_it_is_for_and_is_never_shown(
    db: Database, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret, other = new_secret(), new_secret()
    await db.run(projects.Create(project="shop"))
    await db.run(tokens.Create(name="a", role="agent", hash=secret.hash, prefix=secret.prefix, project="shop"))
    with caplog.at_level(logging.DEBUG), Daemon(database_url, access="tokens") as daemon:
        await daemon.ready()
        async with coordinator.connect(daemon.url, project="shop", token=secret.text, agent="coder") as client:
            assert (await client.signals.set("k", 1)).actor == "coder"
            stream = client.events.stream(topics=["signal.set"], after=None)
            with anyio.fail_after(DEADLINE_S):
                assert (await anext(stream)).key == "k"
            with pytest.raises(PermissionDenied) as denied:
                await client.rules.set("A", ["B"])
            assert denied.value.hint
            with pytest.raises(PermissionDenied):
                await client.events.since(everywhere=True)
        for token in (None, other.text):
            async with coordinator.connect(daemon.url, project="shop", token=token) as client:
                with pytest.raises(Unauthenticated) as refused:
                    await client.signals.list()
            assert other.text not in str(refused.value)
        assert secret.text not in caplog.text + daemon.output()


async def test_a_stream_that_is_refused_does_not_end_the_client(db: Database, database_url: str) -> None:
    secret = new_secret()
    await db.run(projects.Create(project="shop"))
    await db.run(tokens.Create(name="a", role="agent", hash=secret.hash, prefix=secret.prefix, project="shop"))
    with Daemon(database_url, access="tokens") as daemon:
        await daemon.ready()
        async with coordinator.connect(daemon.url, project="shop", token=secret.text) as client:
            with capture_logs() as logs:
                with pytest.raises(PermissionDenied):
                    await anext(client.events.stream(everywhere=True))
                await until(lambda: "stream.listen_failed" in [entry["event"] for entry in logs])
            assert await client.signals.list() == []


def test_the_token_is_a_setting_and_a_malformed_one_is_not_repeated() -> None:
    secret = new_secret()
    assert load(environment={"COORDINATOR_TOKEN": secret.text}).token == secret.text
    with pytest.raises(ConfigurationError) as raised:
        load(environment={"COORDINATOR_TOKEN": "hunter2"})
    assert "hunter2" not in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://h:0",
        "http://h:port",
        "https://user:secret@h",
        "http://h/?q=1",
        "unix://host/path",
        "unix:///",
        "http://[::1",
    ],
)
async def test_an_address_that_is_none_is_a_configuration_error_without_its_secrets(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        async with coordinator.connect(url):
            pytest.fail("entered")
    assert raised.value.hint
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["http://1.2.3.4.5:80", "http://a..b:80"])
async def test_a_host_that_cannot_exist_is_unavailable_at_once(unresolved: None, url: str) -> None:
    async with HttpExecutor.open(url, Config()) as executor:
        with anyio.fail_after(DEADLINE_S):
            with pytest.raises(DatabaseUnavailable):
                await executor.run(events.Head())
            with pytest.raises(DatabaseUnavailable):
                async with executor.wake():
                    pytest.fail("entered")


async def test_a_read_is_asked_again_and_a_write_is_not() -> None:
    config = Config(min_connections=1, max_connections=1, call_timeout_s=5)
    listing = answer(200, b'{"items":[],"cursor":null,"event_cursor":"a.0"}')
    async with answering(b"", listing) as (url, asked), coordinator.connect(url, config=config) as client:
        assert await client.signals.list() == []
        assert len(asked) == 2
    async with answering(b"", listing) as (url, asked), coordinator.connect(url, config=config) as client:
        with pytest.raises(DatabaseUnavailable) as raised:
            await client.signals.set("k")
        assert "may or may not" in (raised.value.hint or "")
        assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (502, b"<html>bad gateway</html>", DatabaseUnavailable),
        (503, b'{"type":"urn:coordinator:overloaded","detail":"x","code":"ZH503"}', DatabaseUnavailable),
        (200, b"<html>hello</html>", DatabaseUnavailable),
        (403, b"", PermissionDenied),
        (413, b'{"type":"urn:coordinator:too-large","detail":"x","code":"ZH413"}', InvalidArgument),
        (302, b"", coordinator.errors.CoordinatorError),
    ],
)
async def test_words_in_between_are_understood(status: int, body: bytes, kind: type[Exception]) -> None:
    async with answering(answer(status, body)) as (url, asked), coordinator.connect(url) as client:
        with pytest.raises(kind) as raised:
            await client.signals.set("k")
        assert type(raised.value) is kind
        assert len(asked) == 1


async def test_a_call_ends_in_its_time_when_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = Config(min_connections=1, max_connections=1, call_timeout_s=0.3)
        async with coordinator.connect(url, config=config) as client:
            with anyio.fail_after(DEADLINE_S), pytest.raises(DatabaseUnavailable):
                await client.signals.list()


def test_every_operation_can_be_written_as_a_message_for_its_endpoint() -> None:
    samples: dict[Any, Any] = {str: "text", int: 7, timedelta: timedelta(seconds=1)}
    for endpoint in endpoints():
        values = {
            field.name: samples.get(field.type, [] if "list" in str(field.type) else None)
            for field in msgspec.structs.fields(endpoint.operation)
            if field.required
        }
        message = message_of(endpoint.operation(**values))
        assert message.method == endpoint.method
        assert message.path.startswith(endpoint.path.partition("{")[0])
    with pytest.raises(ConfigurationError):
        message_of(signals.Expire())


def test_an_event_that_cannot_be_decoded_hides_no_other() -> None:
    event = '{"cursor":"e.%d","seq":%d,"type":"custom.x","project":"p","key":"k","actor":"a","at":"2026-01-01T00:00:00Z","data":%s}'
    bad = {2: '{"n":1e999}', 3: '{"n":' + "9" * 5000 + "}"}
    items = ",".join(event % (seq, seq, bad.get(seq, "{}")) for seq in range(1, 5))
    before = _unreadable("json_number")
    page = result_of(Since(), f'{{"items":[{items}],"cursor":"e.4","event_cursor":"e.4"}}'.encode())
    assert [event.seq for event in page] == [1, 2, 3, 4]
    assert [event.data for event in page] == [{}, {"unreadable": "json_number"}, {"unreadable": "json_number"}, {}]
    assert (page[1].cursor, page[1].type, page[1].key) == ("e.2", "custom.x", "k")
    assert _unreadable("json_number") == before + 2


def test_an_event_that_a_daemon_cannot_encode_hides_no_other_and_is_counted() -> None:
    before = _unreadable("json")
    event = Event(
        cursor="e.1",
        seq=1,
        type="custom.x",
        project="p",
        key=None,
        actor="a",
        at=datetime.now(UTC),
        data={"x": object()},
    )  # type: ignore[dict-item]
    assert b'"data":{"unreadable":"json"}' in frame_of(event).data
    assert _unreadable("json") == before + 1


def _unreadable(reason: str) -> float:
    return metrics.REGISTRY.get_sample_value("coordinator_value_unreadable_total", {"reason": reason}) or 0


@pytest.mark.parametrize("operation", [Since(), signals.List(project="p"), signals.Get(project="p", key="k")])
def test_a_response_of_another_shape_is_not_an_outage(operation: Operation[Any]) -> None:
    """A reader that waits for the database would ask for it for ever."""
    for body in (b'{"items":[{"cursor":"e.1"}],"cursor":"e.1"}', b"[" * 100_000, b"{"):
        with pytest.raises(SchemaMismatch) as raised:
            result_of(operation, body)
        assert raised.value.hint
