-- Acquiring locks (see lock.sql). Nearly every call wants one plain path or name, and nothing blocks it: lock_acquire handles this case
-- itself, with one lookup and one row. lock_acquire_any handles everything else, including invalid arguments. Both take the same locks
-- in the same order and decide by the same rows; the lock tests run with either path.
--
-- The code is terse because the server's instructions were counted (callgrind): in functions of this size, starting a statement or an
-- expression, again in every transaction, costs more than running it. An acquire and a release went from 1,700 thousand instructions to
-- 860 (PostgreSQL 15; 736 on 18); two bare single-row writes take 95.

create or replace function coordinator.lock_may_use(p_agent uuid, p_owner text, p_of_agent uuid, p_of_owner text) returns boolean
language sql immutable parallel safe
return p_agent = p_of_agent and (p_of_owner in ('', p_owner) or starts_with(p_owner, p_of_owner || '/'));
comment on function coordinator.lock_may_use(uuid, text, uuid, text) is
  'Return whether an owner may use what another holds: what it holds itself, or an owner above it; the agent is above all its owners. Internal.';

create or replace function coordinator.lock_blockers(
  p_project_id bigint, p_agent uuid, p_owner text, p_ticket bigint, p_resource coordinator.lock_resource, p_mode text, p_slots integer)
returns table (resource text, agent_id uuid, agent_name text, owner text, mode text, fencing_token bigint, expires_at timestamptz, ticket bigint)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
  v_now  timestamptz := coordinator.now_utc();
  v_near bigint;
begin
  if exists (select from coordinator.locks l
             where l.project_id = p_project_id and l.resource = p_resource.resource and l.agent_id is not distinct from p_agent
               and l.owner = p_owner and l.expires_at > v_now and (l.mode = 'exclusive' or p_mode = 'shared')) then
    return; -- it already holds the resource
  end if;
  return query
    select l.resource, l.agent_id, l.agent_name, l.owner, l.mode, l.fencing_token, case when isfinite(l.free_at) then l.free_at else l.expires_at end, null::bigint
    from (
      select h.*, count(*) over () as taken from coordinator.lock_overlapping(p_project_id, p_resource, false) h
      where h.free_at > v_now
        and (h.expires_at <= v_now or h.slots is not null or not coordinator.lock_may_use(p_agent, p_owner, h.agent_id, h.owner))) l
    where (p_mode = 'exclusive' or l.mode = 'exclusive')
      and (p_slots is null or l.slots is distinct from p_slots or l.taken >= p_slots);
  -- Do not list what an earlier exclusive ticket for the same resource waits for: the ticket itself leads to it.
  select w.ticket into v_near
  from ( -- backwards along the queue, and by no other index
    select * from coordinator.lock_waits
    where project_id = p_project_id and resource = p_resource.resource and ticket < coalesce(p_ticket, 9223372036854775807)
    order by ticket desc offset 0) w
  where w.mode = 'exclusive' and w.expires_at > v_now and not coordinator.lock_may_use(p_agent, p_owner, w.agent_id, w.owner)
  order by w.ticket desc limit 1;
  return query
    select w.resource, w.agent_id, w.agent_name, w.owner, w.mode, null::bigint, w.expires_at, w.ticket
    from coordinator.lock_overlapping(p_project_id, p_resource, true, coalesce(v_near, 0), coalesce(p_ticket, 9223372036854775807)) w
    where not coordinator.lock_may_use(p_agent, p_owner, w.agent_id, w.owner) and w.expires_at > v_now
      and (p_mode = 'exclusive' or w.mode = 'exclusive');
end
$$;
comment on function coordinator.lock_blockers(bigint, uuid, text, bigint, coordinator.lock_resource, text, integer) is
  'Return what keeps an owner from a resource: locks of others that are not free yet, and tickets before p_ticket (null: all tickets) that wait for no other listed ticket of the same resource. Internal.';

