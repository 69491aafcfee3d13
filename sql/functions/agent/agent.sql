-- Agents: one row per incarnation. Everything that an agent holds ends with it (agent_end), however it ends.

insert into coordinator.event_types (type, key, data, meaning) values
  ('agent.registered',   'id of the agent', '{name,role,job_types,labels,metadata,ttl_s}', 'An agent started.'),
  ('agent.deregistered', 'id of the agent', '{name,role}',                          'An agent ended and released what it held.'),
  ('agent.reaped',       'id of the agent', '{name,role,reason}',                   'An agent was reaped and lost what it held; reason: "expired" (no heartbeat) or "process died".');

insert into coordinator.rights (function, role) values
  ('agent_find',       'reader'),
  ('agent_list',       'reader'),
  ('agent_project',    'reader'),
  ('agent_deregister', 'agent'),
  ('agent_heartbeat',  'agent'),
  ('agent_join',       'agent'),
  ('agent_register',   'agent');

insert into coordinator.limits (name, value, unit, meaning) values
  ('agent_ttl_max', 86400, 'seconds', 'Longest TTL of an agent: one day.');

create or replace view coordinator.agents_live with (security_barrier) as
  select a.id, a.project, a.name, a.role, a.job_types, a.labels, a.metadata, a.ttl, a.registered_at, a.heartbeat_at, a.expires_at, a.process_id
  from coordinator.agents a
  where coalesce(a.project = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.agents_live               is 'Registered agents.';
comment on column coordinator.agents_live.id            is 'Id of this incarnation: new at each start of the agent.';
comment on column coordinator.agents_live.project       is 'Name of the project.';
comment on column coordinator.agents_live.name          is 'Name to which directives are addressed.';
comment on column coordinator.agents_live.role          is 'Role to which directives are addressed.';
comment on column coordinator.agents_live.job_types     is 'Job types that it accepts.';
comment on column coordinator.agents_live.labels        is 'Labels that jobs can require of their worker.';
comment on column coordinator.agents_live.metadata      is 'JSON object chosen by the agent.';
comment on column coordinator.agents_live.ttl           is 'Longest time without a heartbeat; longer while it holds locks with a longer TTL.';
comment on column coordinator.agents_live.registered_at is 'When it registered.';
comment on column coordinator.agents_live.heartbeat_at  is 'When it last sent a heartbeat.';
comment on column coordinator.agents_live.expires_at    is 'When it is reaped without another heartbeat.';
comment on column coordinator.agents_live.process_id    is 'Process whose death ends the agent; see processes.';

create or replace view coordinator.agents_known with (security_barrier) as
  select a.id, a.project, a.name, a.role, a.job_types, a.labels, a.metadata, a.ttl, a.registered_at, a.heartbeat_at, a.expires_at,
         null::timestamptz as ended_at, null::text as end_reason, a.process_id
  from coordinator.agents_live a
  union all
  select e.id, p.name, e.name, e.role, e.job_types, e.labels, e.metadata, e.ttl, e.registered_at, e.heartbeat_at, e.expires_at,
         e.ended_at, e.end_reason, e.process_id
  from coordinator.agents_ended e join coordinator.projects p on p.id = e.project_id
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.agents_known               is 'Registered agents, and agents that ended in the last 30 days.';
comment on column coordinator.agents_known.id            is 'Id of this incarnation: new at each start of the agent.';
comment on column coordinator.agents_known.project       is 'Name of the project.';
comment on column coordinator.agents_known.name          is 'Name to which directives are addressed.';
comment on column coordinator.agents_known.role          is 'Role to which directives are addressed.';
comment on column coordinator.agents_known.job_types     is 'Job types that it accepts.';
comment on column coordinator.agents_known.labels        is 'Labels that jobs can require of their worker.';
comment on column coordinator.agents_known.metadata      is 'JSON object chosen by the agent.';
comment on column coordinator.agents_known.ttl           is 'Longest time without a heartbeat.';
comment on column coordinator.agents_known.registered_at is 'When it registered.';
comment on column coordinator.agents_known.heartbeat_at  is 'When it last sent a heartbeat.';
comment on column coordinator.agents_known.expires_at    is 'When it is reaped without another heartbeat.';
comment on column coordinator.agents_known.ended_at      is 'When it ended; null: it is registered.';
comment on column coordinator.agents_known.end_reason    is 'deregistered, expired (no heartbeat) or process died; null: it is registered.';
comment on column coordinator.agents_known.process_id    is 'Process whose death ends the agent; see processes.';

create or replace function coordinator.agent_register(
  p_project text, p_name text, p_role text default null, p_job_types text[] default '{}', p_metadata jsonb default '{}',
  p_ttl interval default '30 seconds', p_process integer default null, p_unreserved boolean default false, p_labels text[] default '{}')
returns setof coordinator.agents_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_id      uuid;
begin
  perform coordinator.check_name('the name of the agent', p_name);
  perform coordinator.agent_name_enter(p_project, p_name, p_unreserved);
  if p_role is not null then
    perform coordinator.check_name('the role', p_role);
  end if;
  perform coordinator.check_list('the job types', p_job_types);
  perform coordinator.check_list('the labels', p_labels);
  perform coordinator.check_json('the metadata', p_metadata, p_object => true);
  perform coordinator.check_ttl(p_ttl, 86400);
  if p_process is not null then
    perform from coordinator.processes where id = p_process for share;
    if not found then
      raise exception using errcode = 'ZC202', message = format('there is no process %s', p_process),
        hint = 'It was reaped; register the process again first.';
    end if;
  end if;
  perform coordinator.project_hold(v_project);
  insert into coordinator.agents (project_id, project, name, role, job_types, labels, metadata, process_id, ttl, registered_at, heartbeat_at, expires_at)
  values (v_project, p_project, p_name, p_role, coalesce(p_job_types, '{}'), coalesce(p_labels, '{}'), p_metadata, p_process, p_ttl, v_now, v_now, v_now + p_ttl)
  returning agents.id into v_id;
  perform coordinator.event_append('agent.registered', p_project, v_id::text, p_name, v_now,
    jsonb_build_object('name', p_name, 'role', p_role, 'job_types', coalesce(p_job_types, '{}'), 'labels', coalesce(p_labels, '{}'),
                       'metadata', p_metadata, 'ttl_s', extract(epoch from p_ttl)));
  return query select * from coordinator.agents_live a where a.id = v_id;
end
$$;
comment on function coordinator.agent_register(text, text, text, text[], jsonb, interval, integer, boolean, text[]) is
  'Register an agent when it starts, and return it with an id that is new at each start. The agent is reaped after p_ttl (1 second to 1 day) without a heartbeat, or when p_process dies. It gets jobs whose type is one of p_job_types and whose labels are all in p_labels. p_unreserved: refuse the name of a token, or of a database role with more rights (42501), as if the caller''s role had only the rights of an agent.';

create or replace function coordinator.agent_enter(
  p_project_id bigint, p_project text, p_name text, p_role text, p_metadata jsonb, p_ttl interval, p_unreserved boolean, p_process integer)
returns coordinator.agents
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_agent   coordinator.agents;
  v_process integer;
  v_id      uuid;
begin
  perform coordinator.check_name('the name of the agent', p_name);
  perform coordinator.check_ttl(p_ttl, 86400);
  if p_metadata is not null then
    perform coordinator.check_json('the metadata', p_metadata, p_object => true);
  end if;
  if p_process is not null then
    v_process := (select p.id from coordinator.processes p where p.id = p_process and p.missing_at is null);
  end if;
  perform coordinator.agent_name_enter(p_project, p_name, p_unreserved);
  for v_try in 1 .. 2 loop
    select a.* into v_agent from coordinator.agents a where a.id = coordinator.agent_joined(p_project_id, p_name);
    if found then
      -- If a program calls this many times a minute, only a few calls need to write.
      if v_agent.expires_at < coordinator.now_utc() + 0.95 * greatest(p_ttl, v_agent.ttl) or p_ttl > v_agent.ttl
         or p_role is distinct from coalesce(v_agent.role, p_role) or not v_agent.metadata @> coalesce(p_metadata, '{}')
         or v_process <> coalesce(v_agent.process_id, 0) then
        if p_metadata is not null then
          perform coordinator.check_json('the metadata', v_agent.metadata || p_metadata, p_object => true);
        end if;
        update coordinator.agents a
        set ttl = greatest(p_ttl, a.ttl), heartbeat_at = coordinator.now_utc(), expires_at = greatest(a.expires_at, coordinator.now_utc() + greatest(p_ttl, a.ttl)),
            role = coalesce(p_role, a.role), metadata = a.metadata || coalesce(p_metadata, '{}'), process_id = coalesce(v_process, a.process_id)
        where a.id = v_agent.id returning a.* into v_agent;
        continue when not found; -- the agent has just ended
      end if;
      perform coordinator.lock_renew_agent(v_agent.id);
      return v_agent;
    end if;
    exit when v_try = 2;
    if coordinator.is_agent_id(p_name) then
      perform coordinator.agent_missing(p_project, p_name::uuid);
    end if;
    perform coordinator.name_enter(p_name); -- programs that join under one name at the same time become one agent
  end loop;
  select r.id into v_id
  from coordinator.agent_register(p_project, p_name, p_role, p_metadata => coalesce(p_metadata, '{}'), p_ttl => p_ttl, p_process => v_process,
                                  p_unreserved => p_unreserved) r;
  select a.* into v_agent from coordinator.agents a where a.id = v_id;
  return v_agent;
end
$$;
comment on function coordinator.agent_enter(bigint, text, text, text, jsonb, interval, boolean, integer) is
  'Do what agent_join does, in a project that the caller may use, and return the row of the agent. Internal.';

create or replace function coordinator.agent_join(
  p_project text, p_name text, p_role text default null, p_metadata jsonb default null, p_ttl interval default '10 minutes',
  p_unreserved boolean default false, p_process integer default null)
returns setof coordinator.agents_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  a coordinator.agents := coordinator.agent_enter(coordinator.project_id(p_project), p_project, p_name, p_role, p_metadata, p_ttl, p_unreserved, p_process);
begin
  -- Without a query of the view, which would check again whether the caller may use the project.
  return next (a.id, a.project, a.name, a.role, a.job_types, a.labels, a.metadata, a.ttl, a.registered_at, a.heartbeat_at, a.expires_at,
               a.process_id)::coordinator.agents_live;
end
$$;
comment on function coordinator.agent_join(text, text, text, jsonb, interval, boolean, integer) is
  'Return the registered agent with this name, or register it. For programs that come and go under one name, such as the sessions of a tool. A call counts as a heartbeat and renews all leases of the agent; it writes only when part of the TTL has passed. p_metadata is merged into the agent''s metadata. p_process: the agent is reaped when this process dies, or the one that a later call names; a dead process is ignored. If several agents have the name, the call returns the one that registered first.';

create or replace function coordinator.agent_heartbeat(p_agent uuid, p_project text default null) returns timestamptz
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now        timestamptz := coordinator.now_utc();
  v_expires_at timestamptz;
begin
  update coordinator.agents set heartbeat_at = v_now, expires_at = greatest(expires_at, v_now + ttl)
  where id = p_agent and project = coalesce(p_project, project) returning expires_at into v_expires_at;
  if not found then
    perform coordinator.agent_missing(p_project, p_agent);
  end if;
  perform coordinator.agent_check(p_agent);
  return v_expires_at;
end
$$;
comment on function coordinator.agent_heartbeat(uuid, text) is
  'Send a heartbeat; return when the agent expires without another one. p_project: only if the agent is in this project. ZC202: the agent was reaped. No event.';

create or replace function coordinator.agent_cover(p_agent uuid, p_ttl interval) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
begin atomic
  -- Extend by half as much again, so that only a few of many renewals write.
  update coordinator.agents set expires_at = coordinator.now_utc() + 1.5 * p_ttl
  where id = p_agent and expires_at < coordinator.now_utc() + p_ttl;
end;
comment on function coordinator.agent_cover(uuid, interval) is
  'Extend an agent''s life to the end of a lease that it is granted or renews now; it may then go without heartbeats. Internal.';

create or replace function coordinator.agent_end(p_agent uuid, p_type text, p_actor text, p_data jsonb) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_agent  record;
  v_signal record;
begin
  delete from coordinator.agents where id = p_agent returning * into v_agent;
  if not found then
    return false;
  end if;
  insert into coordinator.agents_ended
    (id, project_id, name, role, job_types, labels, metadata, ttl, registered_at, heartbeat_at, expires_at, process_id, ended_at, end_reason)
  values (v_agent.id, v_agent.project_id, v_agent.name, v_agent.role, v_agent.job_types, v_agent.labels, v_agent.metadata, v_agent.ttl,
          v_agent.registered_at, v_agent.heartbeat_at, v_agent.expires_at, v_agent.process_id, v_now, coalesce(p_data ->> 'reason', 'deregistered'));
  for v_signal in
    with held as (select project_id, key from coordinator.signals where agent_id = p_agent order by key for update)
    delete from coordinator.signals s using held h
    where s.project_id = h.project_id and s.key = h.key
    returning s.key, s.version
  loop
    perform coordinator.event_append('signal.ended', v_agent.project, v_signal.key, coalesce(p_actor, v_agent.name), v_now,
      jsonb_build_object('version', v_signal.version, 'agent_id', p_agent));
  end loop;
  perform coordinator.job_end_agent(p_agent, case p_type when 'agent.deregistered' then 'released' else 'worker_lost' end, coalesce(p_actor, v_agent.name));
  perform coordinator.lock_end_agent(v_agent.project_id, v_agent.project, p_agent, coalesce(p_actor, v_agent.name));
  perform coordinator.event_append(p_type, v_agent.project, p_agent::text, coalesce(p_actor, v_agent.name), v_now,
    jsonb_build_object('name', v_agent.name, 'role', v_agent.role) || p_data);
  return true;
end
$$;
comment on function coordinator.agent_end(uuid, text, text, jsonb) is
  'Delete an agent, release everything it holds and emit p_type; return false if there is no such agent. Internal: every end of an agent goes through this function.';

create or replace function coordinator.agent_deregister(p_agent uuid, p_project text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.agent_check(p_agent, p_project);
  if not coordinator.agent_end(p_agent, 'agent.deregistered', null, '{}') then
    perform coordinator.agent_missing(p_project, p_agent);
  end if;
  return true;
end
$$;
comment on function coordinator.agent_deregister(uuid, text) is
  'End an agent that stops, and release everything it holds. p_project: only if the agent is in this project. ZC202: the agent is already gone.';

create or replace function coordinator.agent_list(
  p_project text, p_role text default null, p_ended boolean default false, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.agents_known
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{text,id}');
  return query
    (select a.id, p_project, a.name, a.role, a.job_types, a.labels, a.metadata, a.ttl, a.registered_at, a.heartbeat_at, a.expires_at,
            null::timestamptz, null::text, a.process_id
     from coordinator.agents a
     where a.project_id = v_project and (p_role is null or a.role = p_role)
       and (a.name, a.id) > (coalesce(p_after[1], ''), p_after[2]::uuid)
     order by a.name, a.id limit p_limit)
    union all
    (select e.id, p_project, e.name, e.role, e.job_types, e.labels, e.metadata, e.ttl, e.registered_at, e.heartbeat_at, e.expires_at,
            e.ended_at, e.end_reason, e.process_id
     from coordinator.agents_ended e
     where p_ended and e.project_id = v_project and (p_role is null or e.role = p_role)
       and (e.name, e.id) > (coalesce(p_after[1], ''), p_after[2]::uuid)
     order by e.name, e.id limit p_limit)
    order by 3, 1 limit p_limit;
end
$$;
comment on function coordinator.agent_list(text, text, boolean, text[], integer) is
  'List the agents of a project, by name and id; p_role: only agents with this role; p_ended: include agents that ended in the last 30 days. p_after: array[name, id] of the last row read.';

create or replace function coordinator.agent_prune(p_retention interval default '30 days', p_limit integer default 10000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return coordinator.prune_rows('coordinator.agents_ended', 'ended_at', p_retention, p_limit);
end
$$;
comment on function coordinator.agent_prune(interval, integer) is
  'Delete the records of up to p_limit agents that ended more than p_retention ago; returns how many. Repeat until 0. No events.';

create or replace function coordinator.agent_reap(p_limit integer default 1000)
returns table (reaped integer, missing integer, agents text[])
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now    timestamptz := clock_timestamp();
  v_reaped text[] := '{}';
begin
  perform coordinator.check_page(p_limit);
  if not coordinator.server_settled() then
    return query select 0, 0, v_reaped;
    return;
  end if;
  -- A process whose connection broke has some time to reconnect.
  update coordinator.processes p set missing_at = case when coordinator.process_alive(p.id) then null else v_now end
  where p.id = any (array(
    select c.id from coordinator.processes c where (c.missing_at is null) = not coordinator.process_alive(c.id) for update skip locked));
  v_reaped := coordinator.project_each('agent_reap', p_limit, $due$
    (select e.project_id, e.id::text from coordinator.agents e
     where e.expires_at <= $1 and e.project_id <> all ($2) order by e.expires_at limit $3)
    union all
    (with recursive process as ( -- one index lookup for each process
       (select a.process_id as id from coordinator.agents a where a.process_id is not null order by a.process_id limit 1)
       union all
       select (select a.process_id from coordinator.agents a where a.process_id > p.id order by a.process_id limit 1) from process p where p.id is not null)
     select a.project_id, a.id::text from process p left join coordinator.processes d on d.id = p.id join coordinator.agents a on a.process_id = p.id
     where (d.id is null or d.missing_at <= clock_timestamp() - coordinator.process_grace()) and a.project_id <> all ($2) limit $3)
  $due$);
  delete from coordinator.processes p
  where p.id = any (array(select c.id from coordinator.processes c where c.missing_at <= v_now - coordinator.process_grace() for update skip locked))
    and not exists (select from coordinator.agents a where a.process_id = p.id);
  return query select cardinality(v_reaped), (select count(*)::integer from coordinator.processes where missing_at is not null), v_reaped;
end
$$;
comment on function coordinator.agent_reap(integer) is
  'Reap up to p_limit agents whose TTL passed without a heartbeat or whose process died. agents: the name, id and reason of each. missing: processes to check again in 0.7 seconds. Nothing is reaped for 10 seconds after the server started or a standby was promoted.';

create or replace function coordinator.agent_reap_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := clock_timestamp();
  v_agent record;
  v_ended text[] := '{}';
begin
  for v_agent in
    select a.id, a.name, case when a.expires_at <= coordinator.now_utc() then 'expired' else 'process died' end as reason
    from coordinator.agents a left join coordinator.processes p on p.id = a.process_id
    -- The condition is checked again when the row is locked: a heartbeat may have arrived in between.
    where a.id = any (p_items::uuid[]) and a.project_id = p_project_id
      and (a.expires_at <= coordinator.now_utc()
           or a.process_id is not null and (p.id is null or p.missing_at <= v_now - coordinator.process_grace()))
    order by a.id for update of a skip locked
  loop
    -- The agent may have joined again with another process before its row was locked.
    continue when v_agent.reason = 'process died' and exists (
      select from coordinator.agents a join coordinator.processes p on p.id = a.process_id where a.id = v_agent.id and p.missing_at is null);
    if coordinator.agent_end(v_agent.id, 'agent.reaped', 'coordinator', jsonb_build_object('reason', v_agent.reason)) then
      v_ended := v_ended || format('%s (%s): %s', v_agent.name, v_agent.id, v_agent.reason);
    end if;
  end loop;
  return v_ended;
end
$$;
comment on function coordinator.agent_reap_in(bigint, text[], integer) is
  'Do the work of agent_reap in a project: see project_each. Internal.';

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_agents', 'agent_sample', 'gauge', '{project}', '', 'Registered agents.'),
  ('coordinator_processes', 'agent_sample', 'gauge', '{kind}', '', 'Registered daemons, sidecars and clients.');

create or replace function coordinator.agent_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_share double precision := coordinator.metric_share('coordinator.agents');
begin
  return query
    with counted as (
      select a.project, count(*) / v_share as n from coordinator.agents a tablesample system (100 * v_share) group by a.project),
    placed as (
      select coordinator.metric_label(c.project, row_number() over (order by c.n desc, c.project)) as project, c.n from counted c)
    select 'coordinator_agents', array[p.project], sum(p.n) from placed p group by p.project
    union all
    select 'coordinator_processes', array[k], count(p.id)::double precision
    from unnest(array['daemon', 'sidecar', 'client']) k left join coordinator.processes p on p.kind = k group by k;
end
$$;
comment on function coordinator.agent_sample(timestamptz) is
  'Sample the metrics of agents and processes. Internal.';
