-- Retrying ended jobs: a retry is a new job with the same payload and policy. The new job refers to the old one (retry_of), and the old
-- one to the new (retried_as).

insert into coordinator.rights (function, role) values
  ('job_retry', 'manager');

create or replace function coordinator.job_bare(p_job coordinator.jobs_ended) returns coordinator.jobs_ended
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  p_job.steps := null;
  p_job.chunks := null;
  return p_job;
end
$$;
comment on function coordinator.job_bare(coordinator.jobs_ended) is
  'Return an ended job without its steps and output, which for many jobs would exceed what an array can hold. Internal.';

create or replace function coordinator.job_retry(
  p_project text, p_job uuid default null, p_status text[] default null, p_reason text default null, p_type text default null,
  p_queue text default null, p_key text default null, p_limit integer default 1000, p_actor text default null, p_from_step text default null, p_from_ordinal integer default 1)
returns table (id uuid, retry_of uuid, queue text, type text, status text, scheduled_at timestamptz, created boolean, steps integer)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan -- plan for the conditions that the call has
set jit = off
as $$
#variable_conflict use_column
declare
  v_project bigint := coordinator.project_id(p_project);
  v_job     coordinator.jobs;
  v_ended   coordinator.jobs_ended[];
  v_made    coordinator.job_receipt[];
  v_first   timestamptz;
  v_last    timestamptz;
  v_names   text[];
  v_place   integer;
  v_message text;
  v_detail  text;
  v_hint    text;
