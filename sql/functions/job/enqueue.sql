-- Enqueueing jobs (see job.sql). One statement enqueues one job or thousands. Unusual options are checked job by job; all other checks,
-- and all inserts, are set-based. Like every call, an enqueue is part of the caller's transaction. The jobs of a batch usually differ
-- only in keys and payloads: job_insert_alike reads and checks what they share once, and job_insert handles all other batches.

create or replace function coordinator.job_orders(p_jobs jsonb) returns coordinator.job_order[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select row(j.n, j.type, coalesce(j.payload, p_jobs -> (j.n - 1)::integer -> 'payload', '{}'), coalesce(j.queue, 'default'), j.key, coalesce(j.priority, 0), j.at, j.delay, j.start_by,
                         coalesce(j.max_attempts, 3), j.backoff, j.deadline, j.stall, nullif(j.rescue, 'retry'),
                         case when j.labels is null then '{}' else array(select distinct l from unnest(j.labels) l order by l) end,
                         j.dedupe_key, j.dedupe_for, coalesce(j.on_duplicate, 'raise'), coalesce(j.dedupe_failed, false), j.parent, nullif(j.after, '{}'), nullif(j.after_mode, 'all'), nullif(j.on_failure, 'cancel'),
                         case when j.limits is not null then coordinator.limit_costs(j.limits) end, nullif(j.locks, '{}')
                     )::coordinator.job_order
    from rows from (jsonb_populate_recordset(null::coordinator.job_order, p_jobs)) with ordinality j (
      place, type, payload, queue, key, priority, at, delay, start_by, max_attempts, backoff, deadline, stall, rescue, labels,
      dedupe_key, dedupe_for, on_duplicate, dedupe_failed, parent, after, after_mode, on_failure, limits, locks, n));
end
$$;
comment on function coordinator.job_orders(jsonb) is
  'Parse an array of objects as jobs to enqueue, with their defaults. Internal.';

create or replace function coordinator.job_check(p_project_id bigint, p_order coordinator.job_order) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now  timestamptz := coordinator.now_utc();
  v_time record;
