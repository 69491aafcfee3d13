-- Fences of jobs (see job.sql): what a worker may do with a job that it has.

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
  v_job record;
begin
  select * into v_job from coordinator.job_find(p_project_id, p_job);
  raise exception using errcode = 'ZC320',
    message = format('fence %s of job %s is stale: ', coalesce(p_fence::text, 'null'), p_job) || case
      when v_job.status = 'running' then format('worker "%s" has it now, attempt %s', v_job.worker, v_job.attempt)
      when v_job.ended_at is null then format('nobody has it now, it is %s', v_job.status)
      else format('it %s at %s', case when v_job.status in ('cancelled') then 'was ' else '' end || v_job.status || coalesce(' (' || v_job.reason || ')', ''),
                  to_char(v_job.ended_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')) end,
    detail = jsonb_build_object('job', p_job, 'status', v_job.status, 'reason', v_job.reason, 'agent_id', v_job.agent_id, 'worker', v_job.worker,
                                'fence', v_job.fence)::text,
    hint = 'Stop the work on it and drop its result: the job is no longer yours.';
end
$$;
comment on function coordinator.job_stale(bigint, uuid, uuid, bigint) is
  'Raise ZC320: a worker no longer has a job; say who has it, or how it ended. ZC209: there is no such job. Internal.';

create or replace function coordinator.job_attempt(p_project text, p_job uuid, p_agent uuid, p_fence bigint) returns coordinator.jobs_running
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
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
  'Lock and return the attempt that a worker has under a fence. ZC320: it has none. Internal.';

create or replace function coordinator.job_finished(p_project_id bigint, p_job uuid, p_fence bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
begin atomic
  select exists (select from coordinator.jobs_ended j where j.project_id = p_project_id and j.id = p_job and j.fence = p_fence
                                                        and j.status in ('completed', 'cancelled'));
end;
comment on function coordinator.job_finished(bigint, uuid, bigint) is
  'Return whether a job ended under this fence, so that the worker repeats a completion whose answer was lost. Internal.';

create or replace function coordinator.assert_job(p_project text, p_job uuid, p_fence bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
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
  'Require that a job still runs under p_fence, and keep it so to the end of the transaction: nobody ends the attempt before the caller''s own writes are committed. ZC320: the fence is stale. No event.';

create or replace function coordinator.job_progress(
  p_project text, p_job uuid, p_agent uuid, p_fence bigint, p_percent double precision default null, p_message text default null,
  p_checkpoint jsonb default null)
returns setof coordinator.job_lease
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
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
  'Report the progress of a job, and what a next attempt can continue from. The job then does not stall for another stall time. Returns until when the worker may have it; cancel_at: stop, a cancellation was requested. ZC320: the fence is stale. No event.';
