-- Retention of ended jobs. Ended jobs are in partitions by the day of their end (UTC). Completed jobs have partitions of their own, so
-- that each kind has its own retention, and a day is dropped as a whole.
--
-- The leader creates partitions for the days ahead. If no leader has run for a week, ended jobs go to a default partition, from which
-- job_prune deletes in batches. To attach another partition, PostgreSQL scans the default partition under a lock that blocks the ends
-- of jobs in it: 0.7 seconds for a million rows. While the default partition has rows, a partition is therefore created for tomorrow
-- only: no job can have ended there yet.
--
-- Past days get an index on the payload (job_index). On the current day, it would make each completion too expensive.
--
-- A daemon with an archive copies the jobs that job_prunable lists, verifies the copy, and prunes exactly what it has copied.

create or replace function coordinator.job_extend(p_ahead integer default 7) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms' -- while a transaction waits for this lock, it blocks readers of the default partition
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_made  integer := 0;
  v_root  text;
  v_name  text;
  v_from  timestamptz;
  v_until timestamptz;
  v_used  boolean;
  v_full  boolean;
begin
  if not coordinator.partition_turn() then
    return 0; -- a backup runs; jobs without a partition go to the default one
  end if;
  for v_from, v_root in
    select (v_now at time zone 'UTC')::date::timestamp at time zone 'UTC' + n * interval '24 hours', r
    from generate_series(0, p_ahead) n, unnest('{jobs_completed,jobs_uncompleted}'::text[]) r order by 1, 2
  loop
    v_until := v_from + interval '24 hours';
    v_name := v_root || to_char(v_from at time zone 'UTC', '_YYYYMMDD');
    continue when to_regclass('coordinator.' || v_name) is not null;
    execute format('select exists (select from coordinator.%I), exists (select from coordinator.%1$I where completed_at >= $1 and completed_at < $2)',
                   v_root || '_default') into v_used, v_full using v_from, v_until;
    continue when v_full or v_used and v_from > v_now + interval '24 hours';
    begin
      -- Attached, not created in place: attaching locks out neither writers nor readers of the other partitions.
      execute format('create table coordinator.%I (like coordinator.%I including all)', v_name, v_root);
      execute format('alter table coordinator.%I attach partition coordinator.%I for values from (%L) to (%L)', v_root, v_name, v_from, v_until);
      execute format('comment on table coordinator.%I is %L', v_name,
                     format('Jobs that ended on %s, see %s.', (v_from at time zone 'UTC')::date, v_root));
    exception when lock_not_available then
      if v_from > v_now + interval '24 hours' then
        exit; -- a transaction is reading the whole history; try again later
      end if;
      raise;
    end;
    v_made := v_made + 1;
  end loop;
  return v_made;
end
$$;
comment on function coordinator.job_extend(integer) is
  'Create the partitions of ended jobs for today and the next p_ahead days; return how many. The leader calls it. Without them, jobs end in a default partition, which is slower to prune.';

create or replace function coordinator.job_index() returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '50ms'
set maintenance_work_mem = '64MB'
as $$
declare
  v_name text;
begin
  select c.relname into v_name
  from pg_inherits i join pg_class c on c.oid = i.inhrelid
  where i.inhparent in ('coordinator.jobs_completed'::regclass, 'coordinator.jobs_uncompleted'::regclass)
    and c.relname ~ '_\d{8}$' and right(c.relname, 8) < to_char(coordinator.now_utc() at time zone 'UTC', 'YYYYMMDD')
    and pg_relation_size(c.oid) between 1 and 1 << 28
    and not exists (select from pg_index x join pg_class g on g.oid = x.indexrelid join pg_am a on a.oid = g.relam
                    where x.indrelid = c.oid and a.amname = 'gin')
  order by right(c.relname, 8) desc, c.relname limit 1;
  if not found then
    return 0;
  end if;
  execute format('create index %I on coordinator.%I using gin (payload jsonb_path_ops)', v_name || '_payload_idx', v_name);
  return 1;
end
$$;
comment on function coordinator.job_index() is
  'Index the payloads of the newest day that is over and has no such index, for job_list; returns how many days. Repeat until 0. Nobody ends jobs there any more, and readers do not wait; job_retry of a job of that day does. A day of more than 256 MB, about a million jobs, gets no index: building it would hold a snapshot for too long.';

