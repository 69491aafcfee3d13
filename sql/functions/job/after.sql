-- Jobs that start after other jobs (see job.sql).
--
-- A job with `after` waits (cause: jobs) and has a row in job_dependencies for each job that it still waits for. The end of a job looks
-- for such rows only if the job is marked as awaited, so ordinary jobs pay nothing for dependencies.
--
-- No wake-up is lost. An enqueue locks the rows of the jobs that it names in jobs_open (for key share) until it commits, marks them,
-- and then checks which of them have ended. An end deletes the row, so it waits for the enqueue and looks for dependants afterwards. If
-- two ends concern the same waiting job, each locks its row in jobs_waiting before it checks what the job still waits for, so the
-- second one wakes it.
--
-- One call settles up to 1,000 dependants, along chains of up to 100 jobs. The rest is recorded in jobs_unsettled, and a loop
-- continues.

insert into coordinator.limits (name, value, unit, meaning) values
  ('job_after', 10000, 'jobs', 'Jobs that the jobs of one call wait for, in total.');

create or replace function coordinator.job_ties(p_orders coordinator.job_order[]) returns table (place integer, kind text, job text)
language sql immutable parallel safe
begin atomic
  select o.place, 'parent', o.parent from unnest(p_orders) o where o.parent is not null
  union all
  select o.place, 'after', a from unnest(p_orders) o cross join lateral unnest(o.after) a where o.after is not null;
end;
comment on function coordinator.job_ties(coordinator.job_order[]) is
  'Return the other jobs that the jobs to enqueue refer to: as a parent, or in after. Internal.';

create or replace function coordinator.job_tie(p_job text, p_ids uuid[], p_first uuid[]) returns uuid
language sql immutable parallel safe
return case when length(p_job) < 36 then coalesce(p_first[p_job::integer + 1], p_ids[p_job::integer + 1]) else p_job::uuid end;
comment on function coordinator.job_tie(text, uuid[], uuid[]) is
  'Return the id of a job that is given by its id, or by its position in the call. Internal.';

