-- Queues of jobs: the policy by which jobs are claimed. A row exists from the first use of a queue, or since it was set.
--
-- A transaction that adds jobs to a queue shares its advisory lock, and queue_set takes it exclusively. So a job is placed by the
-- policy that applies when its transaction commits. A row lock would become a multixact of all enqueues.

insert into coordinator.event_types (type, key, data, meaning) values
  ('queue.set',     'name of the queue', '{fair_by,ageing_s,max_waiting,max_waiting_per_key,events}', 'The policy of a queue was changed. The view queues_live has its weights.'),
  ('queue.deleted', 'name of the queue', '{}',       'A queue without open jobs was deleted.'),
  ('queue.arranged', 'name of the queue', '{}',      'All queued jobs were moved to the places that result from the last change to the policy or to a limit per key.'),
  ('queue.paused',  'name of the queue', '{reason}', 'A queue was paused. Its jobs cannot be claimed.'),
  ('queue.resumed', 'name of the queue', '{}',       'A queue was resumed.');

insert into coordinator.rights (function, role) values
  ('queue_get',    'reader'),
  ('queue_list',   'reader'),
  ('queue_delete', 'manager'),
  ('queue_pause',  'manager'),
  ('queue_resume', 'manager'),
  ('queue_set',    'manager');

insert into coordinator.limits (name, value, unit, meaning) values
  ('queues',            1000,    'queues',     'Queues per project.'),
  ('queue_name',        100,     'characters', 'Name of a queue.'),
  ('queue_weight',      1000,    'shares',     'Weight of a key in a fair queue.'),
  ('queue_weights',     1000,    'keys',       'Keys per queue that have their own weight.'),
  ('queue_max_waiting', 1000000, 'jobs',       'Highest max_waiting and max_waiting_per_key of a queue.');

create or replace view coordinator.queues_live with (security_barrier) as
  select p.name as project, q.name as queue, case when q.fair then 'key' else 'none' end as fair_by, q.ageing, q.weights,
         q.max_waiting, q.max_waiting_per_key, q.events, q.paused_at, q.paused_by, q.pause_reason,
         n.queued_count, coalesce(r.running_count, 0)::integer as running_count, u.unplaced_count, q.actor, q.created_at, q.updated_at
  from coordinator.queues q
  join coordinator.projects p on p.id = q.project_id
  cross join lateral (
    select count(*)::integer as queued_count
    from (select from coordinator.job_classes c join coordinator.jobs_ready j on j.class_id = c.id
          where c.project_id = q.project_id and c.queue = q.name limit 10000) first) n
  left join lateral (
    select sum(greatest(1, coalesce(t.total_count, n.queued_count) - t.placed_count))::bigint as unplaced_count
    from coordinator.job_placements t join coordinator.job_classes c on c.id = t.class_id
    where c.project_id = q.project_id and c.queue = q.name) u on true
  left join (
    select c.project_id, c.queue, count(*) as running_count
    from coordinator.jobs_running j join coordinator.job_classes c on c.id = j.class_id
    group by c.project_id, c.queue) r on r.project_id = q.project_id and r.queue = q.name
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.queues_live                     is 'Job queues, with their policies and numbers of jobs.';
comment on column coordinator.queues_live.project             is 'Name of the project.';
comment on column coordinator.queues_live.queue               is 'Name of the queue.';
comment on column coordinator.queues_live.fair_by             is 'key: keys take turns; none: jobs are claimed in order of priority and time.';
comment on column coordinator.queues_live.ageing              is 'How long a job waits to gain one step of priority; null: strict priority.';
comment on column coordinator.queues_live.weights             is 'Keys whose share of a fair queue is not 1, with their shares.';
comment on column coordinator.queues_live.max_waiting         is 'Maximum number of waiting jobs; null: no limit.';
comment on column coordinator.queues_live.max_waiting_per_key is 'Maximum number of waiting jobs per key; null: no limit.';
comment on column coordinator.queues_live.events              is 'call: one event for each call and transition; job: one for each job.';
comment on column coordinator.queues_live.paused_at           is 'When it was paused; null: it is not.';
comment on column coordinator.queues_live.paused_by           is 'Who paused it.';
comment on column coordinator.queues_live.pause_reason        is 'Why it was paused.';
comment on column coordinator.queues_live.queued_count        is 'Jobs ready to be claimed; at most 10,000 are counted.';
comment on column coordinator.queues_live.running_count       is 'Running jobs.';
comment on column coordinator.queues_live.unplaced_count      is 'Approximate number of queued jobs that are still placed by an earlier policy; null: none.';
comment on column coordinator.queues_live.actor               is 'Who created it or last changed it.';
comment on column coordinator.queues_live.created_at          is 'When it was first used or set.';
comment on column coordinator.queues_live.updated_at          is 'When it was last changed.';

