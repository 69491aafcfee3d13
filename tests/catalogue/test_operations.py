"""Every operation is the SQL function of its name: parameters, defaults, columns and types, one by one."""

from __future__ import annotations

from datetime import datetime, timedelta
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

import asyncpg
import msgspec
import pytest

from coordinator import operations
from coordinator.db import schema
from coordinator.model.agent_ref import AgentRef
from coordinator.model.operation import JsonText, Operation, Scope, Shape
from coordinator.model.password import Password
from coordinator.model.route import route_of
from coordinator.operations import positions, rules
from tests.conftest import Transaction

OPERATIONS = operations.every()

# Reads whose statements must see what has been committed since the function was called.
LOOK_AGAIN = {positions.Included}

PYTHON_TYPES: dict[str, set[Any]] = {
    "text": {str, Password},
    "bytea": {bytes},
    "bigint": {int},
    "integer": {int},
    "boolean": {bool},
    "uuid": {UUID, AgentRef},
    "interval": {timedelta},
    "timestamp with time zone": {datetime},
    "double precision": {float},
    "double precision[]": {list[float]},
    "text[]": {list[str]},
    "integer[]": {list[int]},
    "bigint[]": {list[int]},
    "uuid[]": {list[UUID]},
    "json": {JsonText},
    "void": {NoneType},
}
JSON_PARTS = {bool, int, float, str, list, dict, NoneType}


def fits(python: Any, sql: str) -> bool:
    """Whether values of the Python type go to and come from the SQL type; null is a matter of its own."""
    if get_origin(python) in (Union, UnionType):
        parts = set(get_args(python))
        if sql == "jsonb":
            return {get_origin(part) or part for part in parts} <= JSON_PARTS
        return all(fits(part, sql) for part in parts - {NoneType})
    if sql == "jsonb":
        return (get_origin(python) or python) in JSON_PARTS
    return python in PYTHON_TYPES.get(sql, set()) or (
        isinstance(python, type) and issubclass(python, str) and sql == "text"
    )


def test_each_operation_whose_row_has_a_version_declares_it() -> None:
    answers = {operation: operation.answer() for operation in OPERATIONS}
    having = {
        operation for operation, (shape, row) in answers.items() if shape is Shape.ONE and hasattr(row, "version")
    }
    assert having == {operation for operation in OPERATIONS if operation.versioned}


# The columns of what a function returns: a table, or the row of a view, table or type.
COLUMNS = """
select a.name, format_type(a.type, null) as type
from pg_proc p, unnest(p.proargnames, p.proargmodes, p.proallargtypes) with ordinality a (name, mode, type, n)
where p.oid = $1 and a.mode = 't'
union all
select attname, format_type(atttypid, null)
from (select a.* from pg_proc p join pg_type t on t.oid = p.prorettype join pg_attribute a on a.attrelid = t.typrelid
      where p.oid = $1 and a.attnum > 0 and not a.attisdropped order by a.attnum) row
"""


async def signature(catalogue: asyncpg.Connection, function: str) -> dict[str, Any] | None:
    row = await catalogue.fetchrow(
        """
        select p.oid, p.prokind::text as kind, p.proretset, p.prorettype::regtype::text as returns, p.provolatile, p.pronargs, p.pronargdefaults,
               p.proargnames as names, p.proargmodes::text[] as modes,
               array(select format_type(t, null) from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality u (t, n) order by n) as types,
               array(select pg_get_function_arg_default(p.oid, n) from generate_series(1, p.pronargs) n) as defaults
        from pg_proc p where p.pronamespace = 'coordinator'::regnamespace and p.proname = $1
        """,
        function,
    )
    found = dict(row) if row else None
    if found and found["kind"] == "p":  # its first parameter takes the answer
        found |= {name: found[name][1:] for name in ("names", "modes", "types", "defaults")}
        found |= {"pronargs": found["pronargs"] - 1, "proretset": False, "returns": row["types"][0]}
    return found


def test_operations_were_found() -> None:
    assert len(OPERATIONS) > 25


