-- Crons: jobs that are enqueued at times that recur. A loop fires each cron that is due; the row of the cron is the lock, so any number
-- of daemons fire once. The job and the new next_at are committed together: a crash repeats or loses nothing.
--
-- A schedule is evaluated in a time zone. Where clocks are set forward, a time that does not exist is moved past the gap; where they
-- are set back, a time that exists twice fires at the first. If the hour begins with *, the schedule follows elapsed time instead:
-- it skips the gap, and fires in both hours. (Vixie cron's rules.)
--
-- Whatever keeps a job from being enqueued (a full queue, a lock) leaves next_at where it is; the loop tries again a minute later.
-- Locks: the row of the cron, then what job_enqueue takes.

insert into coordinator.event_types (type, key, data, meaning) values
  ('cron.set',     'name of the cron', '{schedule,zone,missed,next_at}', 'A cron was created or changed.'),
  ('cron.deleted', 'name of the cron', '{}',                             'A cron was deleted. Its jobs stay.'),
  ('cron.paused',  'name of the cron', '{reason}',                       'A cron was paused: it does not fire.'),
  ('cron.resumed', 'name of the cron', '{next_at}',                      'A cron was resumed.'),
  ('cron.fired',   'name of the cron', '{fire_at,job,next_at}',          'A cron enqueued a job, for the time fire_at.'),
  ('cron.skipped', 'name of the cron', '{fire_at,next_at}',              'A cron that skips missed times skipped those from fire_at on.'),
  ('cron.failed',  'name of the cron', '{fire_at,error}',                'The job of a cron cannot be enqueued; it is tried again every minute.');

insert into coordinator.rights (function, role) values
  ('cron_get',     'reader'),
  ('cron_list',    'reader'),
  ('cron_preview', 'reader'),
  ('cron_delete',  'manager'),
  ('cron_pause',   'manager'),
  ('cron_resume',  'manager'),
  ('cron_run',     'manager'),
  ('cron_set',     'manager');

insert into coordinator.limits (name, value, unit, meaning) values
  ('crons',         1000, 'crons',      'Crons of a project.'),
  ('cron_schedule', 200,  'characters', 'A schedule.'),
  ('cron_preview',  100,  'times',      'Times that one call previews.');

create or replace view coordinator.crons_live with (security_barrier) as
  select p.name as project, c.name as cron, c.schedule, c.zone, c.missed, c.job, case when c.paused_at is null then c.next_at end as next_at,
         c.last_at, c.last_job, c.error, c.paused_at, c.paused_by, c.pause_reason, c.actor, c.created_at, c.updated_at
  from coordinator.crons c join coordinator.projects p on p.id = c.project_id
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.crons_live              is 'Jobs that are enqueued at times that recur.';
comment on column coordinator.crons_live.project      is 'Name of the project.';
comment on column coordinator.crons_live.cron         is 'Name of the cron.';
comment on column coordinator.crons_live.schedule     is 'Minute, hour, day, month and weekday.';
comment on column coordinator.crons_live.zone         is 'Time zone of the schedule.';
comment on column coordinator.crons_live.missed       is 'What follows when times were missed: skip, once or all.';
comment on column coordinator.crons_live.job          is 'The job, as an object of job_enqueue_many; {fire_at} in it stands for the time.';
comment on column coordinator.crons_live.next_at      is 'When it fires next; null: it is paused.';
comment on column coordinator.crons_live.last_at      is 'The last time for which it fired.';
comment on column coordinator.crons_live.last_job     is 'The job of that time.';
comment on column coordinator.crons_live.error        is 'Why the job of next_at could not be enqueued; null: it was, or is not due yet.';
comment on column coordinator.crons_live.paused_at    is 'When it was paused; null: it is not.';
comment on column coordinator.crons_live.paused_by    is 'Who paused it.';
comment on column coordinator.crons_live.pause_reason is 'Why it was paused.';
comment on column coordinator.crons_live.actor        is 'Who created it or last changed it.';
comment on column coordinator.crons_live.created_at   is 'When it was created.';
comment on column coordinator.crons_live.updated_at   is 'When it was last changed.';

create or replace function coordinator.cron_field(p_what text, p_text text, p_least integer, p_most integer, p_names text[] default '{}') returns integer[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_item  text;
  v_parts text[];
  v_from  integer;
  v_to    integer;
  v_all   integer[] := '{}';
begin
  foreach v_item in array string_to_array(lower(p_text), ',') loop
    v_parts := regexp_match(v_item, '^(?:\*|([0-9]{1,2}|[a-z]{3})(?:-([0-9]{1,2}|[a-z]{3}))?)(?:/([0-9]{1,2}))?$');
    v_from := coalesce(array_position(p_names, v_parts[1]) - 1 + p_least, case when v_parts[1] ~ '^[0-9]+$' then v_parts[1]::integer end);
    v_to := coalesce(array_position(p_names, v_parts[2]) - 1 + p_least, case when v_parts[2] ~ '^[0-9]+$' then v_parts[2]::integer end);
    if v_parts is null or num_nulls(v_from, v_to) <> num_nulls(v_parts[1], v_parts[2]) or v_parts[3]::integer = 0
       or coalesce(v_from, p_least) < p_least or coalesce(v_to, v_from, p_least) > p_most or coalesce(v_from > v_to, false) then
      raise exception using errcode = 'ZC103', message = format('"%s" is not a valid %s of a schedule', left(v_item, 50), p_what),
        hint = format('Write *, a number from %s to %s, a range such as 1-5, steps such as */2, or a list of these.', p_least, p_most);
    end if;
    v_to := coalesce(v_to, case when v_parts[3] is null then v_from end, p_most);
    v_all := v_all || array(select generate_series(coalesce(v_from, p_least), v_to, coalesce(v_parts[3]::integer, 1)));
  end loop;
  return array(select distinct n from unnest(v_all) n order by n);
end
$$;
comment on function coordinator.cron_field(text, text, integer, integer, text[]) is
  'Return the values of a field of a schedule. ZC103: it is malformed. Internal.';

create or replace function coordinator.cron_parse(p_schedule text) returns coordinator.cron_fields
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fields text[];
  v_result coordinator.cron_fields;
begin
  perform coordinator.check_text('the schedule', p_schedule, 200);
  v_fields := regexp_split_to_array(btrim(case lower(btrim(p_schedule))
    when '@hourly' then '0 * * * *' when '@daily' then '0 0 * * *' when '@midnight' then '0 0 * * *' when '@weekly' then '0 0 * * 0'
    when '@monthly' then '0 0 1 * *' when '@yearly' then '0 0 1 1 *' when '@annually' then '0 0 1 1 *' else p_schedule end), '[ \t]+');
  if cardinality(v_fields) <> 5 then
    raise exception using errcode = 'ZC103', message = format('the schedule "%s" has %s fields instead of 5', left(p_schedule, 50), cardinality(v_fields)),
      hint = 'Write minute, hour, day, month and weekday, such as "30 8 * * mon-fri"; or @hourly, @daily, @weekly, @monthly, @yearly.';
  end if;
  v_result.minutes := coordinator.cron_field('minute', v_fields[1], 0, 59);
  v_result.hours := coordinator.cron_field('hour', v_fields[2], 0, 23);
  v_result.days := coordinator.cron_field('day', v_fields[3], 1, 31);
  v_result.months := coordinator.cron_field('month', v_fields[4], 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
  v_result.weekdays := array(select distinct w % 7 from unnest(coordinator.cron_field('weekday', v_fields[5], 0, 7, '{sun,mon,tue,wed,thu,fri,sat}')) w);
  v_result.either := v_fields[3] !~ '^\*' and v_fields[5] !~ '^\*';
  v_result.hourly := v_fields[2] ~ '^\*';
  return v_result;
end
$$;
comment on function coordinator.cron_parse(text) is
  'Read a schedule: minute, hour, day, month, weekday; if both day and weekday are restricted, either may match. ZC103: it is malformed. Internal.';

create or replace function coordinator.cron_next(p_schedule text, p_zone text, p_after timestamptz) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fields coordinator.cron_fields := coordinator.cron_parse(p_schedule);
  v_local  timestamp := p_after at time zone p_zone;
  v_day    date;
  v_next   timestamptz;
begin
  for v_day in -- eight years have a 29 February, even around 2100
    select d.day from (select (v_local - interval '2 hours')::date + n as day from generate_series(0, 3000) n) d
    where date_part('month', d.day) = any (v_fields.months)
      and case when v_fields.either then date_part('day', d.day) = any (v_fields.days) or date_part('dow', d.day) = any (v_fields.weekdays)
               else date_part('day', d.day) = any (v_fields.days) and date_part('dow', d.day) = any (v_fields.weekdays) end
    order by d.day
  loop
    select min(t.at) into v_next
    from (select l.local from (select v_day + make_time(h, m, 0) as local from unnest(v_fields.hours) h, unnest(v_fields.minutes) m) l
          where l.local > v_local - interval '2 hours' order by l.local limit 250) l -- more than what clocks are set back and forward by
    cross join lateral (
      select array_agg(i.at order by i.at) filter (where i.at at time zone p_zone = l.local) as real, l.local at time zone p_zone as moved
      from (select (l.local at time zone p_zone) + s as at
            from unnest('{0:00,-1:00,1:00,-0:30,0:30}'::interval[]) s) i) x
    cross join lateral unnest(case when v_fields.hourly then x.real else array[coalesce(x.real[1], x.moved)] end) t (at)
    where t.at > p_after;
    exit when v_next is not null;
  end loop;
  return v_next;
end
$$;
comment on function coordinator.cron_next(text, text, timestamptz) is
  'Return the first time of a schedule after an instant; null: there is none in eight years. Internal.';

create or replace function coordinator.cron_last(p_schedule text, p_zone text, p_first timestamptz, p_until timestamptz) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_last  timestamptz := p_first;
  v_until timestamptz := p_until;
  v_next  timestamptz;
begin
  loop -- halves what is between them
    v_next := coordinator.cron_next(p_schedule, p_zone, v_last);
    exit when (v_next <= p_until) is not true;
    v_last := v_next;
    v_next := coordinator.cron_next(p_schedule, p_zone, v_last + (v_until - v_last) / 2);
    if v_next <= p_until then
      v_last := v_next;
    else
      v_until := v_last + (v_until - v_last) / 2;
    end if;
  end loop;
  return v_last;
end
$$;
comment on function coordinator.cron_last(text, text, timestamptz, timestamptz) is
  'Return the last time of a schedule up to an instant, given an earlier one. Internal.';

create or replace function coordinator.cron_check_zone(p_zone text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_name('the time zone', p_zone, 100);
  -- "at time zone" also takes abbreviations, and texts such as Foo3, which nobody means. The view reads 600 files.
  if p_zone <> 'UTC' and (p_zone !~ '^[A-Za-z_]+(/[A-Za-z_-]+)+$') and not exists (select from pg_timezone_names z where z.name = p_zone) then
    raise invalid_parameter_value;
  end if;
  perform coordinator.now_utc() at time zone p_zone;
exception when invalid_parameter_value then
  raise exception using errcode = 'ZC105', message = format('there is no time zone "%s"', p_zone),
    hint = coalesce('Did you mean "' || coordinator.nearest(p_zone, array(select z.name from pg_timezone_names z where z.name !~ '^posix')) || '"? ', '')
           || 'Give a name such as UTC or Europe/Berlin.';
end
$$;
comment on function coordinator.cron_check_zone(text) is
  'Reject a time zone whose name is unknown: ZC105. Internal.';

create or replace function coordinator.cron_check_next(p_schedule text, p_zone text, p_after timestamptz) returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_next timestamptz := coordinator.cron_next(p_schedule, p_zone, p_after);
begin
  if v_next is null then
    raise exception using errcode = 'ZC104', message = format('the schedule "%s" never fires', p_schedule),
      hint = 'No year has such a day: check day and month.';
  end if;
  return v_next;
end
$$;
comment on function coordinator.cron_check_next(text, text, timestamptz) is
  'Return the first time of a schedule after an instant. ZC104: it never fires. Internal.';

create or replace function coordinator.cron_preview(
  p_schedule text, p_zone text default 'UTC', p_since timestamptz default null, p_limit integer default 5)
returns setof coordinator.cron_time
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_at timestamptz := coalesce(p_since, coordinator.now_utc());
begin
  perform coordinator.cron_check_zone(p_zone);
  if p_limit is null or p_limit not between 1 and 100 then
    raise exception using errcode = 'ZC104', message = format('a limit of %s is out of range', coalesce(p_limit::text, 'null')), hint = 'Give 1 to 100.';
  elsif v_at not between timestamptz '2000-01-01 00:00:00Z' and timestamptz '2100-01-01 00:00:00Z' then
    raise exception using errcode = 'ZC104', message = 'the instant is out of range', hint = 'Give an instant between 2000 and 2100.';
  end if;
  for v_n in 1..p_limit loop
    v_at := coordinator.cron_check_next(p_schedule, p_zone, v_at);
    return next row(v_at, to_char(v_at at time zone p_zone, 'Dy YYYY-MM-DD HH24:MI'))::coordinator.cron_time;
  end loop;
end
$$;
comment on function coordinator.cron_preview(text, text, timestamptz, integer) is
  'Return the first p_limit times of a schedule after p_since (now). p_schedule: minute, hour, day, month and weekday, such as 30 8 * * mon-fri. ZC103: it is malformed; ZC104: it never fires.';

create or replace function coordinator.cron_missing(p_project text, p_cron text) returns void
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.name_missing('ZC214', p_project, 'cron', p_cron, array(
    select c.name from coordinator.crons c where c.project_id = coordinator.project_id(p_project) order by c.name limit 1000))
$$;
comment on function coordinator.cron_missing(text, text) is
  'Raise ZC214 for a cron that does not exist, with the name that was probably meant. Internal.';

create or replace function coordinator.cron_order(p_job jsonb, p_at timestamptz) returns jsonb
language sql stable parallel safe
return replace(p_job::text, '{fire_at}', to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"'))::jsonb;
comment on function coordinator.cron_order(jsonb, timestamptz) is
  'Return the job that a cron enqueues for an instant. Internal.';

create or replace function coordinator.cron_set(
  p_project text, p_cron text, p_schedule text default null, p_job jsonb default null, p_zone text default null, p_missed text default null,
  p_actor text default null)
returns setof coordinator.crons_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_now     timestamptz;
  v_cron    coordinator.crons;
begin
  perform coordinator.check_name('the name of the cron', p_cron, 100);
  if p_missed not in ('skip', 'once', 'all') then
    raise exception using errcode = 'ZC105', message = format('invalid policy for missed times "%s"', left(p_missed, 100)),
      hint = 'Use skip, once (one job for all of them) or all (a job for each).';
  end if;
  perform coordinator.project_hold(v_project);
  select * into v_cron from coordinator.crons c where c.project_id = v_project and c.name = p_cron for no key update;
  v_now := coordinator.now_utc(); -- after the lock
  v_cron.zone := coalesce(p_zone, v_cron.zone, 'UTC');
  v_cron.schedule := coalesce(p_schedule, v_cron.schedule);
  v_cron.missed := coalesce(p_missed, v_cron.missed, 'once');
  v_cron.job := coalesce(p_job, v_cron.job);
  perform coordinator.cron_check_zone(v_cron.zone);
  if v_cron.next_at is null or p_schedule is not null or p_zone is not null then
    v_cron.next_at := coordinator.cron_check_next(v_cron.schedule, v_cron.zone, v_now);
  end if;
  perform coordinator.check_json('the job', v_cron.job, p_object => true);
  if v_cron.job ?| '{at,start_by}' then
    raise exception using errcode = 'ZC105', message = 'the job of a cron has an instant', hint = 'Omit at and start_by: the schedule says when.';
  end if;
  perform coordinator.job_read(v_project, jsonb_build_array(coordinator.cron_order(v_cron.job, v_cron.next_at)), true);
  insert into coordinator.crons (project_id, name, schedule, zone, missed, job, next_at, due_at, actor, created_at, updated_at)
  values (v_project, p_cron, v_cron.schedule, v_cron.zone, v_cron.missed, v_cron.job, v_cron.next_at, v_cron.next_at, v_actor, v_now, v_now)
  on conflict (project_id, name) do update set
    schedule = excluded.schedule, zone = excluded.zone, missed = excluded.missed, job = excluded.job, next_at = excluded.next_at,
    due_at = case when crons.paused_at is null then excluded.next_at end, error = null, actor = v_actor, updated_at = v_now;
  if v_cron.name is null and (select count(*) from coordinator.crons c where c.project_id = v_project) > 1000 then
    raise exception using errcode = 'ZC102', message = 'the project would have more than 1000 crons',
      hint = 'Let one cron enqueue a job that enqueues others.';
  end if;
  perform coordinator.event_append('cron.set', p_project, p_cron, v_actor, v_now,
    jsonb_build_object('schedule', v_cron.schedule, 'zone', v_cron.zone, 'missed', v_cron.missed, 'next_at', v_cron.next_at));
  return query select * from coordinator.crons_live c where c.project = p_project and c.cron = p_cron;
end
$$;
comment on function coordinator.cron_set(text, text, text, jsonb, text, text, text) is
  'Create or change a cron, which enqueues p_job at the times of p_schedule in the time zone p_zone (UTC). What is null stays as it is; a new cron needs schedule and job. p_schedule: minute, hour, day, month and weekday, such as 30 8 * * mon-fri; or @hourly, @daily, @weekly, @monthly, @yearly. p_job: an object as in job_enqueue_many, such as {"type": "report", "payload": {"day": "{fire_at}"}}; {fire_at} in any text of it stands for the time. p_missed: if no daemon ran at some times: skip (those more than a minute ago), once (one job for all of them; the default) or all (a job for each). A dedupe_key with "on_duplicate": "skip" keeps jobs of a cron from overlapping.';

create or replace function coordinator.cron_delete(p_project text, p_cron text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  delete from coordinator.crons c where c.project_id = v_project and c.name = p_cron;
  if not found then
    perform coordinator.cron_missing(p_project, p_cron);
  end if;
  perform coordinator.event_append('cron.deleted', p_project, p_cron, coordinator.actor_name(p_actor), coordinator.now_utc(), '{}');
  return true;
end
$$;
comment on function coordinator.cron_delete(text, text, text) is
  'Delete a cron. The jobs that it enqueued stay. ZC214: there is no such cron.';

create or replace function coordinator.cron_pause(p_project text, p_cron text, p_reason text default null, p_actor text default null)
returns setof coordinator.crons_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_now     timestamptz := coordinator.now_utc();
begin
  if p_reason is not null then
    perform coordinator.check_reason(p_reason);
  end if;
  update coordinator.crons c set due_at = null, paused_at = v_now, paused_by = v_actor, pause_reason = p_reason
  where c.project_id = v_project and c.name = p_cron and c.paused_at is null;
  if found then
    perform coordinator.event_append('cron.paused', p_project, p_cron, v_actor, v_now, jsonb_build_object('reason', p_reason));
  end if;
  return query select * from coordinator.crons_live c where c.project = p_project and c.cron = p_cron;
  if not found then
    perform coordinator.cron_missing(p_project, p_cron);
  end if;
end
$$;
comment on function coordinator.cron_pause(text, text, text, text) is
  'Pause a cron: it does not fire. Times that pass meanwhile do not count as missed. Pausing it again changes nothing. ZC214: there is no such cron.';

create or replace function coordinator.cron_resume(p_project text, p_cron text, p_actor text default null)
returns setof coordinator.crons_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_now     timestamptz := coordinator.now_utc();
  v_next    timestamptz;
begin
  update coordinator.crons c
  set next_at = coordinator.cron_next(c.schedule, c.zone, v_now), due_at = coordinator.cron_next(c.schedule, c.zone, v_now),
      paused_at = null, paused_by = null, pause_reason = null, error = null
  where c.project_id = v_project and c.name = p_cron and c.paused_at is not null returning c.next_at into v_next;
  if found then
    perform coordinator.event_append('cron.resumed', p_project, p_cron, v_actor, v_now, jsonb_build_object('next_at', v_next));
  end if;
  return query select * from coordinator.crons_live c where c.project = p_project and c.cron = p_cron;
  if not found then
    perform coordinator.cron_missing(p_project, p_cron);
  end if;
end
$$;
comment on function coordinator.cron_resume(text, text, text) is
  'Resume a cron that was paused: it fires at its next time. ZC214: there is no such cron.';

create or replace function coordinator.cron_run(p_project text, p_cron text, p_actor text default null)
returns setof coordinator.job_receipt
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_job     jsonb;
begin
  select c.job into v_job from coordinator.crons c where c.project_id = v_project and c.name = p_cron;
  if not found then
    perform coordinator.cron_missing(p_project, p_cron);
  end if;
  return query select * from coordinator.job_insert(p_project, jsonb_build_array(coordinator.cron_order(v_job, coordinator.now_utc())), v_actor, true);
end
$$;
comment on function coordinator.cron_run(text, text, text) is
  'Enqueue the job of a cron now, even if it is paused. Its next time stays. ZC214: there is no such cron.';

create or replace function coordinator.cron_get(p_project text, p_cron text)
returns setof coordinator.crons_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.project_id(p_project);
  return query select * from coordinator.crons_live c where c.project = p_project and c.cron = p_cron;
  if not found then
    perform coordinator.cron_missing(p_project, p_cron);
  end if;
end
$$;
comment on function coordinator.cron_get(text, text) is
  'Return a cron. ZC214: there is no such cron.';

create or replace function coordinator.cron_list(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.crons_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.project_id(p_project);
  perform coordinator.check_page(p_limit, p_after, '{text}');
  return query
    select * from coordinator.crons_live c
    where c.project = p_project and c.cron > coalesce(p_after[1], '')
    order by c.cron limit p_limit;
end
$$;
comment on function coordinator.cron_list(text, text[], integer) is
  'List the crons of a project, by name. p_after: array[cron] of the last row read.';

create or replace function coordinator.cron_fire(p_limit integer default 100) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now     timestamptz := coordinator.now_utc();
  v_project record;
  v_crons   coordinator.crons[];
  v_count   integer;
  v_error   text;
begin
  perform coordinator.check_page(p_limit);
  -- Of one project: its jobs are enqueued in one call, which takes all locks in their order.
  select p.id, p.name into v_project from coordinator.crons c join coordinator.projects p on p.id = c.project_id
  where c.due_at <= v_now order by c.due_at limit 1 for key share of p skip locked for no key update of c skip locked;
  v_crons := array(
    select c from coordinator.crons c
    where c.project_id = v_project.id and c.due_at <= v_now order by c.due_at, c.name limit p_limit for no key update skip locked);
  v_count := cardinality(v_crons);
  while v_count > 0 loop
    begin
      perform coordinator.cron_enqueue(v_project.name, v_crons[:v_count], v_now);
      return v_count;
    exception
      when query_canceled or operator_intervention then
        raise;
      when lock_not_available then
        v_error := sqlerrm;
        exit; -- all of them would wait
      when others then
        v_error := sqlerrm;
        exit when v_count = 1;
        v_count := v_count / 2; -- until the one that fails is alone
    end;
  end loop;
  if v_error is not null then
    perform coordinator.event_append('cron.failed', v_project.name, c.name, 'coordinator', v_now,
                                     jsonb_build_object('fire_at', c.next_at, 'error', left(v_error, 2000)))
    from unnest(v_crons[:v_count]) c where c.error is null;
    update coordinator.crons c set due_at = v_now + interval '1 minute', error = left(v_error, 2000)
    from unnest(v_crons[:v_count]) f where c.project_id = f.project_id and c.name = f.name;
  end if;
  return v_count;
end
$$;
comment on function coordinator.cron_fire(integer) is
  'Enqueue the jobs of up to p_limit crons whose time has come; returns how many crons. Repeat until 0.';

create or replace function coordinator.cron_enqueue(p_project text, p_crons coordinator.crons[], p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_orders  jsonb := '[]';
  v_names   text[] := '{}'; -- of each job
  v_times   timestamptz[] := '{}';
  v_jobs    uuid[] := '{}';
  v_cron    coordinator.crons;
  v_next    timestamptz;
begin
  foreach v_cron in array p_crons loop
    v_next := v_cron.next_at;
    if v_cron.missed = 'skip' and v_next < p_now - interval '1 minute' then
      v_next := coordinator.cron_next(v_cron.schedule, v_cron.zone, p_now - interval '1 minute');
      perform coordinator.event_append('cron.skipped', p_project, v_cron.name, 'coordinator', p_now,
                                       jsonb_build_object('fire_at', v_cron.next_at, 'next_at', v_next));
    elsif v_cron.missed = 'once' then
      v_next := coordinator.cron_last(v_cron.schedule, v_cron.zone, v_next, p_now);
    end if;
    for v_n in 1..30 loop -- of the largest jobs, one call takes 32; more follow in the next run
      exit when v_next > p_now;
      v_orders := v_orders || coordinator.cron_order(v_cron.job, v_next);
      v_names := v_names || v_cron.name;
      v_times := v_times || v_next;
      v_next := coordinator.cron_next(v_cron.schedule, v_cron.zone, v_next);
    end loop;
    update coordinator.crons c set next_at = v_next, due_at = v_next, error = null
    where c.project_id = v_cron.project_id and c.name = v_cron.name;
  end loop;
  if v_names = '{}' then
    return;
  end if;
  v_jobs := array(select r.id from coordinator.job_insert(p_project, v_orders, 'coordinator', true) r);
  update coordinator.crons c set last_at = l.at, last_job = l.job
  from (select distinct on (u.name) u.* from unnest(v_names, v_times, v_jobs) u (name, at, job) order by u.name, u.at desc) l
  where c.project_id = p_crons[1].project_id and c.name = l.name;
  perform coordinator.event_append('cron.fired', p_project, u.name, 'coordinator', p_now,
                                   jsonb_build_object('fire_at', u.at, 'job', u.job, 'next_at', c.next_at))
  from unnest(v_names, v_times, v_jobs) u (name, at, job)
  join coordinator.crons c on c.project_id = p_crons[1].project_id and c.name = u.name;
end
$$;
comment on function coordinator.cron_enqueue(text, coordinator.crons[], timestamptz) is
  'Enqueue the jobs of crons of one project that are due, and compute their next times. Internal.';
