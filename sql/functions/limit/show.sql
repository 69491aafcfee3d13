-- Showing limits (see limit.sql).

create or replace view coordinator.job_limits_live with (security_barrier) as
  select p.name as project, l.name, l.kind, l.queue, l.type, l.per_key, l.tree, l.slots, l.rate, l.per, l.burst, l.budget, l.period, l.reserve,
         l.on_exhausted,
         case l.kind when 'slots' then coalesce(r.used, 0)::bigint when 'budget' then c.used end as used,
         case when l.per_key then null
              when l.kind = 'slots' then greatest(0, l.slots - coalesce(r.used, 0))::bigint
              when l.kind = 'budget' then greatest(0, l.budget - c.used)
              else floor(least(l.burst, b.level + greatest(0, extract(epoch from n.now - b.level_at)) * l.rate / extract(epoch from l.per)))::bigint
         end as free,
         d.ends_at as resets_at, coalesce(r.users, '[]') as users, coalesce(e.keys, '[]') as keys, w.waiting_count,
         case when l.held_until > n.now then l.held_until end as held_until, case when l.held_until > n.now then l.held_by end as held_by,
         case when l.held_until > n.now then l.hold_reason end as hold_reason, l.actor, l.created_at, l.updated_at
  from coordinator.job_limits l
  join coordinator.projects p on p.id = l.project_id
  cross join (select coordinator.now_utc() as now) n
  left join coordinator.job_buckets b on b.limit_id = l.id
  -- This repeats limit_period, limit_period_end and limit_charged, because readers may not call them.
  cross join lateral (
    select case l.period when 'ever' then '-infinity' else date_trunc(l.period, n.now, 'UTC') end as began_at,
           case l.period when 'hour' then date_trunc('hour', n.now, 'UTC') + interval '1 hour'
                         when 'day' then date_trunc('day', n.now, 'UTC') + interval '24 hours' end as ends_at) d
  left join lateral (
    select least(coalesce(sum(greatest(g.reserved, g.spent)), 0), 9000000000000000000)::bigint as used
    from coordinator.job_charges g where g.limit_id = l.id and g.period_at = d.began_at) c on l.kind = 'budget'
  left join lateral (
    select jsonb_agg(jsonb_build_object('key', k.key, 'free', k.free) order by k.free, k.key) as keys
    from (select b.key, b.free
          from (select k.key, floor(least(l.burst, k.level + greatest(0, extract(epoch from n.now - k.level_at)) * l.rate / extract(epoch from l.per)))::bigint as free
                from coordinator.job_keys k where l.kind = 'rate' and k.limit_id = l.id and k.level is not null
                union all
                select k.key, greatest(0, l.budget - least(sum(greatest(g.reserved, g.spent)), 9000000000000000000))::bigint
                from coordinator.job_charges g join coordinator.job_keys k on k.limit_id = g.limit_id and k.hash = g.hash
                where l.kind = 'budget' and g.limit_id = l.id and g.period_at = d.began_at group by k.key) b
          where b.free < coalesce(l.burst, l.budget) order by b.free, b.key limit 5) k) e on l.per_key
  left join (
    select t.limit_id, sum(t.used) as used,
           jsonb_agg(jsonb_build_object('type', t.type, 'key', t.key, 'used', t.used) order by t.place) filter (where t.place <= 5) as users
    from (select u.limit_id, j.type, j.key, sum(u.amount) as used,
                 row_number() over (partition by u.limit_id order by sum(u.amount) desc, j.type, j.key) as place
          from (select s.limit_id, o.id, 1 as amount from coordinator.jobs_running o cross join unnest(o.slots) s (limit_id) where o.slots is not null
                union all
                select g.limit_id, g.job_id, greatest(g.reserved, g.spent) from coordinator.job_charges g where g.job_id is not null) u
          join coordinator.jobs_open j on j.id = u.id
          group by u.limit_id, j.type, j.key) t
    group by t.limit_id) r on r.limit_id = l.id
  cross join lateral (
    select count(*)::integer as waiting_count
    from (select from coordinator.job_classes k join coordinator.jobs_ready j on j.class_id = k.id
          where k.project_id = l.project_id and l.id = any (k.limit_ids)
          union all
          select from coordinator.job_tree_waits t where t.limit_id = l.id limit 10000) first) w
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.job_limits_live               is 'Job limits, with their free capacity, users and waiting jobs.';
comment on column coordinator.job_limits_live.project       is 'Name of the project.';
comment on column coordinator.job_limits_live.name          is 'Name of the limit.';
comment on column coordinator.job_limits_live.kind          is 'slots (jobs that run at once), rate (tokens per interval) or budget (an amount).';
comment on column coordinator.job_limits_live.queue         is 'Queue to which it applies; null: all queues.';
comment on column coordinator.job_limits_live.type          is 'Job type to which it applies; null: all types. With neither queue nor type, it applies to jobs that name it.';
comment on column coordinator.job_limits_live.per_key       is 'True: each key has its own limit, and jobs without a key have none.';
comment on column coordinator.job_limits_live.tree          is 'Root of the job tree to which it applies; null: no tree.';
comment on column coordinator.job_limits_live.slots         is 'Maximum number of jobs that run at once.';
comment on column coordinator.job_limits_live.rate          is 'Tokens per interval.';
comment on column coordinator.job_limits_live.per           is 'The interval of the rate.';
comment on column coordinator.job_limits_live.burst         is 'Maximum number of tokens that accumulate.';
comment on column coordinator.job_limits_live.budget        is 'Maximum amount per period.';
comment on column coordinator.job_limits_live.period        is 'hour, day (both in UTC) or ever.';
comment on column coordinator.job_limits_live.reserve       is 'Amount that a claim reserves for a job that states no cost.';
comment on column coordinator.job_limits_live.on_exhausted  is 'What happens to running jobs when the budget is exhausted: nothing (stop: no job starts) or cancel.';
comment on column coordinator.job_limits_live.used          is 'Slots in use, or the amount reserved and spent in this period; null for a rate.';
comment on column coordinator.job_limits_live.free          is 'Slots, tokens or amount available now; null: each key has its own.';
comment on column coordinator.job_limits_live.resets_at     is 'When the next period of the budget begins; null: never, or it is not a budget.';
comment on column coordinator.job_limits_live.users         is 'The five types and keys whose running jobs use most: an array of objects with type, key and used.';
comment on column coordinator.job_limits_live.keys          is 'With a rate or budget per key, the five keys with the least left: an array of objects with key and free.';
comment on column coordinator.job_limits_live.waiting_count is 'Jobs that need it and are queued or, with a tree, wait for it; at most 10,000 are counted.';
comment on column coordinator.job_limits_live.held_until    is 'End of the hold, before which no job that needs it starts; null: it is not held.';
comment on column coordinator.job_limits_live.held_by       is 'Who holds it.';
comment on column coordinator.job_limits_live.hold_reason   is 'Why it is held.';
comment on column coordinator.job_limits_live.actor         is 'Who created it or last changed it.';
comment on column coordinator.job_limits_live.created_at    is 'When it was first set.';
comment on column coordinator.job_limits_live.updated_at    is 'When it was last changed.';

