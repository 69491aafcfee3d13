-- Trees of jobs (see job.sql): a job that names an open job as its parent is its child. A tree is cancelled, paused and resumed as a
-- whole, from any of its jobs downwards, and no child escapes.
--
-- An enqueue of a child locks the row of its parent in jobs_open until it commits. A change of a tree locks the rows of all its jobs
-- and searches again until it finds no more. So a child was either committed before, or its enqueue waits and then finds the
-- parent ended, being cancelled, or paused, which the child inherits. A claim returns jobs that were paused while it selected them.
--
-- A cancellation locks the row of each job in jobs_running, jobs_ready, jobs_later or jobs_waiting before the row in jobs_open, as
-- every end does. It proceeds in order of id; a parent has a smaller id than its children.
--
-- One call cancels, pauses or resumes up to 1,000 jobs. If more are left, it inserts a row into job_changes, and a loop changes the
-- rest in portions. Until a cancellation or a pause is complete, claims let its jobs wait (job_admit), and enqueues refuse children of
-- jobs that are to be cancelled. A portion locks the row of each job in jobs_open as well, and the row of the change is deleted only
-- after a search that found no more jobs, so no child escapes. The loop skips jobs that others have locked, and returns to them.
-- Pauses and resumptions within one tree take place in the order in which they were requested: while one is incomplete, a call only
-- inserts its row.

insert into coordinator.event_types (type, key, data, meaning) values
  ('job.paused',  'name of the queue', '{ids,tree,reason}', 'A job was paused and cannot be claimed; with tree, neither can the jobs below it.'),
  ('job.resumed', 'name of the queue', '{ids,tree}',        'A job was resumed; with tree, the jobs below it were resumed as well.');

insert into coordinator.rights (function, role) values
  ('job_tree',         'reader'),
  ('job_cancel_children', 'agent'),
  ('job_pause',        'manager'),
  ('job_resume',       'manager');

insert into coordinator.limits (name, value, unit, meaning) values
  ('job_change',   1000,  'jobs', 'Jobs of a tree that one call cancels, pauses or resumes; a loop does the rest.'),
  ('job_depth',    20,    'jobs', 'Ancestors of a job in its tree.'),
  ('job_children', 10000, 'jobs', 'Open children per job.');

