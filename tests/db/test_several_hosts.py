"""An address with several hosts: whichever of them fails, and however, the one that serves is found."""

from __future__ import annotations

from urllib.parse import urlsplit

import anyio
import pytest

from coordinator.db import connection
from coordinator.errors import DatabaseUnavailable
from coordinator.model.address import hosts_apart
from tests.faults.proxy import Proxy
from tests.waiting import DEADLINE_S


def joined(*proxies: Proxy) -> str:
    """Return one address with the hosts of all."""
    first, *others = (urlsplit(proxy.url) for proxy in proxies)
    hosts = ",".join([first.netloc, *(each.netloc.rpartition("@")[2] for each in others)])
    return first._replace(netloc=hosts, query=f"{first.query}&target_session_attrs=read-write").geturl()


async def test_a_host_that_does_not_respond_does_not_block_the_next_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT_S", 3600)
    silent, serving = Proxy(database_url), Proxy(database_url)
    async with silent.serving(), serving.serving():
        silent.go_silent()
        with anyio.fail_after(DEADLINE_S):
            found = await connection.connect(joined(silent, serving))
        assert await found.fetchval("select 1") == 1
        found.terminate()
        silent.speak_again()  # its attempt has been cancelled: what comes now interests nobody


async def test_a_host_that_refuses_does_not_block_the_next_one(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "NEXT_HOST_S", 3600)
    refusing, serving = Proxy(database_url), Proxy(database_url)
    async with refusing.serving(), serving.serving():
        await refusing.refuse()
        with anyio.fail_after(DEADLINE_S):
            found = await connection.connect(joined(refusing, serving))
        found.terminate()
        await serving.refuse()
        with pytest.raises(DatabaseUnavailable, match="no answer from the database"):
            await connection.connect(joined(refusing, serving))


def test_the_hosts_of_an_address_keep_everything_else() -> None:
    assert hosts_apart("postgresql://u:p%2C@a:1,[::1]:2,c/d?sslmode=require") == [
        f"postgresql://u:p%2C@{host}/d?sslmode=require" for host in ("a:1", "[::1]:2", "c")
    ]
    for whole in (
        "postgresql://u@a/d",
        "postgresql:///d?host=/run,/tmp",
        "postgresql://a,b/d?target_session_attrs=prefer-standby",
    ):
        assert hosts_apart(whole) == [whole]
