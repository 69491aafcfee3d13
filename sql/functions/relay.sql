-- The relay: moves events from the outbox to the log, one transaction per batch.
--
-- Order. A batch holds what the current snapshot sees and the previous one did not, by (xid, id). If A committed before B
-- began, A's transaction id is smaller, and A is in the same batch or an earlier one: seq(A) < seq(B). A late commit gets a
-- later seq. Nothing is skipped: a row that is left behind is in the next difference of snapshots.
--
-- Safety. The relay row is locked for the whole transaction, so two relays at once are harmless. Numbering and NOTIFY are one
-- transaction, so no crash can separate them. Nothing here updates a row in place: a snapshot that is held open for hours must
-- not make a row's history long, and the index on (xid, id) never visits what was copied.
--
-- NOTIFY. The batch's transaction notifies 'coordinator' with the head's cursor, for gateways, and
-- 'coordinator.<project>.<noun>' with each event, or with a pointer if the event exceeds 7,900 bytes, or as event_configure chose:
-- any role that may connect can LISTEN on any channel. When the queue is half full (a listener is stuck in a
-- transaction), only the head is notified; readers catch up with events_since.

insert into coordinator.limits (name, value, unit, meaning) values
  ('notify_payload', 7900, 'bytes', 'An event in a NOTIFY payload; a larger one is sent as a pointer.');

