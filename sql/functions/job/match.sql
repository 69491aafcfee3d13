-- Waits and the log (see suspend.sql): a loop of the leader compares events with what jobs wait for, in the order of their numbers, so
-- that writers do not have to.
--
-- The row of job_wait_log stores the position up to which the loop has read; the loop locks this row while it reads. A wait may begin
-- at an event before this position. Then the wait is behind, and the loop reads events from the position of the wait up to its own, for
-- this wait and for others that begin in between. The wait that began first is read for first, so every wait catches up. A run reads at
-- most 20 chunks, alternately at its position and for waits that are behind.
--
-- A run collects a bounded amount of outcomes, and of each project a share. If more waits of a project end, they fall behind, at the event
-- that was not compared with them any more, and the loop reads on for the others. So a flood of waits delays only its own project.
--
-- The outcome of a wait is stored, and its job woken, in the transaction that moves the position, so a crash repeats both or neither.
-- If another transaction holds a job at that moment, the job is skipped and the outcome is kept until the next run; if that transaction
-- ends the job, the outcome is dropped. If events were pruned before they were read, the loop checks the current state instead.

create or replace function coordinator.event_topics(p_type text) returns text[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_words constant text[] := string_to_array(p_type, '.');
begin
  return array[p_type, '*'] || array(select array_to_string(v_words[:n], '.') || '.*' from generate_series(1, cardinality(v_words) - 1) n);
end
$$;
comment on function coordinator.event_topics(text) is
  'Return all topics that an event of a type has: signal.set, signal.*, *. Internal.';

create or replace function coordinator.event_chunk_after(p_seq bigint) returns coordinator.event_chunks
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_chunk coordinator.event_chunks;
begin
  select * into v_chunk from coordinator.event_chunks c
  where c.first_seq >= coalesce((select max(f.first_seq) from coordinator.event_chunks f where f.first_seq <= p_seq + 1), 0) and c.last_seq > p_seq
  order by c.first_seq limit 1;
  return v_chunk;
end
$$;
comment on function coordinator.event_chunk_after(bigint) is
  'Return the chunk of the next event after p_seq; null: there is none. Internal.';

create or replace function coordinator.job_wait_hear(
  p_project_id bigint, p_conditions jsonb, p_type text, p_key text, p_actor text, p_at timestamptz, p_data jsonb, p_now timestamptz) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_item record;
  v_met  jsonb;
begin
  for v_item in select c.value, c.place - 1 as place from jsonb_array_elements(p_conditions) with ordinality c (value, place) order by c.place loop
    v_met := null;
    if v_item.value ? 'event' then
      if v_item.value ->> 'event' = any (coordinator.event_topics(p_type)) and coalesce(v_item.value ->> 'key' = p_key, not v_item.value ? 'key') then
        v_met := jsonb_build_object('event', jsonb_build_object('type', p_type, 'key', p_key, 'actor', p_actor, 'at', p_at, 'data', p_data));
      end if;
    elsif v_item.value ? 'signal' then
      if p_type = 'signal.set' and v_item.value ->> 'signal' = p_key and (not v_item.value ? 'value' or v_item.value -> 'value' = p_data -> 'value') then
        v_met := jsonb_build_object('signal', jsonb_build_object('key', p_key, 'value', p_data -> 'value', 'version', p_data -> 'version'));
      end if;
    elsif v_item.value ? 'jobs' and p_type in ('job.completed', 'job.failed', 'job.cancelled', 'job.expired') or v_item.value ? 'directive' and p_type like 'directive.%' then
      v_met := coordinator.job_wait_state(p_project_id, v_item.value, p_now);
    end if;
    if v_met is not null then
      return jsonb_build_object('met', v_item.place) || v_met;
    end if;
  end loop;
  return null;
end
$$;
comment on function coordinator.job_wait_hear(bigint, jsonb, text, text, text, timestamptz, jsonb, timestamptz) is
  'Return the outcome of a wait that an event ends; null: the event does not end it. Internal.';

-- Outcomes are collected before they are stored: what a run collects is bounded, whatever waits and however large the events are.
create or replace function coordinator.job_wait_full(p_found jsonb) returns boolean
language sql stable parallel safe
return pg_column_size(p_found) > 4194304;
comment on function coordinator.job_wait_full(jsonb) is
  'Return whether outcomes of waits are to be stored before more are collected. Internal.';

create or replace function coordinator.job_wait_listen(
  p_chunk coordinator.event_chunks, p_after bigint, p_until bigint, p_behind boolean, p_held jsonb, p_now timestamptz,
  p_used jsonb, p_share bigint, out outcomes jsonb, out reached bigint, out used jsonb, out late jsonb)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set plan_cache_mode = force_generic_plan -- planning takes longer than reading a chunk
as $$
declare
  v_hit     record;
  v_met     jsonb;
  v_count   integer := 0;
  v_project text;
begin
  outcomes := '{}';
  used := p_used;
  late := '{}';
  reached := p_until;
  for v_hit in
    select w.job_id, w.project_id, w.conditions, w.fence, e.*
    from (select c.*, coordinator.event_topics(c.type) as topics from coordinator.chunk_events(p_chunk, p_after) c where c.seq <= p_until) e
    cross join lateral (
      select t.job_id from coordinator.job_watches t
      where t.project = e.project and t.topic = any (e.topics) and t.key = any (array['', e.key])
      union
      select t.job_id from jsonb_array_elements_text(case when e.type in ('job.completed', 'job.failed', 'job.cancelled', 'job.expired') then e.data -> 'ids' end) i
      join coordinator.job_watches t on t.project = e.project and t.topic = 'job' and t.key = i) t
    join coordinator.job_waits w on w.job_id = t.job_id
    where e.seq > w.after_seq and case when p_behind then w.behind else not w.behind or w.after_seq >= p_after end
    order by e.seq
  loop
    v_project := v_hit.project_id::text;
    continue when p_held ? v_hit.job_id::text or outcomes ? v_hit.job_id::text or late ? v_project;
    if (used ->> v_project)::bigint >= p_share then
      late := late || jsonb_build_object(v_project, v_hit.seq);
      continue;
    end if;
    if v_count = 1000 or coordinator.job_wait_full(outcomes) then
      reached := v_hit.seq - 1; -- this event may have ended other waits, which are gone in the next run
      return;
    end if;
    v_met := coordinator.job_wait_hear(v_hit.project_id, v_hit.conditions, v_hit.type, v_hit.key, v_hit.actor, v_hit.at, coordinator.event_data(v_hit.data), p_now);
    if v_met is not null then
      outcomes := outcomes || jsonb_build_object(v_hit.job_id, jsonb_build_object(
        'fence', v_hit.fence, 'result', v_met || jsonb_build_object('cursor', coordinator.cursor_text(v_hit.seq))));
      used := used || jsonb_build_object(v_project, coalesce((used ->> v_project)::bigint, 0) + greatest(4096, pg_column_size(v_met)));
      v_count := v_count + 1;
    end if;
  end loop;
end
$$;
comment on function coordinator.job_wait_listen(coordinator.event_chunks, bigint, bigint, boolean, jsonb, timestamptz, jsonb, bigint) is
  'Compare the events of a chunk after p_after, up to p_until, with the waits that are behind, or with those that have caught up, except those in p_held. Return outcomes by job: up to 1,000, and not many more than 4 MB; and up to which event they are complete. used: bytes of outcomes by project, of which p_share are available to each; late: for projects that need more, the first event that was not compared with their waits. Internal.';

create or replace function coordinator.job_wait_end_in(p_found jsonb, p_now timestamptz) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_locked uuid[];
  v_ids    uuid[] := '{}';
  v_wait   coordinator.job_waits;
begin
  v_locked := array(select w.id from coordinator.jobs_waiting w where w.id = any (array(select k::uuid from jsonb_object_keys(p_found) k))
                    order by w.id for update skip locked);
  for v_wait in
    select * from coordinator.job_waits w
    where w.job_id = any (v_locked) and w.fence = (p_found -> w.job_id::text ->> 'fence')::bigint order by w.job_id
  loop
    v_ids := v_ids || v_wait.job_id;
    perform coordinator.job_step_store(v_wait.job_id, v_wait.name, v_wait.ordinal, case when v_wait.question is null then 'wait' else 'answer' end,
                                       p_found -> v_wait.job_id::text -> 'result', v_wait.fence, 'coordinator', p_now);
  end loop;
  if v_ids <> '{}' then
    perform coordinator.job_wake(v_ids, 'coordinator', p_now);
  end if;
  return p_found - v_ids::text[];
end
$$;
comment on function coordinator.job_wait_end_in(jsonb, timestamptz) is
  'Store outcomes of waits of one project and wake their jobs; return the waits whose jobs another transaction holds. Internal.';

create or replace function coordinator.job_wait_end(p_found jsonb, p_now timestamptz) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_of   record;
  v_held jsonb := '{}';
begin
  for v_of in
    select w.project_id, jsonb_object_agg(f.key, f.value) as found
    from jsonb_each(p_found) f
    join (select o.* from coordinator.job_waits o where o.job_id = any (array(select k::uuid from jsonb_object_keys(p_found) k)) offset 0) w
      on w.job_id = f.key::uuid and w.fence = (f.value ->> 'fence')::bigint -- others wait for something else by now
    group by 1 order by 1
  loop
    begin
      v_held := v_held || coordinator.job_wait_end_in(v_of.found, p_now);
    exception when others then
      v_held := v_held || v_of.found;
      perform coordinator.project_passed_over('job_wait_match', v_of.project_id, sqlerrm);
    end;
  end loop;
  return v_held;
end
$$;
comment on function coordinator.job_wait_end(jsonb, timestamptz) is
  'Store outcomes of waits and wake their jobs, project by project (see project_each); return the waits that have to be ended later. Internal.';

create or replace function coordinator.job_wait_hold(p_held jsonb, p_found jsonb) returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  p_held := p_held || p_found;
  if pg_column_size(p_held) <= 16777216 then
    return p_held;
  end if;
  return (select jsonb_object_agg(h.key, jsonb_set(jsonb_set(h.value, '{result,event,data}', '{"unreadable": "json"}', false), '{result,signal,value}', '{"unreadable": "json"}', false))
          from jsonb_each(p_held) h);
end
$$;
comment on function coordinator.job_wait_hold(jsonb, jsonb) is
  'Add outcomes of waits whose jobs another transaction holds to those that are held. Beyond 16 MB together, they lose the data of their events and signals: {"unreadable": "json"}. Internal.';

create or replace function coordinator.job_wait_due_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_seq   bigint := (select l.seq from coordinator.job_wait_log l);
  v_wait  coordinator.job_waits;
  v_found jsonb := '{}';
  v_held  jsonb;
begin
  for v_wait in
    select w.* from coordinator.job_waits w where w.job_id = any (p_items::uuid[]) and w.due_at <= v_now order by w.due_at
  loop
    exit when coordinator.job_wait_full(v_found);
    v_found := v_found || jsonb_build_object(v_wait.job_id, jsonb_build_object('fence', v_wait.fence, 'result',
      case when v_wait.question is not null then jsonb_build_object('answer', v_wait.fallback, 'by', null)
           else coalesce(coordinator.job_wait_look(v_wait.project_id, v_wait.conditions, v_now), '{"met": null}')
                || jsonb_build_object('cursor', coordinator.cursor_text(greatest(v_wait.after_seq, case when v_wait.behind is false then v_seq else 0 end))) end));
  end loop;
  v_held := coordinator.job_wait_end_in(v_found, v_now);
  return array(select k from jsonb_object_keys(v_found) k where not v_held ? k);
end
$$;
comment on function coordinator.job_wait_due_in(bigint, text[], integer) is
  'End waits and questions of a project whose time has passed, for job_wait_match: see project_each. Internal.';

create or replace function coordinator.job_wait_match(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
set lock_timeout = '100ms'
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_log   coordinator.job_wait_log;
  v_floor bigint;
  v_first bigint;
  v_until bigint;
  v_chunk coordinator.event_chunks;
  v_held  jsonb;
  v_found jsonb := '{}';
  v_more  jsonb;
  v_ids   uuid[];
  v_wait  record;
  v_heard record;
  v_used  jsonb := '{}'; -- bytes of outcomes by project
  v_share bigint;
  v_full  bigint[];
  v_count integer := 0;
begin
  perform coordinator.check_page(p_limit);
  perform coordinator.check_isolation('waits are compared with the log');
  select * into v_log from coordinator.job_wait_log for update skip locked;
  if not found then
    return 0;
  end if;
  v_held := v_log.held;
  if v_held <> '{}' then
    v_held := coordinator.job_wait_end(v_held, v_now);
    select count(*) into v_count from jsonb_object_keys(v_log.held) k where not v_held ? k;
  end if;
  select min(w.after_seq) into v_first from coordinator.job_waits w where w.behind is not null;
  if v_first is not null then
    -- Locks the log, see events_since: from here on no partition is dropped.
    perform from coordinator.events where false;
    select last_value into v_floor from coordinator.event_floor;
    v_log.seq := greatest(v_log.seq, v_first);
    if v_first < v_floor and (v_log.seq < v_floor or exists (select from coordinator.job_waits w where w.behind and w.after_seq < v_floor)) then
      for v_wait in select w.* from coordinator.job_waits w where w.after_seq < v_floor and w.behind is not null and not v_held ? w.job_id::text loop
        v_more := coordinator.job_wait_look(v_wait.project_id, v_wait.conditions, v_now);
        continue when v_more is null;
        v_found := v_found || jsonb_build_object(v_wait.job_id, jsonb_build_object(
          'fence', v_wait.fence, 'result', v_more || jsonb_build_object('cursor', coordinator.cursor_text(v_floor))));
        v_count := v_count + 1;
        if coordinator.job_wait_full(v_found) then
          v_held := coordinator.job_wait_hold(v_held, coordinator.job_wait_end(v_found, v_now));
          v_found := '{}';
        end if;
      end loop;
      update coordinator.job_waits w set after_seq = v_floor
      where w.job_id = any (array(select o.job_id from coordinator.job_waits o where o.after_seq < v_floor and o.behind is not null for update skip locked));
      v_log.seq := greatest(v_log.seq, v_floor);
    end if;
    for v_run in 1..20 loop
      exit when coordinator.job_wait_full(v_found);
      update coordinator.job_waits w set behind = false
      where w.job_id = any (array(select o.job_id from coordinator.job_waits o where o.behind and o.after_seq >= v_log.seq for update skip locked));
      v_share := coalesce(v_share, 4194304 / (2 + (select count(distinct w.project_id) from coordinator.job_waits w where w.behind)));
      v_chunk := case when v_run % 2 = 1 then coordinator.event_chunk_after(v_log.seq) end;
      v_first := null;
      if v_chunk.first_seq is null then -- of the waits that are behind, the longest waiting first
        v_full := array(select u.key::bigint from jsonb_each_text(v_used) u where u.value::bigint >= v_share);
        select w.after_seq into v_first from coordinator.job_waits w
        where w.behind and w.after_seq < v_log.seq and w.project_id <> all (v_full) order by w.began_at, w.job_id limit 1 for update skip locked;
      end if;
      if v_first is not null then
        v_chunk := coordinator.event_chunk_after(v_first);
        v_until := least(v_chunk.last_seq, v_log.seq);
        -- Trap: lock them before reading the chunk. A wait that appears later has not been compared with it.
        v_ids := array(select o.job_id from coordinator.job_waits o
                       where o.behind and o.after_seq >= v_first and o.after_seq < v_until and o.project_id <> all (v_full) for update skip locked);
        v_heard := coordinator.job_wait_listen(v_chunk, v_first, v_until, true, v_held || v_found, v_now, v_used, v_share);
        v_until := v_heard.reached;
        update coordinator.job_waits w set after_seq = greatest(w.after_seq, least(v_until, (v_heard.late ->> w.project_id::text)::bigint - 1))
        where w.job_id = any (v_ids) and w.after_seq < v_until;
        v_used := v_heard.used;
        v_found := v_found || v_heard.outcomes;
        v_count := v_count + 1;
        exit when v_until < least(v_chunk.last_seq, v_log.seq); -- the rest when these outcomes are stored
        continue;
      end if;
      if v_chunk.first_seq is null then
        v_chunk := coordinator.event_chunk_after(v_log.seq);
      end if;
      exit when v_chunk.first_seq is null;
      v_heard := coordinator.job_wait_listen(v_chunk, v_log.seq, v_chunk.last_seq, false, v_held || v_found, v_now, v_used, v_share);
      v_until := v_heard.reached;
      v_used := v_heard.used;
      v_found := v_found || v_heard.outcomes;
      if v_heard.late <> '{}' then -- these waits fall behind; if another transaction holds one of them, the loop waits for it there
        v_ids := array(select w.job_id from coordinator.job_waits w where not w.behind and v_heard.late ? w.project_id::text and not v_found ? w.job_id::text for update skip locked);
        update coordinator.job_waits w set behind = true, after_seq = greatest(w.after_seq, least(v_until, (v_heard.late ->> w.project_id::text)::bigint - 1))
        where w.job_id = any (v_ids);
        select least(v_until, min((v_heard.late ->> w.project_id::text)::bigint) - 1) into v_until
        from coordinator.job_waits w where not w.behind and v_heard.late ? w.project_id::text and not v_found ? w.job_id::text;
      end if;
      v_count := v_count + (v_until > v_log.seq or v_heard.outcomes <> '{}')::integer;
      v_log.seq := v_until;
      exit when v_until < v_chunk.last_seq;
    end loop;
  end if;
  if v_found <> '{}' then
    v_more := coordinator.job_wait_end(v_found, v_now);
    select v_count + count(*) into v_count from jsonb_object_keys(v_found) k where not v_more ? k;
    v_held := coordinator.job_wait_hold(v_held, v_more);
  end if;
  update coordinator.job_wait_log l set seq = v_log.seq, held = v_held where l.seq <> v_log.seq or l.held <> v_held;
  return v_count + cardinality(coordinator.project_each('job_wait_due', p_limit, $due$
    select w.project_id, w.job_id::text from coordinator.job_waits w, coordinator.job_wait_log l
    where w.due_at <= $1 and w.project_id <> all ($2) and not l.held ? w.job_id::text order by w.due_at limit $3
  $due$));
end
$$;
comment on function coordinator.job_wait_match(integer) is
  'Compare up to 20 chunks of the log with the events that jobs wait for, and end up to p_limit waits and questions whose time has passed: store each outcome, and wake the job; returns the amount of work done. A run stores not many more than 8 MB of outcomes, and 4 MB of each project whose waits end by time. Repeat until 0.';
