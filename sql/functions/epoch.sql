-- Epochs: how one history of the database is distinguished from another.
--
-- If a standby that lagged behind is promoted, a copy is started, or a point in time is restored, the database continues from an
-- earlier state, and values that were issued after that state are issued again. So each run of a server on each copy of a database is
-- an epoch of its own. Fencing tokens, tickets and versions of an epoch exceed those of all earlier ones. A cursor names its epoch, and
-- the table epochs says up to which position the current log shares the events of an earlier epoch.
--
-- Detection. epoch_mark holds a hash of the server's start time, of the start of its statistics, and of the file of the table relay,
-- whose name contains the ids of database and table. Each time a number is issued, and in each step of the relay, the current hash is
-- compared with it, which takes 0.3 µs.
--   promotion, point-in-time restore, snapshot of a volume, cold copy, pg_upgrade: another start time
--   crash, which may lose asynchronous commits without a new start time: recovery discards the statistics (a manual reset of those of
--   the background writer also begins an epoch, which does no harm)
--   dump and restore, copy of a database (create database … template): another file
-- A virtual machine that resumes with its memory cannot be detected.
--
-- Numbers. The first number of an epoch is greater than the last known one, and greater than the microseconds since 2026: a hybrid
-- logical clock (Kulkarni et al., 2014). The numbers of a lost history are smaller if it issued fewer than a million per second, and if
-- the clock of the new server is not behind the start of the old one. 2^53 is reached after 285 years.
--
-- Ids. The id of an epoch is the time at which it began, in milliseconds since 2026 (later than all epochs that the database knows),
-- followed by 20 random bits. So epochs have an order. If a server receives a cursor of a later epoch than its own, it has not reached
-- that epoch: it is a standby, or a former primary that has not noticed its successor. A cursor of an earlier epoch that the log does
-- not know belongs to a lost history. The clock decides between the two cases, as it does for numbers.
--
-- All of this is stored in sequences, since their values are set and read outside of transactions: an epoch begins for all sessions at
-- once, whatever their snapshots, and it neither waits for nor depends on the transaction that began it.
-- snapshot they have, and nothing waits for the transaction that began it or is undone with it.

create or replace function coordinator.epoch_hash() returns bigint
language sql stable
return hashtextextended(pg_relation_filepath('coordinator.relay'::regclass),
                        ((date_part('epoch', pg_postmaster_start_time())
                          + date_part('epoch', pg_stat_get_bgwriter_stat_reset_time())) * 1000000)::bigint) & 4294967295;
comment on function coordinator.epoch_hash() is
  'Return a hash of 32 bits of the run of this server, from its start or its last crash, and of this database. Internal.';

-- Inlined, like epoch_number, so without a search_path.
create or replace function coordinator.epoch_holds() returns boolean
language sql volatile
return pg_sequence_last_value('coordinator.epoch_mark'::regclass) & 4294967295 = coordinator.epoch_hash();
comment on function coordinator.epoch_holds() is
  'Return whether the epoch of epoch_mark is that of this server and database; null if there is none. Internal.';

create or replace function coordinator.epoch_id() returns text
language sql volatile
return case when coordinator.epoch_holds()
            then coalesce(to_hex(pg_sequence_last_value('coordinator.epoch_begun'::regclass)), -- null: the epoch began before there were such ids
                          lpad(to_hex(pg_sequence_last_value('coordinator.epoch_mark'::regclass) >> 32 & 4294967295), 8, '0')) end;
comment on function coordinator.epoch_id() is
  'Return the id of the current epoch; null if none has begun on this server and in this database. Internal.';

create or replace function coordinator.epoch_place(p_at timestamptz) returns bigint
language sql stable parallel safe
return (extract(epoch from p_at - timestamptz '2026-01-01 00:00:00Z') * 1000)::bigint << 20;
comment on function coordinator.epoch_place(timestamptz) is
  'Return the position, in the order of epochs, of an epoch that begins at an instant. Internal.';

create or replace function coordinator.epoch_order(p_epoch text) returns bigint
language sql immutable parallel safe
return case when p_epoch ~ '^[0-9a-f]{9,16}$' then ('x' || lpad(p_epoch, 16, '0'))::bit(64)::bigint else 0 end;
comment on function coordinator.epoch_order(text) is
  'Return the position of an epoch in the order in which epochs began; 0: its id is older than this order. Internal.';

create or replace function coordinator.epoch_name() returns bigint
language sql volatile
return greatest(coordinator.epoch_place(clock_timestamp()),
                ((coalesce(pg_sequence_last_value('coordinator.epoch_begun'::regclass), 0) >> 20) + 1) << 20)
       | ('x' || substr(md5(gen_random_uuid()::text), 1, 5))::bit(20)::bigint;
comment on function coordinator.epoch_name() is
  'Generate the id of an epoch that begins now, later than all epochs that the database knows. Internal.';

create or replace function coordinator.epoch_begin() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
  v_clock    bigint := extract(epoch from clock_timestamp() - timestamptz '2026-01-01 00:00:00Z') * 1000000;
  v_sequence regclass;