create or replace function coordinator.job_branches(
  p_project_id bigint, p_orders coordinator.job_order[], p_ids uuid[], p_first uuid[], p_many boolean) returns coordinator.job_branch[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_nestloop = off -- the joins are between arrays
as $$
declare
  v_branches coordinator.job_branch[];
  v_fault    record;
begin
  if not exists (select from unnest(p_orders) o where o.parent is not null) then
    return '{}';
  end if;
  with recursive tied as materialized (
    select o.place, p_ids[o.place] as id, coordinator.job_tie(o.parent, p_ids, p_first) as parent_id from unnest(p_orders) o),
  parent as materialized (
    select j.id, j.root_id, j.depth, case when j.paused ->> 'tree' = 'true' then j.paused end as paused
    from coordinator.jobs_open j
    where j.project_id = p_project_id and j.id = any (array(select t.parent_id from tied t))
      and not exists (select from coordinator.jobs_running r where r.id = j.id and r.cancel_at is not null)
      and j.id <> all ((select coordinator.job_doomed(p_project_id, array(select t.parent_id from tied t), '{cancel}'))::uuid[])),
  branch as (
    select t.place, t.id, t.parent_id, coalesce(p.root_id, p.id) as root_id, case when p.id is not null then coalesce(p.depth, 0) + 1 end as depth, p.paused
    from tied t left join parent p on p.id = t.parent_id
    where t.parent_id is null or p.id is not null
    union all
    select t.place, t.id, t.parent_id, coalesce(b.root_id, b.id), coalesce(b.depth, 0) + 1, b.paused
    from branch b join tied t on t.parent_id = b.id where b.depth is null or b.depth <= 20)
  select array_agg(row(b.parent_id, b.root_id, b.depth, b.paused)::coordinator.job_branch order by t.place) into v_branches
  from tied t left join branch b on b.place = t.place;

  for v_fault in
    select o.place - 1 as place, (v_branches[o.place]).parent_id as parent_id, (v_branches[o.place]).depth as depth,
           coordinator.job_tie(o.parent, p_ids, p_first) as named
    from unnest(p_orders) o
    where o.parent is not null and p_first[o.place] is null
      and ((v_branches[o.place]).parent_id is null or (v_branches[o.place]).depth > 20) order by 1 limit 1
  loop
    if v_fault.parent_id is null then
      raise exception using errcode = 'ZC328',
        message = case when p_many then format('job %s: ', v_fault.place) else '' end || format('the parent, job %s, has ended or is being cancelled', v_fault.named),
        detail = jsonb_build_object('parent', v_fault.named, 'job', case when p_many then v_fault.place end)::text,
        hint = 'Enqueue the job without a parent, or let it run after others.';
    end if;
    raise exception using errcode = 'ZC102',
      message = case when p_many then format('job %s: ', v_fault.place) else '' end || format('the job would have %s jobs above it; at most 20 are allowed', v_fault.depth),
      detail = jsonb_build_object('parent', v_fault.named, 'job', case when p_many then v_fault.place end)::text,
      hint = 'Enqueue it as a child of a job closer to the root.';
  end loop;
  select c.parent_id, c.jobs into v_fault
  from (select b.parent_id, b.root_id, count(*) as jobs from unnest(v_branches) with ordinality b
        where b.parent_id is not null and p_first[b.ordinality] is null group by 1, 2) c
  where c.jobs + (select count(*) from (select from coordinator.jobs_open j where j.root_id = c.root_id and j.parent_id = c.parent_id limit 10000) o) > 10000
  limit 1;
  if found then
    raise exception using errcode = 'ZC102', message = format('job %s would have more than 10000 open children', v_fault.parent_id),
      detail = jsonb_build_object('parent', v_fault.parent_id)::text, hint = 'Let children enqueue children of their own, or wait until some have ended.';
  end if;
  return v_branches;
end
$$;
comment on function coordinator.job_branches(bigint, coordinator.job_order[], uuid[], uuid[], boolean) is
  'Return, by position, where jobs to enqueue are in their trees; empty if none has a parent. ZC328: a parent has ended or is being cancelled. ZC102: a tree would be too deep, or a job would have too many children. Internal.';

create or replace function coordinator.job_members(p_project_id bigint, p_jobs uuid[], p_open boolean) returns uuid[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_nestloop = off -- the joins are between arrays
set jit = off
as $$
declare
  v_roots uuid[];
begin
  v_roots := array(
    select coalesce(j.root_id, j.id) from coordinator.jobs_open j where j.id = any (p_jobs) and j.project_id = p_project_id
    union
    select coalesce(j.root_id, j.id) from coordinator.jobs_ended j where j.project_id = p_project_id and j.id = any (p_jobs));
  if p_open and v_roots <@ p_jobs then
    return array(select j.id from coordinator.jobs_open j where j.root_id = any (v_roots)
                 union all select j.id from coordinator.jobs_open j where j.id = any (v_roots) order by 1);
  end if;
  return array(
    with recursive tree as materialized (
      select j.id, j.parent_id, true as open from coordinator.jobs_open j where j.root_id = any (v_roots)
      union all
      select j.id, j.parent_id, false from coordinator.jobs_ended j where j.project_id = p_project_id and j.root_id = any (v_roots)),
    below as (
      select i as id, i in (select j.id from coordinator.jobs_open j where j.id = any (p_jobs)) as open from unnest(p_jobs) i
      union
      select t.id, t.open from below b join tree t on t.parent_id = b.id)
    select b.id from below b where b.open or not p_open order by 1);
end
$$;
comment on function coordinator.job_members(bigint, uuid[], boolean) is
  'Return the ids of jobs and all jobs below them, in order of their ids; p_open: only those that have not ended. Internal.';

create or replace function coordinator.job_above(p_project_id bigint, p_job uuid, p_targets uuid[]) returns uuid
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
begin
  return case when p_job <> all (p_targets) then coalesce(
    (select case when j.root_id = any (p_targets) then j.root_id else j.parent_id end from coordinator.jobs_open j where j.id = p_job),
    (select e.parent_id from coordinator.jobs_ended e where e.project_id = p_project_id and e.id = p_job)) end;
end
$$;
comment on function coordinator.job_above(bigint, uuid, uuid[]) is
  'Return the parent of a job, or its root if this is one of p_targets; null if the job itself is. Internal.';

create or replace function coordinator.job_doomed(p_project_id bigint, p_jobs uuid[], p_changes text[]) returns uuid[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_targets uuid[] := array(select distinct t from coordinator.job_changes c cross join lateral unnest(c.jobs) t where c.project_id = p_project_id and c.change = any (p_changes));
begin
  if v_targets = '{}' then
    return '{}';
  end if;
  return array(
    with recursive above as (
      select i as id, coordinator.job_above(p_project_id, i, v_targets) as parent_id from unnest(p_jobs) i
      union
      select d.id, coordinator.job_above(p_project_id, d.id, v_targets) from (select distinct a.parent_id as id from above a where a.parent_id is not null) d),
    below as (
      select t as id from unnest(v_targets) t
      union
      select a.id from below b join above a on a.parent_id = b.id)
    select b.id from below b where b.id = any (p_jobs) order by 1);
end
$$;
comment on function coordinator.job_doomed(bigint, uuid[], text[]) is
  'Return those of some jobs whose tree is being changed in portions (p_changes: cancel, pause, resume): the jobs of such a change, and all below them. Internal.';

create or replace function coordinator.job_cancel_one(p_job uuid, p_wait boolean) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  for v_try in 1..100 loop -- a job may move between tables while this searches them
    if p_wait then
      perform from coordinator.jobs_running r where r.id = p_job for update;
    else
      perform from coordinator.jobs_open j where j.id = p_job for update skip locked;
      if not found then
        return 'busy';
      end if;
      perform from coordinator.jobs_running r where r.id = p_job for update skip locked;
    end if;
    if found then
      perform from coordinator.jobs_open j where j.id = p_job for update;
      return 'running';
    elsif coordinator.job_take(p_job, p_wait) then
      perform from coordinator.jobs_open j where j.id = p_job for update;
      return 'waiting';
    elsif not p_wait then
      return 'busy';
    elsif not exists (select from coordinator.jobs_open j where j.id = p_job) then
      return 'ended';
    end if;
  end loop;
  raise exception using errcode = 'lock_not_available', message = format('other calls keep changing job %s', p_job), hint = 'Try again.';
end
$$;
comment on function coordinator.job_cancel_one(uuid, boolean) is
  'Lock a job that is to be cancelled, and return what it is: running, ended, waiting (taken out of its table: the caller ends it), or, without p_wait, busy if another transaction holds it. Internal.';

create or replace function coordinator.job_cancel_portion(
  p_cancellation coordinator.job_changes, p_limit integer, p_wait boolean, p_now timestamptz, out cancelled integer, out following integer)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  c         constant coordinator.job_changes := p_cancellation;
  v_project text := (select p.name from coordinator.projects p where p.id = c.project_id);
  v_members uuid[];
  v_left    uuid[];
  v_waiting uuid[];
  v_running uuid[];
  v_asked   uuid[];
  v_job     uuid;
  v_sealed  boolean := false;
begin
  cancelled := 0;
  loop
    v_members := coordinator.job_members(c.project_id, c.jobs, true);
    v_asked := array(select r.id from unnest(v_members) m join coordinator.jobs_running r on r.id = m where r.cancel_at is not null);
    v_left := array(select m from unnest(v_members) m left join unnest(v_asked) a on a = m where a is null order by 1);
    following := cardinality(v_left);
    exit when cancelled >= p_limit;
    if following = 0 then
      exit when v_sealed or v_asked = '{}';
      -- An enqueue that began before may still add a child to a job whose worker was already asked to stop.
      if p_wait then
        perform from coordinator.jobs_open j where j.id = any (v_asked) order by j.id for update;
      else
        following := cardinality(v_asked) - (
          select count(*) from (select from coordinator.jobs_open j where j.id = any (v_asked) order by j.id for update skip locked) l);
        exit when following > 0;
      end if;
      v_sealed := true;
      continue;
    end if;
    v_waiting := '{}';
    v_running := '{}';
    foreach v_job in array v_left[:p_limit - cancelled] loop
      case coordinator.job_cancel_one(v_job, p_wait)
        when 'waiting' then v_waiting := v_waiting || v_job;
        when 'running' then v_running := v_running || v_job;
        else null;
      end case;
    end loop;
    exit when not p_wait and v_waiting = '{}' and v_running = '{}';
    perform coordinator.job_end(v_waiting, 'cancelled', 'cancelled', c.reason, c.actor, p_now, p_wait => p_wait);
    update coordinator.jobs_running r
    set cancel_at = p_now + interval '30 seconds', cancelled_by = c.actor, cancel_reason = c.reason
    where r.id = any (v_running);
    perform coordinator.job_tell('job.cancel_requested', c.project_id, v_project, t.queue, c.actor, p_now, t.ids, jsonb_build_object('reason', c.reason))
    from (select j.queue, array_agg(j.id order by j.id) as ids from coordinator.jobs_open j where j.id = any (v_running) group by 1 order by 1) t;
    cancelled := cancelled + cardinality(v_waiting) + cardinality(v_running);
  end loop;
end
$$;
comment on function coordinator.job_cancel_portion(coordinator.job_changes, integer, boolean, timestamptz) is
  'Cancel up to p_limit jobs of a cancellation: waiting jobs end, and the workers of running jobs are asked to stop. Return how many, and how many follow. Without p_wait, leave jobs that other transactions hold to another portion. Internal.';

create or replace function coordinator.job_cancel_tree(
  p_project_id bigint, p_jobs uuid[], p_reason text, p_actor text, p_now timestamptz, out cancelled integer, out following integer)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_cancellation coordinator.job_changes;
begin
  v_cancellation.project_id := p_project_id;
  v_cancellation.change := 'cancel';
  v_cancellation.jobs := p_jobs;
  v_cancellation.reason := p_reason;
  v_cancellation.actor := p_actor;
  v_cancellation.requested_at := p_now;
  select * into cancelled, following from coordinator.job_cancel_portion(v_cancellation, 1000, true, p_now);
  if following > 0 and not p_jobs <@ coordinator.job_doomed(p_project_id, p_jobs, '{cancel}') then
    insert into coordinator.job_changes (project_id, jobs, reason, actor, requested_at) values (p_project_id, p_jobs, p_reason, p_actor, p_now);
  end if;
end
$$;
comment on function coordinator.job_cancel_tree(bigint, uuid[], text, text, timestamptz) is
  'Cancel jobs and all jobs below them: up to 1,000 now, and the rest in portions by a loop. Return how many were cancelled, and how many follow. Internal.';

create or replace function coordinator.job_change_due(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select coalesce(sum(n::integer), 0) from unnest(coordinator.project_each('job_change_due', p_limit, $due$
    select c.project_id, c.id::text from coordinator.job_changes c where c.project_id <> all ($2) order by c.id limit $3
  $due$)) n);
end
$$;
comment on function coordinator.job_change_due(integer) is
  'Cancel, pause or resume up to p_limit further jobs of trees that were too large for one call; returns how many. Repeat until 0.';

create or replace function coordinator.job_change_due_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_change    coordinator.job_changes;
  v_changed   integer;
  v_following integer;
  v_count     integer := 0;
begin
  for v_change in
    select * from coordinator.job_changes c where c.id = any (p_items::bigint[]) order by c.id for update skip locked
  loop
    exit when v_count >= p_limit;
    if v_change.change = 'cancel' then
      select * into v_changed, v_following from coordinator.job_cancel_portion(v_change, p_limit - v_count, false, coordinator.now_utc());
    else
      continue when exists (select from coordinator.job_changes c
                            where c.project_id = p_project_id and c.root_id = v_change.root_id and c.id < v_change.id);
      select * into v_changed, v_following from coordinator.job_pause_portion(v_change, p_limit - v_count, false, coordinator.now_utc());
    end if;
    v_count := v_count + v_changed;
    if v_following = 0 then
      delete from coordinator.job_changes c where c.id = v_change.id;
    end if;
  end loop;
  return array[v_count];
end
$$;
comment on function coordinator.job_change_due_in(bigint, text[], integer) is
  'Do the work of job_change_due in a project: see project_each. Internal.';

create or replace function coordinator.job_cancel_children(
  p_project text, p_job uuid, p_agent uuid, p_fence bigint, p_children uuid[] default null, p_reason text default null)
returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_attempt  coordinator.jobs_running := coordinator.job_attempt(p_project, p_job, p_agent, p_fence);
  v_below    uuid[] := coordinator.job_members(v_project, array[p_job], false);
  v_done     record;
  v_stranger uuid;
begin
  perform coordinator.check_reason(p_reason);
  if p_children is null then
    p_children := array(
      select j.id from coordinator.jobs_open j join coordinator.jobs_open p on p.id = p_job
      where j.root_id = coalesce(p.root_id, p.id) and j.parent_id = p_job order by 1);
  end if;
  for v_stranger in select c from unnest(p_children) c where (c = any (v_below) and c <> p_job) is not true limit 1 loop
    perform coordinator.job_find(v_project, v_stranger);
    raise exception using errcode = 'ZC328', message = format('job %s is not below job %s', v_stranger, p_job),
      detail = jsonb_build_object('job', v_stranger, 'parent', p_job)::text, hint = 'A worker can cancel the children of the job that it runs, and jobs below them.';
  end loop;
  v_done := coordinator.job_cancel_tree(v_project, p_children, p_reason, coordinator.job_worker(p_agent), coordinator.now_utc());
  return v_done.cancelled + v_done.following;
end
$$;
comment on function coordinator.job_cancel_children(text, uuid, uuid, bigint, uuid[], text) is
  'Cancel children of the job that a worker holds under p_fence, or jobs further below it, each with all jobs below; by default all children. Return how many jobs had not ended; after the first 1,000, a loop cancels the rest. ZC320: the fence is stale. ZC328: a job is not below that job.';

create or replace function coordinator.job_pause_portion(
  p_change coordinator.job_changes, p_limit integer, p_wait boolean, p_now timestamptz, out changed integer, out following integer)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  c       constant coordinator.job_changes := p_change;
  v_pause constant boolean := c.change = 'pause';
  v_left  uuid[];
  v_new   uuid[];
  v_moved integer;
begin
  changed := 0;
  loop
    v_left := case when c.tree then coordinator.job_members(c.project_id, c.jobs, true) else c.jobs end;
    v_left := array(
      select j.id from coordinator.jobs_open j
      where j.id = any (v_left)
        and case when v_pause then j.paused is null or c.tree and j.paused ->> 'tree' = 'false'
                 else j.paused is not null or exists (select from coordinator.jobs_waiting w where w.id = j.id and w.cause = 'tree') end
      order by j.id);
    following := cardinality(v_left);
    exit when following = 0 or changed >= p_limit;
    v_left := v_left[:p_limit - changed];
    if p_wait then
      v_left := array(select j.id from coordinator.jobs_open j where j.id = any (v_left) order by j.id for no key update);
    else
      v_left := array(select j.id from coordinator.jobs_open j where j.id = any (v_left) order by j.id for no key update skip locked);
    end if;
    with changed as (
      update coordinator.jobs_open j set paused = c.paused
      where j.id = any (v_left) and case when v_pause then j.paused is null or c.tree and j.paused ->> 'tree' = 'false' else j.paused is not null end
      returning j.id)
    select coalesce(array_agg(u.id order by u.id), '{}') into v_new from changed u;
    v_moved := cardinality(v_new);
    if v_pause then
      perform coordinator.job_make_waiting(coordinator.job_take_queued(v_new), 'tree', null, c.actor, p_now);
    else
      v_moved := greatest(v_moved, cardinality(coordinator.job_wake(
        array(select w.id from coordinator.jobs_waiting w where w.id = any (v_left) and w.cause = 'tree'), c.actor, p_now)));
    end if;
    changed := changed + v_moved;
    following := following - v_moved;
    exit when v_moved = 0 or following > 0 and changed >= p_limit; -- other transactions hold these jobs, or there are certainly more
  end loop;
end
$$;
comment on function coordinator.job_pause_portion(coordinator.job_changes, integer, boolean, timestamptz) is
  'Pause or resume up to p_limit jobs of a change. Return how many, and how many follow. Queued jobs wait; a claim that holds one of them starts it or puts it back. Without p_wait, leave jobs that other transactions hold to another portion. Internal.';

create or replace function coordinator.job_change_pause(
  p_project text, p_job uuid, p_tree boolean, p_paused jsonb, p_event text, p_data jsonb, p_actor text) returns setof coordinator.job_outcome
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_project   bigint := coordinator.project_id(p_project);
  v_now       timestamptz := coordinator.now_utc();
  v_change    coordinator.job_changes;
  v_before    coordinator.job_changes;
  v_job       record;
  v_following integer;
  v_again     boolean;
begin
  select * into v_job from coordinator.job_find(v_project, p_job);
  perform coordinator.check_isolation('jobs are paused and resumed');
  v_following := case when p_tree then cardinality(coordinator.job_members(v_project, array[p_job], true))
                      else (select count(*) from coordinator.jobs_open j where j.id = p_job) end;
  if v_following = 0 then
    raise exception using errcode = 'ZC323', message = format('job %s has ended: it is %s', p_job, v_job.status),
      detail = jsonb_build_object('job', p_job, 'status', v_job.status, 'reason', v_job.reason, 'ended_at', v_job.ended_at)::text,
      hint = 'Nothing is left to pause or resume.';
  end if;
  v_change.project_id := v_project;
  v_change.jobs := array[p_job];
  v_change.change := case when p_paused is null then 'resume' else 'pause' end;
  v_change.tree := p_tree;
  v_change.paused := p_paused;
  v_change.reason := p_paused ->> 'reason';
  v_change.actor := p_actor;
  v_change.requested_at := v_now;
  select coalesce(j.root_id, j.id) into v_change.root_id from coordinator.jobs_open j where j.id = p_job;
  if not found then
    select coalesce(j.root_id, j.id) into v_change.root_id from coordinator.jobs_ended j where j.project_id = v_project and j.id = p_job;
  end if;
  select * into v_before from coordinator.job_changes c
  where c.project_id = v_project and c.root_id = v_change.root_id order by c.id desc limit 1;
  v_again := (v_before.change, v_before.jobs, v_before.tree) is not distinct from (v_change.change, v_change.jobs, v_change.tree);
  if v_before.id is null or v_again then
    v_following := (coordinator.job_pause_portion(v_change, 0, true, v_now)).following;
  end if;
  if v_following > 0 and not v_again then
    perform coordinator.job_tell(p_event, v_project, p_project, v_job.queue, p_actor, v_now, array[p_job], p_data);
    if v_before.id is null then
      v_following := (coordinator.job_pause_portion(v_change, 1000, true, v_now)).following;
    end if;
    if v_following > 0 then
      insert into coordinator.job_changes (project_id, jobs, reason, actor, requested_at, change, tree, paused, root_id)
      values (v_project, v_change.jobs, v_change.reason, p_actor, v_now, v_change.change, p_tree, p_paused, v_change.root_id);
    end if;
  end if;
  return query select o.id, o.status, o.reason, o.due_at, v_following, null::integer from coordinator.job_outcome_of(v_project, p_job) o;
end
$$;
comment on function coordinator.job_change_pause(text, uuid, boolean, jsonb, text, jsonb, text) is
  'Pause or resume a job and, with p_tree, all jobs below it: up to 1,000 now, and the rest in portions by a loop. Internal.';

create or replace function coordinator.job_pause(p_project text, p_job uuid, p_tree boolean default false, p_reason text default null, p_actor text default null)
returns setof coordinator.job_outcome
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_actor text := coordinator.actor_name(p_actor);
begin
  perform coordinator.check_reason(p_reason);
  p_tree := coalesce(p_tree, false);
  return query select * from coordinator.job_change_pause(p_project, p_job, p_tree,
    jsonb_build_object('by', v_actor, 'at', coordinator.now_utc(), 'reason', p_reason, 'job', p_job, 'tree', p_tree),
    'job.paused', jsonb_build_object('tree', p_tree, 'reason', p_reason), v_actor);
end
$$;
comment on function coordinator.job_pause(text, uuid, boolean, text, text) is
  'Pause a job and, with p_tree, all jobs below it, including children that are enqueued later: up to 1,000 now, the oldest first, and the rest soon after (following). None of them is claimed after the commit; running attempts continue. Pausing it again changes nothing. ZC323: the job has ended and, with p_tree, so have all jobs below it.';

create or replace function coordinator.job_resume(p_project text, p_job uuid, p_tree boolean default false, p_actor text default null)
returns setof coordinator.job_outcome
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  p_tree := coalesce(p_tree, false);
  return query select * from coordinator.job_change_pause(p_project, p_job, p_tree, null, 'job.resumed', jsonb_build_object('tree', p_tree), coordinator.actor_name(p_actor));
end
$$;
comment on function coordinator.job_resume(text, uuid, boolean, text) is
  'Resume a paused job and, with p_tree, all jobs below it, whoever paused them: up to 1,000 now, the oldest first, and the rest soon after (following). ZC323: the job has ended and, with p_tree, so have all jobs below it.';

create or replace function coordinator.job_tree(p_project text, p_job uuid, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.jobs
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{id}');
  perform coordinator.job_find(v_project, p_job);
  return query select * from coordinator.job_select(p_project, format('j.id = any (%L) order by j.id', array(
    select m from unnest(coordinator.job_members(v_project, array[p_job], false)) m where p_after is null or m > p_after[1]::uuid order by m limit p_limit)));
end
$$;
comment on function coordinator.job_tree(text, uuid, text[], integer) is
  'List a job and all jobs below it, oldest first, so that parents precede their children. The list includes waiting, running and retained ended jobs. ZC209: there is no such job. p_after: array[id] of the last row read.';
