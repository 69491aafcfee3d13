"""Whose address a request comes from behind reverse proxies, and that nobody else can say it."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from starlette.types import Receive, Scope, Send

from coordinator.api.forwarded import Forwarded, trusted_proxies
from coordinator.config import Config
from coordinator.errors import ConfigurationError
from tests.daemon import Daemon, opened
from tests.http_client import http_client
from tests.waiting import until

PROXIES = "10.1.0.0/16, 192.0.2.1, fd00::/8"
PROXY = "10.1.2.3"
CLIENT = "198.51.100.7"


async def client_of(peer: str | None, *given: str, name: str = "x-forwarded-for", **further: str) -> Any:
    """Return the address that a request has behind the middleware."""
    found = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        assert scope["scheme"] == "http"
        found.append(scope["client"] and scope["client"][0])

    async def unused(*_: Any) -> Any:
        raise AssertionError

    headers = [(name.encode(), value.encode("latin-1")) for value in given]
    headers += [(key.replace("_", "-").encode(), value.encode()) for key, value in further.items()]
    scope = {"type": "http", "scheme": "http", "client": peer and (peer, 4711), "headers": headers}
    await Forwarded(app, trusted_proxies(Config(trusted_proxies=PROXIES)))(scope, unused, unused)
    (client,) = found
    return client


@pytest.mark.parametrize(("given", "expected"), [
    ([CLIENT], CLIENT),
    ([f"203.0.113.9, {CLIENT}"], CLIENT),  # the client sent a header of its own
    (["203.0.113.9", CLIENT], CLIENT),  # and the proxy added a second one
    ([f"10.1.0.1, {CLIENT}"], CLIENT),  # the client names a proxy
    ([f"203.0.113.9, {CLIENT}, 10.1.0.9, 192.0.2.1"], CLIENT),  # three proxies in a row
    ([f"  {CLIENT}  ,10.1.0.9 "], CLIENT),
    ([f"{CLIENT}:52011"], CLIENT),
    (["[2001:db8::7]:52011"], "2001:db8::7"),
    (["2001:DB8:0::7"], "2001:db8::7"),
    (["::ffff:198.51.100.7"], CLIENT),
    (["fe80::1%eth0"], "fe80::1"),
    (["[fe80::1%25eth0]:9"], "fe80::1"),
    (["fe80::1%" + "z" * 10_000], "fe80::1"),
    (["10.1.0.5"], "10.1.0.5"),  # a proxy is itself the client
])  # fmt: skip
async def test_a_trusted_proxy_names_its_client(given: list[str], expected: str) -> None:
    for peer in (PROXY, "192.0.2.1", "fd00::1", "::ffff:10.1.2.3"):
        assert await client_of(peer, *given) == expected


@pytest.mark.parametrize("given", [
    [""], [" , "], ["unknown"], ["_hidden"], ["localhost"], ["x" * 10_000], ["\xff\xfe"], ["127.0.0.1.1"], ["1.2.3"], ["0x7f.1"], ["[::1"],
    ['"198.51.100.7"'], [CLIENT + "\t9"], [f"{CLIENT}, garbage"], [f"{CLIENT}, "],
    [f"{CLIENT}, 10.1.0.1/16"], ["99999999999999999999"],
])  # fmt: skip
async def test_what_is_not_an_address_leaves_the_proxy_as_the_client(given: list[str]) -> None:
    assert await client_of(PROXY, *given) == PROXY


async def test_thousands_of_hops_are_read_from_their_end() -> None:
    forged = "203.0.113.9, " * 4000
    assert await client_of(PROXY, f"{forged}{CLIENT}") == CLIENT
    assert await client_of(PROXY, *["203.0.113.9"] * 4000, CLIENT) == CLIENT
    assert await client_of(PROXY, f"{CLIENT}, " + "10.1.0.1, " * 4000 + "10.1.0.1") == CLIENT


@pytest.mark.parametrize("peer", [CLIENT, "10.2.0.1", "::1", "127.0.0.1", "192.0.2.2", "fe80::1%eth0"])
async def test_nobody_else_is_believed(peer: str) -> None:
    assert await client_of(peer, "203.0.113.9") == peer.partition("%")[0]
    assert await client_of(peer, PROXY) == peer.partition("%")[0]


async def test_other_headers_are_not_believed() -> None:
    assert await client_of(PROXY, "for=203.0.113.9", name="forwarded") == PROXY
    assert await client_of(PROXY, "203.0.113.9", name="x-real-ip") == PROXY
    assert await client_of(PROXY, CLIENT, x_forwarded_proto="https") == CLIENT
    assert await client_of(None, "203.0.113.9") is None


@pytest.mark.parametrize("given", ["0.0.0.0/0", "10.1.0.0/16, ::/0", "*", "all", "10.1.0.0/33", "10.1.2.3/16", "proxy.example", "10.1.0.0/16 10.2.0.0/16"])  # fmt: skip
def test_a_setting_that_anybody_could_use_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match="trusted_proxies") as refused:
        trusted_proxies(Config(trusted_proxies=given))
    assert refused.value.hint


async def test_events_and_log_lines_have_the_address_of_the_client_behind_a_proxy(api_url: str) -> None:
    key, forged = uuid4().hex, uuid4().hex
    with Daemon(api_url, trusted_proxies="127.0.0.0/8", slow_call_s=0) as daemon, Daemon(api_url) as other:
        await daemon.ready()
        await other.ready()
        headers = {"x-forwarded-for": f"203.0.113.9, {CLIENT}"}
        for url, name in ((daemon.url, key), (other.url, forged)):
            async with http_client(url) as http:
                answer = await http.post("/v1/signals/set", json={"key": name, "value": 1}, headers=headers)
                assert answer.status_code == 200, answer.text

        async def lines() -> list[dict[str, Any]]:
            found = daemon.lines("call.slow")
            return [line for line in found if line["function"] == "coordinator.signal_set" and "request_id" in line]

        (line,) = await until(lines, "the log has a line of the call")
        assert line["address"] == CLIENT
    assert await origin_of(api_url, key) == {"address": CLIENT}
    assert await origin_of(api_url, forged) == {"address": "127.0.0.1"}


async def origin_of(url: str, key: str) -> Any:
    """Return the origin of the event of a key, numbered or not."""
    async with opened(url) as connection:
        return json.loads(await connection.fetchval("select origin from coordinator.events where key = $1", key))
