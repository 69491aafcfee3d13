"""Every parameter of every public function takes strange values harmlessly, or refuses them and changes nothing.

The functions and their parameters come from the catalogue; each is called with valid arguments, of which one is strange.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from msgspec import ValidationError, json, structs

from coordinator import operations
from coordinator.db.call import call
from coordinator.errors import CoordinatorError
from coordinator.model.catalogue import ROLES
from coordinator.model.operation import Operation, Scope
from tests.conftest import Transaction
from tests.nouns.user import PHC

# Valid arguments by the name of a parameter, in the world that `world` makes. What is not here keeps its default.
VALID = {
    "p_project": "'default'", "p_name": "'one'", "p_key": "'k'", "p_value": "'1'", "p_agent": "{agent}",
    "p_body": "'do it'", "p_to_agent": "'a'", "p_directive": "{directive}", "p_when_set": "'SET'", "p_clears": "'{{CLEARED}}'",
    "p_resources": "'{{x.py}}'", "p_resource": "'x.py'", "p_tokens": "array[{token}]", "p_token": "{token}", "p_type": "'custom.x'",
    "p_role": "'reader'", "p_hash": "repeat('a', 64)", "p_prefix": "'coo_abcd'", "p_payloads": "'full'", "p_ticket": "1",
    "p_writes": """'[{{"verb": "event_emit", "type": "custom.x"}}]'""", "p_version": "0", "p_reason": "'why'", "p_paths": "'{{x.py}}'", "p_kind": "'daemon'",
    "p_job": "{job}", "p_fence": "{fence}", "p_fences": "array[{fence}]", "p_jobs": """'[{{"type": "x"}}]'""", "p_error": "'broken'",
    "p_amount": "1", "p_budget": "'one'", "p_session": "'s'", "p_username": "'ada'", "p_entries": """'[{{"data": 1}}]'""", "p_item": "'1'", "p_patch": "'{{}}'",
    "p_lesson": "'learned'", "p_memory": "'{memory}'", "p_content": "'a text'", "p_words": "'x'", "p_now": "now()",
    "p_artifact": "'one'", "p_upload": "{upload}", "p_number": "1",
    "p_step": """'{{"thought": "x"}}'""", "p_last": "1",
}  # fmt: skip
USUAL = {
    "text": "'x'",
    "text[]": "'{{x}}'",
    "integer": "1",
    "interval": "'1 minute'",
    "jsonb": "'{{}}'",
    "json": "'{{}}'",
    "bytea": "'x'::bytea",
}  # of other nouns
SPECIAL = {
    ("project_create", "p_project"): "'made'",
    ("session_create", "p_session"): "'new'",
    ("user_create", "p_username"): "'new'",
    **{(f"user_{verb}", "p_hash"): f"'{PHC}'" for verb in ("password", "verify")},
    ("agent_register", "p_role"): "'coder'",
    ("agent_list", "p_role"): "'coder'",
    ("role_bind", "p_role"): "current_user",
    ("role_unbind", "p_role"): "current_user",
    **{(f"log_{verb}", "p_kind"): "'note'" for verb in ("append", "clear", "delete", "keep", "pop", "read", "show")},
    ("message_window", "p_tokens"): "1",
    ("message_append", "p_tokens"): "1",
    ("message_append", "p_content"): "'1'",
    ("observation_append", "p_content"): "'1'",
    ("observation_append", "p_agent"): "'a'",
    ("signal_list", "p_prefix"): "'k'",
    ("lock_list", "p_prefix"): "'x'",
    ("directive_inbox", "p_agent"): "'a'",
    ("directive_acknowledge", "p_agent"): "'a'",
    ("directive_list", "p_directive"): "null",
    **{
        (f"document_{verb}", "p_kind"): "'todo'"
        for verb in ("delete", "diff", "get", "history", "item", "keep", "patch", "put", "restore")
    },
    ("document_put", "p_value"): "'[]'",
    ("document_diff", "p_version"): "1",
}

STRANGE = {
    "bytea": ["null", "''", "repeat('x', 2000000)::bytea"],
    "text[]": [
        "null", "'{{}}'", "'{{null}}'", "'{{a,null}}'", "'{{{{a,b}},{{c,d}}}}'", "'{{{{a}}}}'", "'[0:1]={{a,b}}'", "'[5:5]={{a}}'",
        "array[repeat('x', 1000000)]", "array_fill('a'::text, array[100000])", "array_fill('a'::text, array[20, 20])",
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
        "null", "''", "' '", "repeat('x', 1000000)", "E'a\\nb'", "E'\\u2028'", "repeat('ü', 300)", "'../x'", "'{{a,b}}'", "E'\\\\'",
        "repeat('*', 1000)", "repeat('/', 1000)", "repeat('[', 5000)",
    ],
    "integer": ["null", "0", "-1", "2147483647", "-2147483648"],
    "bigint": ["null", "0", "-1", "9223372036854775807", "(-9223372036854775808)"],
    "uuid": ["null", "'00000000-0000-0000-0000-000000000000'"],
    "uuid[]": [
        "null", "'{{}}'", "'{{null}}'", "array[{job}]", "array_fill(gen_random_uuid(), array[100000])", "array_fill(gen_random_uuid(), array[2, 2])",
    ],
    "double precision": ["null", "'NaN'", "'infinity'", "'-infinity'", "-1", "1e308"],
    "double precision[]": [
        "null", "'{{}}'", "'{{null}}'", "'{{NaN}}'", "'{{1,infinity}}'", "'{{1e308}}'", "'{{0,0}}'", "'{{1e-300}}'", "'{{{{1,2}},{{3,4}}}}'",
        "'[0:1]={{1,2}}'", "array_fill(1::double precision, array[100000])",
    ],
    "boolean": ["null"],
    "jsonb": ["null", "'null'", "'[]'", "'1e5000'", "(repeat('[', 3000) || repeat(']', 3000))::jsonb", "to_jsonb(repeat('x', 1000000))"],
    "json": ["null", "'null'", "'[]'", "'[1e5000]'", "'[\"\\u0000\"]'", "(repeat('[', 3000) || repeat(']', 3000))::json", "to_json(repeat('x', 1000000))"],
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
    "p_error",
    "p_message",
    "p_mission",
    "p_body",
    "p_text",
    "p_reason",
    "p_prefix",
    "p_after",
    "p_topics",
    "p_under",
    "p_paths",
    "p_lesson",
    "p_context",
    "p_content",
    "p_words",
}


async def parameters(tx: Transaction, function: str) -> list[asyncpg.Record]:
    return await tx.connection.fetch(
        """
        select a.name, format_type(a.type, null) as type, a.place > p.pronargs - p.pronargdefaults as optional
        from pg_proc p, unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[]) with ordinality a (name, type, place)
        where p.pronamespace = 'coordinator'::regnamespace and p.proname = $1 order by a.place""",
        function,
    )


async def world(tx: Transaction) -> dict[str, str]:
    """Make one of everything, and return what arguments need to know of it."""
    agent: UUID = await tx.connection.fetchval(
        "select id from coordinator.agent_register('default', 'a', 'coder', '{x}')"
    )
    await tx.connection.execute("select coordinator.signal_set('default', 'k', '1')")
    for key in ("k", "other"):
        await tx.connection.execute("select coordinator.log_append('default', 'note', $1, '[{\"data\": 1}]')", key)
        await tx.connection.execute("select coordinator.document_put('default', 'note', $1, '{}')", key)
    await tx.connection.execute("""select coordinator.document_put('default', 'todo', 'k', '{"items": [{"id": 1}]}')""")
    await tx.connection.execute("select coordinator.rule_set('default', 'SET', '{CLEARED}')")
    await tx.connection.execute("select coordinator.session_create('default', 's')")
    await tx.connection.execute("select coordinator.user_create('ada', p_hash => $1)", PHC)
    await tx.connection.execute("select coordinator.message_append('default', 's', '1', 'user')")
    directive = await tx.connection.fetchval("select id from coordinator.directive_send('default', 'do it', 'a')")
    lock = await tx.connection.fetchval(
        "select fencing_token from coordinator.lock_acquire('default', '{x.py}', $1)", agent
    )
    await tx.connection.execute(
        "select coordinator.token_create('t', 'reader', repeat('b', 64), 'coo_abcd', 'default')"
    )
    await tx.connection.execute("select coordinator.limit_set('default', 'one', p_budget => 5, p_type => 'x')")
    await tx.connection.execute("select coordinator.job_enqueue('default', 'x')")
    memory = await tx.connection.fetchval("select memory_id from coordinator.memory_record('default', 'learned once')")
    await tx.connection.execute("select coordinator.knowledge_put('default', 'k', 'a text')")
    await tx.connection.execute("select coordinator.artifact_put('default', 'one', 'x')")
    upload = await tx.connection.fetchval("select upload from coordinator.artifact_begin('default', 'one')")
    job = await tx.connection.fetchrow("select id, fence from coordinator.job_claim('default', $1)", agent)
    assert job
    return {
        "agent": f"'{agent}'", "directive": str(directive), "token": str(lock), "job": f"'{job['id']}'", "fence": str(job["fence"]),
        "memory": memory, "upload": f"'{upload}'",
    }  # fmt: skip


def valid_arguments(function: str, taken: list[asyncpg.Record], known: dict[str, str]) -> dict[str, str]:
    valid = {
        row["name"]: SPECIAL.get((function, row["name"]), VALID.get(row["name"], USUAL.get(row["type"], ""))).format(
            **known
        )
        for row in taken
        if not row["optional"] or (function, row["name"]) == ("directive_send", "p_to_agent")
    }
    assert all(valid.values()), f"say a valid value of {[name for name, value in valid.items() if not value]}"
    return valid


def calls(function: str, taken: list[asyncpg.Record], known: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield calls with one strange argument each."""
    valid = valid_arguments(function, taken, known)
    for row in taken:
        for strange in STRANGE[row["type"]]:
            given = {**valid, row["name"]: f"({strange.format(**known)})::{row['type']}"}
            arguments = ", ".join(f"{name} => {value}" for name, value in given.items())
            yield f"{row['name']} => {strange}", f"select * from coordinator.{function}({arguments})"


