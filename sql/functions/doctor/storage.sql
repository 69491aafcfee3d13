-- Checks of tables and indexes: dead rows, bloat, missing statistics, invalid indexes, sizes, and limits that are nearly reached.

insert into coordinator.checks (name, warning, critical, unit, fix, meaning) values
  ('size', null, null, '', null, 'Size of the database and its largest tables.'),
  ('growth', 30, 7, 'days', null, 'How fast the database grows, and in how many days it reaches its size limit or doubles.'),
  ('dead_rows', 1e6, 1e8, 'rows', null, 'Tables with more dead rows than live rows: vacuum does not keep up.'),
  ('bloat', 1e9, 1e11, 'bytes', null, 'Tables that are more than half free space, estimated from statistics.'),
  ('statistics', 1000, null, 'rows', 'analyzes these tables', 'Tables that were never analyzed, or most of whose rows have changed since.'),
  ('indexes', 1e8, null, 'bytes', null, 'Invalid indexes, whose creation was interrupted, and large indexes of three times the size that they need.'),
  ('freezing', 5e8, 1e9, 'transactions', null, 'Age of the oldest unfrozen row. At 2 billion, the server stops accepting writes.'),
  ('limits', 0.9, 1, 'of the limit', null, 'Project limits that are almost reached (see the table limits), and job budgets.');

