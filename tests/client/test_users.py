"""Users on every interface: what a password leaves behind, and how many are checked at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import anyio
import asyncpg
import pytest

import coordinator
from coordinator.config import Config
from coordinator.db.database import Database
from coordinator.errors import (
    Conflict,
    CoordinatorError,
    DatabaseBusy,
    DatabaseUnavailable,
    InvalidArgument,
    NotFound,
    Unauthenticated,
)
from coordinator.model.operation import Operation
from coordinator.model.password import Password, check_strength
from coordinator.operations import users
from tests.conftest import admin
from tests.daemon import Daemon
from tests.http_client import http_client
from tests.sidecar.conftest import sidecar
from tests.spans import Spans
from tests.waiting import DEADLINE_S, until

RIGHT, WRONG, WEAK = "canary stands on a right wing", "canary stands on a wrong wing", "canary"


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Hash quickly; return how many were hashed at once."""
    from coordinator.model import password

    scrypt, lock = password.hashlib.scrypt, threading.Lock()
    running = most = 0

    def quick(text: bytes, *, salt: bytes, **_: Any) -> bytes:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return scrypt(text, salt=salt, n=2, r=1, p=1, dklen=32)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(password.hashlib, "scrypt", quick)
    return lambda: most


async def everything(url: str) -> str:
    """Return all that the database contains, and what its server has written to its log."""
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch(
            "select oid::regclass::text from pg_class where relnamespace = 'coordinator'::regnamespace and relkind in ('r', 'v')"
        )
        rows = [str(row[0]) for (table,) in tables for row in await connection.fetch(f"select t::text from {table} t")]
        log = await connection.fetchval("select pg_read_file(pg_current_logfile())")
        active = await connection.fetch("select query from pg_stat_activity")
    finally:
        await connection.close()
    return "\n".join([*rows, log, *(str(row[0]) for row in active)])


def test_a_password_and_what_contains_it_do_not_show_it() -> None:
    call = users.Create(username="ada", password=Password(RIGHT))
    assert RIGHT not in f"{call!r} {call} {Password(RIGHT)}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short one",
        "aaaaaaaaaaaa",
        "abababababab",
        "password123456",
        "Passw0rd-2026",
        "qwertyuiop12",
        "ada.lovelace1",
        "lovelace-ada.lovelace",
        "1234567890123",
    ],
)
def test_a_password_that_is_easily_guessed_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        check_strength(Password(text), "ada.lovelace", "ada.lovelace@example.org")
    assert raised.value.hint
    assert not text or text not in f"{raised.value} {raised.value.hint}"


@pytest.mark.parametrize(
    "text", ["correct horse battery staple", "x9$Kq!mZ2&vL", "Grüße aus Köln am Rhein", "пароль из четырёх слов"]
)
def test_a_password_that_is_not_easily_guessed_is_accepted(text: str) -> None:
    check_strength(Password(text), "ada")


def test_a_hash_is_a_phc_string_that_the_same_password_repeats_with_its_salt() -> None:
    first = Password("ﬁne wine").hashed()
    assert Password("fine wine").hashed(first) == first  # in the same normal form
    assert Password("fine wine").hashed() != first
    assert len(first) == 88


def test_a_text_that_is_not_a_password_is_refused() -> None:
    for text in ("\ud800 lone surrogate", "x" * 1001):
        with pytest.raises(InvalidArgument):
            Password(text).hashed()


