-- Upkeep of tables and indexes, in addition to autovacuum, whose settings for each table are in the migrations.

-- If a vacuum finds no row and cannot truncate the table, it leaves statistics that say "empty" for any number of pages, until the next
-- analyze. With them, the planner considers a scan of a whole index as cheap as a lookup of one key, and a call may read the whole
-- table for each of its rows. The indexes and statements of jobs avoid this where they can (see tests/sql/test_job_plans.py); analyzing
-- such tables solves it for all.
create or replace function coordinator.upkeep_misjudged() returns setof regclass
language plpgsql stable security definer -- before PostgreSQL 18, a function in SQL would be planned at each heartbeat that calls it
set search_path = pg_catalog, pg_temp
set enable_seqscan = on
set enable_indexscan = off -- an index scan would read more pages
as $$
begin
  return query
    select c.oid::regclass from pg_class c
    where c.relnamespace = 'coordinator'::regnamespace and c.relkind = 'r' and c.reltuples = 0 and c.relpages > 0
      and pg_stat_get_live_tuples(c.oid) > 1000;
end
$$;
comment on function coordinator.upkeep_misjudged() is
  'Return the tables of more than 1,000 rows that the planner takes for empty. Internal.';

create or replace function coordinator.upkeep_analyze() returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms' -- if somebody is vacuuming the table, that is enough
as $$
declare
  v_table text;
begin
  select c.relname into v_table
  from pg_class c
  where c.relnamespace = 'coordinator'::regnamespace and c.relkind = 'r'
    and (pg_stat_get_mod_since_analyze(c.oid) > greatest(10000, 0.2 * c.reltuples) or c.oid in (select coordinator.upkeep_misjudged()))
    -- Partitions of the log deliberately have no statistics.
    and not coalesce('autovacuum_analyze_threshold=2000000000' = any (c.reloptions), false)
  order by pg_stat_get_mod_since_analyze(c.oid) desc limit 1;
  if not found then
    return 0;
  end if;
  execute format('analyze coordinator.%I', v_table);
  return 1;
exception when lock_not_available then
  return 0;
end
$$;
comment on function coordinator.upkeep_analyze() is
  'Analyze the table of which most rows have changed since it was analyzed, if these are over 10,000 and a fifth of it, as after a large prune, or if the planner takes it for empty; returns how many tables that was. Repeat until 0. Autovacuum would do so at its next round, if it is not behind. Internal. No event: nothing changes.';

create or replace function coordinator.upkeep_indexes(p_least_bytes bigint default 16777216)
returns table (index_name text, table_name text, bytes bigint, needed_bytes bigint, remedy text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with widths as (
    -- For a column, use the statistics of the table; for an expression, those of the index.
    select i.indexrelid, sum(coalesce(s.avg_width, nullif(a.attlen, -1), 16)) as width
    from pg_index i
    join pg_class t on t.oid = i.indrelid
    join pg_class x on x.oid = i.indexrelid
    join pg_attribute a on a.attrelid = i.indexrelid
    left join pg_attribute c on c.attrelid = i.indrelid and c.attnum = i.indkey[a.attnum - 1] and c.attnum > 0
    left join pg_stats s on s.schemaname = 'coordinator' and s.tablename = case when c.attnum is null then x.relname else t.relname end
                        and s.attname = coalesce(c.attname, a.attname)
    where t.relnamespace = 'coordinator'::regnamespace
    group by 1),
  sizes as (
    select x.relname as name, t.relname as of_table, pg_relation_size(x.oid) as bytes,
           -- An entry has 12 bytes of header and pointer, and its size is a multiple of 8; pages are 90% full; one page is metadata.
           8192 * (1 + ceil(greatest(x.reltuples, 0) * (12 + 8 * ceil(w.width / 8)) / 7300))::bigint as needed
    from widths w
    join pg_index i on i.indexrelid = w.indexrelid
    join pg_class x on x.oid = i.indexrelid
    join pg_class t on t.oid = i.indrelid
    join pg_am m on m.oid = x.relam
    where m.amname = 'btree' and pg_relation_size(x.oid) >= p_least_bytes)
  select name, of_table, bytes, needed, format('reindex index concurrently coordinator.%I', name)
  from sizes where bytes > 3 * needed order by bytes - needed desc
$$;
comment on function coordinator.upkeep_indexes(bigint) is
  'List B-tree indexes of at least p_least_bytes that have more than three times the size that their entries need, by the statistics of the last vacuum and analyze, with the statement that rebuilds each beside reads and writes. An index is so large after many rows were deleted in no order. The statement cannot run in a transaction. Internal.';