create or replace function coordinator.doctor_size(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with largest as (
    select s.labels[1] as name, s.value::bigint as bytes from coordinator.table_sample(null) s
    where s.name = 'coordinator_table_bytes' order by s.value desc, s.labels[1] limit 5)
  select 'ok', format('The database has %s; the largest tables are %s.', pg_size_pretty(pg_database_size(current_database())),
                      string_agg(format('%s (%s)', l.name, pg_size_pretty(l.bytes)), ', ' order by l.bytes desc, l.name)),
         null
  from largest l
$$;
comment on function coordinator.doctor_size(double precision, double precision) is
  'Measure the database. Internal.';

create or replace function coordinator.doctor_growth_remedy(p_table text) returns text
language sql stable parallel safe
return case
  when p_table in ('events', 'event_chunks') then 'Lower event_retention.'
  when p_table = 'jobs_ended' then 'Lower job_completed_retention or job_retention.'
  when p_table ~ '^jobs?_' then 'Jobs are enqueued faster than they end: add workers, or limit the queue with "coordinator queue set --max-waiting".'
  when p_table in ('directives', 'directive_receipts') then 'Lower directive_retention.'
  when p_table = 'idempotency_keys' then 'Lower idempotency_retention.'
  when p_table in ('entries', 'logs') then 'Keep log entries for a shorter time: "coordinator retention set log --max-age 30d --everywhere"; for audit trails, "set log audit".'
  when p_table ~ '^document' then 'Keep fewer versions of documents: "coordinator retention set document --max-count 100 --everywhere".'
  when p_table ~ '^artifact' then 'Keep artifacts for a shorter time: "coordinator retention set artifact --max-age 30d --everywhere"; or move their contents to an object store with artifact_store.'
  when p_table = 'sessions' then 'Keep sessions for a shorter time: "coordinator retention set session --max-age 365d --everywhere".'
  else format('Find out what writes to coordinator.%I. See also "dead_rows".', p_table) end;
comment on function coordinator.doctor_growth_remedy(text) is
  'Return what to do about a table that grows. Internal.';

-- The time until the limit is estimated from the faster of the last day and the last week, since reaching the limit is an outage. The
-- time until the size doubles is only worth a warning, for a database of a gigabyte or more. It is estimated from the last week, in
-- which a single import has little effect.
create or replace function coordinator.doctor_growth(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with sizes as (
    select g.*, greatest(g.day_bytes, g.week_bytes / 7.0)::double precision as rate from coordinator.server_growth() g),
  fastest as (
    select s.kind, s.name, s.rate, row_number() over (partition by s.kind order by s.rate desc, s.name) as place
    from sizes s where s.kind in ('table', 'project') and s.rate >= 1),
  named as (
    select string_agg(format('%s (%s a day)', f.name, pg_size_pretty(f.rate::bigint)), ', ' order by f.place) filter (where f.kind = 'table') as tables,
           string_agg(format('%s (%s a day)', f.name, pg_size_pretty(f.rate::bigint)), ', ' order by f.place) filter (where f.kind = 'project') as projects,
           max(coordinator.doctor_growth_remedy(f.name)) filter (where f.kind = 'table' and f.place = 1) as remedy
    from fastest f where f.place <= 3),
  measured as (
    select d.bytes, d.day_bytes, d.week_bytes, d.measured_at, b.bytes as bound, n.*, (b.bytes - d.bytes) / nullif(greatest(d.rate, 0), 0) as days_left,
           case when d.bytes >= 1e9 then d.bytes / (nullif(greatest(d.week_bytes, 0), 0) / 7.0) end as doubling
    from named n left join sizes d on d.kind = 'database' left join sizes b on b.kind = 'limit'),
  graded as (
    select m.*, coordinator.metric_age(m.measured_at) as age,
           case when m.bytes is null then 'unmeasured'
                when m.bytes >= m.bound or m.days_left <= p_critical then 'critical'
                when m.bytes >= 0.9 * m.bound or m.days_left <= p_warning then 'warning'
                when m.doubling <= p_warning then 'doubling'
                when coordinator.metric_age(m.measured_at) > 86400 then 'late'
                else 'ok' end as state
    from measured m)
  select case g.state when 'unmeasured' then 'ok' when 'late' then 'unknown' when 'doubling' then 'warning' else g.state end,
         case g.state when 'unmeasured' then 'No daemon has measured the database yet. Its growth is known after one day of measurements.'
              else concat(
                'The database has ' || pg_size_pretty(g.bytes),
                case when g.age > 86400 then format(' (measured %s ago)', coordinator.doctor_age(g.age)) end,
                case when g.day_bytes is null then '. Its growth is known after one day of measurements'
                     else ' and grew by ' || pg_size_pretty(g.day_bytes) || ' in a day' end,
                ' and by ' || pg_size_pretty(g.week_bytes) || ' in a week',
                '. The tables that grow fastest are ' || g.tables, '; the projects that grow fastest are ' || g.projects,
                '. Its limit is ' || pg_size_pretty(g.bound),
                ', which it will reach in ' || case when g.days_left > 0 and g.state in ('critical', 'warning') then coordinator.doctor_age(86400 * g.days_left) end || ' at that rate',
                case g.state when 'doubling' then '. At that rate it will double in ' || coordinator.doctor_age(86400 * g.doubling) end,
                '.') end,
         case when g.state = 'late' then 'Check "leader", and look for loop.failed with server_measure in the log of the leader.'
              when g.state in ('ok', 'unmeasured') then null
              else coalesce(g.remedy, 'Find out which tables grow: select * from coordinator.server_sizes().')
                   || case when g.state = 'doubling' then '' else ' Otherwise enlarge the disk and raise database_max_bytes.' end end
  from graded g
$$;
comment on function coordinator.doctor_growth(double precision, double precision) is
  'Measure how fast the database grows. Internal.';

create or replace function coordinator.doctor_dead_rows(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with tables as (
    select s.labels[1] as name, max(s.value) filter (where s.name = 'coordinator_table_rows') as live,
           max(s.value) filter (where s.name = 'coordinator_table_dead_rows') as dead
    from coordinator.table_sample(null) s group by 1),
  worst as (
    select t.* from tables t where t.dead >= p_warning and t.dead > t.live order by t.dead desc limit 5)
  select coordinator.doctor_grade(w.dead, p_warning, p_critical),
         format('coordinator.%s has %s dead rows and %s live rows.', w.name, w.dead, w.live),
         format('Check the findings "snapshots" and "transactions", then run: vacuum (verbose, analyze) coordinator.%I', w.name)
  from worst w
  union all
  select 'ok', format('Dead rows in all tables: %s.', sum(t.dead)), null from tables t having not exists (select from worst)
$$;
comment on function coordinator.doctor_dead_rows(double precision, double precision) is
  'List the five tables with the most dead rows. Internal.';

-- The size of a row is estimated as its columns, 24 bytes of header and 4 of pointer. Columns of text and JSON that are stored out of
-- line count as pointers. A table that was never analyzed has no estimate.
create or replace function coordinator.doctor_bloat(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with widths as (
    select s.tablename, sum(s.avg_width * (1 - s.null_frac)) as width from pg_stats s
    where s.schemaname = 'coordinator' and not s.inherited group by s.tablename),
  sizes as (
    select c.relname, pg_relation_size(c.oid)::double precision as bytes, c.reltuples * (28 + w.width) * 1.1 + 8192 as needed
    from pg_class c join widths w on w.tablename = c.relname
    where c.relnamespace = 'coordinator'::regnamespace and c.relkind = 'r' and c.reltuples >= 0),
  bloated as (
    select s.*, s.bytes - s.needed as free from sizes s
    where s.bytes - s.needed >= p_warning and s.bytes > 2 * s.needed order by s.bytes - s.needed desc limit 5)
  select coordinator.doctor_grade(b.free, p_warning, p_critical),
         format('About %s of %s in coordinator.%s is free space.', pg_size_pretty(b.free::bigint), pg_size_pretty(b.bytes::bigint), b.relname),
         format('New rows will use it. To return it to the disk without blocking callers, run: pg_repack -t coordinator.%s (vacuum full blocks them).', b.relname)
  from bloated b
  union all
  select 'ok', format('Tables that are more than half free space: %s.', count(*) filter (where s.bytes > 2 * s.needed)), null
  from sizes s having not exists (select from bloated)
$$;
comment on function coordinator.doctor_bloat(double precision, double precision) is
  'Estimate the free space of the five worst tables. Internal.';

create or replace function coordinator.doctor_unanalyzed(p_rows double precision) returns table (name name, n bigint, changed bigint)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select s.relname, s.n_live_tup, s.n_mod_since_analyze
  from pg_stat_all_tables s
  where s.schemaname = 'coordinator' and s.n_live_tup >= p_rows
    and (s.last_analyze is null and s.last_autoanalyze is null or s.n_mod_since_analyze > greatest(10000, s.n_live_tup))
    and s.relname !~ '^events_[0-9]+$' -- no plan depends on their statistics: see event_extend
  order by s.n_live_tup desc, s.relname
$$;
comment on function coordinator.doctor_unanalyzed(double precision) is
  'List tables with at least this number of rows whose statistics are missing or outdated. Internal.';

create or replace function coordinator.doctor_statistics(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with wrong as (
    select u.name, u.n, u.changed from coordinator.doctor_unanalyzed(p_warning) u limit 10)
  select 'warning', format('The planner has no usable statistics for coordinator.%s: %s rows, %s of them changed since the last analyze.', w.name, w.n, w.changed),
         format('Run "coordinator doctor --fix", or: analyze coordinator.%I', w.name)
  from wrong w
  union all
  select 'ok', 'The planner has statistics for all tables.', null where not exists (select from wrong)
$$;
comment on function coordinator.doctor_statistics(double precision, double precision) is
  'List ten tables that need analyze. Internal.';

create or replace function coordinator.doctor_fix_statistics() returns setof text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name name;
begin
  for v_name in
    select u.name from coordinator.checks c cross join lateral coordinator.doctor_unanalyzed(c.warning) u where c.name = 'statistics' limit 10
  loop
    execute format('analyze coordinator.%I', v_name);
    return next format('analyzed coordinator.%s', v_name);
  end loop;
end
$$;
comment on function coordinator.doctor_fix_statistics() is
  'Analyze ten tables that need it. Internal.';

create or replace function coordinator.doctor_indexes(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with invalid as (
    select c.relname, i.indrelid::regclass as of_table from pg_index i join pg_class c on c.oid = i.indexrelid
    where c.relnamespace = 'coordinator'::regnamespace and not i.indisvalid and c.relkind = 'i' order by c.relname limit 10),
  bloated as (
    select * from coordinator.upkeep_indexes(p_warning::bigint) limit 10)
  select 'warning', format('Index coordinator.%s of %s is invalid: writes maintain it, but no query uses it.', v.relname, v.of_table),
         format('reindex index concurrently coordinator.%I', v.relname)
  from invalid v
  union all
  select 'warning', format('Index coordinator.%s of %s has %s, and needs about %s.', u.index_name, u.table_name, pg_size_pretty(u.bytes),
                           pg_size_pretty(u.needed_bytes)), u.remedy
  from bloated u
  union all
  select 'ok', 'All indexes are valid, and none is bloated.', null where not exists (select from invalid) and not exists (select from bloated)
$$;
comment on function coordinator.doctor_indexes(double precision, double precision) is
  'List ten invalid and ten bloated indexes. Internal.';

create or replace function coordinator.doctor_freezing(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.doctor_grade(a.age, p_warning, p_critical),
         format('The oldest unfrozen row is %s transactions old.', to_char(a.age, 'FM9,999,999,999')),
         case when a.age >= p_warning
              then 'Check the finding "snapshots", then run vacuum (freeze, verbose) on the tables with the greatest age(relfrozenxid).' end
  from (select greatest(age(d.datfrozenxid), mxid_age(d.datminmxid)) from pg_database d where d.datname = current_database()) a (age)
$$;
comment on function coordinator.doctor_freezing(double precision, double precision) is
  'Measure how close the server is to transaction id wraparound. Internal.';

create or replace function coordinator.doctor_limits(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with counted (name, project_id, n) as (
    select 'queues', q.project_id, count(*) from coordinator.queues q group by q.project_id
    union all
    select 'crons', c.project_id, count(*) from coordinator.crons c group by c.project_id
    union all
    select 'job_limits', l.project_id, count(*) from coordinator.job_limits l group by l.project_id
    union all
    select 'job_classes', c.project_id, count(*) from coordinator.job_classes c group by c.project_id
    union all
    select 'webhooks', w.project_id, count(*) from coordinator.webhooks w group by w.project_id
    union all
    select 'artifacts', u.project_id, u.count from coordinator.artifact_usage u
    union all
    select 'artifacts_bytes', u.project_id, u.bytes from coordinator.artifact_usage u),
  shares as (
    select format('%s of %s %s', c.n, l.value, l.unit) as what, l.name, p.name as project, c.n / l.value::double precision as share
    from counted c join coordinator.limits l on l.name = c.name join coordinator.projects p on p.id = c.project_id
    union all
    select format('%s %% of budget "%s"', round((100 * s.value)::numeric), s.labels[2]), 'budget', s.labels[1], s.value
    from coordinator.limit_sample(null) s where s.name = 'coordinator_limit_used_ratio' and s.labels[3] = 'budget'),
  full_ones as (
    select s.* from shares s where s.share >= p_warning order by s.share desc, s.project, s.name limit 20)
  select coordinator.doctor_grade(f.share, p_warning, p_critical),
         format('Project "%s" uses %s (%s).', f.project, f.what, f.name),
         case f.name when 'budget' then 'See "coordinator limit show". If the use is intended, raise the budget with "coordinator limit set".'
                     when 'artifacts' then 'Delete artifacts, or set a retention policy with "coordinator retention set".'
                     when 'artifacts_bytes' then 'Delete artifacts, or set a retention policy with "coordinator retention set".'
                     else 'Delete unused data, or use another project.' end
  from full_ones f
  union all
  select 'ok', format('The highest use of a project limit is %s %%.', coalesce(round((100 * max(s.share))::numeric), 0)), null
  from shares s having not exists (select from full_ones)
$$;
comment on function coordinator.doctor_limits(double precision, double precision) is
  'List twenty project limits that are almost reached. Internal.';
