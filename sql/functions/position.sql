-- Positions: what a writer passes to a reader, so that the reader waits until the state or log that it reads includes the write.
--
-- A write cannot return a cursor, because its events get their numbers later. Its position is the epoch and the id of its transaction:
-- "3f9c01aa.x7311". It stands for this transaction, and so for all that committed before it began.
--
-- What includes a position. The state includes a transaction that has committed, in every snapshot taken since then: on the primary
-- immediately, on a standby once it is replayed. The log includes it once its events have numbers. For nearly all transactions, the
-- snapshot of the newest chunk shows this. A transaction that it does not show may have no events, and then there is nothing to wait
-- for.
--
-- A position of an earlier epoch is included if the current log shares its events. If its transaction has no event in the log, this
-- cannot be decided: the id may have been assigned again since then. For a position of a later epoch, this server is behind.
--
-- Nothing waits in SQL, since a blocked statement would hold a snapshot: the interfaces call again after the relay has notified.

insert into coordinator.rights (function, role) values
  ('event_epoch',       'reader'), -- for position_now
  ('position_now',      'reader'),
  ('position_included', 'reader');

-- Part of every write through an interface, so it is inlined: as a security definer function, it would take 13 instead of 6 µs. So it
-- does the same as epoch_id, but only with functions that every role may call. A role that may not read the sequence calls event_epoch.
create or replace function coordinator.position_now() returns text
language sql volatile
return case when pg_current_xact_id_if_assigned() is not null then
  coalesce(case when has_sequence_privilege('coordinator.epoch_mark'::regclass, 'select') and has_sequence_privilege('coordinator.epoch_begun'::regclass, 'select')
                 and pg_sequence_last_value('coordinator.epoch_mark'::regclass) & 4294967295
                     = hashtextextended(pg_relation_filepath('coordinator.relay'::regclass),
                                        ((date_part('epoch', pg_postmaster_start_time())
                                          + date_part('epoch', pg_stat_get_bgwriter_stat_reset_time())) * 1000000)::bigint) & 4294967295
                then to_hex(pg_sequence_last_value('coordinator.epoch_begun'::regclass)) end,
           coordinator.event_epoch()) || '.x' || pg_current_xact_id_if_assigned() end;
comment on function coordinator.position_now() is
  'Return the position of this transaction, for position_included; null until the transaction has changed something. The position is valid after the commit.';

create or replace function coordinator.position_included(p_position text, p_in_log boolean default true) returns boolean
language plpgsql volatile security definer -- volatile, so that each statement sees what was committed before it
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the log is small must also serve a large one
set jit = off -- before PostgreSQL 18, a small table without an index then looks expensive enough for JIT
as $$
declare
  v_positions text[];
  v_one       text;
  v_epoch     text; -- the current one
  v_log       text; -- the epoch of the log: the relay begins the current one with its next step
  v_of        text;
  v_seq       bigint;
  v_xid       xid8;
  v_status    text;
  v_last      coordinator.event_chunks;
  v_top       bigint;
begin
  perform coordinator.check_isolation('positions are compared');
  if coalesce(p_position, '') !~ '^[0-9a-z]{1,16}\.x?[0-9]{1,18}(,[0-9a-z]{1,16}\.x?[0-9]{1,18})*$' then
    raise exception using errcode = 'ZC103', message = format('invalid position "%s"', left(p_position, 100)),
      hint = 'Give the position that a write returned, a cursor, or several of them separated by commas.';
  end if;
  v_positions := string_to_array(p_position, ',');
  perform coordinator.check_list('the positions', v_positions);
  select epoch into v_log from coordinator.relay;
  v_epoch := case when pg_is_in_recovery() then v_log else coalesce(coordinator.epoch_id(), coordinator.event_epoch()) end;
  foreach v_one in array v_positions loop
    v_of := split_part(v_one, '.', 1);
    v_seq := case when split_part(v_one, '.', 2) !~ 'x' then split_part(v_one, '.', 2)::bigint end; -- for a cursor
    v_xid := case when v_seq is null then substr(split_part(v_one, '.', 2), 2)::xid8 end;
    if v_of = v_epoch then
      null;
    elsif v_of = v_log or (pg_is_in_recovery() and coordinator.event_end(v_of) is null) then
      return false; -- the relay has not begun the current epoch, or this standby has not received it
    elsif v_seq <= coordinator.event_end(v_of)
          or exists (select from coordinator.events l join coordinator.event_chunks c on l.id between c.first_id and c.last_id and l.xid = any (c.xids)
                     where l.xid = v_xid and c.last_seq <= coordinator.event_end(v_of)) then
      continue;
    else
      perform coordinator.check_epoch(v_one);
      raise exception using errcode = 'ZC317', message = format('the position "%s" is of an earlier epoch, and may be lost', v_one),
        hint = 'The database was restarted or restored since. Read the state again, and decide again.';
    end if;
    if v_seq > (select last_seq from coordinator.event_chunks order by first_seq desc limit 1) then
      return false;
    end if;
    continue when v_seq is not null;
    if v_xid >= pg_snapshot_xmax(pg_current_snapshot()) then -- PostgreSQL may not know the status of such a transaction
      return false;
    end if;
    v_status := pg_xact_status(v_xid); -- null: it ended long ago
    if v_status = 'in progress' then
      return false;
    elsif v_status = 'aborted' then
      raise exception using errcode = 'ZC317', message = format('the transaction of position "%s" was rolled back', v_one),
        hint = 'Read the state again, and decide again.';
    elsif p_in_log then
      if v_log <> v_epoch then
        return false;
      end if;
      select * into v_last from coordinator.event_chunks order by first_seq desc limit 1;
      select last_value into v_top from coordinator.event_ids;
      if not pg_visible_in_snapshot(v_xid, v_last.base)
         and exists (select from coordinator.events l
                     where l.xid = v_xid and l.id > coalesce(coordinator.event_id_before(v_xid), 0) and l.id <= v_top) then
        return false;
      end if;
    end if;
  end loop;
  return true;
end
$$;
comment on function coordinator.position_included(text, boolean) is
  'Return whether reads from now on include a position that a write returned, or a cursor, or each of several, separated by commas: in the state and, with p_in_log, also in the log. False: ask again after the next notification on channel coordinator. ZC317: they never will, because the transaction was rolled back or may be lost. ZC710: this server is behind, and another server has succeeded it.';