def test_no_two_operations_call_one_function() -> None:
    functions = [kind.function for kind in OPERATIONS]
    assert len(functions) == len(set(functions))


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.function)
async def test_parameters_are_those_of_the_function_in_its_order(
    catalogue: asyncpg.Connection, kind: type[Operation[Any]]
) -> None:
    found = await signature(catalogue, kind.function)
    assert found is not None, f"no function coordinator.{kind.function}"
    fields = msgspec.structs.fields(kind)
    assert [f"p_{kind.sql_names.get(field.name, field.name)}" for field in fields] == list(found["names"] or ())[
        : found["pronargs"]
    ]
    hints = get_type_hints(kind)
    for field, sql in zip(fields, found["types"], strict=False):
        assert fits(hints[field.name], sql), f"{field.name}: {hints[field.name]} does not fit {sql}"


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.function)
async def test_defaults_are_those_of_the_function(catalogue: asyncpg.Connection, kind: type[Operation[Any]]) -> None:
    found = await signature(catalogue, kind.function)
    assert found is not None
    for field, expression in zip(msgspec.structs.fields(kind), found["defaults"], strict=True):
        assert field.required == (expression is None), field.name
        if expression is not None:
            default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
            assert default == await catalogue.fetchval(f"select {expression}"), field.name


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.function)
async def test_the_fields_of_the_answer_are_the_first_columns_of_the_functions_row(
    catalogue: asyncpg.Connection, kind: type[Operation[Any]]
) -> None:
    found = await signature(catalogue, kind.function)
    assert found is not None
    shape, answer = kind.answer()
    if shape is Shape.SCALAR:
        assert not found["proretset"]
        assert fits(answer, found["returns"])
        return
    assert found["proretset"]
    fields = msgspec.structs.fields(answer)
    columns = [tuple(column) for column in await catalogue.fetch(COLUMNS, found["oid"])][: len(fields)]
    assert [name for name, _ in columns] == [field.encode_name for field in fields]
    hints = get_type_hints(answer)
    for field, (name, sql) in zip(fields, columns, strict=True):
        assert fits(hints[field.name], sql), f"{name}: {hints[field.name]} does not fit {sql}"


async def test_a_newer_schema_whose_view_has_another_column_serves_this_program(tx: Transaction) -> None:
    rules_file = next(file for file in schema.files() if file.name == "rule.sql")
    appended = [("r.created_at\n  from", "r.created_at, 1 as weight\n  from"), ("p_clears, v_now;", "p_clears, v_now, 1;"),
                ("r.created_at\n    from", "r.created_at, 1\n    from")]  # fmt: skip
    text = rules_file.text
    for old, new in appended:
        assert text.count(old) == 1
        text = text.replace(old, new)
    for file in schema.files():
        if file.kind == "functions":
            await tx.connection.execute(text if file is rules_file else file.text)
    assert "weight" in (await tx.connection.fetchrow("select * from coordinator.rule_list('default')") or {})
    made = await tx.run(rules.Set(project="default", when_set="A", clears=["B"]))
    assert made in await tx.run(rules.List(project="default"))


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.function)
async def test_what_only_reads_is_not_volatile_and_what_writes_is(
    catalogue: asyncpg.Connection, kind: type[Operation[Any]]
) -> None:
    found = await signature(catalogue, kind.function)
    assert found is not None
    reads = found["provolatile"] != b"v" or kind in LOOK_AGAIN
    assert kind.reads == reads
    assert (route_of(kind).method == "GET") == kind.reads  # a browser sends a GET for any page


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.function)
def test_an_operation_says_what_it_does(kind: type[Operation[Any]]) -> None:
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")


@pytest.mark.parametrize("kind", OPERATIONS, ids=lambda kind: kind.function)
def test_a_write_that_returns_or_takes_fencing_tokens_or_tickets_declares_its_effect_on_leases(
    kind: type[Operation[Any]],
) -> None:
    parameters = {field.name for field in msgspec.structs.fields(kind)}
    shape, answer = kind.answer()
    columns = set() if shape is Shape.SCALAR else {field.name for field in msgspec.structs.fields(answer)}
    concerned = kind.parts is not Operation.parts or (
        "agent" in parameters and parameters & {"tokens", "ticket"} | columns & {"fencing_token"}
    )
    assert bool(concerned and not kind.reads) == (kind.leases is not Operation.leases)


PUBLIC = [kind for kind in OPERATIONS if not kind.internal]


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.function)
def test_a_public_operation_declares_its_scope_and_speakers(kind: type[Operation[Any]]) -> None:
    assert isinstance(kind.scope, Scope)
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    types = {name: {field.type, *get_args(field.type)} - {NoneType} for name, field in fields.items()}
    assert bool(kind.speakers) is not kind.reads
    for name in kind.speakers:
        assert {str, AgentRef} >= {part for part in types[name] if not isinstance(part, UnionType)}, name
    if kind.speakers and not fields[kind.speakers[0]].required:
        assert str in types[kind.speakers[0]], "the caller's name goes into the first"
    # Whatever has a project or an actor is about the one, and spoken by the other.
    assert ("project" in fields) == (kind.scope in (Scope.IN_PROJECT, Scope.PROJECT, Scope.AGENT))
    assert "actor" not in fields or "actor" in kind.speakers


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.function)
def test_a_condition_is_declared_where_its_field_is(kind: type[Operation[Any]]) -> None:
    assert kind.conditional == ("expect" in kind.__struct_fields__)