create or replace function coordinator.lock_in_the_way(
  p_project_id bigint, p_agent uuid, p_owner text, p_ticket bigint, p_resources coordinator.lock_resource[], p_mode text, p_slots integer,
  out message text, out detail text, out hint text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_b   record;
  v_who text;
  v_how text;
begin
  select r.resource as wanted, b.* into v_b
  from unnest(p_resources) r
  cross join lateral coordinator.lock_blockers(p_project_id, p_agent, p_owner, p_ticket, r, p_mode, p_slots) b
  order by b.ticket nulls first, r.resource, b.expires_at desc limit 1;
  if not found then
    message := 'the lock was not free a moment ago';
    hint := 'Try again.';
    return;
  end if;
  v_who := case when coordinator.lock_job(v_b.owner) is not null then format('job %s of agent "%s"', coordinator.lock_job(v_b.owner), v_b.agent_name)
                when v_b.agent_id <> p_agent then format('agent "%s" (%s)', v_b.agent_name, v_b.agent_id)
                when v_b.owner = '' then 'the agent itself'
                else format('owner "%s" of the same agent', v_b.owner) end;
  v_how := v_b.mode || case when v_b.resource <> v_b.wanted then format(', on "%s"', v_b.resource) else '' end;
  message := case when v_b.ticket is null
    then format('"%s" is locked by %s, %s, token %s, until %s', v_b.wanted, v_who, v_how, v_b.fencing_token,
                to_char(v_b.expires_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'))
    else format('%s waits for "%s", %s, ticket %s', v_who, v_b.wanted, v_how, v_b.ticket) end;
  detail := jsonb_build_object('resource', v_b.wanted, 'locked', v_b.resource, 'agent_id', v_b.agent_id, 'agent', v_b.agent_name,
    'mode', v_b.mode, 'fencing_token', v_b.fencing_token, 'expires_at', v_b.expires_at, 'ticket', v_b.ticket, 'owner', v_b.owner)::text;
  hint := case when v_b.agent_id = p_agent
    then 'Wait for it (--wait 30s), or act as the owner that has it, or as one below it: owner/part.'
    else format('Wait for it (--wait 30s), or ask the holder: "coordinator directive send %s --to-agent %s".',
                coordinator.shell_word('please release ' || v_b.resource), coordinator.shell_word(v_b.agent_name)) end;
end
$$;
comment on function coordinator.lock_in_the_way(bigint, uuid, text, bigint, coordinator.lock_resource[], text, integer) is
  'Describe for an error who keeps an owner from resources. Internal.';

create or replace function coordinator.lock_refuse(
  p_project_id bigint, p_agent uuid, p_owner text, p_ticket bigint, p_resources coordinator.lock_resource[], p_mode text, p_slots integer)
returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_way record := coordinator.lock_in_the_way(p_project_id, p_agent, p_owner, p_ticket, p_resources, p_mode, p_slots);
begin
  raise exception using errcode = 'ZC310', message = v_way.message, detail = coalesce(v_way.detail, ''), hint = v_way.hint;
end
$$;
comment on function coordinator.lock_refuse(bigint, uuid, text, bigint, coordinator.lock_resource[], text, integer) is
  'Raise ZC310, and name the owner in the way. Internal.';

create or replace function coordinator.lock_expire_one(
  p_project_id bigint, p_project text, p_resource text, p_slot bigint, p_now timestamptz) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_lock coordinator.locks;
begin
  delete from coordinator.locks where project_id = p_project_id and resource = p_resource and slot = p_slot and free_at <= p_now
  returning * into v_lock;
  if not found then
    return false;
  end if;
  if v_lock.ended_at is null then
    perform coordinator.event_append('lock.expired', p_project, p_resource, 'coordinator', p_now,
      jsonb_build_object('agent_id', v_lock.agent_id, 'agent', v_lock.agent_name, 'owner', v_lock.owner,
                         'fencing_token', v_lock.fencing_token, 'expires_at', v_lock.expires_at));
  end if;
  return true;
end
$$;
comment on function coordinator.lock_expire_one(bigint, text, text, bigint, timestamptz) is
  'Delete an expired lock and emit the event; false if it is gone or was renewed. Waits for a guarded transaction. Internal.';

create or replace function coordinator.lock_write(
  p_project text, p_new coordinator.locks, p_own boolean) returns coordinator.locks
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_lock coordinator.locks;
begin
  if p_own then
    update coordinator.locks
    set expires_at = greatest(expires_at, p_new.expires_at),
        free_at = case when isfinite(free_at) then greatest(expires_at, p_new.expires_at) + p_new.delay else free_at end,
        ttl = p_new.ttl, delay = p_new.delay, claimed = true,
        -- A named owner that acquires it again has to release it as often; a repeated request does not count.
        requests = case when owner = '' or p_new.request_id = any (coalesce(requests, array[request_id])) then requests
                        else coalesce(requests, array[request_id]) || p_new.request_id end
    where project_id = p_new.project_id and resource = p_new.resource and agent_id is not distinct from p_new.agent_id
      and owner = p_new.owner and expires_at > p_new.acquired_at and (mode = 'exclusive' or p_new.mode = 'shared')
    returning * into v_lock;
    if found then
      if cardinality(v_lock.requests) > 1000 then
        raise exception using errcode = 'ZC102', message = format('owner "%s" has acquired "%s" 1000 times', v_lock.owner, v_lock.resource),
          hint = 'Release it as often as you acquire it.';
      end if;
      return v_lock;
    end if;
    delete from coordinator.locks -- upgrade from shared to exclusive
    where project_id = p_new.project_id and resource = p_new.resource and agent_id is not distinct from p_new.agent_id
      and owner = p_new.owner and expires_at > p_new.acquired_at;
  end if;
  p_new.slot := case
    when p_new.slots is not null then (
      select min(s) from generate_series(1, p_new.slots) s
      where s not in (select slot from coordinator.locks where project_id = p_new.project_id and resource = p_new.resource))
    when p_new.mode = 'exclusive' and not exists ( -- within the lock of an owner above
      select from coordinator.locks where project_id = p_new.project_id and resource = p_new.resource and slot = 0) then 0
    else - p_new.fencing_token end;
  insert into coordinator.locks values (p_new.*);
  perform coordinator.event_append('lock.granted', p_project, p_new.resource, p_new.agent_name, p_new.acquired_at,
    jsonb_build_object('agent_id', p_new.agent_id, 'owner', p_new.owner, 'mode', p_new.mode, 'slot', case when p_new.slots is not null then p_new.slot end,
                       'fencing_token', p_new.fencing_token, 'expires_at', p_new.expires_at, 'ticket', p_new.ticket));
  return p_new;
end
$$;
comment on function coordinator.lock_write(text, coordinator.locks, boolean) is
  'Grant a lock, or with p_own renew it if the owner holds it. The caller has checked that nothing is in the way. Internal.';

create or replace function coordinator.lock_acquire_any(
  p_project text, p_resources text[], p_agent uuid, p_shared boolean, p_slots integer, p_ttl interval, p_wait interval,
  p_delay interval, p_request_id uuid, p_owner text, p_within text[])
returns setof coordinator.lock_grant
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
set plan_cache_mode = force_generic_plan -- the length of an array does not justify planning each call again
as $$
declare
  v_all     coordinator.lock_resource[];
  v_r       coordinator.lock_resource;
  v_agent   record;
  v_mode    text := case when p_shared then 'shared' else 'exclusive' end;
  v_now     timestamptz;
  v_row     coordinator.locks;
  v_lock    coordinator.locks;
  v_own     boolean[];
  v_taken   integer;
  v_queue   boolean := false;
  v_blocked boolean;
  v_expired coordinator.locks[];
  v_again   boolean;
  v_ticket  bigint;
  v_waited  text[];
  v_texts   text[];
begin
  v_texts := coordinator.lock_texts(p_project, p_resources);
  v_all := coordinator.lock_parse_all(v_texts);
  if p_ttl is null or p_ttl not between interval '1 second' and interval '1 day' then
    perform coordinator.check_ttl(p_ttl, 86400);
  end if;
  if p_slots is not null or p_delay <> interval '0' or p_delay is null or p_wait is not null then
    perform coordinator.lock_check_options(v_all, p_shared, p_slots, p_wait, p_delay);
    p_wait := nullif(p_wait, interval '0');
  end if;
  p_owner := coalesce(p_owner, '');
  if p_owner <> '' then
    perform coordinator.lock_check_owner(p_owner);
  end if;
  p_within := coalesce(p_within, '{}');
  if p_within <> '{}' then
    perform coordinator.check_list('the owners around it', p_within);
  end if;
  perform coordinator.project_check(p_project);
  select a.name, a.project_id, a.expires_at into v_agent from coordinator.agents a where a.id = p_agent and a.project = p_project for key share;
  if not found then
    perform coordinator.agent_missing(p_project, p_agent);
  end if;
  if v_agent.expires_at < coordinator.now_utc() + p_ttl then
    perform coordinator.agent_cover(p_agent, p_ttl);
  end if;
  perform coordinator.lock_enter(v_agent.project_id, v_all);
  if v_texts is distinct from coordinator.lock_texts(p_project, p_resources) then
    raise exception using errcode = 'ZC316', message = format('the rule for paths of project "%s" was changed a moment ago', p_project),
      hint = 'Try again.';
  end if;

  if p_request_id is not null then
    select w.ticket, array_agg(w.resource order by w.resource) into v_ticket, v_waited
    from coordinator.lock_waits w where w.agent_id = p_agent and w.request_id = p_request_id group by w.ticket, w.owner
    order by w.owner = p_owner desc limit 1;
    if found then
      if v_waited <> array(select r.resource from unnest(v_all) r)
         or not exists (select from coordinator.lock_waits w where w.ticket = v_ticket and w.owner = p_owner) then
        raise exception using errcode = 'ZC305', message = format('the request id %s belongs to a request for other resources or of another owner', p_request_id),
          hint = 'Use a new id for each request, and the same id only to repeat it.';
      end if;
      return query select * from coordinator.lock_poll(p_project, v_ticket, p_agent);
      return;
    end if;
  end if;

  -- Tickets before holders: see lock.sql.
  if exists (select from coordinator.lock_waits w where w.project_id = v_agent.project_id) then
    v_queue := exists (
      select from unnest(v_all) r
      where not exists (
              select from coordinator.locks l
              where l.project_id = v_agent.project_id and l.resource = r.resource and l.agent_id is not distinct from p_agent
                and l.owner = p_owner and l.expires_at > coordinator.now_utc() and (p_shared or l.mode = 'exclusive'))
        and (exists ( -- nearly always the only lookup, if anybody waits at all
              select from coordinator.lock_waits w
              where w.project_id = v_agent.project_id and w.resource = r.resource
                and not coordinator.lock_may_use(p_agent, p_owner, w.agent_id, w.owner) and (not p_shared or w.mode = 'exclusive'))
          or exists (
              select from coordinator.lock_overlapping(v_agent.project_id, r, true) w
              where not coordinator.lock_may_use(p_agent, p_owner, w.agent_id, w.owner) and (not p_shared or w.mode = 'exclusive'))));
  end if;

  loop
    v_now := coordinator.now_utc();
    v_own := '{}';
    v_expired := '{}';
    v_blocked := false;
    foreach v_r in array v_all loop
      v_taken := 0;
      v_own := v_own || false;
      for v_lock in select * from coordinator.lock_overlapping(v_agent.project_id, v_r, false) loop
        if v_lock.expires_at > v_now and coordinator.lock_may_use(p_agent, p_owner, v_lock.agent_id, v_lock.owner)
           and (v_lock.slots is null or v_lock.owner = p_owner) then
          if v_lock.resource = v_r.resource then
            v_own[cardinality(v_own)] := v_own[cardinality(v_own)] or v_lock.owner = p_owner;
            if v_lock.slots is distinct from p_slots then
              perform coordinator.lock_refuse_slots(v_lock.resource, v_lock.slots, p_slots);
            end if;
          end if;
        elsif p_shared and v_lock.mode = 'shared' then
          null;
        elsif v_lock.free_at <= v_now then
          v_expired := v_expired || v_lock;
        elsif v_lock.slots is distinct from p_slots and v_r.kind = 'name' then
          perform coordinator.lock_refuse_slots(v_lock.resource, v_lock.slots, p_slots);
        else
          v_taken := v_taken + 1;
        end if;
      end loop;
      v_blocked := v_blocked or v_taken >= coalesce(p_slots, 1) and not (p_slots is not null and v_own[cardinality(v_own)]);
    end loop;
    if v_blocked or v_queue then
      if v_blocked and p_wait is null then
        perform coordinator.lock_refuse(v_agent.project_id, p_agent, p_owner, null, v_all, v_mode, p_slots);
      end if;
      v_ticket := coordinator.lock_enqueue(v_agent.project_id, p_project, p_agent, v_agent.name, p_owner, v_all, v_mode, p_slots, p_ttl,
                                           p_wait, p_delay, p_request_id, p_within);
      return query select * from coordinator.lock_ticket(v_agent.project_id, v_ticket, p_agent);
      return;
    end if;
    v_again := false;
    foreach v_lock in array v_expired loop
      if not coordinator.lock_expire_one(v_lock.project_id, p_project, v_lock.resource, v_lock.slot, v_now) then
        v_again := true; -- renewed or deleted in the meantime
      end if;
    end loop;
    exit when not v_again;
  end loop;

  v_lock := null;
  v_lock.project_id := v_agent.project_id;
  v_lock.mode := v_mode;
  v_lock.slots := p_slots;
  v_lock.agent_id := p_agent;
  v_lock.agent_name := v_agent.name;
  v_lock.owner := p_owner;
  v_lock.fencing_token := coordinator.epoch_number('coordinator.lock_tokens');
  v_lock.ttl := p_ttl;
  v_lock.delay := p_delay;
  v_lock.request_id := p_request_id;
  v_lock.claimed := true;
  v_lock.acquired_at := v_now;
  v_lock.expires_at := v_now + p_ttl;
  v_lock.free_at := v_lock.expires_at + p_delay;
  for v_i in 1 .. cardinality(v_all) loop
    v_lock.resource := v_all[v_i].resource;
    v_lock.kind := v_all[v_i].kind;
    v_lock.prefix := case when v_lock.kind in ('directory', 'glob') then v_all[v_i].path end;
    v_lock.pattern := v_all[v_i].pattern;
    v_row := coordinator.lock_write(p_project, v_lock, v_own[v_i]);
    return next (v_row.resource, v_row.mode, case when v_row.slots is not null then v_row.slot::integer end, v_row.fencing_token,
                 v_row.acquired_at, v_row.expires_at, v_row.ticket, true)::coordinator.lock_grant;
  end loop;
end
$$;
comment on function coordinator.lock_acquire_any(text, text[], uuid, boolean, integer, interval, interval, interval, uuid, text, text[]) is
  'Do what lock_acquire does, for any resources, free or not. Internal.';

create or replace function coordinator.lock_acquire(
  p_project text, p_resources text[], p_agent uuid, p_shared boolean default false, p_slots integer default null,
  p_ttl interval default '30 seconds', p_wait interval default null, p_delay interval default '0', p_request_id uuid default null,
  p_owner text default '', p_within text[] default '{}')
returns setof coordinator.lock_grant
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
set plan_cache_mode = force_generic_plan -- the length of an array does not justify planning each call again
as $$
declare
  v_project    bigint;
  v_name       text;
  v_mode       text;
  v_token      bigint;
  v_now        timestamptz;
  v_expires_at timestamptz;
  v_places     text[];
begin
  -- The fast path; see the head of this file.
  if coordinator.lock_is_plain(p_resources[1]) and cardinality(p_resources) = 1 and p_slots is null and p_delay = interval '0'
     and p_ttl between interval '1 second' and interval '1 day' and coalesce(p_wait, p_ttl) between interval '0' and interval '1 day'
     and (p_owner = '' or p_owner ~ '^[A-Za-z0-9_.-]{1,200}$')
     and coordinator.roles_unbound() and current_setting('transaction_isolation') = 'read committed' then
    select a.project_id, a.name, a.expires_at into v_project, v_name, v_expires_at
    from coordinator.agents a where a.id = p_agent and a.project = p_project for key share;
    if found then
      if v_expires_at < coordinator.now_utc() + p_ttl then
        perform coordinator.agent_cover(p_agent, p_ttl);
      end if;
      v_places := coordinator.lock_enter_plain(v_project, p_resources[1]);
      v_mode := case when p_shared then 'shared' else 'exclusive' end;
      v_token := coordinator.epoch_number('coordinator.lock_tokens');
      v_now := coordinator.now_utc();
      v_expires_at := v_now + p_ttl;
      insert into coordinator.locks (project_id, resource, slot, kind, mode, agent_id, agent_name, fencing_token, ttl, delay, request_id,
                                     acquired_at, expires_at, free_at, owner)
      select v_project, p_resources[1], case when p_shared then - v_token else 0 end,
             case when p_resources[1] like 'name:%' then 'name' else 'path' end, v_mode, p_agent, v_name, v_token, p_ttl, p_delay,
             p_request_id, v_now, v_expires_at, v_expires_at, p_owner
      where (p_resources[1] = lower(p_resources[1]) or coordinator.paths_have_case())
        and not exists (select from coordinator.lock_waits w where w.project_id = v_project)
        and not exists (select from coordinator.locks l where l.project_id = v_project and l.resource = p_resources[1])
        and not exists (
          select from unnest(v_places) place -- offset 0: look up each place by index, without a hash join
          where exists (select from coordinator.locks l where l.project_id + 0 = v_project and l.prefix = substr(place, 2) offset 0));
      if found then
        insert into coordinator.events (type, project, key, actor, at, data)
        values ('lock.granted', p_project, p_resources[1], v_name, v_now,
                jsonb_build_object('agent_id', p_agent, 'owner', p_owner, 'mode', v_mode, 'slot', null, 'fencing_token', v_token, 'expires_at', v_expires_at,
                                   'ticket', null));
        return next (p_resources[1], v_mode, null::integer, v_token, v_now, v_expires_at, null::bigint, true)::coordinator.lock_grant;
        return;
      end if;
    end if;
  end if;
  return query select * from coordinator.lock_acquire_any(p_project, p_resources, p_agent, p_shared, p_slots, p_ttl, p_wait, p_delay, p_request_id,
                                                           p_owner, p_within);
end
$$;
comment on function coordinator.lock_acquire(text, text[], uuid, boolean, integer, interval, interval, interval, uuid, text, text[]) is
  'Acquire resources for an agent or, with p_owner, for one of its owners: all of them with one token, or none. p_shared: share them with other shared holders. p_slots: take one of this many slots of a name. p_wait: if they are not free, wait in the queue for at most this long (0: do not wait); the returned rows then have a ticket and granted false: call lock_poll. Without a wait, ZC310 names the agent in the way. ZC313: waiting would deadlock. Resources that the owner already holds are renewed; a named owner must release them as often as it acquired them. An owner (session/subagent) may use what its agent and the owners above it hold; other owners exclude each other. p_within: owners of the agent that release nothing until this call returns, so that a deadlock through them is detected. p_delay: nobody can acquire the resources for this long after the lock expires or is broken, or the agent ends. p_request_id: a repeated call with the same id returns the same result.';

create or replace function coordinator.lock_keep(p_project_id bigint, p_resource text, p_token bigint) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set lock_timeout = '10ms' -- for a row that one transaction has renewed and deleted: skip locked waits for it
as $$
begin
  perform from coordinator.locks l
  where l.project_id = p_project_id and l.resource = p_resource and l.fencing_token = p_token for key share skip locked;
  return found or p_token is null;
exception when lock_not_available then
  return false;
end
$$;
comment on function coordinator.lock_keep(bigint, text, bigint) is
  'Lock the row of a lock until the end of the transaction, so that a transaction that ends the lock finds its waiters. False: another transaction is ending it. A null token stands for a ticket, which has no row to lock. Internal.';

create or replace function coordinator.lock_try(
  p_project_id bigint, p_project text, p_texts text[], p_agent uuid, p_agent_name text, p_owner text, p_until timestamptz,
  out tokens jsonb, out busy boolean, out wanted text, out blocker text, out due_at timestamptz, out free text[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
set plan_cache_mode = force_generic_plan
as $$
declare
  v_texts constant text[] := coordinator.lock_texts(p_project, p_texts);
  v_all   constant coordinator.lock_resource[] := coordinator.lock_parse_all(v_texts);
  v_now   timestamptz;
  v_r     coordinator.lock_resource;
  v_held  record;
  v_token bigint; -- of the blocking lock; null: a ticket blocks it
  v_until timestamptz;
  v_lock  coordinator.locks;
begin
  busy := not coordinator.lock_enter_try(p_project_id, v_all) or v_texts is distinct from coordinator.lock_texts(p_project, p_texts);
  v_now := coordinator.now_utc();
  wanted := v_all[1].resource;
  blocker := wanted;
  due_at := v_now + interval '1 second';
  free := '{}';
  if busy then
    return;
  end if;
  foreach v_r in array v_all loop
    select b.* into v_held from coordinator.lock_blockers(p_project_id, p_agent, p_owner, null, v_r, 'exclusive', null) b
    order by b.ticket nulls first, b.expires_at desc limit 1;
    if not found then
      free := free || v_r.resource;
    elsif v_until is null then
      v_token := v_held.fencing_token;
      v_until := v_held.expires_at;
      wanted := v_r.resource;
      blocker := v_held.resource;
    end if;
  end loop;
  if v_until is not null then
    busy := not coordinator.lock_keep(p_project_id, blocker, v_token);
    due_at := v_now + case when busy then interval '1 second' else least(greatest(v_until - v_now, interval '1 second'), interval '30 seconds') end;
    return;
  end if;
  for v_held in
    select r.resource as wanted, h.resource, h.slot from unnest(v_all) r cross join lateral coordinator.lock_overlapping(p_project_id, r, false) h where h.free_at <= v_now
  loop
    perform from coordinator.locks l
    where l.project_id = p_project_id and l.resource = v_held.resource and l.slot = v_held.slot for update skip locked;
    if not found and exists (select from coordinator.locks l where l.project_id = p_project_id and l.resource = v_held.resource and l.slot = v_held.slot) then
      busy := true; -- a guarded transaction holds it
      wanted := v_held.wanted;
      blocker := v_held.resource;
      free := '{}';
      return;
    end if;
    perform coordinator.lock_expire_one(p_project_id, p_project, v_held.resource, v_held.slot, v_now);
  end loop;

  v_lock.project_id := p_project_id;
  v_lock.mode := 'exclusive';
  v_lock.agent_id := p_agent;
  v_lock.agent_name := p_agent_name;
  v_lock.owner := p_owner;
  v_lock.fencing_token := coordinator.epoch_number('coordinator.lock_tokens');
  v_lock.ttl := '0';
  v_lock.delay := '0';
  v_lock.requests := array['00000000-0000-0000-0000-000000000000'::uuid]; -- so that renewals only extend it
  v_lock.claimed := true;
  v_lock.acquired_at := v_now;
  v_lock.expires_at := p_until;
  v_lock.free_at := 'infinity';
  tokens := '{}';
  foreach v_r in array v_all loop
    v_lock.resource := v_r.resource;
    v_lock.kind := v_r.kind;
    v_lock.prefix := case when v_r.kind in ('directory', 'glob') then v_r.path end;
    v_lock.pattern := v_r.pattern;
    perform coordinator.lock_write(p_project, v_lock, false);
    tokens := tokens || jsonb_build_object(v_r.resource, v_lock.fencing_token);
  end loop;
end
$$;
comment on function coordinator.lock_try(bigint, text, text[], uuid, text, text, timestamptz) is
  'Acquire resources until their holder ends (p_until is only shown), all or none, without waiting. Return the tokens by resource. Otherwise, wanted is a resource that is not free, and blocker the resource that blocks it, whose row stays locked until the transaction ends. due_at: when to try again at the latest; busy: others are changing what it takes; free: the resources that nothing blocks. Internal.';
