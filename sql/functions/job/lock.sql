-- Locks of jobs (see job.sql, lock/lock.sql): a claim acquires all resources that a job names, or none. The locks end with the attempt.
--
-- Guarantees
--   Each attempt is an owner below its worker (job_owner), so two jobs of one worker exclude each other, and the attempt can name parts
--   below itself. Everything that the owner holds or waits for ends with the attempt, however the attempt ends. Until then, nobody else
--   gets its locks: they have no lease that could expire (free_at is infinity; expires_at is the deadline of the attempt).
--   A job that cannot acquire its locks waits in jobs_waiting and holds nothing: no lock, no slot, no ticket. So it cannot be part of a
--   deadlock. The transaction that releases the blocking lock also wakes the job.
--
-- How it works. A claim takes the keys of a job's resources with try-locks, so it waits for nobody. Under these keys, it looks for
-- locks that block the job. If there are none, it writes the job's locks. Otherwise, it locks the row of the blocking lock (for key
-- share) and inserts a row of job_lock_waits that names it. Releases look for such rows under the same keys. Functions that end locks
-- without taking keys (agent_end, lock_expire) skip a row that is locked; the loop returns to it. If a key or a row is busy, the job
-- waits for one second.
-- Of the jobs of a class that want the same resource, a release wakes the best one; the others wait for that job. If a woken job cannot
-- use its turn, it passes it on: at the next claim if another resource is in the way, and at its end. In addition, each waiting job
-- checks for itself every 30 seconds.
-- A job that wants a whole directory does not starve behind jobs that lock parts of it in turn. If it could have started 30 seconds
-- ago, and an attempt of another job blocks it, it gets a turn (job_lock_turns): jobs that became ready later must not take what it
-- wants. A turn lapses a minute after the job last tried to acquire its locks, so a job that no worker takes blocks nobody. Claims
-- change turns only if they get a key with a try-lock.
-- Ends and releases wake jobs while they already hold keys of locks, which come after the keys of queues in the lock order. So a
-- wake-up waits at most 0.1 seconds; beyond that, it leaves the job to the loop.

create or replace function coordinator.job_owner(p_job uuid, p_fence bigint) returns text
language sql immutable parallel safe
return 'job/' || p_job::text || '/' || p_fence::text;
comment on function coordinator.job_owner(uuid, bigint) is
  'Return the owner of an attempt''s locks. Parts of the attempt are owners below it: owner/part.';

create or replace function coordinator.job_locks(p_project_id bigint, p_locks text[]) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select r.resource from unnest(coordinator.lock_parse_all(coordinator.lock_texts(
      (select p.name from coordinator.projects p where p.id = p_project_id), p_locks))) r);
end
$$;
comment on function coordinator.job_locks(bigint, text[]) is
  'Return the resources of a job in canonical form, each once. ZC101 to ZC103: one is malformed. Internal.';

