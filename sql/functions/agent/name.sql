-- Names of agents: which agent a text refers to, the errors if there is none, and who may use a name.

create or replace function coordinator.is_agent_id(p_text text) returns boolean
language sql immutable parallel safe
return p_text ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$';
comment on function coordinator.is_agent_id(text) is
  'Return whether a text is an agent id rather than a name. Internal.';

create or replace function coordinator.agent_missing(p_project text, p_agent uuid) returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_agent record;
begin
  if p_project is not null then
    perform coordinator.project_id(p_project);
  end if;
  -- Without a project, the agent may belong to a project that the caller must not see.
  select e.*, p.name as project into v_agent
  from coordinator.agents_ended e join coordinator.projects p on p.id = e.project_id
  where e.id = p_agent and p.name = coalesce(p_project, p.name) and coalesce(p.name = any (coordinator.projects_visible()), true);
  if not found then
    raise exception using errcode = 'ZC202', message = format('there is no agent %s', p_agent) || coalesce(' in project "' || p_project || '"', ''),
      hint = 'See "coordinator agent list --all". An agent gets a new id each time it registers.';
  end if;
  raise exception using errcode = 'ZC202',
    message = format('agent "%s" (%s) %s at %s%s', v_agent.name, p_agent,
      case v_agent.end_reason when 'deregistered' then 'deregistered' else 'was reaped' end,
      to_char(v_agent.ended_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS"Z"'),
      case v_agent.end_reason when 'expired' then ': it sent no heartbeat in time' when 'process died' then ': its process died' else '' end),
    detail = jsonb_build_object('agent_id', p_agent, 'agent', v_agent.name, 'ended_at', v_agent.ended_at, 'reason', v_agent.end_reason)::text,
    hint = 'It lost what it held; register again.';
end
$$;
comment on function coordinator.agent_missing(text, uuid) is
  'Raise ZC202 for an agent that is not registered; the error says when and why it ended. Internal.';

create or replace function coordinator.agent_unknown(p_project text, p_name text) returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_agent   uuid;
  v_near    text;
begin
  select e.id into v_agent from coordinator.agents_ended e
  where e.project_id = v_project and e.name = p_name order by e.ended_at desc limit 1;
  if found then
    perform coordinator.agent_missing(p_project, v_agent);
  end if;
  v_near := coordinator.nearest(p_name, array(
    select distinct a.name from coordinator.agents a where a.project_id = v_project order by a.name limit 1000));
  raise exception using errcode = 'ZC202', message = format('no agent in project "%s" is called "%s"', p_project, left(p_name, 200)),
    hint = coalesce('Did you mean "' || v_near || '"? ', '') || 'See "coordinator agent list --all".';
end
$$;
comment on function coordinator.agent_unknown(text, text) is
  'Raise ZC202 for a name that no registered agent has, and suggest a similar name. Internal.';

create or replace function coordinator.agent_find(p_project text, p_agent text) returns uuid
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint;
  v_ids     uuid[];
begin
  if p_agent is null or coordinator.is_agent_id(p_agent) then
    return p_agent::uuid;
  elsif p_project is null then
    raise exception using errcode = 'ZC101', message = format('the project of agent "%s" is missing', left(p_agent, 200)),
      hint = 'Give the project, or the id of the agent.';
  end if;
  v_project := coordinator.project_id(p_project);
  perform coordinator.check_name('the name of the agent', p_agent);
  v_ids := array(select a.id from coordinator.agents a where a.project_id = v_project and a.name = p_agent order by a.id limit 11);
  if cardinality(v_ids) > 1 then
    raise exception using errcode = 'ZC105',
      message = format('%s agents are called "%s"', case when cardinality(v_ids) > 10 then 'more than 10' else cardinality(v_ids)::text end, p_agent),
      hint = 'Give an id: ' || array_to_string(v_ids[1:10], ', ');
  elsif v_ids = '{}' then
    perform coordinator.agent_unknown(p_project, p_agent);
  end if;
  return v_ids[1];
end
$$;
comment on function coordinator.agent_find(text, text) is
  'Return the id of an agent that is given by name or id, for parameters named p_agent. An id is returned unchanged. ZC202: no agent has this name; the error says when the last one ended, or suggests a similar name. ZC105: several agents have this name.';

create or replace function coordinator.agent_name(p_project text, p_agent text) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_name    text;
begin
  if coordinator.is_agent_id(p_agent) then
    select a.name into v_name from coordinator.agents a where a.id = p_agent::uuid and a.project_id = v_project;
    if not found then
      select e.name into v_name from coordinator.agents_ended e where e.id = p_agent::uuid and e.project_id = v_project;
    end if;
    if v_name is null then
      perform coordinator.agent_missing(p_project, p_agent::uuid);
    end if;
    return v_name;
  end if;
  if not exists (select from coordinator.agents a where a.project_id = v_project and a.name = p_agent)
     and not exists (select from coordinator.agents_ended e where e.project_id = v_project and e.name = p_agent)
     and not exists (select from coordinator.tokens t
                     where t.name = p_agent and (t.project_id is null or t.project_id = v_project)
                       and t.expires_at > coordinator.now_utc() and t.revoked_at is null)
     and not exists (select from coordinator.directives d where d.project_id = v_project and d.to_agent = p_agent) then
    perform coordinator.agent_unknown(p_project, p_agent);
  end if;
  return p_agent;
end
$$;
comment on function coordinator.agent_name(text, text) is
  'Return the name of an agent that is given by name or id. Known names are those of registered and ended agents, of valid tokens, and of recipients of directives. ZC202 for others. Internal.';

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
  'Return whether a name belongs to a token of the project, to a database role with more rights than an agent, or to the loops. Internal: an agent with this name would impersonate it.';

create or replace function coordinator.name_enter(p_name text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_isolation('names of agents and tokens are taken');
  perform coordinator.advisory_enter(hashtextextended('coordinator.name:' || p_name, 0));
end
$$;
comment on function coordinator.name_enter(text) is
  'Take the lock under which a token or an agent takes a name. Internal.';

create or replace function coordinator.role_manages(p_role oid) returns boolean
language sql stable
return coalesce(has_function_privilege(p_role, to_regproc('coordinator.directive_send'), 'execute'), false);
comment on function coordinator.role_manages(oid) is
  'Return whether a database role has the rights of a manager. Internal; inlined.';

create or replace function coordinator.agent_name_enter(p_project text, p_name text, p_unreserved boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_unreserved or not coordinator.role_manages(to_regrole(quote_ident(session_user))) then
    perform coordinator.name_enter(p_name); -- token_create takes the same lock, so neither misses the name that the other takes
    if coordinator.name_reserved(p_project, p_name) then
      raise exception using errcode = '42501', message = format('an agent may not register as "%s": a token or a database role has this name', p_name),
        hint = 'Choose another name, or register with that token or role.';
    end if;
  end if;
end
$$;
comment on function coordinator.agent_name_enter(text, text, boolean) is
  'Refuse a reserved name to callers with only the rights of an agent (42501), and reserve the name until the end of the transaction. Internal.';

create or replace function coordinator.agent_named(p_project text, p_name text) returns boolean
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_ended   uuid;
begin
  if not exists (select from coordinator.agents a where a.project_id = v_project and a.name = p_name) then
    select e.id into v_ended from coordinator.agents_ended e where e.project_id = v_project and e.name = p_name order by e.ended_at desc limit 1;
    if found then
      perform coordinator.agent_missing(p_project, v_ended);
    end if;
    return false;
  end if;
  return not coordinator.name_reserved(p_project, p_name);
end
$$;
comment on function coordinator.agent_named(text, text) is
  'Return whether an agent with this name is registered in a project and nobody else has the name. ZC202: the last such agent has ended. Internal: gateways check whether a token may speak for it.';

create or replace function coordinator.agent_project(p_agent uuid) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project text;
begin
  select project into v_project from coordinator.agents where id = p_agent;
  if v_project is null then
    perform coordinator.agent_missing(null, p_agent);
  end if;
  perform coordinator.project_check(v_project);
  return v_project;
end
$$;
comment on function coordinator.agent_project(uuid) is
  'Return the name of an agent''s project, which never changes. ZC202: there is no such agent.';

create or replace function coordinator.agent_check(p_agent uuid, p_project text default null) returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_agent is not null and coordinator.projects_visible() is not null then
    perform coordinator.agent_project(p_agent);
  end if;
  if p_agent is not null and p_project is not null
     and not exists (select from coordinator.agents a where a.id = p_agent and a.project = p_project) then
    perform coordinator.agent_missing(p_project, p_agent);
  end if;
end
$$;
comment on function coordinator.agent_check(uuid, text) is
  'Reject an agent of a project that the logged-in role may not use (42501), and an agent that is not registered in p_project (ZC202). Internal.';

create or replace function coordinator.agent_joined(p_project_id bigint, p_name text) returns uuid
language plpgsql stable -- not in SQL: PostgreSQL would plan it again in every transaction
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the table is small must also serve a large one
as $$
begin
  if coordinator.is_agent_id(p_name) then
    return (select a.id from coordinator.agents a where a.id = p_name::uuid and a.project_id = p_project_id);
  end if;
  return (
    select a.id from coordinator.agents a where a.project_id = p_project_id and a.name = p_name order by a.registered_at, a.id limit 1);
end
$$;
comment on function coordinator.agent_joined(bigint, text) is
  'Return the agent that agent_join finds by name or id: of several, the one that registered first; null: there is none. Internal.';
