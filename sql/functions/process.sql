-- Processes. A process proves that it is alive by a shared, session-level advisory lock (1129267026, id) on a direct
-- connection: when the process dies, the server releases the lock at once. The leader among the daemons runs the relay and the loops.

insert into coordinator.rights (function, role) values
  ('process_register', 'agent');

create or replace function coordinator.process_register(p_kind text, p_name text, p_id integer default null) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id      integer := p_id;
  v_returns boolean;
begin
  perform coordinator.check_name('the name of the process', p_name);
  if p_kind is null or p_kind not in ('daemon', 'sidecar', 'client') then
    raise exception using errcode = 'ZC105', message = format('invalid kind of process "%s"', left(p_kind, 200)),
      hint = 'Use daemon, sidecar or client.';
  end if;
  if v_id is not null then
    -- If kind or name differ, it is not the same process: a fail-over lost the former row, and its id was assigned again.
    if exists (select from coordinator.processes where id = v_id and kind = p_kind and name = p_name) then
      v_returns := coordinator.advisory_inherit(1129267026, v_id); -- its former session may still exist
    end if;
    if not coalesce(v_returns, not coordinator.process_alive(v_id)) then
      raise exception using errcode = 'ZC302', message = format('process %s is alive in another session', v_id),
        hint = 'Register without an id.';
    end if;
    if v_returns then
      update coordinator.processes set missing_at = null where id = v_id and kind = p_kind and name = p_name;
      if found then
        return v_id;
      end if;
      perform pg_advisory_unlock_shared(1129267026, v_id); -- it was reaped meanwhile
    end if;
  end if;
  -- Take the lock before the row is visible, so that no other session finds the row while its lock is free.
  loop
    v_id := nextval(pg_get_serial_sequence('coordinator.processes', 'id'));
    continue when exists (select from coordinator.processes where id = v_id); -- from before the sequence began again
    exit when coordinator.advisory_claim(1129267026, v_id); -- otherwise another role holds the key of an id that no process has yet
  end loop;
  insert into coordinator.processes (id, kind, name, started_at) overriding system value
  values (v_id, p_kind, p_name, coordinator.now_utc());
  return v_id;
end
$$;
comment on function coordinator.process_register(text, text, integer) is
  'Register this session''s process, and hold its liveness lock until the session ends. p_id: return as this process after a lost connection; its session ends if the server still has it. Return the id, which differs from p_id if that process was reaped in the meantime. Requires a direct connection.';

create or replace function coordinator.process_grace() returns interval
language sql immutable parallel safe
return interval '0.7 seconds';
comment on function coordinator.process_grace() is
  'Return how long a process may lack its liveness lock before it counts as dead. Internal.';

create or replace function coordinator.process_alive(p_process integer) returns boolean
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pg_locks
    where locktype = 'advisory' and classid = 1129267026 and objid = p_process::oid and objsubid = 2 and granted
      and database = (select oid from pg_database where datname = current_database()))
$$;
comment on function coordinator.process_alive(integer) is
  'Return whether a process holds its liveness lock.';

create or replace function coordinator.server_settled() returns boolean
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off -- before PostgreSQL 18, a table or sequence without an index looks expensive enough for JIT
as $$
begin
  return clock_timestamp() - pg_postmaster_start_time() > interval '10 seconds'
    and (pg_is_in_recovery() or (
      exists (select from coordinator.relay where epoch = coordinator.epoch_id())
      and not exists (select from coordinator.epochs where ended_at > clock_timestamp() - interval '10 seconds')));
end
$$;
comment on function coordinator.server_settled() is
  'Return false during the first 10 seconds after the server started or a standby was promoted, while processes reconnect: nothing is reaped then.';

