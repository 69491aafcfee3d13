"""Every parameter of every public function takes strange values harmlessly, or refuses them and changes nothing.

The functions and their parameters come from the catalogue; each is called with valid arguments, of which one is strange.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import cache
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from msgspec import ValidationError, json, structs

from coordinator import operations
from coordinator.db.call import call
from coordinator.errors import CoordinatorError
from coordinator.model.catalogue import ROLES
from coordinator.model.operation import Operation, Scope
from tests.catalogue.conftest import Populated
from tests.catalogue.written import SCANS, Written, readers
from tests.conftest import Sessions, Transaction
from tests.nouns import Known
from tests.populated import Parameter, parameters, valid_arguments

LONG = "repeat(repeat('x', 1000), 1000)"  # copies a thousand pieces, not a million characters
STRANGE = {
    "bytea": ["null", "''", "({long} || {long})::bytea"],
    "text[]": [
        "null", "'{{}}'", "'{{null}}'", "'{{a,null}}'", "'{{{{a,b}},{{c,d}}}}'", "'{{{{a}}}}'", "'[0:1]={{a,b}}'", "'[5:5]={{a}}'",
        "array[{long}]", "array_fill('a'::text, array[100000])", "array_fill('a'::text, array[20, 20])",
        "array[E'a\\nb']", "array['']",
    ],
    "bigint[]": [
        "null", "'{{}}'", "'{{null}}'", "'{{{{1,2}},{{3,4}}}}'", "'{{{{1}}}}'", "'[0:0]={{1}}'", "'{{-9223372036854775808}}'",
        "array_fill(1::bigint, array[100000])",
    ],
    "interval": [
        "null", "'infinity'", "'-infinity'", "'0'", "'-1 second'", "'178000000 years'", "'-178000000 years'", "'1 microsecond'",
        "'2147483647 days'", "'999 months -29999 days'",
    ],
    "timestamp with time zone": ["null", "'infinity'", "'-infinity'", "'294276-12-31'", "'4713-01-01 BC'"],
    "text": [
        "null", "''", "' '", "{long}", "E'a\\nb'", "E'\\u2028'", "repeat('ü', 300)", "'../x'", "'{{a,b}}'", "E'\\\\'",
        "repeat('*', 1000)", "repeat('/', 1000)", "repeat('[', 5000)",
    ],
    "integer": ["null", "0", "-1", "2147483647", "-2147483648"],
    "bigint": ["null", "0", "-1", "9223372036854775807", "(-9223372036854775808)"],
    "uuid": ["null", "'00000000-0000-0000-0000-000000000000'"],
    "uuid[]": [
        "null", "'{{}}'", "'{{null}}'", "array['{job}']", "array_fill(gen_random_uuid(), array[100000])", "array_fill(gen_random_uuid(), array[2, 2])",
    ],
    "double precision": ["null", "'NaN'", "'infinity'", "'-infinity'", "-1", "1e308"],
    "double precision[]": [
        "null", "'{{}}'", "'{{null}}'", "'{{NaN}}'", "'{{1,infinity}}'", "'{{1e308}}'", "'{{0,0}}'", "'{{1e-300}}'", "'{{{{1,2}},{{3,4}}}}'",
        "'[0:1]={{1,2}}'", "array_fill(1::double precision, array[100000])",
    ],
    "boolean": ["null"],
    "jsonb": ["null", "'null'", "'[]'", "'1e5000'", "(repeat('[', 3000) || repeat(']', 3000))::jsonb", "to_jsonb({long})"],
    "json": ["null", "'null'", "'[]'", "'[1e5000]'", "'[\"\\u0000\"]'", "(repeat('[', 3000) || repeat(']', 3000))::json", "to_json({long})"],
}  # fmt: skip

FUNCTIONS = sorted(ROLES)
WRITES = "select provolatile = 'v' from pg_proc where pronamespace = 'coordinator'::regnamespace and proname = $1"

# What a person would not see in a name, or would read in another order.
INVISIBLE = [
    "\u200b",
    "\u202e",
    "\u2066",
    "\u00ad",
    "\ufeff",
    "\u3164",
    "\u061c",
    "\U000e0041",
    "\x1b",
    "\x7f",
    "\u2028",
    "\ufe0f",
]
# Text that is read as text, and what only selects: nothing of it is stored as a name.
NO_NAMES = {
    "error",
    "message",
    "mission",
    "body",
    "text",
    "reason",
    "prefix",
    "after",
    "topics",
    "under",
    "paths",
    "lesson",
    "context",
    "content",
    "words",
}


def calls(function: str, taken: list[Parameter], known: Known) -> Iterator[tuple[str, str]]:
    """Yield calls with one strange argument each."""
    valid = valid_arguments(function, taken, known)
    for row in taken:
        for strange in STRANGE[row.type]:
            given = {**valid, row.name: f"({strange.format(**known, long=LONG)})::{row.type}"}
            arguments = ", ".join(f"p_{name} => {value}" for name, value in given.items())
            yield f"{row.name} => {strange}", f"select * from coordinator.{function}({arguments})"


@cache
def every_list() -> list[tuple[type[Operation[Any]], list[str]]]:
    """Return the operations that list rows, with the parameters that each needs."""
    scopes = (Scope.IN_PROJECT, Scope.ALL, Scope.NONE, Scope.OWN_ROWS)
    kinds = [kind for kind in operations.every() if kind.page_by and kind.scope in scopes]
    return [
        (kind, [field.name for field in structs.fields(kind) if field.required or field.name == "words"])
        for kind in kinds
    ]


REFUSED_TO_BOUND = """
select p.proname from pg_proc p
where p.prosrc ~ 'everywhere_check|audit_find' and exists (select from coordinator.role_projects where role = session_user)
"""

WEBHOOK = "select exists (select from coordinator.webhooks)"


async def lists(tx: Transaction, known: Known, among: Container[str], *, events: bool = True) -> None:
    """Read those lists, and every event, as the program does."""
    valid = {**known, "agent": "a"}
    refused = {row["proname"] for row in await tx.connection.fetch(REFUSED_TO_BOUND)}  # after role_bind
    for kind, required in every_list():
        if kind.function not in among or kind.function in refused:
            continue
        if kind.function == "webhook_deliveries" and not await tx.connection.fetchval(WEBHOOK):  # after webhook_remove
            continue
        rows = await call(tx.connection, kind(**{name: valid[name] for name in required}))
        sent = json.encode(rows, enc_hook=str)
        assert len(json.decode(sent, type=list[kind.answer()[1]])) == len(rows)
    if events:
        legible(await tx.events())


def legible(events: list[asyncpg.Record]) -> None:
    for event in events:
        assert isinstance(event["data"], dict)
        assert "unreadable" not in event["data"]
        assert len(event["key"] or "") <= 1100


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def read_by(kept: Sessions, shared_url: str) -> dict[str, set[str]]:
    """Return, for each table, the lists that can show what is in it."""
    async with kept.transaction(shared_url) as connection:
        found = await readers(connection, [kind.function for kind, _ in every_list()])
    assert "signal_list" in found["signals"]
    assert "job_list" in found["jobs_completed"] | found["jobs_ended"]
    return found


async def test_every_table_that_a_list_reads_is_known(
    full: Transaction, populated: Populated, read_by: dict[str, set[str]]
) -> None:
    known = populated.known
    legible(await full.connection.fetch("select * from coordinator.events"))
    for kind, _ in every_list():
        before = {row["name"]: row["scans"] for row in await full.connection.fetch(SCANS)}
        await lists(full, known, {kind.function}, events=False)
        scanned = {row["name"] for row in await full.connection.fetch(SCANS) if row["scans"] != before.get(row["name"])}
        assert scanned, kind
        assert {name for name in scanned if kind.function not in read_by.get(name, ())} == set(), kind


async def test_tables_that_were_written_are_known(full: Transaction) -> None:
    written = Written(full.connection)
    await written.tables()  # what others wrote in this transaction
    assert "signals" not in await written.tables()
    await full.connection.execute("select coordinator.signal_set('default', 'k', '1')")
    assert "signals" in await written.tables()
    assert "signals" not in await written.tables()


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_a_strange_argument_is_harmless_or_refused_with_a_hint(
    full: Transaction, populated: Populated, function: str, read_by: dict[str, set[str]]
) -> None:
    known = populated.known
    taken = await parameters(full.connection, function)
    writes = await full.connection.fetchval(WRITES, function)
    before = await full.events()
    written = Written(full.connection)
    await written.tables()
    faults = []
    await full.connection.execute("savepoint attempt")
    for what, query in calls(function, taken, known):
        try:
            await full.connection.fetch(query)
        except asyncpg.PostgresError as error:
            fine = error.sqlstate.startswith(("ZC", "22", "54")) or error.sqlstate == "42501"
            if not fine or (error.sqlstate.startswith("ZC") and not getattr(error, "hint", None)):
                faults.append(f"{what[:90]}: {error.sqlstate} {str(error)[:150]}")
            if len(str(error)) > 5000:
                faults.append(f"{what[:90]}: its message has {len(str(error))} characters")
        else:
            try:
                if writes:
                    tables = await written.tables()
                    await lists(full, known, set().union(*(read_by.get(table, ()) for table in tables)))
            except (CoordinatorError, AssertionError, TypeError, ValueError, ValidationError) as error:
                faults.append(f"{what[:90]}: accepted, and then {error!r}"[:300])
        await full.connection.execute("rollback to attempt")
    assert faults == []
    assert await full.events() == before


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_no_name_has_characters_that_nobody_sees(full: Transaction, populated: Populated, function: str) -> None:
    """A call with such a name fails: it is refused, or nothing has the name."""
    known = populated.known
    taken = await parameters(full.connection, function)
    before = await full.events()
    faults = []
    await full.connection.execute("savepoint attempt")
    for row in taken:
        if row.type not in ("text", "text[]") or row.name in NO_NAMES:
            continue
        for character in INVISIBLE:
            strange = f"'coder{character}1'" if row.type == "text" else f"array['x', 'coder{character}1']"
            arguments = ", ".join(
                f"p_{name} => {value}"
                for name, value in {**valid_arguments(function, taken, known), row.name: strange}.items()
            )
            try:
                rows = await full.connection.fetch(f"select * from coordinator.{function}({arguments})")
            except asyncpg.PostgresError as error:
                if not error.sqlstate.startswith("ZC") and error.sqlstate != "42501":
                    faults.append(f"{row.name} with {character!r}: {error.sqlstate} {error}")
            else:
                if await full.events() != before or any(f"coder{character}1" in map(str, one.values()) for one in rows):
                    faults.append(f"{row.name} with {character!r} is accepted")
            await full.connection.execute("rollback to attempt")
    assert faults == []


@pytest.mark.parametrize("name", ["zoë", "❤\ufe0f", "日本\u3000語", "a b", "Ünal", "שלום", "नमस्ते"])
async def test_a_name_of_visible_characters_is_accepted(tx: Transaction, name: str) -> None:
    await tx.connection.execute("select coordinator.check_name('the name', $1)", name)


@pytest.mark.parametrize("name", ["\u3000a", "a\u00a0", " a"])
async def test_a_name_does_not_begin_or_end_with_a_space_of_any_width(tx: Transaction, name: str) -> None:
    with pytest.raises(asyncpg.PostgresError, match="begins or ends with a space"):
        await tx.connection.execute("select coordinator.check_name('the name', $1)", name)
