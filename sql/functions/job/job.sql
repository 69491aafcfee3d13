-- Jobs: work that is handed over and never lost (enqueue.sql), given to workers (claim.sql), guarded by a fence in every call
-- (fence.sql), and ended exactly once (end.sql, cancel.sql). A worker is an agent with job_types; loop.sql handles deadlines and
-- timeouts.
--
-- Guarantees
--   A job whose enqueue committed is in jobs_open until it ends, and in jobs_ended from then on: always in exactly one of them. While
--   it is open, exactly one of these tables has a row for it, which determines its status: jobs_ready (queued), jobs_later (scheduled),
--   jobs_waiting or jobs_running. A transaction that moves a job locks that row first, so only one of several succeeds.
--   Each claim issues a fence that exceeds all earlier ones, even those that a fail-over lost (epoch.sql). A worker sends it with every
--   call; a call with a stale fence changes nothing and reports who holds the job now, or how it ended. assert_job prevents the attempt
--   from ending before the caller's transaction does. A completion may be repeated: the call that ended the job returns the same result
--   again.
--   An attempt ends when its agent ends, when the agent's heartbeat is overdue, at its deadline, and when it makes no progress within
--   its stall time.
--
-- How it works. The row of a job is written once and deleted once; it is updated only if an attempt ends without ending the job. What
-- changes in between is in narrow tables. A class is the combination that decides who can run a job: queue, type, labels. There are few
-- classes. A claim reads the jobs of a class in order of rank (job_rank). In a fair queue, the jobs of each key have a lane (lane.sql).
-- Waiting and ended jobs cost a worker nothing; the partitions of ended jobs are only written.
--
-- Locks are taken in this order: agent, attempts (jobs_running) by id, open jobs by id (parents, and jobs that others wait for), keys
-- of queues by name, dedupe keys, waiting jobs by id, lanes by class and key. Ready and scheduled jobs, lanes and permits are skipped while
-- another transaction holds them, so claims wait for nobody. The key of a queue, coordinator.queue:<project>:<queue>, is shared by all
-- transactions that add jobs to it; a change of its policy takes it exclusively. Enqueues to a queue with max_waiting also take
-- coordinator.queue_room:<project>:<queue>, so they count one after the other.
--
-- Deliberately absent: waiting in SQL, a loop that raises priorities, counters of running jobs.

insert into coordinator.event_types (type, key, data, meaning) values
  ('job.enqueued',         'name of the queue', '{ids}',               'Jobs are ready to be claimed. Workers wake up.'),
  ('job.scheduled',        'name of the queue', '{ids,due_at}',        'Jobs were scheduled for later: enqueued with at or delay, or snoozed; due_at: when the earliest is ready.'),
  ('job.started',          'name of the queue', '{ids,agent_id}',      'A worker claimed jobs.'),
  ('job.completed',        'name of the queue', '{ids}',               'Jobs completed.'),
  ('job.failed',           'name of the queue', '{ids,reason}',        'Jobs failed permanently: error, worker_lost, stalled, deadline or crash_loop.'),
  ('job.retried',          'name of the queue', '{ids,reason,due_at}', 'Attempts failed, and the jobs will be retried: error, worker_lost, stalled or deadline.'),
  ('job.released',         'name of the queue', '{ids}',               'A worker released jobs without spending an attempt.'),
  ('job.cancel_requested', 'name of the queue', '{ids,reason}',        'Cancellation of running jobs was requested. Their worker must stop.'),
  ('job.cancelled',        'name of the queue', '{ids,reason}',        'Jobs were cancelled; reason: cancelled, replaced (by a job with the same dedupe key) or dependency (a job that they waited for did not complete).'),
  ('job.expired',          'name of the queue', '{ids}',               'Jobs expired because they did not start in time.');

