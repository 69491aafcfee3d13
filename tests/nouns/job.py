from __future__ import annotations

from datetime import timedelta

import asyncpg

from coordinator.operations import agents, job_trees, job_waits, jobs
from tests.conftest import Transaction
from tests.nouns import Known

HOUR = timedelta(hours=1)

AGENT = "(select id from coordinator.agents limit 1)"
RUNNING = """(select c.*, w.id as agent from coordinator.agent_register('default', 'w', p_job_types => '{x}') w,
               lateral coordinator.job_enqueue('default', w.job_types[1]) e,
               lateral coordinator.job_claim('default', w.id, p_types => array[e.type]) c offset 0) r"""

LIMITS = {
    "name": [
        "coordinator.job_enqueue('default', repeat('a', $1::integer))",
        "coordinator.job_enqueue('default', 'a', p_actor => repeat('a', $1::integer))",
    ],
    "key": [
        "coordinator.job_enqueue('default', 'a', p_key => repeat('a', $1::integer))",
        "coordinator.job_enqueue('default', 'a', p_dedupe_key => repeat('a', $1::integer))",
        f"coordinator.job_step('default', r.id, r.agent, r.fence, repeat('a', $1::integer)) from {RUNNING}",
        f"coordinator.job_ask('default', r.id, r.agent, r.fence, repeat('a', $1::integer), '?') from {RUNNING}",
        f"""coordinator.job_suspend('default', r.id, r.agent, r.fence, 's', jsonb_build_array(jsonb_build_object('signal', repeat('a', $1::integer))))
            from {RUNNING}""",
    ],
    "json": [
        "coordinator.job_enqueue('default', 'a', jsonb_build_object('k', repeat('x', $1::integer - 9)))",
        f"coordinator.job_complete('default', r.id, r.agent, r.fence, jsonb_build_object('k', repeat('x', $1::integer - 9))) from {RUNNING}",
        f"coordinator.job_step('default', r.id, r.agent, r.fence, 's', jsonb_build_object('k', repeat('x', $1::integer - 9))) from {RUNNING}",
        f"coordinator.job_write('default', r.id, r.agent, r.fence, jsonb_build_array(jsonb_build_object('k', repeat('x', $1::integer - 9)))) from {RUNNING}",
    ],
    "ttl_max": [
        f"coordinator.job_ask('default', r.id, r.agent, r.fence, 's', '?', p_ttl => make_interval(secs => $1)) from {RUNNING}",
        f"""coordinator.job_suspend('default', r.id, r.agent, r.fence, 's', '[{{"signal": "a"}}]', make_interval(secs => $1)) from {RUNNING}""",
        f"coordinator.job_snooze('default', r.id, r.agent, r.fence, make_interval(secs => $1)) from {RUNNING}",
    ],
    "reason": [
        "coordinator.job_cancel('default', j.id, repeat('a', $1::integer)) from (select id from coordinator.job_enqueue('default', 'x') offset 0) j",
    ],
    "page": [
        "coordinator.job_promote($1::integer)",
        "coordinator.job_wake_due($1::integer)",
        "coordinator.job_settle_due($1::integer)",
        "coordinator.job_expire($1::integer)",
        "coordinator.job_rescue($1::integer)",
        "coordinator.job_dedupe_prune($1::integer)",
        "coordinator.job_class_prune($1::integer)",
        "coordinator.job_wait_match($1::integer)",
    ],
    "job_batch": [
        """coordinator.job_enqueue_many('default', (select jsonb_agg('{"type": "x"}'::jsonb) from generate_series(1, $1::integer)))""",
    ],
    "job_batch_bytes": [
        """coordinator.job_enqueue_many('default', b.jobs || jsonb_build_array(jsonb_build_object('type', 'x', 'payload', repeat('x', $1::integer - 33 * 250002 - 2))))
           from (select jsonb_agg(jsonb_build_object('type', 'x', 'payload', repeat('x', 250000))) as jobs from generate_series(1, 33)) b""",
    ],
    "job_claim": [
        f"coordinator.job_claim('default', r.agent, $1::integer) from {RUNNING}",
    ],
    "job_attempts": [
        "coordinator.job_enqueue('default', 'a', p_max_attempts => $1::integer)",
    ],
    "job_labels": [
        "coordinator.job_enqueue('default', 'a', p_labels => array(select n::text from generate_series(1, $1::integer) n))",
    ],
    "job_label_text": [
        "coordinator.job_enqueue('default', 'a', p_labels => array[repeat('a', 150), repeat('b', $1::integer - 150)])",
    ],
    "job_priority": [
        "coordinator.job_enqueue('default', 'a', p_priority => $1::integer)",
        "coordinator.job_enqueue('default', 'a', p_priority => -$1::integer)",
    ],
    "job_time_max": [
        "coordinator.job_enqueue('default', 'a', p_delay => make_interval(secs => $1))",
        "coordinator.job_enqueue('default', 'a', p_backoff => make_interval(secs => $1))",
        "coordinator.job_enqueue('default', 'a', p_deadline => make_interval(secs => $1))",
        "coordinator.job_enqueue('default', 'a', p_stall => make_interval(secs => $1))",
        "coordinator.job_enqueue('default', 'a', p_dedupe_key => 'k', p_dedupe_for => make_interval(secs => $1))",
    ],
    "job_steps": [
        f"coordinator.job_step('default', r.id, r.agent, r.fence, 's', p_ordinal => n) from {RUNNING}, generate_series(1, $1::integer) n",
    ],
    "job_step_bytes": [
        f"""coordinator.job_step('default', r.id, r.agent, r.fence, 's', to_jsonb(repeat('x', least(250000, $1::integer - n * 250002 - 2))), n + 1)
           from {RUNNING}, generate_series(0, 16) n""",
    ],
    "job_wait_conditions": [
        f"""coordinator.job_suspend('default', r.id, r.agent, r.fence, 's',
              (select jsonb_agg(jsonb_build_object('signal', 's' || n)) from generate_series(1, $1::integer) n)) from {RUNNING}""",
    ],
    "job_wait_jobs": [
        f"""coordinator.job_suspend('default', r.id, r.agent, r.fence, 's', jsonb_build_array(jsonb_build_object('jobs', i.ids)))
            from {RUNNING}, (select jsonb_agg(e.id) as ids from coordinator.job_enqueue('default', 'y') e, generate_series(1, $1::integer) offset 0) i""",
    ],
    "job_question": [
        f"coordinator.job_ask('default', r.id, r.agent, r.fence, 's', repeat('a', $1::integer)) from {RUNNING}",
    ],
    "job_options": [
        f"""coordinator.job_ask('default', r.id, r.agent, r.fence, 's', '?', array(select 'o' || n from generate_series(1, $1::integer) n)) from {RUNNING}""",
    ],
    "job_chunks_call": [
        f"coordinator.job_write('default', r.id, r.agent, r.fence, (select jsonb_agg(n) from generate_series(1, $1::integer) n)) from {RUNNING}",
    ],
    "job_chunks": [
        f"""coordinator.job_write('default', r.id, r.agent, r.fence, (select jsonb_agg(1) from generate_series(1, least(1000, $1::integer - n * 1000))))
           from {RUNNING}, generate_series(0, ($1::integer - 1) / 1000) n""",
    ],
    "job_output_bytes": [
        f"""coordinator.job_write('default', r.id, r.agent, r.fence, jsonb_build_array(repeat('x', least(250000, $1::integer - n * 250002 - 2))))
           from {RUNNING}, generate_series(0, 16) n""",
    ],
    "job_fences": [
        f"coordinator.job_reconcile('default', r.agent, array_fill(r.fence, array[$1::integer])) from {RUNNING}",
    ],
    "job_message": [
        f"coordinator.job_progress('default', r.id, r.agent, r.fence, p_message => repeat('a', $1::integer)) from {RUNNING}",
    ],
    "job_error": [
        f"coordinator.job_fail('default', r.id, r.agent, r.fence, repeat('a', $1::integer)) from {RUNNING}",
    ],
    "job_classes": [
        """coordinator.job_enqueue_many('default', (select jsonb_agg(jsonb_build_object('type', 'x' || n)) from generate_series(1, $1::integer) n))""",
    ],
    "job_after": [
        """coordinator.job_enqueue_many('default', jsonb_build_array('{"type": "x"}'::jsonb, jsonb_build_object('type', 'x', 'after', (
             select jsonb_agg(0) from generate_series(1, $1::integer)))))""",
    ],
    "job_depth": [
        """coordinator.job_enqueue_many('default', (select jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
             'type', 'x', 'parent', nullif(n - 1, -1)))) from generate_series(0, $1::integer) n))""",
    ],
    "job_children": [
        """count(*) from coordinator.job_enqueue('default', 'x') p, lateral (select id from coordinator.job_enqueue('default', 'x', p_parent => p.id) offset 0) c,
           lateral coordinator.job_enqueue_many('default', (select jsonb_agg(jsonb_build_object('type', 'x', 'parent', p.id, 'priority', n % 2))
             from generate_series(1, $1::integer - (c.id = c.id)::integer) n))""",
    ],
    "queues": [
        """coordinator.job_enqueue_many('default', (select jsonb_agg(jsonb_build_object('type', 'x', 'queue', n::text)) from generate_series(1, $1::integer) n))""",
    ],
    "queue_name": [
        "coordinator.job_enqueue('default', 'a', p_queue => repeat('ä', $1::integer))",
    ],
}

