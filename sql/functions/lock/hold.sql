-- Held locks: renewing, releasing, breaking and guarding them (see lock.sql).

create or replace function coordinator.lock_lost(
  p_project_id bigint, p_resource text, p_agent uuid, p_token bigint, p_errcode text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_lock   coordinator.locks;
  v_broken coordinator.lock_breaks;
  v_ended  text;
begin
  select format(' "%s", which %s at %s,', e.name, case e.end_reason when 'deregistered' then 'deregistered' else 'was reaped (' || e.end_reason || ')' end,
                to_char(e.ended_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')) into v_ended
  from coordinator.agents_ended e where e.id = p_agent;
  select * into v_broken from coordinator.lock_breaks
  where fencing_token = p_token and project_id = p_project_id and resource = p_resource limit 1;
  -- The current holder or, if there is none, the caller's own row if it still exists.
  select * into v_lock from coordinator.locks
  where project_id = p_project_id and resource = p_resource
  order by expires_at > v_now desc, fencing_token desc limit 1;
  raise exception using errcode = p_errcode,
    message = format('token %s%s no longer holds "%s": ', p_token, case when p_agent is not null then ' of agent ' || p_agent || coalesce(v_ended, '') else '' end, p_resource)
      || case when v_broken.id is not null then format('"%s" broke the lock at %s: %s', v_broken.actor,
                to_char(v_broken.broken_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'), v_broken.reason)
              when v_lock.resource is null then 'nobody holds it'
              when v_lock.ended_at is not null then format('the lock ended at %s', to_char(v_lock.ended_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'))
              when v_lock.expires_at <= v_now then format('the lock expired at %s', to_char(v_lock.expires_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'))
              else format('agent "%s" (%s) holds it with token %s until %s', v_lock.agent_name, v_lock.agent_id, v_lock.fencing_token,
                          to_char(v_lock.expires_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"')) end,
    detail = jsonb_build_object('resource', p_resource, 'agent_id', v_lock.agent_id, 'agent', v_lock.agent_name, 'mode', v_lock.mode,
                                'fencing_token', v_lock.fencing_token, 'expires_at', v_lock.expires_at, 'owner', v_lock.owner,
                                'broken_by', v_broken.actor, 'reason', v_broken.reason)::text,
    hint = 'Stop the work that the lock protected, check or undo it, and acquire the lock again.';
end
$$;
comment on function coordinator.lock_lost(bigint, text, uuid, bigint, text) is
  'Raise that a token is stale: who broke the lock and why, or the current holder, token and expiry. Internal.';

create or replace function coordinator.lock_tokens_for(p_resources text[], p_tokens bigint[], out resources coordinator.lock_resource[], out tokens bigint[])
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  resources := coordinator.lock_parse_all(p_resources);
  if cardinality(p_tokens) = 1 then
    tokens := array_fill(p_tokens[1], array[cardinality(resources)]);
  elsif cardinality(p_tokens) = cardinality(p_resources) then
    select array_agg(t order by resource collate "C") into tokens
    from (select distinct on ((coordinator.lock_parse(r)).resource) (coordinator.lock_parse(r)).resource as resource, t
          from unnest(p_resources, p_tokens) u (r, t)) one;
  end if;
  if tokens is null or array_position(tokens, null) is not null then
    raise exception using errcode = 'ZC105', message = format('%s tokens for %s resources', coalesce(cardinality(p_tokens), 0), cardinality(p_resources)),
      hint = 'Give the token of the call that acquired them, or one token for each.';
  end if;
end
$$;
comment on function coordinator.lock_tokens_for(text[], bigint[]) is
  'Parse the resources of a call, and find the token of each: one for all, or one for each. Internal.';

create or replace function coordinator.lock_renew(
  p_project text, p_resources text[], p_agent uuid, p_tokens bigint[], p_ttl interval default null)
returns table (resource text, fencing_token bigint, expires_at timestamptz)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
#variable_conflict use_column
declare
  v_project bigint := coordinator.project_id(p_project);
  v_given   record;
  v_now     timestamptz;
  v_lock    record;
begin
  select * into v_given from coordinator.lock_tokens_for(coordinator.lock_texts(p_project, p_resources), p_tokens);
  if p_ttl is not null then
    perform coordinator.check_ttl(p_ttl, 86400);
  end if;
  perform coordinator.agent_cover(p_agent, coalesce(p_ttl, (
    select max(l.ttl) from unnest(v_given.resources) r, lateral ( -- by the primary key, not by the agent
      select ttl from coordinator.locks
      where project_id = v_project and resource = r.resource and agent_id is not distinct from p_agent offset 0) l)));
  for v_i in 1 .. cardinality(v_given.resources) loop
    v_now := coordinator.now_utc();
    update coordinator.locks l
    set ttl = coalesce(p_ttl, l.ttl), claimed = true,
        -- If there are several acquisitions, each relies on its own TTL.
        expires_at = greatest(v_now + coalesce(p_ttl, l.ttl), case when l.requests is not null then l.expires_at end),
        free_at = case when isfinite(l.free_at) then greatest(v_now + coalesce(p_ttl, l.ttl), case when l.requests is not null then l.expires_at end) + l.delay
                       else l.free_at end
    where l.project_id = v_project and l.resource = v_given.resources[v_i].resource and l.agent_id is not distinct from p_agent
      and l.fencing_token = v_given.tokens[v_i] and l.expires_at > v_now
    returning l.resource, l.fencing_token, l.expires_at into v_lock;
    if not found then
      perform coordinator.lock_lost(v_project, v_given.resources[v_i].resource, p_agent, v_given.tokens[v_i], 'ZC311');
    end if;
    return query select v_lock.resource, v_lock.fencing_token, v_lock.expires_at;
  end loop;
end
$$;
comment on function coordinator.lock_renew(text, text[], uuid, bigint[], interval) is
  'Renew locks for their TTL, or for p_ttl, from now on, all or none. The agent lives at least as long, even without heartbeats. p_tokens: one for all locks, or one for each. ZC311: a lock is lost; the error names its current holder. No event.';

create or replace function coordinator.lock_renew_agent(p_agent uuid) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_now  timestamptz := coordinator.now_utc();
  v_lock record;
begin
  for v_lock in -- usually empty: of many calls a minute, only a few need to write
    select l.project_id, l.resource, l.slot, l.fencing_token from coordinator.locks l
    where l.agent_id = p_agent and l.claimed and isfinite(l.free_at) and l.expires_at > v_now and l.expires_at < v_now + 0.9 * l.ttl
    order by l.resource, l.slot for no key update skip locked
  loop
    update coordinator.locks l set expires_at = v_now + l.ttl, free_at = v_now + l.ttl + l.delay
    where l.project_id = v_lock.project_id and l.resource = v_lock.resource and l.slot = v_lock.slot and l.fencing_token = v_lock.fencing_token;
  end loop;
end
$$;
comment on function coordinator.lock_renew_agent(uuid) is
  'Renew all leases of an agent that have lost a tenth of their TTL, each for its own, except for those that others are changing. No event. Internal.';

create or replace function coordinator.lock_release_any(
  p_project text, p_resources text[], p_agent uuid, p_tokens bigint[], p_request_id uuid) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_texts   text[] := coordinator.lock_texts(p_project, p_resources);
  v_all     coordinator.lock_resource[] := coordinator.lock_parse_all(v_texts);
  v_tokens  bigint[] := (coordinator.lock_tokens_for(v_texts, p_tokens)).tokens;
  v_now     timestamptz;
  v_name    text;
  v_owner   text;
begin
  perform coordinator.lock_enter(v_project, v_all); -- so that no enqueue for them is missed
  v_now := coordinator.now_utc();
  for v_i in 1 .. cardinality(v_all) loop
    update coordinator.locks l
    set requests = case when p_request_id is null then trim_array(l.requests, 1) else array_remove(l.requests, p_request_id) end
    where l.project_id = v_project and l.resource = v_all[v_i].resource and l.agent_id is not distinct from p_agent
      and l.fencing_token = v_tokens[v_i] and l.expires_at > v_now
      and cardinality(l.requests) > 1 and (p_request_id is null or p_request_id = any (l.requests));
    continue when found;
    delete from coordinator.locks l -- found by its primary key, not by its agent
    where l.project_id = v_project and l.resource = v_all[v_i].resource and l.agent_id is not distinct from p_agent
      and l.fencing_token = v_tokens[v_i] and l.expires_at > v_now
      and (p_request_id is null or p_request_id = any (coalesce(l.requests, array[l.request_id])))
    returning l.agent_name, l.owner into v_name, v_owner;
    if not found then
      perform coordinator.lock_lost(v_project, v_all[v_i].resource, p_agent, v_tokens[v_i], 'ZC311');
    end if;
    perform coordinator.event_append('lock.released', p_project, v_all[v_i].resource, v_name, v_now,
      jsonb_build_object('agent_id', p_agent, 'owner', v_owner, 'fencing_token', v_tokens[v_i]));
  end loop;
  perform coordinator.lock_freed(v_project, p_project, v_all);
  return cardinality(v_all);
end
$$;
comment on function coordinator.lock_release_any(text, text[], uuid, bigint[], uuid) is
  'Do what lock_release does, for any resources. Internal.';

create or replace function coordinator.lock_release(
  p_project text, p_resources text[], p_agent uuid, p_tokens bigint[], p_request_id uuid default null) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project bigint;
  v_places  text[];
  v_now     timestamptz;
  v_name    text;
  v_owner   text;
  v_waited  boolean;
begin
  -- A fast path, as in lock_acquire, only for plain resources. A directory or glob that is treated as a path would share a key here
  -- that lock_release_any then needs exclusively, and two releases that share it would wait for each other.
  if coordinator.lock_is_plain(p_resources[1]) and cardinality(p_resources) = 1 and cardinality(p_tokens) = 1
     and coordinator.roles_unbound() and current_setting('transaction_isolation') = 'read committed' then
    select id into v_project from coordinator.projects where name = p_project;
    if found then
      v_places := coordinator.lock_enter_plain(v_project, p_resources[1]); -- so that no enqueue for it is missed
      v_now := coordinator.now_utc();
      delete from coordinator.locks l -- found by its primary key, not by its agent
      where l.project_id = v_project and l.resource = p_resources[1] and l.agent_id is not distinct from p_agent
        and l.fencing_token = p_tokens[1] and l.expires_at > v_now and l.prefix is null
        and l.requests is null and (p_request_id is null or l.request_id = p_request_id)
      returning l.agent_name, l.owner, exists (select from coordinator.lock_waits w where w.project_id = v_project)
                                       or exists (select from coordinator.job_lock_waits w where w.project_id = v_project) into v_name, v_owner, v_waited;
      if found then
        insert into coordinator.events (type, project, key, actor, at, data)
        values ('lock.released', p_project, p_resources[1], v_name, v_now,
                jsonb_build_object('agent_id', p_agent, 'owner', v_owner, 'fencing_token', p_tokens[1]));
        if v_waited then
          perform coordinator.lock_freed(v_project, p_project, array[coordinator.lock_parse(p_resources[1])]);
        end if;
        return 1;
      end if;
    end if;
  end if;
  return coordinator.lock_release_any(p_project, p_resources, p_agent, p_tokens, p_request_id);
end
$$;
comment on function coordinator.lock_release(text, text[], uuid, bigint[], uuid) is
  'Release locks, all or none, and hand them to the next waiters. p_tokens: one for all locks, or one for each. A lock that its owner acquired several times ends with the last release. p_request_id: release only what that request acquired. ZC311: a lock is already lost; if you repeat a release whose response was lost, this means that the release succeeded. The call waits for an open guarded transaction.';

create or replace function coordinator.lock_break(
  p_project text, p_resource text, p_reason text, p_agent uuid default null, p_token bigint default null,
  p_delay interval default null, p_actor text default null) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_all     coordinator.lock_resource[] := array[coordinator.lock_read(p_project, p_resource)];
  v_now     timestamptz;
  v_lock    coordinator.locks;
  v_count   integer := 0;
begin
  perform coordinator.check_reason(coalesce(p_reason, '')); -- the reason is required
  if p_delay is not null then
    perform coordinator.lock_check_options(v_all, false, null, null, p_delay);
  end if;
  p_actor := coordinator.actor_name(p_actor);
  perform coordinator.project_hold(v_project); -- before the lock, like project_delete
  perform coordinator.lock_enter(v_project, v_all);
  v_now := coordinator.now_utc();
  for v_lock in
    select * from coordinator.locks
    where project_id = v_project and resource = v_all[1].resource and expires_at > v_now
      and (p_agent is null or agent_id = p_agent) and (p_token is null or fencing_token = p_token)
    order by slot
  loop
    -- The holder's guarded transaction may hang, so do not wait for it. The lock ends; its row stays until that transaction ends.
    perform from coordinator.locks
    where project_id = v_project and resource = v_lock.resource and slot = v_lock.slot and fencing_token = v_lock.fencing_token
      and coalesce(p_delay, delay) = '0' for update skip locked;
    if found then
      delete from coordinator.locks where project_id = v_project and resource = v_lock.resource and slot = v_lock.slot;
    else
      update coordinator.locks
      set expires_at = v_now, free_at = v_now + coalesce(p_delay, delay), ended_at = v_now, claimed = true
      where project_id = v_project and resource = v_lock.resource and slot = v_lock.slot and fencing_token = v_lock.fencing_token
        and expires_at > v_now;
      continue when not found;
    end if;
    v_count := v_count + 1;
    insert into coordinator.lock_breaks (project_id, resource, agent_id, agent_name, mode, fencing_token, acquired_at, reason, actor, broken_at, owner)
    values (v_project, v_lock.resource, v_lock.agent_id, v_lock.agent_name, v_lock.mode, v_lock.fencing_token, v_lock.acquired_at, p_reason, p_actor, v_now, v_lock.owner);
    perform coordinator.event_append('lock.broken', p_project, v_lock.resource, p_actor, v_now,
      jsonb_build_object('agent_id', v_lock.agent_id, 'agent', v_lock.agent_name, 'owner', v_lock.owner,
                         'fencing_token', v_lock.fencing_token, 'reason', p_reason));
  end loop;
  if v_count = 0 then
    if p_agent is not null or p_token is not null then
      perform coordinator.lock_lost(v_project, v_all[1].resource, p_agent, p_token, 'ZC311');
    end if;
    raise exception using errcode = 'ZC207', message = format('nobody holds "%s" in project "%s"', v_all[1].resource, p_project),
      hint = 'It was released or has expired; see "coordinator lock list".';
  end if;
  perform coordinator.lock_freed(v_project, p_project, v_all);
  return v_count;
end
$$;
comment on function coordinator.lock_break(text, text, text, uuid, bigint, interval, text) is
  'Break a lock: take it from all its holders, or only from p_agent or p_token. The reason is stored in lock_breaks and in the event lock.broken. Return the number of holders. p_delay: nobody can acquire the lock for this long. ZC207: nobody holds the lock.';

create or replace function coordinator.lock_resize(p_project text, p_resource text, p_slots integer, p_actor text default null) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_all     coordinator.lock_resource[] := array[coordinator.lock_read(p_project, p_resource)];
  v_now     timestamptz;
  v_before  integer;
begin
  if p_slots is null then
    raise exception using errcode = 'ZC104', message = 'the number of slots is missing', hint = 'Give 1 to 10000.';
  end if;
  perform coordinator.lock_check_options('{}', false, p_slots, null, '0');
  p_actor := coordinator.actor_name(p_actor);
  perform coordinator.lock_enter(v_project, v_all);
  perform coordinator.lock_queue_enter(v_project);
  v_now := coordinator.now_utc();
  -- Holders and waiters have the same number of slots, so any row has it.
  select x.slots into v_before
  from (select slots, expires_at from coordinator.locks where project_id = v_project and resource = v_all[1].resource
        union all
        select slots, expires_at from coordinator.lock_waits where project_id = v_project and resource = v_all[1].resource) x
  where x.expires_at > v_now limit 1;
  if not found then
    raise exception using errcode = 'ZC207', message = format('nobody holds "%s" in project "%s"', v_all[1].resource, p_project),
      hint = 'The next call that acquires it sets the number of slots.';
  elsif v_before is null then
    perform coordinator.lock_refuse_slots(v_all[1].resource, null, p_slots);
  end if;
  if v_before <> p_slots then
    update coordinator.locks set slots = p_slots where project_id = v_project and resource = v_all[1].resource and slots is not null;
    update coordinator.lock_waits set slots = p_slots where project_id = v_project and resource = v_all[1].resource;
    perform coordinator.event_append('lock.resized', p_project, v_all[1].resource, p_actor, v_now,
      jsonb_build_object('slots', p_slots, 'before', v_before));
    perform coordinator.lock_hand_off(v_project, p_project, v_all);
  end if;
  return v_before;
end
$$;
comment on function coordinator.lock_resize(text, text, integer, text) is
  'Change the number of slots of a held counted lock, for its holders and waiters; return the previous number. If there are more holders than slots, all keep theirs, and no slot is granted until enough are released. ZC207: nobody holds the lock. ZC314: it has no slots.';

create or replace function coordinator.assert_fence(p_project text, p_resource text, p_token bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_resource text := (coordinator.lock_read(p_project, p_resource)).resource;
begin
  -- For key share: renewals do not wait, but taking the lock away deletes the row, and therefore waits.
  perform from coordinator.locks
  where project_id = v_project and resource = v_resource and fencing_token = p_token and expires_at > coordinator.now_utc()
  for key share;
  if not found then
    perform coordinator.lock_lost(v_project, v_resource, null, p_token, 'ZC312');
  end if;
end
$$;
comment on function coordinator.assert_fence(text, text, bigint) is
  'Guard a transaction: call this before you write anything that the lock protects. ZC312: the token is stale. Otherwise, nobody is granted the lock until the transaction ends, even if the lease expires first.';
