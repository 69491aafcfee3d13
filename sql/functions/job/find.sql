-- Where a job is (see job.sql).

create or replace function coordinator.job_find(p_project_id bigint, p_job uuid)
returns table (queue text, type text, status text, reason text, scheduled_at timestamptz, fence bigint, agent_id uuid, worker text,
               attempt integer, started_at timestamptz, ended_at timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
begin
  return query
    select j.queue, j.type, case when r.id is not null then 'running' when l.id is not null then 'scheduled' when w.id is not null then 'waiting' else 'queued' end, null::text,
           j.scheduled_at, r.fence, r.agent_id, coordinator.job_worker(r.agent_id), coalesce(r.attempt, j.attempts)::integer, r.started_at, null::timestamptz
    from coordinator.jobs_open j
    left join coordinator.jobs_running r on r.id = j.id
    left join coordinator.jobs_later l on l.id = j.id
    left join coordinator.jobs_waiting w on w.id = j.id
    where j.id = p_job and j.project_id = p_project_id;
  if not found then
    return query
      select j.queue, j.type, j.status, j.reason, j.scheduled_at, j.fence, j.agent_id, j.worker, j.attempts::integer, j.started_at, j.completed_at
      from coordinator.jobs_ended j where j.project_id = p_project_id and j.id = p_job;
  end if;
  if not found then
    raise exception using errcode = 'ZC209', message = format('there is no job %s', p_job),
      hint = 'See "coordinator job list". Ended jobs are deleted after their retention.';
  end if;
end
$$;
comment on function coordinator.job_find(bigint, uuid) is
  'Return where a job is: its status, its current or last attempt, and when it ended. ZC209: there is no such job. Internal.';

create or replace function coordinator.job_take(p_job uuid, p_wait boolean) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  if not p_wait then
    perform from coordinator.jobs_later l where l.id = p_job for update skip locked;
  end if;
  if p_wait or found then
    delete from coordinator.jobs_later l where l.id = p_job;
    if found then
      return true;
    end if;
  end if;
  if not p_wait then
    perform from coordinator.jobs_waiting w where w.id = p_job for update skip locked;
  end if;
  if p_wait or found then
    delete from coordinator.jobs_waiting w where w.id = p_job;
    if found then
      return true;
    end if;
  end if;
  return coordinator.job_take_ready(p_job, p_wait);
end
$$;
comment on function coordinator.job_take(uuid, boolean) is
  'Remove a waiting job from jobs_later, jobs_waiting or jobs_ready; return false if it no longer waits. With p_wait, wait for a transaction that holds its row; otherwise leave the job to that transaction. No event: the caller ends or moves it. Internal.';

create or replace function coordinator.job_take_ready(p_job uuid, p_wait boolean) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_place record;
  v_row   tid;
begin
  loop
    -- Its rank follows from its row and the policy of its queue, or an earlier policy.
    select j.class_id, array[0, coalesce((select l.id from coordinator.job_lanes l where l.class_id = j.class_id and l.key = coalesce(j.key, '')), 0)] as lanes,
           array(select coordinator.job_rank(j.scheduled_at, j.priority, a) from unnest(q.ageing || t.ageings) a) as ranks into v_place
    from coordinator.jobs_open j
    join coordinator.queues q on q.project_id = j.project_id and q.name = j.queue
    left join coordinator.job_placements t on t.class_id = j.class_id
    where j.id = p_job;
    -- Trap: in a join with the above, the planner may read the whole index for each job.
    select r.ctid into v_row from coordinator.jobs_ready r
    where r.class_id = v_place.class_id and r.lane_id = any (v_place.lanes) and r.rank = any (v_place.ranks) and r.id = p_job;
    if found and not p_wait then
      perform from coordinator.jobs_ready r where r.ctid = v_row and r.id = p_job for update skip locked;
    end if;
    exit when not found;
    delete from coordinator.jobs_ready r where r.ctid = v_row and r.id = p_job;
    exit when found; -- otherwise it was just claimed, or moved to another place
  end loop;
  return found;
end
$$;
comment on function coordinator.job_take_ready(uuid, boolean) is
  'Remove a job from jobs_ready; return false if it is not there or, without p_wait, if another transaction holds its row. No event: the caller ends or moves it. Internal.';

create or replace function coordinator.job_take_queued(p_jobs uuid[]) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_taken uuid[];
begin
  with place as materialized (
    select j.id, j.class_id, j.priority, j.scheduled_at, q.ageing || t.ageings as ageings,
           array[0, coalesce((select l.id from coordinator.job_lanes l where l.class_id = j.class_id and l.key = coalesce(j.key, '')), 0)] as lanes
    from coordinator.jobs_open j
    join coordinator.queues q on q.project_id = j.project_id and q.name = j.queue
    left join coordinator.job_placements t on t.class_id = j.class_id
    where j.id = any (p_jobs)),
  taken as (
    delete from coordinator.jobs_ready r
    where r.ctid = any (array(
      select x.place from place p cross join lateral (
        select r.ctid as place from coordinator.jobs_ready r
        where r.class_id = p.class_id and r.lane_id = any (p.lanes)
          and r.rank = any (array(select coordinator.job_rank(p.scheduled_at, p.priority, a) from unnest(p.ageings) a)) and r.id = p.id
        for update skip locked) x))
    returning r.id)
  select coalesce(array_agg(t.id order by t.id), '{}') into v_taken from taken t;
  return v_taken;
end
$$;
comment on function coordinator.job_take_queued(uuid[]) is
  'Remove those of some jobs that are queued from jobs_ready, and return them: job_take_ready without waiting, for many jobs. No event: the caller ends or moves them. Internal.';

create or replace function coordinator.job_step_count(p_job uuid) returns integer
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  return coalesce((select s.place from coordinator.job_steps_open s where s.job_id = p_job order by s.place desc limit 1), 0);
end
$$;
comment on function coordinator.job_step_count(uuid) is
  'Return how many steps of an open job are finished. Internal.';
