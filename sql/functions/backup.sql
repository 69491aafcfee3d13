-- Backups: which ones were made, verified and restored, so that monitoring can show the age of the last good one.
--
-- A backup is good if it is complete and no verification has failed. "coordinator backup" records its own backups; other programs can
-- call backup_record after a backup. The rows are only for metrics, alerts and people; no function depends on them.

insert into coordinator.event_types (type, key, data, meaning) values
  ('backup.created',  'name of the backup', '{tool,bytes}', 'A backup was completed. The project of all backup events is "default".'),
  ('backup.failed',   'name of the backup', '{tool,error}', 'A backup failed.'),
  ('backup.verified', 'name of the backup', '{error}',      'A backup was restored and compared; error: the difference, or null.'),
  ('backup.restored', 'name of the backup', '{}',           'This database was restored from a backup.');

insert into coordinator.rights (function, role) values
  ('backup_last',     'reader'),
  ('backup_list',     'manager'),
  ('backup_record',   'admin'),
  ('backup_restored', 'admin'),
  ('backup_verified', 'admin');

insert into coordinator.limits (name, value, unit, meaning) values
  ('backup_name',  200,  'characters', 'Name of a backup or of the program that made it.'),
  ('backup_error', 2000, 'characters', 'Error of a failed backup or verification.');

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_backup_age_seconds', 'backup_sample', 'gauge', '{}', 'seconds', 'Time since the last good backup began; without one, age of the schema.'),
  ('coordinator_backup_verified_age_seconds', 'backup_sample', 'gauge', '{}', 'seconds', 'Time since a backup was last restored, compared and found good; without one, age of the schema.'),
  ('coordinator_backup_failed', 'backup_sample', 'gauge', '{}', '', '1 if the newest backup or the newest verification failed, otherwise 0.');

create or replace function coordinator.backup_note(p_backup text, p_type text, p_actor text, p_data jsonb) returns setof coordinator.backups
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from coordinator.backups b
  where b.backup in (select o.backup from coordinator.backups o where o.backup <> p_backup order by o.started_at desc, o.backup desc offset 999);
  perform coordinator.event_append(p_type, 'default', p_backup, coordinator.actor_name(p_actor), coordinator.now_utc(), p_data);
  return query select * from coordinator.backups b where b.backup = p_backup;
end
$$;
comment on function coordinator.backup_note(text, text, text, jsonb) is
  'Delete the oldest records beyond 1,000 backups, emit an event for a backup, and return it. Internal.';

create or replace function coordinator.backup_record(
  p_backup text, p_tool text default 'dump', p_started_at timestamptz default null, p_bytes bigint default null, p_error text default null,
  p_actor text default null) returns setof coordinator.backups
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.everywhere_check();
  perform coordinator.check_name('the backup', p_backup, 200);
  perform coordinator.check_name('the tool', p_tool, 200);
  if p_error is not null then
    perform coordinator.check_text('the error', p_error, 2000);
  end if;
  if p_bytes < 0 then
    raise exception using errcode = 'ZC104', message = format('invalid size %s', p_bytes), hint = 'Give the number of bytes, or omit it.';
  end if;
  if not coalesce(p_started_at, coordinator.now_utc()) between timestamptz '2000-01-01 00:00:00Z' and coordinator.now_utc() + interval '1 hour' then
    raise exception using errcode = 'ZC104', message = 'the backup began in the future, or before the year 2000', hint = 'Give the instant at which it began.';
  end if;
  insert into coordinator.backups as b (backup, tool, started_at, ended_at, bytes, error)
  values (p_backup, p_tool, coalesce(p_started_at, coordinator.now_utc()), coordinator.now_utc(), p_bytes, p_error)
  on conflict (backup) do update
  set tool = excluded.tool, started_at = excluded.started_at, ended_at = excluded.ended_at, bytes = excluded.bytes, error = excluded.error;
  return query
    select * from coordinator.backup_note(
      p_backup, case when p_error is null then 'backup.created' else 'backup.failed' end, p_actor,
      jsonb_build_object('tool', p_tool) || case when p_error is null then jsonb_build_object('bytes', p_bytes) else jsonb_build_object('error', p_error) end);
