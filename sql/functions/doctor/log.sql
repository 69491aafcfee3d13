-- Checks of the leading daemon's work: numbering events, creating partitions, moving contents, delivering webhooks.

insert into coordinator.checks (name, warning, critical, unit, fix, meaning) values
  ('leader', null, null, '', null, 'Whether a daemon leads, and which daemons are running.'),
  ('relay', 2, 10, 'seconds', null, 'Committed events without a number. Readers cannot see them yet.'),
  ('readers', 100000, 1000000, 'events', null, 'How far webhooks, audit trails, and jobs that wait for events are behind the log.'),
  ('partitions', 4e6, 2e6, 'events', 'makes the missing partitions', 'Free space in the partitions of the event log, and partitions of ended jobs for today and tomorrow.'),
  ('webhooks', 1, 1000, 'webhooks', null, 'Disabled webhooks.'),
  ('objects', 60, 3600, 'seconds', null, 'Artifacts that wait for upload to the object store, and objects that wait for deletion.');

create or replace function coordinator.doctor_leader(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_leader text;
  v_alive  bigint := (select count(*) from coordinator.processes p where p.kind = 'daemon' and coordinator.process_alive(p.id));
begin
  -- A standby does not see the liveness locks of the primary.
  select p.name into v_leader from coordinator.leaders l join coordinator.processes p on p.id = l.process_id
  where l.expires_at > clock_timestamp() and (pg_is_in_recovery() or coordinator.process_alive(p.id));
  if v_leader is null then
    return query values ('critical', 'No daemon leads: events get no numbers, and nothing expires.', 'Start a daemon: coordinator serve');
  elsif pg_is_in_recovery() then
    return query values ('ok', format('%s leads.', v_leader), null);
  else
    return query values ('ok', format('%s leads; running daemons: %s.', v_leader, v_alive), null);
  end if;
end
$$;
comment on function coordinator.doctor_leader(double precision, double precision) is
  'Find the leader. Internal.';

create or replace function coordinator.doctor_relay(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with found as (
    select max(s.value) filter (where s.name = 'coordinator_event_oldest_seconds') as age,
           max(s.value) filter (where s.name = 'coordinator_events_waiting') as n
    from coordinator.event_sample(null) s),
  graded as (
    select f.*, coordinator.doctor_grade(f.age, p_warning, p_critical) as severity from found f)
  select g.severity,
         case when g.n = 0 then 'All committed events have numbers.'
              else format('%s committed events have no number yet; the oldest has waited for %s.', g.n, coordinator.doctor_age(g.age)) end,
         case when g.severity <> 'ok' then 'Check the findings "leader", "waits" and "advisory_keys", and search the log of the leader for relay.failed.' end
  from graded g
$$;
comment on function coordinator.doctor_relay(double precision, double precision) is
  'Measure the lag of the relay. Internal.';

create or replace function coordinator.doctor_readers(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.doctor_grade(s.value, p_warning, p_critical), format('The log reader for %s is %s events behind.', r.meaning, s.value),
         case when s.value >= p_warning then format('Search the log of the leader for loop.failed (%s).', r.loop) end
  from coordinator.event_sample(null) s
  left join (values ('job_wait', 'jobs that wait for events', 'job_wait_match'), ('webhook', 'webhooks', 'webhook'), ('audit', 'audit trails', 'audit_copy')) r (reader, meaning, loop)
    on r.reader = s.labels[1]
  where s.name = 'coordinator_event_reader_behind'
$$;
comment on function coordinator.doctor_readers(double precision, double precision) is
  'Measure the lag of the readers in the database. Internal.';

create or replace function coordinator.doctor_partitions(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_room     bigint := coordinator.event_headroom();
  v_severity text := coordinator.doctor_grade(v_room, p_warning, p_critical);
  v_missing  text;
begin
  return query values (
    v_severity, format('The partitions of the event log have room for %s more events.', to_char(v_room, 'FM999,999,999,999')),
    case when v_severity <> 'ok'
         then 'When they are full, every change fails with ZC701. Start a daemon, or create partitions now: coordinator doctor --fix' end);
  select string_agg(r || d, ', ' order by r, d) into v_missing
  from unnest(array['jobs_completed', 'jobs_uncompleted']) r
  cross join unnest(array[to_char(coordinator.now_utc() at time zone 'UTC', '_YYYYMMDD'),
                          to_char((coordinator.now_utc() + interval '24 hours') at time zone 'UTC', '_YYYYMMDD')]) d
  where to_regclass('coordinator.' || r || d) is null;
  if v_missing is not null then
    return query values (
      'warning', format('Partitions of ended jobs are missing: %s. Ended jobs go to a default partition, which is slower to prune.', v_missing),
      'Start a daemon, or create partitions now: coordinator doctor --fix');
  end if;
end
$$;
comment on function coordinator.doctor_partitions(double precision, double precision) is
  'Check for missing partitions. Internal.';

create or replace function coordinator.doctor_fix_partitions() returns setof text
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select format('created %s partitions of the event log and %s of ended jobs', coordinator.event_extend(), coordinator.job_extend())
$$;
comment on function coordinator.doctor_fix_partitions() is
  'Create partitions ahead of time, as the leader does. Internal.';

create or replace function coordinator.doctor_webhooks(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with disabled as (
    select count(*) as n, string_agg(distinct p.name, ', ') as projects
    from (select * from coordinator.webhooks w where w.disabled limit 1000) w join coordinator.projects p on p.id = w.project_id)
  select coordinator.doctor_grade(d.n, p_warning, p_critical),
         format('Disabled webhooks: %s.', d.n || coalesce(', in the projects ' || left(d.projects, 200), '')),
         case when d.n >= p_warning then 'List them with "coordinator webhook list", repair their receivers, and resume them with "coordinator webhook resume".' end
  from disabled d
$$;
comment on function coordinator.doctor_webhooks(double precision, double precision) is
  'Count disabled webhooks. Internal.';

create or replace function coordinator.doctor_objects(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with late (store, n, since, deleted) as (
    select o.store, count(*), min(o.created_at), false from coordinator.artifact_objects o
    where o.blob_id is not null and o.stored_at is null group by o.store
    union all
    select o.store, count(*), min(o.due_at), true from coordinator.artifact_objects o
    where o.blob_id is null and o.due_at < coordinator.now_utc() - interval '1 hour' group by o.store),
  graded as (
    select l.*, coordinator.doctor_grade(coordinator.metric_age(l.since), p_warning, p_critical) as severity from late l)
  select case when g.deleted then 'warning' else g.severity end,
         case when g.deleted then format('%s objects in %s wait for deletion.', g.n, g.store)
              else format('Artifacts have waited for upload to the object store %s since %s.', g.store, to_char(g.since at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC')) end,
         case when g.deleted then 'Start a daemon with this artifact_store; it deletes them.' else 'Search the log of the leader for loop.failed.' end
  from graded g where g.severity <> 'ok'
  union all
  select 'ok', 'No artifact waits for an object store.', null where not exists (select from graded g where g.severity <> 'ok')
$$;
comment on function coordinator.doctor_objects(double precision, double precision) is
  'Check for artifacts that do not reach the object store. Internal.';
