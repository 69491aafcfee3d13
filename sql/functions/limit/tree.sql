-- Limits of trees (see limit.sql, job/tree.sql): how many jobs of one tree, from the root to the last child, run at once, start in an
-- interval, or cost in a period. A tree has at most one limit of each kind.
--
-- A class does not know trees, so a claim checks what its jobs need of their trees after it has picked them. A job that gets none waits in
-- jobs_waiting (cause: limit), holds nothing, and blocks nobody. A transaction that returns a permit, or frees some of a budget, wakes the next jobs,
-- as many of each class, because nobody knows which of the classes has workers. Jobs that find the limit used up wait again.
--
-- Jobs of a tree cannot state costs: each takes one slot, one token, and the reserve of the budget. So no cheap job overtakes another.
-- If a job waits for a rate or budget, later ones of its class wait behind it.
--
-- A claim locks the rates and budgets of trees after those of classes, in the order of their ids. If it picks a second time, it already
-- holds some, so it skips the jobs of trees whose rows other claims have locked.
--
-- No job is forgotten. A wake-up does not see jobs that begin to wait at the same time; a woken job may end without using the permit;
-- tokens arrive, and periods end. So claims wake jobs when their rate has tokens, and the loop limit_refill wakes jobs wherever a limit has
-- room and jobs wait for it. A limit ends with its tree (limit_prune).

create or replace function coordinator.limit_check_tree(p_project text, p_limit coordinator.job_limits) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_tree uuid := p_limit.tree;
  v_root uuid;
  v_job  record;
  v_name text := (select l.name from coordinator.job_limits l where l.project_id = p_limit.project_id and l.tree = p_limit.tree and l.kind = p_limit.kind);
begin
  if v_name is not null then
    raise exception using errcode = 'ZC325', message = format('the tree of job %s has the limit "%s" of %s', v_tree, v_name,
                                                              case p_limit.kind when 'slots' then 'slots' else 'a ' || p_limit.kind end),
      detail = jsonb_build_object('tree', v_tree, 'limit', v_name, 'kind', p_limit.kind)::text,
      hint = 'A tree has one limit of each kind: change that one, or delete it first.';
  end if;
  select j.root_id into v_root from coordinator.jobs_open j where j.id = v_tree and j.project_id = p_limit.project_id;
  if v_root is not null then
    raise exception using errcode = 'ZC105', message = format('job %s is not the root of its tree', v_tree),
      detail = jsonb_build_object('job', v_tree, 'root', v_root)::text, hint = format('A limit applies to a whole tree: give its root, job %s.', v_root);
  elsif not found and not exists (select from coordinator.jobs_open j where j.root_id = v_tree and j.project_id = p_limit.project_id) then
    select * into v_job from coordinator.job_find(p_limit.project_id, v_tree);
    raise exception using errcode = 'ZC323', message = format('job %s and all jobs of its tree have ended', v_tree),
      detail = jsonb_build_object('job', v_tree, 'status', v_job.status, 'ended_at', v_job.ended_at)::text, hint = 'Nothing is left to limit.';
  end if;
end
$$;
comment on function coordinator.limit_check_tree(text, coordinator.job_limits) is
  'Reject a tree that cannot get a limit: the job is unknown (ZC209) or not a root (ZC105), or its tree has ended (ZC323) or already has a limit of this kind (ZC325). Internal.';

create or replace function coordinator.limit_tree_jobs(p_limit coordinator.job_limits, p_room bigint) returns bigint
language sql immutable parallel safe
return case when p_room <= 0 then 0 when coordinator.limit_cost(p_limit, null) = 0 then 100000 else p_room / coordinator.limit_cost(p_limit, null) end;
comment on function coordinator.limit_tree_jobs(coordinator.job_limits, bigint) is
  'Return how many jobs of a tree can start with what is left of its rate or budget. Internal.';

create or replace function coordinator.limit_tree_free(p_limit coordinator.job_limits, p_now timestamptz) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return least(1000, case p_limit.kind
    when 'slots' then (select count(*) from (select from coordinator.job_slots s where s.limit_id = p_limit.id limit 1000) s)
    when 'rate' then coordinator.limit_tree_jobs(p_limit, (
      select floor(coordinator.limit_level(p_limit, b.level, b.level_at, p_now))::bigint from coordinator.job_buckets b where b.limit_id = p_limit.id))
    else coordinator.limit_tree_jobs(p_limit, p_limit.budget - (coordinator.limit_charged(p_limit.id, coordinator.limit_period(p_limit.period, p_now))).used) end);
end
$$;
comment on function coordinator.limit_tree_free(coordinator.job_limits, timestamptz) is
  'Return how many jobs of a tree its limit allows to start now, at most 1,000. Internal.';

