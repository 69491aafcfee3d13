-- Views of jobs, whether they wait, run or have ended.

-- Join after the union, so that a page is a merge of index scans.
create or replace view coordinator.job_rows as
  select j.id, j.type, j.payload,
         coalesce(j.status, case when r.id is not null then 'running' when l.id is not null then 'scheduled' when w.id is not null then 'waiting' else 'queued' end) as status,
         j.result, j.error, coalesce(r.attempt, j.attempts)::integer as attempts, j.max_attempts::integer as max_attempts, j.created_at,
         coalesce(j.completed_at, greatest(j.created_at, r.started_at, r.progress_at, (j.past -> -1 ->> 'ended_at')::timestamptz)) as updated_at,
         coalesce(l.due_at, j.scheduled_at) as scheduled_at, coalesce(r.started_at, j.started_at) as started_at, j.completed_at,
         coalesce(r.agent_id, j.agent_id) as worker_id, coalesce(a.name, j.worker) as worker, coalesce(r.fence, j.fence) as fence,
         j.queue, j.key, j.priority::integer as priority, j.labels, j.reason, r.percent::double precision as percent, r.message,
         coalesce(r.checkpoint, j.checkpoint) as checkpoint, r.cancel_at, j.start_by, j.dedupe_key, j.parent_id, j.retry_of, j.retried_as,
         j.actor, j.ended_by, j.root_id, j.depth::integer as depth, j.after, j.after_mode, j.on_failure, j.limits, w.cause, j.locks, r.tokens, j.project_id, j.part, j.status as end_status, j.past, j.steps, j.traceparent
  from (
    select id, type, payload, null::text as status, null::jsonb as result, error, attempts, max_attempts, created_at, scheduled_at,
           null::timestamptz as started_at, null::timestamptz as completed_at, null::uuid as agent_id, null::text as worker, null::bigint as fence,
           queue, key, priority, labels, null::text as reason, checkpoint, start_by, dedupe_key, parent_id, retry_of, null::uuid as retried_as,
           actor, null::text as ended_by, root_id, depth, after, after_mode, on_failure, limits, locks, project_id, 'open' as part, past, null::jsonb as steps, traceparent
    from coordinator.jobs_open
    union all
    select id, type, payload, status, result, error, attempts, max_attempts, created_at, scheduled_at, started_at, completed_at, agent_id, worker,
           fence, queue, key, priority, labels, reason, checkpoint, null::timestamptz, dedupe_key, parent_id, retry_of, retried_as, actor, ended_by,
           root_id, depth, after, after_mode, on_failure, limits, locks, project_id, 'completed', past, steps, traceparent
    from coordinator.jobs_completed
    union all
    select id, type, payload, status, result, error, attempts, max_attempts, created_at, scheduled_at, started_at, completed_at, agent_id, worker,
           fence, queue, key, priority, labels, reason, checkpoint, null::timestamptz, dedupe_key, parent_id, retry_of, retried_as, actor, ended_by,
           root_id, depth, after, after_mode, on_failure, limits, locks, project_id, 'uncompleted', past, steps, traceparent
    from coordinator.jobs_uncompleted) j
  left join coordinator.jobs_running r on r.id = j.id
  left join coordinator.jobs_later l on l.id = j.id
  left join coordinator.jobs_waiting w on w.id = j.id
  left join coordinator.agents a on a.id = r.agent_id;
comment on view coordinator.job_rows is 'Jobs of all projects, without a security barrier, so that conditions of any kind reach the indexes. Internal: functions read it.';

