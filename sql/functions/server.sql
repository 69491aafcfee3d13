-- The server: PostgreSQL's own facts, as metrics (see metric.sql). Its statistics of other sessions and standbys are complete if the owner
-- of the schema is a member of pg_monitor; else what is hidden from the owner is left out.

insert into coordinator.rights (function, role) values
  ('server_calls', 'reader');

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_postgres_connections', 'server_sample', 'gauge', '{state}', '', 'Sessions in this database: active, idle, idle in transaction and so on; hidden: of a role that the owner of the schema may not watch.'),
  ('coordinator_postgres_connections_max', 'server_sample', 'gauge', '{}', '', 'Sessions that the server admits in all databases.'),
  ('coordinator_postgres_oldest_transaction_seconds', 'server_sample', 'gauge', '{}', 'seconds', 'Age of the oldest open transaction of any session, prepared ones included.'),
  ('coordinator_postgres_oldest_snapshot_transactions', 'server_sample', 'gauge', '{}', 'transactions', 'How many transactions ago the oldest snapshot was taken that keeps dead rows from being removed: of a session, a prepared transaction, a slot or a standby.'),
  ('coordinator_postgres_frozen_age_transactions', 'server_sample', 'gauge', '{}', 'transactions', 'Age of the oldest row that is not frozen; the server stops writing at 2 billion.'),
  ('coordinator_postgres_lock_waits', 'server_sample', 'gauge', '{}', '', 'Sessions that wait for a lock of the server.'),
  ('coordinator_postgres_lock_wait_oldest_seconds', 'server_sample', 'gauge', '{}', 'seconds', 'For how long the first of them has waited.'),
  ('coordinator_postgres_notification_queue_ratio', 'server_sample', 'gauge', '{}', '', 'Used share of the queue of NOTIFY, which the slowest listener holds up.'),
  ('coordinator_postgres_database_bytes', 'server_sample', 'gauge', '{}', 'bytes', 'Size of the database.'),
  ('coordinator_postgres_transactions_total', 'server_sample', 'counter', '{end}', '', 'Transactions of this database: committed or rolled back.'),
  ('coordinator_postgres_blocks_total', 'server_sample', 'counter', '{from}', '', 'Blocks that were found in the cache, or read.'),
  ('coordinator_postgres_deadlocks_total', 'server_sample', 'counter', '{}', '', 'Deadlocks that the server resolved.'),
  ('coordinator_postgres_temporary_bytes_total', 'server_sample', 'counter', '{}', 'bytes', 'Temporary files that were written.'),
  ('coordinator_postgres_wal_bytes_total', 'server_sample', 'counter', '{}', 'bytes', 'WAL that was written, by all databases of the server.'),
  ('coordinator_postgres_replication_lag_bytes', 'server_sample', 'gauge', '{standby}', 'bytes', 'WAL that a standby has not replayed yet.'),
  ('coordinator_postgres_replication_lag_seconds', 'server_sample', 'gauge', '{standby}', 'seconds', 'How late a standby replays; 0: all is replayed.'),
  ('coordinator_postgres_slot_retained_bytes', 'server_sample', 'gauge', '{}', 'bytes', 'WAL that the server keeps for the replication slot that is furthest behind.'),
  ('coordinator_table_rows', 'table_sample', 'gauge', '{table}', '', 'Rows of a table, as the statistics of the server have them; partitions count as their table.'),
  ('coordinator_table_dead_rows', 'table_sample', 'gauge', '{table}', '', 'Its dead rows, which vacuum has not removed yet.'),
  ('coordinator_table_bytes', 'table_sample', 'gauge', '{table}', 'bytes', 'Its size with indexes.'),
  ('coordinator_postgres_statement_calls_total', 'statement_sample', 'counter', '{function}', '', 'Statements that call this function of the schema first, or none of them (other); only with pg_stat_statements.'),
  ('coordinator_postgres_statement_seconds_total', 'statement_sample', 'counter', '{function}', 'seconds', 'Time that they took in the server.');

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
    select 'coordinator_postgres_oldest_transaction_seconds', '{}', coalesce(max(extract(epoch from v_now - x.began_at)), 0)::double precision
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
    from (select count(*) as n, coalesce(max(extract(epoch from v_now - l.waitstart)), 0) as age from pg_locks l where not l.granted) w
    cross join lateral (values ('coordinator_postgres_lock_waits', w.n), ('coordinator_postgres_lock_wait_oldest_seconds', w.age)) m (name, value)
    union all
    select 'coordinator_postgres_notification_queue_ratio', '{}', pg_notification_queue_usage()
    union all
    select 'coordinator_postgres_database_bytes', '{}', pg_database_size(current_database())::double precision
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

-- Texts of statements would show what users and administrators write, and /metrics is open: only the names of our functions are shown.
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
exception when object_not_in_prerequisite_state then -- it is not in shared_preload_libraries
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
  'List calls by function of the schema: how many run now and for how long the longest has, and, where pg_stat_statements is there, how many ended and how many seconds they took since its figures were reset. At most 51 functions besides those that run; "other" is what calls none of ours.';