create or replace function coordinator.job_check_tie(p_project_id bigint, p_place bigint, p_kind text, p_job text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job record;
begin
  if p_job is null then
    raise exception using errcode = 'ZC103', message = 'a job to wait for is null', hint = 'Give the ids of jobs.';
  elsif p_job ~ '^[0-9]{1,5}$' then
    raise exception using errcode = 'ZC105',
      message = format('%s names job %s of the call, which does not come before it', p_kind, p_job),
      hint = 'List a job after those that it names; the first one has index 0. Jobs cannot wait for each other in a cycle.';
  elsif not coordinator.is_agent_id(p_job) then
    raise exception using errcode = 'ZC103', message = format('"%s" is not the id of a job', left(p_job, 100)),
      hint = 'Give the id that enqueue returned. A call that enqueues several jobs also accepts the index of an earlier job, from 0.';
  end if;
  select * into v_job from coordinator.job_find(p_project_id, p_job::uuid);
  if p_kind = 'parent' and v_job.ended_at is not null then
    raise exception using errcode = 'ZC328', message = format('the parent, job %s, has ended: it is %s', p_job, v_job.status),
      detail = jsonb_build_object('parent', p_job, 'status', v_job.status)::text, hint = 'Enqueue the job without a parent, or let it run after others.';
  end if;
end
$$;
comment on function coordinator.job_check_tie(bigint, bigint, text, text) is
  'Reject a reference from a job to enqueue to another job, unless it is an after reference to an ended job. Internal.';

create or replace function coordinator.job_keep(p_project_id bigint, p_parents uuid[], p_awaited uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  perform from coordinator.jobs_open j where j.id = any (p_parents || p_awaited) and j.project_id = p_project_id order by j.id for key share;
  -- This lock is exclusive, so enqueues of children of one parent run one after the other, and the children are counted exactly.
  perform from coordinator.jobs_open j
  where j.id = any (p_parents || p_awaited) and j.project_id = p_project_id and (j.id = any (p_parents) or not j.awaited) order by j.id for no key update;
  update coordinator.jobs_open j set awaited = true where j.id = any (p_awaited) and j.project_id = p_project_id and not j.awaited;
end
$$;
comment on function coordinator.job_keep(bigint, uuid[], uuid[]) is
  'Prevent open jobs from ending until the end of the transaction, and mark those that others will wait for. No event. Internal.';

create or replace function coordinator.job_settle(
  p_completed uuid[], p_uncompleted uuid[], p_by text, p_now timestamptz, p_wait boolean default true) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_completed boolean;
  v_ended     uuid[];
  v_told      uuid[];
  v_start     uuid[];
  v_stop      uuid[];
  v_stopped   uuid[];
  v_left      integer := 1000;
  v_round     integer := 0;
begin
  perform coordinator.check_isolation('jobs that others wait for end');
  loop
    v_stopped := '{}';
    foreach v_completed in array '{true,false}'::boolean[] loop
      v_ended := case when v_completed then p_completed else p_uncompleted end;
      continue when v_ended = '{}';
      if v_left > 0 and v_round < 100 then
        v_told := array(select d.job_id from coordinator.job_dependencies d where d.after_id = any (v_ended) limit v_left);
        if p_wait then
          v_told := array(select w.id from coordinator.jobs_waiting w where w.id = any (v_told) order by w.id for update);
        else
          v_told := array(select w.id from coordinator.jobs_waiting w where w.id = any (v_told) order by w.id for update skip locked);
        end if;
        v_left := v_left - cardinality(v_told);
        delete from coordinator.job_dependencies d where d.after_id = any (v_ended) and d.job_id = any (v_told);
        select coalesce(array_agg(j.id) filter (where j.start), '{}'), coalesce(array_agg(j.id) filter (where j.stop), '{}') into v_start, v_stop
        from (select j.id, case when v_completed then j.after_mode = 'any' or not m.more else j.on_failure = 'run' or j.on_failure = 'ignore' and not m.more end as start,
                     not v_completed and j.on_failure is null and (j.after_mode is null or not m.more) as stop
              from coordinator.jobs_open j
              cross join lateral (select exists (select from coordinator.job_dependencies d where d.job_id = j.id) as more) m
              where j.id = any (v_told)) j;
        delete from coordinator.job_dependencies d where d.job_id = any (v_start);
        perform coordinator.job_wake(array(
          select w.id from coordinator.jobs_waiting w where w.id = any (v_start) and w.cause = 'jobs'), p_by, p_now);
        delete from coordinator.jobs_waiting w where w.id = any (v_stop);
        v_stopped := v_stopped || v_stop;
      end if;
      insert into coordinator.jobs_unsettled (id, completed)
      select e, v_completed from unnest(v_ended) e
      where exists (select from coordinator.job_dependencies d where d.after_id = e and d.job_id <> all (v_stopped))
      on conflict (id) do nothing;
    end loop;
    exit when v_stopped = '{}';
    p_completed := '{}';
    select e.uncompleted into p_uncompleted
    from coordinator.job_end(v_stopped, 'cancelled', 'dependency', 'a job that it waited for did not complete', p_by, p_now, p_settle => false) e;
    p_wait := false; -- wait only in the first round, where rows are locked in order of id
    v_round := v_round + 1;
  end loop;
  return 1000 - v_left;
end
$$;
comment on function coordinator.job_settle(uuid[], uuid[], text, timestamptz, boolean) is
  'Settle jobs that wait for ended jobs: wake those that have waited for enough jobs, cancel those that will not start, and so on along the chain; returns how many were settled. With p_wait, wait for transactions that hold them; otherwise leave these jobs, and those beyond a bound, to a loop. Internal.';

create or replace function coordinator.job_settle_ended(p_project_id bigint, p_ids uuid[], p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_completed   uuid[];
  v_uncompleted uuid[];
begin
  p_ids := array(select i from unnest(p_ids) i where not exists (select from coordinator.jobs_open j where j.id = i));
  if p_ids <> '{}' then
    select coalesce(array_agg(e.id) filter (where e.status = 'completed'), '{}'), coalesce(array_agg(e.id) filter (where e.status <> 'completed'), '{}')
    into v_completed, v_uncompleted
    from coordinator.jobs_ended e where e.project_id = p_project_id and e.id = any (p_ids);
    perform coordinator.job_settle(v_completed, v_uncompleted, 'coordinator', p_now);
  end if;
end
$$;
comment on function coordinator.job_settle_ended(bigint, uuid[], timestamptz) is
  'Settle jobs that were enqueued after other jobs, some of which have already ended. Internal.';

create or replace function coordinator.job_settle_due(p_limit integer default 100) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select coalesce(sum(n::integer), 0) from unnest(coordinator.project_each('job_settle_due', p_limit, $due$
    select p.id, u.id::text from coordinator.jobs_unsettled u
    cross join lateral (
      select coalesce((select j.project_id from coordinator.job_dependencies d join coordinator.jobs_open j on j.id = d.job_id
                       where d.after_id = u.id limit 1), 0) as id) p -- 0: nothing waits for it any more
    where p.id <> all ($2) order by u.id limit $3
  $due$)) n);
end
$$;
comment on function coordinator.job_settle_due(integer) is
  'Continue to settle jobs that wait for up to p_limit ended jobs, where there were too many for one call; returns how many were settled. Repeat until 0.';

create or replace function coordinator.job_settle_due_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_completed   uuid[];
  v_uncompleted uuid[];
begin
  with due as (
    delete from coordinator.jobs_unsettled u
    where u.id = any (array(select o.id from coordinator.jobs_unsettled o where o.id = any (p_items::uuid[]) for update skip locked)) returning u.*)
  select array_agg(d.id) filter (where d.completed), array_agg(d.id) filter (where not d.completed) into v_completed, v_uncompleted from due d;
  return array[coordinator.job_settle(coalesce(v_completed, '{}'), coalesce(v_uncompleted, '{}'), 'coordinator', coordinator.now_utc(), false)];
end
$$;
comment on function coordinator.job_settle_due_in(bigint, text[], integer) is
  'Do the work of job_settle_due in a project: see project_each. Internal.';
