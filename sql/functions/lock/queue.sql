-- Waiting for locks: tickets in a queue, hand-off in the transaction that frees a lock, and detection of deadlocks.
--
-- Guarantees: a ticket is served before every later one that wants an overlapping resource, unless both share it. A lock passes to its
-- waiter in the transaction that frees it. A ticket that timed out, was cancelled or lost its agent blocks nobody. A ticket that would
-- close a cycle of owners that wait for each other is rejected, and the error lists the cycle.
-- Everything here that changes the queue holds the project's queue lock (see lock.sql), which is taken last.
-- On failure: the waiter's next lock_poll, or the loop, completes within a second what a lost event or a crash left undone.

create or replace view coordinator.lock_waiters with (security_barrier) as
  select w.ticket, w.resource, w.mode, w.agent_id, w.agent_name as agent, w.enqueued_at, w.expires_at, w.slots, p.name as project, w.owner
  from coordinator.lock_waits w join coordinator.projects p on p.id = w.project_id
  where w.expires_at > coordinator.now_utc()
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.lock_waiters             is 'Waiting tickets; the smallest number is served first.';
comment on column coordinator.lock_waiters.ticket      is 'Position in the queue. A ticket has one row for each of its resources.';
comment on column coordinator.lock_waiters.resource    is 'What it waits for.';
comment on column coordinator.lock_waiters.mode        is 'exclusive or shared.';
comment on column coordinator.lock_waiters.agent_id    is 'Waiting agent; see agents.';
comment on column coordinator.lock_waiters.agent       is 'Name of the agent.';
comment on column coordinator.lock_waiters.enqueued_at is 'When it began to wait.';
comment on column coordinator.lock_waiters.expires_at  is 'When it stops waiting.';
comment on column coordinator.lock_waiters.slots       is 'Number of slots of a counted lock; null for others.';
comment on column coordinator.lock_waiters.project     is 'Name of the project.';
comment on column coordinator.lock_waiters.owner       is 'Waiting owner within the agent, such as session/subagent; empty: the agent itself.';

create or replace view coordinator.lock_waits_for as
  select p.name as project, w.ticket, w.agent_id, w.agent_name as agent, w.resource, b.agent_id as for_agent_id,
         b.agent_name as for_agent, b.resource as for_resource, b.ticket as for_ticket, w.owner, b.owner as for_owner
  from coordinator.lock_waits w
  join coordinator.projects p on p.id = w.project_id
  cross join lateral coordinator.lock_blockers(w.project_id, w.agent_id, w.owner, w.ticket, coordinator.lock_parse(w.resource), w.mode, w.slots) b
  where w.expires_at > coordinator.now_utc();
comment on view   coordinator.lock_waits_for              is 'Who waits for whom: for holders, and for the nearest earlier tickets. What those tickets wait for is listed only in their own rows.';
comment on column coordinator.lock_waits_for.project      is 'Name of the project.';
comment on column coordinator.lock_waits_for.ticket       is 'Waiting ticket.';
comment on column coordinator.lock_waits_for.agent_id     is 'Waiting agent; see agents.';
comment on column coordinator.lock_waits_for.agent        is 'Name of the waiting agent.';
comment on column coordinator.lock_waits_for.resource     is 'What it waits for.';
comment on column coordinator.lock_waits_for.for_agent_id is 'Agent in the way.';
comment on column coordinator.lock_waits_for.for_agent    is 'Name of the agent in the way.';
comment on column coordinator.lock_waits_for.for_resource is 'Resource that this agent holds or waits for.';
comment on column coordinator.lock_waits_for.for_ticket   is 'Earlier ticket; null: the agent holds the lock.';
comment on column coordinator.lock_waits_for.owner        is 'Waiting owner within the agent; empty: the agent itself.';
comment on column coordinator.lock_waits_for.for_owner    is 'Owner in the way; empty: the agent itself.';

create or replace function coordinator.lock_queue_key(p_project_id bigint) returns bigint
language sql immutable parallel safe
return hashtextextended('coordinator.lock_queue:' || p_project_id::text, 0);
comment on function coordinator.lock_queue_key(bigint) is
  'Return the key of the advisory lock on the queue of a project. Internal.';

