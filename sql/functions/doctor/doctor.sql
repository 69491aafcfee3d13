-- The doctor: what is wrong with the database, and how to fix it. A check is a row of the table checks and a function
-- doctor_<name>(p_warning, p_critical) that returns findings. It returns at least one finding, so that a check that did not run is not
-- mistaken for a healthy result. The files of this folder contain the checks by subject, each row beside its function. "coordinator
-- doctor" adds what only a client can see: the connection, a pooler, the clock of its own host, its own schema files.
--
-- Where possible, a check reads the same data as the metrics. It changes nothing, waits at most 100 ms for a lock, and runs on a
-- standby as well. If a check fails, this is a finding of its own (unknown) and does not affect other checks. The client runs one check
-- per call, each with a time limit.
--
-- If the owner of the schema cannot see something, a finding says so (visibility). Texts of statements are shown without their
-- literals, and only to roles to which PostgreSQL itself shows them.

insert into coordinator.rights (function, role) values
  ('doctor_run', 'reader');

create or replace function coordinator.doctor_examine(p_checks text[])
returns table ("check" text, severity text, message text, remedy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
set jit = off
as $$
declare
  v_check coordinator.checks;
  v_text  text;
  v_hint  text;
begin
  select u.name into v_text from unnest(p_checks) u (name) where not exists (select from coordinator.checks c where c.name = u.name) limit 1;
  if v_text is not null then
    raise exception using errcode = 'ZC105', message = format('unknown check "%s"', left(v_text, 200)),
      hint = 'See: select name, meaning from coordinator.checks';
  end if;
  for v_check in select * from coordinator.checks c where p_checks is null or c.name = any (p_checks) order by c.ordinal loop
    begin
      return query execute format('select $1, severity, message, remedy from coordinator.%I($2, $3)', 'doctor_' || v_check.name)
        using v_check.name::text, v_check.warning, v_check.critical;
    exception when others then
      get stacked diagnostics v_text = message_text, v_hint = pg_exception_hint;
      return query values (v_check.name::text, 'unknown', format('The check failed: %s.', v_text), nullif(v_hint, ''));
    end;
  end loop;
end
$$;
comment on function coordinator.doctor_examine(text[]) is
  'Examine the database: all checks, or these. Internal.';

create or replace function coordinator.doctor_run(p_checks text[] default null)
returns table ("check" text, severity text, message text, remedy text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.everywhere_check();
  return query select * from coordinator.doctor_examine(p_checks);
end
$$;
comment on function coordinator.doctor_run(text[]) is
  'Run all checks (see the table checks), or only these. severity: ok, warning, critical, or unknown if the check failed. remedy: what to do; null: nothing. Changes nothing.';

create or replace function coordinator.doctor_fix(p_check text) returns text[]
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
  v_done text[];
begin
  if not exists (select from coordinator.checks where name = p_check and fix is not null) then
    raise exception using errcode = 'ZC105', message = format('check "%s" has no automatic fix', left(p_check, 200)),
      hint = (select 'Use one of ' || string_agg(name, ', ' order by ordinal) || '.' from coordinator.checks where fix is not null);
  end if;
  execute format('select array(select coordinator.%I())', 'doctor_fix_' || p_check) into v_done;
  return v_done;
end
$$;
comment on function coordinator.doctor_fix(text) is
  'Fix the findings of a check if that is safe (see fix in the table checks); return what was done. For administrators.';

create or replace function coordinator.doctor_grade(p_value double precision, p_warning double precision, p_critical double precision) returns text
language sql immutable parallel safe
return case when p_critical < p_warning and p_value <= p_critical or p_critical >= p_warning and p_value >= p_critical then 'critical'
            when p_critical < p_warning and p_value <= p_warning or p_critical >= p_warning and p_value >= p_warning then 'warning'
            else 'ok' end;
comment on function coordinator.doctor_grade(double precision, double precision, double precision) is
  'Return the severity of a value by the thresholds of its check. Internal.';

create or replace function coordinator.doctor_age(p_seconds double precision) returns text
language sql immutable parallel safe
return coordinator.duration_text(make_interval(secs => case
  when p_seconds < 10 then round(p_seconds::numeric, 1)
  when p_seconds < 600 then round(p_seconds::numeric)
  when p_seconds < 86400 then round(p_seconds::numeric / 60) * 60
  else round(p_seconds::numeric / 3600) * 3600 end));
comment on function coordinator.doctor_age(double precision) is
  'Format a number of seconds for people. Internal.';

create or replace function coordinator.doctor_statement(p_text text, p_role name) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case
    when p_text is null or p_text = '' or p_text = '<insufficient privilege>' then ''
    when session_user <> p_role and not pg_has_role(session_user, 'pg_read_all_stats', 'usage') then ''
    else ': ' || left(regexp_replace(regexp_replace(regexp_replace(p_text, '\$(\w*?)\$.*?(\$\1\$|$)', '''…''', 'g'), '''([^'']|'''')*(''|$)', '''…''', 'g'), '\s+', ' ', 'g'), 120)
  end
$$;
comment on function coordinator.doctor_statement(text, name) is
  'Return the start of a role''s statement without its literals, after a colon; nothing if the session user may not see it. Internal.';

insert into coordinator.checks (name, warning, critical, unit, meaning) values
  ('visibility', null, null, '', 'Whether the owner of the schema can see all sessions, standbys and settings of the server.'),
  ('settings', null, null, '', 'Server settings for durability and vacuum.'),
  ('clock', 1, 10, 'seconds', 'Whether coordinator.now_utc() is the server clock, and not a replacement from a test.'),
  ('corruption', 1, 1, 'blocks', 'Database blocks with wrong checksums.');

create or replace function coordinator.doctor_visibility(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case when seen then 'ok' else 'unknown' end,
         case when seen then format('The owner of the schema, "%s", sees all sessions of the server.', current_user)
              else format('The owner of the schema, "%s", cannot see sessions of other roles or standbys. The findings below do not include them.', current_user) end,
         case when not seen then format('As a superuser: grant pg_monitor to %I', current_user) end
  from (select pg_has_role(current_user, 'pg_read_all_stats', 'usage') and pg_has_role(current_user, 'pg_read_all_settings', 'usage')) v (seen)
$$;
comment on function coordinator.doctor_visibility(double precision, double precision) is
  'Check what the owner of the schema can see. Internal.';

create or replace function coordinator.doctor_settings(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with needed (name, value, severity, why) as (values
    ('fsync', 'on', 'critical', 'a crash of the machine can destroy the database'),
    ('full_page_writes', 'on', 'critical', 'a crash of the machine can destroy the database'),
    ('synchronous_commit', null, 'critical', 'a crash loses the last writes, which were acknowledged'),
    ('zero_damaged_pages', 'off', 'critical', 'the server zeroes damaged blocks without an error'),
    ('ignore_checksum_failure', 'off', 'critical', 'the server reads damaged blocks without an error'),
    ('autovacuum', 'on', 'critical', 'dead rows are never removed, and eventually the server stops accepting writes'),
    ('track_counts', 'on', 'critical', 'autovacuum cannot find dead rows'),
    ('track_activities', 'on', 'warning', 'the activity of sessions is not visible')),
  wrong as (
    select n.severity, s.name, s.setting, n.why from needed n join pg_settings s on s.name = n.name
    where case n.name when 'synchronous_commit' then s.setting = 'off' else s.setting <> n.value end)
  select w.severity, format('%s is %s: %s.', w.name, w.setting, w.why),
         format('alter system set %s = %s; select pg_reload_conf()', w.name, case w.setting when 'on' then 'off' else 'on' end)
  from wrong w
  union all
  select 'ok', format('PostgreSQL %s: durability, autovacuum and statistics are on.', current_setting('server_version')), null
  where not exists (select from wrong)
$$;
comment on function coordinator.doctor_settings(double precision, double precision) is
  'Look for settings that endanger data. Internal.';

create or replace function coordinator.doctor_clock(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_off double precision := extract(epoch from coordinator.now_utc() - clock_timestamp());
begin
  if pg_get_functiondef('coordinator.now_utc()'::regprocedure) ~* 'return\s+clock_timestamp\(\)' and abs(v_off) < p_warning then
    return query values ('ok', 'coordinator.now_utc() is the server clock.', null);
  else
    return query values (
      'critical',
      format('coordinator.now_utc() is a replacement, as in tests. Anyone who can move this clock can make leases expire early. It differs from the server clock by %s.',
             coordinator.doctor_age(abs(v_off))),
      'Restore the function from sql/functions/clock.sql, or run "coordinator schema apply" with a newer version of the schema.');
  end if;
end
$$;
comment on function coordinator.doctor_clock(double precision, double precision) is
  'Compare the clock of the schema with that of the server. Internal.';

create or replace function coordinator.doctor_corruption(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.doctor_grade(coalesce(d.checksum_failures, 0), p_warning, p_critical),
         case when d.checksum_failures is null then 'Data checksums are off on this server.'
              else format('Blocks with wrong checksums: %s.', d.checksum_failures) end,
         case when d.checksum_failures > 0
              then 'The disk or memory of the server may be faulty: fail over to a standby or restore a backup, then run pg_amcheck.' end
  from pg_stat_database d where d.datname = current_database()
$$;
comment on function coordinator.doctor_corruption(double precision, double precision) is
  'Check for damaged blocks. Internal.';
