-- Agents: one row per incarnation. Whatever an agent holds ends with it (agent_end), however it ends.

insert into coordinator.event_types (type, key, data, meaning) values
  ('agent.registered',   'id of the agent', '{name,role,job_types,metadata,ttl_s}', 'An agent started.'),
  ('agent.deregistered', 'id of the agent', '{name,role}',                          'An agent ended and released what it held.'),
  ('agent.reaped',       'id of the agent', '{name,role,reason}',                   'An agent was reaped and lost what it held; reason: "expired" (no heartbeat) or "process died".');

insert into coordinator.rights (function, role) values
  ('agent_list',       'reader'),
  ('agent_project',    'reader'),
  ('agent_deregister', 'agent'),
  ('agent_heartbeat',  'agent'),
  ('agent_register',   'agent');

insert into coordinator.limits (name, value, unit, meaning) values
  ('agent_ttl_max', 86400, 'seconds', 'Longest TTL of an agent: one day.');

create or replace view coordinator.agents_live with (security_barrier) as
  select a.id, a.project, a.name, a.role, a.job_types, a.metadata, a.ttl, a.registered_at, a.heartbeat_at, a.expires_at, a.process_id
  from coordinator.agents a
  where coalesce(a.project = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.agents_live               is 'Agents that are registered and not reaped.';
comment on column coordinator.agents_live.id            is 'New at each start of the agent.';
comment on column coordinator.agents_live.project       is 'Name of the project.';
comment on column coordinator.agents_live.name          is 'What directives are addressed to.';
comment on column coordinator.agents_live.role          is 'What directives to a role are addressed to.';
comment on column coordinator.agents_live.job_types     is 'Kinds of work that it accepts.';
comment on column coordinator.agents_live.metadata      is 'A JSON object chosen by the agent.';
comment on column coordinator.agents_live.ttl           is 'How long it may go without a heartbeat, or longer while it has locks with a longer TTL.';
comment on column coordinator.agents_live.registered_at is 'When it registered.';
comment on column coordinator.agents_live.heartbeat_at  is 'When it last sent a heartbeat.';
comment on column coordinator.agents_live.expires_at    is 'Reaped after this.';
comment on column coordinator.agents_live.process_id    is 'The process with which it ends, see processes.';

create or replace function coordinator.name_reserved(p_project text, p_name text) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  return p_name = 'coordinator'
    or exists (select from coordinator.tokens t where t.name = p_name and t.expires_at > coordinator.now_utc() and t.revoked_at is null
                                                  and (t.project_id is null or t.project_id = v_project))
    or exists (select from pg_roles r where r.rolname = p_name and coordinator.role_manages(r.oid));
end
$$;
comment on function coordinator.name_reserved(text, text) is
  'Return whether a name is that of a token of the project, of a database role that may do more than an agent, or of the loops. Internal: an agent of this name would act as somebody else.';

create or replace function coordinator.role_manages(p_role oid) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select bool_or(has_function_privilege(p_role, p.oid, 'execute')) from pg_proc p
  where p.pronamespace = 'coordinator'::regnamespace and p.proname = 'directive_send'
$$;
comment on function coordinator.role_manages(oid) is
  'Return whether a database role may do what managers may. Internal.';

create or replace function coordinator.agent_register(
  p_project text, p_name text, p_role text default null, p_job_types text[] default '{}', p_metadata jsonb default '{}',
  p_ttl interval default '30 seconds', p_process integer default null)
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
  if not coordinator.role_manages((select r.oid from pg_roles r where r.rolname = session_user)) and coordinator.name_reserved(p_project, p_name) then
    raise exception using errcode = '42501', message = format('role "%s" may not register an agent "%s": a token or another role has this name', session_user, p_name),
      hint = 'Choose another name.';
  end if;
  if p_role is not null then
    perform coordinator.check_name('the role', p_role);
  end if;
  perform coordinator.check_list('job types', p_job_types);
  perform coordinator.check_json('the metadata', p_metadata, p_object => true);
  perform coordinator.check_ttl(p_ttl, 86400);
  if p_process is not null then
    perform from coordinator.processes where id = p_process for share;
    if not found then
      raise exception using errcode = 'ZC202', message = format('there is no process %s', p_process),
        hint = 'It was reaped; register the process again first.';
    end if;
  end if;
  insert into coordinator.agents (project_id, project, name, role, job_types, metadata, process_id, ttl, registered_at, heartbeat_at, expires_at)
  values (v_project, p_project, p_name, p_role, coalesce(p_job_types, '{}'), p_metadata, p_process, p_ttl, v_now, v_now, v_now + p_ttl)
  returning agents.id into v_id;
  perform coordinator.event_append('agent.registered', p_project, v_id::text, p_name, v_now,
    jsonb_build_object('name', p_name, 'role', p_role, 'job_types', coalesce(p_job_types, '{}'), 'metadata', p_metadata,
                       'ttl_s', extract(epoch from p_ttl)));
  return query
    select v_id, p_project, p_name, p_role, coalesce(p_job_types, '{}'), p_metadata, p_ttl, v_now, v_now, v_now + p_ttl, p_process;
end
$$;
comment on function coordinator.agent_register(text, text, text, text[], jsonb, interval, integer) is
  'Register a starting agent and return it with an id that is new at each start. It is reaped after p_ttl (1 second to 1 day) without a heartbeat, or when p_process dies.';

create or replace function coordinator.agent_heartbeat(p_agent uuid) returns timestamptz
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now        timestamptz := coordinator.now_utc();
  v_expires_at timestamptz;
begin
  update coordinator.agents set heartbeat_at = v_now, expires_at = greatest(expires_at, v_now + ttl)
  where id = p_agent returning expires_at into v_expires_at;
  if not found then
    raise exception using errcode = 'ZC202', message = format('there is no agent %s', p_agent),
      hint = 'It was reaped or deregistered and lost what it held; register again.';
  end if;
  perform coordinator.agent_check(p_agent);
  return v_expires_at;
end
$$;
comment on function coordinator.agent_heartbeat(uuid) is
  'Send a heartbeat; returns when the agent expires without another one. ZC202: the agent was reaped. No event.';

create or replace function coordinator.agent_cover(p_agent uuid, p_ttl interval) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
begin atomic
  -- Half as long again, so that of many renewals few write.
  update coordinator.agents set expires_at = coordinator.now_utc() + 1.5 * p_ttl
  where id = p_agent and expires_at < coordinator.now_utc() + p_ttl;
end;
comment on function coordinator.agent_cover(uuid, interval) is
  'Let an agent live at least as long as a lease that it is granted or renews now; it may then go without heartbeats. Internal.';

create or replace function coordinator.agent_end(p_agent uuid, p_type text, p_actor text, p_data jsonb) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now    timestamptz := coordinator.now_utc();
  v_agent  record;
  v_signal record;
begin
  delete from coordinator.agents where id = p_agent returning name, role, project_id, project into v_agent;
  if not found then
    return false;
  end if;
  for v_signal in
    with held as (select project_id, key from coordinator.signals where agent_id = p_agent order by key for update)
    delete from coordinator.signals s using held h
    where s.project_id = h.project_id and s.key = h.key
    returning s.key, s.version
  loop
    perform coordinator.event_append('signal.ended', v_agent.project, v_signal.key, coalesce(p_actor, v_agent.name), v_now,
      jsonb_build_object('version', v_signal.version, 'agent_id', p_agent));
  end loop;
  perform coordinator.lock_end_agent(v_agent.project_id, v_agent.project, p_agent, coalesce(p_actor, v_agent.name));
  perform coordinator.event_append(p_type, v_agent.project, p_agent::text, coalesce(p_actor, v_agent.name), v_now,
    jsonb_build_object('name', v_agent.name, 'role', v_agent.role) || p_data);
  return true;
end
$$;
comment on function coordinator.agent_end(uuid, text, text, jsonb) is
  'Delete an agent, release everything it holds and emit p_type; false if there is no such agent. Internal: every end of an agent passes here.';

create or replace function coordinator.agent_deregister(p_agent uuid) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.agent_check(p_agent);
  if not coordinator.agent_end(p_agent, 'agent.deregistered', null, '{}') then
    raise exception using errcode = 'ZC202', message = format('there is no agent %s', p_agent),
      hint = 'It was already reaped or deregistered and lost what it held.';
  end if;
  return true;
end
$$;
comment on function coordinator.agent_deregister(uuid) is
  'End an agent that stops and release everything it holds. ZC202: it is already gone.';

create or replace function coordinator.agent_list(
  p_project text, p_role text default null, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.agents_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{text,id}');
  return query
    select a.id, a.project, a.name, a.role, a.job_types, a.metadata, a.ttl, a.registered_at, a.heartbeat_at, a.expires_at, a.process_id
    from coordinator.agents a
    where a.project_id = v_project and (p_role is null or a.role = p_role)
      and (a.name, a.id) > (coalesce(p_after[1], ''), p_after[2]::uuid)
    order by a.name, a.id limit p_limit;
end
$$;
comment on function coordinator.agent_list(text, text, text[], integer) is
  'List the agents of a project, of one role if p_role is given, by name and id. p_after: array[name, id] of the last row read.';

create or replace function coordinator.agent_named(p_project text, p_name text) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  return exists (select from coordinator.agents a where a.project_id = v_project and a.name = p_name) and not coordinator.name_reserved(p_project, p_name);
end
$$;
comment on function coordinator.agent_named(text, text) is
  'Return whether an agent of this name is registered in a project, and nobody else has the name. Internal: gateways check whether a token may speak for it.';

create or replace function coordinator.agent_reap(p_limit integer default 1000)
returns table (reaped integer, missing integer, agents text[])
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now    timestamptz := clock_timestamp();
  v_agent  record;
  v_reaped text[] := '{}';
begin
  perform coordinator.check_page(p_limit);
  if not coordinator.server_settled() then
    return query select 0, 0, v_reaped;
    return;
  end if;
  -- A process whose connection broke has 0.7 seconds to reconnect.
  update coordinator.processes p set missing_at = case when coordinator.process_alive(p.id) then null else v_now end
  where (p.missing_at is null) = not coordinator.process_alive(p.id);
  for v_agent in
    select a.id, a.name, case when a.expires_at <= coordinator.now_utc() then 'expired' else 'process died' end as reason
    from coordinator.agents a left join coordinator.processes p on p.id = a.process_id
    -- Found by index, and checked again when the row is locked: a heartbeat may have arrived in between.
    where a.id = any (array(
            (select e.id from coordinator.agents e where e.expires_at <= coordinator.now_utc() order by e.expires_at limit p_limit)
            union all
            select o.id from coordinator.agents o left join coordinator.processes d on d.id = o.process_id
            where o.process_id is not null and (d.id is null or d.missing_at <= v_now - interval '0.7 seconds')))
      and (a.expires_at <= coordinator.now_utc()
           or a.process_id is not null and (p.id is null or p.missing_at <= v_now - interval '0.7 seconds'))
    order by a.project_id, a.id limit p_limit -- queues of locks are locked in the order of their projects
    for update of a skip locked
  loop
    if coordinator.agent_end(v_agent.id, 'agent.reaped', 'coordinator', jsonb_build_object('reason', v_agent.reason)) then
      v_reaped := v_reaped || format('%s (%s): %s', v_agent.name, v_agent.id, v_agent.reason);
    end if;
  end loop;
  delete from coordinator.processes p
  where p.missing_at <= v_now - interval '0.7 seconds'
    and not exists (select from coordinator.agents a where a.process_id = p.id);
  return query select cardinality(v_reaped), (select count(*)::integer from coordinator.processes where missing_at is not null), v_reaped;
end
$$;
comment on function coordinator.agent_reap(integer) is
  'Reap up to p_limit agents whose TTL passed without a heartbeat or whose process died. agents: the name, id and reason of each. missing: processes to look at again in 0.7 seconds. Nothing is reaped in the server''s first 10 seconds.';

create or replace function coordinator.agent_project(p_agent uuid) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project text;
begin
  select project into v_project from coordinator.agents where id = p_agent;
  if v_project is null then
    raise exception using errcode = 'ZC202', message = format('there is no agent %s', p_agent),
      hint = 'It was reaped or deregistered and lost what it held; register again.';
  end if;
  perform coordinator.project_check(v_project);
  return v_project;
end
$$;
comment on function coordinator.agent_project(uuid) is
  'Return the name of an agent''s project, which never changes. ZC202: there is no such agent.';

create or replace function coordinator.agent_check(p_agent uuid) returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if coordinator.projects_visible() is not null then
    perform coordinator.agent_project(p_agent);
  end if;
end
$$;
comment on function coordinator.agent_check(uuid) is
  'Reject (42501) an agent of a project that the logged-in role may not use. Internal.';