create or replace view coordinator.jobs with (security_barrier) as
  select j.id, j.type, j.payload, j.status, j.result, j.error, j.attempts, j.max_attempts, j.created_at, j.updated_at, j.scheduled_at,
         j.started_at, j.completed_at, j.worker_id, j.worker, j.fence, j.queue, j.key, j.priority, j.labels, j.reason, j.percent,
         j.message, j.checkpoint, j.cancel_at, j.start_by, j.dedupe_key, j.parent_id, j.retry_of, j.retried_as, j.actor, j.ended_by, p.name as project,
         coalesce(j.root_id, j.id) as root_id, coalesce(j.depth, 0) as depth, coalesce(j.after, '{}') as after,
         case when j.after is not null then coalesce(j.after_mode, 'all') end as after_mode, case when j.after is not null then coalesce(j.on_failure, 'cancel') end as on_failure,
         j.cause as waiting_for, coalesce(j.limits, '{}') as limits,
         coalesce(j.locks, '{}') as locks, j.tokens, j.traceparent
  from coordinator.job_rows j join coordinator.projects p on p.id = j.project_id
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.jobs              is 'Jobs: waiting, running, and retained ended ones.';
comment on column coordinator.jobs.id           is 'UUID, ordered by creation time.';
comment on column coordinator.jobs.type         is 'Type that a worker must have in its job_types.';
comment on column coordinator.jobs.payload      is 'Any JSON value for the worker.';
comment on column coordinator.jobs.status       is 'queued, scheduled, waiting or running; after the end: completed, failed, cancelled or expired.';
comment on column coordinator.jobs.result       is 'Result from the worker; null before the end.';
comment on column coordinator.jobs.error        is 'Error of the last failed attempt.';
comment on column coordinator.jobs.attempts     is 'Number of attempts that count, including the running one.';
comment on column coordinator.jobs.max_attempts is 'Maximum number of attempts.';
comment on column coordinator.jobs.created_at   is 'When it was enqueued.';
comment on column coordinator.jobs.updated_at   is 'When it last changed: an attempt began, ended or reported progress.';
comment on column coordinator.jobs.scheduled_at is 'Earliest time at which it may start.';
comment on column coordinator.jobs.started_at   is 'When the current attempt began; for an ended job, the last attempt.';
comment on column coordinator.jobs.completed_at is 'When it ended, with any status; null before.';
comment on column coordinator.jobs.worker_id    is 'Agent that runs it or ran it last; see workers.';
comment on column coordinator.jobs.worker       is 'Name of that agent.';
comment on column coordinator.jobs.fence        is 'Fence of the running attempt, or of the last one.';
comment on column coordinator.jobs.queue        is 'Name of its queue.';
comment on column coordinator.jobs.key          is 'Key by which a fair queue takes turns; may be null.';
comment on column coordinator.jobs.priority     is 'Higher comes first.';
comment on column coordinator.jobs.labels       is 'Labels that a worker must have.';
comment on column coordinator.jobs.reason       is 'Why it did not complete: error, worker_lost, stalled, deadline, crash_loop, cancelled, replaced, dependency or start_by.';
comment on column coordinator.jobs.percent      is 'Progress of the running attempt, 0 to 100.';
comment on column coordinator.jobs.message      is 'Progress message of the running attempt.';
comment on column coordinator.jobs.checkpoint   is 'Checkpoint that the last attempt left for the next one.';
comment on column coordinator.jobs.cancel_at    is 'When the running attempt loses its fence because a cancellation was requested.';
comment on column coordinator.jobs.start_by     is 'Time by which an attempt must begin; otherwise, the job expires. Null after its end.';
comment on column coordinator.jobs.dedupe_key   is 'Dedupe key; may be null.';
comment on column coordinator.jobs.parent_id    is 'Parent job in its tree; may be null.';
comment on column coordinator.jobs.retry_of     is 'Ended job that this job retries; may be null.';
comment on column coordinator.jobs.retried_as   is 'Job that retries this job; may be null.';
comment on column coordinator.jobs.actor        is 'Who enqueued it.';
comment on column coordinator.jobs.ended_by     is 'Who ended it; null before.';
comment on column coordinator.jobs.project      is 'Name of the project.';
comment on column coordinator.jobs.root_id      is 'Root of its tree; its own id if it has no parent.';
comment on column coordinator.jobs.depth        is 'Number of jobs above it in its tree.';
comment on column coordinator.jobs.after        is 'Jobs after which it starts.';
comment on column coordinator.jobs.after_mode   is 'all: starts after all of them; any: starts after one; null: starts after no others.';
comment on column coordinator.jobs.on_failure   is 'What to do if one of them does not complete: cancel, ignore or run; null: starts after no others.';
comment on column coordinator.jobs.locks        is 'Resources that it holds locked while it runs.';
comment on column coordinator.jobs.tokens       is 'Fencing tokens of the locks that the current attempt acquired with its claim, by resource; null: none.';
comment on column coordinator.jobs.traceparent  is 'The W3C trace context of the call that enqueued it, which its attempts continue; null: there is none.';
comment on column coordinator.jobs.waiting_for  is 'What it waits for: jobs, lock, limit, wait, answer or tree; null: it does not wait.';
comment on column coordinator.jobs.limits       is 'Limits that it names, with its cost for each.';

do $$
declare
  v_column record;
begin
  for v_column in
    select r.attname, coalesce(col_description(j.attrelid, j.attnum),
             case r.attname when 'project_id' then 'The project.' when 'cause' then 'What it waits for; null if it does not wait.' when 'part' then 'Where it is: open, completed or uncompleted.'
                            when 'end_status' then 'Its status if it has ended, which has statistics.'
                            when 'steps' then 'Finished steps of a job that has ended, in their order.'
                            else 'Attempts that ended, newest last.' end) as description
    from pg_attribute r left join pg_attribute j on j.attrelid = 'coordinator.jobs'::regclass and j.attname = r.attname
    where r.attrelid = 'coordinator.job_rows'::regclass and r.attnum > 0
  loop
    execute format('comment on column coordinator.job_rows.%I is %L', v_column.attname, v_column.description);
  end loop;
end
$$;

