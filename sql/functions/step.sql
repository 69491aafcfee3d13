-- Steps: what an agent thought, did and saw in a session. They are the log of kind step whose key is the session's.
--
-- Locks: those of log_append.

insert into coordinator.rights (function, role) values
  ('step_append', 'agent');

insert into coordinator.transaction_verbs (function, part, entered_by, keyed_by) values
  ('step_append', 'write', 'log_enter', 'step_keys');

create or replace view coordinator.execution_history with (security_barrier) as
  select concat(e.log_id, '.', e.seq) as id, l.session_id, e.seq as step_id, e.data ->> 'thought' as thought, e.data -> 'action' as action,
         e.data -> 'observation' as observation, e.created_at as timestamp, p.name as project, l.key as session, e.uid, e.actor, e.data, e.raw
  from coordinator.logs l
  join coordinator.projects p on p.id = l.project_id
  join coordinator.entries e on e.log_id = l.id
  where l.kind = 'step' and not l.deleted and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.execution_history             is 'Steps of all sessions. Filter by project and session; otherwise all are read.';
comment on column coordinator.execution_history.id          is 'Unique id of the step.';
comment on column coordinator.execution_history.session_id  is 'Session; see sessions.';
comment on column coordinator.execution_history.step_id     is 'Number of the step within the session.';
comment on column coordinator.execution_history.thought     is 'What the agent thought; null: not given.';
comment on column coordinator.execution_history.action      is 'What it did, as JSON; null: nothing.';
comment on column coordinator.execution_history.observation is 'What it then saw, as JSON; null: nothing.';
comment on column coordinator.execution_history.timestamp   is 'When it was appended.';
comment on column coordinator.execution_history.project     is 'Name of the project.';
comment on column coordinator.execution_history.session     is 'Key of the session.';
comment on column coordinator.execution_history.uid         is 'Unique id chosen by the caller; null: none.';
comment on column coordinator.execution_history.actor       is 'Who appended it.';
comment on column coordinator.execution_history.data        is 'The whole step. U+FFFD replaces NUL and lone surrogates.';
comment on column coordinator.execution_history.raw         is 'Exact text if it differs from data; otherwise null.';

create or replace function coordinator.step_keys(p_project text, p_part jsonb) returns setof jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select p_part || jsonb_build_object('kind', 'step', 'key', p_part -> 'session')
$$;
comment on function coordinator.step_keys(text, jsonb) is
  'Return a step of a transaction with the kind and key of its log. Internal.';

create or replace function coordinator.step_append(
  p_project text, p_session text, p_step json, p_uid text default null, p_expect bigint default null, p_epoch text default null,
  p_actor text default null)
returns setof coordinator.log_receipt
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_step is null then
    raise exception using errcode = 'ZC101', message = 'the step is missing', hint = 'Give an object such as {"thought": "Look first.", "action": "ls"}.';
  elsif json_typeof(p_step) <> 'object' then
    raise exception using errcode = 'ZC105', message = format('the step is a JSON %s, not an object', json_typeof(p_step)),
      hint = 'Give an object such as {"thought": "Look first.", "action": "ls"}.';
  elsif num_nonnulls(p_step -> 'thought', p_step -> 'action', p_step -> 'observation') = 0 then
    raise exception using errcode = 'ZC101', message = 'the step has neither a thought nor an action nor an observation', hint = 'Give at least one.';
  end if;
  return query
    select * from coordinator.log_append(p_project, 'step', p_session,
      concat('[{"data": ', p_step, ', "uid": ' || to_json(p_uid)::text, '}]')::json, p_expect, p_epoch, p_actor => p_actor);
end
$$;
comment on function coordinator.step_append(text, text, json, text, bigint, text, text) is
  'Append a step to a session, which is created if it does not exist. A step is an object with what the agent thought, did and saw: at least one of thought, action and observation, each any JSON value. p_uid: makes a repeated call harmless. p_expect, p_epoch and further errors: as in log_append.';
