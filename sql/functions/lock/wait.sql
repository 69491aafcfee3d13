-- Waiting for locks, as a waiter sees it: asking what became of a ticket, and cancelling it (see queue.sql).

create or replace function coordinator.lock_ticket(p_project_id bigint, p_ticket bigint, p_agent uuid)
returns setof coordinator.lock_grant
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return query
    select l.resource, l.mode, case when l.slots is not null then l.slot::integer end, l.fencing_token, l.acquired_at, l.expires_at, p_ticket, true
    from coordinator.locks l
    where l.ticket = p_ticket and l.project_id = p_project_id and l.agent_id = p_agent and l.expires_at > coordinator.now_utc()
    union all
    select w.resource, w.mode, null, null, null, w.expires_at, p_ticket, false
    from coordinator.lock_waits w
    where w.ticket = p_ticket and w.project_id = p_project_id and w.agent_id = p_agent and w.expires_at > coordinator.now_utc()
    order by 1;
end
$$;
comment on function coordinator.lock_ticket(bigint, bigint, uuid) is
  'Return what a ticket waits for, or the locks that it became. Internal.';

create or replace function coordinator.lock_poll(p_project text, p_ticket bigint, p_agent uuid)
returns setof coordinator.lock_grant
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
begin
  if exists (select from coordinator.lock_waits w where w.ticket = p_ticket and w.agent_id = p_agent and w.project_id = v_project
               and w.expires_at > v_now)
     and not exists (
       select from coordinator.lock_waits w, lateral coordinator.lock_blockers(
         w.project_id, w.agent_id, w.ticket, coordinator.lock_parse(w.resource), w.mode, w.slots) b where w.ticket = p_ticket) then
    perform coordinator.lock_queue_enter(v_project);
    perform coordinator.lock_ticket_grant(v_project, p_project, p_ticket, true);
  end if;
  update coordinator.locks l
  set claimed = true, expires_at = v_now + l.ttl, free_at = v_now + l.ttl + l.delay
  where l.ticket = p_ticket and l.project_id = v_project and l.agent_id = p_agent and not l.claimed and l.expires_at > v_now;
  return query select * from coordinator.lock_ticket(v_project, p_ticket, p_agent);
  if not found then
    perform from coordinator.lock_waits w where w.ticket = p_ticket and w.agent_id = p_agent and w.project_id = v_project;
    if found then
      raise exception using errcode = 'ZC401', message = 'the locks were not free in time', hint = 'Acquire them again, with a longer wait.';
    end if;
    raise exception using errcode = 'ZC208', message = format('ticket %s is not waiting, and no lock that it became is left', p_ticket),
      hint = 'It timed out, was cancelled, lost its agent, or its lock was not claimed within 10 seconds; acquire again.';
  end if;
end
$$;
comment on function coordinator.lock_poll(text, bigint, uuid) is
  'Ask what became of a ticket: granted true with the locks, whose TTL begins now, or granted false while it waits. A repetition returns the same. ZC401: it timed out. ZC208: it is gone.';

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
    perform coordinator.outbox_append('lock.released', p_project, v_lock.resource, v_lock.agent_name, coordinator.now_utc(),
      jsonb_build_object('agent_id', p_agent, 'fencing_token', v_lock.fencing_token));
  end loop;
  perform coordinator.lock_hand_off(v_project, p_project, v_freed);
  return cardinality(v_freed) > 0;
end
$$;
comment on function coordinator.lock_cancel(text, bigint, uuid) is
  'Stop waiting: remove a ticket from the queue, or release the locks that it was just handed and that nobody claimed yet. False: there are neither.';
