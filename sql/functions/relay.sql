-- The relay numbers events. Each step appends to event_chunks which transactions, and thereby which events, get the next numbers. It never
-- copies, changes or deletes an event.
--
-- Order. A chunk contains what the current snapshot sees and the previous one did not, ordered by (xid, id). If A committed before B
-- began, A's transaction id is smaller, and A is in the same chunk or an earlier one: seq(A) < seq(B). A late commit gets a later seq.
-- Nothing is skipped: what one step misses is in the next difference of snapshots. A chunk ends between transactions. A transaction of
-- more than 500 events is several chunks, which become visible together.
--
-- Safety. A step locks the table relay for its whole transaction, so two relays at once are harmless. Numbering and NOTIFY are one
-- transaction, so no crash can separate them. Nothing here is updated: a snapshot that is held open for hours must not make a row's
-- version chain long.
--
-- NOTIFY. The step's transaction notifies 'coordinator' with the head's cursor, for gateways, and 'coordinator.<project>.<noun>' with each
-- event, or with a pointer if the event exceeds 7,900 bytes. event_configure chooses events, pointers or only the head, because any role
-- that may connect can LISTEN on any channel, and nothing shows who listens. One step writes at most 16 MB, and never more than half of
-- the queue. Beyond that, it notifies only the head, and readers catch up with events_since.
--
-- Lost notifications. Each notification names the previous event on its channel ("previous"), so a listener notices that it missed one. The
-- session remembers the last number that it sent on each channel, in 1,024 settings of 8 places each; a hash of the channel selects the
-- place. Settings are set and rolled back with the transaction. (One setting per channel is quadratic before PostgreSQL 16: 4 ms for the
-- 16,000th.) If two channels share a place, in a new session, or after another relay's step or a chunk without notifications, "previous" is a
-- later number than the true one, never an earlier one: a listener then reads the log for nothing.
--
-- Bounds. Each read has bounds on the id, so that it visits only the newest partitions. The bounds follow from one rule: a transaction gets
-- its xid before the id of its first event. A transaction that got its xid after that of a step (step_xid) has ids above the last id that
-- the step had read before it got that xid (read_id).

insert into coordinator.limits (name, value, unit, meaning) values
  ('chunk',            500, 'events', 'Events per chunk of the log. A larger transaction spans several chunks, and a page may end between them.'),
  ('notify_payload',  7900, 'bytes',  'Event in a NOTIFY payload, without its "previous" field; a larger event is sent as a pointer.');

create or replace function coordinator.event_extend(p_ahead integer default 16) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms' -- a waiting lock request blocks readers that look into events_beyond
as $$
declare
  v_first bigint := (select last_value / 1000000 from coordinator.event_ids);
  v_made  integer := 0;
  v_name  text;
begin
  if not coordinator.partition_turn() then
    return 0; -- a backup runs; there is room
  end if;
  for v_n in v_first .. v_first + p_ahead loop
    v_name := 'events_' || to_char(v_n, 'FM000000');
    continue when to_regclass('coordinator.' || v_name) is not null;
    -- Create, then attach: attaching blocks neither writers nor readers of the log. The partition is never vacuumed for its inserts,
    -- because no row in it dies, and it is dropped as a whole.
    execute format('create table coordinator.%I (like coordinator.events including all)'
                   ' with (autovacuum_vacuum_insert_threshold = -1, autovacuum_analyze_threshold = 2000000000)', v_name);
    execute format('alter table coordinator.events attach partition coordinator.%I for values from (%s) to (%s)',
                   v_name, v_n * 1000000, (v_n + 1) * 1000000);
    execute format('comment on table coordinator.%I is %L', v_name,
                   format('Events with the ids %s to %s, see events.', v_n * 1000000, v_n * 1000000 + 999999));
    v_made := v_made + 1;
  end loop;
  return v_made;
end
$$;
comment on function coordinator.event_extend(integer) is
  'Create the partitions of the log, 1,000,000 ids each, for the next p_ahead million events; return how many. The leader calls it when fewer than 8 are left, and reports in log and metrics if it fails. Without any partition, every function that emits fails with ZC701.';

create or replace function coordinator.event_headroom() returns bigint
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with partitions (n) as (
    select substring(c.relname from '^events_(\d+)$')::bigint
    from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'coordinator.events'::regclass)
  select min(g.n) * 1000000 - i.last_value
  from coordinator.event_ids i, generate_series(i.last_value / 1000000, i.last_value / 1000000 + (select count(*) from partitions)) g (n)
  where not exists (select from partitions p where p.n = g.n)
  group by i.last_value
