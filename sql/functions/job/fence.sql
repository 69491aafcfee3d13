-- Fences of jobs (see job.sql): what a worker may do with a job that it holds.

insert into coordinator.transaction_verbs (function, part, entered_by) values
  ('assert_job',   'condition', 'job_enter_parts'),
  ('job_cancel',   'write',     'job_enter_parts'),
  ('job_complete', 'write',     'job_enter_parts'),
  ('job_enqueue',  'write',     'job_enter_parts'),
  ('job_fail',     'write',     'job_enter_parts');

create or replace function coordinator.job_stale(p_project_id bigint, p_job uuid, p_agent uuid, p_fence bigint) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job    record;
  v_others boolean; -- the fence is right, and the agent is not
begin
  select * into v_job from coordinator.job_find(p_project_id, p_job);
  v_others := v_job.status = 'running' and v_job.fence = p_fence and v_job.agent_id <> p_agent;
  raise exception using errcode = 'ZC320',
    message = case when v_others then format('fence %s of job %s is not a fence of worker "%s": worker "%s" has the job, attempt %s', p_fence, p_job,
        coalesce((select a.name from coordinator.agents a where a.id = p_agent and a.project_id = p_project_id), p_agent::text), v_job.worker, v_job.attempt)
      else format('fence %s of job %s is stale: ', coalesce(p_fence::text, 'null'), p_job) || case
      when v_job.status = 'running' then format('worker "%s" has it now, attempt %s', v_job.worker, v_job.attempt)
      when v_job.ended_at is null then format('nobody has it now, it is %s', v_job.status)
      else format('it %s at %s', case when v_job.status in ('cancelled') then 'was ' else '' end || v_job.status ||
                    coalesce(' (' || nullif(v_job.reason, v_job.status) || ')', ''),
                  to_char(v_job.ended_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')) end end,
    detail = jsonb_build_object('job', p_job, 'status', v_job.status, 'reason', v_job.reason, 'agent_id', v_job.agent_id, 'worker', v_job.worker,
                                'fence', v_job.fence)::text,
    hint = case when v_others then 'Give the agent that claimed the job.' else 'Stop the work on it and discard its result: the job is no longer yours.' end;
end
$$;
comment on function coordinator.job_stale(bigint, uuid, uuid, bigint) is
  'Raise ZC320 because a worker no longer holds a job; the error says who holds it, or how it ended. ZC209: there is no such job. Internal.';

create or replace function coordinator.job_attempt(p_project text, p_job uuid, p_agent uuid, p_fence bigint) returns coordinator.jobs_running
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_attempt coordinator.jobs_running;
begin
  select r.* into v_attempt from coordinator.jobs_running r join coordinator.agents a on a.id = r.agent_id
  where r.id = p_job and r.fence = p_fence and r.agent_id = p_agent and a.project_id = v_project for update of r;
  if not found then
    perform coordinator.job_stale(v_project, p_job, p_agent, p_fence);
  end if;
  return v_attempt;
end
$$;
comment on function coordinator.job_attempt(text, uuid, uuid, bigint) is
  'Lock and return the attempt that a worker holds under a fence. ZC320: it holds none. Internal.';

create or replace function coordinator.job_finished(p_project_id bigint, p_job uuid, p_fence bigint) returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return exists (select from coordinator.jobs_ended j where j.project_id = p_project_id and j.id = p_job and j.fence = p_fence
                                                        and j.status in ('completed', 'cancelled') and j.result is not null);
end
$$;
comment on function coordinator.job_finished(bigint, uuid, bigint) is
  'Return whether a completion under this fence ended a job, so that a completion whose response was lost can be repeated. Internal.';

create or replace function coordinator.assert_job(p_project text, p_job uuid, p_fence bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform from coordinator.jobs_running r join coordinator.job_classes c on c.id = r.class_id
  where r.id = p_job and r.fence = p_fence and c.project_id = v_project for key share of r;
  if not found then
    perform coordinator.job_stale(v_project, p_job, null, p_fence);
  end if;
end
$$;
comment on function coordinator.assert_job(text, uuid, bigint) is
  'Guard a transaction: require that a job still runs under p_fence, and prevent the attempt from ending until the transaction ends, so that the caller''s own writes are committed first. ZC320: the fence is stale. No event.';

create or replace function coordinator.job_progress(
  p_project text, p_job uuid, p_agent uuid, p_fence bigint, p_percent double precision default null, p_message text default null,
  p_checkpoint jsonb default null)
returns setof coordinator.job_lease
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now     timestamptz := coordinator.now_utc();
  v_attempt coordinator.jobs_running := coordinator.job_attempt(p_project, p_job, p_agent, p_fence);
begin
  if p_percent not between 0 and 100 then
    raise exception using errcode = 'ZC104', message = format('%s percent is out of range', p_percent), hint = 'Give 0 to 100.';
  elsif p_message is not null then
    perform coordinator.check_text('the message', p_message, 2000);
  end if;
  if p_checkpoint is not null then
    perform coordinator.check_json('the checkpoint', p_checkpoint);
  end if;
  return query
    update coordinator.jobs_running r
    set percent = coalesce(p_percent, r.percent), message = coalesce(p_message, r.message), checkpoint = coalesce(p_checkpoint, r.checkpoint),
        progress_at = v_now, stall_at = v_now + (select j.stall from coordinator.jobs_open j where j.id = p_job)
    where r.id = p_job
    returning r.id, r.fence, r.deadline_at, r.stall_at, r.cancel_at, r.cancel_reason;
end
$$;
comment on function coordinator.job_progress(text, uuid, uuid, bigint, double precision, text, jsonb) is
  'Report the progress of a job, and a checkpoint from which the next attempt can continue. This restarts the job''s stall time. Return until when the worker may hold the job; cancel_at: a cancellation was requested, so stop. ZC320: the fence is stale. No event.';

create or replace function coordinator.job_reconcile(
  p_project text, p_agent uuid, p_fences bigint[], p_grace interval default '10 seconds')
returns setof coordinator.job_verdict
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_agent   text;
  v_unknown coordinator.jobs_running[];
begin
  if p_fences is null or array_ndims(p_fences) > 1 or array_position(p_fences, null) is not null then
    raise exception using errcode = 'ZC103', message = 'the fences are not a plain list', hint = 'Give an array of numbers; it may be empty.';
  elsif cardinality(p_fences) > 10000 then
    raise exception using errcode = 'ZC102', message = format('%s fences; at most 10000 are allowed', cardinality(p_fences)),
      hint = 'A worker that has more jobs should be several agents.';
  elsif p_grace is null or p_grace not between interval '0' and interval '1 day' then
    raise exception using errcode = 'ZC104', message = 'the grace time is out of range', hint = 'Give 0s to 1d, and more than a response takes to arrive.';
  end if;
  select a.name into v_agent from coordinator.agents a where a.id = p_agent and a.project_id = v_project for key share;
  if not found then
    perform coordinator.agent_missing(p_project, p_agent);
  end if;
  with gone as (
    delete from coordinator.jobs_running r
    where r.ctid = any (array(
      select o.ctid from coordinator.jobs_running o
      where o.agent_id = p_agent and o.started_at < v_now - p_grace and o.fence <> all (p_fences)
        and o.id = any (array(select a.id from coordinator.jobs_running a where a.agent_id = p_agent))
      order by o.id for update skip locked))
    returning r as attempt)
  select array_agg(g.attempt order by (g.attempt).id) into v_unknown from gone g;
  perform coordinator.job_put_back(v_unknown, 'released', v_agent, v_now);
  return query
    select u.fence, u.id, 'released' from unnest(v_unknown) u
    union all
    select f.fence, r.id, case when r.id is null then 'lost' else 'cancel' end
    from unnest(p_fences) f (fence) left join coordinator.jobs_running r on r.agent_id = p_agent and r.fence = f.fence
    where r.id is null or r.cancel_at is not null;
end
$$;
comment on function coordinator.job_reconcile(text, uuid, bigint[], interval) is
  'Compare the jobs that a worker holds with those that it knows about: p_fences. Jobs that it claimed more than p_grace ago and does not list are released, since the response to their claim was lost. Return a row for each fence that needs attention: lost (the worker no longer holds it: stop), cancel (a cancellation was requested: stop), released. Call it with each heartbeat.';

create or replace function coordinator.job_enter_parts(p_project_id bigint, p_parts jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_keys text[] := array(select distinct p ->> 'dedupe_key' from jsonb_array_elements(p_parts) p where p ->> 'dedupe_key' is not null order by 1);
begin
  perform from coordinator.jobs_running r
  where r.id = any (array(select (p ->> 'job')::uuid from jsonb_array_elements(p_parts) p where p ? 'job')) order by r.id for update;
  -- Jobs that end and jobs that others will wait for, in one order.
  perform from coordinator.jobs_open j
  where j.project_id = p_project_id and j.id = any (array(
    select (p ->> 'job')::uuid from jsonb_array_elements(p_parts) p where p ? 'job'
    union select (p ->> 'parent')::uuid from jsonb_array_elements(p_parts) p where p ? 'parent'
    union select a::uuid from jsonb_array_elements(p_parts) p, jsonb_array_elements_text(p -> 'after') a where jsonb_typeof(p -> 'after') = 'array'))
  order by j.id for update;
  perform coordinator.queue_enter(p_project_id, array(
    select distinct coalesce(p ->> 'queue', 'default') from jsonb_array_elements(p_parts) p where p ? 'type'),
    coalesce(p_parts -> 0 ->> 'actor', session_user));
  -- To lock a key that no job has, insert and delete a row: another transaction that inserts the key waits until this one ends.
  insert into coordinator.job_dedupes (project_id, key, job_id)
  select p_project_id, k, '00000000-0000-0000-0000-000000000000' from unnest(v_keys) k order by k on conflict on constraint job_dedupes_pkey do nothing;
  delete from coordinator.job_dedupes d
  where d.project_id = p_project_id and d.key = any (v_keys) and d.job_id = '00000000-0000-0000-0000-000000000000';
  perform from coordinator.job_dedupes d where d.project_id = p_project_id and d.key = any (v_keys) order by d.key for update;
end
$$;
comment on function coordinator.job_enter_parts(bigint, jsonb) is
  'Take the locks of all parts of a transaction that concern jobs: attempts, open jobs, queues, dedupe keys. No event. Internal.';
