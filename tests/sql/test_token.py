from __future__ import annotations

from datetime import timedelta
from typing import Any

import anyio
import pytest

from coordinator.db.connection import connect
from coordinator.errors import Conflict, CoordinatorError, InvalidArgument, NotFound, Unauthenticated
from coordinator.model.token import SECRET, digest, new_secret
from coordinator.operations import projects, tokens
from tests.conftest import Transaction
from tests.waiting import DEADLINE_S

HOUR = timedelta(hours=1)


def create(**given: Any) -> tokens.Create:
    secret = new_secret()
    return tokens.Create(**{"name": "ci", "role": "agent", "hash": secret.hash, "prefix": secret.prefix, **given})


def test_a_secret_is_new_each_time_and_shows_itself_to_nobody() -> None:
    first, second = new_secret(), new_secret()
    assert first.text != second.text
    assert SECRET.fullmatch(first.text)
    assert first.hash == digest(first.text)
    assert first.text.startswith(first.prefix)
    assert first.text not in f"{first} {first!r}"


async def test_a_token_is_found_by_its_hash_until_it_expires(tx: Transaction) -> None:
    made = await tx.run(create(project="default", ttl=HOUR))
    (hash_,) = await tx.connection.fetchrow("select hash from coordinator.tokens where id = $1", made.id)
    found = await tx.run(tokens.Authenticate(hash=hash_))
    assert (found.id, found.name, found.role, found.project) == (made.id, "ci", "agent", "default")
    assert await tx.run(tokens.Live(tokens=[made.id, -1])) == [made.id]
    await tx.set_clock(HOUR + timedelta(seconds=1))
    with pytest.raises(Unauthenticated) as raised:
        await tx.run(tokens.Authenticate(hash=hash_))
    assert raised.value.code == "ZC503"
    assert await tx.run(tokens.Live(tokens=[made.id])) == []


async def test_a_revoked_token_opens_nothing_and_is_revoked_once(tx: Transaction) -> None:
    operation = create()
    made = await tx.run(operation)
    assert await tx.run(tokens.Revoke(token=made.id)) is True
    assert await tx.run(tokens.Revoke(token=made.id)) is False
    with pytest.raises(Unauthenticated) as raised:
        await tx.run(tokens.Authenticate(hash=operation.hash))
    assert raised.value.code == "ZC502"
    assert [row["type"] for row in await tx.events()] == ["token.created", "token.revoked"]
    (listed,) = await tx.run(tokens.List())
    assert listed.revoked_at is not None


async def test_an_unknown_token_is_refused(tx: Transaction) -> None:
    with pytest.raises(Unauthenticated) as raised:
        await tx.run(tokens.Authenticate(hash=new_secret().hash))
    assert raised.value.code == "ZC501"
    with pytest.raises(NotFound):
        await tx.run(tokens.Revoke(token=12345))


async def test_neither_table_nor_event_nor_list_holds_what_opens(tx: Transaction) -> None:
    secret = new_secret()
    await tx.run(create(hash=secret.hash, prefix=secret.prefix))
    everything = str(await tx.connection.fetch("select t::text from coordinator.tokens t"))
    everything += str(await tx.events()) + str(await tx.run(tokens.List()))
    assert secret.prefix in everything
    assert secret.text not in everything
    assert secret.hash not in str(await tx.events()) + str(await tx.run(tokens.List()))


async def test_a_token_ends_with_its_project(tx: Transaction) -> None:
    await tx.run(projects.Create(project="p"))
    operation = create(project="p")
    made = await tx.run(operation)
    await tx.run(projects.Delete(project="p"))
    assert await tx.run(tokens.Live(tokens=[made.id])) == []
    with pytest.raises(Unauthenticated):
        await tx.run(tokens.Authenticate(hash=operation.hash))


async def test_use_is_noted_at_most_once_a_minute(tx: Transaction) -> None:
    made = await tx.run(create())
    assert made.last_used_at is None
    assert await tx.run(tokens.Use(token=made.id)) is True
    assert await tx.run(tokens.Use(token=made.id)) is False
    await tx.set_clock(timedelta(minutes=2))
    assert await tx.run(tokens.Use(token=made.id)) is True


async def test_tokens_that_ended_long_ago_go_when_a_new_one_is_made(tx: Transaction) -> None:
    old = await tx.run(create(ttl=HOUR))
    await tx.set_clock(timedelta(days=91))
    new = await tx.run(create())
    assert [token.id for token in await tx.run(tokens.List())] == [new.id]
    assert new.id > old.id


@pytest.mark.parametrize(
    ("given", "kind", "code"),
    [
        ({"role": "root"}, InvalidArgument, "ZC105"),
        ({"role": "admin", "project": "default"}, InvalidArgument, "ZC105"),
        ({"hash": "coo_secret"}, InvalidArgument, "ZC103"),
        ({"prefix": "abc"}, InvalidArgument, "ZC103"),
        ({"name": ""}, InvalidArgument, "ZC101"),
        ({"ttl": timedelta(days=367)}, InvalidArgument, "ZC104"),
        ({"project": "nowhere"}, NotFound, "ZC201"),
    ],
)
async def test_an_invalid_token_is_refused_with_a_hint(
    tx: Transaction, given: dict[str, Any], kind: type[CoordinatorError], code: str
) -> None:
    with pytest.raises(kind) as raised:
        await tx.run(create(**given))
    assert raised.value.code == code
    assert raised.value.hint
    assert await tx.events() == []


async def test_one_secret_makes_one_token(tx: Transaction) -> None:
    operation = create()
    await tx.run(operation)
    with pytest.raises(Conflict):
        await tx.run(operation)


async def test_revoking_notifies_gateways_without_a_relay(database_url: str) -> None:
    heard: list[str] = []
    listener, writer = await connect(database_url), await connect(database_url)
    try:
        await listener.add_listener("coordinator.token", lambda *call: heard.append(call[2]))
        secret = new_secret()
        number = await writer.fetchval(
            "select id from coordinator.token_create('ci', 'agent', $1, $2)", secret.hash, secret.prefix
        )
        await writer.execute("select coordinator.token_revoke($1)", number)
        with anyio.fail_after(DEADLINE_S):
            while not heard:
                await listener.execute("select 1")
        assert heard == ["coordinator.token"]
    finally:
        await listener.close()
        await writer.close()
