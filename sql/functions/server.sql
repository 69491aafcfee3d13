-- The server: PostgreSQL's own facts as metrics (see metric.sql). Statistics of other sessions and standbys are complete if the owner
-- of the schema is a member of pg_monitor; otherwise, those that the owner may not see are omitted.

insert into coordinator.rights (function, role) values
  ('server_calls', 'reader'),
  ('server_sizes', 'reader');

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_postgres_connections', 'server_sample', 'gauge', '{state}', '', 'Sessions in this database by state: active, idle, idle in transaction and so on; hidden: the owner of the schema may not see the state.'),
  ('coordinator_postgres_connections_max', 'server_sample', 'gauge', '{}', '', 'Maximum number of sessions on the server, in all databases.'),
  ('coordinator_postgres_oldest_transaction_seconds', 'server_sample', 'gauge', '{}', 'seconds', 'Age of the oldest open transaction of any session, including prepared transactions.'),
  ('coordinator_postgres_oldest_snapshot_transactions', 'server_sample', 'gauge', '{}', 'transactions', 'Age of the oldest snapshot that prevents the removal of dead rows, held by a session, a prepared transaction, a replication slot or a standby.'),
  ('coordinator_postgres_frozen_age_transactions', 'server_sample', 'gauge', '{}', 'transactions', 'Age of the oldest row that is not frozen; the server stops accepting writes at 2 billion.'),
  ('coordinator_postgres_lock_waits', 'server_sample', 'gauge', '{}', '', 'Sessions waiting for a PostgreSQL lock.'),
  ('coordinator_postgres_lock_wait_oldest_seconds', 'server_sample', 'gauge', '{}', 'seconds', 'Longest time that a session has been waiting for a PostgreSQL lock.'),
  ('coordinator_postgres_notification_queue_ratio', 'server_sample', 'gauge', '{}', '', 'Used share of the NOTIFY queue, which the slowest listener holds back.'),
  ('coordinator_postgres_database_bytes', 'server_sample', 'gauge', '{}', 'bytes', 'Size of the database.'),
  ('coordinator_postgres_database_max_bytes', 'server_sample', 'gauge', '{}', 'bytes', 'Maximum size of the database: database_max_bytes, or what the disk of the embedded server holds, as last measured; absent if neither is known.'),
  ('coordinator_postgres_transactions_total', 'server_sample', 'counter', '{end}', '', 'Transactions in this database, committed or rolled back.'),
  ('coordinator_postgres_blocks_total', 'server_sample', 'counter', '{from}', '', 'Blocks found in the buffer cache, or read into it.'),
  ('coordinator_postgres_deadlocks_total', 'server_sample', 'counter', '{}', '', 'Deadlocks that PostgreSQL resolved.'),
  ('coordinator_postgres_temporary_bytes_total', 'server_sample', 'counter', '{}', 'bytes', 'Data written to temporary files.'),
  ('coordinator_postgres_wal_bytes_total', 'server_sample', 'counter', '{}', 'bytes', 'WAL written by all databases of the server.'),
  ('coordinator_postgres_replication_lag_bytes', 'server_sample', 'gauge', '{standby}', 'bytes', 'WAL that a standby has not replayed yet.'),
  ('coordinator_postgres_replication_lag_seconds', 'server_sample', 'gauge', '{standby}', 'seconds', 'Replay lag of a standby; 0: it has replayed everything.'),
  ('coordinator_postgres_slot_retained_bytes', 'server_sample', 'gauge', '{}', 'bytes', 'WAL retained for the replication slot that is furthest behind.'),
  ('coordinator_table_rows', 'table_sample', 'gauge', '{table}', '', 'Rows of a table according to the server''s statistics; partitions count towards their table.'),
  ('coordinator_table_dead_rows', 'table_sample', 'gauge', '{table}', '', 'Dead rows of a table that vacuum has not removed yet.'),
  ('coordinator_table_bytes', 'table_sample', 'gauge', '{table}', 'bytes', 'Size of a table with its indexes.'),
  ('coordinator_postgres_statement_calls_total', 'statement_sample', 'counter', '{function}', '', 'Executed statements, by the first function of the schema that they call; other: they call none. Requires pg_stat_statements.'),
  ('coordinator_postgres_statement_seconds_total', 'statement_sample', 'counter', '{function}', 'seconds', 'Execution time of statements, by the first function of the schema that they call; other: they call none. Requires pg_stat_statements.');

