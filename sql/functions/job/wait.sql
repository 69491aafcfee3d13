-- Waiting (see job.sql): jobs that cannot start until something happens. The transaction that makes it happen wakes them.
--
-- A waiting job has a row in jobs_waiting and holds nothing. Its cause says what it waits for; the details are in other tables. A
-- transaction that moves the job locks that row. A wake-up skips a row that another transaction has locked, since that one wakes or
-- ends the job. If that transaction is rolled back, the wake-up is lost; causes for which this matters set due_at, at which a loop
-- wakes the job so that it checks for itself.

insert into coordinator.event_types (type, key, data, meaning) values
  ('job.waiting', 'name of the queue', '{ids,cause}', 'Jobs began to wait: for other jobs to end (jobs), a lock, a limit, a wait, an answer, or a paused tree.');

create or replace function coordinator.job_make_waiting(p_ids uuid[], p_cause text, p_due_at timestamptz, p_by text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_paused uuid[];
begin
  if p_cause = 'tree' then
    v_paused := array(select j.id from coordinator.jobs_open j where j.id = any (p_ids) and j.paused is not null order by j.id for share skip locked);
  end if;
  insert into coordinator.jobs_waiting (id, class_id, cause, due_at)
  select j.id, j.class_id, p_cause, case when j.id = any (v_paused) is not false then p_due_at else p_now + interval '5 seconds' end
  from coordinator.jobs_open j where j.id = any (p_ids);
  perform coordinator.job_tell('job.waiting', t.project_id, t.project, t.queue, p_by, p_now, t.ids, jsonb_build_object('cause', p_cause))
  from (select j.project_id, p.name as project, j.queue, array_agg(j.id order by j.id) as ids
        from (select o.* from coordinator.jobs_open o where o.id = any (p_ids) offset 0) j join coordinator.projects p on p.id = j.project_id group by 1, 2, 3 order by 1, 3) t;
end
$$;
comment on function coordinator.job_make_waiting(uuid[], text, timestamptz, text, timestamptz) is
  'Let jobs that are open and in no other table wait for p_cause: insert them into jobs_waiting, and emit job.waiting. p_due_at: when a loop wakes them at the latest. Those that wait for a tree although they are not paused yet, or are just being resumed, are woken after 5 seconds. Internal.';

create or replace function coordinator.job_wake(p_ids uuid[], p_by text, p_now timestamptz) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_woken uuid[];
  v_ready uuid[];
begin
  with woken as (
    delete from coordinator.jobs_waiting w
    where w.id = any (array(select o.id from coordinator.jobs_waiting o where o.id = any (p_ids) order by o.id for update skip locked))
    returning w.id),
  job as materialized (
    select j.id, j.project_id, j.class_id, j.queue, j.scheduled_at from coordinator.jobs_open j where j.id = any (array(select w.id from woken w))),
  later as (
    insert into coordinator.jobs_later (id, class_id, due_at) select j.id, j.class_id, j.scheduled_at from job j where j.scheduled_at > p_now),
  told as (
    select coordinator.job_tell('job.scheduled', t.project_id, t.project, t.queue, p_by, p_now, t.ids, jsonb_build_object('due_at', t.due_at))
    from (select j.project_id, p.name as project, j.queue, array_agg(j.id order by j.id) as ids, min(j.scheduled_at) as due_at
          from job j join coordinator.projects p on p.id = j.project_id where j.scheduled_at > p_now group by 1, 2, 3 order by 1, 3) t)
  select array_agg(j.id), array_agg(j.id) filter (where j.scheduled_at <= p_now) into v_woken, v_ready from job j, (select count(*) from told) t;
  if v_ready is not null then
    perform coordinator.job_make_ready(v_ready, p_by, p_now);
  end if;
  return coalesce(v_woken, '{}');
end
$$;
comment on function coordinator.job_wake(uuid[], text, timestamptz) is
  'Make waiting jobs claimable, or scheduled if they may not start yet; returns their ids. Jobs that another transaction holds are left to it. Internal.';

create or replace function coordinator.job_wake_soon(p_ids uuid[], p_by text, p_now timestamptz) returns uuid[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set lock_timeout = '100ms'
as $$
declare
  v_able  uuid[] := array(select j.id from coordinator.jobs_open j
                          where j.id = any (p_ids) and pg_try_advisory_xact_lock_shared(coordinator.queue_key(j.project_id, j.queue)));
  v_woken uuid[];
begin
  begin
    v_woken := coordinator.job_wake(v_able, p_by, p_now);
  exception when lock_not_available or deadlock_detected then
    v_woken := '{}';
  end;
  update coordinator.jobs_waiting w set due_at = p_now where w.id = any (p_ids) and w.id <> all (v_woken);
  return v_woken;
end
$$;
comment on function coordinator.job_wake_soon(uuid[], text, timestamptz) is
  'Wake jobs whose rows in jobs_waiting the caller has locked, for callers that have locks which come after those of queues; returns their ids. It waits 0.1 seconds at most; those that would take longer are left to the loop. Internal.';

create or replace function coordinator.job_wake_due(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return cardinality(coordinator.project_each('job_wake_due', p_limit, $due$
    select c.project_id, w.id::text from coordinator.jobs_waiting w
    cross join lateral (select k.project_id from coordinator.job_classes k where k.id = w.class_id offset 0) c
    where w.due_at <= $1 and c.project_id <> all ($2) order by w.due_at limit $3
  $due$));
end
$$;
comment on function coordinator.job_wake_due(integer) is
  'Wake up to p_limit waiting jobs whose due_at has passed; returns how many. Repeat until 0.';

create or replace function coordinator.job_wake_due_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now timestamptz := coordinator.now_utc();
begin
  return coordinator.job_wake(array(
    select w.id from coordinator.jobs_waiting w where w.id = any (p_items::uuid[]) and w.due_at <= v_now for update skip locked), 'coordinator', v_now);
end
$$;
comment on function coordinator.job_wake_due_in(bigint, text[], integer) is
  'Do the work of job_wake_due in a project: see project_each. Internal.';
