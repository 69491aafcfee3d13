"""Readers of the log choose events by key and by actor; the database and the gateway choose the same."""

from __future__ import annotations

import random

import pytest

from coordinator.api.filter import Filter
from coordinator.db.database import Database
from coordinator.errors import InvalidArgument
from coordinator.model.event import BOOKMARK, Event
from coordinator.model.key_pattern import matches_any
from coordinator.operations import events
from coordinator.operations.work import RelayStep
from tests.conftest import Transaction
from tests.sql.refusal import refused

KEYS = [
    "task/7/DONE",
    "task/7/FAILED",
    "task/77/DONE",
    "x/task/7/DONE",
    "100%",
    "100x",
    "a_b",
    "axb",
    r"a\b",
    "a*b",
    None,
]


@pytest.fixture
async def logged(db: Database) -> Database:
    """A log with an event for each key, by actors in turn."""
    for number, key in enumerate(KEYS):
        await db.run(events.Emit(project="default", type="custom.x", key=key, actor=f"actor{number % 3}"))
    await db.run(RelayStep())
    return db


async def found(db: Database, **options: object) -> list[str | None]:
    page = await db.run(events.Since(topics=["custom.*"], bookmarks=True, **options))  # type: ignore[arg-type]
    return [event.key for event in page if event.type != BOOKMARK]


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], KEYS),
        (["task/7/DONE"], ["task/7/DONE"]),
        (["task/7/*"], ["task/7/DONE", "task/7/FAILED"]),
        (["*/DONE"], ["task/7/DONE", "task/77/DONE", "x/task/7/DONE"]),
        (["task/*/DONE"], ["task/7/DONE", "task/77/DONE"]),
        (["*task*7*", "a_b"], ["task/7/DONE", "task/7/FAILED", "task/77/DONE", "x/task/7/DONE", "a_b"]),
        (["100%"], ["100%"]),
        ([r"a\b"], [r"a\b"]),
        (["a*b"], ["a_b", "axb", r"a\b", "a*b"]),
        (["*"], KEYS[:-1]),
        (["TASK/7/*", "nothing"], []),
    ],
)
async def test_keys_are_chosen_by_pattern(logged: Database, patterns: list[str], expected: list[str | None]) -> None:
    assert await found(logged, keys=patterns) == expected
    wanted = Filter(topics=["custom.*"], keys=patterns)
    page = await logged.run(events.Since(topics=["custom.*"]))
    assert [event.key for event in page if wanted.takes(event)] == expected


async def test_actors_are_chosen_by_name(logged: Database) -> None:
    assert await found(logged, actors=["actor1"]) == KEYS[1::3]
    assert await found(logged, actors=["actor1", "actor2", "nobody"], keys=["task/*"]) == KEYS[1:3]
    assert await found(logged, actors=["nobody"]) == []
    assert await found(logged, actors=[]) == KEYS
    page: list[Event] = await logged.run(events.Since(topics=["custom.*"]))
    wanted = Filter(actors=["actor1"])
    assert [event.key for event in page if wanted.takes(event)] == KEYS[1::3]


async def test_a_reader_of_a_sparse_filter_skips_what_does_not_match(logged: Database) -> None:
    page = await logged.run(events.Since(keys=["nothing"], bookmarks=True))
    assert [event.type for event in page] == [BOOKMARK]
    assert page[0].cursor == await logged.run(events.Head())
    assert await logged.run(events.Since(after=page[0].cursor, keys=["nothing"], bookmarks=True)) == []


async def test_like_and_the_gateway_agree_on_every_pattern(tx: Transaction, seed: int) -> None:
    chance = random.Random(seed)
    cases = [
        ("".join(chance.choices(r"ab*%_\/é", k=chance.randrange(1, 7))), "".join(chance.choices(r"ab*%_\/é", k=chance.randrange(1, 9))))
        for _ in range(2000)
    ]  # fmt: skip
    rows = await tx.connection.fetch(
        "select k like any (coordinator.key_patterns(array[p])) from unnest($1::text[], $2::text[]) u (p, k)",
        [pattern for pattern, _ in cases],
        [key for _, key in cases],
    )
    assert [row[0] for row in rows] == [matches_any([pattern], key) for pattern, key in cases]
    assert 50 < sum(row[0] for row in rows) < 1950


def test_a_hostile_pattern_costs_no_more_than_the_length_of_the_key() -> None:
    """A matcher that tries every place for every wildcard would not end."""
    assert not matches_any(["*".join("a" * 255) + "b"], "a" * 512)
    assert matches_any(["*".join("a" * 256)], "a" * 512)


async def test_a_hostile_pattern_ends_in_the_database(tx: Transaction) -> None:
    await tx.connection.execute("set local statement_timeout = '30s'")
    pattern, key = ["*".join("a" * 255) + "b"], "a" * 512
    assert not await tx.connection.fetchval("select $2 like any (coordinator.key_patterns($1))", pattern, key)


@pytest.mark.parametrize(
    ("keys", "actors", "code"),
    [([""], None, "ZC101"), (["x" * 513], None, "ZC102"), (None, [""], "ZC101"), (None, ["a\n"], "ZC103"), (None, ["x" * 201], "ZC102")],
)  # fmt: skip
async def test_a_malformed_filter_is_refused(
    tx: Transaction, keys: list[str] | None, actors: list[str] | None, code: str
) -> None:
    await refused(tx, events.Since(keys=keys, actors=actors), code)


def test_filters_differ_by_key_and_by_actor_and_have_a_limit() -> None:
    same = {Filter(keys=["a", "b"]).identity, Filter(keys=["b", "a", "a"]).identity}
    assert len(same) == 1
    different = [Filter(), Filter(keys=["a"]), Filter(actors=["a"]), Filter(topics=["custom.a"]), Filter(["a"])]
    assert len({one.identity for one in different}) == len(different)
    with pytest.raises(InvalidArgument):
        Filter(keys=["a"] * 101)
    with pytest.raises(InvalidArgument):
        Filter(actors=["a"] * 101)