insert into coordinator.rights (function, role) values
  ('assert_job',       'agent'),
  ('job_claim',        'agent'),
  ('job_complete',     'agent'),
  ('job_enqueue',      'agent'),
  ('job_enqueue_many', 'agent'),
  ('job_fail',         'agent'),
  ('job_progress',     'agent'),
  ('job_reconcile',    'agent'),
  ('job_release',      'agent'),
  ('job_snooze',       'agent'),
  ('job_cancel',       'manager');

insert into coordinator.limits (name, value, unit, meaning) values
  ('job_batch',        10000,    'jobs',       'Jobs enqueued per call.'),
  ('job_batch_bytes',  8388608,  'bytes',      'Total size of the payloads enqueued per call, as text.'),
  ('job_claim',        1000,     'jobs',       'Jobs claimed or finished per call.'),
  ('job_attempts',     1000,     'attempts',   'Attempts per job.'),
  ('job_labels',       16,       'labels',     'Labels that a job requires.'),
  ('job_label_text',   300,      'characters', 'Total length of the labels that a job requires.'),
  ('job_priority',     100,      '',           'Priority of a job: -100 to 100.'),
  ('job_time_max',     31622400, 'seconds',    'Longest delay, back-off, deadline, stall time or dedupe window: 366 days.'),
  ('job_message',      2000,     'characters', 'Progress message of a job.'),
  ('job_fences',       10000,    'fences',     'Fences that a worker compares per call.'),
  ('job_error',        65536,    'characters', 'Error of an attempt; 2,000 characters are kept for earlier attempts.'),
  ('job_classes',      1000,     'classes',    'Combinations of queue, type, labels and limits per project.');

-- Without ageing, a step of priority is worth 10^16 microseconds (317 years), more than any wait.
create or replace function coordinator.job_rank(p_at timestamptz, p_priority integer, p_ageing interval) returns bigint
language sql stable parallel safe
return (date_part('epoch', p_at) * 1000000)::bigint
       - p_priority * coalesce((date_part('epoch', p_ageing) * 1000000)::bigint, 10000000000000000);
comment on function coordinator.job_rank(timestamptz, integer, interval) is
  'Return the place of a job in its class: the microsecond at which it may start, less what its priority is worth: p_ageing for each step, or with null more than any wait. Internal.';

-- A UUID of version 7 from the microseconds of an instant, plus a position, so that the jobs of a batch stay in order.
create or replace function coordinator.job_id(p_micros bigint, p_random uuid) returns uuid
language sql immutable parallel safe
return (lpad(to_hex(p_micros / 1000 << 16 | 28672 + p_micros % 1000 * 4096 / 1000), 16, '0') || substr(p_random::text, 20))::uuid;
comment on function coordinator.job_id(bigint, uuid) is
  'Return the UUID of version 7 for a microsecond since 1970 and a random UUID, which may be the same for several microseconds. Internal.';

create or replace function coordinator.job_tell(
  p_type text, p_project_id bigint, p_project text, p_queue text, p_actor text, p_at timestamptz, p_ids uuid[], p_data jsonb default '{}')
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into coordinator.events (type, project, key, actor, at, data)
  select p_type, p_project, p_queue, p_actor, p_at,
         case p_data when '{}' then jsonb_build_object('ids', p_ids[n:n + s.size - 1]) else jsonb_build_object('ids', p_ids[n:n + s.size - 1]) || p_data end
  from (select case q.events when 'job' then 1 else 150 end as size from coordinator.queues q
        where q.project_id = p_project_id and q.name = p_queue) s, generate_series(1, cardinality(p_ids), s.size) n;
end
$$;
comment on function coordinator.job_tell(text, bigint, text, text, text, timestamptz, uuid[], jsonb) is
  'Append an event for jobs of a queue: one event for up to 150 jobs, which fit into a notification, or one for each job if the queue says so. Internal.';

create or replace function coordinator.queue_enter(p_project_id bigint, p_queues text[], p_actor text) returns setof coordinator.queues
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_queue text;
  v_count integer;