create or replace function coordinator.leader_renew(p_process integer, p_ttl interval default '5 seconds')
returns table (leads boolean, term bigint, due text[], epoch text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_leader coordinator.leaders;
  v_now    timestamptz := clock_timestamp();
  v_due    text[];
begin
  perform coordinator.check_ttl(p_ttl);
  select * into v_leader from coordinator.leaders for update;
  if v_leader.process_id is distinct from p_process then
    if v_leader.expires_at > v_now and coordinator.process_alive(v_leader.process_id) then
      return query select false, v_leader.term, '{}'::text[], coordinator.epoch_id();
      return;
    end if;
    v_leader.term := v_leader.term + 1;
  end if;
  update coordinator.leaders set process_id = p_process, term = v_leader.term, expires_at = v_now + p_ttl, renewed_at = v_now;
  begin
    v_due := coordinator.work_due();
  exception when others then -- one damaged row must not stop every loop: let each find its own work
    raise warning 'every loop runs, since the heartbeat cannot tell which of them have work: %', sqlerrm;
    v_due := array(select m[1] from pg_proc p, regexp_matches(p.prosrc, 'then ''([a-z_]+)'' end', 'g') m where p.oid = 'coordinator.work_due'::regproc);
  end;
  return query select true, v_leader.term, v_due, coordinator.epoch_id();
end
$$;
comment on function coordinator.leader_renew(integer, interval) is
  'Take or keep the lead, unless another living process has it and it has not expired. A leader also learns which loops have work; all of them if that cannot be determined. epoch: the current epoch; null before its first number. Every daemon calls this function once a second.';

create or replace function coordinator.leader_beat()
returns table (origin text, renewed_at timestamptz, now timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select r.identity || '.' || r.epoch, l.renewed_at, clock_timestamp() from coordinator.relay r, coordinator.leaders l
$$;
comment on function coordinator.leader_beat() is
  'Return which history of which database this is, when its leader last renewed its lead, and the server''s time. A standby with the origin of its primary has everything that was committed until its renewed_at. Internal.';

-- This function has one plan for all instants. The planner expects a third of each table to be due, so it would read whole tables until
-- it finds a row: once a second, even if none is due. Each of these conditions therefore has an index; "order by" names the index where
-- the planner might choose another one because it believes that the table is empty.
create or replace function coordinator.work_due() returns text[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan -- otherwise the first five heartbeats would plan, which takes ten times as long as the queries
set enable_seqscan = off
set jit = off -- before PostgreSQL 18, a table or sequence without an index looks expensive enough for JIT
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
as $$
declare
  v_now  timestamptz := coordinator.now_utc();
  v_last bigint := (select last_value from coordinator.event_ids);
  v_day  text := to_char((v_now + interval '24 hours') at time zone 'UTC', '_YYYYMMDD'); -- the suffix of tomorrow's partitions
begin
  return array_remove(array[
    case when coordinator.events_waiting() > 0 then 'relay' end,
    case when to_regclass('coordinator.events_' || to_char(v_last / 1000000 + 8, 'FM000000')) is null
           or to_regclass('coordinator.events_' || to_char(v_last / 1000000 + 1, 'FM000000')) is null -- the partition was dropped by hand
         then 'event_extend' end,
    case when to_regclass('coordinator.jobs_completed' || v_day) is null or to_regclass('coordinator.jobs_uncompleted' || v_day) is null
         then 'job_extend' end,
    case when exists (select from coordinator.signals where expires_at <= v_now) then 'signal_expire' end,
    case when exists (select from coordinator.directives where status = 'open' and expires_at <= v_now)
           or exists (select from coordinator.directives d where d.status = 'open' and d.to_job is not null
                        and not exists (select from coordinator.jobs_open j where j.id = d.to_job))
         then 'directive_expire' end,
    case when exists (select from coordinator.locks where free_at <= v_now)
           or exists (select from coordinator.lock_waits where expires_at <= v_now)
         then 'lock_expire' end,
    case when exists (select from coordinator.agents where expires_at <= v_now)
           or exists (select from coordinator.processes p where not coordinator.process_alive(p.id))
         then 'agent_reap' end,
    case when exists (select from coordinator.jobs_later where due_at <= v_now) then 'job_promote' end,
    case when exists (select from coordinator.jobs_waiting where due_at <= v_now) then 'job_wake_due' end,
    case when exists (select from coordinator.job_placements) then 'queue_place' end,
    case when exists (select from coordinator.crons where due_at <= v_now) then 'cron_fire' end,
    case when exists (select from coordinator.jobs_unsettled) then 'job_settle_due' end,
    case when exists (select from coordinator.job_changes) then 'job_change_due' end,
    case when (select true from coordinator.jobs_open j
                      where j.start_by <= v_now and not exists (select from coordinator.jobs_running r where r.id = j.id)
                      order by j.start_by limit 1) then 'job_expire' end,
    case when exists (select from coordinator.jobs_running where least(deadline_at, stall_at, cancel_at) <= v_now)
           or (select true from coordinator.agents a where a.expires_at - a.heartbeat_at > a.ttl and v_now - a.heartbeat_at >= a.ttl
                        and exists (select from coordinator.jobs_running r where r.agent_id = a.id)
                      order by a.heartbeat_at limit 1)
           -- attempts that the end of an agent skipped, since another transaction had locked them
           or (select true from coordinator.agents_ended e
                      where e.ended_at > v_now - interval '2 minutes' and exists (select from coordinator.jobs_running r where r.agent_id = e.id)
                      order by e.ended_at limit 1)
         then 'job_rescue' end,
    case when exists (select from coordinator.job_waits where due_at <= v_now)
           or exists (select from coordinator.job_wait_log where held <> '{}')
           or exists (select from coordinator.job_waits where behind)
           or exists (select from coordinator.job_waits where behind is not null)
              and (select seq from coordinator.job_wait_log) < (select last_seq from coordinator.event_chunks order by first_seq desc limit 1)
         then 'job_wait_match' end,
    case when coordinator.limit_due(v_now, 1) <> '{}' then 'limit_refill' end,
    case when exists (select from coordinator.artifact_blobs where due_at <= v_now) then 'artifact_prune' end,
    case when exists (select from coordinator.artifact_blobs where finished_at is not null and not stored and bytes > 0) then 'artifact_move' end,
    case when exists (select from coordinator.artifact_objects where (blob_id is null or stored_at is null) and due_at <= v_now)
         then 'artifact_object_delete' end,
    case when exists (select from coordinator.logs where trim_at <= v_now) then 'log_trim' end,
    case when exists (select from coordinator.documents where expires_at <= v_now) then 'document_expire' end,
    case when exists (select from coordinator.sessions where trim_at <= v_now) then 'session_expire' end,
    case when exists (select from coordinator.artifacts where trim_at <= v_now) then 'artifact_expire' end,
    case when exists (select from coordinator.retention_sweeps) then 'retention_sweep' end,
    case when exists (select from coordinator.webhooks where due_at <= v_now)
           or exists (select from coordinator.webhooks w where w.behind and coordinator.webhook_takes(w))
           or exists (select from coordinator.webhooks where not behind)
              and exists (select from coordinator.webhook_log l
                          where l.late <> '{}' or l.seq < (select last_seq from coordinator.event_chunks order by first_seq desc limit 1))
         then 'webhook' end,
    case when exists (select from coordinator.audit_cursor
                      where late <> '{}' or seq < (select last_seq from coordinator.event_chunks order by first_seq desc limit 1))
         then 'audit_copy' end,
    -- Only every ten seconds, since it reads the system catalogue; for two of them, so that no heartbeat misses both.
    case when extract(second from v_now)::integer % 10 < 2 and exists (select from coordinator.upkeep_misjudged()) then 'upkeep_analyze' end
  ], null);
end
$$;
comment on function coordinator.work_due() is
  'Return the names of the loops that have work now, so that idle loops need not check.';