create or replace function coordinator.event_partition_create(p_from bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_first bigint := (p_from / 1000000) * 1000000;
  v_name  text := 'events_' || to_char(v_first / 1000000, 'FM000000');
begin
  if to_regclass('coordinator.' || v_name) is not null then
    return;
  end if;
  -- Attached, not created in place: attaching does not lock out readers of the log.
  execute format('create table coordinator.%I (like coordinator.events including all)', v_name);
  execute format('alter table coordinator.events attach partition coordinator.%I for values from (%s) to (%s)',
                 v_name, v_first, v_first + 1000000);
  execute format('comment on table coordinator.%I is %L', v_name,
                 format('Events %s to %s, see events.', v_first, v_first + 999999));
end
$$;
comment on function coordinator.event_partition_create(bigint) is
  'Create the partition of the log for p_from, 1,000,000 events wide, if there is none. Internal.';

create or replace function coordinator.snapshot_without(p_snapshot pg_snapshot, p_xid xid8) returns pg_snapshot
language sql immutable parallel safe
return case when p_xid >= pg_snapshot_xmax(p_snapshot) then p_snapshot else (
  case when p_xid < pg_snapshot_xmin(p_snapshot) then p_xid else pg_snapshot_xmin(p_snapshot) end
  || ':' || pg_snapshot_xmax(p_snapshot) || ':'
  || (select string_agg(x::text, ',' order by x) from (select pg_snapshot_xip(p_snapshot) union select p_xid) r (x)))::pg_snapshot end;
comment on function coordinator.snapshot_without(pg_snapshot, xid8) is
  'Return a snapshot that has not seen p_xid. A snapshot counts its own transaction as seen, but what that emits later must still be copied. Internal.';

create or replace function coordinator.relay_step(p_limit integer default 1000, p_notify boolean default true)
returns table (moved integer, head_seq bigint, again boolean)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_epoch text;
  v_payloads text;
  v_last  coordinator.relay_batches;
  v_own   xid8;
  v_snap  pg_snapshot;
  v_moved integer;
  v_head  bigint;
  v_xid   xid8;
  v_id    bigint;
  v_full  boolean;
  v_after_xid xid8;
  v_after_id  bigint;
  v_new_xid   xid8;
  v_new_id    bigint;
  v_end_xid   xid8;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'ZC105', message = 'relay_step must run in a read committed transaction',
      hint = 'A snapshot taken before the lock would be older than the last batch.';
  end if;
  perform coordinator.check_page(p_limit);
  select r.epoch, r.payloads into v_epoch, v_payloads from coordinator.relay r for update;
  v_own := pg_current_xact_id();
  select * into v_last from coordinator.relay_batches b order by b.id desc limit 1;
  if (v_last.head_seq + p_limit) / 1000000 > v_last.head_seq / 1000000 or v_last.head_seq = 0 then
    perform coordinator.event_partition_create(v_last.head_seq + 1);
    perform coordinator.event_partition_create(v_last.head_seq + p_limit);
  end if;

  -- Separate bounds, so that the index scan starts and ends at them in a generic plan, too: within an "or" they are only a
  -- filter, and every batch of a round would read the round from its start.
  v_after_xid := coalesce(v_last.round_xid, '0');
  v_after_id  := coalesce(v_last.round_id, 0);
  v_new_xid   := greatest(pg_snapshot_xmax(v_last.base), v_after_xid);
  v_new_id    := case when v_new_xid = v_after_xid then v_after_id else 0 end;
  v_end_xid   := coalesce(pg_snapshot_xmax(v_last.round), '18446744073709551615');
  with candidate as materialized (
    select o.* from (
      (select * from coordinator.outbox
        where xid = any (array(select pg_snapshot_xip(v_last.base))) and xid <> v_own
          and (xid, id) > (v_after_xid, v_after_id)
          and (v_last.round is null or pg_visible_in_snapshot(xid, v_last.round))
        order by xid, id limit p_limit)
      union all
      (select * from coordinator.outbox
        where (xid, id) > (v_new_xid, v_new_id) and xid < v_end_xid and xid <> v_own
          and (v_last.round is null or pg_visible_in_snapshot(xid, v_last.round))
        order by xid, id limit p_limit)
    ) o
    order by o.xid, o.id limit p_limit
  ), numbered as (
    select v_last.head_seq + row_number() over (order by xid, id) as seq, type, project, key, actor, at, xid, id,
           coordinator.event_data(data) as data
    from candidate
  ), stamped as (
    insert into coordinator.events (seq, type, project, key, actor, at, stamped_at, data)
    select seq, type, project, key, actor, at, clock_timestamp(), data from numbered
  ), notified as (
    select count(pg_notify(
      'coordinator.' || project || '.' || split_part(type, '.', 1),
      case when v_payloads = 'full' and octet_length(json) <= 7900 then json
           else json_build_object('cursor', v_epoch || '.' || seq, 'seq', seq, 'type', type, 'project', project,
                                  'pointer', true)::text end))
    from (select n.seq, n.type, n.project,
                 coordinator.event_json(v_epoch, n.seq, n.type, n.project, n.key, n.actor, n.at, n.data) as json
          from numbered n
          where p_notify and v_payloads <> 'head' and pg_notification_queue_usage() < 0.5 order by n.seq offset 0) e
  )
  select count(*)::integer, coalesce(max(seq), v_last.head_seq), coordinator.snapshot_without(pg_current_snapshot(), v_own),
         (array_agg(xid order by seq desc))[1], (array_agg(id order by seq desc))[1]
  into v_moved, v_head, v_snap, v_xid, v_id
  from numbered, notified;

  v_full := v_moved >= p_limit;
  if v_moved > 0 or v_last.round is not null then
    insert into coordinator.relay_batches (head_seq, base, round, round_xid, round_id, stamped_at)
    select v_head,
           case when v_full then v_last.base else coalesce(v_last.round, v_snap) end,
           case when v_full then coalesce(v_last.round, v_snap) end,
           case when v_full then v_xid end,
           case when v_full then v_id end,
           clock_timestamp();
  end if;
  if v_moved > 0 then
    perform setval('coordinator.relay_bell', 0) from coordinator.relay_bell where last_value <> 0; -- awake: nobody needs to ring
  end if;
  if v_moved > 0 and p_notify and pg_notification_queue_usage() < 0.9 then
    perform pg_notify('coordinator', v_epoch || '.' || v_head);
  end if;
  return query select v_moved, v_head, v_full or v_last.round is not null;
end
$$;
comment on function coordinator.relay_step(integer, boolean) is
  'Number up to p_limit events of the outbox and notify their readers; nothing is left if moved is 0 and again is false. Called by the relay; harmless for others.';

create or replace function coordinator.relay_arm(p_duration interval default '15 seconds') returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform setval('coordinator.relay_bell', (extract(epoch from clock_timestamp() + p_duration) * 1000)::bigint);
  -- Whoever read the bell before it was armed had already appended, and holds this lock to the end of its transaction.
  return not exists (
    select from pg_locks
    where locktype = 'relation' and mode = 'RowExclusiveLock' and granted and pid is distinct from pg_backend_pid()
      and database = (select oid from pg_database where datname = current_database())
      and relation = 'coordinator.outbox'::regclass);
end
$$;
comment on function coordinator.relay_arm(interval) is
  'Arm the doorbell for p_duration. True: every transaction that may have seen it unarmed is over, so after one more look at the outbox it is safe to sleep.';

create or replace function coordinator.outbox_prune(p_start bigint default 0) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id   bigint;
  v_base pg_snapshot;
begin
  select id, base into v_id, v_base from coordinator.relay_batches order by id desc limit 1;
  -- From p_start on: rows deleted before stay in the index while anyone holds a snapshot.
  delete from coordinator.outbox where xid >= p_start::text::xid8 and xid < pg_snapshot_xmin(v_base);
  delete from coordinator.relay_batches where id < v_id;
  return pg_snapshot_xmin(v_base)::text::bigint;
end
$$;
comment on function coordinator.outbox_prune(bigint) is
  'Delete from the outbox, from transaction p_start on, what is in the log; returns the transaction from which to continue.';

create or replace function coordinator.relay_identity() returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select oid from pg_database where datname = current_database())::text || '@' || (select system_identifier from pg_control_system())::text;
exception when insufficient_privilege then
  return (select oid from pg_database where datname = current_database())::text;
