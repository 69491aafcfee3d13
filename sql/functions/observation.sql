-- Observations: what an agent has noticed. They are the log of kind observation whose key is the agent's name, so they outlive its
-- incarnations.
--
-- Locks: those of log_append.

insert into coordinator.rights (function, role) values
  ('observation_append', 'agent');

insert into coordinator.transaction_verbs (function, part, entered_by, keyed_by) values
  ('observation_append', 'write', 'log_enter', 'observation_keys');

create or replace view coordinator.observations with (security_barrier) as
  select concat(e.log_id, '.', e.seq) as id, l.key as agent_id, e.data #>> '{}' as content, e.created_at,
         p.name as project, e.seq, e.uid, e.actor, e.data, e.raw
  from coordinator.logs l
  join coordinator.projects p on p.id = l.project_id
  join coordinator.entries e on e.log_id = l.id
  where l.kind = 'observation' and not l.deleted and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.observations            is 'Observations of agents. Filter by project and agent; otherwise all are read.';
comment on column coordinator.observations.id         is 'Unique id of the observation.';
comment on column coordinator.observations.agent_id   is 'Name of the agent.';
comment on column coordinator.observations.content    is 'The text; JSON if it is not a text.';
comment on column coordinator.observations.created_at is 'When it was appended.';
comment on column coordinator.observations.project    is 'Name of the project.';
comment on column coordinator.observations.seq        is 'Number among the agent''s observations.';
comment on column coordinator.observations.uid        is 'Unique id chosen by the caller; null: none.';
comment on column coordinator.observations.actor      is 'Who appended it.';
comment on column coordinator.observations.data       is 'The content as JSON. U+FFFD replaces NUL and lone surrogates.';
comment on column coordinator.observations.raw        is 'Exact text if it differs from data; otherwise null.';

create or replace function coordinator.observation_agent(p_project text, p_agent text, p_actor text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case when coordinator.is_agent_id(p_agent) then coordinator.agent_name(p_project, p_agent) else coordinator.actor_name(p_agent, p_actor) end
$$;
comment on function coordinator.observation_agent(text, text, text) is
  'Return the name of the agent whose observation it is. ZC202: there is no agent with this id. Internal.';

create or replace function coordinator.observation_keys(p_project text, p_part jsonb) returns setof jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select p_part || jsonb_build_object('kind', 'observation', 'key', coordinator.observation_agent(p_project, p_part ->> 'agent', p_part ->> 'actor'))
$$;
comment on function coordinator.observation_keys(text, jsonb) is
  'Return an observation of a transaction with the kind and key of its log. Internal.';

create or replace function coordinator.observation_append(
  p_project text, p_content json, p_agent text default null, p_uid text default null, p_actor text default null)
returns setof coordinator.log_receipt
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_agent text := coordinator.observation_agent(p_project, p_agent, p_actor);
begin
  if p_content is null then
    raise exception using errcode = 'ZC101', message = 'the observation is empty', hint = 'Give a text, or any JSON value.';
  end if;
  return query
    select * from coordinator.log_append(p_project, 'observation', v_agent,
      concat('[{"data": ', p_content, ', "uid": ' || to_json(p_uid)::text, '}]')::json, p_actor => coalesce(p_actor, v_agent));
end
$$;
comment on function coordinator.observation_append(text, json, text, text, text) is
  'Append an observation of an agent: a text or any JSON value. p_agent: the agent''s name, or the id of an agent that is or was registered; by default p_actor, else the logged-in role. p_uid: makes a repeated call harmless.';
