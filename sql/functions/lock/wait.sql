-- Waiting for locks from the waiter's point of view: polling a ticket, and cancelling it (see queue.sql).

create or replace function coordinator.lock_ticket(p_project_id bigint, p_ticket bigint, p_agent uuid)
returns setof coordinator.lock_grant
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return query
    select l.resource, l.mode, case when l.claimed and l.slots is not null then l.slot::integer end, case when l.claimed then l.fencing_token end,
           case when l.claimed then l.acquired_at end, l.expires_at, p_ticket, l.claimed
    from coordinator.locks l
    where l.ticket = p_ticket and l.project_id = p_project_id and l.agent_id = p_agent and l.expires_at > coordinator.now_utc()
    union all
    select w.resource, w.mode, null, null, null, w.expires_at, p_ticket, false
    from coordinator.lock_waits w
    where w.ticket = p_ticket and w.project_id = p_project_id and w.agent_id = p_agent
    order by 1;
end
$$;
comment on function coordinator.lock_ticket(bigint, bigint, uuid) is
  'Return what a ticket waits for, or the locks that it turned into; granted is false until they are claimed. Internal.';

create or replace function coordinator.lock_claim(p_project_id bigint, p_ticket bigint, p_agent uuid) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_now   timestamptz;
  v_count integer;
begin
  -- Do not wait for rows: a transaction that changes one may wait for the queue, which this transaction may hold. The time is read
  -- afterwards: if another transaction has deleted one of the ticket's locks because it expired, all of them have expired by then.
  perform from coordinator.locks l
  where l.ticket = p_ticket and l.project_id = p_project_id and l.agent_id = p_agent and not l.claimed
  for no key update skip locked;
  get diagnostics v_count = row_count;
  v_now := coordinator.now_utc();
  update coordinator.locks l
  set claimed = true, expires_at = v_now + l.ttl, free_at = v_now + l.ttl + l.delay
  where v_count > 0 and l.ticket = p_ticket and l.project_id = p_project_id and l.agent_id = p_agent and not l.claimed and l.expires_at > v_now
    and v_count = (select count(*) from coordinator.locks o where o.ticket = p_ticket and o.agent_id = p_agent and not o.claimed);
end
$$;
comment on function coordinator.lock_claim(bigint, bigint, uuid) is
  'Start the TTL of the locks that a ticket became. If another transaction is changing one of them, do nothing: the next poll does. No event. Internal.';

create or replace function coordinator.lock_poll(p_project text, p_ticket bigint, p_agent uuid)
returns setof coordinator.lock_grant
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off -- before PostgreSQL 18, a table or sequence without an index looks expensive enough for JIT
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_expires timestamptz;
  v_ttl     interval;
  v_way     record;
begin
  -- Without the queue lock, only one thing is certain: a ticket whose time has not passed still waits. A transaction that is still open
  -- may have granted it the locks.
  select max(w.expires_at), max(w.ttl) into v_expires, v_ttl from coordinator.lock_waits w
  where w.ticket = p_ticket and w.agent_id = p_agent and w.project_id = v_project;
  if v_expires is null then
    select max(l.ttl) into v_ttl from coordinator.locks l where l.agent_id = p_agent and l.ticket = p_ticket and not l.claimed;
  end if;
  if v_ttl is not null then
    perform coordinator.agent_cover(p_agent, v_ttl);
  end if;
  if v_expires <= coordinator.now_utc() or v_expires is not null and not exists (
       select from coordinator.lock_waits w, lateral coordinator.lock_blockers(
         w.project_id, w.agent_id, w.owner, w.ticket, coordinator.lock_parse(w.resource), w.mode, w.slots) b where w.ticket = p_ticket) then
    if coordinator.lock_queue_try(v_project) and not coordinator.lock_ticket_grant(v_project, p_project, p_ticket, true) then
      -- A separate statement, so that its snapshot is taken after the queue lock. Later holders of that lock also find that the time
      -- has passed, and grant nothing.
      select b.* into v_way
      from (select w.agent_id, w.owner, w.mode, w.slots, array_agg(coordinator.lock_parse(w.resource)) as resources from coordinator.lock_waits w
            where w.ticket = p_ticket and w.expires_at <= coordinator.now_utc() group by 1, 2, 3, 4) w,
           coordinator.lock_in_the_way(v_project, w.agent_id, w.owner, p_ticket, w.resources, w.mode, w.slots) b;
      if found then
        raise exception using errcode = 'ZC401', message = 'the locks were not free in time: ' || v_way.message,
          detail = coalesce(v_way.detail, ''), hint = 'Acquire them again, with a longer wait.';
      end if;
    end if;
  end if;
  perform coordinator.lock_claim(v_project, p_ticket, p_agent);
  return query select * from coordinator.lock_ticket(v_project, p_ticket, p_agent);
  if not found then
    perform coordinator.agent_check(p_agent, p_project);
    if p_ticket > (select case when is_called then last_value else 0 end from coordinator.lock_tickets) or p_ticket < 1 then
      raise exception using errcode = 'ZC208', message = format('there is no ticket %s', p_ticket), hint = 'Give the ticket that lock_acquire returned.';
    end if;
    raise exception using errcode = 'ZC401', message = format('ticket %s no longer waits, and its locks are gone', p_ticket),
      hint = 'It timed out, was cancelled, or its lock was not claimed within 10 seconds. Acquire the locks again.';
  end if;
