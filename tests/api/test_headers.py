"""The headers that the daemon reads and sends, and those that its description has."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from coordinator import api
from coordinator.api import forwarded, origin, tracing
from coordinator.api.openapi import document
from tests.daemon import Daemon
from tests.http_client import http_client
from tests.waiting import until

# What no description has, and why.
READ_ANYWAY = {
    "how OpenAPI says otherwise what they are": "accept authorization content-type content-length",
    "a browser sends them, and no page can choose them": "host origin sec-fetch-site",
    "proxies send them": "forwarded x-forwarded-for",
    "a request with one of them is refused": "content-encoding content-range",
    "other names of Repr-Digest, which its description has": "content-digest digest",
}
SENT_ANYWAY = {
    "how OpenAPI says otherwise what they are": "content-type content-length",
    "they concern the connection, or caches and proxies on the way": "connection transfer-encoding date cache-control x-accel-buffering",
    "they tell a browser what it must not do": "x-content-type-options content-security-policy cross-origin-resource-policy",
    "of 405, which no operation has": "allow",
}
FOLDER = Path(api.__file__).parent


def listed(reasons: dict[str, str]) -> set[str]:
    return {name for names in reasons.values() for name in names.split()}


@pytest.fixture(scope="module")
def description() -> dict[str, Any]:
    return document()


def parameters_of(description: dict[str, Any]) -> set[str]:
    """Return the names of all headers of requests."""
    described = [*description["components"]["parameters"].values()]
    for methods in description["paths"].values():
        for method, operation in methods.items():
            described += [] if method == "parameters" else operation["parameters"]
    return {one["name"].lower() for one in described if one["in"] == "header"}


def nodes() -> Iterator[ast.AST]:
    for path in FOLDER.glob("*.py"):
        yield from ast.walk(ast.parse(path.read_text("utf-8")))


def read_by_the_code() -> set[str]:
    """Return the names that the code gives to ``header()`` and ``headers.get()``, compares with those of a request, or keeps in a set of them."""
    found = {*tracing._READ, *origin._READ, *forwarded.FORWARDING}
    names = {name.decode() for name in found}
    for node in nodes():
        match node:
            case ast.Call(func=ast.Attribute(attr="header"), args=[ast.Constant(value=str(name)), *_]):
                names.add(name)
            case ast.Call(
                func=ast.Attribute(attr="get", value=ast.Attribute(attr="headers")),
                args=[ast.Constant(value=str(name)), *_],
            ):
                names.add(name)
            case ast.Compare(left=ast.Name(id="name"), comparators=[ast.Constant(value=bytes(value))]):
                names.add(value.decode())
            case ast.For(iter=ast.Tuple(elts=given), body=[ast.Assign(value=ast.Call(func=ast.Attribute(attr="header"))), *_]):  # fmt: skip
                names |= {name.value for name in given if isinstance(name, ast.Constant)}
    return names


def sent_by_the_code() -> set[str]:
    """Return the names of pairs of bytes, such as of ``(b"etag", …)``."""
    names = set()
    for node in nodes():
        match node:
            case ast.Tuple(elts=[ast.Constant(value=bytes(name)), _]) if re.fullmatch(rb"[a-z]+(-[a-z]+)*", name):
                names.add(name.decode())
    return names - {"host"}  # of a request within the process


def test_each_header_that_is_read_is_described(description: dict[str, Any]) -> None:
    read = read_by_the_code()
    assert read >= {"traceparent", "x-request-id", "authorization", "idempotency-key", "range", "digest", "accept"}
    assert parameters_of(description) == read - listed(READ_ANYWAY)
    assert listed(READ_ANYWAY) <= read


def test_each_header_that_is_sent_is_described(description: dict[str, Any]) -> None:
    sent = sent_by_the_code()
    assert sent >= {"x-request-id", "position", "replica-lag", "retry-after", "etag", "event-cursor"}
    assert {name.lower() for name in description["components"]["headers"]} == sent - listed(SENT_ANYWAY)
    assert listed(SENT_ANYWAY) - {"date"} <= sent  # the server's


def test_pages_of_other_sites_may_send_and_read_what_is_described(description: dict[str, Any]) -> None:
    assert {*origin._REQUEST_HEADERS} == parameters_of(description) | {"authorization"}
    assert {*origin._RESPONSE_HEADERS} == {name.lower() for name in description["components"]["headers"]}


async def test_responses_have_the_headers_of_their_description(
    http: httpx.AsyncClient, project: str, description: dict[str, Any]
) -> None:
    seen: set[str] = set()

    async def ask(path: str, method: str, url: str, status: int, *expected: str, **options: Any) -> httpx.Response:
        answer = await http.request(method.upper(), url, **options)
        assert answer.status_code == status, answer.text
        described = description["paths"][path][method]["responses"][str(status)]
        if "$ref" in described:
            described = description["components"]["responses"][described["$ref"].rpartition("/")[2]]
        names = {name.lower() for name in described["headers"]}
        sent = {name.lower() for name in answer.headers} - listed(SENT_ANYWAY)
        assert sent <= names, f"{method} {url}: {sent - names} is not described"
        assert sent >= {"x-request-id", *expected}
        seen.update(sent)
        return answer

    body = {"project": project, "key": "k", "value": 1}
    post, get = "/v1/signals/set", "/v1/signals/{key}"
    key = {"idempotency-key": f"{project}/1"}
    first = await ask(post, "post", post, 200, "position", "etag", json=body, headers=key)
    again = await ask(post, "post", post, 200, "idempotency-replayed", "position", json=body, headers=key)
    assert again.headers["position"] == first.headers["position"]
    await ask(post, "post", post, 412, json=body, headers={"if-none-match": "*"})
    await ask(post, "post", post, 409, json=body | {"expect": 0})
    await ask(post, "post", post, 415, content=b"{}")
    await ask(post, "post", post, 422, json=body | {"key": 1})
    place = {"project": project}
    etag = first.headers["etag"]
    await ask(get, "get", "/v1/signals/k", 200, "etag", "event-cursor", params=place)
    await ask(get, "get", "/v1/signals/k", 304, "etag", "event-cursor", params=place, headers={"if-none-match": etag})
    await ask(get, "get", "/v1/signals/absent", 404, params=place)
    await ask("/v1/signals", "get", "/v1/signals", 200, params=place)
    path, url = "/v1/artifacts/{artifact}", "/v1/artifacts/a"
    content = ("etag", "accept-ranges", "content-disposition", "repr-digest")
    await ask(path, "put", url, 200, "etag", "position", content=b"bytes", params=place)
    await ask(path, "get", url, 200, *content, params=place)
    await ask(path, "head", url, 200, *content, params=place)
    await ask(path, "get", url, 206, "content-range", *content, params=place, headers={"range": "bytes=1-2"})
    await ask(path, "get", url, 416, "content-range", params=place, headers={"range": "bytes=9-"})
    assert seen == {name.lower() for name in description["components"]["headers"]} - {
        "replica-lag",  # tests/faults/test_replica.py
        "retry-after",
        "www-authenticate",
    }


async def test_refusals_have_the_headers_of_their_description(database_url: str, description: dict[str, Any]) -> None:
    shared = description["components"]["responses"]
    with Daemon(database_url, access="tokens", http_connections=1) as daemon:
        await daemon.ready()
        async with http_client(daemon.url) as one, http_client(daemon.url) as other:

            async def look() -> httpx.Response | None:
                answer = await one.get("/v1/signals")
                return answer if answer.status_code == httpx.codes.UNAUTHORIZED else None

            refused = await until(look, "earlier connections have ended, and this one is the only one")
            assert {"www-authenticate", "x-request-id"} <= {*refused.headers}
            full = await other.get("/v1/signals")
    assert full.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert "retry-after" in full.headers
    assert {"WWW-Authenticate", "X-Request-ID"} == {*shared["401"]["headers"]}
    assert {"Retry-After", "X-Request-ID"} == {*shared["503"]["headers"]}