create or replace view coordinator.job_attempts with (security_barrier) as
  select j.id as job, x.attempt, x.fence, x.agent_id as worker_id, x.worker, x.started_at, x.ended_at, x.outcome, x.error, p.name as project
  from coordinator.job_rows j
  join coordinator.projects p on p.id = j.project_id
  cross join lateral (
    select x.* from jsonb_to_recordset(j.past)
      as x (attempt integer, fence bigint, agent_id uuid, worker text, started_at timestamptz, ended_at timestamptz, outcome text, error text)
    union all
    select j.attempts, j.fence, j.worker_id, j.worker, j.started_at, j.completed_at,
           case when j.part = 'open' then 'running' when j.reason = 'error' then 'failed' else coalesce(j.reason, j.status) end, case when j.part <> 'open' then j.error end
    where j.fence is not null) x
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.job_attempts            is 'Attempts of jobs: running ones, and the last 50 ended ones of each job.';
comment on column coordinator.job_attempts.job        is 'The job.';
comment on column coordinator.job_attempts.attempt    is 'Number of the attempt, from 1. A snoozed or released attempt shares its number with the next.';
comment on column coordinator.job_attempts.fence      is 'Fence of the attempt; grows with each attempt.';
comment on column coordinator.job_attempts.worker_id  is 'Agent that ran it.';
comment on column coordinator.job_attempts.worker     is 'Name of that agent.';
comment on column coordinator.job_attempts.started_at is 'When it began.';
comment on column coordinator.job_attempts.ended_at   is 'When it ended; null while it runs.';
comment on column coordinator.job_attempts.outcome    is 'running, completed, failed, snoozed, released, worker_lost, stalled or deadline; for the last attempt, how the job ended.';
comment on column coordinator.job_attempts.error      is 'Error of the attempt; may be null.';
comment on column coordinator.job_attempts.project    is 'Name of the project.';

create or replace view coordinator.job_steps with (security_barrier) as
  select j.id as job, s.place, s.name, s.ordinal, s.kind, s.result, s.fence, s.actor, s.finished_at, p.name as project
  from coordinator.job_rows j
  join coordinator.projects p on p.id = j.project_id
  cross join lateral (
    select s.* from jsonb_to_recordset(j.steps)
      as s (place integer, name text, ordinal integer, kind text, result jsonb, fence bigint, actor text, finished_at timestamptz)
    union all
    select o.place, o.name, o.ordinal, o.kind, o.result, o.fence, o.actor, o.finished_at
    from coordinator.job_steps_open o where o.job_id = j.id) s
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.job_steps             is 'Finished steps of jobs, including ended jobs.';
comment on column coordinator.job_steps.job         is 'The job.';
comment on column coordinator.job_steps.place       is 'Position in the order in which the job''s steps finished, from 1.';
comment on column coordinator.job_steps.name        is 'Name of the step.';
comment on column coordinator.job_steps.ordinal     is 'Number of the step among those of this name, from 1.';
comment on column coordinator.job_steps.kind        is 'step: done by a worker; wait: outcome of a wait; answer: answer to a question.';
comment on column coordinator.job_steps.result      is 'Result of the step.';
comment on column coordinator.job_steps.fence       is 'Fence of the attempt that finished the step or began the wait.';
comment on column coordinator.job_steps.actor       is 'Who finished the step: the worker, the one who answered, or coordinator.';
comment on column coordinator.job_steps.finished_at is 'When it finished.';
comment on column coordinator.job_steps.project     is 'Name of the project.';

create or replace view coordinator.workers with (security_barrier) as
  select a.id, a.project, a.name,
         case when a.heartbeat_at + a.ttl <= coordinator.now_utc() then 'lost' when r.running > 0 then 'busy' else 'idle' end as status,
         a.heartbeat_at as last_seen, a.job_types, a.labels, r.current_job, coalesce(r.running, 0)::integer as running, a.metadata, a.registered_at
  from coordinator.agents a
  left join lateral (
    select (array_agg(r.id order by r.started_at, r.id))[1] as current_job, count(*) as running
    from coordinator.jobs_running r where r.agent_id = a.id) r on true
  where cardinality(a.job_types) > 0
    and coalesce(a.project = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.workers               is 'Workers: agents with job types.';
comment on column coordinator.workers.id            is 'Id of the agent.';
comment on column coordinator.workers.project       is 'Name of the project.';
comment on column coordinator.workers.name          is 'Name of the agent.';
comment on column coordinator.workers.status        is 'busy (it has jobs), idle, or lost (its heartbeat is overdue, and its jobs are rescued).';
comment on column coordinator.workers.last_seen     is 'When it last sent a heartbeat.';
comment on column coordinator.workers.job_types     is 'Job types that it runs.';
comment on column coordinator.workers.labels        is 'Labels of the worker.';
comment on column coordinator.workers.current_job   is 'Job that it has held longest.';
comment on column coordinator.workers.running       is 'Number of its jobs.';
comment on column coordinator.workers.metadata      is 'JSON object chosen by the agent.';
comment on column coordinator.workers.registered_at is 'When it registered.';