begin
  perform coordinator.check_isolation('jobs are queued');
  for v_queue in
    select n from unnest(p_queues) n
    where not exists (select from coordinator.queues q where q.project_id = p_project_id and q.name = n) order by 1
  loop
    perform coordinator.queue_make(p_project_id, v_queue, p_actor);
  end loop;
  perform coordinator.advisory_enter(k, true) from (
    select coordinator.queue_key(p_project_id, n) as k from unnest(p_queues) n order by n offset 0) k;
  return query select q.* from coordinator.queues q where q.project_id = p_project_id and q.name = any (p_queues);
  get diagnostics v_count = row_count;
  if v_count < cardinality(p_queues) then -- the project or a queue has just been deleted
    for v_queue in
      select n from unnest(p_queues) n
      where not exists (select from coordinator.queues q where q.project_id = p_project_id and q.name = n) order by 1
    loop
      perform coordinator.queue_make(p_project_id, v_queue, p_actor);
      return query select q.* from coordinator.queues q where q.project_id = p_project_id and q.name = v_queue;
    end loop;
  end if;
end
$$;
comment on function coordinator.queue_enter(bigint, text[], text) is
  'Create queues at their first use, prevent changes to their policies until the end of the transaction, and return the policies. No event: jobs follow. Internal.';

create or replace function coordinator.queue_check_room(
  p_project_id bigint, p_queues text[], p_orders coordinator.job_order[], p_first uuid[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_full record;
begin
  perform coordinator.advisory_enter(k) from (
    select hashtextextended('coordinator.queue_room:' || p_project_id || ':' || q.name, 0) as k from coordinator.queues q
    where q.project_id = p_project_id and q.name = any (p_queues) and num_nonnulls(q.max_waiting, q.max_waiting_per_key) > 0
    order by q.name offset 0) k;
  -- Counts at most up to the limit; the lock on the queue's room prevents concurrent counts.
  select q.name, null::text as key, q.max_waiting as most into v_full
  from coordinator.queues q
  cross join lateral (select count(*) as jobs from unnest(p_orders) o where o.queue = q.name and p_first[o.place] is null) new
  where q.project_id = p_project_id and q.name = any (p_queues) and new.jobs + (
    select count(*) from (
      select from coordinator.job_classes c join coordinator.jobs_ready r on r.class_id = c.id where c.project_id = p_project_id and c.queue = q.name
      union all
      select from coordinator.job_classes c join coordinator.jobs_later l on l.class_id = c.id where c.project_id = p_project_id and c.queue = q.name
      union all
      select from coordinator.job_classes c join coordinator.jobs_waiting w on w.class_id = c.id where c.project_id = p_project_id and c.queue = q.name
      limit q.max_waiting) w) > q.max_waiting
  order by q.name limit 1;
  if not found then
    select q.name, new.key, q.max_waiting_per_key as most into v_full
    from coordinator.queues q
    cross join lateral (select o.key, count(*) as jobs from unnest(p_orders) o
                        where o.queue = q.name and o.key is not null and p_first[o.place] is null group by o.key) new
    where q.project_id = p_project_id and q.name = any (p_queues) and new.jobs + (
      select count(*) from (
        select from coordinator.jobs_open j where j.project_id = p_project_id and j.key = new.key and j.queue = q.name
          and not exists (select from coordinator.jobs_running r where r.id = j.id) limit q.max_waiting_per_key) w) > q.max_waiting_per_key
    order by q.name, new.key limit 1;
  end if;
  if found then
    raise exception using errcode = 'ZC322',
      message = format('queue "%s" is full: at most %s jobs', v_full.name, v_full.most) || coalesce(' with key "' || v_full.key || '"', '') || ' may wait',
      detail = jsonb_build_object('queue', v_full.name, 'key', v_full.key, 'max', v_full.most)::text,
      hint = 'Try again when some have started, or raise the limit with "coordinator queue set".';
  end if;
end
$$;
comment on function coordinator.queue_check_room(bigint, text[], coordinator.job_order[], uuid[]) is
  'Reject jobs beyond the maximum number of waiting jobs in their queue or of their key: ZC322. Internal.';