create or replace function coordinator.server_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := clock_timestamp();
  v_end pg_lsn := case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end;
begin
  return query
    select 'coordinator_postgres_connections', array[coalesce(a.state, 'hidden')], count(*)::double precision
    from pg_stat_activity a where a.datname = current_database() group by a.state
    union all
    select 'coordinator_postgres_connections_max', '{}', current_setting('max_connections')::double precision
    union all
    select 'coordinator_postgres_oldest_transaction_seconds', '{}', greatest(max(extract(epoch from v_now - x.began_at)), 0)::double precision
    from (select a.xact_start from pg_stat_activity a where a.backend_type = 'client backend' and a.pid <> pg_backend_pid()
          union all select p.prepared from pg_prepared_xacts p) x (began_at)
    union all
    select 'coordinator_postgres_oldest_snapshot_transactions', '{}', coalesce(max(x.age), 0)::double precision
    from (select age(a.backend_xmin) from pg_stat_activity a where a.pid <> pg_backend_pid()
          union all select age(p.transaction) from pg_prepared_xacts p
          union all select greatest(age(s.xmin), age(s.catalog_xmin)) from pg_replication_slots s) x (age)
    union all
    select 'coordinator_postgres_frozen_age_transactions', '{}', age(d.datfrozenxid)::double precision from pg_database d where d.datname = current_database()
    union all
    select m.name, '{}', m.value
    from (select count(*) as n, greatest(max(extract(epoch from v_now - l.waitstart)), 0) as age from pg_locks l where not l.granted) w
    cross join lateral (values ('coordinator_postgres_lock_waits', w.n), ('coordinator_postgres_lock_wait_oldest_seconds', w.age)) m (name, value)
    union all
    select 'coordinator_postgres_notification_queue_ratio', '{}', pg_notification_queue_usage()
    union all
    select 'coordinator_postgres_database_bytes', '{}', pg_database_size(current_database())::double precision
    union all
    select 'coordinator_postgres_database_max_bytes', '{}', g.bytes::double precision from coordinator.server_growth() g where g.kind = 'limit'
    union all
    select m.name, m.labels, m.value
    from pg_stat_database d
    cross join lateral (values
      ('coordinator_postgres_transactions_total', array['committed'], d.xact_commit),
      ('coordinator_postgres_transactions_total', array['rolled back'], d.xact_rollback),
      ('coordinator_postgres_blocks_total', array['cache'], d.blks_hit),
      ('coordinator_postgres_blocks_total', array['read'], d.blks_read),
      ('coordinator_postgres_deadlocks_total', '{}', d.deadlocks),
      ('coordinator_postgres_temporary_bytes_total', '{}', d.temp_bytes)) m (name, labels, value)
    where d.datname = current_database()
    union all
    select 'coordinator_postgres_wal_bytes_total', '{}', w.wal_bytes::double precision from pg_stat_wal w;
  return query
    with standbys as (
      select coordinator.metric_label(s.application_name, row_number() over (order by s.replay_lsn, s.pid)) as standby,
             pg_wal_lsn_diff(v_end, s.replay_lsn) as bytes, coalesce(extract(epoch from s.replay_lag), 0) as seconds
      from pg_stat_replication s where s.replay_lsn is not null),
    shown as (
      select s.standby, max(s.bytes) as bytes, max(s.seconds) as seconds from standbys s group by s.standby)
    select m.name, array[s.standby], m.value::double precision
    from shown s
    cross join lateral (values ('coordinator_postgres_replication_lag_bytes', s.bytes), ('coordinator_postgres_replication_lag_seconds', s.seconds)) m (name, value);
  return query
    select 'coordinator_postgres_slot_retained_bytes', '{}'::text[],
           coalesce(max(pg_wal_lsn_diff(v_end, s.restart_lsn)), 0)::double precision
    from pg_replication_slots s;
end
$$;
comment on function coordinator.server_sample(timestamptz) is
  'Sample the metrics of the server. Internal.';

create or replace function coordinator.table_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    with relations as (
      select coalesce(p.relname, c.relname) as relname, s.n_live_tup as live, s.n_dead_tup as dead, pg_total_relation_size(c.oid) as bytes
      from pg_class c
      left join pg_stat_all_tables s on s.relid = c.oid
      left join pg_inherits i on i.inhrelid = c.oid
      left join pg_inherits u on u.inhrelid = i.inhparent -- partitions of partitions
      left join pg_class p on p.oid = coalesce(u.inhparent, i.inhparent)
      where c.relnamespace = 'coordinator'::regnamespace and c.relkind = 'r'),
    summed as (
      select r.relname, sum(r.live) as live, sum(r.dead) as dead, sum(r.bytes) as bytes from relations r group by r.relname)
    select m.name, array[s.relname::text], coalesce(m.value, 0)::double precision
    from summed s
    cross join lateral (values ('coordinator_table_rows', s.live), ('coordinator_table_dead_rows', s.dead), ('coordinator_table_bytes', s.bytes)) m (name, value);
