-- Reading locks: who holds what, who waits for what, which paths an agent may write.

create or replace function coordinator.lock_check(p_project text, p_paths text[], p_agent uuid default null)
returns table (path text, state text, resource text, agent_id uuid, agent text, mode text, fencing_token bigint, expires_at timestamptz, owner text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_project bigint := coordinator.project_id(p_project);
  v_all     coordinator.lock_resource[];
begin
  if cardinality(p_paths) > 1000 then
    raise exception using errcode = 'ZC102', message = format('%s paths in one call; at most 1000 are allowed', cardinality(p_paths)),
      hint = 'Use several calls.';
  end if;
  v_all := array(select coordinator.lock_parse(case when t ~ '^(name|path|glob):' then t else 'path:' || t end)
                 from unnest(coordinator.lock_texts(p_project, p_paths)) with ordinality u (t, n) order by n);
  if (select count(*) from unnest(v_all) r where r.kind = 'glob') > 100 then
    raise exception using errcode = 'ZC102', message = 'more than 100 globs in one check', hint = 'Check the paths themselves; they are taken literally.';
  end if;
  return query
    with foremost as materialized (
      select distinct on (f.place) f.* from coordinator.lock_foremost(v_project, v_all, p_agent) f
      order by f.place, f.mine, (f.lock).expires_at desc)
    select u.path, case when o.place is null then 'free' when o.mine then 'mine' else 'held' end, (o.lock).resource, (o.lock).agent_id,
           (o.lock).agent_name, (o.lock).mode, (o.lock).fencing_token, case when isfinite((o.lock).free_at) then (o.lock).free_at else (o.lock).expires_at end,
           (o.lock).owner
    from unnest(p_paths) with ordinality u (path, place) left join foremost o on o.place = u.place order by u.place;
end
$$;
comment on function coordinator.lock_check(text, text[], uuid) is
  'Show whether an agent may write paths, which are taken literally. state: free, mine, or held by another agent, which is named (if there are several, the one that holds it longest). Changes nothing. A free path may be locked a moment later; to reserve it, acquire it.';

create or replace function coordinator.lock_list(
  p_project text, p_under text default null, p_agent uuid default null, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.lock_holders
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_under   coordinator.lock_resource;
begin
  perform coordinator.check_page(p_limit, p_after, '{text,number}');
  perform coordinator.agent_check(p_agent, p_project);
  if p_under is not null then
    v_under := coordinator.lock_read(p_project, case when p_under ~ '^name:|[*?[]' or right(p_under, 1) = '/' then p_under else p_under || '/' end);
    return query
      select l.resource, l.kind, l.mode, l.slots, case when l.slots is not null then l.slot::integer end, l.agent_id, l.agent_name,
             l.fencing_token, l.acquired_at, l.expires_at, p_project, l.owner, coordinator.lock_job(l.owner)
      from coordinator.lock_overlapping(v_project, v_under, false) l
      where l.expires_at > v_now and (p_agent is null or l.agent_id = p_agent)
        and (l.resource, l.fencing_token) > (coalesce(p_after[1], ''), p_after[2]::bigint)
      order by l.resource, l.fencing_token limit p_limit;
    return;
  end if;
  return query
    select l.resource, l.kind, l.mode, l.slots, case when l.slots is not null then l.slot::integer end, l.agent_id, l.agent_name,
           l.fencing_token, l.acquired_at, l.expires_at, p_project, l.owner, coordinator.lock_job(l.owner)
    from coordinator.locks l
    where l.project_id = v_project and l.expires_at > v_now and (p_agent is null or l.agent_id = p_agent)
      and (l.resource, l.fencing_token) > (coalesce(p_after[1], ''), p_after[2]::bigint)
    order by l.resource, l.fencing_token limit p_limit;
end
$$;
comment on function coordinator.lock_list(text, text, uuid, text[], integer) is
  'List held locks by resource in byte order, then by token. Filters: a project, an agent, and locks that overlap the directory p_under. p_after: array[resource, fencing_token] of the last row read.';

-- A linked work tree has its paths below .git/worktrees/<name>/: see docs/hooks.md.
create or replace function coordinator.lock_elsewhere(p_project_id bigint, p_resource text, p_agent uuid) returns text
language plpgsql stable -- not in SQL: PostgreSQL would plan it again in every transaction
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_path text;
begin
  if not exists ( -- most projects have no linked work trees
    select from coordinator.locks l where l.project_id = p_project_id and l.resource >= '.git/worktrees/' and l.resource < '.git/worktrees0') then
    return null;
  end if;
  v_path := regexp_replace(p_resource, '^(path:)?(\.git/worktrees/[^/]+/)?', '');
  return (
    with linked as ( -- bounded: a project may have very many work trees
      select l.resource, l.agent_id, l.agent_name, l.expires_at from coordinator.locks l
      where l.project_id = p_project_id and l.resource >= '.git/worktrees/' and l.resource < '.git/worktrees0'
      order by l.resource limit 5000
    ), named as (
      select l.resource, l.agent_id, l.agent_name, l.expires_at, split_part(l.resource, '/', 3) as worktree
      from linked l where right(l.resource, length(v_path) + 1) = '/' || v_path
        and l.resource = '.git/worktrees/' || split_part(l.resource, '/', 3) || '/' || v_path
      union all
      select l.resource, l.agent_id, l.agent_name, l.expires_at, '' from coordinator.locks l
      where l.project_id = p_project_id and l.resource = v_path
    )
    select string_agg(shown, ', ' order by shown) from (
      select distinct n.agent_name || case n.worktree when '' then ' in the main work tree' else ' in work tree ' || n.worktree end as shown
      from named n where n.resource <> p_resource and n.agent_id <> p_agent and n.expires_at > coordinator.now_utc()
      order by shown limit 3) others);
end
$$;
comment on function coordinator.lock_elsewhere(bigint, text, uuid) is
  'Return which other agents hold the same file in other work trees of the repository: three at most; null: none. Internal.';

create or replace function coordinator.lock_show(p_project text, p_resource text)
returns setof coordinator.lock_holders
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_resource coordinator.lock_resource := coordinator.lock_read(p_project, p_resource);
begin
  return query
    select l.resource, l.kind, l.mode, l.slots, case when l.slots is not null then l.slot::integer end, l.agent_id, l.agent_name,
           l.fencing_token, l.acquired_at, l.expires_at, p_project, l.owner, coordinator.lock_job(l.owner)
    from coordinator.lock_overlapping(v_project, v_resource, false) l
    where l.expires_at > coordinator.now_utc() order by l.resource, l.slot;
  if not found then
    raise exception using errcode = 'ZC207', message = format('nobody holds "%s" in project "%s"', v_resource.resource, p_project),
      hint = 'It was released or has expired; see "coordinator lock list".';
  end if;
end
$$;
comment on function coordinator.lock_show(text, text) is
  'Show the holders of a resource and of overlapping resources. ZC207: there are none.';

create or replace function coordinator.lock_waiting(
  p_project text, p_resource text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.lock_waiters
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_page(p_limit, p_after, '{number,text}');
  return query
    select w.ticket, w.resource, w.mode, w.agent_id, w.agent_name, w.acquired_at, w.expires_at, w.slots, p_project, w.owner
    from coordinator.lock_overlapping(coordinator.project_id(p_project), coordinator.lock_read(p_project, p_resource), true) w
    where w.expires_at > coordinator.now_utc() and (w.ticket, w.resource) > (coalesce(p_after[1]::bigint, 0), p_after[2])
    order by w.ticket, w.resource limit p_limit;
end
$$;
comment on function coordinator.lock_waiting(text, text, text[], integer) is
  'List who waits for a resource or for an overlapping one, in order. p_after: array[ticket, resource] of the last row read.';

create or replace function coordinator.lock_chains(p_project text) returns setof coordinator.lock_waits_for
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  return query
    select * from coordinator.lock_waits_for f
    where f.project = p_project and f.ticket in (
      select distinct w.ticket from coordinator.lock_waits w
      where w.project_id = v_project and w.expires_at > coordinator.now_utc() order by w.ticket limit 200)
    order by f.ticket, f.resource, f.for_resource, f.for_agent limit 1000;
end
$$;
comment on function coordinator.lock_chains(text) is
  'List who waits for whom in a project, for the oldest 200 tickets, with at most 1,000 rows. A ticket may wait for several others.';

create or replace function coordinator.lock_break_prune(p_retention interval default '90 days', p_limit integer default 10000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return coordinator.prune_rows('coordinator.lock_breaks', 'broken_at', p_retention, p_limit);
end
$$;
comment on function coordinator.lock_break_prune(interval, integer) is
  'Delete up to p_limit breaks from the audit trail that are older than p_retention; returns how many. Repeat until 0.';

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_locks', 'lock_sample', 'gauge', '{project,mode}', '', 'Held locks.'),
  ('coordinator_lock_waits', 'lock_sample', 'gauge', '{project}', '', 'Tickets waiting for locks.'),
  ('coordinator_lock_wait_oldest_seconds', 'lock_sample', 'gauge', '{project}', 'seconds', 'How long the oldest ticket has been waiting for locks.'),
  ('coordinator_lock_tickets_total', 'lock_sample', 'counter', '{}', '', 'Tickets issued. The number of waiting tickets divided by the rate of this counter is the average wait.');

create or replace function coordinator.lock_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_locks  double precision := coordinator.metric_share('coordinator.locks');
  v_waits  double precision := coordinator.metric_share('coordinator.lock_waits');
begin
  return query
    with held as (
      select l.project_id, l.mode, count(*) / v_locks as n
      from coordinator.locks l tablesample system (100 * v_locks) where l.expires_at > v_now group by l.project_id, l.mode),
    placed as (
      select coordinator.metric_label(p.name, dense_rank() over (order by h.total desc, p.name)) as project, h.mode, h.n
      from (select h.*, sum(h.n) over (partition by h.project_id) as total from held h) h join coordinator.projects p on p.id = h.project_id)
    select 'coordinator_locks', array[p.project, p.mode], sum(p.n) from placed p group by p.project, p.mode;
  return query
    with waiting as (
      select w.project_id, count(distinct w.ticket) / v_waits as n, min(w.enqueued_at) as since
      from coordinator.lock_waits w tablesample system (100 * v_waits) where w.expires_at > v_now group by w.project_id),
    placed as (
      select coordinator.metric_label(p.name, row_number() over (order by w.n desc, p.name)) as project, w.n, w.since
      from waiting w join coordinator.projects p on p.id = w.project_id),
    shown as materialized (
      select p.project, sum(p.n) as n, min(p.since) as since from placed p group by p.project)
    select 'coordinator_lock_waits', array[s.project], s.n from shown s
    union all
    select 'coordinator_lock_wait_oldest_seconds', array[s.project], coordinator.metric_age(s.since) from shown s;
  return query
    select 'coordinator_lock_tickets_total', '{}'::text[], case when t.is_called then t.last_value else 0 end::double precision
    from coordinator.lock_tickets t;
end
$$;
comment on function coordinator.lock_sample(timestamptz) is
  'Sample the metrics of locks. Internal.';
