"""JSON values that no reader could take are refused wherever they enter, before anything has changed."""

from __future__ import annotations

import pytest

from coordinator.db.connection import mapped_errors
from coordinator.errors import InvalidArgument
from tests import nouns
from tests.conftest import Transaction

JSON = nouns.table("JSON")
WIDE = "[" + ",".join(["1e307"] * 4000) + "]"

REFUSED = {
    "65 levels of lists": ("[" * 65 + "]" * 65, "ZC102"),
    "65 levels of objects": ('{"a":' * 65 + "1" + "}" * 65, "ZC102"),
    "levels far inside": ('[1, {"b": [' + "[" * 70 + '"]"' + "]" * 70 + "]}]", "ZC102"),
    "3,000 levels": ("[" * 3000 + "]" * 3000, "ZC102"),
    "3,000 levels beside much else": ('["' + "x" * 9000 + '",' + "[" * 3000 + "]" * 3000 + "]", "ZC102"),
    "an infinite number": ("1e5000", "ZC104"),
    "a negative infinite number": ('{"a": [-1e309]}', "ZC104"),
    "an integer of 310 digits": ("1" + "0" * 309, "ZC104"),
    "just above the largest double": ("1.8e308", "ZC104"),
    "401 characters": ("0." + "0" * 398 + "1", "ZC104"),
    "401 zeros after the point": ("1." + "0" * 399, "ZC104"),
    "an underflow of 16,000 digits": ("1e-16000", "ZC104"),
    "one infinite number among many": ("[" + "1," * 5000 + "1e400]", "ZC104"),
    "more text than PostgreSQL can make": ("[" + "1e131071," * 16_000 + "1]", "ZC104"),
    "longer as text than as stored": (WIDE, "ZC102"),
    "a string that is escaped": ('"' + "\\u0001" * 200_000 + '"', "ZC102"),
}
ACCEPTED = {
    "64 levels of lists": "[" * 64 + "1" + "]" * 64,
    "brackets in a string": '"' + "[" * 3000 + '"',
    "digits in a string": '"' + "9" * 3000 + '"',
    "digits in a key": '{"' + "9" * 3000 + '": 1}',
    "the largest double": "1.7976931348623157e308",
    "the smallest double": "5e-324",
    "a number that underflows to 0": "1e-390",
    "400 characters": "0." + "0" * 397 + "1",
    "as many digits as fit": "[" + ",".join("1" * 87_381) + "]",
    "many numbers": "[" + ",".join(["123.5"] * 20_000) + "]",
}


async def attempt(tx: Transaction, statement: str, value: str) -> None:
    with mapped_errors():
        async with tx.connection.transaction():
            await tx.connection.fetch(f"select {statement}", value)


async def test_every_function_that_takes_json_is_under_test(tx: Transaction) -> None:
    taking = await tx.connection.fetch(
        "select r.function from coordinator.rights r join pg_proc p on p.proname = r.function"
        " where p.pronamespace = 'coordinator'::regnamespace"
        " and exists (select from unnest(p.proargtypes) t where t in ('json'::regtype, 'jsonb'::regtype))"
    )
    unread = nouns.table("JSON_UNREAD")
    assert {row["function"] for row in taking} == {*JSON, *unread}
    assert not JSON.keys() & unread.keys()


@pytest.mark.parametrize("function", JSON)
@pytest.mark.parametrize("case", REFUSED)
async def test_a_value_that_no_reader_could_take_is_refused_and_changes_nothing(
    tx: Transaction, function: str, case: str
) -> None:
    value, code = REFUSED[case]
    before = await tx.events()
    with pytest.raises(InvalidArgument) as raised:
        await attempt(tx, JSON[function], value)
    assert raised.value.code == code, raised.value
    assert raised.value.hint
    assert await tx.events() == before


@pytest.mark.parametrize("case", ACCEPTED)
async def test_a_value_at_the_limit_is_accepted_and_returned(tx: Transaction, case: str) -> None:
    await attempt(tx, JSON["signal_set"], ACCEPTED[case])
    assert await tx.connection.fetchval("select value = $1::text::jsonb from coordinator.signals_live", ACCEPTED[case])
    (event,) = await tx.connection.fetch(
        "select data, coordinator.event_data(data) = data as whole from coordinator.events where xid = pg_current_xact_id()"
    )
    assert event["whole"]
    assert "value" in event["data"]


@pytest.mark.parametrize("levels", [9_000, 100_000])
async def test_what_the_parser_itself_refuses_is_an_invalid_argument_with_a_hint(tx: Transaction, levels: int) -> None:
    """The parser of PostgreSQL stops at max_stack_depth, a setting of the server."""
    with pytest.raises(InvalidArgument) as raised:
        await attempt(tx, JSON["signal_set"], "[" * levels + "]" * levels)
    assert raised.value.hint
    assert "64 levels" in raised.value.hint


async def test_a_compressed_value_from_a_table_is_measured_as_text(tx: Transaction) -> None:
    await tx.connection.execute(
        "create temporary table stored (v jsonb);"
        "insert into stored select ('[' || repeat('1e131071,', 16000) || '1]')::jsonb;"
        "insert into stored select (repeat('[', 5000) || repeat(']', 5000))::jsonb"
    )
    assert await tx.connection.fetchval(
        "select bool_and(pg_column_size(v) < pg_column_size(v #> '{}') / 2) from stored"
    )
    found = await tx.connection.fetch("select coordinator.json_fault(v) as fault from stored")
    assert sorted(row["fault"] for row in found) == ["json_depth", "json_number"]


async def test_large_data_that_no_reader_could_take_is_replaced_in_events(tx: Transaction) -> None:
    """Small data is left to the reader, which replaces what it cannot decode: it cannot make a page fail."""
    numbers = "[" + ",".join(["1e131071"] * 200) + "]"
    for value, fault in (("[" * 3000 + "]" * 3000, "json_depth"), (numbers, "json_number"), ("1.5", None)):
        data = await tx.connection.fetchval(
            "select coordinator.event_data(jsonb_build_object('value', $1::text::jsonb))::text", value
        )
        assert data == ('{"value": 1.5}' if fault is None else f'{{"unreadable": "{fault}"}}')
