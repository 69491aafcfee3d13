-- Locks that end without their holder: they expire, or their agent ends.

create or replace function coordinator.lock_expire(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_now     timestamptz := coordinator.now_utc();
  v_project record;
  v_row     record;
  v_freed   coordinator.lock_resource[];
  v_count   integer := 0;
begin
  perform coordinator.check_page(p_limit);
  -- Queues in the order of their projects, as agent_reap locks them.
  for v_project in
    select d.project_id, p.name from (
      (select project_id from coordinator.locks where free_at <= v_now order by free_at limit p_limit)
      union
      (select project_id from coordinator.lock_waits where expires_at <= v_now order by expires_at limit p_limit)) d
    left join coordinator.projects p on p.id = d.project_id order by d.project_id
  loop
    v_freed := '{}';
    if v_project.name is null then
      delete from coordinator.lock_waits where project_id = v_project.project_id;
      delete from coordinator.locks where project_id = v_project.project_id;
      continue;
    end if;
    for v_row in
      select resource, slot from coordinator.locks
      where project_id = v_project.project_id and free_at <= v_now order by free_at limit p_limit for update skip locked
    loop
      if coordinator.lock_expire_one(v_project.project_id, v_project.name, v_row.resource, v_row.slot, v_now) then
        v_freed := v_freed || coordinator.lock_parse(v_row.resource);
      end if;
    end loop;
    v_count := v_count + cardinality(v_freed);
    if exists (select from coordinator.lock_waits w where w.project_id = v_project.project_id) or v_freed <> '{}' then
      perform coordinator.lock_queue_enter(v_project.project_id);
      perform coordinator.lock_hand_off(v_project.project_id, v_project.name, v_freed);
      for v_row in
        select array_agg(distinct ticket) as tickets from coordinator.lock_waits
        where project_id = v_project.project_id and expires_at <= v_now having count(*) > 0
      loop
        perform coordinator.lock_ticket_drop(v_project.project_id, v_project.name, v_row.tickets);
        v_count := v_count + cardinality(v_row.tickets);
      end loop;
    end if;
  end loop;
  return v_count;
end
$$;
comment on function coordinator.lock_expire(integer) is
  'Delete up to p_limit expired locks and the expired tickets, and serve waiters; returns how many. Repeat until 0. A lock is free at its expiry even without this.';

create or replace function coordinator.lock_end_agent(p_project_id bigint, p_project text, p_agent uuid, p_actor text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_now     timestamptz := coordinator.now_utc();
  v_lock    record;
  v_freed   coordinator.lock_resource[] := '{}';
  v_tickets bigint[];
  v_held    boolean := false;
begin
  for v_lock in
    select * from coordinator.locks where agent_id = p_agent and ended_at is null order by resource, slot
  loop
    v_held := true;
    -- A guarded transaction may stay open for long, so do not wait for it. The lock ends; its row stays.
    perform from coordinator.locks
    where project_id = v_lock.project_id and resource = v_lock.resource and slot = v_lock.slot and delay = '0' for update skip locked;
    if found then
      delete from coordinator.locks where project_id = v_lock.project_id and resource = v_lock.resource and slot = v_lock.slot;
      v_freed := v_freed || coordinator.lock_parse(v_lock.resource);
    else
      update coordinator.locks
      set expires_at = least(expires_at, v_now), free_at = least(expires_at, v_now) + delay, ended_at = v_now, claimed = true
      where project_id = v_lock.project_id and resource = v_lock.resource and slot = v_lock.slot;
    end if;
    perform coordinator.event_append('lock.ended', p_project, v_lock.resource, p_actor, v_now,
      jsonb_build_object('agent_id', p_agent, 'agent', v_lock.agent_name, 'owner', v_lock.owner, 'fencing_token', v_lock.fencing_token));
  end loop;
  select array_agg(distinct ticket) into v_tickets from coordinator.lock_waits where agent_id = p_agent;
  if v_held or v_tickets is not null then
    perform coordinator.lock_queue_enter(p_project_id);
    perform coordinator.lock_ticket_drop(p_project_id, p_project, coalesce(v_tickets, '{}'));
    perform coordinator.lock_hand_off(p_project_id, p_project, v_freed);
  end if;
end
$$;
comment on function coordinator.lock_end_agent(bigint, text, uuid, text) is
  'Release what an agent holds and remove its tickets. Called by agent_end, which deleted the agent. Internal.';
