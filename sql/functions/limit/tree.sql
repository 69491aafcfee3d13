-- Limits of trees (see limit.sql, job/tree.sql): how many jobs of one tree run at once, from the root to the last child.
--
-- A class does not know trees, so a claim asks for the permit after it has picked a job. A job that gets none waits in jobs_waiting (cause:
-- limit), holds nothing, and is in nobody's way. Whoever gives a permit back wakes the jobs that come next, as many of each
-- class: which of the classes has workers, nobody knows. Those that find the permit taken wait again.
--
-- No job sleeps. A wake-up does not see jobs that begin to wait at the same time, and a woken job may end without having used the
-- permit; limit_refill, a loop, wakes others where a permit is free and jobs wait for it. A limit ends with its tree (limit_prune).

create or replace function coordinator.limit_check_tree(p_project text, p_project_id bigint, p_tree uuid) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_root uuid;
  v_job  record;
  v_name text := (select l.name from coordinator.job_limits l where l.project_id = p_project_id and l.tree = p_tree);
begin
  if v_name is not null then
    raise exception using errcode = 'ZC325', message = format('the tree of job %s has the limit "%s"', p_tree, v_name),
      detail = jsonb_build_object('tree', p_tree, 'limit', v_name)::text, hint = 'A tree has one limit: change that one, or delete it first.';
  end if;
  select j.root_id into v_root from coordinator.jobs_open j where j.id = p_tree and j.project_id = p_project_id;
  if v_root is not null then
    raise exception using errcode = 'ZC105', message = format('job %s is not the root of its tree', p_tree),
      detail = jsonb_build_object('job', p_tree, 'root', v_root)::text, hint = format('A limit applies to a whole tree: give its root, job %s.', v_root);
  elsif not found and not exists (select from coordinator.jobs_open j where j.root_id = p_tree and j.project_id = p_project_id) then
    select * into v_job from coordinator.job_find(p_project_id, p_tree);
    raise exception using errcode = 'ZC323', message = format('job %s and all jobs of its tree have ended', p_tree),
      detail = jsonb_build_object('job', p_tree, 'status', v_job.status, 'ended_at', v_job.ended_at)::text, hint = 'Nothing is left to limit.';
  end if;
end
$$;
comment on function coordinator.limit_check_tree(text, bigint, uuid) is
  'Reject a tree that cannot get a limit: the job is not a root (ZC105), is unknown (ZC209), its tree has ended (ZC323) or has a limit (ZC325). Internal.';

create or replace function coordinator.limit_take_trees(
  p_project_id bigint, p_ids uuid[], p_waiting integer, p_worker text, p_now timestamptz,
  out picked uuid[], out slots jsonb, out waiting uuid[], out rest uuid[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_tree  record;
  v_taken integer;
  v_wait  uuid[];
begin
  slots := '{}';
  waiting := '{}';
  rest := '{}';
  for v_tree in
    select l.id, l.surplus, case when l.held_until > p_now then l.held_until end as held_until,
           array_agg(j.id order by j.priority desc, j.scheduled_at, j.id) as ids
    from coordinator.jobs_open j join coordinator.job_limits l on l.project_id = p_project_id and l.tree = coalesce(j.root_id, j.id)
    where j.id = any (p_ids) and j.paused is null and (j.start_by is null or j.start_by > p_now) -- others do not start
    group by l.id order by l.id
  loop
    v_taken := 0;
    if v_tree.held_until is null and (v_tree.surplus = 0 or coordinator.limit_retire(v_tree.id)) then
      delete from coordinator.job_slots s
      where s.ctid = any (array(select o.ctid from coordinator.job_slots o where o.limit_id = v_tree.id
                                order by o.turn limit cardinality(v_tree.ids) for update skip locked));
      get diagnostics v_taken = row_count;
    end if;
    slots := slots || coalesce((select jsonb_object_agg(i, v_tree.id) from unnest(v_tree.ids[:v_taken]) i), '{}');
    v_wait := v_tree.ids[v_taken + 1:v_taken + greatest(0, p_waiting - cardinality(waiting))];
    rest := rest || v_tree.ids[v_taken + cardinality(v_wait) + 1:];
    if v_wait <> '{}' then
      waiting := waiting || v_wait;
      perform coordinator.job_make_waiting(v_wait, 'limit', v_tree.held_until, p_worker, p_now);
      insert into coordinator.job_tree_waits (job_id, limit_id, class_id, rank)
      select j.id, v_tree.id, j.class_id, coordinator.job_rank(j.scheduled_at, j.priority, q.ageing)
      from coordinator.jobs_open j join coordinator.queues q on q.project_id = j.project_id and q.name = j.queue where j.id = any (v_wait);
    end if;
  end loop;
  picked := array(select u.id from unnest(p_ids) with ordinality u (id, place) where u.id <> all (waiting || rest) order by u.place);
end
$$;
comment on function coordinator.limit_take_trees(bigint, uuid[], integer, text, timestamptz) is
  'Take a permit for each job that a claim took out of jobs_ready and whose tree has a limit. picked: the jobs that can start, also those of other trees; slots: the limits of which they took a permit, by job; waiting: up to p_waiting jobs that got none, and wait from now on; rest: jobs beyond that. Waits for nobody. Internal.';

create or replace function coordinator.limit_return_trees(p_slots jsonb, p_ids uuid[], p_by text, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limits bigint[] := array(select (p_slots ->> i::text)::bigint from unnest(p_ids) i where p_slots ? i::text);
begin
  if v_limits <> '{}' then
    perform coordinator.limit_give_back(v_limits, p_by, p_now);
  end if;
end
$$;
comment on function coordinator.limit_return_trees(jsonb, uuid[], text, timestamptz) is
  'Give back the permits that limit_take_trees took for jobs that do not start now. Internal.';

create or replace function coordinator.limit_wake_trees(p_limits bigint[], p_counts bigint[], p_by text, p_now timestamptz) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off -- the first ones, however many wait
set enable_mergejoin = off
as $$
declare
  v_ids uuid[];
begin
  v_ids := array(
    with recursive class as ( -- each by one look at the index
      select l.id as limit_id, coalesce(u.jobs, f.jobs) as jobs, (select min(t.class_id) from coordinator.job_tree_waits t where t.limit_id = l.id) as class_id
      from unnest(p_limits, p_counts) u (id, jobs)
      join coordinator.job_limits l on l.id = u.id and l.tree is not null and (l.held_until > p_now) is not true
      cross join lateral (select count(*) as jobs from (select from coordinator.job_slots s where s.limit_id = l.id limit 1000) s) f
      union all
      select c.limit_id, c.jobs, (select min(t.class_id) from coordinator.job_tree_waits t where t.limit_id = c.limit_id and t.class_id > c.class_id)
      from class c where c.class_id is not null)
    select b.job_id
    from class c cross join lateral (
      select t.job_id from coordinator.job_tree_waits t join coordinator.jobs_waiting w on w.id = t.job_id
      where t.limit_id = c.limit_id and t.class_id = c.class_id order by t.rank, t.job_id limit c.jobs for update of w skip locked) b);
  return case when v_ids = '{}' then 0 else cardinality(coordinator.job_wake_soon(v_ids, p_by, p_now)) end;
end
$$;
comment on function coordinator.limit_wake_trees(bigint[], bigint[], text, timestamptz) is
  'Wake jobs that wait for the limits of their trees, of which there are permits again: of each class as many as p_counts says; null: as there are free permits. Returns how many were woken. Internal.';
