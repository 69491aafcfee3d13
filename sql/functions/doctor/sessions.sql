-- Checks of sessions: what they keep open, wait for and hold. Ages are measured by the server's clock.

insert into coordinator.checks (name, warning, critical, unit, meaning) values
  ('connections', 0.8, 0.95, 'of max_connections', 'Sessions, as a share of max_connections.'),
  ('transactions', 900, 14400, 'seconds', 'Long-running transactions. They keep dead rows and locks, and delay the numbers of their own events.'),
  ('prepared_transactions', 60, 3600, 'seconds', 'Prepared transactions that nobody commits or rolls back. They survive restarts.'),
  ('snapshots', 1e7, 2e8, 'transactions', 'Holders of old snapshots, which prevent the removal of dead rows: sessions, prepared transactions, slots, standbys.'),
  ('waits', 30, 300, 'seconds', 'Sessions that wait for a PostgreSQL lock, and the sessions that block them.'),
  ('advisory_keys', 10, 60, 'seconds', 'Sessions that hold an advisory lock of the schema for a long time. Other calls then fail with 55P03.'),
  ('notifications', 0.1, 0.5, 'of the queue', 'The NOTIFY queue, which the slowest listener holds back.');

create or replace function coordinator.doctor_connections(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with sessions as (
    select coalesce(a.usename, '?') as usename, coalesce(nullif(a.application_name, ''), '?') as application, count(*) as n
    from pg_stat_activity a where a.backend_type = 'client backend' group by 1, 2),
  counted as (
    select sum(s.n) as n, current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer as most,
           string_agg(format('%s of %s (%s)', s.n, s.usename, s.application), ', ' order by s.n desc) filter (where s.place <= 3) as largest
    from (select s.*, row_number() over (order by s.n desc) as place from sessions s) s),
  graded as (
    select c.*, coordinator.doctor_grade(c.n / c.most::double precision, p_warning, p_critical) as severity from counted c)
  select g.severity, format('%s of %s connections are in use: %s.', g.n, g.most, g.largest),
         case when g.severity <> 'ok'
              then 'Lower max_connections of daemons and clients, use PgBouncer (docs/pgbouncer.md), or raise max_connections of the server.' end
  from graded g
$$;
comment on function coordinator.doctor_connections(double precision, double precision) is
  'Count the sessions of the server. Internal.';

create or replace function coordinator.doctor_transactions(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with opened as (
    select a.*, extract(epoch from clock_timestamp() - a.xact_start)::double precision as age
    from pg_stat_activity a
    where a.backend_type = 'client backend' and a.pid <> pg_backend_pid() and a.xact_start is not null
    order by a.xact_start limit 10)
  select coordinator.doctor_grade(o.age, p_warning, p_critical),
         format('Session %s of role "%s" (%s, database "%s") has had an open transaction for %s; it is %s%s',
                o.pid, o.usename, o.application_name, o.datname, coordinator.doctor_age(o.age), o.state, coordinator.doctor_statement(o.query, o.usename)),
         format('Commit it or roll it back; otherwise end the session: select pg_terminate_backend(%s)', o.pid)
  from opened o where o.age >= p_warning
  union all
  select 'ok', format('The oldest transaction has been open for %s.', coordinator.doctor_age(coalesce(max(o.age), 0))), null
  from opened o having coalesce(max(o.age), 0) < p_warning
$$;
comment on function coordinator.doctor_transactions(double precision, double precision) is
  'List the ten oldest open transactions. Internal.';

create or replace function coordinator.doctor_prepared_transactions(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with prepared as (
    select p.*, extract(epoch from clock_timestamp() - p.prepared)::double precision as age
    from pg_prepared_xacts p order by p.prepared limit 10)
  select coordinator.doctor_grade(p.age, p_warning, p_critical),
         format('Transaction "%s" of role "%s" in database "%s" was prepared %s ago, and is neither committed nor rolled back.',
                p.gid, p.owner, p.database, coordinator.doctor_age(p.age)),
         format('Finish it in that database, as its coordinator decided: commit prepared %L, or rollback prepared %1$L', p.gid)
  from prepared p where p.age >= p_warning
  union all
  select 'ok', format('Prepared transactions: %s.', count(*)), null from prepared p having count(*) filter (where p.age >= p_warning) = 0
$$;
comment on function coordinator.doctor_prepared_transactions(double precision, double precision) is
  'List the ten oldest prepared transactions. Internal.';

create or replace function coordinator.doctor_snapshots(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with holders (age, who, remedy) as (
    select age(a.backend_xmin), format('Session %s of role "%s" (%s)', a.pid, a.usename, a.application_name),
           format('End its transaction, or end the session: select pg_terminate_backend(%s)', a.pid)
    from pg_stat_activity a where a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
    union all
    select age(p.transaction), format('Prepared transaction "%s"', p.gid), format('commit prepared %L, or rollback prepared %1$L', p.gid)
    from pg_prepared_xacts p
    union all
    select greatest(age(s.xmin), age(s.catalog_xmin)), format('Replication slot "%s"', s.slot_name),
           format('Restart its consumer, or drop the slot: select pg_drop_replication_slot(%L)', s.slot_name)
    from pg_replication_slots s
    union all
    select age(r.backend_xmin), format('Standby "%s" (hot_standby_feedback)', r.application_name),
           'End the old query on the standby, or switch off hot_standby_feedback there.'
    from pg_stat_replication r),
  largest as (
    select h.* from holders h where h.age is not null order by h.age desc limit 5)
  select coordinator.doctor_grade(l.age, p_warning, p_critical),
         format('%s holds a snapshot that is %s transactions old. Vacuum cannot remove rows that died since.', l.who, l.age), l.remedy
  from largest l where l.age >= p_warning
  union all
  select 'ok', format('The oldest snapshot is %s transactions old.', coalesce(max(l.age), 0)), null from largest l having coalesce(max(l.age), 0) < p_warning
$$;
comment on function coordinator.doctor_snapshots(double precision, double precision) is
  'List the holders of the five oldest snapshots. Internal.';

create or replace function coordinator.doctor_waits(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with waiting as materialized (
    select l.pid, min(l.waitstart) as since, extract(epoch from clock_timestamp() - min(l.waitstart))::double precision as age
    from pg_locks l where not l.granted group by l.pid order by min(l.waitstart) limit 10)
  select coordinator.doctor_grade(w.age, p_warning, p_critical),
         format('Session %s of role "%s" has waited for %s for %s%s', w.pid, a.usename, coordinator.doctor_age(w.age),
                coalesce('session ' || array_to_string(b.pids, ', '), 'another session'), coordinator.doctor_statement(a.query, a.usename)),
         case when b.pids is null then 'Run the check again.' else format('Commit the blocking transaction, or end its session: select pg_terminate_backend(%s)', b.pids[1]) end
  from waiting w
  join pg_stat_activity a on a.pid = w.pid
  cross join lateral (select nullif(pg_blocking_pids(w.pid), '{}')) b (pids)
  where w.age >= p_warning
  union all
  select 'ok', format('Sessions that wait for a PostgreSQL lock: %s.', count(*)), null from waiting w having count(*) filter (where w.age >= p_warning) = 0
$$;
comment on function coordinator.doctor_waits(double precision, double precision) is
  'List the ten sessions that have waited longest for another one. Internal.';

-- Keys that have a name. Keys of paths are omitted: they are hashes of millions of possible paths.
create or replace function coordinator.doctor_advisory_names() returns table (key bigint, name text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with projects as (
    select p.id, p.name from coordinator.projects p order by p.id limit 1000),
  queues as (
    select p.id, p.name, q.name as queue from projects p join coordinator.queues q on q.project_id = p.id limit 1000)
  values (hashtextextended('coordinator.schema', 0), 'the schema ("coordinator schema apply", or a backup)'),
         (hashtextextended('coordinator.partitions', 0), 'the partitions, which stay while a backup reads them')
  union all
  select hashtextextended(format('coordinator.%s:%s', k, p.id), 0), format('"%s" of project "%s"', k, p.name)
  from projects p cross join unnest(array['lock_queue', 'job_limits', 'job_classes', 'job_cycle', 'job_lock_turns']) k
  union all
  select hashtextextended('', p.id), format('all paths of project "%s"', p.name) from projects p
  union all
  select hashtextextended(format('coordinator.%s:%s:%s', k, q.id, q.queue), 0), format('"%s" of queue "%s" of project "%s"', k, q.queue, q.name)
  from queues q cross join unnest(array['queue', 'queue_room']) k
$$;
comment on function coordinator.doctor_advisory_names() is
  'List the named advisory locks of the schema, for up to 1,000 projects and queues. Internal.';

create or replace function coordinator.doctor_advisory_keys(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with held as materialized (
    select l.pid, a.usename, a.application_name, l.objsubid, l.objid::bigint as object,
           (l.classid::bigint << 32) | l.objid::bigint as key, l.classid::bigint = 1129267026 and l.objsubid = 2 as liveness,
           extract(epoch from clock_timestamp() - coalesce(a.xact_start, a.state_change, a.backend_start))::double precision as age
    from pg_locks l join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.granted and l.pid <> pg_backend_pid()
      and l.database = (select d.oid from pg_database d where d.datname = current_database())),
  named as (
    select h.*, n.name from held h join coordinator.doctor_advisory_names() n on n.key = h.key where h.objsubid = 1),
  wrong as (
    select n.pid, n.usename, n.application_name, n.age, 'the key of ' || n.name as what from named n
    union all
    select h.pid, h.usename, h.application_name, h.age, format('the liveness key of process %s, which is not registered', h.object) from held h
    where h.liveness and not exists (select from coordinator.processes p where p.id = h.object))
  select coordinator.doctor_grade(w.age, p_warning, p_critical),
         format('Session %s of role "%s" (%s) has held %s for %s.', w.pid, w.usename, w.application_name, w.what, coordinator.doctor_age(w.age)),
         format('Let it finish, or end it: select pg_terminate_backend(%s)', w.pid)
  from wrong w where w.age >= p_warning
  union all
  select 'ok',
         concat(format('Registered processes that hold their liveness keys: %s.', (select count(*) from held h where h.liveness)),
                (select format(' Other advisory keys are held by sessions %s.', string_agg(distinct h.pid::text, ', ')) from held h
                 where not h.liveness and h.age >= p_warning having count(*) > 0)),
         null
  where not exists (select from wrong w where w.age >= p_warning)
$$;
comment on function coordinator.doctor_advisory_keys(double precision, double precision) is
  'List sessions that hold advisory locks of the schema for a long time. Internal.';

create or replace function coordinator.doctor_notifications(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.doctor_grade(u.share, p_warning, p_critical),
         format('The notification queue is %s %% full%s', round((100 * u.share)::numeric, 1),
                case when u.share < p_warning then '.' else coalesce(': session ' || o.pid || ' may listen, and has had a transaction open for ' || coordinator.doctor_age(o.age) || '.', '.') end),
         case when u.share >= p_warning then 'End the listener that does not read. It is a session with an open transaction: see the finding "transactions".' end
  from pg_notification_queue_usage() u (share)
  left join lateral (
    select a.pid, extract(epoch from clock_timestamp() - a.xact_start)::double precision as age from pg_stat_activity a
    where a.datname = current_database() and a.backend_type = 'client backend' and a.xact_start is not null and a.pid <> pg_backend_pid()
    order by a.xact_start limit 1) o on true
$$;
comment on function coordinator.doctor_notifications(double precision, double precision) is
  'Measure the NOTIFY queue. Internal.';