create or replace function coordinator.limit_take_trees(
  p_project_id bigint, p_ids uuid[], p_waiting integer, p_wait boolean, p_worker text, p_now timestamptz,
  out picked uuid[], out slots jsonb, out waiting uuid[], out rest uuid[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_tree   record;
  v_limit  coordinator.job_limits;
  v_roots  uuid[]; -- the root
  v_jobs   uuid[]; -- of each of these jobs
  v_gauges bigint[]; -- rates and budgets that this claim has locked
  v_used   bigint[]; -- those of a tree
  v_room   bigint;
  v_count  integer;  -- jobs that start
  v_fits   integer;
  v_behind uuid[];   -- jobs behind others of their class that already wait
  v_lacked bigint;
  v_until  timestamptz;
  v_pool   bigint;
  v_wait   uuid[];
begin
  slots := '{}';
  waiting := '{}';
  rest := '{}';
  select array_agg(coalesce(j.root_id, j.id) order by j.priority desc, j.scheduled_at, j.id), array_agg(j.id order by j.priority desc, j.scheduled_at, j.id)
  into v_roots, v_jobs
  from coordinator.jobs_open j where j.id = any (p_ids) and j.paused is null and (j.start_by is null or j.start_by > p_now); -- other jobs do not start
  v_gauges := coordinator.limit_lock_gauges(array(
    select l.id from coordinator.job_limits l where l.project_id = p_project_id and l.tree = any (v_roots) and l.kind <> 'slots'), p_wait);
  for v_tree in
    select t.root, array_agg(t.id order by t.place) as ids
    from unnest(v_roots, v_jobs) with ordinality t (root, id, place)
    where exists (select from coordinator.job_limits l where l.project_id = p_project_id and l.tree = t.root)
    group by t.root order by t.root
  loop
    v_count := cardinality(v_tree.ids);
    v_used := '{}';
    v_behind := '{}';
    v_lacked := null;
    v_until := null;
    v_pool := null;
    for v_limit in
      select l.* from coordinator.job_limits l where l.project_id = p_project_id and l.tree = v_tree.root
      order by l.held_until > p_now desc nulls last, l.kind, l.id -- slots last, because their permits are deleted at once
    loop
      exit when v_count = 0;
      v_fits := 0;
      if v_limit.held_until > p_now then
        v_until := v_limit.held_until;
      elsif v_limit.kind = 'slots' then
        v_pool := v_limit.id;
        if v_limit.surplus = 0 or coordinator.limit_retire(v_limit.id) then
          delete from coordinator.job_slots s
          where s.ctid = any (array(select o.ctid from coordinator.job_slots o where o.limit_id = v_limit.id
                                    order by o.turn limit v_count for update skip locked));
          get diagnostics v_fits = row_count;
        end if;
      elsif v_limit.id <> all (v_gauges) then -- another claim has locked it
        rest := rest || v_tree.ids;
        v_tree.ids := '{}';
      else
        v_room := coordinator.limit_room(v_limit, p_now);
        v_used := v_used || v_limit.id;
        if (select true from coordinator.job_tree_waits t where t.limit_id = v_limit.id limit 1) then
          v_behind := array(
            select j.id from (select o.* from coordinator.jobs_open o where o.id = any (v_tree.ids) offset 0) j join coordinator.queues q on q.project_id = j.project_id and q.name = j.queue
            where j.id = any (v_behind) or exists (
              select from coordinator.job_tree_waits t where t.limit_id = v_limit.id and t.class_id = j.class_id
                and (t.rank, t.job_id) < (coordinator.job_rank(j.scheduled_at, j.priority, q.ageing), j.id)));
          v_tree.ids := array(select u.id from unnest(v_tree.ids) with ordinality u (id, place) order by u.id = any (v_behind), u.place);
        end if;
        v_fits := least(coordinator.limit_tree_jobs(v_limit, v_room), cardinality(v_tree.ids) - cardinality(v_behind));
        if v_room <= 0 and v_limit.kind = 'budget' then
          perform coordinator.limit_exhaust(v_limit, 'coordinator', p_now);
        end if;
      end if;
      if v_fits < v_count then
        v_count := v_fits;
        v_lacked := v_limit.id;
      end if;
    end loop;
    if v_count > 0 then
      insert into coordinator.job_charges (limit_id, period_at, job_id, reserved)
      select l.id, coordinator.limit_period(l.period, p_now), i, l.reserve
      from coordinator.job_limits l cross join unnest(v_tree.ids[:v_count]) i where l.id = any (v_used) and l.kind = 'budget';
      perform coordinator.limit_take_tokens(l, v_count, 0) from coordinator.job_limits l where l.id = any (v_used) and l.kind = 'rate';
      slots := slots || (select jsonb_object_agg(i, v_pool) from unnest(v_tree.ids[:v_count]) i);
    end if;
    v_wait := v_tree.ids[v_count + 1:v_count + greatest(0, p_waiting - cardinality(waiting))];
    rest := rest || v_tree.ids[v_count + cardinality(v_wait) + 1:];
    if v_wait <> '{}' then
      waiting := waiting || v_wait;
      perform coordinator.job_make_waiting(v_wait, 'limit', v_until, p_worker, p_now);
      insert into coordinator.job_tree_waits (job_id, limit_id, class_id, rank)
      select j.id, v_lacked, j.class_id, coordinator.job_rank(j.scheduled_at, j.priority, q.ageing)
      from (select o.* from coordinator.jobs_open o where o.id = any (v_wait) offset 0) j join coordinator.queues q on q.project_id = j.project_id and q.name = j.queue;
    end if;
  end loop;
  picked := array(select u.id from unnest(p_ids) with ordinality u (id, place) where u.id <> all (waiting || rest) order by u.place);
end
$$;
comment on function coordinator.limit_take_trees(bigint, uuid[], integer, boolean, text, timestamptz) is
  'Take what jobs need of the limits of their trees, after a claim took them out of jobs_ready. picked: the jobs that can start, including those without such limits; slots: for each job that took something, the limit whose permit it has (null: none); waiting: up to p_waiting jobs that got nothing and wait from now on; rest: further such jobs, and jobs of trees that other claims have locked. p_wait: wait for rates and budgets that other claims have locked; a claim may do so once. Internal.';

create or replace function coordinator.limit_return_trees(p_slots jsonb, p_ids uuid[], p_by text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_ids    uuid[] := array(select i from unnest(p_ids) i where p_slots ? i::text);
  v_limits bigint[] := array(select (p_slots ->> i::text)::bigint from unnest(v_ids) i where p_slots ->> i::text is not null);
begin
  if v_ids = '{}' then
    return;
  end if;
  delete from coordinator.job_charges c where c.job_id = any (v_ids);
  update coordinator.job_buckets b set level = b.level + t.tokens
  from (select l.id, count(*) as tokens
        from (select o.* from coordinator.jobs_open o where o.id = any (v_ids) offset 0) j
        join coordinator.job_limits l on l.project_id = j.project_id and l.tree = coalesce(j.root_id, j.id) and l.kind = 'rate' group by l.id) t
  where b.limit_id = t.id;
  if v_limits <> '{}' then
    perform coordinator.limit_give_back(v_limits, p_by, p_now);
  end if;
end
$$;
comment on function coordinator.limit_return_trees(jsonb, uuid[], text, timestamptz) is
  'Return what limit_take_trees took for jobs that do not start now. Internal.';

create or replace function coordinator.limit_wake_trees(p_limits bigint[], p_counts bigint[], p_by text, p_now timestamptz) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off -- read only the first ones, however many wait
set enable_mergejoin = off
as $$
declare
  v_ids uuid[];
begin
  v_ids := array(
    with recursive class as ( -- one index lookup for each class
      select l.id as limit_id, coalesce(u.jobs, coordinator.limit_tree_free(l, p_now)) as jobs,
             (select min(t.class_id) from coordinator.job_tree_waits t where t.limit_id = l.id) as class_id
      from unnest(p_limits, p_counts) u (id, jobs)
      join coordinator.job_limits l on l.id = u.id and l.tree is not null and (l.held_until > p_now) is not true
      union all
      select c.limit_id, c.jobs, (select min(t.class_id) from coordinator.job_tree_waits t where t.limit_id = c.limit_id and t.class_id > c.class_id)
      from class c where c.class_id is not null)
    select b.job_id
    from class c cross join lateral (
      select t.job_id from coordinator.job_tree_waits t
      cross join lateral (select from coordinator.jobs_waiting w where w.id = t.job_id for update skip locked) w
      where t.limit_id = c.limit_id and t.class_id = c.class_id order by t.rank, t.job_id limit c.jobs) b);
  return case when v_ids = '{}' then 0 else cardinality(coordinator.job_wake_soon(v_ids, p_by, p_now)) end;
end
$$;
comment on function coordinator.limit_wake_trees(bigint[], bigint[], text, timestamptz) is
  'Wake jobs that wait for the limits of their trees: of each class, as many as p_counts says; null: as many as can start now. Return how many were woken. Internal.';

create or replace function coordinator.limit_wake_rates(p_project_id bigint, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_limits bigint[] := array(
    select l.id from coordinator.job_limits l
    where l.project_id = p_project_id and l.tree is not null and l.kind = 'rate' and (select true from coordinator.job_tree_waits t where t.limit_id = l.id limit 1));
begin
  if v_limits <> '{}' then
    perform coordinator.limit_wake_trees(v_limits, null, 'coordinator', p_now);
  end if;
end
$$;
comment on function coordinator.limit_wake_rates(bigint, timestamptz) is
  'Wake jobs of a project that wait for the rate of their tree and can now get tokens, so that a claim need not wait for the loop. Internal.';