end
$$;
comment on function coordinator.lock_poll(text, bigint, uuid) is
  'Poll a ticket: granted is true with the locks, whose TTL begins now, or false while the ticket waits. Repeating the call returns the same result. ZC401: the ticket has ended and will not be granted; the error names who was in the way, unless the ticket was already swept. ZC208: there never was such a ticket. While a transaction that changes the queue is open, the ticket is reported as waiting, even after its time has passed.';

create or replace function coordinator.lock_cancel(p_project text, p_ticket bigint, p_agent uuid) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_lock    record;
  v_freed   coordinator.lock_resource[] := '{}';
  v_waited  boolean;
begin
  perform coordinator.lock_queue_enter(v_project);
  v_waited := exists (select from coordinator.lock_waits w where w.ticket = p_ticket and w.agent_id = p_agent and w.project_id = v_project);
  if v_waited then
    perform coordinator.lock_ticket_drop(v_project, p_project, array[p_ticket]);
    return true;
  end if;
  for v_lock in
    delete from coordinator.locks l
    where l.ticket = p_ticket and l.project_id = v_project and l.agent_id = p_agent and not l.claimed returning *
  loop
    v_freed := v_freed || coordinator.lock_parse(v_lock.resource);
    perform coordinator.event_append('lock.released', p_project, v_lock.resource, v_lock.agent_name, coordinator.now_utc(),
      jsonb_build_object('agent_id', p_agent, 'owner', v_lock.owner, 'fencing_token', v_lock.fencing_token));
  end loop;
  perform coordinator.lock_hand_off(v_project, p_project, v_freed);
  return cardinality(v_freed) > 0;
end
$$;
comment on function coordinator.lock_cancel(text, bigint, uuid) is
  'Stop waiting: remove a ticket from the queue, or release the locks that were handed to it and not yet claimed. Return false if there is neither.';

create or replace function coordinator.lock_ticket_extend(p_project_id bigint, p_agent uuid, p_owner text, p_request_id uuid, p_wait interval)
returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_until timestamptz := coordinator.now_utc() + p_wait;
begin
  -- A transaction that has locked one of the rows serves or drops the ticket, so do not wait for it. A ticket whose time has passed
  -- keeps its place until it is dropped. Only a few of many repetitions need to write.
  update coordinator.lock_waits w set expires_at = v_until
  from (select o.project_id, o.resource, o.ticket from coordinator.lock_waits o
        where o.agent_id = p_agent and o.request_id = p_request_id and o.owner = p_owner and o.project_id = p_project_id
          and o.expires_at < v_until - 0.3 * p_wait
        for no key update skip locked) own
  where w.project_id = own.project_id and w.resource = own.resource and w.ticket = own.ticket;
end
$$;
comment on function coordinator.lock_ticket_extend(bigint, uuid, text, uuid, interval) is
  'Let the ticket of a request wait until p_wait from now, unless it waits longer. No event. Internal.';
