-- Durable waits (see job.sql): a job that waits for a time, a signal, an event, other jobs or the answer to a directive frees its
-- worker.
--
-- job_suspend ends the attempt without counting it against max_attempts. The first condition that is met, or the timeout, is stored
-- like the result of a step (kind wait). Then the job is queued again, and its next attempt reads the outcome instead of waiting. A
-- wait has exactly one outcome: the transaction that deletes the job's row in jobs_waiting also stores the outcome.
--
-- No event is missed. A wait begins at a position of the log: p_after, where its caller last read; or where the previous wait of the
-- same name ended; or where the first attempt of the job began. Conditions on the current state are checked once, when the wait begins,
-- after its position was determined. Later changes are events after that position, which match.sql compares with the wait.

insert into coordinator.rights (function, role) values
  ('job_suspend', 'agent');

insert into coordinator.limits (name, value, unit, meaning) values
  ('job_wait_conditions', 100,  'conditions', 'Conditions per wait.'),
  ('job_wait_jobs',       1000, 'jobs',       'Jobs per wait condition.');

create or replace function coordinator.job_wait_refuse(p_place bigint, p_code text, p_fault text, p_hint text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = p_code, message = format('condition %s: %s', p_place, p_fault), detail = jsonb_build_object('condition', p_place)::text,
    hint = p_hint;
end
$$;
comment on function coordinator.job_wait_refuse(bigint, text, text, text) is
  'Reject a condition, which is named by its position from 0. Internal.';

create or replace function coordinator.job_wait_read(p_project_id bigint, p_job uuid, p_conditions jsonb, p_now timestamptz) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kinds constant jsonb := '{"at": [], "delay": [], "signal": ["value"], "event": ["key"], "jobs": ["mode"], "directive": []}';
  v_usage constant text := 'A condition is one of {"at": "2030-01-31T12:00Z"}, {"delay": "10m"}, {"signal": "build/state", "value": "green"}, '
                           '{"event": "custom.reply", "key": "7"}, {"jobs": ["<id>"], "mode": "all"}, {"directive": 7}.';
  v_read  jsonb := '[]';
  v_item  record;
  v_kind  text;
  v_extra text;
  v_given jsonb;
  v_at    timestamptz;
  v_delay interval;
  v_job   text;
begin
  if p_conditions is null or jsonb_typeof(p_conditions) <> 'array' or p_conditions = '[]' then
    raise exception using errcode = case when p_conditions = '[]' then 'ZC101' else 'ZC103' end, message = 'the conditions are not a list with at least one item', hint = v_usage;
  elsif jsonb_array_length(p_conditions) > 100 then
    raise exception using errcode = 'ZC102', message = format('%s conditions; at most 100 are allowed', jsonb_array_length(p_conditions)),
      hint = 'Emit one custom event when several things have happened, and wait for that.';
  end if;
  perform coordinator.check_json('the list of conditions', p_conditions);
  for v_item in select c.value, c.place - 1 as place from jsonb_array_elements(p_conditions) with ordinality c (value, place) loop
    if jsonb_typeof(v_item.value) <> 'object' then
      perform coordinator.job_wait_refuse(v_item.place, 'ZC103', 'it is not an object', v_usage);
    end if;
    select min(k) into v_kind from jsonb_object_keys(v_item.value) k where v_kinds ? k having count(*) = 1;
    if v_kind is null then
      perform coordinator.job_wait_refuse(v_item.place, 'ZC105', 'it does not say one thing to wait for', v_usage);
    end if;
    select k into v_extra from jsonb_object_keys(v_item.value - v_kind) k where not v_kinds -> v_kind ? k limit 1;
    if found then
      perform coordinator.job_wait_refuse(v_item.place, 'ZC105', format('unknown field "%s"', left(v_extra, 100)), v_usage);
    end if;
    v_given := v_item.value -> v_kind;
    case v_kind
    when 'at', 'delay' then
      if coordinator.json_misfit(v_given, case v_kind when 'at' then 'timestamp with time zone' else 'interval' end) is not null or v_given = 'null' then
        perform coordinator.job_wait_refuse(v_item.place, 'ZC103', format('"%s" is %s', v_kind, left(v_given::text, 100)), v_usage);
      end if;
      if v_kind = 'at' then
        v_at := (v_given #>> '{}')::timestamptz;
      else
        v_delay := case jsonb_typeof(v_given) when 'number' then make_interval(secs => (v_given #>> '{}')::double precision) else (v_given #>> '{}')::interval end;
        v_at := case when extract(epoch from v_delay) between 0 and 31622400 then p_now + v_delay end;
      end if;
      if (v_at between timestamptz '2000-01-01 00:00:00Z' and p_now + interval '366 days') is not true then
        perform coordinator.job_wait_refuse(v_item.place, 'ZC104', 'the time is out of range', 'Give a time within 366 days from now.');
      end if;
      v_read := v_read || jsonb_build_object('at', to_char(v_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'));
    when 'signal' then
      perform coordinator.check_key(format('the signal of condition %s', v_item.place), case jsonb_typeof(v_given) when 'string' then v_given #>> '{}' end);
      v_read := v_read || jsonb_build_array(v_item.value);
    when 'event' then
      perform coordinator.check_text(format('the topic of condition %s', v_item.place), case jsonb_typeof(v_given) when 'string' then v_given #>> '{}' end, 200);
      perform coordinator.check_topics(array[v_given #>> '{}']);
      if coalesce(v_item.value -> 'key', 'null') <> 'null' then
        perform coordinator.check_key(format('the key of condition %s', v_item.place),
                                      case jsonb_typeof(v_item.value -> 'key') when 'string' then v_item.value ->> 'key' end);
      end if;
      v_read := v_read || jsonb_strip_nulls(v_item.value);
    when 'jobs' then
      if jsonb_typeof(v_given) <> 'array' or v_given = '[]' or jsonb_path_exists(v_given, 'strict $[*] ? (@.type() != "string")') then
        perform coordinator.job_wait_refuse(v_item.place, 'ZC103', '"jobs" is not a list of ids', v_usage);
      elsif jsonb_array_length(v_given) > 1000 then
        perform coordinator.job_wait_refuse(v_item.place, 'ZC102', format('%s jobs', jsonb_array_length(v_given)), 'Give at most 1000.');
      elsif coalesce(v_item.value ->> 'mode', 'all') not in ('all', 'any') then
        perform coordinator.job_wait_refuse(v_item.place, 'ZC105', format('invalid mode "%s"', left(v_item.value ->> 'mode', 100)), 'Use all or any.');
      end if;
      for v_job in select distinct j from jsonb_array_elements_text(v_given) j loop
        if coordinator.json_misfit(to_jsonb(v_job), 'uuid') is not null then
          perform coordinator.job_wait_refuse(v_item.place, 'ZC103', format('"%s" is not the id of a job', left(v_job, 100)), v_usage);
        elsif v_job::uuid = p_job then
          perform coordinator.job_wait_refuse(v_item.place, 'ZC105', 'a job cannot wait for itself', 'Give other jobs.');
        end if;
        if not exists (select from coordinator.jobs_open j where j.id = v_job::uuid and j.project_id = p_project_id) then
          perform coordinator.job_find(p_project_id, v_job::uuid);
        end if;
      end loop;
      v_read := v_read || jsonb_build_object('jobs', (select jsonb_agg(distinct lower(j)) from jsonb_array_elements_text(v_given) j),
                                             'mode', coalesce(v_item.value ->> 'mode', 'all'));
    else
      if coordinator.json_misfit(v_given, 'bigint') is not null or v_given = 'null' then
        perform coordinator.job_wait_refuse(v_item.place, 'ZC103', format('"directive" is %s', left(v_given::text, 100)), v_usage);
      elsif not exists (select from coordinator.directives d where d.id = (v_given #>> '{}')::bigint and d.project_id = p_project_id) then
        perform coordinator.job_wait_refuse(v_item.place, 'ZC204', format('there is no directive %s', v_given), 'See "coordinator directive list".');
      end if;
      v_read := v_read || jsonb_build_array(v_item.value);
    end case;
  end loop;
  return v_read;
end
$$;
comment on function coordinator.job_wait_read(bigint, uuid, jsonb, timestamptz) is
  'Check the conditions of a wait, and return them in stored form: a delay becomes an instant. Internal.';

create or replace function coordinator.job_wait_state(p_project_id bigint, p_condition jsonb, p_now timestamptz) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_ids  uuid[];
  v_open integer;
  v_met  jsonb;
begin
  if p_condition ? 'at' then
    return case when (p_condition ->> 'at')::timestamptz <= p_now then jsonb_build_object('at', p_condition -> 'at') end;
  elsif p_condition ? 'signal' then
    select jsonb_build_object('signal', jsonb_build_object('key', s.key, 'value', s.value, 'version', s.version)) into v_met
    from coordinator.signals s
    where s.project_id = p_project_id and s.key = p_condition ->> 'signal' and (s.expires_at is null or s.expires_at > p_now)
      and (not p_condition ? 'value' or s.value = p_condition -> 'value');
    return v_met;
  elsif p_condition ? 'jobs' then
    v_ids := array(select j::uuid from jsonb_array_elements_text(p_condition -> 'jobs') j);
    select count(*) into v_open from coordinator.jobs_open j where j.id = any (v_ids);
    if v_open = cardinality(v_ids) or v_open > 0 and p_condition ->> 'mode' = 'all' then
      return null;
    end if;
    select jsonb_build_object('jobs', jsonb_object_agg(i.id, e.status)) into v_met -- null: the job ended and was pruned
    from unnest(v_ids) i (id) left join coordinator.jobs_ended e on e.project_id = p_project_id and e.id = i.id
    where not exists (select from coordinator.jobs_open j where j.id = i.id);
    return v_met;
  elsif p_condition ? 'directive' then
    select jsonb_build_object('directive', jsonb_build_object('id', d.id, 'status', coalesce(r.status, d.status), 'agent', r.agent, 'reason', r.reason)) into v_met
    from coordinator.directives d
    left join lateral (select r.agent, r.status, r.reason from coordinator.directive_receipts r
                       where r.directive_id = d.id and r.status in ('done', 'refused') order by r.agent limit 1) r on true
    where d.id = (p_condition ->> 'directive')::bigint and d.project_id = p_project_id and (r.agent is not null or d.status <> 'open');
    return v_met;
  end if;
  return null;
end
$$;
comment on function coordinator.job_wait_state(bigint, jsonb, timestamptz) is
  'Return what meets a condition in the current state; null: nothing, or the condition is about an event. Internal.';

create or replace function coordinator.job_wait_look(p_project_id bigint, p_conditions jsonb, p_now timestamptz) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object('met', c.place - 1) || s.met
  from jsonb_array_elements(p_conditions) with ordinality c (value, place)
  cross join lateral (select coordinator.job_wait_state(p_project_id, c.value, p_now) as met) s
  where s.met is not null order by c.place limit 1
$$;
comment on function coordinator.job_wait_look(bigint, jsonb, timestamptz) is
  'Return the outcome of a wait by the first condition that the current state meets; null: none. Internal.';

create or replace function coordinator.job_wait_paths(p_conditions jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return case when not jsonb_path_exists(p_conditions, '$[*] ? (!exists (@.jobs))') then (
  select jsonb_agg(p.path)
  from jsonb_array_elements(p_conditions) c
  cross join lateral (select c -> 'jobs' as path where c ->> 'mode' = 'all'
                      union all
                      select jsonb_build_array(j) from jsonb_array_elements(c -> 'jobs') j where c ->> 'mode' = 'any') p) end;
comment on function coordinator.job_wait_paths(jsonb) is
  'Return the lists of jobs of which one must end, as a whole, for a wait to end; null: something else can end it. Internal.';

create or replace function coordinator.job_wait_cycle(p_job uuid, p_conditions jsonb) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_waits jsonb := jsonb_build_object(p_job, coordinator.job_wait_paths(p_conditions)); -- the jobs that wait only for other jobs, and the ways in which each wait can end
  v_known text[] := array[p_job::text];
  v_new   text[];
  v_cycle text[] := array[p_job::text];
  v_found jsonb := v_waits;
  v_next  text;
begin
  while v_found is not null and cardinality(v_known) <= 200 loop
    v_new := array(
      select distinct t from jsonb_each(v_found) w cross join jsonb_array_elements(w.value) a cross join jsonb_array_elements_text(a) t
      where t <> all (v_known));
    v_known := v_known || v_new;
    select jsonb_object_agg(n.id, n.paths) into v_found
    from (select w.id, case w.cause
                   when 'jobs' then (select case j.after_mode when 'any' then jsonb_agg(jsonb_build_array(d.after_id)) else jsonb_build_array(jsonb_agg(d.after_id)) end
                                     from coordinator.job_dependencies d where d.job_id = w.id)
                   when 'wait' then (select coordinator.job_wait_paths(d.conditions) from coordinator.job_waits d where d.job_id = w.id) end as paths
          from coordinator.jobs_waiting w join coordinator.jobs_open j on j.id = w.id where w.id = any (v_new::uuid[]) and w.cause in ('jobs', 'wait')) n
    where jsonb_typeof(n.paths) = 'array';
    v_waits := v_waits || coalesce(v_found, '{}');
  end loop;
  loop -- drop jobs with a path that leads only to jobs that can continue
    v_known := array(
      select w.key from jsonb_each(v_waits) w
      where exists (select from jsonb_array_elements(w.value) a where not exists (select from jsonb_array_elements_text(a) t where v_waits ? t)));
    exit when v_known = '{}';
    v_waits := v_waits - v_known;
  end loop;
  if not v_waits ? p_job::text then
    return null;
  end if;
  loop
    select t into v_next
    from jsonb_array_elements(v_waits -> v_cycle[cardinality(v_cycle)]) a cross join jsonb_array_elements_text(a) t
    where v_waits ? t order by t = p_job::text desc limit 1;
    exit when v_next = any (v_cycle);
    v_cycle := v_cycle || v_next;
  end loop;
  return to_jsonb(v_cycle[array_position(v_cycle, v_next):]);
end
$$;
comment on function coordinator.job_wait_cycle(uuid, jsonb) is
  'Return jobs that would wait for each other forever if p_job waited for p_conditions, each for the next one and the last one for the first; null: there are none. Waits that something other than a job can end are not part of a cycle, whatever their ttl. The search stops after 200 jobs. Internal.';

create or replace function coordinator.event_seq_before(p_at timestamptz) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_low   bigint := (select first_seq from coordinator.event_chunks order by first_seq limit 1);
  v_high  bigint := (select first_seq from coordinator.event_chunks order by first_seq desc limit 1);
  v_seq   bigint;
  v_chunk record;
begin
  select c.last_seq, c.stamped_at into v_chunk from coordinator.event_chunks c where c.first_seq = v_high;
  if v_chunk.stamped_at < p_at then
    return v_chunk.last_seq;
  end if;
  v_seq := v_low - 1;
  while v_low < v_high loop -- chunks from v_high on were numbered at p_at or later
    select c.first_seq, c.last_seq, c.stamped_at into v_chunk
    from coordinator.event_chunks c where c.first_seq <= (v_low + v_high) / 2 order by c.first_seq desc limit 1;
    if v_chunk.stamped_at < p_at then
      v_seq := v_chunk.last_seq;
      v_low := greatest(v_chunk.last_seq + 1, (v_low + v_high) / 2 + 1);
    else
      v_high := v_chunk.first_seq;
    end if;
  end loop;
  return greatest(v_seq, 0);
end
$$;
comment on function coordinator.event_seq_before(timestamptz) is
  'Return up to which event the log had been numbered before an instant; all later events were committed after it, or shortly before. Internal.';

create or replace function coordinator.job_wait_place(p_after text, p_job uuid, p_step text, p_ordinal integer, p_started_at timestamptz) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off -- before PostgreSQL 18, a table or sequence without an index looks expensive enough for JIT
as $$
declare
  v_head bigint := (select last_seq from coordinator.event_chunks order by first_seq desc limit 1);
  v_seq  bigint;
begin
  if p_after is null then
    select s.result ->> 'cursor' into p_after from coordinator.job_steps_open s
    where s.job_id = p_job and s.name = p_step and s.ordinal < p_ordinal and s.kind = 'wait' order by s.ordinal desc limit 1;
    if p_after is null then
      return coordinator.event_seq_before(coalesce((select (j.past -> 0 ->> 'started_at')::timestamptz from coordinator.jobs_open j where j.id = p_job), p_started_at));
    end if;
  end if;
  if p_after = 'now' then
    return v_head;
  elsif p_after !~ '^[0-9a-z]{1,16}\.[0-9]{1,18}$' then
    raise exception using errcode = 'ZC103', message = format('invalid cursor "%s"', left(p_after, 100)),
      hint = 'Give the cursor of an event, "now", or nothing for what happened since the job first started.';
  end if;
  v_seq := split_part(p_after, '.', 2)::bigint;
  perform coordinator.check_epoch(p_after);
  return case when v_seq > v_head
                or split_part(p_after, '.', 1) <> (select epoch from coordinator.relay) and (v_seq <= coordinator.event_end(split_part(p_after, '.', 1))) is not true
              then v_head -- later events of an earlier epoch were lost
              else v_seq end;
end
$$;
comment on function coordinator.job_wait_place(text, uuid, text, integer, timestamptz) is
  'Return the event after which a wait begins. Internal.';

create or replace function coordinator.job_wait_begin(
  p_attempt coordinator.jobs_running, p_project text, p_wait coordinator.job_waits, p_watches text[]) returns setof coordinator.job_suspension
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_last coordinator.job_steps_open;
  v_step coordinator.job_steps;
begin
  select * into v_last from coordinator.job_steps_open s where s.job_id = p_wait.job_id order by s.place desc limit 1;
  if v_last.place >= 1000 or v_last.bytes > 4194304 then
    raise exception using errcode = 'ZC102', message = format('job %s has no room for another step: %s are finished, with %s bytes', p_wait.job_id, v_last.place, v_last.bytes),
      hint = 'Complete it, and let another job continue.';
  end if;
  delete from coordinator.jobs_running r where r.id = p_wait.job_id;
  perform coordinator.job_put_back(array[p_attempt], 'waiting', p_wait.worker, p_wait.began_at,
                                   p_cause => case when p_wait.question is null then 'wait' else 'answer' end);
  if exists (select from coordinator.jobs_waiting w where w.id = p_wait.job_id) then
    insert into coordinator.job_waits select (p_wait).*;
    insert into coordinator.job_watches (project, topic, key, job_id)
    select distinct p_project, p_watches[n], p_watches[n + 1], p_wait.job_id from generate_series(1, cardinality(p_watches), 2) n;
  end if;
  return query
    select p_wait.job_id, coalesce((select 'waiting' from coordinator.jobs_waiting w where w.id = p_wait.job_id), 'cancelled'), p_wait.due_at, null::jsonb;
end
$$;
comment on function coordinator.job_wait_begin(coordinator.jobs_running, text, coordinator.job_waits, text[]) is
  'End an attempt that its caller has locked, and let its job wait; p_watches: topics and keys of the events that may end the wait, in turn. If a cancellation was requested, the job ends. Internal.';

create or replace function coordinator.job_wait_over(p_job uuid, p_step text, p_ordinal integer, p_kind text) returns setof coordinator.job_suspension
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_step coordinator.job_steps;
begin
  select * into v_step from coordinator.job_step_of(p_job, p_step, p_ordinal);
  if v_step.kind <> p_kind then
    raise exception using errcode = 'ZC329', message = format('step "%s" %s of job %s has finished, and is not a %s', left(p_step, 200), p_ordinal, p_job, p_kind),
      detail = jsonb_build_object('job', p_job, 'name', p_step, 'ordinal', p_ordinal, 'kind', v_step.kind, 'fence', v_step.fence,
                                  'finished_at', v_step.finished_at)::text,
      hint = 'Use another name, or the next ordinal.';
  elsif v_step.job is not null then
    return query select p_job, 'running', null::timestamptz, v_step.result;
  end if;
end
$$;
comment on function coordinator.job_wait_over(uuid, text, integer, text) is
  'Return the stored outcome of a wait or question; no row: it is not over. ZC329: a step of another kind has this name. Internal.';

create or replace function coordinator.job_suspend(
  p_project text, p_job uuid, p_agent uuid, p_fence bigint, p_step text, p_conditions jsonb, p_ttl interval default null,
  p_ordinal integer default 1, p_after text default null)
returns setof coordinator.job_suspension
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off -- before PostgreSQL 18, a table or sequence without an index looks expensive enough for JIT
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_attempt coordinator.jobs_running := coordinator.job_attempt(p_project, p_job, p_agent, p_fence);
  v_wait    coordinator.job_waits;
  v_watches text[];
  v_met     jsonb;
  v_cycle   jsonb;
begin
  perform coordinator.check_isolation('jobs are suspended');
  perform coordinator.job_step_name(p_step, p_ordinal);
  if p_ttl is not null then
    perform coordinator.check_ttl(p_ttl);
  end if;
  v_wait.conditions := coordinator.job_wait_read(v_project, p_job, p_conditions, v_now);
  return query select * from coordinator.job_wait_over(p_job, p_step, p_ordinal, 'wait');
  if found then
    return;
  end if;
  v_wait.after_seq := coordinator.job_wait_place(p_after, p_job, p_step, p_ordinal, v_attempt.started_at); -- before the current state is read
  v_met := coordinator.job_wait_look(v_project, v_wait.conditions, v_now);
  v_wait.worker := coordinator.job_worker(p_agent);
  if v_met is not null then
    v_met := v_met || jsonb_build_object('cursor', coordinator.cursor_text(v_wait.after_seq));
    perform coordinator.job_step_store(p_job, p_step, p_ordinal, 'wait', v_met, p_fence, v_wait.worker, v_now);
    return query select p_job, 'running', null::timestamptz, v_met;
    return;
  end if;
  if coordinator.job_wait_paths(v_wait.conditions) is not null then
    perform coordinator.advisory_enter(hashtextextended('coordinator.job_cycle:' || v_project, 0)); -- so that of two jobs that wait for each other, one sees the other
    v_cycle := coordinator.job_wait_cycle(p_job, v_wait.conditions);
    if v_cycle is not null then
      raise exception using errcode = 'ZC313',
        message = 'deadlock: ' || (
          select string_agg(format('job %s waits for job %s', c, coalesce(v_cycle ->> n::integer, v_cycle ->> 0)), ', ' order by n)
          from jsonb_array_elements_text(v_cycle) with ordinality c (c, n) where n <= 20),
        detail = jsonb_build_object('cycle', v_cycle)::text,
        hint = 'Complete this job, or wait for something else as well, such as a signal.';
    end if;
  end if;
  v_watches := array(
    select x from jsonb_array_elements(v_wait.conditions) with ordinality c (value, place)
    cross join lateral (
      select 'signal.set' as topic, c.value ->> 'signal' as key where c.value ? 'signal'
      union all
      select c.value ->> 'event', coalesce(c.value ->> 'key', '') where c.value ? 'event'
      union all
      select 'directive.*', c.value ->> 'directive' where c.value ? 'directive'
      union all
      select 'job', j from jsonb_array_elements_text(c.value -> 'jobs') j) w
    cross join lateral unnest(array[w.topic, w.key]) with ordinality x (x, n) order by c.place, w.topic, w.key, x.n);
  v_wait.job_id := p_job;
  v_wait.project_id := v_project;
  v_wait.name := p_step;
  v_wait.ordinal := p_ordinal;
  v_wait.fence := p_fence;
  v_wait.began_at := v_now;
  v_wait.due_at := least(v_now + p_ttl, (select min((c ->> 'at')::timestamptz) from jsonb_array_elements(v_wait.conditions) c));
  v_wait.behind := case when v_watches <> '{}' then true end;
  return query select * from coordinator.job_wait_begin(v_attempt, p_project, v_wait, v_watches);
end
$$;
comment on function coordinator.job_suspend(text, uuid, uuid, bigint, text, jsonb, interval, integer, text) is
  'Suspend a job until the first of several conditions is met, without its worker, slots and locks. Conditions: {"at": instant}, {"delay": duration}, {"signal": key} or with a "value", {"event": type or pattern} or with a "key", {"jobs": [ids], "mode": "all" or "any"}, {"directive": id} (answered, or ended). The outcome is stored as a step: "met" is the position of the condition from 0, with what met it; null: none was met within p_ttl. The attempt ends without being spent. If a condition is already met, the job stays with its worker, and the outcome is returned. p_after: only events after this cursor count; by default, those since the previous wait of this name ended, or since the job first started. ZC313: the jobs would wait for each other forever. ZC320: the fence is stale.';