JSON = {
    "job_enqueue": "coordinator.job_enqueue('default', 't', $1::text::jsonb)",
    "job_enqueue_many": """from coordinator.job_enqueue_many('default', jsonb_build_array(
                             jsonb_build_object('type', 't', 'payload', $1::text::jsonb)))""",
    "job_list": "from coordinator.job_list('default', p_payload => $1::text::jsonb)",
    "job_claim": f"coordinator.job_claim('default', r.agent, p_finished => array[r.id], p_fences => array[r.fence], p_results => jsonb_build_array($1::text::jsonb)) from {RUNNING}",
    "job_complete": f"coordinator.job_complete('default', r.id, r.agent, r.fence, $1::text::jsonb) from {RUNNING}",
    "job_ask": f"coordinator.job_ask('default', r.id, r.agent, r.fence, 's', '?', p_ttl => '1 hour', p_fallback => $1::text::jsonb) from {RUNNING}",
    "job_answer": f"""coordinator.job_answer('default', q.id, $1::text::jsonb, p_actor => 'boss')
                      from {RUNNING}, lateral coordinator.job_ask('default', r.id, r.agent, r.fence, 's', '?') q""",
    "job_suspend": f"""coordinator.job_suspend('default', r.id, r.agent, r.fence, 's', jsonb_build_array(jsonb_build_object('signal', 's', 'value', $1::text::jsonb)))
                      from {RUNNING}""",
    "job_step": f"coordinator.job_step('default', r.id, r.agent, r.fence, 's', $1::text::jsonb) from {RUNNING}",
    "job_write": f"coordinator.job_write('default', r.id, r.agent, r.fence, jsonb_build_array($1::text::jsonb)) from {RUNNING}",
    "job_progress": f"coordinator.job_progress('default', r.id, r.agent, r.fence, p_checkpoint => $1::text::jsonb) from {RUNNING}",
}