begin
  perform coordinator.check_name('the type', p_order.type);
  perform coordinator.check_name('the name of the queue', p_order.queue, 100);
  perform coordinator.check_json('the payload', p_order.payload);
  perform coordinator.check_list('the labels', p_order.labels);
  if p_order.key is not null then
    perform coordinator.check_key('the key', p_order.key);
  end if;
  if p_order.dedupe_key is not null then
    perform coordinator.check_key('the dedupe key', p_order.dedupe_key);
  end if;
  if cardinality(p_order.labels) > 16 or length(array_to_string(p_order.labels, '')) > 300 then
    raise exception using errcode = 'ZC102',
      message = format('the job needs %s labels with %s characters', cardinality(p_order.labels), length(array_to_string(p_order.labels, ''))),
      hint = 'Give at most 16 labels, with 300 characters in total.';
  elsif p_order.priority not between -100 and 100 then
    raise exception using errcode = 'ZC104', message = format('a priority of %s is out of range', p_order.priority), hint = 'Give -100 to 100.';
  elsif p_order.max_attempts not between 1 and 1000 then
    raise exception using errcode = 'ZC104', message = format('%s attempts are out of range', p_order.max_attempts), hint = 'Give 1 to 1000.';
  elsif p_order.rescue not in ('retry', 'resume', 'fail') then
    raise exception using errcode = 'ZC105', message = format('invalid rescue policy "%s"', left(p_order.rescue, 100)),
      hint = 'Use retry (from the beginning), resume (from the checkpoint) or fail.';
  elsif p_order.on_duplicate not in ('raise', 'skip', 'replace') then
    raise exception using errcode = 'ZC105', message = format('invalid policy for duplicates "%s"', left(p_order.on_duplicate, 100)),
      hint = 'Use raise (an error), skip (return the first job) or replace (cancel the first job if it still waits).';
  elsif p_order.after_mode not in ('all', 'any') then
    raise exception using errcode = 'ZC105', message = format('invalid after_mode "%s"', left(p_order.after_mode, 100)), hint = 'Use all or any.';
  elsif p_order.on_failure not in ('cancel', 'ignore', 'run') then
    raise exception using errcode = 'ZC105', message = format('invalid on_failure "%s"', left(p_order.on_failure, 100)), hint = 'Use cancel, ignore or run.';
  elsif p_order.after is null and num_nonnulls(p_order.after_mode, p_order.on_failure) > 0 then
    raise exception using errcode = 'ZC105', message = 'after_mode or on_failure is given without after', hint = 'Give after, too.';
  elsif p_order.dedupe_key is null and (p_order.dedupe_for is not null or p_order.dedupe_failed) then
    raise exception using errcode = 'ZC105', message = 'the window of a dedupe key is given without the key', hint = 'Give dedupe_key, too.';
  elsif p_order.at is not null and p_order.delay is not null then
    raise exception using errcode = 'ZC105', message = 'both an instant and a delay are given', hint = 'Give either at or delay.';
  elsif p_order.at not between timestamptz '2000-01-01 00:00:00Z' and v_now + interval '366 days' then
    raise exception using errcode = 'ZC104', message = format('an at of %s is out of range', to_jsonb(p_order.at) #>> '{}'),
      hint = 'Give a time within 366 days from now.';
  elsif p_order.start_by not between timestamptz '2000-01-01 00:00:00Z' and v_now + interval '732 days' then
    raise exception using errcode = 'ZC104', message = format('a start_by of %s is out of range', to_jsonb(p_order.start_by) #>> '{}'),
      hint = 'Give a time within 732 days from now.';
  end if;
  for v_time in
    select v.* from (values ('a delay', p_order.delay, 0), ('a back-off', p_order.backoff, 0), ('a deadline', p_order.deadline, 1),
                            ('a stall time', p_order.stall, 1), ('a window for duplicates', p_order.dedupe_for, 1)) v (what, length, least)
    where v.length is not null and extract(epoch from v.length) not between v.least and 31622400
  loop
    raise exception using errcode = 'ZC104', message = format('%s of %s is out of range', v_time.what, coordinator.duration_text(v_time.length)),
      hint = format('Give %ss to 366d.', v_time.least);
  end loop;
  if p_order.start_by <= coalesce(p_order.at, v_now + p_order.delay, v_now) then
    raise exception using errcode = 'ZC105', message = 'the job would expire before it could start', hint = 'Give a later start_by, or omit it.';
  elsif p_order.locks is not null then
    perform coordinator.job_locks(p_project_id, p_order.locks);
  end if;
  if p_order.limits is not null then
    perform coordinator.limit_check_costs(p_project_id, p_order.limits);
  end if;
end
$$;
comment on function coordinator.job_check(bigint, coordinator.job_order) is
  'Reject an invalid job. Internal.';

create or replace function coordinator.job_payload_usual(p_payload jsonb, p_text text) returns boolean
language sql immutable parallel safe
return octet_length(p_text) < 130
    or octet_length(p_text) <= 262144 and not jsonb_path_exists(p_payload, 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")')
       and (octet_length(p_text) <= 308 or p_text !~ '[0-9.]{60}');
comment on function coordinator.job_payload_usual(jsonb, text) is
  'Return whether a payload, which is also given as text, obviously passes json_fault. Internal.';

create or replace function coordinator.job_read(p_project_id bigint, p_jobs jsonb, p_many boolean, out orders coordinator.job_order[], out plain boolean)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fields  text[] := '{type,payload,queue,key,priority,at,delay,start_by,max_attempts,backoff,deadline,stall,rescue,labels,dedupe_key,dedupe_for,on_duplicate,dedupe_failed,parent,after,after_mode,on_failure,limits,locks}';
  v_orders  coordinator.job_order[];
  v_item    record;
  v_place   bigint;
  v_bytes   bigint;
  v_unusual integer[];
  v_tied    boolean;
  v_message text;
  v_detail  text;
  v_hint    text;
begin
  if p_jobs is null or jsonb_typeof(p_jobs) <> 'array' then
    raise exception using errcode = 'ZC103', message = 'the jobs are not a list', hint = 'Give an array of objects such as {"type": "summarize", "payload": {}}.';
  elsif jsonb_array_length(p_jobs) not between 1 and 10000 then
    raise exception using errcode = case jsonb_array_length(p_jobs) when 0 then 'ZC101' else 'ZC102' end,
      message = format('%s jobs in one call', jsonb_array_length(p_jobs)), hint = 'Give 1 to 10000.';
  elsif p_many then
    for v_item in
      select j.value, j.place from jsonb_array_elements(p_jobs) with ordinality j (value, place)
      where case jsonb_typeof(j.value) when 'object' then j.value - v_fields <> '{}' else true end
    loop
      if jsonb_typeof(v_item.value) <> 'object' then
        raise exception using errcode = 'ZC103', message = format('job %s is not an object', v_item.place - 1),
          detail = jsonb_build_object('job', v_item.place - 1)::text, hint = 'Write it like {"type": "summarize", "payload": {}}.';
      end if;
      select k into v_hint from jsonb_object_keys(v_item.value) k where k <> all (v_fields) limit 1;
      raise exception using errcode = 'ZC105', message = format('job %s has an unknown field "%s"', v_item.place - 1, left(v_hint, 100)),
        detail = jsonb_build_object('job', v_item.place - 1)::text,
        hint = coalesce('Did you mean "' || coordinator.nearest(v_hint, v_fields) || '"? ', '') || 'A job has the fields ' || array_to_string(v_fields, ', ') || '.';
    end loop;
  end if;
  v_orders := coordinator.job_orders(p_jobs);
  -- A small value may have a long text, and PostgreSQL may be unable to build the text of a large one: job_check handles both.
  select array_agg(o.place order by o.place) filter (where (
           length(o.type) between 1 and 200 and length(o.queue) between 1 and 100 and length(coalesce(o.key, '-')) between 1 and 512
           and o.type || o.queue || coalesce(o.key, '') !~ '[^!-~]'
           and o.priority between -100 and 100 and o.max_attempts between 1 and 1000 and o.labels = '{}' and o.on_duplicate = 'raise' and o.others = 0
           and not o.dedupe_failed
           and coordinator.job_payload_usual(o.payload, o.text)) is not true),
         sum(coalesce(octet_length(o.text), 0) + coalesce(octet_length(o.locks::text), 0)), bool_or(o.tied)
  into v_unusual, v_bytes, v_tied
  from (select o.place, o.type, o.queue, o.key, o.priority, o.max_attempts, o.labels, o.on_duplicate, o.dedupe_failed, o.locks, o.payload, case when pg_column_size(o.payload) <= 8192 then o.payload::text end as text,
               num_nonnulls(o.at, o.delay, o.start_by, o.backoff, o.deadline, o.stall, o.rescue, o.dedupe_key, o.dedupe_for, o.after_mode, o.on_failure, o.limits, o.locks) as others,
               num_nonnulls(o.parent, o.after) > 0 as tied
        from unnest(v_orders) o offset 0) o;
  if v_unusual is not null then
    foreach v_place in array v_unusual loop
      v_place := v_place - 1;
      perform coordinator.job_check(p_project_id, v_orders[v_place + 1]);
    end loop;
    select v_bytes + coalesce(sum(octet_length(o.payload::text)), 0) into v_bytes from unnest(v_orders) o where pg_column_size(o.payload) > 8192;
  end if;
  if v_bytes > 8388608 then
    v_orders := null;
    raise exception using errcode = 'ZC102', message = format('the payloads and locks of the jobs take %s bytes as text; at most 8388608 are allowed', v_bytes),
      hint = 'Enqueue them in several calls.';
  end if;
  for v_item in
    select t.* from coordinator.job_ties(v_orders) t
    where v_tied and case when t.job ~ '^[0-9]{1,5}$' then t.job::integer >= t.place - 1
               when coordinator.is_agent_id(t.job) then not exists (select from coordinator.jobs_open j where j.id = t.job::uuid and j.project_id = p_project_id)
               else true end
    order by t.place
  loop
    v_place := v_item.place - 1;
    perform coordinator.job_check_tie(p_project_id, v_place, v_item.kind, v_item.job);
  end loop;
  if v_tied and (select count(*) from coordinator.job_ties(v_orders) t where t.kind = 'after') > 10000 then
    v_orders := null;
    raise exception using errcode = 'ZC102', message = 'together, the jobs would wait for more than 10000 others',
      hint = 'Enqueue them in several calls, or let one job wait for many, and the others for that one.';
  end if;
  orders := v_orders;
  plain := v_unusual is null and not v_tied;
exception when others then
  get stacked diagnostics v_message = message_text, v_detail = pg_exception_detail, v_hint = pg_exception_hint;
  if not p_many or sqlstate !~ '^(ZC|22)' or v_orders is null and sqlstate like 'ZC%' then
    raise;
  elsif v_orders is null then
    -- A value has the wrong type; find the job.
    v_place := 0;
    begin
      loop
        perform coordinator.job_orders(jsonb_build_array(p_jobs -> v_place::integer));
        v_place := v_place + 1;
      end loop;
    exception when data_exception then
      null;
    end;
  end if;
  raise exception using errcode = sqlstate, message = format('job %s: %s', v_place, v_message),
    detail = (jsonb_build_object('job', v_place) || case when left(v_detail, 1) = '{' then v_detail::jsonb else '{}' end)::text,
    hint = coalesce(nullif(v_hint, ''), 'Correct this job; nothing was enqueued.');
end
$$;
comment on function coordinator.job_read(bigint, jsonb, boolean) is
  'Parse and check jobs to enqueue. plain: none has a delay, a dedupe key, labels, limits, locks or a reference to another job. With p_many, errors name the job by its position from 0. Internal.';

create or replace function coordinator.job_classify(p_project_id bigint, p_queues text[], p_orders coordinator.job_order[], p_plain boolean) returns bigint[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_type    constant text := p_orders[1].type;
  v_classes bigint[];
begin
  if p_plain and cardinality(p_queues) = 1 and not exists (select from unnest(p_orders) o where o.type <> v_type) then -- usually all jobs are alike
    select array_fill(c.id, array[cardinality(p_orders)]) into v_classes from coordinator.job_classes c
    where c.project_id = p_project_id and c.queue = p_queues[1] and c.type = v_type and c.labels = '{}' and c.limits = '{}' and not c.locks;
    if found then
      return v_classes;
    end if;
  end if;
  loop
    select array_agg(c.id order by o.place) into v_classes
    from unnest(p_orders) o
    left join coordinator.job_classes c on c.project_id = p_project_id and c.queue = any (p_queues) and c.queue = o.queue and c.type = o.type and c.labels = o.labels
      and c.limits = case when o.limits is null then '{}' else coordinator.limit_names(o.limits) end and c.locks = (o.locks is not null);
    exit when array_position(v_classes, null) is null;
    perform coordinator.advisory_enter(coordinator.limit_class_key(p_project_id));
    insert into coordinator.job_classes (project_id, queue, type, labels, limits, locks, limit_ids, keyed)
    select p_project_id, n.queue, n.type, n.labels, n.limits, n.locks, i.ids,
           exists (select from coordinator.job_limits l where l.id = any (i.ids) and l.per_key)
    from (select distinct o.queue, o.type, o.labels, coordinator.limit_names(o.limits) as limits, o.locks is not null as locks from unnest(p_orders) o order by 1, 2, 3, 4, 5) n
    cross join lateral (select coordinator.limit_ids(p_project_id, n.queue, n.type, n.limits) as ids) i
    on conflict on constraint job_classes_key do nothing;
    if (select count(*) from coordinator.job_classes c where c.project_id = p_project_id) > 1000 then
      raise exception using errcode = 'ZC102', message = 'the project has 1000 combinations of queue, type, labels and limits',
        hint = 'Move what varies between jobs into the payload or the key. Combinations without open jobs are removed within an hour.';
    end if;
  end loop;
  return v_classes;
end
$$;
comment on function coordinator.job_classify(bigint, text[], coordinator.job_order[], boolean) is
  'Return the class of each job, in the order of the jobs; create new classes. No event. Internal.';

create or replace function coordinator.job_insert_alike(
  p_project text, p_jobs jsonb, p_actor text, out ids uuid[], out queue text, out type text, out at timestamptz)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_project  bigint;
  v_now      timestamptz;
  v_random   uuid := gen_random_uuid();
  v_actor    text;
  v_shared   jsonb := case when jsonb_typeof(p_jobs -> 0) = 'object' then (p_jobs -> 0) - '{payload,key}'::text[] end;
  v_keys     text[];
  v_payloads jsonb[];
  v_alike    boolean;
  v_bytes    bigint;
  v_read     record;
  v_orders   coordinator.job_order[];
  v_order    coordinator.job_order;
  v_plain    boolean := true;
  v_policy   record;
  v_ids      uuid[];
  v_trace    text := coordinator.traceparent(); -- the default of the column is evaluated for each row
  v_class    bigint;
  v_rank     bigint;
  v_lanes    bigint[];
begin
  if v_shared is null or jsonb_array_length(p_jobs) not between 1 and 10000 or v_shared ?| '{at,delay,dedupe_key,parent,after,limits,locks}' then
    return;
  end if;
  select bool_and((j.shared = v_shared and coordinator.job_payload_usual(j.payload, j.text)
                   and (j.key is null or length(j.key) between 1 and 512 and j.key !~ '[^!-~]')) is true),
         sum(octet_length(j.text)), array_agg(j.payload), array_agg(j.key)
  into v_alike, v_bytes, v_payloads, v_keys
  from (select p.shared, p.key, p.payload, case when pg_column_size(p.payload) <= 8192 then p.payload::text end as text
        from (select case jsonb_typeof(e.job) when 'object' then e.job - '{payload,key}'::text[] end as shared, e.job ->> 'key' as key,
                     coalesce(e.job -> 'payload', '{}') as payload
              from jsonb_array_elements(p_jobs) e (job) offset 0) p offset 0) j;
  if v_alike is not true or v_bytes > 8388608 then
    return;
  end if;
  v_project := coordinator.project_id(p_project);
  v_now := coordinator.now_utc();
  v_actor := coordinator.actor_name(p_actor);
  if v_shared - '{type,queue}'::text[] = '{}' then -- usually: everything else is a default
    v_orders := coordinator.job_orders(jsonb_build_array(v_shared));
    v_order := v_orders[1];
    if (length(v_order.type) between 1 and 200 and length(v_order.queue) between 1 and 100 and v_order.type || v_order.queue !~ '[^!-~]') is not true then
      return;
    end if;
  else
    v_read := coordinator.job_read(v_project, jsonb_build_array(v_shared), true);
    v_orders := v_read.orders;
    v_order := v_orders[1];
    v_plain := v_read.plain;
  end if;
  select q.fair, q.ageing, num_nonnulls(q.max_waiting, q.max_waiting_per_key) > 0 as bounded into v_policy
  from coordinator.queue_enter(v_project, array[v_order.queue], v_actor) q;
  if v_policy.bounded then
    return;
  end if;
  v_ids := array(select coordinator.job_id((date_part('epoch', v_now) * 1000000)::bigint + n, v_random) from generate_series(1, cardinality(v_payloads)) n);
  v_class := (coordinator.job_classify(v_project, array[v_order.queue], v_orders, v_plain))[1];
  v_rank := coordinator.job_rank(v_now, v_order.priority, v_policy.ageing);
  if v_policy.fair or (select c.keyed from coordinator.job_classes c where c.id = v_class) then
    v_lanes := coordinator.job_lanes_enter(array_fill(v_class, array[cardinality(v_ids)]), array(select coalesce(k, '') from unnest(v_keys) k));
  end if;
  insert into coordinator.jobs_open (id, project_id, class_id, queue, type, key, priority, payload, labels, max_attempts, backoff, start_by,
                                     deadline, stall, rescue, actor, created_at, scheduled_at, traceparent)
  select j.id, v_project, v_class, v_order.queue, v_order.type, j.key, v_order.priority, j.payload, v_order.labels, v_order.max_attempts,
         v_order.backoff, v_order.start_by, v_order.deadline, v_order.stall, v_order.rescue, v_actor, v_now, v_now, v_trace
  from unnest(v_ids, v_keys, v_payloads) j (id, key, payload);
  insert into coordinator.jobs_ready (class_id, lane_id, rank, id)
  select v_class, coalesce(j.lane_id, 0), v_rank, j.id from unnest(v_ids, v_lanes) j (id, lane_id);
  perform coordinator.job_tell('job.enqueued', v_project, p_project, v_order.queue, v_actor, v_now, v_ids);
  ids := v_ids;
  queue := v_order.queue;
  type := v_order.type;
  at := v_now;
end
$$;
comment on function coordinator.job_insert_alike(text, jsonb, text) is
  'Enqueue an array of jobs that can start immediately and differ only in their keys and payloads, the usual case: what they share is parsed and checked once. If the jobs differ more, depend on something or may be invalid, do nothing and return null: job_insert then enqueues them. Internal.';

create or replace function coordinator.job_insert(p_project text, p_jobs jsonb, p_actor text, p_many boolean)
returns setof coordinator.job_receipt
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
set enable_bitmapscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_micros  bigint := date_part('epoch', v_now) * 1000000;
  v_actor   text := coordinator.actor_name(p_actor);
  v_read    record := coordinator.job_read(v_project, p_jobs, p_many);
  v_orders  coordinator.job_order[] := v_read.orders;
  v_plain   boolean := v_read.plain;
  v_queues  text[] := array(select distinct o.queue from unnest(v_orders) o);
  v_random  uuid := gen_random_uuid();
  v_ids     uuid[] := array(select coordinator.job_id(v_micros + n, v_random) from generate_series(1, cardinality(v_orders)) n);
  v_queue   coordinator.queues[];
  v_policy  record;
  v_classes bigint[];
  v_lanes   bigint[] := '{}';
  v_first   uuid[] := '{}'; -- existing jobs that hold the dedupe keys
  v_tied    boolean := not v_plain and exists (select from unnest(v_orders) o where num_nonnulls(o.parent, o.after) > 0);
  v_after   uuid[]; -- the jobs that other jobs wait for
  v_tree    coordinator.job_branch[] := '{}';
  v_states  text[] := '{}';
begin
  if v_tied then -- before the keys of queues
    perform coordinator.job_keep(v_project, array(select t.job::uuid from coordinator.job_ties(v_orders) t where t.kind = 'parent' and length(t.job) = 36),
                                 array(select t.job::uuid from coordinator.job_ties(v_orders) t where t.kind = 'after' and length(t.job) = 36));
  end if;
  select bool_or(q.fair) as fair, bool_or(num_nonnulls(q.max_waiting, q.max_waiting_per_key) > 0) as bounded, array_agg(q) as queues into v_policy
  from coordinator.queue_enter(v_project, v_queues, v_actor) q;
  v_queue := v_policy.queues;
  v_classes := coordinator.job_classify(v_project, v_queues, v_orders, v_plain);
  if not v_plain and exists (select from unnest(v_orders) o where o.dedupe_key is not null) then
    v_first := coordinator.job_dedupe(v_project, p_project, v_orders, v_ids, v_actor, v_now);
  end if;
  if v_policy.bounded then
    perform coordinator.queue_check_room(v_project, v_queues, v_orders, v_first);
  end if;
  if v_tied then
    v_after := array(select distinct coordinator.job_tie(t.job, v_ids, v_first) from coordinator.job_ties(v_orders) t where t.kind = 'after');
    v_tree := coordinator.job_branches(v_project, v_orders, v_ids, v_first, p_many);
  end if;
  if v_policy.fair or exists (select from coordinator.job_classes c where c.id = any (v_classes) and c.keyed) then
    v_lanes := coordinator.job_lanes_enter(v_classes, array(
      select case when v_first[o.place] is null and greatest(o.at, v_now + o.delay, v_now) <= v_now and o.after is null then coalesce(o.key, '') end
      from unnest(v_orders) o order by o.place));
  end if;

  insert into coordinator.jobs_open (id, project_id, class_id, queue, type, key, priority, payload, labels, max_attempts, backoff, start_by,
                                     deadline, stall, rescue, dedupe_key, parent_id, root_id, depth, after, after_mode, on_failure, paused, limits, locks, actor, created_at, scheduled_at)
  select v_ids[o.place], v_project, v_classes[o.place], o.queue, o.type, o.key, o.priority, o.payload, o.labels, o.max_attempts, o.backoff, o.start_by,
         o.deadline, o.stall, o.rescue, o.dedupe_key, (v_tree[o.place]).parent_id, (v_tree[o.place]).root_id, (v_tree[o.place]).depth,
         case when o.after is not null then array(select distinct coordinator.job_tie(a, v_ids, v_first) from unnest(o.after) a order by 1) end,
         o.after_mode, o.on_failure, (v_tree[o.place]).paused, case when o.limits is not null then coordinator.limit_priced(v_project, o.limits) end,
         case when o.locks is not null then coordinator.job_locks(v_project, o.locks) end, v_actor, v_now, greatest(o.at, v_now + o.delay, v_now)
  from unnest(v_orders) o where v_first[o.place] is null;
  insert into coordinator.jobs_ready (class_id, lane_id, rank, id)
  select v_classes[o.place], coalesce(v_lanes[o.place], 0), coordinator.job_rank(greatest(o.at, v_now + o.delay, v_now), o.priority, q.ageing), v_ids[o.place]
  from unnest(v_orders) o join unnest(v_queue) q on q.name = o.queue
  where v_first[o.place] is null and greatest(o.at, v_now + o.delay, v_now) <= v_now and o.after is null and (v_tree[o.place]).paused is null;
  if not v_plain then
    insert into coordinator.jobs_later (id, class_id, due_at)
    select v_ids[o.place], v_classes[o.place], greatest(o.at, v_now + o.delay) from unnest(v_orders) o
    where v_first[o.place] is null and greatest(o.at, v_now + o.delay) > v_now and o.after is null;
  end if;
  if v_tied then -- separate statements, since most jobs have no parent and no after
    insert into coordinator.jobs_waiting (id, class_id, cause)
    select v_ids[o.place], v_classes[o.place], case when o.after is null then 'tree' else 'jobs' end
    from unnest(v_orders) o
    where v_first[o.place] is null
      and (o.after is not null or greatest(o.at, v_now + o.delay, v_now) <= v_now and (v_tree[o.place]).paused is not null);
    insert into coordinator.job_dependencies (after_id, job_id)
    select distinct coordinator.job_tie(a, v_ids, v_first), v_ids[o.place] from unnest(v_orders) o, unnest(o.after) a where v_first[o.place] is null;
  end if;

  perform coordinator.job_tell(case when t.cause is not null then 'job.waiting' when t.due_at is null then 'job.enqueued' else 'job.scheduled' end,
                               v_project, p_project, t.queue, v_actor, v_now, t.ids,
                               case when t.cause is not null then jsonb_build_object('cause', t.cause) when t.due_at is null then '{}' else jsonb_build_object('due_at', t.due_at) end)
  from (select j.queue, j.cause, array_agg(v_ids[j.place] order by j.place) as ids, min(j.due_at) as due_at
        from (select o.queue, o.place, case when o.after is not null then 'jobs'
                                         when greatest(o.at, v_now + o.delay, v_now) <= v_now and (v_tree[o.place]).paused is not null then 'tree' end as cause,
                     case when coalesce(o.at, v_now + o.delay) > v_now then coalesce(o.at, v_now + o.delay) end as due_at
              from unnest(v_orders) o where v_first[o.place] is null) j
        group by j.queue, j.cause, j.due_at is null order by j.queue, j.cause, j.due_at is null) t;

  if v_plain then
    return query select v_ids[o.place], o.queue, o.type, 'queued', v_now, true from unnest(v_orders) o;
    return;
  end if;
  if v_after <> '{}' then -- jobs of this call, and holders of dedupe keys, are marked only now
    perform coordinator.job_keep(v_project, '{}', v_after);
    perform coordinator.job_settle_ended(v_project, v_after, v_now);
  end if;
  if v_tied then
    v_states := array(
      select case when j.id is null then 'cancelled' when w.id is not null then 'waiting' when l.id is not null then 'scheduled' else 'queued' end
      from unnest(v_ids) with ordinality n (id, place)
      left join coordinator.jobs_open j on j.id = n.id
      left join coordinator.jobs_waiting w on w.id = n.id
      left join coordinator.jobs_later l on l.id = n.id order by n.place);
  end if;

  return query
    select r.id, r.queue, r.type, r.status, r.scheduled_at, r.created from (
      select o.place, v_ids[o.place] as id, o.queue, o.type, coalesce(v_states[o.place], case when coalesce(o.at, v_now + o.delay) > v_now then 'scheduled' else 'queued' end) as status,
             greatest(o.at, v_now + o.delay, v_now) as scheduled_at, true as created
      from unnest(v_orders) o where v_first[o.place] is null
      union all
      select o.place, v_first[o.place], f.queue, f.type, f.status, f.scheduled_at, false
      from unnest(v_orders) o, coordinator.job_find(v_project, v_first[o.place]) f where v_first[o.place] is not null) r
    order by r.place;
end
$$;
comment on function coordinator.job_insert(text, jsonb, text, boolean) is
  'Enqueue an array of jobs. Internal: what job_enqueue and job_enqueue_many do.';

create or replace function coordinator.job_enqueue(
  p_project text, p_type text, p_payload jsonb default '{}', p_queue text default 'default', p_key text default null, p_priority integer default 0,
  p_at timestamptz default null, p_delay interval default null, p_start_by timestamptz default null, p_max_attempts integer default 3,
  p_backoff interval default null, p_deadline interval default null, p_stall interval default null, p_rescue text default 'retry',
  p_labels text[] default '{}', p_dedupe_key text default null, p_dedupe_for interval default null, p_on_duplicate text default 'raise',
  p_dedupe_failed boolean default false, p_parent uuid default null, p_after uuid[] default '{}', p_after_mode text default 'all',
  p_on_failure text default 'cancel', p_limits jsonb default null, p_locks text[] default '{}',
  p_actor text default null)
returns setof coordinator.job_receipt
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select * from coordinator.job_insert(p_project, jsonb_build_array(
    jsonb_build_object('payload', p_payload, 'limits', p_limits) || jsonb_strip_nulls(jsonb_build_object(
      'type', p_type, 'queue', p_queue, 'key', p_key, 'priority', p_priority, 'at', p_at, 'delay', p_delay, 'start_by', p_start_by,
      'max_attempts', p_max_attempts, 'backoff', p_backoff, 'deadline', p_deadline, 'stall', p_stall, 'rescue', p_rescue, 'labels', p_labels,
      'dedupe_key', p_dedupe_key, 'dedupe_for', p_dedupe_for, 'on_duplicate', p_on_duplicate, 'dedupe_failed', p_dedupe_failed,
      'parent', p_parent, 'after', p_after, 'after_mode', p_after_mode, 'on_failure', p_on_failure, 'locks', p_locks))), p_actor, false);
end
$$;
comment on function coordinator.job_enqueue(text, text, jsonb, text, text, integer, timestamptz, interval, timestamptz, integer, interval, interval, interval, text, text[], text, interval, text, boolean, uuid, uuid[], text, text, jsonb, text[], text) is
  'Enqueue a job for workers that have p_type in their job_types and have all p_labels. p_key: the key by which a fair queue takes turns. p_at or p_delay: start no earlier. p_start_by: the job expires unless an attempt began by then. p_backoff: wait after the first failed attempt (10 s); each failure doubles it. p_deadline: longest attempt (a day). p_stall: longest time without progress. p_rescue: what to do about a lost attempt: retry, resume from the checkpoint, or fail. p_dedupe_key: while another job holds the key (until it ends, or for p_dedupe_for; a job that did not complete holds it only with p_dedupe_failed), p_on_duplicate says what to do: raise (ZC321), skip (return that job) or replace (cancel that job if it still waits). p_parent: the open job whose tree it belongs to. p_after: wait until these jobs have completed: all of them or, with p_after_mode any, one. p_on_failure: what to do if one of them ends otherwise: cancel (the job is cancelled; with any, if none completes), ignore (it waits for the others, and starts if none is left) or run (it starts immediately). p_limits: names of the limits that it needs, as an array, or as an object with its cost for each (null: the reserve of a budget, else 1). p_locks: resources (src/, name:deploy) that it holds locked while it runs; until all of them are free, it waits and holds none.';

create or replace function coordinator.job_enqueue_many(p_project text, p_jobs jsonb, p_actor text default null)
returns setof coordinator.job_receipt
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_alike record := coordinator.job_insert_alike(p_project, p_jobs, p_actor);
begin
  if v_alike.ids is null then
    return query select * from coordinator.job_insert(p_project, p_jobs, p_actor, true);
  else
    return query select i, v_alike.queue, v_alike.type, 'queued', v_alike.at, true from unnest(v_alike.ids) i;
  end if;
end
$$;
comment on function coordinator.job_enqueue_many(text, jsonb, text) is
  'Enqueue up to 10,000 jobs in the order of an array, all or none. A job is an object with the parameters of job_enqueue, without p_, such as {"type": "summarize", "payload": {}}. Durations are numbers of seconds, or texts such as "5 minutes". parent and after may refer to an earlier job of the array by its position from 0. An error names the job by its position, which is also job in its detail.';
