-- Trees of jobs (see job.sql): a job that names an open job as its parent is its child. A tree is cancelled, paused and resumed as a
-- whole, from any of its jobs downwards, and no child escapes.
--
-- An enqueue of a child locks the row of its parent in jobs_open until it commits. A call that changes a tree locks the rows of all its
-- jobs and searches again until it finds no more. So a child was either committed before, or its enqueue waits and then finds the
-- parent ended, being cancelled, or paused, which the child inherits. A claim returns jobs that were paused while it selected them.
--
-- A cancellation locks the row of each job in jobs_running, jobs_ready, jobs_later or jobs_waiting before the row in jobs_open, as
-- every end does. It proceeds in order of id; a parent has a smaller id than its children.

insert into coordinator.event_types (type, key, data, meaning) values
  ('job.paused',  'name of the queue', '{ids,tree,reason}', 'A job was paused and cannot be claimed; with tree, neither can the jobs below it.'),
  ('job.resumed', 'name of the queue', '{ids,tree}',        'A job was resumed; with tree, the jobs below it were resumed as well.');

insert into coordinator.rights (function, role) values
  ('job_tree',         'reader'),
  ('job_cancel_children', 'agent'),
  ('job_pause',        'manager'),
  ('job_resume',       'manager');

insert into coordinator.limits (name, value, unit, meaning) values
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
      and not exists (select from coordinator.jobs_running r where r.id = j.id and r.cancel_at is not null)),
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

