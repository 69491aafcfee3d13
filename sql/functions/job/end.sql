-- The end of jobs and attempts (see job.sql). Every job ends in job_end; every attempt ends there or in job_put_back.

create or replace function coordinator.job_worker(p_agent uuid) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return coalesce((select a.name from coordinator.agents a where a.id = p_agent),
                  (select e.name from coordinator.agents_ended e where e.id = p_agent));
end
$$;
comment on function coordinator.job_worker(uuid) is
  'Return the name of an agent that is registered or ended in the last 30 days. Internal.';

create or replace function coordinator.job_end(
  p_ids uuid[], p_status text, p_reason text, p_error text, p_by text, p_now timestamptz,
  p_attempts coordinator.jobs_running[] default '{}', p_wait boolean default true, p_settle boolean default true,
  p_agent uuid default null, p_fences bigint[] default null, p_results jsonb[] default null,
  out ended uuid[], out uncompleted uuid[], out charged uuid[], out slots bigint[], out hashes bigint[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_nestloop = off -- the joins are between arrays
set enable_sort = off -- most jobs of a call are of one queue: the few groups are hashed
set plan_cache_mode = force_generic_plan
as $$
declare
  v_agent     constant uuid := coalesce(p_agent, p_attempts[1].agent_id); -- usually the agent of all attempts
  v_worker    constant text := case when p_agent is null then coordinator.job_worker(v_agent) else p_by end;
  v_told      record;
  v_completed uuid[] := '{}'; -- awaited by other jobs
begin
  uncompleted := '{}';
  for v_told in
    with mine as materialized ( -- deleted by the ids of the jobs, however many rows of the worker are not yet vacuumed
      delete from coordinator.jobs_running r using unnest(p_ids, p_fences, p_results) u (id, fence, result)
      where r.id = any (case when p_fences is not null then p_ids end) and r.agent_id is not distinct from p_agent and r.id = u.id and r.fence = u.fence
      returning r.id, r.attempt, r.agent_id, r.fence, r.started_at, r.cancel_at, r.cancelled_by, r.cancel_reason, r.checkpoint, u.result, r.slots, r.key_hash, r.charged),
    attempt as (
      select m.id, m.attempt, m.agent_id, m.fence, m.started_at, m.cancel_at, m.cancelled_by, m.cancel_reason, m.checkpoint, m.result from mine m
      union all
      select a.id, a.attempt, a.agent_id, a.fence, a.started_at, a.cancel_at, a.cancelled_by, a.cancel_reason, a.checkpoint, null from unnest(p_attempts) a where p_fences is null),
    job as (
      delete from coordinator.jobs_open j
      where j.id = any (case when p_fences is null then p_ids else array(select m.id from mine m) end) returning j.*),
    ended as (
      insert into coordinator.jobs_ended (
        id, project_id, queue, type, key, priority, payload, labels, max_attempts, dedupe_key, parent_id, retry_of, actor, created_at, scheduled_at,
        status, reason, attempts, agent_id, worker, fence, started_at, completed_at, ended_by, result, error, checkpoint, past,
        backoff, deadline, stall, rescue, root_id, depth, after, after_mode, on_failure, limits, awaited, locks, traceparent)
      select j.id, j.project_id, j.queue, j.type, j.key, j.priority, j.payload, j.labels, j.max_attempts, j.dedupe_key, j.parent_id, j.retry_of, j.actor,
             j.created_at, j.scheduled_at,
             case when a.cancel_at is null then p_status else 'cancelled' end, case when a.cancel_at is null then p_reason else 'cancelled' end,
             coalesce(a.attempt, j.attempts), a.agent_id, case when a.agent_id = v_agent then v_worker when a.agent_id is not null then coordinator.job_worker(a.agent_id) end,
             a.fence, a.started_at, p_now, coalesce(a.cancelled_by, p_by), a.result,
             case when p_status <> 'completed' or a.cancel_at is not null then coalesce(a.cancel_reason, p_error, j.error) end,
             coalesce(a.checkpoint, j.checkpoint), j.past,
             j.backoff, j.deadline, j.stall, j.rescue, j.root_id, j.depth, j.after, j.after_mode, j.on_failure, j.limits, nullif(j.awaited, false), j.locks, j.traceparent
      from job j left join attempt a on a.id = j.id
      returning id, project_id, queue, status, reason, dedupe_key, after, awaited, case when agent_id is null then locks end as locks)
    select t.*, (select p.name from coordinator.projects p where p.id = t.project_id) as project,
           (select array_agg(m.id) from mine m where m.charged) as charged, s.slots, s.hashes
    from (
      select e.project_id, e.queue, e.status, e.reason, array_agg(e.id) as ids, array_agg(e.dedupe_key) filter (where e.dedupe_key is not null) as keys,
             array_agg(e.id) filter (where e.awaited) as awaited, array_agg(e.id) filter (where e.after is not null) as dependent,
             jsonb_agg(e.locks) filter (where e.locks is not null) as locks
      from ended e group by e.project_id, e.queue, e.status, e.reason offset 0) t
    cross join (select array_agg(o.slot) as slots, array_agg(o.key_hash) as hashes
                from (select unnest(m.slots) as slot, m.key_hash from mine m where m.slots is not null) o) s
    order by (t.project_id, t.queue, t.status) -- sorts the groups; without the parentheses, the jobs would be sorted
  loop
    ended := ended || v_told.ids;
    charged := v_told.charged;
    slots := v_told.slots;
    hashes := v_told.hashes;
    perform coordinator.job_store_parts(v_told.project_id, v_told.ids, v_told.status = 'completed', p_now);
    if v_told.keys is not null then
      delete from coordinator.job_dedupes d
      where d.project_id = v_told.project_id and d.key = any (v_told.keys) and d.job_id = any (v_told.ids)
        and (d.expires_at is null or v_told.status <> 'completed' and not d.failed);
    end if;
    perform coordinator.job_tell('job.' || v_told.status, v_told.project_id, v_told.project, v_told.queue, p_by, p_now, v_told.ids,
                                 case when v_told.status in ('failed', 'cancelled') then jsonb_build_object('reason', v_told.reason) else '{}' end);
    if v_told.locks is not null then -- the job waited for locks, and other jobs may wait behind it
      perform coordinator.job_lock_wake(v_told.project_id, array(
        select distinct r from jsonb_array_elements(v_told.locks) l, jsonb_array_elements_text(l) r));
    end if;
    if v_told.dependent is not null then
      delete from coordinator.job_dependencies d where d.job_id = any (v_told.dependent);
    end if;
    if v_told.awaited is null then
      continue;
    elsif v_told.status = 'completed' then
      v_completed := v_completed || v_told.awaited;
    else
      uncompleted := uncompleted || v_told.awaited;
    end if;
  end loop;
  if p_settle and v_completed || uncompleted <> '{}' then
    perform coordinator.job_settle(v_completed, uncompleted, p_by, p_now, p_wait);
  end if;
end
$$;
comment on function coordinator.job_end(uuid[], text, text, text, text, timestamptz, coordinator.jobs_running[], boolean, boolean, uuid, bigint[], jsonb[]) is
  'End jobs: move them to jobs_ended, free their dedupe keys, emit job.<status>, and tell the jobs that wait for them (without p_settle, the caller does so for those in uncompleted). With p_fences, these are the jobs that the worker p_agent, called p_by, runs under these fences; their attempts end as well; limit_leave then takes charged, slots and hashes. Without it, the caller deleted the rows of the jobs in jobs_ready, jobs_later, jobs_waiting or jobs_running (p_attempts). With p_wait, wait for transactions that have the waiting jobs; otherwise leave these to a loop. If the cancellation of an attempt was requested, its end is cancelled. Internal.';

-- After the end of the jobs: a worker that stores a step at the same time has stored it or is refused.
create or replace function coordinator.job_store_parts(p_project_id bigint, p_ids uuid[], p_completed boolean, p_ended_at timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_custom_plan -- opens one partition
as $$
begin
  if exists (select from coordinator.job_steps_open s where s.job_id = any (p_ids)) then
    with steps as (
      delete from coordinator.job_steps_open s where s.job_id = any (p_ids) returning s.*)
    update coordinator.jobs_ended e set steps = t.steps
    from (select s.job_id, jsonb_agg(to_jsonb(s) - '{job_id,bytes}'::text[] order by s.place) as steps from steps s group by s.job_id) t
    where e.project_id = p_project_id and e.id = t.job_id and (e.status = 'completed') = p_completed and e.completed_at = p_ended_at;
  end if;
  if exists (select from coordinator.job_chunks_open c where c.job_id = any (p_ids)) then
    with chunks as (
      delete from coordinator.job_chunks_open c where c.job_id = any (p_ids) returning c.*)
    update coordinator.jobs_ended e set chunks = t.chunks
    from (select c.job_id, jsonb_agg(to_jsonb(c) - '{job_id,bytes}'::text[] order by c.seq) as chunks from chunks c group by c.job_id) t
    where e.project_id = p_project_id and e.id = t.job_id and (e.status = 'completed') = p_completed and e.completed_at = p_ended_at;
  end if;
end
$$;
comment on function coordinator.job_store_parts(bigint, uuid[], boolean, timestamptz) is
  'Move the steps and the output of jobs that have just ended to jobs_ended. No event: job_end emits it. Internal.';

create or replace function coordinator.job_make_ready(
  p_ids uuid[], p_by text, p_now timestamptz, p_tell boolean default true, p_wait boolean default true) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_paused uuid[] := array(select j.id from coordinator.jobs_open j where j.id = any (p_ids) and j.paused is not null);
  v_busy   uuid[];
  v_of     record;
begin
  if v_paused <> '{}' then
    perform coordinator.job_make_waiting(v_paused, 'tree', null, p_by, p_now);
    p_ids := array(select i from unnest(p_ids) i where i <> all (v_paused));
  end if;
  if not p_wait then -- leave jobs to job_promote if a transaction changes the policy of their queue and waits for their rows
    v_busy := array(select j.id from coordinator.jobs_open j
                    where j.id = any (p_ids) and not pg_try_advisory_xact_lock_shared(coordinator.queue_key(j.project_id, j.queue)));
    insert into coordinator.jobs_later (id, class_id, due_at) select j.id, j.class_id, p_now from coordinator.jobs_open j where j.id = any (v_busy);
    p_ids := array(select i from unnest(p_ids) i where i <> all (v_busy));
  end if;
  for v_of in
    select j.project_id, p.name as project, array_agg(j.id order by j.id) as ids, array_agg(j.class_id order by j.id) as classes,
           array_agg(coalesce(j.key, '') order by j.id) as keys, array_agg(distinct j.queue) as queues
    from (select o.* from coordinator.jobs_open o where o.id = any (p_ids) offset 0) j join coordinator.projects p on p.id = j.project_id
    group by 1, 2 order by 1
  loop
    perform coordinator.queue_enter(v_of.project_id, v_of.queues, p_by);
    insert into coordinator.jobs_ready (class_id, lane_id, rank, id)
    select j.class_id, u.lane_id, coordinator.job_rank(j.scheduled_at, j.priority, q.ageing), j.id
    from unnest(v_of.ids, coordinator.job_lanes_enter(v_of.classes, v_of.keys)) u (id, lane_id)
    join (select o.* from coordinator.jobs_open o where o.id = any (v_of.ids) offset 0) j on j.id = u.id
    join coordinator.queues q on q.project_id = j.project_id and q.name = j.queue;
    perform coordinator.job_tell('job.enqueued', v_of.project_id, v_of.project, t.queue, p_by, p_now, t.ids)
    from (select j.queue, array_agg(j.id order by j.id) as ids from coordinator.jobs_open j where j.id = any (v_of.ids) and p_tell group by 1 order by 1) t;
  end loop;
end
$$;
comment on function coordinator.job_make_ready(uuid[], text, timestamptz, boolean, boolean) is
  'Make jobs ready to be claimed that are open and in no other table: insert them into jobs_ready and, with p_tell, emit job.enqueued. Paused jobs wait. Without p_wait, jobs whose queue is getting another policy become ready through job_promote. Internal.';

create or replace function coordinator.job_put_back(
  p_attempts coordinator.jobs_running[], p_outcome text, p_by text, p_now timestamptz, p_error text default null, p_final boolean default false,
  p_at timestamptz default null, p_cause text default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_counts constant boolean := p_outcome not in ('released', 'snoozed', 'waiting');
  v_reason constant text := case p_outcome when 'failed' then 'error' else p_outcome end;
  v_ready  uuid[];
  v_of     record;
begin
  -- Jobs that end now, by reason.
  for v_of in
    select e.reason, array_agg(e.id) as ids
    from (select a.id, case when a.cancel_at is not null then 'cancelled'
                            when p_outcome = 'worker_lost' and j.deaths >= 2 then 'crash_loop'
                            when v_counts and (p_final or a.attempt >= j.max_attempts or j.rescue = 'fail' and p_outcome <> 'failed') then v_reason end as reason
          from unnest(p_attempts) a join coordinator.jobs_open j on j.id = a.id and j.id = any (array(select i.id from unnest(p_attempts) i))) e
    where e.reason is not null group by e.reason
  loop
    perform coordinator.job_end(v_of.ids, 'failed', v_of.reason, p_error, p_by, p_now, p_attempts, p_wait => p_outcome = 'failed');
  end loop;

  with job as (
    update coordinator.jobs_open j
    set attempts = case when v_counts then a.attempt else j.attempts end,
        deaths = case p_outcome when 'worker_lost' then j.deaths + 1 else 0 end,
        error = case when v_counts then p_error else j.error end,
        checkpoint = case when not v_counts or j.rescue = 'resume' then coalesce(a.checkpoint, j.checkpoint) end,
        start_by = null, -- an attempt began in time, so the limit no longer applies
        scheduled_at = case when p_outcome in ('released', 'worker_lost', 'waiting') then j.scheduled_at
                            else greatest(p_now, coalesce(p_at, p_now + coordinator.job_backoff(j.backoff, a.attempt))) end,
        past = case when jsonb_array_length(j.past) >= 50 then j.past - 0 else coalesce(j.past, '[]') end || jsonb_build_object(
          'attempt', a.attempt, 'fence', a.fence, 'agent_id', a.agent_id, 'worker', coordinator.job_worker(a.agent_id), 'started_at', a.started_at,
          'ended_at', p_now, 'outcome', p_outcome, 'error', left(p_error, 2000))
    from unnest(p_attempts) a where j.id = a.id and j.id = any (array(select i.id from unnest(p_attempts) i))
    returning j.*),
  later as (
    insert into coordinator.jobs_later (id, class_id, due_at) select j.id, j.class_id, j.scheduled_at from job j where j.scheduled_at > p_now and p_cause is null),
  told as (
    select coordinator.job_tell(case p_outcome when 'released' then 'job.released' when 'snoozed' then 'job.scheduled' else 'job.retried' end,
             t.project_id, t.project, t.queue, p_by, p_now, t.ids,
             case p_outcome when 'released' then '{}' else jsonb_build_object('due_at', t.due_at) end
             || case when v_counts then jsonb_build_object('reason', v_reason) else '{}' end)
    from (select j.project_id, p.name as project, j.queue, array_agg(j.id order by j.id) as ids, min(j.scheduled_at) as due_at
          from job j join coordinator.projects p on p.id = j.project_id where p_cause is null group by 1, 2, 3 order by 1, 3) t)
  select array_agg(j.id) filter (where j.scheduled_at <= p_now or p_cause is not null) into v_ready from job j, (select count(*) from told) t;
  perform coordinator.limit_leave(e.charged, e.slots, e.hashes, p_outcome, p_by, p_now)
  from (select array_agg(distinct a.id) filter (where a.charged) as charged, array_agg(s.id) filter (where s.id is not null) as slots,
               array_agg(a.key_hash) filter (where s.id is not null) as hashes
        from unnest(p_attempts) a left join unnest(a.slots) s (id) on true) e;
  if v_ready is not null and p_cause is not null then
    perform coordinator.job_make_waiting(v_ready, p_cause, null, p_by, p_now);
  elsif v_ready is not null then
    perform coordinator.job_make_ready(v_ready, p_by, p_now);
  end if;
  perform coordinator.job_unlock(p_attempts, p_by);
end
$$;
comment on function coordinator.job_put_back(coordinator.jobs_running[], text, text, timestamptz, text, boolean, timestamptz, text) is
  'Record the outcome of attempts whose rows the caller deleted (failed, snoozed, released, waiting, worker_lost, stalled, deadline), and let the jobs wait for the next attempt: until p_at, or until the end of the back-off. If the worker returned them or died, they wait at their old place; with p_cause, in jobs_waiting. Jobs without another attempt fail. Internal.';

create or replace function coordinator.job_backoff(p_first interval, p_attempt integer) returns interval
language sql volatile parallel safe
return least(coalesce(p_first, interval '10 seconds') * power(2, least(p_attempt - 1, 30)), greatest(p_first, interval '1 hour')) * (0.8 + 0.4 * random());
comment on function coordinator.job_backoff(interval, integer) is
  'Return the wait after a failed attempt: doubled by each failure, up to an hour, with a jitter of a fifth. Internal.';

create or replace function coordinator.job_finish(
  p_agent uuid, p_by text, p_ids uuid[], p_fences bigint[], p_results jsonb[], p_now timestamptz) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_end record := coordinator.job_end(p_ids, 'completed', null, null, p_by, p_now, p_agent => p_agent, p_fences => p_fences, p_results => p_results);
begin
  perform coordinator.limit_leave(v_end.charged, v_end.slots, v_end.hashes, 'completed', p_by, p_now);
  if exists (select from coordinator.locks l where l.agent_id = p_agent) or exists (select from coordinator.lock_waits w where w.agent_id = p_agent) then
    perform coordinator.job_unlock(array(
      select jsonb_populate_record(null::coordinator.jobs_running, jsonb_build_object('id', u.id, 'fence', u.fence, 'agent_id', p_agent))
      from unnest(p_ids, p_fences) u (id, fence) where u.id = any (v_end.ended)), p_by);
  end if;
  return v_end.ended;
end
$$;
comment on function coordinator.job_finish(uuid, text, uuid[], bigint[], jsonb[], timestamptz) is
  'Complete the jobs that a worker runs under the given fences, and return their ids; null: none. Internal.';

create or replace function coordinator.job_outcome_of(p_project_id bigint, p_job uuid) returns setof coordinator.job_outcome
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select p_job, f.status, f.reason, case f.status when 'scheduled' then f.scheduled_at when 'running' then r.cancel_at end,
    null::integer, null::integer
  from coordinator.job_find(p_project_id, p_job) f left join coordinator.jobs_running r on r.id = p_job;
end
$$;
comment on function coordinator.job_outcome_of(bigint, uuid) is
  'Return the outcome of a job. Internal.';

-- Return the outcome without reading the history, which has many partitions.
create or replace function coordinator.job_put_back_as(p_attempt coordinator.jobs_running) returns setof coordinator.job_outcome
language sql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
begin atomic
  select (p_attempt).id,
         case when j.id is null then case when (p_attempt).cancel_at is null then 'failed' else 'cancelled' end
              when l.id is not null then 'scheduled' when w.id is not null then 'waiting' else 'queued' end,
         case when j.id is null then case when (p_attempt).cancel_at is null then 'error' else 'cancelled' end end, l.due_at, null::integer, null::integer
  from (values (1)) one
  left join coordinator.jobs_open j on j.id = (p_attempt).id
  left join coordinator.jobs_later l on l.id = (p_attempt).id
  left join coordinator.jobs_waiting w on w.id = (p_attempt).id;
end;
comment on function coordinator.job_put_back_as(coordinator.jobs_running) is
  'Return the new status of a job whose attempt its worker put back. Internal.';

create or replace function coordinator.job_complete(p_project text, p_job uuid, p_agent uuid, p_fence bigint, p_result jsonb default 'null')
returns setof coordinator.job_outcome
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project   bigint := coordinator.project_id(p_project);
  v_cancel_at timestamptz;
begin
  p_result := coalesce(p_result, 'null');
  perform coordinator.check_json('the result', p_result);
  select r.cancel_at into v_cancel_at from coordinator.jobs_running r where r.id = p_job and r.fence = p_fence for update;
  if coordinator.job_finish((select a.id from coordinator.agents a where a.id = p_agent and a.project_id = v_project), coordinator.job_worker(p_agent),
       array[p_job], array[p_fence], array[p_result], coordinator.now_utc()) is not null then
    return query -- the history does not need to be read
      select p_job, case when v_cancel_at is null then 'completed' else 'cancelled' end, case when v_cancel_at is not null then 'cancelled' end,
             null::timestamptz, null::integer, null::integer;
    return;
  elsif not coordinator.job_finished(v_project, p_job, p_fence) then
    perform coordinator.job_stale(v_project, p_job, p_agent, p_fence);
  end if;
  return query select * from coordinator.job_outcome_of(v_project, p_job);
end
$$;
comment on function coordinator.job_complete(text, uuid, uuid, bigint, jsonb) is
  'Complete a job that p_agent holds under p_fence. Its status becomes completed, or cancelled if a cancellation was requested. The call may be repeated. ZC320: the fence is stale.';

create or replace function coordinator.job_fail(
  p_project text, p_job uuid, p_agent uuid, p_fence bigint, p_error text, p_final boolean default false, p_retry_at timestamptz default null)
returns setof coordinator.job_outcome
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_attempt coordinator.jobs_running := coordinator.job_attempt(p_project, p_job, p_agent, p_fence);
begin
  perform coordinator.check_text('the error', p_error, 65536);
  if p_retry_at not between timestamptz '2000-01-01 00:00:00Z' and coordinator.now_utc() + interval '366 days' then
    raise exception using errcode = 'ZC104', message = 'the instant of the retry is out of range', hint = 'Give an instant within 366 days from now.';
  end if;
  delete from coordinator.jobs_running r where r.id = p_job;
  perform coordinator.job_put_back(array[v_attempt], 'failed', coordinator.job_worker(p_agent), coordinator.now_utc(), p_error, coalesce(p_final, false), p_retry_at);
  return query select * from coordinator.job_put_back_as(v_attempt);
end
$$;
comment on function coordinator.job_fail(text, uuid, uuid, bigint, text, boolean, timestamptz) is
  'End an attempt with an error. The job is retried after its back-off, or at p_retry_at, unless this was its last attempt or p_final is true. ZC320: the fence is stale.';

create or replace function coordinator.job_snooze(p_project text, p_job uuid, p_agent uuid, p_fence bigint, p_delay interval)
returns setof coordinator.job_outcome
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_attempt coordinator.jobs_running := coordinator.job_attempt(p_project, p_job, p_agent, p_fence);
  v_now     timestamptz := coordinator.now_utc();
begin
  perform coordinator.check_ttl(p_delay);
  delete from coordinator.jobs_running r where r.id = p_job;
  perform coordinator.job_put_back(array[v_attempt], 'snoozed', coordinator.job_worker(p_agent), v_now, p_at => v_now + p_delay);
  return query select * from coordinator.job_put_back_as(v_attempt);
end
$$;
comment on function coordinator.job_snooze(text, uuid, uuid, bigint, interval) is
  'Postpone a job for p_delay (1 second to 366 days). It keeps its checkpoint, and no attempt is spent. ZC320: the fence is stale.';

create or replace function coordinator.job_release(p_project text, p_job uuid, p_agent uuid, p_fence bigint)
returns setof coordinator.job_outcome
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_attempt coordinator.jobs_running := coordinator.job_attempt(p_project, p_job, p_agent, p_fence);
begin
  delete from coordinator.jobs_running r where r.id = p_job;
  perform coordinator.job_put_back(array[v_attempt], 'released', coordinator.job_worker(p_agent), coordinator.now_utc());
  return query select * from coordinator.job_put_back_as(v_attempt);
end
$$;
comment on function coordinator.job_release(text, uuid, uuid, bigint) is
  'Return a job to its old place in the queue. It keeps its checkpoint, and no attempt is spent. ZC320: the fence is stale.';