create or replace function coordinator.limit_show(p_project text, p_name text)
returns setof coordinator.job_limits_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.project_id(p_project);
  return query select * from coordinator.job_limits_live l where l.project = p_project and l.name = p_name;
  if not found then
    perform coordinator.limit_missing(p_project, p_name);
  end if;
end
$$;
comment on function coordinator.limit_show(text, text) is
  'Return a limit, with what is free and who uses it. ZC211: there is no such limit.';

create or replace function coordinator.limit_list(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.job_limits_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.project_id(p_project);
  perform coordinator.check_page(p_limit, p_after, '{text}');
  return query
    select * from coordinator.job_limits_live l
    where l.project = p_project and l.name > coalesce(p_after[1], '')
    order by l.name limit p_limit;
end
$$;
comment on function coordinator.limit_list(text, text[], integer) is
  'List the limits of a project, by name. p_after: array[name] of the last row read.';

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_limit_used_ratio', 'limit_sample', 'gauge', '{project,limit,kind}', '', 'Used share of a limit: of its slots, of the burst of its rate, or of its budget in the current period. Limits per key are excluded; "other" is the largest share among the remaining limits.');

create or replace function coordinator.limit_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_limits double precision := coordinator.metric_share('coordinator.job_limits');
  v_running double precision := coordinator.metric_share('coordinator.jobs_running');
begin
  return query
    with taken as materialized (
      select s.id, count(*) / v_running as n
      from coordinator.jobs_running r tablesample system (100 * v_running) cross join unnest(r.slots) s (id) where r.slots is not null group by s.id),
    used (id, share) as (
      select l.id, case l.kind
               when 'slots' then coalesce(t.n, 0) / greatest(l.slots, 1)
               when 'rate' then 1 - least(l.burst, b.level + greatest(0, extract(epoch from v_now - b.level_at)) * l.rate / extract(epoch from l.per)) / greatest(l.burst, 1)
               else c.used / greatest(l.budget, 1)::double precision end
      from (select * from coordinator.job_limits j tablesample system (100 * v_limits) where not j.per_key limit 1000) l
      left join coordinator.job_buckets b on b.limit_id = l.id
      left join taken t on t.id = l.id
      left join lateral (
        select coalesce(sum(greatest(g.reserved, g.spent)), 0) as used from coordinator.job_charges g
        where l.kind = 'budget' and g.limit_id = l.id
          and g.period_at = case l.period when 'ever' then '-infinity' else date_trunc(l.period, v_now, 'UTC') end) c on l.kind = 'budget'),
    placed as (
      select u.share, l.kind, row_number() over (order by u.share desc, u.id) as place, l.name, p.name as project
      from used u join coordinator.job_limits l on l.id = u.id join coordinator.projects p on p.id = l.project_id where u.share is not null)
    select 'coordinator_limit_used_ratio',
           array[coordinator.metric_label(l.project, l.place), coordinator.metric_label(l.name, l.place), l.kind], max(greatest(0, l.share))
    from placed l group by 2;
end
$$;
comment on function coordinator.limit_sample(timestamptz) is
  'Sample the metrics of limits. Internal.';
