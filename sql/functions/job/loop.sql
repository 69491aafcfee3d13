-- What happens to jobs as time passes (see job.sql), and at the end of an agent or a project. The leader's loops skip rows that others
-- have locked. An enqueue that names a job locks its row in jobs_open.

create or replace function coordinator.job_promote(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return cardinality(coordinator.project_each('job_promote', p_limit, $due$
    select c.project_id, l.id::text
    from coordinator.jobs_later l
    cross join lateral (select k.project_id from coordinator.job_classes k where k.id = l.class_id offset 0) c -- whatever the statistics say
    where l.due_at <= $1 and c.project_id <> all ($2)
      and not exists (select from coordinator.jobs_open j where j.id = l.id and j.start_by <= $1) -- job_expire handles these
    order by l.due_at limit $3
  $due$));
end
$$;
comment on function coordinator.job_promote(integer) is
  'Make up to p_limit scheduled jobs claimable whose time has come; returns how many. Repeat until 0.';

create or replace function coordinator.job_promote_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now timestamptz := coordinator.now_utc();
  v_ids uuid[];
begin
  with due as (
    delete from coordinator.jobs_later l
    where l.id = any (array(select o.id from coordinator.jobs_later o where o.id = any (p_items::uuid[]) and o.due_at <= v_now for update skip locked))
    returning l.id)
  select coalesce(array_agg(d.id), '{}') into v_ids from due d;
  perform coordinator.job_make_ready(v_ids, 'coordinator', v_now);
  return v_ids;
end
$$;
comment on function coordinator.job_promote_in(bigint, text[], integer) is
  'Do the work of job_promote in a project: see project_each. Internal.';

create or replace function coordinator.job_expire(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return cardinality(coordinator.project_each('job_expire', p_limit, $due$
    select j.project_id, j.id::text from coordinator.jobs_open j
    where j.start_by <= $1 and j.project_id <> all ($2) and not exists (select from coordinator.jobs_running r where r.id = j.id)
    order by j.start_by limit $3
  $due$));
end
$$;
comment on function coordinator.job_expire(integer) is
  'Expire up to p_limit jobs that did not start in time; returns how many. Repeat until 0.';

create or replace function coordinator.job_expire_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now timestamptz := coordinator.now_utc();
  v_ids uuid[];
begin
  v_ids := array(
    select l.id from (
      select j.id from coordinator.jobs_open j
      where j.id = any (p_items::uuid[]) and j.start_by <= v_now and not exists (select from coordinator.jobs_running r where r.id = j.id)
      order by j.id limit p_limit for update skip locked) l -- trap: without the limit, PostgreSQL may call job_take before the row is locked
    where coordinator.job_take(l.id, false));
  perform coordinator.job_end(v_ids, 'expired', 'start_by', null, 'coordinator', v_now, p_wait => false);
  return v_ids;
end
$$;
comment on function coordinator.job_expire_in(bigint, text[], integer) is
  'Do the work of job_expire in a project: see project_each. Internal.';

create or replace function coordinator.job_rescue(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_page(p_limit);
  if not coordinator.server_settled() then
    return 0; -- give workers time to send heartbeats again
  end if;
  return cardinality(coordinator.project_each('job_rescue', p_limit, $due$
    (select a.project_id, a.id::text from coordinator.agents a -- agents that only their locks keep alive; agent_reap ends all others
     where a.expires_at - a.heartbeat_at > a.ttl and a.heartbeat_at < $1 and $1 - a.heartbeat_at >= a.ttl and a.project_id <> all ($2)
       and exists (select from coordinator.jobs_running r where r.agent_id = a.id)
     order by a.heartbeat_at limit $3)
    union all
    (with recursive worker as ( -- one index lookup for each worker
       (select r.agent_id as id from coordinator.jobs_running r order by r.agent_id limit 1)
       union all
       select (select r.agent_id from coordinator.jobs_running r where r.agent_id > w.id order by r.agent_id limit 1) from worker w where w.id is not null)
     select c.project_id, w.id::text from worker w
     cross join lateral (select r.class_id from coordinator.jobs_running r where r.agent_id = w.id limit 1) r
     join coordinator.job_classes c on c.id = r.class_id
     where w.id is not null and (select a.id from coordinator.agents a where a.id = w.id) is null and c.project_id <> all ($2) limit $3)
    union all
    (select c.project_id, r.id::text from coordinator.jobs_running r
     cross join lateral (select k.project_id from coordinator.job_classes k where k.id = r.class_id offset 0) c
     where least(r.deadline_at, r.stall_at, r.cancel_at) <= $1 and c.project_id <> all ($2)
     order by least(r.deadline_at, r.stall_at, r.cancel_at) limit $3)
  $due$));
end
$$;
comment on function coordinator.job_rescue(integer) is
  'End up to p_limit attempts that exceeded their deadline, stall time or grace period after a cancellation, and attempts of agents that ended or whose heartbeat is overdue; returns how many. Repeat until 0. Nothing is rescued for 10 seconds after the server started or a standby was promoted.';

create or replace function coordinator.job_rescue_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now     timestamptz := coordinator.now_utc();
  v_outcome record;
  v_agent   uuid;
  v_done    text[] := '{}';
begin
  for v_agent in select distinct r.agent_id from coordinator.jobs_running r where r.agent_id = any (p_items::uuid[]) order by 1 loop
    if exists (select from coordinator.agents a where a.id = v_agent) then
      perform from coordinator.agents a where a.id = v_agent and a.heartbeat_at < v_now and v_now - a.heartbeat_at >= a.ttl for no key update skip locked;
      continue when not found;
    end if;
    v_done := v_done || array_fill(v_agent::text, array[coordinator.job_end_agent(v_agent, 'worker_lost', 'coordinator')]);
  end loop;
  for v_outcome in
    with gone as (
      delete from coordinator.jobs_running r
      where r.ctid = any (array(
        select o.ctid from coordinator.jobs_running o join coordinator.jobs_open j on j.id = o.id -- may be locked by an enqueue
        where o.id = any (p_items::uuid[]) and least(o.deadline_at, o.stall_at, o.cancel_at) <= v_now order by o.id for update skip locked))
      returning r as attempt, case when r.deadline_at <= v_now then 'deadline' else 'stalled' end as outcome,
                case when r.cancel_at <= v_now then 'the worker did not stop in time'
                     when r.deadline_at <= v_now then 'the attempt exceeded its deadline'
                     else 'the attempt reported no progress in its stall time' end as error)
    select g.outcome, g.error, array_agg(g.attempt order by (g.attempt).id) as attempts, array_agg((g.attempt).id)::text[] as ids
    from gone g group by 1, 2 order by 1, 2
  loop
    perform coordinator.job_put_back(v_outcome.attempts, v_outcome.outcome, 'coordinator', v_now, v_outcome.error);
    v_done := v_done || v_outcome.ids;
  end loop;
  return v_done;
end
$$;
comment on function coordinator.job_rescue_in(bigint, text[], integer) is
  'Do the work of job_rescue in a project: see project_each. Internal.';

create or replace function coordinator.job_dedupe_prune(p_limit integer default 10000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now   timestamptz := coordinator.now_utc(); -- a variable, because a volatile function cannot be the bound of an index scan
  v_count integer;
begin
  perform coordinator.check_page(p_limit);
  delete from coordinator.job_dedupes d
  where d.ctid = any (array(select o.ctid from coordinator.job_dedupes o where o.expires_at <= v_now
                            order by o.expires_at limit p_limit for update skip locked));
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function coordinator.job_dedupe_prune(integer) is
  'Delete up to p_limit dedupe keys whose window has passed; returns how many. Repeat until 0. No event.';

create or replace function coordinator.job_class_prune(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off -- no index finds the running attempts of a class, and the estimated cost of reading all of them would trigger JIT
as $$
declare
  v_class record;
  v_count integer := 0;
begin
  perform coordinator.check_page(p_limit);
  for v_class in
    select c.id, c.project_id, c.queue from coordinator.job_classes c
    where c.project_id in (select m.project_id from coordinator.job_classes m group by 1 having count(*) > 500)
      and not exists (select from coordinator.jobs_ready r where r.class_id = c.id)
      and not exists (select from coordinator.jobs_later l where l.class_id = c.id)
      and not exists (select from coordinator.jobs_waiting w where w.class_id = c.id)
      and not exists (select from coordinator.jobs_running r where r.class_id = c.id)
    order by c.project_id, c.queue, c.id limit p_limit
  loop
    -- Transactions that add jobs to the queue share its key. A single statement finds a job in one of the four tables, even if another transaction is moving it.
    if pg_try_advisory_xact_lock(coordinator.queue_key(v_class.project_id, v_class.queue)) then
      delete from coordinator.job_classes c
      where c.id = (select o.id from coordinator.job_classes o where o.id = v_class.id for update skip locked)
        and not exists (select from coordinator.jobs_ready r where r.class_id = c.id)
        and not exists (select from coordinator.jobs_later l where l.class_id = c.id)
        and not exists (select from coordinator.jobs_waiting w where w.class_id = c.id)
        and not exists (select from coordinator.jobs_running r where r.class_id = c.id);
      continue when not found;
      delete from coordinator.job_lanes l where l.class_id = v_class.id; -- of its last jobs, if no claim has come since
      delete from coordinator.job_permits p where p.class_id = v_class.id;
      v_count := v_count + 1;
    end if;
  end loop;
  return v_count;
end
$$;
comment on function coordinator.job_class_prune(integer) is
  'Delete up to p_limit classes that have no open jobs, of projects with more than 500 classes; returns how many. Repeat until 0. No event.';

create or replace function coordinator.job_end_agent(p_agent uuid, p_outcome text, p_by text) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_attempts coordinator.jobs_running[];
begin
  with gone as (
    delete from coordinator.jobs_running r
    where r.ctid = any (array(
      select o.ctid from coordinator.jobs_running o join coordinator.jobs_open j on j.id = o.id where o.agent_id = p_agent for update skip locked))
    returning r as attempt)
  select array_agg(g.attempt order by (g.attempt).id) into v_attempts from gone g;
  perform coordinator.job_put_back(v_attempts, p_outcome, p_by, coordinator.now_utc(),
    case p_outcome when 'worker_lost' then 'the worker was lost' end);
  return coalesce(cardinality(v_attempts), 0);
end
$$;
comment on function coordinator.job_end_agent(uuid, text, text) is
  'End the attempts of an agent: released if it stops, worker_lost otherwise; returns how many. Attempts that a transaction is ending or guards are left to job_rescue. Internal.';

create or replace function coordinator.job_end_project(p_project_id bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_classes bigint[];
begin
  -- After the project's row is locked, nobody can create a queue.
  perform coordinator.advisory_enter(coordinator.limit_key(p_project_id));
  perform coordinator.advisory_enter(k) from (
    select coordinator.queue_key(p_project_id, q.name) as k from coordinator.queues q
    where q.project_id = p_project_id order by q.name offset 0) k;
  v_classes := array(select c.id from coordinator.job_classes c where c.project_id = p_project_id);
  delete from coordinator.jobs_running r where r.class_id = any (v_classes);
  delete from coordinator.jobs_ready r where r.class_id = any (v_classes);
  delete from coordinator.jobs_later l where l.class_id = any (v_classes);
  delete from coordinator.jobs_waiting w where w.class_id = any (v_classes);
  delete from coordinator.job_lock_turns t where t.project_id = p_project_id;
  delete from coordinator.job_changes c where c.project_id = p_project_id;
  delete from coordinator.job_dependencies d
  where d.job_id = any (array(select j.id from coordinator.jobs_open j where j.project_id = p_project_id and j.after is not null));
  delete from coordinator.job_permits p where p.class_id = any (v_classes);
  delete from coordinator.job_lanes l where l.class_id = any (v_classes);
  delete from coordinator.job_chunks_open c using coordinator.jobs_open j where j.project_id = p_project_id and c.job_id = j.id;
  delete from coordinator.job_steps_open s using coordinator.jobs_open j where j.project_id = p_project_id and s.job_id = j.id;
  delete from coordinator.job_keys k where k.limit_id in (select l.id from coordinator.job_limits l where l.project_id = p_project_id);
  delete from coordinator.job_slots s where s.limit_id in (select l.id from coordinator.job_limits l where l.project_id = p_project_id);
  delete from coordinator.job_buckets b where b.limit_id in (select l.id from coordinator.job_limits l where l.project_id = p_project_id);
  delete from coordinator.job_budgets b where b.limit_id in (select l.id from coordinator.job_limits l where l.project_id = p_project_id);
  delete from coordinator.job_charges c where c.limit_id in (select l.id from coordinator.job_limits l where l.project_id = p_project_id);
  delete from coordinator.job_limit_waits w where w.limit_id in (select l.id from coordinator.job_limits l where l.project_id = p_project_id);
  delete from coordinator.jobs_open j where j.project_id = p_project_id;
  delete from coordinator.job_dedupes d where d.project_id = p_project_id;
  delete from coordinator.jobs_ended j where j.project_id = p_project_id;
end
$$;
comment on function coordinator.job_end_project(bigint) is
  'Delete all jobs of a project that is being deleted. No event. Internal.';
