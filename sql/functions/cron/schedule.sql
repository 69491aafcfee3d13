-- Schedules of crons: how they are parsed, and which instants they stand for. For changes of the clocks, see the head of cron.sql.

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
    raise exception using errcode = 'ZC103',
      message = case when p_schedule ~ '^\s*@' then format('there is no schedule "%s"', left(p_schedule, 50))
                     else format('the schedule "%s" does not have 5 fields, but %s', left(p_schedule, 50), cardinality(v_fields)) end,
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
  for v_ahead in 0..3000 loop -- any eight years include a 29 February, even around 2100
    v_day := (v_local - interval '2 hours')::date + v_ahead;
    continue when date_part('month', v_day) <> all (v_fields.months)
      or not case when v_fields.either then date_part('day', v_day) = any (v_fields.days) or date_part('dow', v_day) = any (v_fields.weekdays)
                  else date_part('day', v_day) = any (v_fields.days) and date_part('dow', v_day) = any (v_fields.weekdays) end;
    select min(t.at) into v_next
    from (select l.local from (select v_day + make_time(h, m, 0) as local from unnest(v_fields.hours) h, unnest(v_fields.minutes) m) l
          where l.local > v_local - interval '2 hours' order by l.local limit 250) l -- longer than any change of the clocks
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
  loop -- bisect the interval
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
  -- "at time zone" also accepts abbreviations, and meaningless texts such as Foo3. The view reads 600 files.
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
  'Reject an unknown time zone: ZC105. Internal.';

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
  'Return the first p_limit times of a schedule after p_since (now). p_schedule: minute, hour, day, month and weekday, such as 30 8 * * mon-fri. ZC103: the schedule is malformed; ZC104: it never fires.';