end
$$;
comment on function coordinator.backup_record(text, text, timestamptz, bigint, text, text) is
  'Record that a backup of this database was completed or, with p_error, that it failed. p_started_at: the backup contains everything committed before this time. Idempotent: a call with the same name replaces the earlier record.';

create or replace function coordinator.backup_verified(p_backup text, p_error text default null, p_actor text default null)
returns setof coordinator.backups
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.everywhere_check();
  perform coordinator.check_name('the backup', p_backup, 200);
  if p_error is not null then
    perform coordinator.check_text('the error', p_error, 2000);
  end if;
  update coordinator.backups b set verified_at = coordinator.now_utc(), verify_error = p_error where b.backup = p_backup;
  if not found then
    raise exception using errcode = 'ZC224', message = format('there is no backup "%s" of this database', p_backup), hint = 'Record it first: backup_record.';
  end if;
  return query select * from coordinator.backup_note(p_backup, 'backup.verified', p_actor, jsonb_build_object('error', p_error));
end
$$;
comment on function coordinator.backup_verified(text, text, text) is
  'Record that a backup was restored elsewhere and compared; p_error: the difference, or why it could not be restored. ZC224: the backup is not recorded.';

create or replace function coordinator.backup_restored(p_backup text, p_actor text default null) returns setof coordinator.backups
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.everywhere_check();
  perform coordinator.check_name('the backup', p_backup, 200);
  update coordinator.backups b set restored_at = coordinator.now_utc() where b.backup = p_backup;
  if not found then
    raise exception using errcode = 'ZC224', message = format('there is no backup "%s" of this database', p_backup), hint = 'Record it first: backup_record.';
  end if;
  return query select * from coordinator.backup_note(p_backup, 'backup.restored', p_actor, '{}');
end
$$;
comment on function coordinator.backup_restored(text, text) is
  'Record that this database was restored from a backup. ZC224: the backup is not recorded.';

create or replace function coordinator.backup_list(p_limit integer default 1000) returns setof coordinator.backups
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.everywhere_check();
  perform coordinator.check_page(p_limit);
  return query select * from coordinator.backups b order by b.started_at desc, b.backup desc limit p_limit;
end
$$;
comment on function coordinator.backup_list(integer) is
  'List the recorded backups, including failed ones, newest first.';

create or replace function coordinator.backup_last()
returns table (backup text, tool text, started_at timestamptz, age interval, verified_backup text, verified_at timestamptz, failed_backup text,
               failed_at timestamptz, error text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select g.backup, g.tool, g.started_at, coordinator.now_utc() - g.started_at, v.backup, v.verified_at, f.backup, f.at, f.error
    from (select) one
    left join lateral (
      select * from coordinator.backups b where b.error is null and b.verify_error is null order by b.started_at desc limit 1) g on true
    left join lateral (
      select * from coordinator.backups b where b.verified_at is not null and b.verify_error is null order by b.verified_at desc limit 1) v on true
    left join lateral (
      select n.backup, n.at, n.error
      from (select t.backup, t.at, t.error
            from (select b.backup, b.ended_at as at, b.error from coordinator.backups b order by b.ended_at desc limit 1) t
            union all
            select t.backup, t.at, t.error
            from (select b.backup, b.verified_at as at, b.verify_error as error from coordinator.backups b where b.verified_at is not null
                  order by b.verified_at desc limit 1) t) n
      where n.error is not null order by n.at desc limit 1) f on true;
end
$$;
comment on function coordinator.backup_last() is
  'Return one row with the last good backup and its age, the last successfully verified backup, and the error if the newest backup or verification failed. Values are null if there is none.';

create or replace function coordinator.backup_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select m.name, '{}'::text[], m.value
    from coordinator.backup_last() l
    cross join (select min(s.applied_at) as at from coordinator.schema_files s) made
    cross join lateral (values
      ('coordinator_backup_age_seconds', coordinator.metric_age(coalesce(l.started_at, made.at))),
      ('coordinator_backup_verified_age_seconds', coordinator.metric_age(coalesce(l.verified_at, made.at))),
      ('coordinator_backup_failed', (l.error is not null)::integer::double precision)) m (name, value);
end
$$;
comment on function coordinator.backup_sample(timestamptz) is
  'Sample the metrics of backups. Internal.';
