"""JSON values that no reader could take are refused wherever they enter, before anything has changed."""

from __future__ import annotations

import pytest

from coordinator.db.connection import mapped_errors
from coordinator.errors import InvalidArgument
from tests.conftest import Transaction

# Every place where JSON enters, which the test below compares with the catalogue; a list cannot be the whole of an object.
ENTRANCES = {
    "signal_set": "coordinator.signal_set('default', 'k', $1::text::jsonb)",
    "agent_register": "coordinator.agent_register('default', 'a', p_metadata => jsonb_build_object('k', $1::text::jsonb))",
    "directive_send": "coordinator.directive_send('default', 'x', 'a', p_data => jsonb_build_object('k', $1::text::jsonb))",
    "session_create": "coordinator.session_create('default', 's', p_context => jsonb_build_object('k', $1::text::jsonb))",
    "session_set": "coordinator.session_set('default', 's', p_context => jsonb_build_object('k', $1::text::jsonb))",
    "knowledge_put": "coordinator.knowledge_put('default', 'k', 'x', p_metadata => jsonb_build_object('k', $1::text::jsonb))",
    "knowledge_list": "from coordinator.knowledge_list('default', p_metadata => jsonb_build_object('k', $1::text::jsonb))",
    "knowledge_search": "from coordinator.knowledge_search('default', 'x', p_metadata => jsonb_build_object('k', $1::text::jsonb))",
    "project_create": "coordinator.project_create('p', p_settings => jsonb_build_object('k', $1::text::jsonb))",
    "project_set": "coordinator.project_set('default', p_settings => jsonb_build_object('k', $1::text::jsonb))",
    "event_emit": "coordinator.event_emit('default', 'custom.x', p_data => jsonb_build_object('k', $1::text::jsonb))",
    "transaction_run": """from coordinator.transaction_run('default', jsonb_build_array(
                            jsonb_build_object('verb', 'signal_set', 'key', 'k', 'value', $1::text::jsonb)))""",
    "queue_set": "coordinator.queue_set('default', 'q', p_weights => jsonb_build_object('k', $1::text::jsonb))",
    "document_put": "coordinator.document_put('default', 'k', 'k', $1::text::json)",
    "document_patch": """coordinator.document_patch('default', 'k', p.key, json_build_object('k', $1::text::json))
                           from coordinator.document_put('default', 'k', 'k', '{}') p""",
    "document_item": """coordinator.document_item('default', 'todo', p.key, '1', json_build_object('k', $1::text::json))
                          from coordinator.document_put('default', 'todo', 'k', '[{"id": 1}]') p""",
    "job_enqueue": "coordinator.job_enqueue('default', 't', $1::text::jsonb)",
    "job_enqueue_many": """from coordinator.job_enqueue_many('default', jsonb_build_array(
                             jsonb_build_object('type', 't', 'payload', $1::text::jsonb)))""",
    "cron_set": "from coordinator.cron_set('default', 'c', '@daily', jsonb_build_object('type', 't', 'payload', $1::text::jsonb))",
    "job_list": "from coordinator.job_list('default', p_payload => $1::text::jsonb)",
    "job_claim": """r.* from coordinator.jobs_running a cross join lateral coordinator.job_claim(
                      'default', a.agent_id, p_finished => array[a.id], p_fences => array[a.fence], p_results => jsonb_build_array($1::text::jsonb)) r""",
    "job_complete": "r.* from coordinator.jobs_running a cross join lateral coordinator.job_complete('default', a.id, a.agent_id, a.fence, $1::text::jsonb) r",
    "job_ask": """r.* from coordinator.jobs_running a cross join lateral coordinator.job_ask(
                    'default', a.id, a.agent_id, a.fence, 's', '?', p_ttl => '1 hour', p_fallback => $1::text::jsonb) r""",
    "job_answer": """r.* from coordinator.jobs_running a cross join lateral coordinator.job_ask('default', a.id, a.agent_id, a.fence, 's', '?') q
                       cross join lateral coordinator.job_answer('default', q.id, $1::text::jsonb, p_actor => 'boss') r""",
    "job_suspend": """r.* from coordinator.jobs_running a cross join lateral coordinator.job_suspend(
                        'default', a.id, a.agent_id, a.fence, 's', jsonb_build_array(jsonb_build_object('signal', 's', 'value', $1::text::jsonb))) r""",
    "job_step": "r.* from coordinator.jobs_running a cross join lateral coordinator.job_step('default', a.id, a.agent_id, a.fence, 's', $1::text::jsonb) r",
    "job_write": """r from coordinator.jobs_running a cross join lateral coordinator.job_write(
                      'default', a.id, a.agent_id, a.fence, jsonb_build_array($1::text::jsonb)) r""",
    "project_import": """from coordinator.project_import('default', repeat('1', 32), jsonb_build_array(
                           jsonb_build_object('format', 'coordinator-project', 'version', 1, 'export', repeat('1', 32)),
                           jsonb_build_object('type', 'signal', 'key', 'k', 'actor', 'a', 'created_at', now(), 'updated_at', now(), 'value', $1::text)))""",
    "job_progress": """r.* from coordinator.jobs_running a cross join lateral coordinator.job_progress(
                         'default', a.id, a.agent_id, a.fence, p_checkpoint => $1::text::jsonb) r""",
}
RUNNING = """
  select coordinator.job_enqueue('default', 't');
  select coordinator.job_claim('default', (select id from coordinator.agent_register('default', 'w', p_job_types => '{t}')));
"""

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


async def test_every_parameter_of_json_is_one_of_the_entrances(tx: Transaction) -> None:
    taking = await tx.connection.fetch(
        "select r.function from coordinator.rights r join pg_proc p on p.proname = r.function"
        " where p.pronamespace = 'coordinator'::regnamespace"
        " and exists (select from unnest(p.proargtypes) t where t in ('json'::regtype, 'jsonb'::regtype))"
    )
    # transaction_enter only checks the parts and takes their locks for transaction_run; log_append keeps the text: see test_log.py.
    # memory_confidence computes with what is stored.
    assert {row["function"] for row in taking} - {
        "transaction_enter",
        "log_append",
        "memory_confidence",
        "message_append",
        "step_append",
        "observation_append",
    } == ENTRANCES.keys()


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("case", REFUSED)
async def test_a_value_that_no_reader_could_take_is_refused_and_changes_nothing(
    tx: Transaction, entrance: str, case: str
) -> None:
    value, code = REFUSED[case]
    if entrance.startswith("job_"):
        await tx.connection.execute(RUNNING)
    before = await tx.events()
    with pytest.raises(InvalidArgument) as raised:
        await attempt(tx, ENTRANCES[entrance], value)
    assert raised.value.code == code, raised.value
    assert raised.value.hint
    assert await tx.events() == before


@pytest.mark.parametrize("case", ACCEPTED)
async def test_a_value_at_the_limit_is_accepted_and_comes_back(tx: Transaction, case: str) -> None:
    await attempt(tx, ENTRANCES["signal_set"], ACCEPTED[case])
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
        await attempt(tx, ENTRANCES["signal_set"], "[" * levels + "]" * levels)
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