$$;
comment on function coordinator.event_headroom() is
  'Return how many events the partitions of the log have room for, up to the first one that is missing.';

create or replace function coordinator.events_unnumbered(p_limit integer) returns setof timestamptz
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the log is small must also serve a large one
set jit = off -- before PostgreSQL 18, a small table without an index then looks expensive enough for JIT
as $$
declare
  v_last coordinator.event_chunks;
  v_late xid8[];
  v_low  bigint;
  v_top  bigint := (select last_value from coordinator.event_ids);
begin
  select * into v_last from coordinator.event_chunks order by first_seq desc limit 1;
  v_late := array(select pg_snapshot_xip(v_last.base) order by 1);
  v_low := coalesce(coordinator.event_id_before(v_late[1]), 0);
  return query
    (select l.at from coordinator.events l where l.xid = any (v_late) and l.id > v_low and l.id <= v_top limit p_limit)
    union all
    (select l.at from coordinator.events l where l.xid >= pg_snapshot_xmax(v_last.base) and l.id > v_last.base_id and l.id <= v_top limit p_limit)
    limit p_limit;
end
$$;
comment on function coordinator.events_unnumbered(integer) is
  'Return the times of committed events that have no number yet, at most p_limit. Internal.';

create or replace function coordinator.events_waiting(p_limit integer default 1) returns integer
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select count(*) from coordinator.events_unnumbered(p_limit));
end
$$;
comment on function coordinator.events_waiting(integer) is
  'Count committed events that have no number yet, up to p_limit. Internal.';

create or replace function coordinator.event_id_before(p_xid xid8) returns bigint
language plpgsql stable -- not in SQL: as in agent_joined
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select read_id from coordinator.event_chunks where step_xid <= p_xid order by step_xid desc limit 1);
end
$$;
comment on function coordinator.event_id_before(xid8) is
  'Return an id below those of the events of transaction p_xid: what the last step that got its xid before p_xid had read. Internal.';

create or replace function coordinator.event_snapshot(p_xmax xid8, p_running xid8[]) returns pg_snapshot
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (coalesce((select min(x) from unnest(p_running) x), p_xmax) || ':' || p_xmax || ':'
          || coalesce((select string_agg(x::text, ',' order by x) from unnest(p_running) x), ''))::pg_snapshot;
end
$$;
comment on function coordinator.event_snapshot(xid8, xid8[]) is
  'Return the snapshot that sees the transactions below p_xmax except p_running. Internal.';