end
$$;
comment on function coordinator.table_sample(timestamptz) is
  'Sample the metrics of tables. Internal.';

-- Texts of statements would reveal what users and administrators write, and /metrics is public. So only names of the schema's functions are shown.
create or replace function coordinator.statement_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_schema text := (select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace where e.extname = 'pg_stat_statements');
begin
  if v_schema is null then
    return;
  end if;
  return query execute format($sql$
    with named as (
      select coalesce(substring(s.query from 'coordinator\.([a-z_]{1,63})\('), 'other') as function, s.calls, s.total_exec_time
      from %I.pg_stat_statements s where s.dbid = (select oid from pg_database where datname = current_database()) and s.toplevel),
    summed as (
      select n.function, sum(n.calls) as calls, sum(n.total_exec_time) / 1000 as seconds from named n group by n.function),
    placed as (
      select coordinator.metric_label(s.function, row_number() over (order by s.seconds desc)) as function, s.calls, s.seconds from summed s)
    select m.name, array[p.function], sum(m.value)::double precision
    from placed p
    cross join lateral (values ('coordinator_postgres_statement_calls_total', p.calls::double precision),
                               ('coordinator_postgres_statement_seconds_total', p.seconds::double precision)) m (name, value)
    group by m.name, p.function$sql$, v_schema);
exception when object_not_in_prerequisite_state then -- pg_stat_statements is not in shared_preload_libraries
  return;
end
$$;
comment on function coordinator.statement_sample(timestamptz) is
  'Sample the metrics of statements, where pg_stat_statements is there. Internal.';

create or replace function coordinator.server_calls()
returns table (function text, running bigint, longest_seconds double precision, calls double precision, seconds double precision)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.everywhere_check();
  return query
    with running as (
      select coalesce(substring(a.query from 'coordinator\.([a-z_]{1,63})\('), 'other') as function, count(*) as n,
             max(extract(epoch from clock_timestamp() - a.query_start))::double precision as longest
      from pg_stat_activity a
      where a.datname = current_database() and a.state = 'active' and a.pid <> pg_backend_pid() and a.backend_type = 'client backend' group by 1),
    ended as (
      select s.labels[1] as function, sum(s.value) filter (where s.name = 'coordinator_postgres_statement_calls_total') as calls,
             sum(s.value) filter (where s.name = 'coordinator_postgres_statement_seconds_total') as seconds
      from coordinator.statement_sample(null) s group by 1)
    select coalesce(r.function, e.function), coalesce(r.n, 0), r.longest, e.calls, e.seconds
    from running r full join ended e on e.function = r.function order by 1;
end
$$;
comment on function coordinator.server_calls() is
  'List calls by function of the schema: how many run now, and how long the longest has been running; with pg_stat_statements, also how many have ended and their total seconds since the statistics were reset. The list has at most 51 functions besides the running ones; "other" stands for statements that call no function of the schema.';

-- Sizes, day by day. The leading daemon measures every hour. The last measurement of a day is kept as its row, and the newest 60 days
-- are kept. Days are counted, not compared with the clock: if the clock jumps forward or back, no history is lost; rows that lie in the
-- future are deleted.
create or replace function coordinator.server_measure(p_limit_bytes bigint default null, p_free_bytes bigint default null) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms' -- another daemon is measuring at the moment
set jit = off
as $$
declare
  v_now      timestamptz := coordinator.now_utc();
  v_day      date := (v_now at time zone 'UTC')::date;
  v_size     bigint := pg_database_size(current_database());
  v_logs     double precision := coordinator.metric_share('coordinator.logs', 32768);
  v_versions double precision := coordinator.metric_share('coordinator.document_versions', 32768);
  v_count    integer;
