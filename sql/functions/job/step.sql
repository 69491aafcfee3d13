-- Steps of jobs (see job.sql): a worker stores the result of each part of its work under its fence. The next attempt reads the finished
-- steps instead of repeating them.
--
-- A step has a name and an ordinal, which distinguishes the iterations of a loop. Its result is stored once and never changed. If a
-- worker dies after the work and before the result is stored, the work is repeated. Work that must happen only once belongs in the
-- transaction that stores the result with job_step, or uses (job, name, ordinal) as its idempotency key.

insert into coordinator.rights (function, role) values
  ('job_step',  'agent'),
  ('job_steps', 'reader');

insert into coordinator.limits (name, value, unit, meaning) values
  ('job_steps',      1000,    'steps', 'Finished steps per job.'),
  ('job_step_bytes', 4194304, 'bytes', 'Total size of step results per job, as text.');

insert into coordinator.transaction_verbs (function, part, entered_by) values
  ('job_step', 'write', 'job_enter_parts');

create or replace function coordinator.job_step_name(p_name text, p_ordinal integer) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_key('the name of the step', p_name);
  if p_ordinal is null or p_ordinal not between 1 and 1000000 then
    raise exception using errcode = 'ZC104', message = format('an ordinal of %s is out of range', coalesce(p_ordinal::text, 'null')),
      hint = 'Give 1 for the first step of this name, 2 for the second, and so on.';
  end if;
end
$$;
comment on function coordinator.job_step_name(text, integer) is
  'Reject an invalid name or ordinal of a step. Internal.';

create or replace function coordinator.job_step_of(p_job uuid, p_name text, p_ordinal integer) returns setof coordinator.job_steps
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return query
    select s.job_id, s.place, s.name, s.ordinal, s.kind, s.result, s.fence, s.actor, s.finished_at, null::text
    from coordinator.job_steps_open s where s.job_id = p_job and s.name = p_name and s.ordinal = p_ordinal;
end
$$;
comment on function coordinator.job_step_of(uuid, text, integer) is
  'Return a finished step of an open job, without its project; no row: it is not finished. Internal.';

create or replace function coordinator.job_step_store(
  p_job uuid, p_name text, p_ordinal integer, p_kind text, p_result jsonb, p_fence bigint, p_actor text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_last  coordinator.job_steps_open;
  v_bytes bigint := octet_length(p_result::text);
begin
  select * into v_last from coordinator.job_steps_open s where s.job_id = p_job order by s.place desc limit 1;
  if p_kind = 'step' and v_last.place >= 1000 then
    raise exception using errcode = 'ZC102', message = format('job %s has 1000 finished steps', p_job),
      hint = 'Combine steps, or split the job.';
  elsif p_kind = 'step' and coalesce(v_last.bytes, 0) + v_bytes > 4194304 then
    raise exception using errcode = 'ZC102', message = format('the results of the steps of job %s would take %s bytes as text; at most 4194304 are allowed',
                                                              p_job, v_last.bytes + v_bytes),
      hint = 'Store large results elsewhere, and return their location.';
  end if;
  insert into coordinator.job_steps_open (job_id, place, name, ordinal, kind, result, fence, actor, finished_at, bytes)
  values (p_job, coalesce(v_last.place, 0) + 1, p_name, p_ordinal, p_kind, p_result, p_fence, p_actor, p_now, coalesce(v_last.bytes, 0) + v_bytes);
end
$$;
comment on function coordinator.job_step_store(uuid, text, integer, text, jsonb, bigint, text, timestamptz) is
  'Store a finished step of a job whose attempt or place among the waiting ones the caller has locked. No event. Internal.';

create or replace function coordinator.job_step(
  p_project text, p_job uuid, p_agent uuid, p_fence bigint, p_step text, p_result jsonb default 'null', p_ordinal integer default 1)
returns setof coordinator.job_steps
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now  timestamptz := coordinator.now_utc();
  v_step coordinator.job_steps;
begin
  perform coordinator.job_attempt(p_project, p_job, p_agent, p_fence);
  perform coordinator.job_step_name(p_step, p_ordinal);
  p_result := coalesce(p_result, 'null');
  perform coordinator.check_json('the result of the step', p_result);
  select * into v_step from coordinator.job_step_of(p_job, p_step, p_ordinal);
  if not found then
    perform coordinator.job_step_store(p_job, p_step, p_ordinal, 'step', p_result, p_fence, coordinator.job_worker(p_agent), v_now);
    update coordinator.jobs_running r
    set progress_at = v_now, stall_at = v_now + (select j.stall from coordinator.jobs_open j where j.id = p_job) where r.id = p_job;
    select * into v_step from coordinator.job_step_of(p_job, p_step, p_ordinal);
  elsif v_step.kind <> 'step' or v_step.result <> p_result then
    raise exception using errcode = 'ZC329',
      message = format('step "%s" %s of job %s has finished with another result', left(p_step, 200), p_ordinal, p_job),
      detail = jsonb_build_object('job', p_job, 'name', p_step, 'ordinal', p_ordinal, 'kind', v_step.kind, 'fence', v_step.fence,
                                  'finished_at', v_step.finished_at)::text,
      hint = 'Read the finished steps at the start of an attempt, and use their results. Another step needs another name, or the next ordinal.';
  end if;
  v_step.project := p_project;
  return next v_step;
end
$$;
comment on function coordinator.job_step(text, uuid, uuid, bigint, text, jsonb, integer) is
  'Store the result of a step of a job, for this attempt and later ones. p_ordinal: which step of this name, from 1. The call counts as progress. Repeating it with the same result changes nothing. ZC320: the fence is stale. ZC329: the step has finished with another result. No event.';

create or replace function coordinator.job_steps(p_project text, p_job uuid, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.job_steps
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{number}');
  -- Each attempt asks for the steps of its own job, which is open, so do not read the history.
  if exists (select from coordinator.jobs_open j where j.id = p_job and j.project_id = v_project) then
    return query
      select s.job_id, s.place, s.name, s.ordinal, s.kind, s.result, s.fence, s.actor, s.finished_at, p_project
      from coordinator.job_steps_open s
      where s.job_id = p_job and s.place > coalesce(p_after[1]::bigint, 0) order by s.place limit p_limit;
    return;
  end if;
  perform coordinator.job_find(v_project, p_job);
  return query
    select e.id, s.place, s.name, s.ordinal, s.kind, s.result, s.fence, s.actor, s.finished_at, p_project
    from coordinator.jobs_ended e
    cross join lateral jsonb_to_recordset(e.steps)
      as s (place integer, name text, ordinal integer, kind text, result jsonb, fence bigint, actor text, finished_at timestamptz)
    where e.project_id = v_project and e.id = p_job and s.place > coalesce(p_after[1]::bigint, 0) order by s.place limit p_limit;
end
$$;
comment on function coordinator.job_steps(text, uuid, text[], integer) is
  'List the finished steps of a job with their results, in the order in which they finished. ZC209: there is no such job. p_after: array[place] of the last row read.';
