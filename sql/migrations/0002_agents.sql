-- Projects, and who acts in them: processes, the leader among them, agents.

create table coordinator.projects (
  id          bigint      generated always as identity constraint projects_pkey primary key,
  name        text        collate "C" not null,
  description text        not null default '',
  created_at  timestamptz not null,
  paths       text        not null default 'normal',
  user_id     bigint,
  title       text        not null default '',
  settings    jsonb       not null default '{}',
  updated_at  timestamptz not null,
  constraint projects_name_key unique (name), -- every call: a project by its name
  constraint projects_name check (name ~ '^[a-z0-9][a-z0-9_-]{0,35}$'),
  constraint projects_paths check (paths in ('exact', 'normal', 'caseless'))
);
comment on table  coordinator.projects             is 'A project holds everything else; only administration spans several. Written by project_create, project_set and project_delete.';
comment on column coordinator.projects.id          is 'Internal number, never reused.';
comment on column coordinator.projects.name        is 'Name for people and agents: lower-case letters, digits, - and _; at most 36 characters.';
comment on column coordinator.projects.description is 'One line for people; may be empty.';
comment on column coordinator.projects.created_at  is 'When it was created (database clock).';
comment on column coordinator.projects.paths       is 'How locks compare paths. exact: byte by byte; normal: in Unicode normal form C; caseless: so, and without case. Written by project_set.';
comment on column coordinator.projects.user_id     is 'Whose project it is, see users; null: nobody''s.';
comment on column coordinator.projects.title       is 'Name for people, one line; may be empty.';
comment on column coordinator.projects.settings    is 'An object of the callers'' own.';
comment on column coordinator.projects.updated_at  is 'When it was last changed (database clock).';
-- Readers see this table as it is, without the projects that are closed to them. The owner's functions see all rows.
create function coordinator.projects_visible() returns text[] -- functions/project.sql has its body
language sql stable security definer
set search_path = pg_catalog, pg_temp
as 'select null::text[]';
alter table coordinator.projects enable row level security;
create policy projects_visible on coordinator.projects for select using (coalesce(name = any ((select coordinator.projects_visible())::text[]), true));
insert into coordinator.projects (name, description, created_at, updated_at)
values ('default', 'Where things go when no project is named.', statement_timestamp(), statement_timestamp());

create sequence coordinator.caseless_paths as bigint minvalue 0 start 0;
comment on sequence coordinator.caseless_paths is '0 until a project first ignores the case of paths, then 1 for ever: from then on lock_acquire looks for the rule of paths with capital letters. Set by project_set.';
select setval('coordinator.caseless_paths', 0);

create table coordinator.processes (
  id         integer     generated always as identity constraint processes_pkey primary key,
  kind       text        not null,
  name       text        not null,
  started_at timestamptz not null,
  missing_at timestamptz,
  constraint processes_kind check (kind in ('daemon', 'sidecar', 'client')),
  constraint processes_name check (length(name) between 1 and 200)
);
comment on table  coordinator.processes            is 'Processes that prove by a session-level advisory lock (1129267026, id) that they are alive: daemons, sidecars, clients. Written by process_register and agent_reap.';
comment on column coordinator.processes.id         is 'Second half of the key of the advisory lock.';
comment on column coordinator.processes.kind       is 'daemon, sidecar or client.';
comment on column coordinator.processes.name       is 'Host name and pid, for people.';
comment on column coordinator.processes.started_at is 'When it registered (database clock).';
comment on column coordinator.processes.missing_at is 'When its lock was first found free; null while it is alive.';

create table coordinator.leaders (
  singleton  boolean     not null default true constraint leaders_pkey primary key,
  process_id integer,
  term       bigint      not null default 0,
  expires_at timestamptz,
  constraint leaders_singleton check (singleton)
);
comment on table  coordinator.leaders            is 'Which daemon runs the relay and the loops. One row, written by leader_renew. Leadership saves work and guards nothing.';
comment on column coordinator.leaders.singleton  is 'Always true: there is one row.';
comment on column coordinator.leaders.process_id is 'The leading process, see processes; null when none leads.';
comment on column coordinator.leaders.term       is 'Increases by one with each change of leader.';
comment on column coordinator.leaders.expires_at is 'The lead is free after this, or as soon as the process''s advisory lock is.';
insert into coordinator.leaders default values;

create table coordinator.agents (
  id            uuid        not null default gen_random_uuid() constraint agents_pkey primary key,
  project_id    bigint      not null constraint agents_project_fkey references coordinator.projects (id) on delete cascade,
  project       text        collate "C" not null,
  name          text        collate "C" not null,
  role          text        collate "C",
  job_types     text[]      not null default '{}',
  metadata      jsonb       not null default '{}',
  process_id    integer,
  ttl           interval    not null,
  registered_at timestamptz not null,
  heartbeat_at  timestamptz not null,
  expires_at    timestamptz not null,
  labels        text[]      not null default '{}',
  constraint agents_name check (length(name) between 1 and 200),
  constraint agents_role check (length(role) between 1 and 200)
);
create index agents_name_idx on coordinator.agents (project_id, name, id); -- directive_inbox: roles of a name; agent_list
create index agents_expires_at_idx on coordinator.agents (expires_at); -- agent_reap: whose heartbeat ended
create index agents_process_idx on coordinator.agents (process_id) where process_id is not null; -- agent_reap: a dead process's
comment on table  coordinator.agents               is 'Running agents, one row per incarnation. Written by agent_register, agent_heartbeat, agent_deregister and agent_reap.';
comment on column coordinator.agents.id            is 'New at each start of the agent; identifies the holder of locks and signals.';
comment on column coordinator.agents.project_id    is 'See projects.';
comment on column coordinator.agents.project       is 'Name of the project, which never changes; lock_acquire need not look it up.';
comment on column coordinator.agents.name          is 'What directives are addressed to; stays the same across restarts.';
comment on column coordinator.agents.role          is 'What directives to a role are addressed to; may be null.';
comment on column coordinator.agents.job_types     is 'Kinds of work that it accepts.';
comment on column coordinator.agents.metadata      is 'A JSON object chosen by the agent.';
comment on column coordinator.agents.process_id    is 'The process with which it ends, see processes; null if only its heartbeat counts.';
comment on column coordinator.agents.ttl           is 'How long it may go without a heartbeat.';
comment on column coordinator.agents.registered_at is 'When it registered (database clock).';
comment on column coordinator.agents.heartbeat_at  is 'When it last sent a heartbeat (database clock).';
comment on column coordinator.agents.expires_at    is 'heartbeat_at + ttl: reaped after this.';
comment on column coordinator.agents.labels        is 'What it can do beside its job_types; a job may require labels of its worker.';

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
  end_reason    text        not null,
  labels        text[]      not null default '{}'
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
comment on column coordinator.agents_ended.labels        is 'What it could do beside its job_types.';