end
$$;
comment on function coordinator.relay_identity() is
  'Return the identity of this cluster and database. Internal.';

create or replace function coordinator.relay_recover() returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_identity text := coordinator.relay_identity();
  v_relay    coordinator.relay;
  v_moved    integer;
begin
  select * into v_relay from coordinator.relay for update;
  if v_relay.identity = v_identity then
    return false;
  elsif v_relay.identity = '' then
    update coordinator.relay set identity = v_identity;
    return false;
  end if;
  -- Restored elsewhere: the recorded snapshots mean nothing here. What the outbox holds is numbered, perhaps again, under a
  -- new epoch, so that every reader receives a reset.
  lock table coordinator.outbox in exclusive mode;
  update coordinator.relay
  set identity = v_identity, epoch = substr(md5(gen_random_uuid()::text), 1, 8);
  insert into coordinator.relay_batches (head_seq, base, stamped_at)
  select head_seq, '1:1:', clock_timestamp() from coordinator.relay_batches order by id desc limit 1;
  -- By id alone: transactions of another cluster may appear to be in this one's future, which no snapshot sees.
  update coordinator.outbox set xid = '3';
  loop
    select moved into v_moved from coordinator.relay_step(10000, false);
    exit when v_moved = 0;
  end loop;
  delete from coordinator.outbox;
  insert into coordinator.relay_batches (head_seq, base, stamped_at)
  select head_seq, pg_current_snapshot(), clock_timestamp() from coordinator.relay_batches order by id desc limit 1;
  return true;
end
$$;
comment on function coordinator.relay_recover() is
  'Begin a new epoch if this database was restored from a dump elsewhere; true if so. Called by a relay that starts.';

create or replace function coordinator.event_prune(p_retention interval default '7 days', p_limit integer default 2000)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_cutoff    timestamptz := coordinator.now_utc() - p_retention;
  v_floor     bigint;
  v_head      bigint;
  v_new       bigint;
  v_partition record;
begin
  perform coordinator.check_ttl(p_retention);
  perform coordinator.check_page(p_limit);
  -- Before any lock on the log, as relay_step does.
  select floor_seq into v_floor from coordinator.relay for update;
  select head_seq into v_head from coordinator.relay_batches order by id desc limit 1;
  -- Whole partitions first, without deleting rows; never the partition that is being written.
  for v_partition in
    select c.oid::regclass as name, (substring(c.relname from '\d+$')::bigint + 1) * 1000000 - 1 as last_seq
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'coordinator.events'::regclass
    order by 2
  loop
    exit when v_partition.last_seq >= v_head
      or (select stamped_at >= v_cutoff from coordinator.events where seq = v_partition.last_seq);
    begin
      -- Without waiting: a queue behind this lock would stop every reader.
      execute 'lock table coordinator.events, ' || v_partition.name || ' in access exclusive mode nowait';
    exception when lock_not_available then
      exit;
    end;
    update coordinator.relay set floor_seq = v_partition.last_seq where floor_seq < v_partition.last_seq;
    execute 'drop table ' || v_partition.name;
    return (v_partition.last_seq - v_floor)::integer;
  end loop;
  -- Then the oldest events of the oldest partition.
  select max(seq) into v_new from (
    select seq, stamped_at from coordinator.events where seq > v_floor and seq <= v_floor + p_limit) e
  where stamped_at < v_cutoff;
  if v_new is null then
    return 0;
  end if;
  delete from coordinator.events where seq > v_floor and seq <= v_new;
  update coordinator.relay set floor_seq = v_new;
  return (v_new - v_floor)::integer;
end
$$;
comment on function coordinator.event_prune(interval, integer) is
  'Prune events that were numbered more than p_retention ago: a whole partition, or up to p_limit rows. Returns how many; repeat until 0.';