async def test_a_user_is_created_verified_changed_and_deleted(database_url: str, cheap: Callable[[], int]) -> None:
    async with coordinator.connect(database_url) as client:
        made = await client.users.create("Ada", role="manager", email="ada@example.org", password=RIGHT)
        assert (await client.users.verify("ada", RIGHT)).id == made.id
        for name, text in (("ada", WRONG), ("nobody", RIGHT), ("ada", "")):
            with pytest.raises(Unauthenticated) as refused:
                await client.users.verify(name, text)
            assert refused.value.code == "ZC504"
        with pytest.raises(Conflict):
            await client.users.create("ada", password=RIGHT)
        for call in (client.users.create("bob", password=WEAK), client.users.password("ada", WEAK)):
            with pytest.raises(InvalidArgument):
                await call
        await client.users.password("ada", WRONG)
        await client.users.verify("ada", WRONG)
        assert (await client.users.set("ada", disabled=True)).disabled_at
        assert [user.username async for user in client.users.list()] == ["ada"]
        await client.users.delete("ada")
        with pytest.raises(NotFound):
            await client.users.delete("ada")
        codes = []
        for _ in range(11):
            with pytest.raises(Unauthenticated) as refused:
                await client.users.verify("ada", WRONG)
            codes.append(refused.value.code)
        assert codes == ["ZC504"] * 10 + ["ZC505"]


async def test_passwords_are_hashed_one_at_a_time_and_a_crowd_is_refused(
    database_url: str, cheap: Callable[[], int]
) -> None:
    refused = 0

    async def create(number: int) -> None:
        nonlocal refused
        try:
            await client.users.create(f"user{number}", password=RIGHT)
        except DatabaseBusy:
            refused += 1

    async with coordinator.connect(database_url) as client, anyio.create_task_group() as tasks:
        for number in range(70):
            tasks.start_soon(create, number)
    assert cheap() == 1
    assert 0 < refused < 70