create or replace function coordinator.job_prunable(p_completed interval, p_other interval)
returns table (relation text, until timestamptz, whole boolean)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_root text;
begin
  perform coordinator.check_ttl(p_completed);
  perform coordinator.check_ttl(p_other);
  for v_root, until in
    select v.root, ((coordinator.now_utc() - v.retention) at time zone 'UTC')::date::timestamp at time zone 'UTC'
    from (values ('jobs_completed', p_completed), ('jobs_uncompleted', p_other)) v (root, retention)
  loop
    whole := true;
    select min(c.relname) into relation
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = ('coordinator.' || v_root)::regclass and c.relname < v_root || to_char(until at time zone 'UTC', '_YYYYMMDD');
    if relation is not null then
      return next;
    end if;
    relation := v_root || '_default';
    execute format('select not exists (select from coordinator.%I where completed_at < $1)', relation) into whole using until;
    if not whole then
      return next;
    end if;
  end loop;
end
$$;
comment on function coordinator.job_prunable(interval, interval) is
  'List what may be pruned: the oldest day of completed jobs that all ended more than p_completed ago, that of other jobs by p_other, as a whole partition; and default partitions with jobs that ended before such a day (until). Internal.';

create or replace function coordinator.job_archive_list(p_relation text, p_until timestamptz, p_after text[] default null, p_limit integer default 1000)
returns table (project_id bigint, id uuid, line text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_page(p_limit, p_after, '{number,id}');
  return query execute format(
    'select e.project_id, e.id, (to_jsonb(e) - ''project_id'' || jsonb_build_object(''project'', p.name))::text'
    ' from coordinator.%I e left join coordinator.projects p on p.id = e.project_id'
    ' where (e.project_id, e.id) > ($1, $2) and e.completed_at < $3 order by e.project_id, e.id limit $4',
    (select relname from pg_class where oid = to_regclass(format('coordinator.%I', p_relation)) and relname ~ '^jobs_(un)?completed_(default|\d{8})$'))
    using coalesce(p_after[1]::bigint, 0), coalesce(p_after[2]::uuid, '00000000-0000-0000-0000-000000000000'), p_until, p_limit;
end
$$;
comment on function coordinator.job_archive_list(text, timestamptz, text[], integer) is
  'List jobs of one partition that ended before p_until, each as a JSON object with all that is known of it. p_after: array[project_id, id] of the last row read. Internal.';

create or replace function coordinator.job_prune(
  p_completed interval default '7 days', p_other interval default '30 days', p_limit integer default 10000,
  p_relation text default null, p_archived bigint default null, p_last text[] default null)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_timeout text := current_setting('lock_timeout');
  v_count   integer := 0;
  v_rows    bigint;
  v_old     record;
  v_root    text;
begin
  perform coordinator.check_page(p_limit, p_last, '{number,id}');
  for v_old in
    select o.*, case when o.whole then 'true' else format('completed_at < %L', o.until) end
                || case when p_last is not null then format(' and (project_id, id) <= (%L, %L)', p_last[1], p_last[2]) else '' end as condition
    from coordinator.job_prunable(p_completed, p_other) o where o.relation = coalesce(p_relation, o.relation)
  loop
    if p_archived is not null then -- count before locking; nothing is added to a past day
      execute format('select count(*) from coordinator.%I where %s', v_old.relation, v_old.condition) into v_rows;
      if v_rows <> p_archived then
        raise exception using errcode = 'ZC301', message = format('%s has %s jobs to prune, and %s were archived', v_old.relation, v_rows, p_archived),
          hint = 'Archive them again.';
      end if;
    end if;
    if not v_old.whole then
      execute format('delete from coordinator.%I where ctid = any (array(select ctid from coordinator.%1$I where %s limit %s))',
                     v_old.relation, v_old.condition, p_limit);
      get diagnostics v_rows = row_count;
      v_count := v_count + v_rows;
      continue;
    end if;
    continue when not coordinator.partition_turn();
    v_root := regexp_replace(v_old.relation, '_\d+$', '');
    begin
      perform set_config('lock_timeout', '20ms', true); -- while this waits for its lock, no job can end
      execute format('lock table only coordinator.%I, only coordinator.%I, only coordinator.%I in access exclusive mode',
                     v_root, v_old.relation, v_root || '_default');
      execute format('drop table coordinator.%I', v_old.relation);
      v_count := v_count + 1;
    exception when lock_not_available then
      null; -- the partition is in use; try again at the next run
    end;
    perform set_config('lock_timeout', v_timeout, true);
  end loop;
  return v_count;
end
$$;
comment on function coordinator.job_prune(interval, interval, integer, text, bigint, text[]) is
  'Drop the oldest day of completed jobs if all of them ended more than p_completed ago, and that of other jobs by p_other, unless in use; of days without a partition of their own, delete up to p_limit such jobs. Returns how many days and jobs; repeat until 0. p_relation: only there; p_archived: only if this is their number, up to the place p_last. No event.';

-- For the first jobs, and for databases without a daemon. If a transaction reads the whole history, skip this instead of failing the schema apply.
do $$
begin
  perform coordinator.job_extend();
exception when lock_not_available then
  null;
end
$$;
