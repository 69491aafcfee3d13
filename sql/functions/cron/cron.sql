-- Crons: jobs that are enqueued at recurring times. A loop fires each cron that is due; the row of the cron is the lock, so any number
-- of daemons fire it only once. The job and the new next_at are committed together, so a crash repeats nothing and loses nothing.
--
-- A schedule is evaluated in a time zone. When clocks are set forward, a time that does not exist moves past the gap; when they are set
-- back, a time that exists twice fires at the first one. If the hour begins with *, the schedule follows elapsed time instead: it skips
-- the gap, and fires in both hours. (These are the rules of Vixie cron.)
--
-- If a job cannot be enqueued (a full queue, a lock), next_at does not change, and the loop tries again a minute later.
-- Locks: the row of the cron, then the locks of job_enqueue.

insert into coordinator.event_types (type, key, data, meaning) values
  ('cron.set',     'name of the cron', '{schedule,zone,missed,next_at}', 'A cron was created or changed.'),
  ('cron.deleted', 'name of the cron', '{}',                             'A cron was deleted. Its jobs stay.'),
  ('cron.paused',  'name of the cron', '{reason}',                       'A cron was paused. It does not fire until it is resumed.'),
  ('cron.resumed', 'name of the cron', '{next_at}',                      'A cron was resumed.'),
  ('cron.fired',   'name of the cron', '{fire_at,job,next_at}',          'A cron enqueued its job for the scheduled time fire_at.'),
  ('cron.skipped', 'name of the cron', '{fire_at,next_at}',              'A cron skipped the times that it missed, starting with fire_at.'),
  ('cron.failed',  'name of the cron', '{fire_at,error}',                'A cron could not enqueue its job. It tries again every minute.');

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
  ('crons',         1000, 'crons',      'Crons per project.'),
  ('cron_schedule', 200,  'characters', 'Schedule of a cron.'),
  ('cron_preview',  100,  'times',      'Times per preview.');

create or replace view coordinator.crons_live with (security_barrier) as
  select p.name as project, c.name as cron, c.schedule, c.zone, c.missed, c.job, case when c.paused_at is null then c.next_at end as next_at,
         c.last_at, c.last_job, c.error, c.paused_at, c.paused_by, c.pause_reason, c.actor, c.created_at, c.updated_at
  from coordinator.crons c join coordinator.projects p on p.id = c.project_id
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.crons_live              is 'Schedules that enqueue jobs at recurring times.';
comment on column coordinator.crons_live.project      is 'Name of the project.';
comment on column coordinator.crons_live.cron         is 'Name of the cron.';
comment on column coordinator.crons_live.schedule     is 'Schedule: minute, hour, day, month and weekday.';
comment on column coordinator.crons_live.zone         is 'Time zone of the schedule.';
comment on column coordinator.crons_live.missed       is 'What to do about missed times: skip, once or all.';
comment on column coordinator.crons_live.job          is 'The job, as an object of job_enqueue_many; {fire_at} in it is replaced by the scheduled time.';
comment on column coordinator.crons_live.next_at      is 'When it fires next; null: it is paused.';
comment on column coordinator.crons_live.last_at      is 'Last scheduled time for which it fired.';
comment on column coordinator.crons_live.last_job     is 'Job enqueued for last_at.';
comment on column coordinator.crons_live.error        is 'Why the job for next_at could not be enqueued; null: no error, or not due yet.';
comment on column coordinator.crons_live.paused_at    is 'When it was paused; null: it is not.';
comment on column coordinator.crons_live.paused_by    is 'Who paused it.';
comment on column coordinator.crons_live.pause_reason is 'Why it was paused.';
comment on column coordinator.crons_live.actor        is 'Who created it or last changed it.';
comment on column coordinator.crons_live.created_at   is 'When it was created.';
comment on column coordinator.crons_live.updated_at   is 'When it was last changed.';

create or replace function coordinator.cron_missing(p_project text, p_cron text) returns void
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.name_missing('ZC214', p_project, 'cron', p_cron, array(
    select c.name from coordinator.crons c where c.project_id = coordinator.project_id(p_project) order by c.name limit 1000))
$$;
comment on function coordinator.cron_missing(text, text) is
  'Raise ZC214 for a cron that does not exist, and suggest a similar name. Internal.';

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
    raise exception using errcode = 'ZC105', message = 'the job of a cron cannot have an instant', hint = 'Omit at and start_by: the schedule says when.';
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
  'Create or change a cron, which enqueues p_job at the times of p_schedule in the time zone p_zone (UTC). Null parameters keep their current values; a new cron needs a schedule and a job. p_schedule: minute, hour, day, month and weekday, such as 30 8 * * mon-fri; or @hourly, @daily, @weekly, @monthly, @yearly. p_job: an object as in job_enqueue_many, such as {"type": "report", "payload": {"day": "{fire_at}"}}; in all its texts, {fire_at} is replaced by the scheduled time. p_missed: what to do about times at which no daemon ran: skip (those more than a minute ago), once (one job for all of them; the default) or all (a job for each). To keep the jobs of a cron from overlapping, give a dedupe_key with "on_duplicate": "skip".';

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
  'Delete a cron. Jobs that it enqueued remain. ZC214: there is no such cron.';

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
  perform coordinator.check_reason(p_reason);
  update coordinator.crons c set due_at = null, paused_at = v_now, paused_by = v_actor, pause_reason = p_reason
  where c.project_id = v_project and c.name = p_cron and c.paused_at is null;
  if found then
    perform coordinator.event_append('cron.paused', p_project, p_cron, v_actor, v_now, jsonb_build_object('reason', p_reason));
  end if;
  return query select * from coordinator.cron_get(p_project, p_cron);
end
$$;
comment on function coordinator.cron_pause(text, text, text, text) is
  'Pause a cron: it does not fire. Times that pass while it is paused do not count as missed. Pausing it again changes nothing. ZC214: there is no such cron.';

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
  return query select * from coordinator.cron_get(p_project, p_cron);
end
$$;
comment on function coordinator.cron_resume(text, text, text) is
  'Resume a paused cron: it fires at its next time. ZC214: there is no such cron.';

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
