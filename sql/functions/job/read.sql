-- Reading jobs: one job, a list, attempts, workers, statistics. Everything here also runs on a hot standby.
--
-- Plans are made for the values of each call: a page of a list is a merge of index scans, newest first, and partitions of the history
-- that the conditions exclude are not opened.

insert into coordinator.rights (function, role) values
  ('job_attempts', 'reader'),
  ('job_show',          'reader'),
  ('job_list',         'reader'),
  ('job_stats',        'reader'),
  ('worker_list',      'reader');

insert into coordinator.limits (name, value, unit, meaning) values
  ('job_words',      200,     'characters', 'Search words in a list of jobs.'),
  ('job_period_max', 7776000, 'seconds',    'Longest period of job statistics: 90 days.');

create or replace function coordinator.job_select(p_project text, p_condition text) returns setof coordinator.jobs
language plpgsql stable
set search_path = pg_catalog, pg_temp
set jit = off -- the number of partitions makes JIT look worthwhile
as $$
begin
  return query execute format(
    'select j.id, j.type, j.payload, j.status, j.result, j.error, j.attempts, j.max_attempts, j.created_at, j.updated_at, j.scheduled_at,'
    ' j.started_at, j.completed_at, j.worker_id, j.worker, j.fence, j.queue, j.key, j.priority, j.labels, j.reason, j.percent, j.message,'
    ' j.checkpoint, j.cancel_at, j.start_by, j.dedupe_key, j.parent_id, j.retry_of, j.retried_as, j.actor, j.ended_by, %L,'
    ' coalesce(j.root_id, j.id), coalesce(j.depth, 0), coalesce(j.after, ''{}''),'
    ' case when j.after is not null then coalesce(j.after_mode, ''all'') end, case when j.after is not null then coalesce(j.on_failure, ''cancel'') end, j.cause, coalesce(j.limits, ''{}''), coalesce(j.locks, ''{}''), j.tokens, j.traceparent'
    ' from coordinator.job_rows j where j.project_id = %s and %s', p_project, coordinator.project_id(p_project), p_condition);
end
$$;
comment on function coordinator.job_select(text, text) is
  'Return the jobs of a project that meet a condition, which is SQL about j, a row of job_rows. Internal.';

create or replace function coordinator.job_show(p_project text, p_job uuid) returns setof coordinator.jobs
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return query select * from coordinator.job_select(p_project, format('j.id = %L', p_job));
  if not found then
    perform coordinator.job_find(coordinator.project_id(p_project), p_job);
  end if;
end
$$;
comment on function coordinator.job_show(text, uuid) is
  'Return a job, whether it waits, runs or has ended. ZC209: there is no such job.';

create or replace function coordinator.job_root(p_project text, p_job uuid) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return (select j.root_id from coordinator.job_show(p_project, p_job) j);
end
$$;
comment on function coordinator.job_root(text, uuid) is
  'Return the root of the tree of a job. ZC209: there is no such job. Internal.';