@cache
def every_list() -> list[tuple[type[Operation[Any]], list[str]]]:
    """Return the operations that list rows, with the parameters that each needs."""
    scopes = (Scope.IN_PROJECT, Scope.ALL, Scope.NONE, Scope.OWN_ROWS)
    kinds = [kind for kind in operations.every() if kind.page_by and kind.scope in scopes]
    return [
        (kind, [field.name for field in structs.fields(kind) if field.required or field.name == "words"])
        for kind in kinds
    ]


async def lists(tx: Transaction, job: str) -> None:
    """Read every list, and every event, as the program does."""
    valid = {
        "project": "default",
        "agent": "a",
        "resource": "x.py",
        "job": UUID(job.strip("'")),
        "kind": "note",
        "key": "other",  # nothing deletes it
        "words": "x",
    }
    for kind, required in every_list():
        rows = await call(tx.connection, kind(**{name: valid[name] for name in required}))
        sent = json.encode(rows, enc_hook=str)
        assert len(json.decode(sent, type=list[kind.answer()[1]])) == len(rows)
    for event in await tx.connection.fetch("select * from coordinator.events where xid = pg_current_xact_id()"):
        assert isinstance(event["data"], dict)
        assert "unreadable" not in event["data"]
        assert len(event["key"] or "") <= 1100


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_a_strange_argument_is_harmless_or_refused_with_a_hint(tx: Transaction, function: str) -> None:
    known = await world(tx)
    taken = await parameters(tx, function)
    writes = await tx.connection.fetchval(WRITES, function)
    before = await tx.events()
    faults = []
    for what, query in calls(function, taken, known):
        attempt = tx.connection.transaction()
        await attempt.start()
        try:
            await tx.connection.fetch(query, timeout=20)
        except asyncpg.PostgresError as error:
            await attempt.rollback()
            fine = error.sqlstate.startswith(("ZC", "22", "54")) or error.sqlstate == "42501"
            if not fine or (error.sqlstate.startswith("ZC") and not getattr(error, "hint", None)):
                faults.append(f"{what[:90]}: {error.sqlstate} {str(error)[:150]}")
            if len(str(error)) > 5000:
                faults.append(f"{what[:90]}: its message has {len(str(error))} characters")
            if await tx.events() != before:
                faults.append(f"{what[:90]}: refused, and changed something")
        else:
            try:
                if writes:
                    await lists(tx, known["job"])
            except (CoordinatorError, AssertionError, TypeError, ValueError, ValidationError) as error:
                faults.append(f"{what[:90]}: accepted, and then {error!r}"[:300])
            await attempt.rollback()
    assert faults == []


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_no_name_has_characters_that_nobody_sees(tx: Transaction, function: str) -> None:
    """A call with such a name fails: it is refused, or nothing has the name."""
    known = await world(tx)
    taken = await parameters(tx, function)
    faults = []
    for row in taken:
        if row["type"] not in ("text", "text[]") or row["name"] in NO_NAMES:
            continue
        for character in INVISIBLE:
            strange = f"'coder{character}1'" if row["type"] == "text" else f"array['x', 'coder{character}1']"
            arguments = ", ".join(
                f"{name} => {value}"
                for name, value in {**valid_arguments(function, taken, known), row["name"]: strange}.items()
            )
            attempt = tx.connection.transaction()
            await attempt.start()
            before = await tx.events()
            try:
                rows = await tx.connection.fetch(f"select * from coordinator.{function}({arguments})")
            except asyncpg.PostgresError as error:
                if not error.sqlstate.startswith("ZC") and error.sqlstate != "42501":
                    faults.append(f"{row['name']} with {character!r}: {error.sqlstate} {error}")
            else:
                if await tx.events() != before or any(f"coder{character}1" in map(str, one.values()) for one in rows):
                    faults.append(f"{row['name']} with {character!r} is accepted")
            await attempt.rollback()
    assert faults == []


@pytest.mark.parametrize("name", ["zoë", "❤\ufe0f", "日本\u3000語", "a b", "Ünal", "שלום", "नमस्ते"])
async def test_a_name_of_visible_characters_is_accepted(tx: Transaction, name: str) -> None:
    await tx.connection.execute("select coordinator.check_name('the name', $1)", name)


@pytest.mark.parametrize("name", ["\u3000a", "a\u00a0", " a"])
async def test_a_name_does_not_begin_or_end_with_a_space_of_any_width(tx: Transaction, name: str) -> None:
    with pytest.raises(asyncpg.PostgresError, match="begins or ends with a space"):
        await tx.connection.execute("select coordinator.check_name('the name', $1)", name)