begin
  begin
    lock table coordinator.epochs in share row exclusive mode; -- other sessions may begin an epoch at the same time
    if coordinator.epoch_holds() is not true then
      foreach v_sequence in array '{coordinator.lock_tokens,coordinator.lock_tickets,coordinator.signal_versions,coordinator.job_fences}'::regclass[] loop
        perform setval(v_sequence, greatest(coalesce(pg_sequence_last_value(v_sequence), 0) + 1, v_clock));
      end loop;
      perform setval('coordinator.epoch_begun', coordinator.epoch_name());
      -- Last, so that a session that is killed before this has not begun an epoch.
      perform setval('coordinator.epoch_mark',
        ('x' || substr(md5(gen_random_uuid()::text), 1, 8))::bit(32)::bigint << 32 | coordinator.epoch_hash());
    end if;
    raise exception 'begun'; -- to release the lock; sequences keep their values
  exception when raise_exception then
    null;
  end;
end
$$;
comment on function coordinator.epoch_begin() is
  'Begin an epoch, unless the current one still holds: raise the sequences that issue numbers, then generate an id. Internal.';

create or replace function coordinator.epoch_first_number(p_sequence regclass) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.epoch_begin();
  return nextval(p_sequence);
end
$$;
comment on function coordinator.epoch_first_number(regclass) is
  'Begin an epoch, and return the next number of a sequence. Internal.';

create or replace function coordinator.epoch_number(p_sequence regclass) returns bigint
language sql volatile
return case when coordinator.epoch_holds() then nextval(p_sequence) else coordinator.epoch_first_number(p_sequence) end;
comment on function coordinator.epoch_number(regclass) is
  'Return the next number of a sequence, greater than those of all earlier epochs. Internal: fencing tokens, tickets and versions.';

create or replace function coordinator.epoch_first_stamp() returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.epoch_begin();
  return (pg_sequence_last_value('coordinator.epoch_mark'::regclass) >> 32)::integer;
end
$$;
comment on function coordinator.epoch_first_stamp() is
  'Begin an epoch, and return its id as 32 bits. Internal.';

-- The stamp of rows: the id as 32 bits. Inlined.
create or replace function coordinator.epoch_stamp() returns integer
language sql volatile
return case when coordinator.epoch_holds() then (pg_sequence_last_value('coordinator.epoch_mark'::regclass) >> 32)::integer
            else coordinator.epoch_first_stamp() end;
comment on function coordinator.epoch_stamp() is
  'Return the id of the current epoch as 32 bits; begin one if there is none. Internal: numbers without gaps can be issued again after a restore, so each is stored with its epoch.';

create or replace function coordinator.epoch_text(p_stamp integer) returns text
language sql immutable parallel safe
return lpad(to_hex(p_stamp), 8, '0');
comment on function coordinator.epoch_text(integer) is
  'Format a stamp of epoch_stamp as the id of the epoch. Internal.';

create or replace function coordinator.epoch_given(p_epoch text) returns integer
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_epoch !~ '^[0-9a-f]{8}$' then
    raise exception using errcode = 'ZC103', message = format('invalid epoch "%s"', left(p_epoch, 200)),
      hint = 'Give the epoch of the row that was read: eight hexadecimal digits.';
  end if;
  return ('x' || p_epoch)::bit(32)::integer;
end
$$;
comment on function coordinator.epoch_given(text) is
  'Parse the id of an epoch given by a caller, as 32 bits; null if none is given. ZC103: it is malformed. Internal.';

create or replace function coordinator.event_epoch() returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_is_in_recovery() or current_setting('transaction_read_only')::boolean then
    return (select epoch from coordinator.relay); -- this server cannot begin an epoch
  elsif coordinator.epoch_id() is null then
    perform coordinator.epoch_begin();
  end if;
  return coordinator.epoch_id();
end
$$;
comment on function coordinator.event_epoch() is
  'Return the id of the epoch in which this transaction writes; begin one on another run of the server or in another database. A transaction that cannot write gets the epoch of the log.';

-- For programs that open connections, so that they do not use a server that is behind.
insert into coordinator.rights (function, role) values
  ('epoch_later', 'reader');

create or replace function coordinator.epoch_later(p_epoch text) returns boolean
language plpgsql volatile security definer -- volatile, because it reads outside of the caller's snapshot
set search_path = pg_catalog, pg_temp
as $$
declare
  v_log text := (select epoch from coordinator.relay);
begin
  return p_epoch is distinct from v_log and coordinator.epoch_order(p_epoch) > case
    when pg_is_in_recovery()        then coordinator.epoch_order(v_log)
    when coordinator.epoch_holds()  then coordinator.epoch_order(coordinator.epoch_id())
    else coordinator.epoch_place(clock_timestamp()) -- this run of the server will begin its epoch with its first number
  end;
end
$$;
comment on function coordinator.epoch_later(text) is
  'Return whether an epoch began later than that of this server. Then the server is behind: it is a standby, or a primary that was succeeded by another server and has not noticed. What it returns may be outdated.';

create or replace function coordinator.check_epoch(p_cursor text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if coordinator.epoch_later(split_part(p_cursor, '.', 1)) then
    perform coordinator.refuse_behind(p_cursor);
  end if;
end
$$;
comment on function coordinator.check_epoch(text) is
  'Refuse a cursor or position of a later epoch than that of this server (ZC710). Internal.';

create or replace function coordinator.refuse_behind(p_cursor text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'ZC710', message = format('this server has not reached "%s"', p_cursor),
    hint = 'It is a standby, or a former primary. Nothing was lost: keep the cursor, and try again at the current primary.';
end
$$;
comment on function coordinator.refuse_behind(text) is
  'Refuse a cursor or position that this server has not reached yet (ZC710). Internal.';