create or replace function coordinator.lock_queue_enter(p_project_id bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_isolation('locks change', 'assert_fence works at every isolation level.');
  perform coordinator.advisory_enter(coordinator.lock_queue_key(p_project_id));
end
$$;
comment on function coordinator.lock_queue_enter(bigint) is
  'Take the lock under which a project''s queue changes, until the end of the transaction; always the last lock. Internal.';

create or replace function coordinator.lock_queue_try(p_project_id bigint) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
begin
  perform coordinator.lock_queue_enter(p_project_id);
  return true;
exception when lock_not_available then
  return false;
end
$$;
comment on function coordinator.lock_queue_try(bigint) is
  'Do what lock_queue_enter does, but wait for at most one second; false: another transaction still holds the queue lock. Internal.';

create or replace function coordinator.lock_ticket_grant(
  p_project_id bigint, p_project text, p_ticket bigint, p_claimed boolean) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_waits  coordinator.lock_waits[];
  v_w      coordinator.lock_waits;
  v_gone   coordinator.locks[];
  v_locked integer := 0;
  v_held   coordinator.locks;
  v_own    uuid[] := '{}';
  v_lock   coordinator.locks;
begin
  select array_agg(w order by w.resource) into v_waits from coordinator.lock_waits w where w.ticket = p_ticket;
  if v_waits is null or v_waits[1].expires_at <= v_now
     or exists (select from unnest(v_waits) w, lateral coordinator.lock_blockers(
                  w.project_id, w.agent_id, w.owner, w.ticket, coordinator.lock_parse(w.resource), w.mode, w.slots) b) then
    return false;
  end if;
  -- Do not wait for rows that another transaction is changing: that transaction serves the queue next, or the loop does.
  select array_agg(distinct h) into v_gone
  from unnest(v_waits) w, lateral coordinator.lock_overlapping(p_project_id, coordinator.lock_parse(w.resource), false) h
  where h.free_at <= v_now and (w.mode = 'exclusive' or h.mode = 'exclusive' or h.agent_id = w.agent_id)
     or h.agent_id = w.agent_id and h.owner = w.owner and h.resource = w.resource;
  foreach v_held in array coalesce(v_gone, '{}') loop
    perform from coordinator.locks l
    where l.project_id = p_project_id and l.resource = v_held.resource and l.slot = v_held.slot and l.fencing_token = v_held.fencing_token
      and (l.free_at <= v_now) = (v_held.free_at <= v_now)
    for update skip locked;
    if not found then
      return false;
    end if;
  end loop;
  foreach v_held in array coalesce(v_gone, '{}') loop
    if v_held.free_at <= v_now then
      perform coordinator.lock_expire_one(p_project_id, p_project, v_held.resource, v_held.slot, v_now);
    end if;
  end loop;

  delete from coordinator.lock_waits where ticket = p_ticket;
  v_lock.fencing_token := coordinator.epoch_number('coordinator.lock_tokens');
  foreach v_w in array v_waits loop
    v_lock.project_id := p_project_id;
    v_lock.resource := v_w.resource;
    v_lock.kind := v_w.kind;
    v_lock.prefix := v_w.prefix;
    v_lock.pattern := v_w.pattern;
    v_lock.mode := v_w.mode;
    v_lock.slots := v_w.slots;
    v_lock.agent_id := v_w.agent_id;
    v_lock.agent_name := v_w.agent_name;
    v_lock.owner := v_w.owner;
    v_lock.ttl := v_w.ttl;
    v_lock.delay := v_w.delay;
    v_lock.request_id := v_w.request_id;
    v_lock.ticket := p_ticket;
    v_lock.claimed := p_claimed;
    v_lock.acquired_at := v_now;
    v_lock.expires_at := v_now + case when p_claimed then v_w.ttl else least(v_w.ttl, interval '10 seconds') end;
    v_lock.free_at := v_lock.expires_at + case when p_claimed then v_w.delay else interval '0' end;
    perform coordinator.lock_write(p_project, v_lock, true);
  end loop;
  -- Locks that the owner already held keep their token and get the ticket.
  update coordinator.locks l set ticket = p_ticket
  from unnest(v_waits) w
  where l.project_id = p_project_id and l.resource = w.resource and l.agent_id = w.agent_id and l.owner = w.owner and l.ticket is distinct from p_ticket
    and l.expires_at > v_now;
  return true;
end
$$;
comment on function coordinator.lock_ticket_grant(bigint, text, bigint, boolean) is
  'Turn a ticket into locks if nothing blocks it; p_claimed: its waiter makes this call. Under the queue lock. Internal.';

create or replace function coordinator.lock_next_ticket(p_project_id bigint, p_r coordinator.lock_resource, p_after bigint default 0)
returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
begin
  if p_r.kind not in ('name', 'path') then
    return (select min(w.ticket) from coordinator.lock_overlapping(p_project_id, p_r, true) w where w.ticket > p_after);
  end if;
  -- Read the first ticket from the index, however many wait.
  return least(
    (select min(w.ticket) from unnest(p_r.covered_by) c, lateral (
       select ticket from coordinator.lock_waits
       where project_id = p_project_id and resource = c and ticket > p_after order by ticket limit 1) w),
    (select min(w.ticket) from unnest(p_r.above || p_r.path) c, lateral (
       select g.ticket from coordinator.lock_waits g
       where g.project_id + 0 = p_project_id and g.prefix = c and g.kind = 'glob' and g.ticket > p_after
         and coordinator.lock_meets(p_r, null, g.kind, g.resource, g.pattern) offset 0) w));
end
$$;
comment on function coordinator.lock_next_ticket(bigint, coordinator.lock_resource, bigint) is
  'Return the first ticket after p_after that waits for a resource or for one that overlaps it; null: there is none. Internal.';

create or replace function coordinator.lock_hand_off(p_project_id bigint, p_project text, p_resources coordinator.lock_resource[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_r       coordinator.lock_resource;
  v_ticket  bigint;
  v_w       record;
  v_granted boolean;
begin
  foreach v_r in array p_resources loop
    if v_r.kind in ('name', 'path') then
      v_ticket := coordinator.lock_next_ticket(p_project_id, v_r);
      while v_ticket is not null loop
        select w.mode, w.slots, w.agent_id into v_w from coordinator.lock_waits w where w.ticket = v_ticket limit 1;
        v_granted := coordinator.lock_ticket_grant(p_project_id, p_project, v_ticket, false);
        -- Nobody behind a live exclusive ticket can be next, except for another slot or an owner below.
        exit when v_w.mode = 'exclusive'
          and not (v_granted and (v_w.slots is not null or exists (select from coordinator.lock_waits w where w.agent_id = v_w.agent_id)))
          and not exists (select from coordinator.lock_waits w where w.ticket = v_ticket and w.expires_at <= coordinator.now_utc());
        v_ticket := coordinator.lock_next_ticket(p_project_id, v_r, v_ticket);
      end loop;
    else
      for v_ticket in
        select distinct w.ticket from coordinator.lock_overlapping(p_project_id, v_r, true) w order by w.ticket
      loop
        perform coordinator.lock_ticket_grant(p_project_id, p_project, v_ticket, false);
      end loop;
    end if;
  end loop;
  perform coordinator.job_lock_wake(p_project_id, array(select r.resource from unnest(p_resources) r));
end
$$;
comment on function coordinator.lock_hand_off(bigint, text, coordinator.lock_resource[]) is
  'Serve the tickets that wait for freed resources, in order, then wake jobs. Under the queue lock. Internal.';

create or replace function coordinator.lock_freed(p_project_id bigint, p_project text, p_resources coordinator.lock_resource[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  if exists (select from coordinator.lock_waits w where w.project_id = p_project_id)
     and exists (select from unnest(p_resources) r where coordinator.lock_next_ticket(p_project_id, r) is not null) then
    perform coordinator.lock_queue_enter(p_project_id);
    perform coordinator.lock_hand_off(p_project_id, p_project, p_resources);
  else
    perform coordinator.job_lock_wake(p_project_id, array(select r.resource from unnest(p_resources) r));
  end if;
end
$$;
comment on function coordinator.lock_freed(bigint, text, coordinator.lock_resource[]) is
  'Hand freed resources to waiters, if there are any: the last step of release and break, under the keys of the resources. Internal.';

create or replace function coordinator.lock_ticket_drop(p_project_id bigint, p_project text, p_tickets bigint[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_resources coordinator.lock_resource[];
begin
  with gone as (delete from coordinator.lock_waits where project_id = p_project_id and ticket = any (p_tickets) returning resource)
  select array_agg(coordinator.lock_parse(resource)) into v_resources from (select distinct resource from gone) one;
  if v_resources is not null then
    perform coordinator.lock_hand_off(p_project_id, p_project, v_resources);
  end if;
end
$$;
comment on function coordinator.lock_ticket_drop(bigint, text, bigint[]) is
  'Remove tickets from the queue and serve the tickets that they blocked. Under the queue lock. Internal.';

create or replace function coordinator.lock_cycle(p_project_id bigint, p_agent uuid, p_owner text, p_within text[]) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_queue jsonb[] := array[jsonb_build_array(p_agent, p_owner)]; -- holders to visit
  v_from  jsonb := '{}'; -- holder → the edge that led to it
  v_at    integer := 1;
  v_edge  record;
  v_for   jsonb;
  v_json  jsonb;
  v_path  jsonb := '[]';
begin
  -- Nobody waits for an agent that holds nothing and has no other ticket.
  if not exists (select from coordinator.locks where agent_id = p_agent and free_at > v_now)
     and (select count(distinct ticket) < 2 from coordinator.lock_waits where agent_id = p_agent) then
    return null;
  end if;
  while v_at <= cardinality(v_queue) loop
    for v_edge in
      select distinct on (b.agent_id, b.owner) w.agent_id, w.agent_name, w.owner, w.resource as wanted, b.agent_id as for_id,
             b.agent_name as for_name, b.owner as for_owner, b.resource
      from coordinator.lock_waits w
      cross join lateral coordinator.lock_blockers(w.project_id, w.agent_id, w.owner, w.ticket, coordinator.lock_parse(w.resource), w.mode, w.slots) b
      -- A holder waits with the owners below it and within it, and with an agent that waits without an owner.
      where w.agent_id = (v_queue[v_at] ->> 0)::uuid and w.project_id = p_project_id and w.expires_at > v_now
        and case when v_at = 1 then w.owner = p_owner
                 else w.owner = '' or coordinator.lock_may_use(w.agent_id, w.owner, w.agent_id, v_queue[v_at] ->> 1)
                      or exists (select from unnest(w.within) o where coordinator.lock_may_use(w.agent_id, o, w.agent_id, v_queue[v_at] ->> 1)) end
      order by b.agent_id, b.owner, b.ticket nulls first
    loop
      v_for := jsonb_build_array(v_edge.for_id, v_edge.for_owner);
      continue when v_from ? v_for::text;
      v_json := jsonb_build_object('agent_id', v_edge.agent_id, 'agent', v_edge.agent_name, 'waits_for', v_edge.wanted,
                                   'of_agent_id', v_edge.for_id, 'of_agent', v_edge.for_name, 'locked', v_edge.resource,
                                   'owner', v_edge.owner, 'of_owner', v_edge.for_owner);
      v_from := v_from || jsonb_build_object(v_for::text, v_json || jsonb_build_object('by', v_queue[v_at]));
      if v_edge.for_id = p_agent and (p_owner = '' and v_edge.agent_id <> p_agent or coordinator.lock_may_use(p_agent, p_owner, v_edge.for_id, v_edge.for_owner)
                                        or exists (select from unnest(p_within) o where coordinator.lock_may_use(p_agent, o, p_agent, v_edge.for_owner))) then
        v_json := v_from -> v_for::text;
        loop
          v_path := (v_json - 'by') || v_path;
          exit when v_json -> 'by' = v_queue[1];
          v_json := v_from -> (v_json ->> 'by');
        end loop;
        return v_path;
      end if;
      v_queue := v_queue || v_for;
    end loop;
    v_at := v_at + 1;
  end loop;
  return null;
end
$$;
comment on function coordinator.lock_cycle(bigint, uuid, text, text[]) is
  'Return the shortest cycle of owners that wait for each other through p_owner or p_within, as a list of its steps; null: there is none. Internal.';

create or replace function coordinator.lock_enqueue(
  p_project_id bigint, p_project text, p_agent uuid, p_agent_name text, p_owner text, p_resources coordinator.lock_resource[], p_mode text,
  p_slots integer, p_ttl interval, p_wait interval, p_delay interval, p_request_id uuid, p_within text[]) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_now    timestamptz;
  v_ticket bigint;
  v_dead   bigint[];
  v_wait   record;
  v_cycle  jsonb;
begin
  perform coordinator.lock_queue_enter(p_project_id);
  v_now := coordinator.now_utc();
  select array_agg(distinct w.ticket) into v_dead
  from coordinator.lock_waits w where w.project_id = p_project_id and w.expires_at <= v_now;
  if v_dead is not null then
    perform coordinator.lock_ticket_drop(p_project_id, p_project, v_dead);
  end if;
  for v_wait in
    select w.resource, w.slots from unnest(p_resources) r join coordinator.lock_waits w on w.project_id = p_project_id and w.resource = r.resource
    where r.kind = 'name' and w.slots is distinct from p_slots limit 1
  loop
    perform coordinator.lock_refuse_slots(v_wait.resource, v_wait.slots, p_slots);
  end loop;

  v_ticket := coordinator.epoch_number('coordinator.lock_tickets');
  insert into coordinator.lock_waits (ticket, project_id, resource, kind, prefix, pattern, mode, slots, agent_id, agent_name, ttl, delay,
                                      request_id, enqueued_at, expires_at, owner, within)
  select v_ticket, p_project_id, r.resource, r.kind, case when r.kind in ('directory', 'glob') then r.path end, r.pattern, p_mode, p_slots, p_agent, p_agent_name,
         p_ttl, p_delay, p_request_id, v_now, v_now + coalesce(p_wait, interval '1 second'), p_owner, p_within
  from unnest(p_resources) r;
  if coordinator.lock_ticket_grant(p_project_id, p_project, v_ticket, true) then
    return v_ticket;
  elsif p_wait is null then
    perform coordinator.lock_refuse(p_project_id, p_agent, p_owner, v_ticket, p_resources, p_mode, p_slots);
  end if;
  for v_wait in
    select w.resource from unnest(p_resources) r join coordinator.lock_waits w on w.project_id = p_project_id and w.resource = r.resource
    group by 1 having count(*) > 1000
  loop
    raise exception using errcode = 'ZC315', message = format('1000 tickets already wait for "%s"', v_wait.resource), hint = 'Retry later.';
  end loop;
  v_cycle := coordinator.lock_cycle(p_project_id, p_agent, p_owner, p_within);
  if v_cycle is not null then
    raise exception using errcode = 'ZC313',
      message = 'deadlock: ' || (
        select string_agg(format('"%s" waits for "%s" of "%s"', concat_ws('/', c ->> 'agent', nullif(c ->> 'owner', '')), c ->> 'locked',
                                 concat_ws('/', c ->> 'of_agent', nullif(c ->> 'of_owner', ''))), ', ' order by n)
        from jsonb_array_elements(v_cycle) with ordinality c (c, n)),
      detail = jsonb_build_object('cycle', v_cycle)::text,
      hint = 'Release what you hold, or acquire everything you need in one call.';
  end if;
  perform coordinator.event_append('lock.waiting', p_project, r.resource, p_agent_name, v_now,
    jsonb_build_object('agent_id', p_agent, 'owner', p_owner, 'mode', p_mode, 'ticket', v_ticket, 'expires_at', v_now + p_wait))
  from unnest(p_resources) r;
  return v_ticket;
end
$$;
comment on function coordinator.lock_enqueue(bigint, text, uuid, text, text, coordinator.lock_resource[], text, integer, interval, interval, interval, uuid, text[]) is
  'Take a ticket and serve it at once if nothing blocks it; otherwise it waits, or the call fails: ZC310 (no wait), ZC313 (deadlock) or ZC315 (too many tickets). Under the keys of the resources. Internal.';