create or replace function coordinator.job_members(p_project_id bigint, p_job uuid, p_open boolean) returns uuid[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_nestloop = off -- the joins are between arrays
set jit = off
as $$
declare
  v_root uuid;
begin
  select coalesce(j.root_id, j.id) into v_root from coordinator.jobs_open j where j.id = p_job and j.project_id = p_project_id;
  if not found then
    select coalesce(j.root_id, j.id) into v_root from coordinator.jobs_ended j where j.project_id = p_project_id and j.id = p_job;
  end if;
  if v_root = p_job and p_open then
    return array(select j.id from coordinator.jobs_open j where j.root_id = p_job
                 union all select j.id from coordinator.jobs_open j where j.id = p_job order by 1);
  end if;
  return array(
    with recursive tree as materialized (
      select j.id, j.parent_id, true as open from coordinator.jobs_open j where j.root_id = v_root
      union all
      select j.id, j.parent_id, false from coordinator.jobs_ended j where j.project_id = p_project_id and j.root_id = v_root),
    below as (
      select p_job as id, exists (select from coordinator.jobs_open j where j.id = p_job) as open
      union all
      select t.id, t.open from below b join tree t on t.parent_id = b.id)
    select b.id from below b where b.open or not p_open order by 1);
end
$$;
comment on function coordinator.job_members(bigint, uuid, boolean) is
  'Return the ids of a job and all jobs below it, in order of their ids; p_open: only those that have not ended. Internal.';

create or replace function coordinator.job_cancel_tree(
  p_project_id bigint, p_project text, p_jobs uuid[], p_reason text, p_actor text, p_now timestamptz) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_known   uuid[] := '{}';
  v_new     uuid[];
  v_waited  uuid[] := '{}';
  v_running uuid[] := '{}';
  v_job     uuid;
begin
  loop
    v_new := array(select distinct m from unnest(p_jobs) j, unnest(coordinator.job_members(p_project_id, j, true)) m where m <> all (v_known) order by 1);
    exit when v_new = '{}';
    v_known := v_known || v_new;
    foreach v_job in array v_new loop
      for v_try in 1..100 loop -- a job may move between tables while this searches them
        perform from coordinator.jobs_running r where r.id = v_job for update;
        if found then
          v_running := v_running || v_job;
          exit;
        elsif coordinator.job_take(v_job, true) then
          v_waited := v_waited || v_job;
          exit;
        end if;
        exit when not exists (select from coordinator.jobs_open j where j.id = v_job); -- the job has ended
        if v_try = 100 then
          raise exception using errcode = 'lock_not_available', message = format('other calls keep changing job %s', v_job), hint = 'Try again.';
        end if;
      end loop;
      perform from coordinator.jobs_open j where j.id = v_job for update;
    end loop;
  end loop;
  perform coordinator.job_end(v_waited, 'cancelled', 'cancelled', p_reason, p_actor, p_now);
  with asked as (
    update coordinator.jobs_running r
    set cancel_at = p_now + interval '30 seconds', cancelled_by = p_actor, cancel_reason = p_reason
    where r.id = any (v_running) and r.cancel_at is null returning r.id, r.class_id)
  select coalesce(array_agg(a.id), '{}') into v_new from asked a;
  perform coordinator.job_tell('job.cancel_requested', p_project_id, p_project, t.queue, p_actor, p_now, t.ids, jsonb_build_object('reason', p_reason))
  from (select j.queue, array_agg(j.id order by j.id) as ids from coordinator.jobs_open j where j.id = any (v_new) group by 1 order by 1) t;
  return cardinality(v_waited) + cardinality(v_running);
end
$$;
comment on function coordinator.job_cancel_tree(bigint, text, uuid[], text, text, timestamptz) is
  'Cancel jobs and all jobs below them: waiting jobs end, and the workers of running jobs are asked to stop; returns how many had not ended. Internal.';

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
  v_below    uuid[] := coordinator.job_members(v_project, p_job, false);
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
  return coordinator.job_cancel_tree(v_project, p_project, p_children, p_reason, coordinator.job_worker(p_agent), coordinator.now_utc());
end
$$;
comment on function coordinator.job_cancel_children(text, uuid, uuid, bigint, uuid[], text) is
  'Cancel children of the job that a worker holds under p_fence, or jobs further below it, each with all jobs below; by default all children. Return how many jobs had not ended. ZC320: the fence is stale. ZC328: a job is not below that job.';

create or replace function coordinator.job_change_pause(
  p_project text, p_job uuid, p_tree boolean, p_paused jsonb, p_event text, p_data jsonb, p_actor text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_job     record;
  v_known   uuid[] := '{}';
  v_new     uuid[];
begin
  select * into v_job from coordinator.job_find(v_project, p_job);
  perform coordinator.check_isolation('jobs are paused and resumed');
  loop
    v_new := array(select m from unnest(case when p_tree then coordinator.job_members(v_project, p_job, true) else array[p_job] end) m
                   where m <> all (v_known) order by 1);
    v_new := array(select j.id from coordinator.jobs_open j where j.id = any (v_new) order by j.id for update);
    exit when v_new = '{}';
    v_known := v_known || v_new;
    exit when not p_tree;
  end loop;
  if v_known = '{}' then
    raise exception using errcode = 'ZC323', message = format('job %s has ended: it is %s', p_job, v_job.status),
      detail = jsonb_build_object('job', p_job, 'status', v_job.status, 'reason', v_job.reason, 'ended_at', v_job.ended_at)::text,
      hint = 'Nothing is left to pause or resume.';
  end if;
  with changed as (
    update coordinator.jobs_open j set paused = p_paused
    where j.id = any (v_known) and case when p_paused is null then j.paused is not null else j.paused is null or p_tree and j.paused ->> 'tree' = 'false' end
    returning j.id)
  select coalesce(array_agg(c.id order by c.id), '{}') into v_new from changed c;
  if v_new = '{}' then
    return;
  end if;
  perform coordinator.job_tell(p_event, v_project, p_project, v_job.queue, p_actor, v_now, array[p_job], p_data);
  if p_paused is null then
    perform coordinator.job_wake(array(select w.id from coordinator.jobs_waiting w where w.id = any (v_new) and w.cause = 'tree'), p_actor, v_now);
  else
    perform coordinator.job_make_waiting(array(select i from unnest(v_new) i where coordinator.job_take_ready(i, false)), 'tree', null, p_actor, v_now);
  end if;
end
$$;
comment on function coordinator.job_change_pause(text, uuid, boolean, jsonb, text, jsonb, text) is
  'Pause or resume a job and, with p_tree, all jobs below it. Queued jobs wait; a claim that holds one of them starts it or puts it back. Internal.';

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
  perform coordinator.job_change_pause(p_project, p_job, p_tree,
    jsonb_build_object('by', v_actor, 'at', coordinator.now_utc(), 'reason', p_reason, 'job', p_job, 'tree', p_tree),
    'job.paused', jsonb_build_object('tree', p_tree, 'reason', p_reason), v_actor);
  return query select * from coordinator.job_outcome_of(coordinator.project_id(p_project), p_job);
end
$$;
comment on function coordinator.job_pause(text, uuid, boolean, text, text) is
  'Pause a job and, with p_tree, all jobs below it, including children that are enqueued later. None of them is claimed after the commit; running attempts continue. Pausing it again changes nothing. ZC323: the job has ended and, with p_tree, so have all jobs below it.';

create or replace function coordinator.job_resume(p_project text, p_job uuid, p_tree boolean default false, p_actor text default null)
returns setof coordinator.job_outcome
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  p_tree := coalesce(p_tree, false);
  perform coordinator.job_change_pause(p_project, p_job, p_tree, null, 'job.resumed', jsonb_build_object('tree', p_tree), coordinator.actor_name(p_actor));
  return query select * from coordinator.job_outcome_of(coordinator.project_id(p_project), p_job);
end
$$;
comment on function coordinator.job_resume(text, uuid, boolean, text) is
  'Resume a paused job and, with p_tree, all jobs below it, whoever paused them. ZC323: the job has ended and, with p_tree, so have all jobs below it.';

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
    select m from unnest(coordinator.job_members(v_project, p_job, false)) m where p_after is null or m > p_after[1]::uuid order by m limit p_limit)));
end
$$;
comment on function coordinator.job_tree(text, uuid, text[], integer) is
  'List a job and all jobs below it, oldest first, so that parents precede their children. The list includes waiting, running and retained ended jobs. ZC209: there is no such job. p_after: array[id] of the last row read.';