create or replace function coordinator.job_lock_turn(
  p_project_id bigint, p_job uuid, p_locks text[], p_since timestamptz, p_now timestamptz, out job uuid, out resource text, out wanted text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  select t.job_id, t.resource, r into job, resource, wanted
  from (select * from coordinator.job_lock_turns t where t.project_id = p_project_id and t.until > p_now order by t.since, t.job_id limit 100) t
  cross join lateral unnest(p_locks) r
  where (t.since, t.job_id) < (p_since, p_job) and exists (select from coordinator.jobs_open j where j.id = t.job_id)
    and coordinator.lock_overlaps(coordinator.lock_parse(t.resource), coordinator.lock_parse(r))
  order by t.since, t.job_id limit 1;
end
$$;
comment on function coordinator.job_lock_turn(bigint, uuid, text[], timestamptz, timestamptz) is
  'Return a job that has waited longer and therefore precedes a job that wants these locks, with the resource that it wants and the lock that overlaps it; null: none. Only the first 100 turns of the project are checked. Internal.';

create or replace function coordinator.job_lock(
  p_project_id bigint, p_project text, p_agent uuid, p_worker text, p_ids uuid[], p_limit integer, p_waiting integer, p_now timestamptz,
  out picked uuid[], out owned uuid[], out fences bigint[], out tokens jsonb[], out waiting uuid[], out rest uuid[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_left  uuid[] := p_ids;
  v_busy  uuid[];
  v_job   record;
  v_fence bigint;
  v_try   record;
  v_waits coordinator.job_lock_waits[] := '{}';
  v_due   timestamptz[] := '{}';
  v_free  text[] := '{}';
  v_turn  record;
  v_turns boolean := exists (select from coordinator.job_lock_turns t where t.project_id = p_project_id and t.until > p_now);
  v_late  coordinator.job_lock_turns[] := '{}';
begin
  picked := '{}';
  owned := '{}';
  fences := '{}';
  tokens := '{}';
  waiting := '{}';
  rest := '{}';
  for v_round in 1 .. 2 loop
    v_busy := '{}';
    for v_job in
      select j.id, j.class_id, case when (j.start_by <= p_now) is not true and j.paused is null then j.locks end as locks, p_now + coalesce(j.deadline, interval '1 day') as until, j.scheduled_at,
             coordinator.job_rank(j.scheduled_at, j.priority, q.ageing) as rank
      from (select o.* from coordinator.jobs_open o where o.id = any (v_left) offset 0) j
      join coordinator.queues q on q.project_id = j.project_id and q.name = j.queue order by j.priority desc, j.scheduled_at, j.id
    loop
      if cardinality(picked) >= p_limit or cardinality(waiting) >= p_waiting then
        rest := rest || v_job.id;
        continue;
      elsif v_job.locks is null then
        picked := picked || v_job.id;
        continue;
      elsif v_turns then
        v_turn := coordinator.job_lock_turn(p_project_id, v_job.id, v_job.locks, v_job.scheduled_at, p_now);
        if v_turn.job is not null then
          waiting := waiting || v_job.id;
          v_waits := v_waits || row(v_job.id, p_project_id, v_turn.resource, v_turn.wanted, v_job.class_id, v_job.rank)::coordinator.job_lock_waits;
          v_due := v_due || p_now + interval '30 seconds';
          continue;
        end if;
      end if;
      v_fence := coordinator.epoch_number('coordinator.job_fences');
      v_try := coordinator.lock_try(p_project_id, p_project, v_job.locks, p_agent, p_worker, coordinator.job_owner(v_job.id, v_fence), v_job.until);
      if v_try.tokens is not null then
        picked := picked || v_job.id;
        owned := owned || v_job.id;
        fences := fences || v_fence;
        tokens := tokens || v_try.tokens;
      elsif v_try.busy and v_round = 1 then
        v_busy := v_busy || v_job.id;
      else
        waiting := waiting || v_job.id;
        v_waits := v_waits || row(v_job.id, p_project_id, v_try.blocker, v_try.wanted, v_job.class_id, v_job.rank)::coordinator.job_lock_waits;
        v_due := v_due || v_try.due_at;
        v_free := v_free || v_try.free;
        if not v_try.busy and v_job.scheduled_at <= p_now - interval '30 seconds' and exists (
             select from coordinator.locks l where l.project_id = p_project_id and l.resource = v_try.blocker and coordinator.lock_job(l.owner) is not null) then
          v_late := v_late || row(p_project_id, v_try.wanted, v_job.id, v_job.scheduled_at, p_now + interval '1 minute')::coordinator.job_lock_turns;
        end if;
      end if;
    end loop;
    exit when v_busy = '{}';
    v_left := v_busy;
    perform pg_sleep(0.002); -- nearly all transactions that hold keys commit at once
  end loop;
  if (v_late <> '{}' or v_turns and owned <> '{}') and pg_try_advisory_xact_lock(hashtextextended('coordinator.job_lock_turns:' || p_project_id, 0)) then
    delete from coordinator.job_lock_turns t where t.project_id = p_project_id and (t.until <= p_now or t.job_id = any (owned));
    insert into coordinator.job_lock_turns as t
    select distinct on (l.resource) l.* from unnest(v_late) l order by l.resource, l.since, l.job_id
    on conflict on constraint job_lock_turns_pkey do update set job_id = excluded.job_id, since = excluded.since, until = excluded.until
    where (excluded.since, excluded.job_id) <= (t.since, t.job_id);
  end if;
  if waiting = '{}' then
    return;
  end if;
  perform coordinator.job_make_waiting(waiting, 'lock', null, p_worker, p_now);
  update coordinator.jobs_waiting w set due_at = u.due_at from unnest(waiting, v_due) u (id, due_at) where w.id = u.id and w.id = any (waiting);
  insert into coordinator.job_lock_waits select * from unnest(v_waits);
  if v_free <> '{}' then
    perform coordinator.job_lock_wake(p_project_id, v_free);
  end if;
end
$$;
comment on function coordinator.job_lock(bigint, text, uuid, text, uuid[], integer, integer, timestamptz) is
  'Acquire the locks of jobs that a claim took out of jobs_ready, the best first. picked: up to p_limit jobs that can start; owned: those of them that have locks, with fences and tokens by resource; waiting: up to p_waiting jobs that could not have theirs and wait from now on; rest: jobs beyond these limits. Waits for nobody. Internal.';

create or replace function coordinator.job_lock_wake(p_project_id bigint, p_resources text[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
set lock_timeout = '100ms'
as $$
declare
  v_now  timestamptz := coordinator.now_utc();
  v_best uuid[];
begin
  if not exists (select from coordinator.job_lock_waits w where w.project_id = p_project_id) then
    return;
  end if;
  with class as materialized (
    select distinct w.blocker, w.wanted, w.class_id
    from (select distinct r from unnest(p_resources) r) u
    cross join lateral (select * from coordinator.job_lock_waits w where w.project_id = p_project_id and w.blocker = u.r offset 0) w),
  best as materialized (
    select c.class_id, c.wanted, b.job_id
    from class c cross join lateral (
      select w.job_id from coordinator.job_lock_waits w
      cross join lateral (select from coordinator.jobs_waiting s where s.id = w.job_id for update skip locked) s
      where w.project_id = p_project_id and w.blocker = c.blocker and w.wanted = c.wanted and w.class_id = c.class_id
      order by w.rank, w.job_id limit 1) b)
  select array_agg(b.job_id) into v_best from best b;
  if v_best is null then
    return;
  end if;
  -- The other jobs of each class now wait for the best one, instead of for what blocked it.
  update coordinator.job_lock_waits w set blocker = w.wanted
  where w.job_id = any (array(
    select w.job_id
    from (select distinct o.blocker, o.wanted, o.class_id from coordinator.job_lock_waits o where o.job_id = any (v_best) and o.blocker <> o.wanted) c
    join coordinator.job_lock_waits w on w.project_id = p_project_id and w.blocker = c.blocker and w.wanted = c.wanted and w.class_id = c.class_id
    for no key update of w skip locked));
  perform coordinator.job_wake_soon(v_best, 'coordinator', v_now);
end
$$;
comment on function coordinator.job_lock_wake(bigint, text[]) is
  'Wake the next jobs that wait for locks on exactly these resources: of each class, the best job for each resource that it wants. Jobs that would make this call wait are left to the loop. Internal.';

create or replace function coordinator.job_unlock(p_attempts coordinator.jobs_running[], p_by text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_agents  constant uuid[] := array(select distinct a.agent_id from unnest(p_attempts) a);
  v_now     timestamptz := coordinator.now_utc();
  v_of      record;
  v_tickets bigint[];
  v_all     coordinator.lock_resource[];
  v_alone   boolean; -- nobody else changes what waits for these locks
  v_queue   boolean; -- and somebody does wait
begin
  for v_of in
    select p.id as project_id, p.name as project, (array_agg(o.held) filter (where o.ticket is null)) as locks, array_agg(distinct o.ticket) as tickets
    from (
      select (l.held).project_id, l.held, null::bigint as ticket, (l.held).agent_id, (l.held).owner
      from unnest(v_agents) g (id) cross join lateral (select h as held from coordinator.locks h where h.agent_id = g.id and h.ended_at is null offset 0) l
      union all
      select w.project_id, null, w.ticket, w.agent_id, w.owner
      from unnest(v_agents) g (id) cross join lateral (select * from coordinator.lock_waits w where w.agent_id = g.id offset 0) w) o
    join coordinator.projects p on p.id = o.project_id
    -- Hashed, since an agent may have thousands of both: see job_owner.
    where (o.agent_id, split_part(o.owner, '/', 1), split_part(o.owner, '/', 2), split_part(o.owner, '/', 3)) in (
      select a.agent_id, 'job', a.id::text, a.fence::text from unnest(p_attempts) a offset 0)
    group by 1, 2 order by 1
  loop
    v_all := array(select coordinator.lock_parse(r) from (select distinct l.resource as r from unnest(v_of.locks) l) l);
    v_alone := current_setting('transaction_isolation') = 'read committed' and coordinator.lock_enter_try(v_of.project_id, v_all);
    v_queue := v_alone and exists (select from coordinator.lock_waits w where w.project_id = v_of.project_id);
    if v_queue then
      v_alone := pg_try_advisory_xact_lock(coordinator.lock_queue_key(v_of.project_id));
    end if;
    v_tickets := array_remove(v_of.tickets, null);
    if v_queue and v_alone and v_tickets <> '{}' then
      perform coordinator.lock_ticket_drop(v_of.project_id, v_of.project, v_tickets);
    end if;
    v_all := coordinator.lock_end(v_of.project, v_of.locks, p_by, v_now, v_alone, false);
    if v_alone and v_queue then
      perform coordinator.lock_hand_off(v_of.project_id, v_of.project, v_all);
    elsif v_alone then
      perform coordinator.job_lock_wake(v_of.project_id, array(select r.resource from unnest(v_all) r));
    end if;
  end loop;
end
$$;
comment on function coordinator.job_unlock(coordinator.jobs_running[], text) is
  'End the locks and waits of attempts whose rows the caller deleted: the last step of every end. Waits for nobody: if other transactions are changing the same locks, these end immediately, and the loop hands them on. Internal.';

create or replace function coordinator.job_why_lock(p_project_id bigint, p_job uuid, out sentence text, out names text[], out until timestamptz)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_on   record;
  v_turn record;
begin
  select t.* into v_turn
  from coordinator.jobs_open j cross join lateral coordinator.job_lock_turn(p_project_id, j.id, j.locks, j.scheduled_at, coordinator.now_utc()) t where j.id = p_job;
  if v_turn.job is not null then
    sentence := format('It waits for the lock on "%s", and lets job %s go before it, which has waited longer for "%s".', v_turn.wanted, v_turn.job, v_turn.resource);
    return;
  end if;
  select w.wanted, w.blocker, b.* into v_on
  from coordinator.job_lock_waits w
  join coordinator.jobs_open j on j.id = w.job_id
  cross join lateral unnest(j.locks) r
  cross join lateral coordinator.lock_blockers(p_project_id, '00000000-0000-0000-0000-000000000000', '', null, coordinator.lock_parse(r), 'exclusive', null) b
  where w.job_id = p_job order by r <> w.wanted, b.ticket nulls first, b.expires_at desc limit 1;
  if not found then
    sentence := 'It waited for a lock that is free now: it will be claimed in a moment.';
    return;
  end if;
  names := array[v_on.agent_name];
  until := case when v_on.ticket is null then v_on.expires_at end;
  sentence := format('It waits for the lock on "%s", ', v_on.wanted) || case
    when v_on.ticket is not null then format('and agent "%s" has waited longer (ticket %s).', v_on.agent_name, v_on.ticket)
    else format('which %s holds%s until %s%s.',
      case when coordinator.lock_job(v_on.owner) is not null then format('job %s of worker "%s"', coordinator.lock_job(v_on.owner), v_on.agent_name)
           else format('agent "%s"', v_on.agent_name) end,
      case when v_on.resource <> v_on.wanted then format(' with "%s"', v_on.resource) else '' end,
      case when coordinator.lock_job(v_on.owner) is not null then 'its attempt ends, at ' else '' end || coordinator.job_instant(v_on.expires_at),
      case when coordinator.lock_job(v_on.owner) is not null then ' at the latest' else '' end) end;
end
$$;
comment on function coordinator.job_why_lock(bigint, uuid) is
  'Explain which lock a job waits for, who holds it and until when. Internal.';