ARGUMENTS = {
    "job": "'{job}'",
    "fence": "{fence}",
    "fences": "array[{fence}]",
    "jobs": """'[{{"type": "x"}}]'""",
    "error": "'broken'",
    ("job_retry", "type"): "'x'",
    ("job_suspend", "conditions"): """'[{{"signal": "s"}}]'""",
    ("job_write", "chunks"): "'[1]'",
}

NOT_ON_THE_COMMAND_LINE = {
    "job_cancel_children": "job cancel --children",
    "job_enqueue_many": "job enqueue --lines",
}
PYTHON_LACKS = {
    "job_claim": {"fences": "in finished", "results": "in finished"},
}
PYTHON_ADDS = {
    "job_claim": {"wait": "wait=… of the request"},
}
OPTIONS_LACK = {
    "job_output": {"limit": "the output is printed whole"},
    "job_claim": {
        "finished": "a command finishes with job complete",
        "fences": "a command finishes with job complete",
        "results": "a command finishes with job complete",
    },
}
OPTIONS_ADD = {
    "job_cancel": {"children": "job_cancel_children", "agent": "job_cancel_children", "fence": "job_cancel_children"},
    "job_claim": {"short": "the output", "wait": "wait=… of the request"},
    "job_output": {"follow": "job_output again and again"},
    "job_write": {"text": "a chunk"},
    "job_enqueue": {"lines": "job_enqueue_many"},
    "job_suspend": {
        "any": "of the conditions",
        "at": "of the conditions",
        "delay": "of the conditions",
        "directive": "of the conditions",
        "event": "of the conditions",
        "signal": "of the conditions",
    },
}
SPELLED = {
    "job_list": {"labels": "label"},
    "job_ask": {"options": "option", "fallback": "default"},
    "job_claim": {"queues": "queue", "types": "type"},
    "job_write": {"chunks": "chunk"},
    "job_enqueue": {"labels": "label", "limits": "limit", "locks": "lock"},
    "job_reconcile": {"fences": "fence"},
    "job_retry": {"from_step": "from", "from_ordinal": "ordinal"},
}