create or replace function coordinator.job_list(
  p_project text, p_status text[] default null, p_type text default null, p_queue text default null, p_key text default null,
  p_worker text default null, p_labels text[] default null, p_payload jsonb default null, p_words text default null,
  p_parent uuid default null, p_root uuid default null, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.jobs
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_open   constant text[] := '{queued,scheduled,waiting,running}';
  v_ended  constant text[] := '{failed,cancelled,expired}';
  v_parts  text[];
  v_where  text;
  v_status text;
begin
  perform coordinator.check_page(p_limit, p_after, '{id}');
  perform coordinator.check_list('the labels', p_labels);
  if p_payload is not null then
    perform coordinator.check_json('the payload', p_payload);
  end if;
  foreach v_status in array coalesce(p_status, '{}') loop
    if v_status is null or v_status <> 'completed' and v_status <> all (v_open || v_ended) then
      raise exception using errcode = 'ZC105', message = format('invalid status "%s" of a job', left(v_status, 200)),
        hint = 'Use queued, scheduled, waiting, running, completed, failed, cancelled or expired.';
    end if;
  end loop;
  v_parts := array_remove(array[
    case when p_status && v_open then 'open' end,
    case when 'completed' = any (p_status) then 'completed' end,
    case when p_status && v_ended then 'uncompleted' end], null);
  if length(p_words) > 200 then
    raise exception using errcode = 'ZC102', message = format('the words have %s characters; at most 200 are allowed', length(p_words)),
      hint = 'Give fewer words.';
  end if;
  v_where := concat_ws(' and ',
    'true',
    'j.id < ' || quote_literal(p_after[1]),
    case
      -- The status is computed; for a single status, its table gives the planner better estimates.
      when p_status = '{running}' then 'j.part = ''open'' and j.id in (select r.id from coordinator.jobs_running r)'
      when p_status = '{scheduled}' then 'j.part = ''open'' and j.id in (select l.id from coordinator.jobs_later l)'
      when p_status = '{waiting}' then 'j.part = ''open'' and j.id in (select w.id from coordinator.jobs_waiting w)'
      when p_status = '{queued}' then 'j.part = ''open'' and not exists (select from coordinator.jobs_running r where r.id = j.id)'
                                      ' and not exists (select from coordinator.jobs_later l where l.id = j.id)'
                                      ' and not exists (select from coordinator.jobs_waiting w where w.id = j.id)'
      when p_status is not null then
        format('j.part = any (%L) and j.%s = any (%L)', v_parts, case when p_status && v_open then 'status' else 'end_status' end, p_status)
    end,
    'j.type = ' || quote_literal(p_type),
    'j.queue = ' || quote_literal(p_queue),
    'j.key = ' || quote_literal(p_key),
    case when coordinator.is_agent_id(p_worker) then 'j.worker_id = ' else 'j.worker = ' end || quote_literal(p_worker),
    'j.labels @> ' || quote_literal(p_labels),
    'j.root_id = ' || quote_literal(p_root),
    case when p_parent is not null then format('j.root_id = %L and j.parent_id = %L', coordinator.job_root(p_project, p_parent), p_parent) end,
    'j.payload @> ' || quote_literal(p_payload),
    (select string_agg(format('concat_ws('' '', j.type, j.key, j.error, j.payload) ilike %L', '%' || regexp_replace(w, '([%_\\])', '\\\1', 'g') || '%'), ' and ')
     from regexp_split_to_table(p_words, '\s+') w where w <> ''));
  return query select * from coordinator.job_select(p_project, v_where || format(' order by j.id desc limit %s', p_limit));
end
$$;
comment on function coordinator.job_list(text, text[], text, text, text, text, text[], jsonb, text, uuid, uuid, text[], integer) is
  'List jobs, newest first. Filters: statuses, type, queue, key, worker (name or id), all of p_labels, a payload that contains p_payload (as @> does), each of p_words in type, key, error or payload, children of p_parent, and jobs below p_root. p_after: array[id] of the last row read.';

create or replace function coordinator.job_attempts(p_project text, p_job uuid, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.job_attempts
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_page(p_limit, p_after, '{number}');
  perform coordinator.job_show(p_project, p_job);
  return query -- filter by project as well, since the indexes begin with the project's id
    select t.* from coordinator.job_attempts t
    where t.project = p_project and t.job = p_job and t.fence > coalesce(p_after[1]::bigint, 0) order by t.fence limit p_limit;
end
$$;
comment on function coordinator.job_attempts(text, uuid, text[], integer) is
  'List the attempts of a job, oldest first: the running one and the last 50 that ended. ZC209: there is no such job. p_after: array[fence] of the last row read.';

create or replace function coordinator.worker_list(
  p_project text, p_type text default null, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.workers
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{text,id}');
  return query
    select w.* from coordinator.workers w
    join (select a.id from coordinator.agents a
          where a.project_id = v_project and cardinality(a.job_types) > 0 and (p_type is null or p_type = any (a.job_types))
            and (a.name, a.id) > (coalesce(p_after[1], ''), p_after[2]::uuid)
          order by a.name, a.id limit p_limit) p on p.id = w.id
    order by w.name, w.id;
end
$$;
comment on function coordinator.worker_list(text, text, text[], integer) is
  'List the workers of a project, by name and id; p_type: only workers for this job type. p_after: array[name, id] of the last row read.';

create or replace function coordinator.job_stats(
  p_project text, p_queue text default null, p_type text default null, p_period interval default '1 day', p_hourly boolean default false,
  p_after text[] default null, p_limit integer default 1000)
returns table (queue text, type text, hour text, queued bigint, scheduled bigint, waiting bigint, running bigint, completed bigint, failed bigint, cancelled bigint,
               expired bigint, wait_p50_s double precision, wait_p95_s double precision, run_p50_s double precision, run_p95_s double precision)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
#variable_conflict use_column
declare
  v_project bigint := coordinator.project_id(p_project);
  v_after   timestamptz; -- a variable, so that older partitions are not opened
begin
  perform coordinator.check_page(p_limit, p_after, '{text,text,text}');
  perform coordinator.check_ttl(p_period, 7776000);
  v_after := coordinator.now_utc() - p_period;
  return query
    with ended as (
      select e.queue, e.type, case when p_hourly then to_char(date_trunc('hour', e.completed_at, 'UTC') at time zone 'UTC', 'YYYY-MM-DD"T"HH24:00"Z"') else '' end as hour,
             count(*) filter (where e.status = 'completed') as completed, count(*) filter (where e.status = 'failed') as failed,
             count(*) filter (where e.status = 'cancelled') as cancelled, count(*) filter (where e.status = 'expired') as expired,
             percentile_cont(array[0.5, 0.95]) within group (order by extract(epoch from e.started_at - e.scheduled_at)::double precision)
               filter (where e.past is null) as wait, -- only first attempts: later ones wait for other reasons
             percentile_cont(array[0.5, 0.95]) within group (order by extract(epoch from e.completed_at - e.started_at)::double precision) as run
      from coordinator.jobs_ended e
      where e.project_id = v_project and e.completed_at > v_after
        and (p_queue is null or e.queue = p_queue) and (p_type is null or e.type = p_type)
      group by 1, 2, 3),
    open as (
      select c.queue, c.type, '' as hour, sum(q.count)::bigint as queued, coalesce(sum(l.count), 0)::bigint as scheduled,
             coalesce(sum(w.count), 0)::bigint as waiting, coalesce(sum(r.count), 0)::bigint as running
      from coordinator.job_classes c
      cross join lateral (select count(*) from coordinator.jobs_ready r where r.class_id = c.id) q
      left join (select class_id, count(*) from coordinator.jobs_later group by 1) l on l.class_id = c.id
      left join (select class_id, count(*) from coordinator.jobs_waiting group by 1) w on w.class_id = c.id
      left join (select class_id, count(*) from coordinator.jobs_running group by 1) r on r.class_id = c.id
      where not p_hourly and c.project_id = v_project and (p_queue is null or c.queue = p_queue) and (p_type is null or c.type = p_type)
      group by 1, 2)
    select queue, type, nullif(hour, ''), open.queued, open.scheduled, open.waiting, open.running, coalesce(completed, 0), coalesce(failed, 0),
           coalesce(cancelled, 0), coalesce(expired, 0), wait[1], wait[2], run[1], run[2]
    from ended full join open using (queue, type, hour)
    where (queue, type, hour) > (coalesce(p_after[1], ''), coalesce(p_after[2], ''), p_after[3])
    order by queue, type, hour limit p_limit;
end
$$;
comment on function coordinator.job_stats(text, text, text, interval, boolean, text[], integer) is
  'Count jobs by queue and type: those that wait or run now, and those that ended in the last p_period (1 second to 90 days), with the median and the 95th percentile, in seconds, of the wait for the first attempt and of the duration of the last attempt. p_hourly: count ended jobs by the hour of their end, as text in UTC. p_after: array[queue, type, hour] of the last row read.';

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_jobs', 'job_sample', 'gauge', '{state}', '', 'Jobs that have not ended, by state: queued, scheduled (until they are due or retried), waiting (for something else) or running.'),
  ('coordinator_queue_jobs', 'job_sample', 'gauge', '{project,queue,state}', '', 'Jobs that have not ended, by queue and state.'),
  ('coordinator_queue_oldest_seconds', 'job_sample', 'gauge', '{project,queue,state}', 'seconds', 'Time since the oldest job of a queue in this state was enqueued; for running jobs, since the attempt began.'),
  ('coordinator_type_jobs', 'job_sample', 'gauge', '{project,type,state}', '', 'Jobs that have not ended, by type and state.'),
  ('coordinator_type_oldest_seconds', 'job_sample', 'gauge', '{project,type,state}', 'seconds', 'Time since the oldest job of a type in this state was enqueued; for running jobs, since the attempt began.'),
  ('coordinator_queues_paused', 'job_sample', 'gauge', '{}', '', 'Paused queues.');

create or replace function coordinator.job_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_queued    double precision := coordinator.metric_share('coordinator.jobs_ready');
  v_scheduled double precision := coordinator.metric_share('coordinator.jobs_later');
  v_waiting   double precision := coordinator.metric_share('coordinator.jobs_waiting');
  v_running   double precision := coordinator.metric_share('coordinator.jobs_running');
  v_queues    double precision := coordinator.metric_share('coordinator.queues');
begin
  return query
    with states (state, place) as (values ('queued', 1), ('scheduled', 2), ('waiting', 3), ('running', 4)),
    -- The first 48 bits of an id are the millisecond of its enqueue.
    found (class_id, state, n, first, since) as (
      select j.class_id, 'queued', count(*) / v_queued, min(j.id::text collate "C"), null::timestamptz
      from coordinator.jobs_ready j tablesample system (100 * v_queued) group by j.class_id
      union all
      select j.class_id, 'scheduled', count(*) / v_scheduled, min(j.id::text collate "C"), null
      from coordinator.jobs_later j tablesample system (100 * v_scheduled) group by j.class_id
      union all
      select j.class_id, 'waiting', count(*) / v_waiting, min(j.id::text collate "C"), null
      from coordinator.jobs_waiting j tablesample system (100 * v_waiting) group by j.class_id
      union all
      select j.class_id, 'running', count(*) / v_running, null, min(j.started_at)
      from coordinator.jobs_running j tablesample system (100 * v_running) group by j.class_id),
    counted as materialized (
      select c.project_id, c.queue, c.type, f.state, f.n,
             coalesce(f.since, to_timestamp(('x' || translate(left(f.first, 13), '-', ''))::bit(48)::bigint / 1000.0)) as since
      from found f join coordinator.job_classes c on c.id = f.class_id),
    named as materialized (
      select 'queue' as grouped, c.project_id, c.queue as named, c.state, sum(c.n) as n, min(c.since) as since
      from counted c group by c.project_id, c.queue, c.state
      union all
      select 'type', c.project_id, c.type, c.state, sum(c.n), min(c.since)
      from counted c group by c.project_id, c.type, c.state),
    placed as (
      select n.grouped, n.project_id, n.named, row_number() over (partition by n.grouped order by sum(n.n) desc, n.project_id, n.named) as place
      from named n group by n.grouped, n.project_id, n.named),
    -- Aggregate the remaining names first, so that few labels have to be built. Then aggregate names that are equal once shortened.
    largest as (
      select n.grouped, coalesce(l.place, 51) as place, n.state, min(l.project_id) as project_id, min(n.named) as named, sum(n.n) as n, min(n.since) as since
      from named n
      left join (select * from placed p where p.place <= 50) l on l.grouped = n.grouped and l.project_id = n.project_id and l.named = n.named
      group by n.grouped, 2, n.state),
    shown as materialized (
      select l.grouped, array[coordinator.metric_label(p.name, l.place), coordinator.metric_label(l.named, l.place), l.state] as labels,
             sum(l.n) as n, min(l.since) as since
      from largest l left join coordinator.projects p on p.id = l.project_id group by l.grouped, 2)
    select 'coordinator_jobs', array[s.state], coalesce(sum(c.n), 0) from states s left join counted c on c.state = s.state group by s.state
    union all
    select case s.grouped when 'queue' then 'coordinator_queue_jobs' else 'coordinator_type_jobs' end, s.labels, s.n from shown s
    union all
    select case s.grouped when 'queue' then 'coordinator_queue_oldest_seconds' else 'coordinator_type_oldest_seconds' end, s.labels,
           coordinator.metric_age(s.since) from shown s;
  return query
    select 'coordinator_queues_paused', '{}'::text[], count(*) / v_queues
    from coordinator.queues q tablesample system (100 * v_queues) where q.paused_at is not null;
end
$$;
comment on function coordinator.job_sample(timestamptz) is
  'Sample the metrics of jobs and queues. Internal.';