async def test_a_name_without_a_user_or_password_costs_what_a_wrong_password_costs(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By construction: the same hashes of the same costs, and the same calls."""
    from coordinator.model import password

    work: list[object] = []
    scrypt = password.hashlib.scrypt

    def recorded(text: bytes, *, salt: bytes, **costs: Any) -> bytes:
        work.append((len(salt), costs))
        return scrypt(text, salt=salt, n=2, r=1, p=1, dklen=32)

    monkeypatch.setattr(password.hashlib, "scrypt", recorded)
    async with Database.open(database_url, Config()) as database:

        class Recorder:
            async def run(self, operation: Operation[Any]) -> Any:
                work.append(operation.function)
                return await database.run(operation)

        for name, text in (("ada", RIGHT), ("off", RIGHT), ("none", None)):
            await database.run(users.Create(username=name, password=Password(text) if text else None))
        await database.run(users.Set(username="off", disabled=True))
        seen = []
        for name, text in (("ada", WRONG), ("nobody", RIGHT), ("none", RIGHT), ("off", WRONG), ("off", RIGHT)):
            work.clear()
            check = await users.Verify(username=name, password=Password(text)).prepared(Recorder())
            with pytest.raises(Unauthenticated) as refused:
                await database.run(check)
            assert refused.value.code == "ZC504"
            seen.append([*work])
    assert seen[0] == ["user_challenge", (16, {"n": 2**15, "r": 8, "p": 3, "maxmem": 2**26, "dklen": 32})]
    assert seen == [seen[0]] * 5


async def test_a_database_that_is_lost_during_a_check_is_a_typed_error_and_the_next_check_succeeds(
    server_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from coordinator.model import password

    begun, lost = threading.Event(), threading.Event()
    scrypt = password.hashlib.scrypt

    def paused(text: bytes, *, salt: bytes, **_: Any) -> bytes:
        begun.set()
        assert lost.wait(DEADLINE_S)
        return scrypt(text, salt=salt, n=2, r=1, p=1, dklen=32)

    name = urlsplit(database_url).path.removeprefix("/")
    gone = f"select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = '{name}'"
    lost.set()
    async with coordinator.connect(database_url) as client:
        monkeypatch.setattr(password.hashlib, "scrypt", paused)
        await client.users.create("ada", password=RIGHT)
        begun.clear()
        lost.clear()

        async def lose() -> None:
            await until(begun.is_set, "the password is being hashed")
            await admin(server_url, f"alter database {name} with allow_connections false", gone)
            lost.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lose)
            with pytest.raises(DatabaseUnavailable) as raised:
                await client.users.verify("ada", RIGHT)
        assert raised.value.hint
        assert "canary" not in f"{raised.value!r} {raised.value.hint} {raised.value.detail}"
        await admin(server_url, f"alter database {name} with allow_connections true")
        assert (await client.users.verify("ada", RIGHT)).username == "ada"


@pytest.mark.usefixtures("cheap")
async def test_no_span_has_a_password(database_url: str, spans: Spans) -> None:
    async with coordinator.connect(database_url) as client:
        await client.users.create("ada", password=RIGHT)
        await client.users.verify("ada", RIGHT)
        with pytest.raises(Unauthenticated):
            await client.users.verify("ada", WRONG)
        with pytest.raises(InvalidArgument):
            await client.users.password("ada", WEAK)
    told = "".join(span.to_json() for span in spans.all())
    assert {"user_create", "user_challenge", "user_verify"} <= {*re.findall(r"user_[a-z]+", told)}
    assert "canary" not in told


@pytest.mark.slow
async def test_a_password_leaves_nothing_in_database_logs_and_errors(database_url: str) -> None:
    """With a real hash, through a daemon, a sidecar and without either; the server writes every statement to its log."""
    name = urlsplit(database_url).path.removeprefix("/")
    await admin(database_url, f"alter database {name} set log_statement = 'all'")
    said: list[str] = []
    async with coordinator.connect(database_url) as client:
        await client.users.create("ada", password=RIGHT)
        with pytest.raises(CoordinatorError) as refused:
            await client.users.verify("ada", WRONG)
        said.append(f"{refused.value!r} {refused.value.hint} {refused.value.detail}")
    with Daemon(database_url, slow_call_s=0) as daemon:  # the log has each call, with the shape of its arguments
        await daemon.ready()
        async with coordinator.connect(daemon.url) as client:
            await client.users.verify("ada", RIGHT)
        async with http_client() as http:

            async def post(verb: str, body: dict[str, Any], **headers: str) -> int:
                answer = await http.post(f"{daemon.url}/v1/users/{verb}", json=body, headers=headers)
                said.append(answer.text)
                return answer.status_code

            assert await post("verify", {"username": "ada", "password": RIGHT}) == 200
            assert await post("verify", {"username": "ada", "password": WRONG}) == 401
            assert await post("create", {"username": "bob", "password": WEAK}) == 422
            assert await post("create", {"username": "b b", "password": RIGHT}) == 422
            assert await post("create", {"username": "bob", "passwords": RIGHT}) == 422
            assert await post("create", {"username": "bob", "password": [RIGHT]}) == 422
            assert await post("create", {"username": "bob", "password": RIGHT}, **{"Idempotency-Key": "k"}) == 422
            assert await post("create", {"username": "bob", "hash": "x"}) == 422
            assert await post("password", {"username": "ada", "password": WRONG}) == 200
        with sidecar(daemon.url, "--agent", "beside", "--log-level", "debug") as beside:
            await beside.started()
            async with coordinator.connect(beside.url) as client:
                assert (await client.users.verify("ada", WRONG)).username == "ada"
                with pytest.raises(CoordinatorError) as refused:
                    await client.users.verify("ada", RIGHT)
                said.append(f"{refused.value!r} {refused.value.hint} {refused.value.detail}")
            said.append(beside.output())
        said.append(daemon.output())
        assert "call.slow" in said[-1]
        assert "user_verify" in said[-1]
        said.append((await daemon.get("/metrics")).text)
        said.append((await daemon.get("/v1/events?project=default")).text)
    assert "user.password_changed" in said[-1]
    found = await everything(database_url)
    assert "coordinator.user_verify(" in found
    assert "$scrypt$ln=15,r=8,p=3$" in found
    for one in (*said, found):
        assert "canary" not in one