async def drive(tx: Transaction) -> None:
    settled = "create or replace function coordinator.server_settled() returns boolean language sql stable return true"
    await tx.connection.execute(settled)
    worker = await tx.run(agents.Register(project="default", name="w", job_types=["x"], ttl=HOUR * 24))

    async def enqueue(**fields: object) -> jobs.model.JobReceipt:
        return await tx.run(jobs.Enqueue(project="default", type="x", **fields))  # type: ignore[arg-type]

    async def claim() -> dict[str, object]:
        (grant,) = await tx.run(jobs.Claim(project="default", agent=worker.id))
        return {"project": "default", "job": grant.id, "agent": worker.id, "fence": grant.fence}

    await enqueue(after=[(await enqueue()).id])
    first = await claim()
    await tx.run(jobs.Write(**first, chunks=["text"]))  # type: ignore[arg-type]
    await tx.run(jobs.Complete(**first))  # type: ignore[arg-type]
    await tx.run(jobs.Complete(**await claim()))  # type: ignore[arg-type]
    await enqueue()
    await tx.run(jobs.Release(**await claim()))  # type: ignore[arg-type]
    await tx.run(jobs.Fail(**await claim(), error="e"))  # type: ignore[arg-type]
    await enqueue(max_attempts=1)
    await tx.run(jobs.Fail(**await claim(), error="e"))  # type: ignore[arg-type]
    running = await enqueue()
    await tx.run(job_trees.Pause(project="default", job=running.id, tree=True))
    await tx.run(job_trees.Resume(project="default", job=running.id, tree=True))
    await claim()
    await tx.run(jobs.Cancel(project="default", job=running.id))
    await enqueue()
    asking = await claim()
    await tx.run(job_waits.Ask(**asking, step="s", question="?"))  # type: ignore[arg-type]
    await tx.run(job_waits.Answer(project="default", job=asking["job"], value=1, actor="boss"))  # type: ignore[arg-type]
    await tx.run(jobs.Complete(**await claim()))  # type: ignore[arg-type]
    await enqueue(start_by=(await tx.run(agents.Heartbeat(agent=worker.id))))
    await tx.run(jobs.Cancel(project="default", job=(await enqueue(delay=HOUR)).id))
    await tx.set_clock(HOUR * 48)
    await tx.run(jobs.Expire())


async def populate(connection: asyncpg.Connection, project: str, known: Known) -> None:
    # Its claim is charged to a limit.
    await connection.execute("select coordinator.limit_set($1, 'one', p_budget => 5, p_type => 'x')", project)
    await connection.execute("select coordinator.job_enqueue($1, 'x')", project)
    job = await connection.fetchrow("select id, fence from coordinator.job_claim($1, $2)", project, known["agent"])
    known |= {"job": job["id"], "fence": job["fence"]}
