-- Agents that ended stay known for a while, so that calls, lists and errors can name them.

create table coordinator.agents_ended (
  id            uuid        not null constraint agents_ended_pkey primary key,
  project_id    bigint      not null, -- no foreign key: agent_end would wait for project_delete, which waits for the agent
  name          text        collate "C" not null,
  role          text,
  job_types     text[]      not null,
  metadata      jsonb       not null,
  ttl           interval    not null,
  registered_at timestamptz not null,
  heartbeat_at  timestamptz not null,
  expires_at    timestamptz not null,
  process_id    integer,
  ended_at      timestamptz not null,
  end_reason    text        not null
);
create index agents_ended_name_idx on coordinator.agents_ended (project_id, name, id); -- agent_list; agent_name
create index agents_ended_at_idx on coordinator.agents_ended (ended_at); -- agent_prune
comment on table  coordinator.agents_ended               is 'Agents that deregistered or were reaped. Written by agent_deregister and agent_reap; pruned some time later.';
comment on column coordinator.agents_ended.id            is 'As in agents.';
comment on column coordinator.agents_ended.project_id    is 'See projects.';
comment on column coordinator.agents_ended.name          is 'As in agents.';
comment on column coordinator.agents_ended.role          is 'As in agents.';
comment on column coordinator.agents_ended.job_types     is 'As in agents.';
comment on column coordinator.agents_ended.metadata      is 'As in agents.';
comment on column coordinator.agents_ended.ttl           is 'As in agents.';
comment on column coordinator.agents_ended.registered_at is 'As in agents.';
comment on column coordinator.agents_ended.heartbeat_at  is 'When it last sent a heartbeat.';
comment on column coordinator.agents_ended.expires_at    is 'When it would have been reaped without a heartbeat.';
comment on column coordinator.agents_ended.process_id    is 'The process with which it ended; may be null.';
comment on column coordinator.agents_ended.ended_at      is 'When it ended (database clock).';
comment on column coordinator.agents_ended.end_reason    is 'deregistered, expired (no heartbeat) or process died.';

-- Changed parameters or results; the function files create them again.
drop function if exists coordinator.agent_list(text, text, text[], integer);
drop function if exists coordinator.agent_heartbeat(uuid);
drop function if exists coordinator.agent_deregister(uuid);
drop function if exists coordinator.agent_check(uuid);
drop function if exists coordinator.directive_send(text, text, text, text, boolean, integer, interval, text, jsonb, text);

-- What directive_send returns: a row of directives_sent, and who receives it now.
create type coordinator.directive_dispatch as (
  id bigint, project text, to_agent text, to_role text, body text, data jsonb, priority integer, key text, status text, actor text,
  sent_at timestamptz, expires_at timestamptz, recipients integer, meant text);
comment on type coordinator.directive_dispatch is 'A directive that was just sent. recipients: registered agents that receive it now. meant: if there are none, the name or role that was probably meant.';
