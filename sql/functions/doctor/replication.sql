-- Checks of standbys, replication slots and the WAL archive.

insert into coordinator.checks (name, warning, critical, unit, meaning) values
  ('standbys', 60, 600, 'seconds', 'Replay lag of standbys, and whether a synchronous standby is connected.'),
  ('slots', 1e9, 1e10, 'bytes', 'WAL retained by replication slots.'),
  ('archive', null, null, '', 'Whether WAL archiving works.');

create or replace function coordinator.doctor_standbys(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_age double precision;
  v_any boolean := false;
  v_row record;
begin
  if pg_is_in_recovery() then
    v_age := case when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() then 0
                  else extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()) end;
    return query values (
      case when v_age is null then 'unknown' else coordinator.doctor_grade(v_age, p_warning, p_critical) end,
      format('This server is a standby: it accepts no writes. Its lag is %s%s.', coalesce(coordinator.doctor_age(v_age), 'unknown'),
             case when pg_is_wal_replay_paused() then ', and its replay is paused' end),
      case when pg_is_wal_replay_paused() then 'select pg_wal_replay_resume()'
           when v_age >= p_warning then 'Check its disk, its connection, and queries on it that delay replay (max_standby_streaming_delay).' end);
    return;
  end if;
  if current_setting('synchronous_standby_names') <> '' and not exists (select from pg_stat_replication s where s.sync_state in ('sync', 'quorum')) then
    v_any := true;
    return query values (
      'critical', format('No synchronous standby (%s) is connected: every commit waits.', current_setting('synchronous_standby_names')),
      'Restart the standby, or stop waiting for it: alter system set synchronous_standby_names = ''''; select pg_reload_conf()');
  end if;
  for v_row in
    select s.application_name, s.state, s.sync_state, coalesce(extract(epoch from s.replay_lag), 0)::double precision as age,
           pg_wal_lsn_diff(pg_current_wal_lsn(), s.replay_lsn) as bytes
    from pg_stat_replication s order by s.replay_lag desc nulls last limit 20
  loop
    v_any := true;
    return query values (
      case when v_row.state is null then 'unknown' else coordinator.doctor_grade(v_row.age, p_warning, p_critical) end,
      case when v_row.state is null then format('Standby "%s" is connected. The owner of the schema cannot see its lag.', v_row.application_name)
           else format('Standby "%s" (%s, %s) lags by %s: %s.', v_row.application_name, v_row.state, v_row.sync_state, coordinator.doctor_age(v_row.age),
                       coalesce(pg_size_pretty(v_row.bytes), 'by an unknown amount')) end,
      case when v_row.state is null then format('As a superuser: grant pg_monitor to %I', current_user)
           when v_row.age >= p_warning
           then 'Check its disk, its connection, and queries on it that delay replay (max_standby_streaming_delay).' end);
  end loop;
  if not v_any then
    return query values ('ok', 'No standby is connected, and none is required.', null);
  end if;
end
$$;
comment on function coordinator.doctor_standbys(double precision, double precision) is
  'Measure the replay lag of the standbys, or of this one. Internal.';

create or replace function coordinator.doctor_slots(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with kept as (
    select s.slot_name, s.slot_type, s.active, s.wal_status,
           pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, s.restart_lsn)::double precision as bytes
    from pg_replication_slots s),
  wrong as (
    select k.* from kept k where k.bytes >= p_warning or k.wal_status in ('unreserved', 'lost') order by k.bytes desc nulls last limit 10)
  select case when w.wal_status = 'lost' then 'critical'
              when w.wal_status = 'unreserved' and w.bytes < p_critical then 'warning'
              else coordinator.doctor_grade(w.bytes, p_warning, p_critical) end,
         format('Replication slot "%s" (%s, %s) %s.', w.slot_name, w.slot_type, case when w.active then 'active' else 'inactive' end,
                case when w.wal_status = 'lost' then 'has lost WAL that its consumer needs' else 'retains ' || pg_size_pretty(w.bytes::bigint) || ' of WAL' end
                || case when w.wal_status = 'unreserved' then ', which the next checkpoint may remove' else '' end),
         case when w.wal_status = 'lost' then format('Drop the slot, and create its consumer again: select pg_drop_replication_slot(%L)', w.slot_name)
              else format('Restart its consumer, or drop the slot: select pg_drop_replication_slot(%L). max_slot_wal_keep_size limits the WAL that slots retain.', w.slot_name) end
  from wrong w
  union all
  select 'ok', format('Replication slots: %s; the largest retains %s of WAL.', count(*), pg_size_pretty(coalesce(max(k.bytes), 0)::bigint)), null
  from kept k having not exists (select from wrong)
$$;
comment on function coordinator.doctor_slots(double precision, double precision) is
  'List the ten replication slots that retain the most WAL. Internal.';

create or replace function coordinator.doctor_archive(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case when current_setting('archive_mode') = 'off' or a.last_failed_time is null or a.last_failed_time < a.last_archived_time then 'ok' else 'critical' end,
         case when current_setting('archive_mode') = 'off' then 'WAL archiving is off: point-in-time recovery is not possible.'
              when a.last_failed_time >= coalesce(a.last_archived_time, '-infinity')
              then format('WAL archiving has failed since %s (%s): the server retains WAL until the disk is full.', to_char(a.last_failed_time, 'YYYY-MM-DD HH24:MI:SS TZ'), a.last_failed_wal)
              when a.last_archived_time is null then 'There was no WAL to archive yet.'
              else format('WAL was last archived at %s.', to_char(a.last_archived_time, 'YYYY-MM-DD HH24:MI:SS TZ')) end,
         case when current_setting('archive_mode') <> 'off' and a.last_failed_time >= coalesce(a.last_archived_time, '-infinity')
              then 'The server log has the error. Run archive_command by hand to test it.' end
  from pg_stat_archiver a
$$;
comment on function coordinator.doctor_archive(double precision, double precision) is
  'Check whether WAL reaches the archive. Internal.';

insert into coordinator.checks (name, warning, critical, unit, meaning) values
  ('backup', 93600, 259200, 'seconds', 'Age of the last good backup, whether a backup was verified within 8 days, and whether the newest backup or its verification failed.');

create or replace function coordinator.doctor_backup(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with last as (
    select b.*, extract(epoch from b.age)::double precision as seconds from coordinator.backup_last() b),
  findings (severity, message, remedy) as (
    select 'warning', 'There is no good backup.', 'Run "coordinator backup create" every day, or record the backups of another tool with backup_record; see docs/backup.md.'
    from last l where l.backup is null
    union all
    select coordinator.doctor_grade(l.seconds, p_warning, p_critical),
           format('The last good backup, "%s", is %s old; %s.', l.backup, coordinator.doctor_age(l.seconds),
                  case when l.verified_at is null then 'no backup was ever verified'
                       else 'a backup was last verified ' || coordinator.doctor_age(coordinator.metric_age(l.verified_at)) || ' ago' end),
           case when l.seconds >= p_warning then 'Find out why there is no newer backup; see "coordinator backup list".' end
    from last l where l.backup is not null
    union all
    select 'warning', 'No backup was verified by a restore within 8 days.', 'Run "coordinator backup verify" every week.'
    from coordinator.backup_sample(null) s where s.name = 'coordinator_backup_verified_age_seconds' and s.value > 691200
    union all
    select 'critical', format('Backup "%s" failed: %s', l.failed_backup, l.error), 'Fix the cause, then run "coordinator backup create" or "coordinator backup verify" again.'
    from last l where l.failed_backup is not null)
  select f.severity, f.message, f.remedy from findings f
$$;
comment on function coordinator.doctor_backup(double precision, double precision) is
  'Check the age of the last good backup. Internal.';
