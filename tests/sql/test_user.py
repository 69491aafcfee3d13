"""Users: normal names, hashes that only administrators read, attempts that are counted, tokens that end with their user."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from coordinator.db.connection import connect
from coordinator.model.token import Token, new_secret
from coordinator.operations import sessions, tokens, users
from tests.conftest import Transaction
from tests.nouns.user import PHC
from tests.sql.refusal import refused
from tests.waiting import until_blocked

OTHER = PHC[:-1] + "x"


async def made(tx: Transaction, username: str = "ada", **fields: Any) -> None:
    await tx.run(users.Create(username=username, **fields))


async def token_of(tx: Transaction, username: str | None, role: str = "agent") -> Token:
    secret = new_secret()
    return await tx.run(tokens.Create(name="t", role=role, hash=secret.hash, prefix=secret.prefix, username=username))


async def challenged(tx: Transaction, username: str) -> str:
    return await tx.run(users.Challenge(username=username))


async def live(tx: Transaction, *numbers: int) -> list[int]:
    return await tx.run(tokens.Live(tokens=[*numbers]))


async def test_names_and_addresses_are_stored_in_lower_case_and_belong_to_one_user(tx: Transaction) -> None:
    user = await tx.run(users.Create(username="Ada.L", email="Ada@Example.ORG", role="manager"))
    assert (user.username, user.email, user.role, user.disabled_at) == ("ada.l", "ada@example.org", "manager", None)
    taken = await refused(tx, users.Create(username="ADA.l"), "ZC301")
    assert '"ada.l"' in taken.message
    taken = await refused(tx, users.Create(username="bob", email="ADA@example.org"), "ZC301")
    assert '"ada@example.org"' in taken.message
    await made(tx, "bob", email="")
    await made(tx, "carol")
    await refused(tx, users.Set(username="bob", email="ada@example.org"), "ZC301")
    assert [(one.username, one.email) for one in await tx.run(users.List())] == [
        ("ada.l", "ada@example.org"),
        ("bob", None),
        ("carol", None),
    ]


@pytest.mark.parametrize("name", ["", " ada", "ada\n", "a b", "ädä", "\u0430da", "-ada", "a@b", "a" * 65, "İ"])
async def test_a_name_that_could_be_taken_for_another_is_refused(tx: Transaction, name: str) -> None:
    await refused(tx, users.Create(username=name), "ZC103")


@pytest.mark.parametrize("email", ["ada", "@b", "a@", "a@b@c", "a b@c", "a@b\n", "a\u200b@b"])
async def test_an_address_that_is_none_is_refused(tx: Transaction, email: str) -> None:
    await refused(tx, users.Create(username="ada", email=email), "ZC103")


@pytest.mark.parametrize(
    "hash",
    [
        "",
        "correct horse battery",
        PHC + "x",
        PHC[:-1],
        PHC.replace("15", "14"),
        PHC.replace("scrypt", "md5"),
        PHC + "\n",
    ],
)
async def test_an_invalid_hash_is_refused_and_not_repeated(tx: Transaction, hash: str) -> None:
    await made(tx)
    for operation in (
        users.Create(username="bob", password=hash),  # type: ignore[arg-type]
        users.ChangePassword(username="ada", password=hash),  # type: ignore[arg-type]
        users.Verify(username="ada", password=hash),  # type: ignore[arg-type]
    ):
        error = await refused(tx, operation, "ZC103")  # type: ignore[arg-type]
        assert not hash or hash not in f"{error.message} {error.hint} {error.detail}"


async def test_a_user_is_verified_by_the_hash_alone(tx: Transaction) -> None:
    await made(tx, password=PHC)
    await made(tx, "bob")
    assert await challenged(tx, "ADA") == PHC[:44]
    assert (await tx.run(users.Verify(username="Ada", password=PHC))).username == "ada"  # type: ignore[arg-type]
    wrong = {
        (await refused(tx, users.Verify(username=name, password=OTHER), "ZC504")).message  # type: ignore[arg-type]
        for name in ("ada", "bob", "nobody")
    }
    assert len(wrong) == 1
    await tx.run(users.ChangePassword(username="ada", password=OTHER))  # type: ignore[arg-type]
    await refused(tx, users.Verify(username="ada", password=PHC), "ZC504")  # type: ignore[arg-type]
    await tx.run(users.Set(username="ada", disabled=True))
    error = await refused(tx, users.Verify(username="ada", password=OTHER), "ZC504")  # type: ignore[arg-type]
    assert "disabled" in error.message


@pytest.mark.parametrize("name", ["ada", "nobody"])
async def test_the_eleventh_attempt_in_a_quarter_of_an_hour_is_refused_also_for_a_name_without_a_user(
    tx: Transaction, name: str
) -> None:
    await made(tx, password=PHC)
    await tx.set_clock(timedelta(0))
    for _ in range(10):
        assert len(await challenged(tx, name)) == len(PHC[:44])
    await tx.set_clock(timedelta(minutes=5))
    error = await refused(tx, users.Challenge(username=name), "ZC505")
    assert "10m" in (error.hint or "")
    assert "retry_at" in json.loads(error.detail or "")
    await tx.set_clock(timedelta(minutes=15))
    await challenged(tx, name)
    assert await tx.connection.fetchval("select count from coordinator.user_attempts") == 1


async def test_success_and_a_new_password_clear_the_count(tx: Transaction) -> None:
    await made(tx, password=PHC)
    for clear in (
        users.Verify(username="ada", password=PHC),  # type: ignore[arg-type]
        users.ChangePassword(username="ada", password=PHC),  # type: ignore[arg-type]
    ):
        for _ in range(10):
            await challenged(tx, "ada")
        await tx.run(clear)  # type: ignore[arg-type]
        assert await tx.connection.fetchval("select count(*) from coordinator.user_attempts") == 0


async def test_attempts_that_are_over_are_deleted(tx: Transaction) -> None:
    await tx.set_clock(timedelta(0))
    for number in range(20):
        await challenged(tx, f"nobody{number}")
    await tx.set_clock(timedelta(minutes=16))
    await challenged(tx, "somebody")
    assert await tx.connection.fetchval("select count(*) from coordinator.user_attempts") == 1


async def test_sixteen_attempts_at_once_are_sixteen(database_url: str) -> None:
    connections = [await connect(database_url) for _ in range(16)]
    try:
        done = await asyncio.gather(
            *(c.fetchval("select coordinator.user_challenge('ada')") for c in connections), return_exceptions=True
        )
        assert sum(isinstance(one, str) for one in done) == 10
        assert {one.sqlstate for one in done if isinstance(one, asyncpg.PostgresError)} == {"ZC505"}
    finally:
        for connection in connections:
            await connection.close()


async def test_a_token_has_no_more_than_its_user_and_no_other_end(tx: Transaction) -> None:
    await made(tx, role="manager")
    token = await token_of(tx, "Ada", "manager")
    assert token.username == "ada"
    assert [one.username for one in await tx.run(tokens.List())] == ["ada"]
    secret = new_secret()
    more = tokens.Create(name="t", role="admin", hash=secret.hash, prefix=secret.prefix, username="ada")
    await refused(tx, more, "ZC105")
    await refused(
        tx, tokens.Create(name="t", role="agent", hash=secret.hash, prefix=secret.prefix, username="no"), "ZC220"
    )
    await tx.run(users.Set(username="ada", disabled=True))
    await refused(
        tx, tokens.Create(name="t", role="agent", hash=secret.hash, prefix=secret.prefix, username="ada"), "ZC105"
    )


async def test_tokens_end_with_their_user(tx: Transaction) -> None:
    await made(tx, role="admin")
    await made(tx, "bob", role="admin")
    free, of_bob = (await token_of(tx, None)).id, (await token_of(tx, "bob")).id
    reader, manager = (await token_of(tx, "ada", "reader")).id, (await token_of(tx, "ada", "manager")).id
    every = (free, of_bob, reader, manager)
    await tx.run(users.Set(username="ada", role="agent"))
    assert await live(tx, *every) == [free, of_bob, reader]
    await tx.run(users.Set(username="ada", disabled=True))
    assert await live(tx, *every) == [free, of_bob]
    await tx.run(users.Set(username="ada", disabled=False))
    assert await live(tx, *every) == [free, of_bob]
    again = (await token_of(tx, "ada")).id
    await tx.run(users.Delete(username="ada"))
    assert await live(tx, *every, again) == [free, of_bob]
    revoked = [row["key"] for row in await tx.events() if row["type"] == "token.revoked"]
    assert revoked == [str(manager), str(reader), str(again)]


async def test_a_change_says_what_changed_and_none_says_nothing(tx: Transaction) -> None:
    await made(tx, email="a@b")
    await tx.run(users.Set(username="ada", role="admin", email="", disabled=True))
    await tx.run(users.Set(username="ada", role="admin", disabled=True))
    assert [(row["type"], row["data"]) for row in await tx.events()] == [
        ("user.created", {"role": "agent"}),
        ("user.changed", {"fields": ["role", "email", "disabled"], "role": "admin", "disabled": True}),
    ]


async def test_sessions_stay_when_their_user_is_deleted(tx: Transaction) -> None:
    await made(tx)
    await tx.run(sessions.Create(project="default", session="s", username="ada"))
    await tx.run(users.Delete(username="ada"))
    assert (await tx.run(sessions.Show(project="default", session="s"))).username is None
    for operation in (
        users.Set(username="ada", role="agent"),
        users.ChangePassword(username="ada", password=PHC),  # type: ignore[arg-type]
        users.Delete(username="ada"),
    ):
        await refused(tx, operation, "ZC220")  # type: ignore[arg-type]


async def test_a_token_is_not_made_for_a_user_who_is_being_disabled(database_url: str) -> None:
    """It waits, and then sees what the user has become."""
    one, other = await connect(database_url), await connect(database_url)
    create = "select coordinator.token_create('t', 'manager', repeat('a', 64), 'coo_abcd', p_username => 'ada')"
    try:
        await one.execute("select coordinator.user_create('ada', 'manager')")
        async with one.transaction():
            await one.execute("select coordinator.user_set('ada', 'agent')")
            waiting = asyncio.create_task(other.execute(create))
            await until_blocked(one, other)
        with pytest.raises(asyncpg.PostgresError) as raised:
            await waiting
        assert raised.value.sqlstate == "ZC105"
    finally:
        await one.close()
        await other.close()