create or replace function coordinator.relay_step(p_limit integer default 500, p_notify boolean default true)
returns table (moved integer, head_seq bigint, again boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan -- planning takes longer than reading a small chunk
set enable_seqscan = off -- plans made while the log is small must also serve a large one
set jit = off -- before PostgreSQL 18, a small table without an index then looks expensive enough for JIT
as $$
#variable_conflict use_variable
declare
  v_prev    coordinator.event_chunks;
  v_next    coordinator.event_chunks;
  v_own     xid8;
  v_snap    pg_snapshot;
  v_top     bigint;
  v_xmax    xid8;
  v_late    xid8[];
  v_late_id bigint;
  v_found   integer;
  v_cut     xid8;
  v_relay   coordinator.relay;
  v_room    double precision;
  v_channels text[];
  v_events   text[];
begin
  perform coordinator.check_isolation('events are numbered');
  if p_limit is null or p_limit not between 1 and 500 then
    raise exception using errcode = 'ZC104', message = format('a chunk of %s events is out of range', coalesce(p_limit::text, 'null')),
      hint = 'Give 1 to 500.';
  end if;
  -- Trap: a lock on the row would assign this transaction's xid, before the ids are read.
  lock table coordinator.relay in share row exclusive mode;
  select * into v_prev from coordinator.event_chunks order by first_seq desc limit 1;
  v_xmax := pg_snapshot_xmax(v_prev.base);
  v_own := pg_current_xact_id_if_assigned();
  select * into v_relay from coordinator.relay;
  if v_relay.epoch is distinct from coordinator.epoch_id() then
    perform coordinator.relay_recover();
    select 0, v_prev.last_seq, true into moved, head_seq, again;
    return next;
    return;
  end if;
  -- Trap: everything below must use this one snapshot. What commits during the step does not count as seen. The statement reads the sequence
  -- after it took the snapshot, so everything that the snapshot sees has ids up to v_top.
  select pg_current_snapshot(), last_value into v_snap, v_top from coordinator.event_ids;
  v_next.read_id := v_top;

  -- Transactions that were in progress at the previous step and have ended since.
  v_late := array(select x from pg_snapshot_xip(v_prev.base) x
                  where pg_visible_in_snapshot(x, v_snap) and x is distinct from v_own order by x);
  -- Nothing is new if nobody has taken an id since the previous step, and nobody has committed who had one by then: such a transaction
  -- got its xid before that step did.
  if v_late = '{}' and v_top = v_prev.read_id and not exists (
       select from generate_series(v_xmax::text::bigint, v_prev.step_xid::text::bigint - 1) x where pg_visible_in_snapshot(x::text::xid8, v_snap)) then
    select 0, v_prev.last_seq, false into moved, head_seq, again;
    return next;
    return;
  end if;
  if v_late <> '{}' then
    -- As event_id_before; a function in SQL would be parsed in each step.
    v_late_id := coalesce((select read_id from coordinator.event_chunks where step_xid <= v_late[1] order by step_xid desc limit 1), 0);
  end if;
  -- One scan finds the events, decides which of them the chunk takes, and writes their notifications.
  with waiting as (
    (select l.* from coordinator.events l
      where l.xid = any (v_late) and l.id > v_late_id and l.id <= v_top
      order by l.xid, l.id limit p_limit + 1)
    union all
    (select l.* from coordinator.events l
      -- Trap: xmax is the last completed transaction + 1. Transactions in progress may lie above it and have older ids than the
      -- previous step read: the bound is from the step before it.
      where l.xid >= v_xmax and l.xid < pg_snapshot_xmax(v_snap) and l.id > v_prev.base_id and l.id <= v_top
        and pg_visible_in_snapshot(l.xid, v_snap) and l.xid is distinct from v_own
      order by l.xid, l.id limit p_limit + 1)
    order by xid, id limit p_limit + 1
  ), counted as (
    select count(*)::integer as found, case when count(*) > p_limit then max(xid) end as cut from waiting
  ), taken as (
    select w.*, v_prev.last_seq + row_number() over place as seq, coalesce(lead(w.xid) over place = w.xid, false) as more
    from waiting w cross join counted c where w.xid < c.cut or c.cut is null window place as (order by w.xid, w.id)
  ), told as (
    select t.*, case when v_relay.payloads = 'full' then coordinator.event_members(
                       v_relay.epoch, t.seq, t.type, t.project, t.key, t.actor, t.at, t.data, t.xid::text, t.more, t.traceparent) end as members
    from taken t offset 0
  )
  -- In the order of the window. The last event of each transaction has no more.
  select (select c.found from counted c), (select c.cut from counted c), array_agg(t.xid) filter (where not t.more), min(t.id), max(t.id), count(*),
         array_agg(coordinator.event_channel(t.project, t.type)),
         array_agg(coordinator.event_told(v_relay.epoch, t.seq, t.type, t.project, t.members))
  into v_found, v_cut, v_next.xids, v_next.first_id, v_next.last_id, moved, v_channels, v_events
  from told t;
  again := v_cut is not null;
  head_seq := v_prev.last_seq;
  if v_found = 0 then
    moved := 0;
    return next;
    return;
  end if;

  if moved = 0 then -- the first transaction exceeds the limit: it is taken whole
    v_next.xids := array[v_cut];
    select min(l.id), max(l.id), count(*) into v_next.first_id, v_next.last_id, moved from coordinator.events l
    where l.xid = v_cut and l.id > case when v_cut < v_xmax then v_late_id else v_prev.base_id end and l.id <= v_top;
  end if;
  -- The end of what is numbered after this step.
  if not again then
    v_next.base := v_snap;
    v_next.base_id := v_prev.read_id; -- trap: not this step's, see above
  elsif v_next.xids[cardinality(v_next.xids)] >= v_xmax then -- all up to the last one taken
    v_cut := v_next.xids[cardinality(v_next.xids)];
    v_next.base := coordinator.event_snapshot((v_cut::text::numeric + 1)::text::xid8,
                                              array(select x from pg_snapshot_xip(v_snap) x where x <= v_cut));
    v_next.base_id := v_prev.base_id;
  else -- some of the late ones
    v_next.base := coordinator.event_snapshot(v_xmax, array(select x from pg_snapshot_xip(v_prev.base) x where x <> all (v_next.xids)));
    v_next.base_id := v_prev.base_id;
  end if;
  if v_own is null then
    v_next.step_xid := pg_current_xact_id();
  else
    -- Trap: a transaction that had its xid before the ids were read proves nothing about ids; and its own events, which it
    -- sees, come with a later step, since it may emit more.
    v_next.step_xid := v_prev.step_xid;
    v_next.read_id := v_prev.read_id;
    v_next.base_id := v_prev.base_id;
    if v_own < pg_snapshot_xmax(v_next.base) then
      v_next.base := coordinator.event_snapshot(pg_snapshot_xmax(v_next.base),
                       array(select pg_snapshot_xip(v_next.base) union select v_own));
    end if;
  end if;
  v_room := case when p_notify and v_relay.payloads <> 'head' then coordinator.relay_room() else 0 end;
  if moved <= p_limit then
    insert into coordinator.event_chunks
    values (head_seq + 1, head_seq + moved, v_next.xids, v_next.first_id, v_next.last_id, false, v_next.base, v_next.base_id,
            v_next.read_id, v_next.step_xid, clock_timestamp());
    perform coordinator.relay_tell(head_seq, v_channels, v_events, v_room);
  else
    insert into coordinator.event_chunks
    select head_seq + 1 + g.n * p_limit, least(head_seq + (g.n + 1) * p_limit, head_seq + moved), v_next.xids, min(g.id), max(g.id),
           (g.n + 1) * p_limit < moved, v_next.base, v_next.base_id, v_next.read_id, v_next.step_xid, clock_timestamp()
    from (select l.id, (row_number() over (order by l.id) - 1) / p_limit as n from coordinator.events l
          where l.xid = v_next.xids[1] and l.id between v_next.first_id and v_next.last_id) g
    group by g.n;
    for v_next in select * from coordinator.event_chunks where first_seq > head_seq order by first_seq loop
      select array_agg(coordinator.event_channel(e.project, e.type)), array_agg(coordinator.event_told(v_relay.epoch, e.seq, e.type, e.project,
               case when v_relay.payloads = 'full' then coordinator.event_members(
                 v_relay.epoch, e.seq, e.type, e.project, e.key, e.actor, e.at, e.data, e.transaction, e.more, e.traceparent) end))
      into v_channels, v_events
      from (select * from coordinator.chunk_events(v_next) order by seq offset 0) e;
      v_room := coordinator.relay_tell(v_next.first_seq - 1, v_channels, v_events, v_room);
    end loop;
  end if;
  head_seq := head_seq + moved;
  perform setval('coordinator.relay_bell', 0) from coordinator.relay_bell where last_value <> 0; -- awake: nobody needs to ring
  if p_notify then
    perform coordinator.relay_notify('coordinator', v_relay.epoch || '.' || head_seq);
  end if;
  return next;
end
$$;
comment on function coordinator.relay_step(integer, boolean) is
  'Number the next chunk of up to p_limit events (at most 500), or one transaction of more, and notify readers; nothing is left if moved is 0 and again is false. The first step of an epoch only begins it. Called by the relay; harmless for others.';

-- A procedure, because it commits: the server paces the relay, and the daemon spends nothing on a step.
create or replace procedure coordinator.relay_run(inout chunks integer[] default null, p_duration interval default '100 milliseconds')
language plpgsql
as $$
declare
  v_end   timestamptz := clock_timestamp() + p_duration;
  v_began timestamptz := clock_timestamp();
  v_cycle double precision; -- from the last step to this one
  v_step  record;
  v_pause double precision := 0.001;
  v_empty integer := 2; -- steps in a row that found nothing; one is enough until there was an event
begin
  chunks := '{}';
  loop
    v_cycle := extract(epoch from clock_timestamp() - v_began);
    v_began := clock_timestamp();
    select moved, again into v_step from coordinator.relay_step();
    if v_step.moved > 0 then
      chunks := chunks || v_step.moved;
      v_empty := 0;
    elsif not v_step.again then -- else it has begun an epoch
      v_empty := v_empty + 1;
    end if;
    if v_empty > 2 then
      chunks := chunks || 0;
      exit;
    end if;
    exit when v_empty = 0 and clock_timestamp() >= v_end;
    commit;
    if not v_step.again then
      -- What a step costs whatever it finds should be shared by 5 events, if these come within 10 ms; latency comes first while chunks
      -- are small: 1 ms after idleness, and if events come quickly. Then chunks should fill: 10 ms from 71 events on. After an empty
      -- step, 5 ms and then 10: sleeping until the doorbell rings costs more, and takes as long, if writers commit every few milliseconds.
      v_pause := case when v_step.moved = 0 then greatest(2 * v_pause, 0.005)
                      when v_cycle > 0.0005 then greatest(5 * v_cycle / v_step.moved, 0.001) else v_pause end;
      v_pause := least(greatest(v_step.moved ^ 2 * 0.000002, v_pause), 0.01);
      perform pg_sleep(v_pause);
    end if;
  end loop;
end
$$;
comment on procedure coordinator.relay_run(integer[], interval) is
  'Step for about p_duration, or until every event has a number and no other was written for 15 ms. chunks: how many events each step numbered; the last one is 0 if none is left. Call it outside of a transaction. Internal: what the relay does while there are events.';

create or replace function coordinator.relay_notify(p_channel text, p_payload text, p_usage double precision default 0.9) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A full queue makes the commit fail, which no code can catch. So nobody writes to a queue that is nearly full.
  if pg_notification_queue_usage() >= p_usage then
    return false;
  end if;
  perform pg_notify(p_channel, p_payload);
  return true;
end
$$;
comment on function coordinator.relay_notify(text, text, double precision) is
  'NOTIFY, unless p_usage of the notification queue is in use; return whether it was sent. Internal: every NOTIFY uses this function, except those of relay_step.';

create or replace function coordinator.event_channel(p_project text, p_type text) returns text
language sql immutable parallel safe
return 'coordinator.' || p_project || '.' || split_part(p_type, '.', 1);
comment on function coordinator.event_channel(text, text) is
  'Return the channel on which an event is notified. Internal.';

create or replace function coordinator.event_told(p_epoch text, p_seq bigint, p_type text, p_project text, p_members text) returns text
language sql stable parallel safe
return case when octet_length(p_members) <= 7898 then p_members
            else '"cursor": "' || p_epoch || '.' || p_seq || '", "seq": ' || p_seq || ', "type": "' || p_type || '", "project": "'
                 || p_project || '", "pointer": true' end;
comment on function coordinator.event_told(text, bigint, text, text, text) is
  'Return the members of an event for a notification; those of a pointer if there are none, or if they have too many bytes. Internal.';

create or replace function coordinator.relay_room() returns double precision
language sql volatile
return least(16777216, (0.5 - pg_notification_queue_usage()) * 8192 -- bytes of a page; how many there are is a setting since 17
                       * coalesce(current_setting('max_notify_queue_pages', true)::bigint, 1048576));
comment on function coordinator.relay_room() is
  'Return how many bytes a step may write to the notification queue. Internal.';

-- For each channel, the first event reads what an earlier step has set, and the last event sets it.
create or replace function coordinator.relay_payloads(p_channels text[], p_events text[], p_after bigint, p_since bigint)
returns table (channel text, payload text)
language sql stable -- inlined
as $$
  select u.channel, '{' || u.event || ', "previous": ' || u.previous || '}'
  from unnest(p_channels, p_events, array(
    select o.previous
    from (select coalesce(s.before, greatest(p_since, substr(s.told, s.place, 19)::bigint)) as previous,
                 case when s.last then set_config(s.setting, overlay(s.told placing lpad(s.seq::text, 19, '0') from s.place), false) end
          from (select h.*, case when h.setting is not null then coalesce(nullif(current_setting(h.setting, true), ''), repeat('0', 8 * 19)) end as told
                from (select n.*, case when n.last or n.before is null then 'coordinator.told_' || (hashtext(n.channel) & 1023) end as setting,
                             (hashtext(n.channel) >> 10 & 7) * 19 + 1 as place
                      from (select c.channel, p_after + c.number as seq, p_after + lag(c.number) over w as before, lead(c.number) over w is null as last
                            from unnest(p_channels) with ordinality c(channel, number)
                            window w as (partition by c.channel order by c.number)
                            order by c.number offset 0) n offset 0) h offset 0) s offset 0) o)) u(channel, event, previous)
$$;
comment on function coordinator.relay_payloads(text[], text[], bigint, bigint) is
  'Return the notifications of the events after p_after, in order, each with the previous event on its channel, which is at least p_since. Internal.';

create or replace function coordinator.relay_tell(p_after bigint, p_channels text[], p_events text[], p_room double precision) returns double precision
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan -- planning takes longer than reading a small chunk
as $$
declare
  v_head  bigint := p_after + cardinality(p_channels);
  v_since bigint := case when current_setting('coordinator.told_head', true) = p_after::text
                         then current_setting('coordinator.told_since')::bigint else p_after end; -- what follows it was told, by this session
  v_bytes bigint;
  v_told  bigint;
begin
  -- A payload does not cross a page of the queue, so the largest takes 16,000 bytes.
  if p_room >= 16000 * cardinality(p_channels) then
    select sum(2 * (octet_length(payload) + 100)), count(pg_notify(channel, payload)) into v_bytes, v_told
    from coordinator.relay_payloads(p_channels, p_events, p_after, v_since);
  else
    v_since := v_head;
  end if;
  perform set_config('coordinator.told_head', v_head::text, false), set_config('coordinator.told_since', v_since::text, false);
  return p_room - coalesce(v_bytes, 0);
end
$$;
comment on function coordinator.relay_tell(bigint, text[], text[], double precision) is
  'Notify readers of the events of a chunk, which follow p_after, if p_room bytes are enough. Return how many bytes are left. Internal: part of relay_step.';

create or replace function coordinator.relay_arm(p_duration interval default '15 seconds') returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform setval('coordinator.relay_bell', (extract(epoch from clock_timestamp() + p_duration) * 1000)::bigint);
  -- A writer that read the bell before it was armed had already appended, and holds this lock until the end of its transaction.
  return not exists (
    select from pg_locks
    where locktype = 'relation' and mode = 'RowExclusiveLock' and granted and pid is distinct from pg_backend_pid()
      and database = (select oid from pg_database where datname = current_database())
      and relation = 'coordinator.events'::regclass);
end
$$;
comment on function coordinator.relay_arm(interval) is
  'Arm the doorbell for p_duration. True: every transaction that may have seen it unarmed has ended, so the relay can sleep after one more step.';

create or replace function coordinator.relay_identity() returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_here text := (select oid from pg_database where datname = current_database()) || '/' || 'coordinator.relay'::regclass::oid;
begin
  return v_here || '@' || (select system_identifier from pg_control_system());
exception when insufficient_privilege then
  return v_here;
end
$$;
comment on function coordinator.relay_identity() is
  'Return the identity of this cluster, database and table, within which the transaction ids of the log are valid. Internal.';

create or replace function coordinator.relay_recover() returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_identity text := coordinator.relay_identity();
  v_relay    coordinator.relay;
  v_last     coordinator.event_chunks;
  v_low      bigint;
  v_top      bigint;
begin
  lock table coordinator.relay in share row exclusive mode;
  select * into v_relay from coordinator.relay;
  if v_relay.epoch = coordinator.epoch_id() then
    return false;
  end if;
  if v_relay.identity <> v_identity then
    lock table only coordinator.events in exclusive mode; -- before epochs: a writer that has written events may begin an epoch
  end if;
  -- The previous epoch may have numbered events after the last one here; those are lost. Cursors up to that last event stay valid.
  select * into v_last from coordinator.event_chunks order by first_seq desc limit 1;
  insert into coordinator.epochs (id, last_seq, ended_at) values (v_relay.epoch, v_last.last_seq, clock_timestamp());
  update coordinator.relay set epoch = coordinator.event_epoch(), identity = v_identity;
  if v_relay.identity = v_identity then
    return true;
  end if;
  -- Restored elsewhere: transaction ids of the old cluster mean nothing to this one's snapshots. Chunks stay valid, because ids continue,
  -- so old events stay readable. This transaction writes the events without a number again, and the next step numbers them.
  v_low := coalesce(coordinator.event_id_before(pg_snapshot_xmin(v_last.base)), 0);
  select last_value into v_top from coordinator.event_ids;
  with unnumbered as (
    delete from coordinator.events l
    where l.id > v_low and l.id <= v_top
      and not exists (select from coordinator.event_chunks c where l.id between c.first_id and c.last_id and l.xid = any (c.xids))
    returning l.*)
  insert into coordinator.events (type, project, key, actor, at, data, role, address, origin, traceparent)
  select type, project, key, actor, at, data, role, address, origin, traceparent from unnumbered order by xid, id;
  update coordinator.event_chunks set step_xid = null where step_xid is not null;
  update coordinator.event_chunks
  set base = coordinator.event_snapshot(pg_snapshot_xmax(s), array(
        select pg_snapshot_xip(s) union select pg_current_xact_id() where pg_current_xact_id() < pg_snapshot_xmax(s))),
      base_id = v_top, read_id = v_top, step_xid = '3'
  from (select pg_current_snapshot() as s) n
  where first_seq = v_last.first_seq;
  return true;
end
$$;
comment on function coordinator.relay_recover() is
  'Begin a new epoch if the last events were numbered by another run of the server or in another database; true if so. Events keep their numbers. If the database was restored from a dump, events that had no number yet count as one transaction. Called by relay_step, and by a relay that starts.';

create or replace function coordinator.event_turn(p_age interval) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '20ms' -- a queue behind this lock stops every writer
as $$
declare
  v_number bigint := (select (last_value + 1) / 1000000 from coordinator.event_ids); -- of the partition of the next event
begin
  if to_regclass('coordinator.events_' || to_char(v_number + 1, 'FM000000')) is null
     or coalesce((select stamped_at >= coordinator.now_utc() - p_age from coordinator.event_chunks
                  where first_id >= v_number * 1000000 and last_seq > 0 order by first_id limit 1), true) then
    return false;
  end if;
  lock table only coordinator.events in exclusive mode; -- a transaction that takes an id has locked the table before, so nobody takes one now
  perform setval('coordinator.event_ids', (v_number + 1) * 1000000 - 1) from coordinator.event_ids where last_value < (v_number + 1) * 1000000;
  return true;
exception when lock_not_available then
  return false; -- a transaction that wrote events is open: at the next run
end
$$;
comment on function coordinator.event_turn(interval) is
  'Let the next event begin a new partition if the oldest event of the current partition was numbered more than p_age ago, so that a quiet log is also pruned. Return whether it will. Internal: part of event_prune.';

create or replace function coordinator.event_prune(p_retention interval default '7 days') returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_timeout text := current_setting('lock_timeout');
  v_newest  coordinator.event_chunks;
  v_number  bigint;
  v_end     bigint;
  v_floor   bigint;
  v_new     bigint;
  v_young   boolean;
begin
  perform coordinator.check_ttl(p_retention);
  lock table coordinator.relay in share row exclusive mode; -- before any lock on the log, as relay_step does
  perform coordinator.event_turn(p_retention / 7);
  select * into v_newest from coordinator.event_chunks order by first_seq desc limit 1;
  select min(substring(c.relname from '^events_(\d+)$')::bigint) into v_number
  from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'coordinator.events'::regclass;
  v_end := (v_number + 1) * 1000000;
  -- Events without a number, and those of transactions that may still write, have greater ids than this.
  if coalesce(coordinator.event_id_before(pg_snapshot_xmin(v_newest.base)), 0) < v_end then
    return 0;
  end if;
  select max(last_seq), coalesce(bool_or(stamped_at >= coordinator.now_utc() - p_retention), false) into v_new, v_young
  from coordinator.event_chunks where first_id < v_end;
  select last_value into v_floor from coordinator.event_floor;
  if v_young or not coordinator.partition_turn() then
    return 0;
  end if;
  -- Events that are not yet copied into the audit trails stay, but not for ever.
  if v_new > (select least(c.seq, (select min(l.value::bigint) from jsonb_each_text(c.late) l)) from coordinator.audit_cursor c)
     and exists (select from coordinator.event_chunks where first_id < v_end and stamped_at >= coordinator.now_utc() - 4 * p_retention) then
    return 0;
  end if;
  begin
    perform set_config('lock_timeout', '20ms', true); -- a queue behind this lock stops every writer and reader
    execute format('lock table only coordinator.events, only coordinator.events_%s, only coordinator.events_beyond in access exclusive mode',
                   to_char(v_number, 'FM000000'));
  exception when lock_not_available then
    return 0; -- a transaction that wrote or read events is open: at the next run
  end;
  perform set_config('lock_timeout', v_timeout, true);
  v_new := greatest(v_new, v_floor);
  if v_new > v_floor then
    perform setval('coordinator.event_floor', v_new);
  end if;
  execute format('drop table coordinator.events_%s', to_char(v_number, 'FM000000'));
  delete from coordinator.event_chunks where last_seq <= v_new and first_seq < v_newest.first_seq;
  delete from coordinator.epochs where last_seq < v_new;
  return v_new - v_floor;
end
$$;
comment on function coordinator.event_prune(interval) is
  'Drop the oldest partition of the log if it is not in use, all its events were numbered more than p_retention ago, and they are in the audit trails or older than four times p_retention. Return how many events it had; repeat until 0. A partition is closed when it is full or its oldest event is a seventh of p_retention old. The newest events stay until later ones have a number. No event.';

-- Partitions for the first events, and for databases without a daemon.
select coordinator.event_extend(8);

-- A new database is in its first epoch.
select setval('coordinator.epoch_begun', coordinator.epoch_name()),
       setval('coordinator.epoch_mark', ('x' || epoch)::bit(32)::bigint << 32 | coordinator.epoch_hash())
from coordinator.relay where identity = '';
update coordinator.relay set identity = coordinator.relay_identity(), epoch = coordinator.epoch_id() where identity = '';

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_event_head_seq', 'event_sample', 'gauge', '{}', '', 'Number of the newest event.'),
  ('coordinator_event_floor_seq', 'event_sample', 'gauge', '{}', '', 'Number of the newest pruned event.'),
  ('coordinator_event_headroom', 'event_sample', 'gauge', '{}', '', 'Events that still fit into the partitions of the log.'),
  ('coordinator_events_waiting', 'event_sample', 'gauge', '{}', '', 'Committed events without a number; at most 10,000 are counted.'),
  ('coordinator_event_oldest_seconds', 'event_sample', 'gauge', '{}', 'seconds', 'Age of the oldest committed event without a number.'),
  ('coordinator_event_reader_behind', 'event_sample', 'gauge', '{reader}', '', 'Events that a reader in the database has not processed yet: jobs that wait for events, webhooks, or audit trails.'),
  ('coordinator_event_set_aside', 'event_sample', 'gauge', '{reader}', '', 'Jobs and webhooks whose events are set aside because another transaction has locked them.'),
  ('coordinator_event_number_seconds', 'event_sample', 'histogram', '{}', 'seconds', 'Time from an event, shortly before its commit, until it is numbered; measured on the first event of each chunk, for at most 200 chunks per sample.');

create or replace function coordinator.event_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off -- before PostgreSQL 18, a table or sequence without an index looks expensive enough for JIT
as $$
declare
  v_head bigint := (select c.last_seq from coordinator.event_chunks c order by c.first_seq desc limit 1);
begin
  return query
    select 'coordinator_event_head_seq', '{}'::text[], v_head::double precision
    union all
    select 'coordinator_event_floor_seq', '{}', f.last_value from coordinator.event_floor f
    union all
    select 'coordinator_event_headroom', '{}', coordinator.event_headroom()
    union all
    select m.name, '{}', m.value
    from (select count(*) as n, coalesce(coordinator.metric_age(min(w.at)), 0) as age from coordinator.events_unnumbered(10000) w (at)) w
    cross join lateral (values ('coordinator_events_waiting', w.n), ('coordinator_event_oldest_seconds', w.age)) m (name, value);
  -- The position of a reader with nothing to read does not move.
  return query
    select m.name, array[r.reader], m.value
    from (select 'job_wait' as reader, case when exists (select from coordinator.job_waits w where w.behind is not null) then v_head - l.seq end as behind,
                 (select count(*) from jsonb_object_keys(l.held)) as held
          from coordinator.job_wait_log l
          union all
          select 'webhook', case when exists (select from coordinator.webhooks w where not w.behind) then v_head - l.seq end,
                 (select count(*) from jsonb_object_keys(l.late))
          from coordinator.webhook_log l
          union all
          select 'audit', v_head - c.seq, (select count(*) from jsonb_object_keys(c.late)) from coordinator.audit_cursor c) r
    cross join lateral (values ('coordinator_event_reader_behind', greatest(0, coalesce(r.behind, 0))::double precision),
                               ('coordinator_event_set_aside', r.held::double precision)) m (name, value);
  return query
    select 'coordinator_event_number_seconds', '{}'::text[], greatest(0, extract(epoch from c.stamped_at - e.at))::double precision
    from (select * from coordinator.event_chunks n order by n.first_seq desc limit 200) c
    cross join lateral (
      select l.at from coordinator.events l where l.xid = c.xids[1] and l.id between c.first_id and c.last_id order by l.id limit 1) e
    where c.stamped_at > p_since;
end
$$;
comment on function coordinator.event_sample(timestamptz) is
  'Sample the metrics of the log. Internal.';