begin
  delete from coordinator.sizes s
  where s.day = v_day
     or s.day > v_day and (select count(distinct o.day) filter (where o.day > v_day) < count(distinct o.day) filter (where o.day < v_day) from coordinator.sizes o);
  insert into coordinator.sizes (day, kind, name, bytes, measured_at)
  with entries as (
    select l.project_id, sum(l.count) / v_logs as n from coordinator.logs l tablesample system (100 * v_logs) group by l.project_id),
  used (project_id, bytes) as (
    select u.project_id, u.bytes::double precision from coordinator.artifact_usage u
    union all
    select e.project_id, e.n * pg_total_relation_size('coordinator.entries') / greatest(1, sum(e.n) over ()) from entries e
    union all
    select d.project_id, sum(100 + coalesce(pg_column_size(v.value), 0) + coalesce(pg_column_size(v.raw), 0)) / v_versions
    from coordinator.document_versions v tablesample system (100 * v_versions) join coordinator.documents d on d.id = v.document_id group by d.project_id),
  projects as (
    select p.name, sum(u.bytes)::bigint as bytes from used u join coordinator.projects p on p.id = u.project_id
    group by p.name having sum(u.bytes) >= 1e6 order by sum(u.bytes) desc, p.name limit 50)
  select v_day, f.kind, f.name, f.bytes, v_now
  from (select 'database', '', v_size
        union all
        select 'limit', '', least(p_limit_bytes, v_size + p_free_bytes) where coalesce(p_limit_bytes, p_free_bytes) is not null
        union all
        select 'table', s.labels[1], s.value::bigint from coordinator.table_sample(null) s where s.name = 'coordinator_table_bytes' and s.value >= 1e6
        union all
        select 'project', p.name, p.bytes from projects p) f (kind, name, bytes);
  get diagnostics v_count = row_count;
  delete from coordinator.sizes s where s.day <= (select d.day from (select distinct o.day from coordinator.sizes o) d order by d.day desc limit 1 offset 60);
  return v_count;
exception when lock_not_available or unique_violation then
  return 0;
end
$$;
comment on function coordinator.server_measure(bigint, bigint) is
  'Measure the database, its tables and its projects, and keep it as the sizes of today; returns how many there are, 0 if another daemon measures now. p_limit_bytes: maximum size of the database; p_free_bytes: free space on its disk. Internal: the leading daemon calls it. No event.';

create or replace function coordinator.server_growth()
returns table (kind text, name text, bytes bigint, day_bytes bigint, week_bytes bigint, measured_at timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with days as (
    select s.day, s.measured_at from coordinator.sizes s
    where s.kind = 'database' and s.measured_at <= coordinator.now_utc() + interval '1 minute'),
  newest as (
    select d.day, d.measured_at from days d order by d.day desc limit 1),
  then_ as (
    select p.span, b.day, extract(epoch from p.span) / extract(epoch from n.measured_at - b.measured_at) as factor
    from newest n
    -- The last measurement of a day may be long before midnight, so a row of the previous day is up to 42 hours old.
    cross join (values (interval '1 day', interval '18 hours'), (interval '7 days', interval '6 days 12 hours')) p (span, least)
    cross join lateral (
      select d.day, d.measured_at from days d where d.measured_at <= n.measured_at - p.least order by d.day desc limit 1) b)
  select s.kind, s.name, s.bytes, g.day_bytes, g.week_bytes, s.measured_at
  from newest n
  join coordinator.sizes s on s.day = n.day
  cross join lateral (
    select max(grown) filter (where t.span = interval '1 day') as day_bytes, max(grown) filter (where t.span = interval '7 days') as week_bytes
    from then_ t
    left join coordinator.sizes o on o.day = t.day and o.kind = s.kind and o.name = s.name
    cross join lateral (select round((s.bytes - coalesce(o.bytes, 0)) * t.factor)::bigint) c (grown)
    where s.kind <> 'limit') g
  order by array_position('{database,limit,table,project}', s.kind), s.bytes desc, s.name
$$;
comment on function coordinator.server_growth() is
  'Return the result of server_sizes, without a check of rights. Internal.';

create or replace function coordinator.server_sizes()
returns table (kind text, name text, bytes bigint, day_bytes bigint, week_bytes bigint, measured_at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.everywhere_check();
  return query select * from coordinator.server_growth();
end
$$;
comment on function coordinator.server_sizes() is
  'List the sizes of the database, its tables and its projects as last measured (the leading daemon measures every hour), and the growth of each in a day and in a week; null: not known yet. kind: database; limit, the maximum size of the database, if it has one; table; project, an estimate of its artifacts, logs and documents. Tables and projects below 1 MB are omitted, as are projects beyond the 50 largest.';