begin
  perform coordinator.check_page(p_limit);
  if p_from_step is not null then
    perform coordinator.job_step_name(p_from_step, p_from_ordinal);
  elsif p_from_ordinal <> 1 then
    raise exception using errcode = 'ZC105', message = 'the ordinal of a step is given without its name', hint = 'Give the name of the step, too.';
  end if;
  if p_job is not null then
    select * into v_job from coordinator.job_show(p_project, p_job);
    if num_nonnulls(p_status, p_reason, p_type, p_queue, p_key) > 0 then
      raise exception using errcode = 'ZC105', message = 'both a job and conditions are given', hint = 'Give one or the other.';
    elsif v_job.completed_at is null then
      raise exception using errcode = 'ZC324', message = format('job %s has not ended: it is %s', p_job, v_job.status),
        detail = jsonb_build_object('status', v_job.status)::text, hint = 'Wait for its end, or cancel it first.';
    end if;
    v_ended := array(select coordinator.job_bare(e) from coordinator.jobs_ended e where e.project_id = v_project and e.id = p_job for no key update);
    if v_ended[1].retried_as is not null then
      return query
        select v_ended[1].retried_as, p_job, v_job.queue, v_job.type, r.status, r.scheduled_at, false, coordinator.job_step_count(r.id)
        from (select) one left join coordinator.job_select(p_project, format('j.id = %L', v_ended[1].retried_as)) r on true;
      return;
    end if;
    if p_from_step is not null then
      v_names := array(select s.name from coordinator.job_steps s where s.project = p_project and s.job = p_job);
      if p_from_step <> all (v_names) and coordinator.nearest(p_from_step, v_names) is not null then
        raise exception using errcode = 'ZC105', message = format('job %s has not finished a step "%s"', p_job, left(p_from_step, 200)),
          hint = format('Did you mean "%s"? See "coordinator job steps".', coordinator.nearest(p_from_step, v_names));
      end if;
    end if;
  elsif num_nonnulls(p_status, p_reason, p_type, p_queue, p_key) = 0 then
    raise exception using errcode = 'ZC101', message = 'neither a job nor a condition is given',
      hint = 'Give the id of a job, or say which to retry, such as all with the status failed.';
  else
    p_status := coalesce(p_status, '{failed}');
    if not p_status <@ '{failed,cancelled,expired}' then
      raise exception using errcode = 'ZC105', message = format('invalid status of jobs to retry: %s', left(array_to_string(p_status, ', ', 'null'), 200)),
        hint = 'Use failed, cancelled or expired. A job that completed is retried by its id.';
    end if;
    v_ended := array(
      select coordinator.job_bare(e) from coordinator.jobs_uncompleted e
      where e.project_id = v_project and e.retried_as is null and e.status = any (p_status) and (p_reason is null or e.reason = p_reason)
        and (p_type is null or e.type = p_type) and (p_queue is null or e.queue = p_queue) and (p_key is null or e.key = p_key)
      order by e.id limit p_limit for no key update skip locked);
    v_ended := v_ended[:(select greatest(1, count(*)) from (
      select sum(octet_length(e.payload::text) + coalesce(octet_length(to_jsonb(e.locks)::text), 0)) over (order by e.ordinality) as bytes
      from unnest(v_ended) with ordinality e) s where s.bytes <= 8388608)]; -- the maximum that one call may enqueue
  end if;
  if v_ended = '{}' then
    return;
  end if;
  begin
    v_made := array(
      select m from coordinator.job_insert(p_project, (
        select jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
            'type', e.type, 'queue', e.queue, 'key', e.key, 'priority', e.priority, 'max_attempts', e.max_attempts, 'backoff', e.backoff,
            'deadline', e.deadline, 'stall', e.stall, 'rescue', e.rescue, 'labels', e.labels, 'locks', e.locks,
            'limits', (select jsonb_object_agg(a.key, a.value) from jsonb_each(e.limits) a -- without deleted limits, which waiting jobs ignore as well
                       join coordinator.job_limits l on l.project_id = v_project and l.name = a.key and l.tree is null)
          )) || jsonb_build_object('payload', e.payload)
          order by e.ordinality)
        from unnest(v_ended) with ordinality e), p_actor, true) m);
  exception when others then -- the error names the job by its position
    get stacked diagnostics v_message = message_text, v_detail = pg_exception_detail, v_hint = pg_exception_hint;
    v_place := case when v_detail ~ '^\{' then (v_detail::jsonb ->> 'job')::integer end;
    if v_place is null or v_message !~ ('^job ' || v_place || ': ') then
      raise;
    end if;
    raise exception using errcode = sqlstate, hint = v_hint,
      message = format('job %s cannot be retried: %s', v_ended[v_place + 1].id, substr(v_message, length('job ' || v_place || ': ') + 1)),
      detail = (v_detail::jsonb || jsonb_build_object('job', v_ended[v_place + 1].id))::text;
  end;
  update coordinator.jobs_open j set retry_of = u.old, parent_id = u.parent, root_id = u.root, depth = u.depth
  from unnest(array(select m.id from unnest(v_made) m), array(select e.id from unnest(v_ended) e), array(select e.parent_id from unnest(v_ended) e),
              array(select e.root_id from unnest(v_ended) e), array(select e.depth from unnest(v_ended) e))
    u (new, old, parent, root, depth) where j.id = u.new;
  -- The times exclude partitions.
  select min(e.completed_at), max(e.completed_at) into v_first, v_last from unnest(v_ended) e;
  update coordinator.jobs_ended e set retried_as = u.new
  from unnest(array(select m.id from unnest(v_made) m), array(select e.id from unnest(v_ended) e)) u (new, old)
  where e.project_id = v_project and e.id = u.old and e.completed_at between v_first and v_last;
  if p_from_step is not null then
    insert into coordinator.job_steps_open (job_id, place, name, ordinal, kind, result, fence, actor, finished_at, bytes)
    select u.new, s.place, s.name, s.ordinal, s.kind, s.result, s.fence, s.actor, s.finished_at,
           sum(octet_length(s.result::text)) over (partition by u.new order by s.place)
    from unnest(array(select m.id from unnest(v_made) m), array(select e.id from unnest(v_ended) e)) u (new, old)
    join coordinator.jobs_ended e on e.project_id = v_project and e.id = u.old and e.completed_at between v_first and v_last
    cross join lateral jsonb_to_recordset(e.steps)
      as s (place integer, name text, ordinal integer, kind text, result jsonb, fence bigint, actor text, finished_at timestamptz)
    where s.place < coalesce((select min(f.place) from jsonb_to_recordset(e.steps) as f (place integer, name text, ordinal integer)
                             where f.name = p_from_step and f.ordinal = p_from_ordinal), 1001);
  end if;
  return query
    select m.id, u.old, m.queue, m.type, m.status, m.scheduled_at, true, coordinator.job_step_count(m.id)
    from unnest(v_made) with ordinality m
    join unnest(array(select e.id from unnest(v_ended) e)) with ordinality u (old, ordinality) on u.ordinality = m.ordinality order by m.ordinality;
end
$$;
comment on function coordinator.job_retry(text, uuid, text[], text, text, text, text, integer, text, text, integer) is
  'Enqueue ended jobs again as new jobs: p_job, or up to p_limit jobs (at most 8 MB together) that meet all conditions, oldest first. Without p_status, only failed jobs are retried. Each job is retried once: later calls for the same job return the same new job, with created false, and conditions skip it; retry the new job instead. A new job has a new set of attempts, no dedupe key, and no limits that have been deleted. p_from_step: reuse the steps that the old job finished before this one, or all steps if this one did not finish; p_from_ordinal: which step of this name, from 1. ZC101: neither a job nor a condition is given. ZC324: the job has not ended.';
