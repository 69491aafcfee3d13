-- Locks that end without a release by their holder: they expire, or their agent or job attempt ends (job/lock.sql).

create or replace function coordinator.lock_end(
  p_project text, p_locks coordinator.locks[], p_actor text, p_now timestamptz, p_delete boolean, p_wait boolean) returns coordinator.lock_resource[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_lock  coordinator.locks;
  v_freed coordinator.lock_resource[] := '{}';
begin
  foreach v_lock in array coalesce(p_locks, '{}') loop
    -- A guarded transaction may stay open for a long time, so do not wait for it. The lock ends; its row stays.
    perform from coordinator.locks
    where project_id = v_lock.project_id and resource = v_lock.resource and slot = v_lock.slot and p_delete and delay = '0' for update skip locked;
    if found then
      delete from coordinator.locks where project_id = v_lock.project_id and resource = v_lock.resource and slot = v_lock.slot;
      v_freed := v_freed || coordinator.lock_parse(v_lock.resource);
    else
      if not p_wait then
        perform from coordinator.locks
        where project_id = v_lock.project_id and resource = v_lock.resource and slot = v_lock.slot for no key update skip locked;
        continue when not found; -- lock_expire handles it later
      end if;
      update coordinator.locks
      set expires_at = least(expires_at, p_now), free_at = least(expires_at, p_now) + delay, ended_at = p_now, claimed = true
      where project_id = v_lock.project_id and resource = v_lock.resource and slot = v_lock.slot;
    end if;
    perform coordinator.event_append('lock.ended', p_project, v_lock.resource, p_actor, p_now,
      jsonb_build_object('agent_id', v_lock.agent_id, 'agent', v_lock.agent_name, 'owner', v_lock.owner, 'fencing_token', v_lock.fencing_token));
  end loop;
  return v_freed;
end
$$;
comment on function coordinator.lock_end(text, coordinator.locks[], text, timestamptz, boolean, boolean) is
  'End locks without a release by their holder, and return the resources that are free now. Other locks stay because of their delay, an open guarded transaction, or p_delete false; lock_expire hands them on. p_wait: wait for transactions that are changing one of them. Internal.';

create or replace function coordinator.lock_orphans(p_limit integer, p_except bigint[] default '{}', p_project_id bigint default null) returns setof coordinator.locks
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return query
    select l.* from coordinator.locks l
    where l.free_at = 'infinity' and l.project_id <> all (p_except) and (p_project_id is null or l.project_id = p_project_id) and not exists (
      select from coordinator.jobs_running r
      where r.id = split_part(l.owner, '/', 2)::uuid and r.fence = split_part(l.owner, '/', 3)::bigint) limit p_limit;
end
$$;
comment on function coordinator.lock_orphans(integer, bigint[], bigint) is
  'Return locks of ended attempts that other transactions were changing when the attempts ended, of all projects except some, or of one. Internal.';

create or replace function coordinator.lock_expire(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return cardinality(coordinator.project_each('lock_expire', p_limit, $due$
    (select l.project_id, l.resource from coordinator.locks l where l.free_at <= $1 and l.project_id <> all ($2) order by l.free_at limit $3)
    union all
    (select w.project_id, w.resource from coordinator.lock_waits w
     where w.expires_at <= $1 and w.project_id <> all ($2) order by w.expires_at limit $3)
    union all
    (select o.project_id, o.resource from coordinator.lock_orphans($3, $2) o)
  $due$));
end
$$;
comment on function coordinator.lock_expire(integer) is
  'Delete up to p_limit expired locks, locks of ended job attempts, and expired tickets, and serve waiters. Return how many were deleted. Repeat until 0. A lock is free at its expiry even without this call.';

create or replace function coordinator.lock_expire_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_now     timestamptz := coordinator.now_utc();
  v_project text := (select p.name from coordinator.projects p where p.id = p_project_id);
  v_row     record;
  v_freed   coordinator.lock_resource[];
  v_done    text[];
begin
  if v_project is null then
    delete from coordinator.lock_waits where project_id = p_project_id;
    delete from coordinator.locks where project_id = p_project_id;
    return '{}';
  end if;
  v_freed := coordinator.lock_end(v_project, array(select o from coordinator.lock_orphans(p_limit, '{}', p_project_id) o),
                                  'coordinator', v_now, true, false);
  for v_row in
    select resource, slot from coordinator.locks
    where project_id = p_project_id and free_at <= v_now order by free_at limit p_limit for update skip locked
  loop
    if coordinator.lock_expire_one(p_project_id, v_project, v_row.resource, v_row.slot, v_now) then
      v_freed := v_freed || coordinator.lock_parse(v_row.resource);
    end if;
  end loop;
  v_done := array(select f.resource from unnest(v_freed) f);
  if exists (select from coordinator.lock_waits w where w.project_id = p_project_id) or v_freed <> '{}' then
    perform coordinator.lock_queue_enter(p_project_id);
    perform coordinator.lock_hand_off(p_project_id, v_project, v_freed);
    for v_row in
      select array_agg(distinct ticket) as tickets from coordinator.lock_waits
      where project_id = p_project_id and expires_at <= v_now having count(*) > 0
    loop
      perform coordinator.lock_ticket_drop(p_project_id, v_project, v_row.tickets);
      v_done := v_done || v_row.tickets::text[];
    end loop;
  end if;
  return v_done;
end
$$;
comment on function coordinator.lock_expire_in(bigint, text[], integer) is
  'Do the work of lock_expire in a project: see project_each. Internal.';

create or replace function coordinator.lock_pass(
  p_project text, p_agent uuid, p_actor text, p_owner text, p_resources text[], p_heir text) returns coordinator.lock_resource[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_lock   coordinator.locks;
  v_token  bigint;
  v_passed coordinator.lock_resource[] := '{}';
begin
  for v_lock in
    select l.* from coordinator.locks l
    where l.agent_id = p_agent and l.ended_at is null and isfinite(l.free_at) and (p_owner in ('', l.owner) or starts_with(l.owner, p_owner || '/'))
      and (p_resources is null or l.resource = any (p_resources))
    order by l.resource, l.slot for no key update
  loop
    continue when v_lock.owner = p_heir or v_lock.kind = 'name' or v_lock.mode <> 'exclusive' or not v_lock.claimed or v_lock.expires_at <= v_now
      or exists (select from coordinator.locks h
                 where h.project_id = v_lock.project_id and h.resource = v_lock.resource and h.agent_id = p_agent and h.owner = p_heir
                   and h.ended_at is null and h.mode = 'exclusive');
    perform coordinator.lock_end(
      p_project,
      array(select h from coordinator.locks h
            where h.project_id = v_lock.project_id and h.resource = v_lock.resource and h.agent_id = p_agent and h.owner = p_heir and h.ended_at is null),
      p_actor, v_now, true, true);
    v_token := coordinator.epoch_number('coordinator.lock_tokens');
    update coordinator.locks set owner = p_heir, fencing_token = v_token, request_id = null, requests = null
    where project_id = v_lock.project_id and resource = v_lock.resource and slot = v_lock.slot;
    perform coordinator.event_append('lock.ended', p_project, v_lock.resource, p_actor, v_now,
      jsonb_build_object('agent_id', p_agent, 'agent', v_lock.agent_name, 'owner', v_lock.owner, 'fencing_token', v_lock.fencing_token));
    perform coordinator.event_append('lock.granted', p_project, v_lock.resource, p_actor, v_now,
      jsonb_build_object('agent_id', p_agent, 'owner', p_heir, 'mode', v_lock.mode, 'slot', null, 'fencing_token', v_token,
                         'expires_at', v_lock.expires_at, 'ticket', null));
    v_passed := v_passed || coordinator.lock_parse(v_lock.resource);
  end loop;
  return v_passed;
end
$$;
comment on function coordinator.lock_pass(text, uuid, text, text, text[], text) is
  'Pass the exclusive locks on files of an owner and the owners below it to the owner p_heir above them, with new tokens, unless p_heir has its own. Return their resources: what waits for them may use them now. The caller has locked the row of the agent. Internal.';

create or replace function coordinator.lock_end_agent(
  p_project_id bigint, p_project text, p_agent uuid, p_actor text, p_owner text default '', p_resources text[] default null,
  p_heir text default null) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_locks   coordinator.locks[];
  v_freed   coordinator.lock_resource[];
  v_passed  coordinator.lock_resource[] := '{}';
  v_tickets bigint[];
begin
  if p_heir is not null then
    v_passed := coordinator.lock_pass(p_project, p_agent, p_actor, p_owner, p_resources, p_heir);
  end if;
  -- Locks of running attempts end with the attempts.
  v_locks := array(select l from coordinator.locks l where l.agent_id = p_agent and l.ended_at is null and isfinite(l.free_at)
                     and (p_owner in ('', l.owner) or starts_with(l.owner, p_owner || '/')) and (p_resources is null or l.resource = any (p_resources))
                     and (p_heir is null or l.owner <> p_heir or l.kind = 'name' or l.mode <> 'exclusive')
                   order by l.resource, l.slot);
  v_freed := coordinator.lock_end(p_project, v_locks, p_actor, coordinator.now_utc(), true, true);
  select array_agg(distinct w.ticket) into v_tickets from coordinator.lock_waits w
  where w.agent_id = p_agent and (p_owner in ('', w.owner) or starts_with(w.owner, p_owner || '/')) and (p_resources is null or w.resource = any (p_resources));
  if v_locks <> '{}' or v_passed <> '{}' or v_tickets is not null then
    perform coordinator.lock_queue_enter(p_project_id);
    perform coordinator.lock_ticket_drop(p_project_id, p_project, coalesce(v_tickets, '{}'));
    perform coordinator.lock_hand_off(p_project_id, p_project, v_freed || v_passed);
  end if;
  return cardinality(v_locks);
end
$$;
comment on function coordinator.lock_end_agent(bigint, text, uuid, text, text, text[], text) is
  'Release what an agent holds, or what one of its owners and the owners below it hold; with p_resources, only these; with p_heir, only what this owner does not keep (lock_pass). Remove their tickets. Return the number of locks. The caller has deleted the agent, or has locked its row. Internal.';