create or replace function coordinator.queue_key(p_project_id bigint, p_queue text) returns bigint
language sql immutable parallel safe
return hashtextextended('coordinator.queue:' || p_project_id::text || ':' || p_queue, 0);
comment on function coordinator.queue_key(bigint, text) is
  'Return the key of the advisory lock of a queue. Internal.';

create or replace function coordinator.queue_missing(p_project text, p_queue text) returns void
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.name_missing('ZC210', p_project, 'queue', p_queue, array(
    select q.name from coordinator.queues q where q.project_id = coordinator.project_id(p_project) order by q.name limit 1000),
    'A queue exists when it was set, or a job was enqueued.')
$$;
comment on function coordinator.queue_missing(text, text) is
  'Raise ZC210 for a queue that does not exist, with the name that was probably meant. Internal.';

create or replace function coordinator.queue_make(p_project_id bigint, p_queue text, p_actor text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := coordinator.now_utc();
begin
  perform coordinator.check_name('the name of the queue', p_queue, 100);
  perform coordinator.project_hold(p_project_id);
  insert into coordinator.queues (project_id, name, actor, created_at, updated_at)
  values (p_project_id, p_queue, p_actor, v_now, v_now)
  on conflict (project_id, name) do nothing;
  if found and (select count(*) from coordinator.queues q where q.project_id = p_project_id) > 1000 then
    raise exception using errcode = 'ZC102', message = 'the project would have more than 1000 queues',
      hint = 'Use fewer queues; within a fair queue, keys separate tenants.';
  end if;
end
$$;
comment on function coordinator.queue_make(bigint, text, text) is
  'Insert a queue unless it exists. No event. ZC102: the project has 1,000 queues. Internal.';

create or replace function coordinator.check_weights(p_weights jsonb) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_weight record;
begin
  perform coordinator.check_json('the value of weights', p_weights, p_object => true);
  for v_weight in select key, value from jsonb_each(p_weights) loop
    perform coordinator.check_key('the key of a weight', v_weight.key);
    if jsonb_typeof(v_weight.value) <> 'number' or v_weight.value::numeric not between 1 and 1000 or v_weight.value::numeric % 1 <> 0 then
      raise exception using errcode = 'ZC104',
        message = format('the weight %s of key "%s" is out of range', left(v_weight.value::text, 100), left(v_weight.key, 200)),
        hint = 'Give a whole number from 1 to 1000.';
    end if;
  end loop;
end
$$;
comment on function coordinator.check_weights(jsonb) is
  'Reject weights that are not an object of keys with whole numbers from 1 to 1,000. Internal.';

create or replace function coordinator.check_max_waiting(p_what text, p_value integer) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value not between 0 and 1000000 then
    raise exception using errcode = 'ZC104', message = format('%s of %s is out of range', p_what, p_value),
      hint = 'Give 1 to 1000000, or 0 for no limit.';
  end if;
end
$$;
comment on function coordinator.check_max_waiting(text, integer) is
  'Reject a limit on waiting jobs below 0 or above 1,000,000 (ZC104); null is accepted. Internal.';

create or replace function coordinator.queue_set(
  p_project text, p_queue text, p_fair_by text default null, p_ageing interval default null, p_weights jsonb default '{}',
  p_max_waiting integer default null, p_max_waiting_per_key integer default null, p_events text default null, p_actor text default null)
returns setof coordinator.queues_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_now     timestamptz;
  v_before  coordinator.queues;
  v_after   coordinator.queues;
  v_classes bigint[];
begin
  perform coordinator.check_name('the name of the queue', p_queue, 100);
  if p_fair_by not in ('key', 'none') then
    raise exception using errcode = 'ZC105', message = format('a queue cannot be fair by "%s"', left(p_fair_by, 200)), hint = 'Use key or none.';
  elsif p_events not in ('call', 'job') then
    raise exception using errcode = 'ZC105', message = format('invalid choice of events "%s"', left(p_events, 200)), hint = 'Use call or job.';
  elsif p_ageing <> interval '0' and extract(epoch from p_ageing) not between 1 and 31622400 then
    raise exception using errcode = 'ZC104', message = format('an ageing of %s is out of range', coordinator.duration_text(p_ageing)),
      hint = 'Give 1s to 366d, or 0 for strict priority.';
  end if;
  perform coordinator.check_weights(p_weights);
  perform coordinator.check_max_waiting('max_waiting', p_max_waiting);
  perform coordinator.check_max_waiting('max_waiting_per_key', p_max_waiting_per_key);
  perform coordinator.check_isolation('policies of queues change');
  perform coordinator.queue_make(v_project, p_queue, v_actor);
  perform coordinator.advisory_enter(coordinator.queue_key(v_project, p_queue)); -- after the row, like enqueues
  v_now := coordinator.now_utc();
  select * into v_before from coordinator.queues q where q.project_id = v_project and q.name = p_queue for no key update;
  if not found then
    raise exception using errcode = 'lock_not_available', message = format('queue "%s" was deleted at the same time', p_queue), hint = 'Try again.';
  end if;
  update coordinator.queues q set
    fair                = coalesce(p_fair_by = 'key', q.fair),
    ageing              = case when p_ageing is null then q.ageing else nullif(p_ageing, interval '0') end,
    weights             = coalesce((select jsonb_object_agg(w.key, w.value::integer) from jsonb_each(q.weights || p_weights) w where w.value <> '1'), '{}'),
    max_waiting         = nullif(coalesce(p_max_waiting, q.max_waiting), 0),
    max_waiting_per_key = nullif(coalesce(p_max_waiting_per_key, q.max_waiting_per_key), 0),
    events              = coalesce(p_events, q.events),
    actor               = v_actor,
    updated_at          = v_now
  where q.project_id = v_project and q.name = p_queue
  returning * into v_after;
  if (select count(*) from jsonb_object_keys(v_after.weights)) > 1000 then
    raise exception using errcode = 'ZC102', message = 'the queue would have weights for more than 1000 keys',
      hint = 'Set the weight of other keys to 1.';
  end if;
  v_classes := array(select c.id from coordinator.job_classes c where c.project_id = v_project and c.queue = p_queue);
  if v_before.fair <> v_after.fair or v_before.ageing is distinct from v_after.ageing then
    perform coordinator.queue_arrange(v_classes, array[v_before.ageing]);
  else
    update coordinator.job_lanes l set weight = coalesce((v_after.weights ->> l.key)::integer, 1)
    where l.class_id = any (v_classes) and l.weight <> coalesce((v_after.weights ->> l.key)::integer, 1);
  end if;
  perform coordinator.event_append('queue.set', p_project, p_queue, v_actor, v_now,
    jsonb_build_object('fair_by', case when v_after.fair then 'key' else 'none' end, 'ageing_s', extract(epoch from v_after.ageing),
                       'max_waiting', v_after.max_waiting, 'max_waiting_per_key', v_after.max_waiting_per_key, 'events', v_after.events));
  return query select * from coordinator.queues_live q where q.project = p_project and q.queue = p_queue;
end
$$;
comment on function coordinator.queue_set(text, text, text, interval, jsonb, integer, integer, text, text) is
  'Set the policy of a queue; create the queue if it does not exist. Null parameters keep their current values. p_fair_by: key (keys take turns) or none. p_ageing: how long a job waits to gain one step of priority, 1 second to 366 days; 0: strict priority. p_weights: shares of keys in a fair queue, 1 to 1,000; keys that are not named keep theirs, and 1 removes a weight. p_max_waiting, p_max_waiting_per_key: 1 to 1,000,000; 0: no limit. p_events: call (one event for each call and transition) or job. The policy also applies to waiting jobs: to 1,000 immediately, and to the others within seconds or minutes (unplaced_count). Until then, the two groups have no order between them.';

create or replace function coordinator.queue_pause(p_project text, p_queue text, p_reason text default null, p_actor text default null)
returns setof coordinator.queues_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_now     timestamptz := coordinator.now_utc();
begin
  perform coordinator.check_reason(p_reason);
  update coordinator.queues q set paused_at = v_now, paused_by = v_actor, pause_reason = p_reason
  where q.project_id = v_project and q.name = p_queue and q.paused_at is null;
  if found then
    perform coordinator.event_append('queue.paused', p_project, p_queue, v_actor, v_now, jsonb_build_object('reason', p_reason));
  end if;
  return query select * from coordinator.queue_get(p_project, p_queue);
end
$$;
comment on function coordinator.queue_pause(text, text, text, text) is
  'Pause a queue: after the commit, none of its jobs is claimed; running jobs continue, and jobs can be enqueued. Pausing it again changes nothing. ZC210: there is no such queue.';

create or replace function coordinator.queue_resume(p_project text, p_queue text, p_actor text default null)
returns setof coordinator.queues_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
begin
  update coordinator.queues q set paused_at = null, paused_by = null, pause_reason = null
  where q.project_id = v_project and q.name = p_queue and q.paused_at is not null;
  if found then
    perform coordinator.event_append('queue.resumed', p_project, p_queue, v_actor, coordinator.now_utc(), '{}');
  end if;
  return query select * from coordinator.queue_get(p_project, p_queue);
end
$$;
comment on function coordinator.queue_resume(text, text, text) is
  'Resume a paused queue; a queue that is not paused is returned unchanged. ZC210: there is no such queue.';

create or replace function coordinator.queue_delete(p_project text, p_queue text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_open    jsonb;
  v_classes bigint[];
begin
  perform coordinator.check_name('the name of the queue', p_queue, 100);
  perform coordinator.check_isolation('queues are deleted');
  perform coordinator.advisory_enter(coordinator.queue_key(v_project, p_queue)); -- nobody can add jobs now
  -- One statement finds a job in one of the four tables, even if another transaction is moving it.
  select jsonb_object_agg(s.status, s.jobs order by s.place) filter (where s.jobs > 0) into v_open
  from (
    select 1 as place, 'queued' as status, count(*) as jobs from (
      select from coordinator.job_classes c join coordinator.jobs_ready r on r.class_id = c.id where c.project_id = v_project and c.queue = p_queue limit 10000) j
    union all
    select 2, 'scheduled', count(*) from (
      select from coordinator.job_classes c join coordinator.jobs_later l on l.class_id = c.id where c.project_id = v_project and c.queue = p_queue limit 10000) j
    union all
    select 3, 'waiting', count(*) from (
      select from coordinator.job_classes c join coordinator.jobs_waiting w on w.class_id = c.id where c.project_id = v_project and c.queue = p_queue limit 10000) j
    union all
    select 4, 'running', count(*) from coordinator.jobs_running r
    where r.class_id in (select c.id from coordinator.job_classes c where c.project_id = v_project and c.queue = p_queue)) s;
  if v_open is not null then
    raise exception using errcode = 'ZC326',
      message = format('queue "%s" has open jobs: %s', p_queue, (
        select string_agg(format('%s%s %s', case when o.value::integer = 10000 then 'at least ' else '' end, o.value, o.key), ', '
                          order by array_position(array['queued', 'scheduled', 'waiting', 'running'], o.key)) from jsonb_each_text(v_open) o)),
      detail = v_open::text, hint = format('Cancel them, or wait until they have ended. See "coordinator job list --queue %s".', p_queue);
  end if;
  v_classes := array(select c.id from coordinator.job_classes c where c.project_id = v_project and c.queue = p_queue);
  delete from coordinator.job_permits p where p.class_id = any (v_classes);
  delete from coordinator.job_lanes l where l.class_id = any (v_classes);
  delete from coordinator.queues q where q.project_id = v_project and q.name = p_queue;
  if not found then
    perform coordinator.queue_missing(p_project, p_queue);
  end if;
  perform coordinator.event_append('queue.deleted', p_project, p_queue, v_actor, coordinator.now_utc(), '{}');
  return true;
end
$$;
comment on function coordinator.queue_delete(text, text, text) is
  'Delete a queue without open jobs, and its policy. Its ended jobs remain, as do limits and crons that name it; the next job creates it again. ZC326: the queue has open jobs. ZC210: there is no such queue.';

create or replace function coordinator.queue_get(p_project text, p_queue text)
returns setof coordinator.queues_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.project_id(p_project);
  return query select * from coordinator.queues_live q where q.project = p_project and q.queue = p_queue;
  if not found then
    perform coordinator.queue_missing(p_project, p_queue);
  end if;
end
$$;
comment on function coordinator.queue_get(text, text) is
  'Return a queue. ZC210: there is no such queue.';

create or replace function coordinator.queue_list(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.queues_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.project_id(p_project);
  perform coordinator.check_page(p_limit, p_after, '{text}');
  return query
    select * from coordinator.queues_live q
    where q.project = p_project and q.queue > coalesce(p_after[1], '')
    order by q.queue limit p_limit;
end
$$;
comment on function coordinator.queue_list(text, text[], integer) is
  'List the queues of a project, by name. p_after: array[queue] of the last row read.';
