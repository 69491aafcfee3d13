-- Projects, processes, agents, signals, directives, and the event log with its outbox.

------------------------------------------------------------------------------------------------- projects
create table coordinator.projects (
  id          bigint      generated always as identity constraint projects_pkey primary key,
  name        text        collate "C" not null,
  description text        not null default '',
  created_at  timestamptz not null,
  constraint projects_name_key unique (name), -- every call: a project by its name
  constraint projects_name check (name ~ '^[a-z0-9][a-z0-9_-]{0,35}$')
);
comment on table  coordinator.projects             is 'A project holds everything else; nothing but administration spans two. Written by project_create and project_delete.';
comment on column coordinator.projects.id          is 'Internal number, never used again.';
comment on column coordinator.projects.name        is 'What people and agents call it: lower-case letters, digits, - and _; at most 36 characters.';
comment on column coordinator.projects.description is 'One line for people; may be empty.';
comment on column coordinator.projects.created_at  is 'When it was created (database clock).';

insert into coordinator.projects (name, description, created_at)
values ('default', 'Where things go when no project is named.', clock_timestamp());

------------------------------------------------------------------------------------------------- processes
create table coordinator.processes (
  id         integer     generated always as identity constraint processes_pkey primary key,
  kind       text        not null,
  name       text        not null,
  started_at timestamptz not null,
  missing_at timestamptz,
  constraint processes_kind check (kind in ('daemon', 'sidecar', 'client')),
  constraint processes_name check (length(name) between 1 and 200)
);
comment on table  coordinator.processes            is 'Processes that prove that they live by a session advisory lock (1129267026, id): daemons, sidecars, clients. Written by process_register and agent_reap.';
comment on column coordinator.processes.id         is 'Second half of the advisory lock''s key.';
comment on column coordinator.processes.kind       is 'daemon, sidecar or client.';
comment on column coordinator.processes.name       is 'Host name and pid, for people.';
comment on column coordinator.processes.started_at is 'When it registered (database clock).';
comment on column coordinator.processes.missing_at is 'When its lock was first found free; null while it lives.';

create table coordinator.leaders (
  singleton  boolean     not null default true constraint leaders_pkey primary key,
  process_id integer,
  term       bigint      not null default 0,
  expires_at timestamptz,
  constraint leaders_singleton check (singleton)
);
comment on table  coordinator.leaders            is 'Which daemon runs the relay and the loops. One row, written by leader_renew. Leadership saves work and guards nothing.';
comment on column coordinator.leaders.singleton  is 'Always true: one row.';
comment on column coordinator.leaders.process_id is 'The leading process, see processes; null when none leads.';
comment on column coordinator.leaders.term       is 'Grows by one at each change of leader.';
comment on column coordinator.leaders.expires_at is 'The lead is free from here on, or as soon as the process''s advisory lock is.';
insert into coordinator.leaders default values;

------------------------------------------------------------------------------------------------- agents
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
  constraint agents_name check (length(name) between 1 and 200),
  constraint agents_role check (length(role) between 1 and 200)
);
create index agents_name_idx on coordinator.agents (project_id, name, id); -- directive_inbox: roles of a name; agent_list
create index agents_expires_at_idx on coordinator.agents (expires_at); -- agent_reap: whose heartbeat ended
create index agents_process_idx on coordinator.agents (process_id) where process_id is not null; -- agent_reap: a dead process's
comment on table  coordinator.agents               is 'Running agents, one row an incarnation. Written by agent_register, agent_heartbeat, agent_deregister and agent_reap.';
comment on column coordinator.agents.id            is 'New at each start of the agent: the holder of what it holds.';
comment on column coordinator.agents.project_id    is 'See projects.';
comment on column coordinator.agents.project       is 'The project''s name, which never changes: lock_acquire need not look for it.';
comment on column coordinator.agents.name          is 'What directives are addressed to; stays the same over restarts.';
comment on column coordinator.agents.role          is 'What directives to a role are addressed to; may be null.';
comment on column coordinator.agents.job_types     is 'Kinds of work that it takes.';
comment on column coordinator.agents.metadata      is 'A JSON object of the agent''s own.';
comment on column coordinator.agents.process_id    is 'The process that it ends with, see processes; null when only its heartbeat counts.';
comment on column coordinator.agents.ttl           is 'How long it may be silent.';
comment on column coordinator.agents.registered_at is 'When it registered (database clock).';
comment on column coordinator.agents.heartbeat_at  is 'When it was heard of last (database clock).';
comment on column coordinator.agents.expires_at    is 'heartbeat_at + ttl: reaped after this.';

------------------------------------------------------------------------------------------------- signals
create sequence coordinator.signal_versions;
comment on sequence coordinator.signal_versions is 'Versions of all signals: a version is never given twice, not even to a key that was deleted and set again.';

-- No foreign key to projects: its share lock on one row would be taken by every writer of a project.
-- project_delete deletes the rows; signal_prune those that raced with it.
create table coordinator.signals (
  project_id bigint      not null,
  key        text        collate "C" not null,
  value      jsonb       not null,
  version    bigint      not null,
  critical   boolean     not null,
  agent_id   uuid,
  actor      text        not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  expires_at timestamptz,
  constraint signals_pkey primary key (project_id, key), -- signal_get, signal_list by prefix
  constraint signals_key check (length(key) between 1 and 512),
  constraint signals_critical check (critical = (expires_at is null))
);
create index signals_expires_at_idx on coordinator.signals (expires_at) where expires_at is not null; -- signal_expire
create index signals_agent_idx on coordinator.signals (agent_id) where agent_id is not null; -- the end of an agent
comment on table  coordinator.signals            is 'Keys with values, expired ones included until they are swept: read signals_live. Written by signal_set, signal_delete, signal_expire.';
comment on column coordinator.signals.project_id is 'See projects.';
comment on column coordinator.signals.key        is 'At most 512 characters; / parts it into segments. Order is by bytes.';
comment on column coordinator.signals.value      is 'Any JSON value.';
comment on column coordinator.signals.version    is 'Grows with each set; unique over all signals and for ever. Compare for equality only.';
comment on column coordinator.signals.critical   is 'True: never expires.';
comment on column coordinator.signals.agent_id   is 'The agent that an ephemeral signal ends with; null for others.';
comment on column coordinator.signals.actor      is 'Who set it last: an agent''s name or a role of the database.';
comment on column coordinator.signals.created_at is 'When the key came to be (database clock).';
comment on column coordinator.signals.updated_at is 'When it was set last (database clock).';
comment on column coordinator.signals.expires_at is 'Absent for readers from here on; null when critical.';

create table coordinator.signal_rules (
  id         bigint      generated always as identity constraint signal_rules_pkey primary key,
  project_id bigint      constraint signal_rules_project_fkey references coordinator.projects (id) on delete cascade,
  when_set   text        collate "C" not null,
  clears     text[]      not null,
  created_at timestamptz not null,
  constraint signal_rules_when_set check (length(when_set) between 1 and 512 and strpos(when_set, '/') = 0)
);
create unique index signal_rules_when_set_key on coordinator.signal_rules (when_set, coalesce(project_id, 0)); -- signal_set
comment on table  coordinator.signal_rules            is 'What setting one signal clears in the same transaction. A rule speaks of the last segment of a key and clears beside it: with the default rule, setting task/7/REJECTED deletes task/7/COMPLETED and task/7/QA_PASSED. Written by rule_set and rule_delete.';
comment on column coordinator.signal_rules.id         is 'Internal number.';
comment on column coordinator.signal_rules.project_id is 'The project that it holds in; null for all.';
comment on column coordinator.signal_rules.when_set   is 'Last segment of the key whose setting triggers the rule.';
comment on column coordinator.signal_rules.clears     is 'Last segments of the keys that are then deleted.';
comment on column coordinator.signal_rules.created_at is 'When the rule was made or changed last (database clock).';
insert into coordinator.signal_rules (when_set, clears, created_at)
values ('REJECTED', '{COMPLETED,QA_PASSED}', clock_timestamp());

------------------------------------------------------------------------------------------------- directives
create table coordinator.directives (
  id         bigint      generated always as identity constraint directives_pkey primary key,
  project_id bigint      not null constraint directives_project_fkey references coordinator.projects (id) on delete cascade,
  to_agent   text        collate "C",
  to_role    text        collate "C",
  body       text        not null,
  data       jsonb       not null default '{}',
  priority   smallint    not null,
  key        text        collate "C",
  status     text        not null,
  reason     text,
  actor      text        not null,
  sent_at    timestamptz not null,
  ended_at   timestamptz,
  expires_at timestamptz not null,
  constraint directives_target check (num_nonnulls(to_agent, to_role) <= 1),
  constraint directives_status check (status in ('open', 'revoked', 'superseded', 'expired')),
  constraint directives_ended check ((status = 'open') = (ended_at is null)),
  constraint directives_body check (length(body) between 1 and 65536)
);
create index directives_open_idx on coordinator.directives (project_id, (-priority), id) where status = 'open'; -- directive_inbox, directive_pending
create index directives_project_idx on coordinator.directives (project_id, id); -- directive_list; project_delete
create unique index directives_key_idx on coordinator.directives (project_id, key, coalesce('a' || to_agent, 'r' || to_role, '')) where status = 'open' and key is not null; -- directive_send: supersede
create index directives_expires_at_idx on coordinator.directives (expires_at) where status = 'open'; -- directive_expire
create index directives_ended_at_idx on coordinator.directives (ended_at) where status <> 'open'; -- directive_prune
comment on table  coordinator.directives            is 'What managers tell agents. Written by directive_send, directive_revoke, directive_expire; pruned some time after their end.';
comment on column coordinator.directives.id         is 'Number of the directive; grows in the order of sending.';
comment on column coordinator.directives.project_id is 'See projects.';
comment on column coordinator.directives.to_agent   is 'Name of the one agent it is for.';
comment on column coordinator.directives.to_role    is 'Role of the agents it is for. Both null: everyone in the project, now or later.';
comment on column coordinator.directives.body       is 'The text; at most 65,536 characters.';
comment on column coordinator.directives.data       is 'A JSON object for programs; may be empty.';
comment on column coordinator.directives.priority   is '-100 to 100; higher comes first in an inbox, then the order of sending.';
comment on column coordinator.directives.key        is 'A newer directive with the same key and target supersedes the older; may be null.';
comment on column coordinator.directives.status     is 'open, revoked, superseded or expired.';
comment on column coordinator.directives.reason     is 'Why it was revoked; may be null.';
comment on column coordinator.directives.actor      is 'Who sent it: an agent''s name or a role of the database.';
comment on column coordinator.directives.sent_at    is 'When it was sent (database clock).';
comment on column coordinator.directives.ended_at   is 'When it stopped being open.';
comment on column coordinator.directives.expires_at is 'Nobody gets it from here on.';

create table coordinator.directive_receipts (
  directive_id    bigint      not null constraint directive_receipts_directive_fkey references coordinator.directives (id) on delete cascade,
  agent           text        collate "C" not null,
  status          text        not null,
  reason          text,
  seen_at         timestamptz not null,
  acknowledged_at timestamptz not null,
  constraint directive_receipts_pkey primary key (directive_id, agent), -- directive_acknowledge, directive_inbox
  constraint directive_receipts_status check (status in ('seen', 'done', 'refused'))
);
comment on table  coordinator.directive_receipts                 is 'Who acknowledged which directive. Written by directive_acknowledge.';
comment on column coordinator.directive_receipts.directive_id    is 'See directives.';
comment on column coordinator.directive_receipts.agent           is 'Name of the agent.';
comment on column coordinator.directive_receipts.status          is 'seen, then done or refused.';
comment on column coordinator.directive_receipts.reason          is 'Why it was refused, or a word with done.';
comment on column coordinator.directive_receipts.seen_at         is 'When it was acknowledged first (database clock).';
comment on column coordinator.directive_receipts.acknowledged_at is 'When the present status was given (database clock).';

------------------------------------------------------------------------------------------------- events
create table coordinator.outbox (
  id      bigint      generated always as identity,
  xid     xid8        not null default pg_current_xact_id(),
  type    text        not null,
  project text        not null,
  key     text,
  actor   text        not null,
  at      timestamptz not null,
  data    jsonb       not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);
create index outbox_xid_idx on coordinator.outbox (xid, id); -- relay_step: what the last snapshot did not see, in order
comment on table  coordinator.outbox         is 'Events that are not numbered yet, written in the transaction of the change; relay_step copies them into events, outbox_prune deletes the copied.';
comment on column coordinator.outbox.id      is 'Order within the writing transaction.';
comment on column coordinator.outbox.xid     is 'The writing transaction: tells what a snapshot of the relay has seen.';
comment on column coordinator.outbox.type    is 'See event_types.';
comment on column coordinator.outbox.project is 'Name of the project.';
comment on column coordinator.outbox.key     is 'What the event is about.';
comment on column coordinator.outbox.actor   is 'Who did it: an agent''s name or a role of the database.';
comment on column coordinator.outbox.at      is 'When it was done (database clock).';
comment on column coordinator.outbox.data    is 'See event_types.';

create table coordinator.events (
  seq        bigint      not null,
  type       text        not null,
  project    text        not null,
  key        text,
  actor      text        not null,
  at         timestamptz not null,
  stamped_at timestamptz not null,
  data       jsonb       not null,
  constraint events_pkey primary key (seq) -- events_since
) partition by range (seq);
comment on table  coordinator.events            is 'The event log: numbered without gaps, partitioned by seq, pruned by age. Written by relay_step and event_prune only; read with events_since.';
comment on column coordinator.events.seq        is 'Place in the log. If A was committed before B began, seq(A) < seq(B).';
comment on column coordinator.events.type       is 'See event_types.';
comment on column coordinator.events.project    is 'Name of the project.';
comment on column coordinator.events.key        is 'What the event is about: the key of a signal, the id of a directive or agent, the name of a project.';
comment on column coordinator.events.actor      is 'Who did it: an agent''s name or a role of the database.';
comment on column coordinator.events.at         is 'When it was done (database clock).';
comment on column coordinator.events.stamped_at is 'When it was numbered (database clock): what retention goes by.';
comment on column coordinator.events.data       is 'See event_types.';

create table coordinator.relay (
  singleton boolean not null default true constraint relay_pkey primary key,
  epoch     text    not null,
  identity  text    not null default '',
  floor_seq bigint  not null default 0,
  constraint relay_singleton check (singleton)
);
comment on table  coordinator.relay           is 'The relay''s lock, and what changes rarely. relay_step locks the row for its transaction and does not update it: a held snapshot must not make the row''s history long.';
comment on column coordinator.relay.singleton is 'Always true: one row.';
comment on column coordinator.relay.epoch     is 'First part of every cursor; new after the database was restored elsewhere.';
comment on column coordinator.relay.identity  is 'Cluster and database that the epoch belongs to.';
comment on column coordinator.relay.floor_seq is 'Events up to and including this one are pruned.';
insert into coordinator.relay (epoch) values (substr(md5(gen_random_uuid()::text), 1, 8));

create table coordinator.relay_batches (
  id         bigint      generated always as identity constraint relay_batches_pkey primary key, -- relay_step: the newest
  head_seq   bigint      not null,
  base       pg_snapshot not null,
  round      pg_snapshot,
  round_xid  xid8,
  round_id   bigint,
  stamped_at timestamptz not null,
  constraint relay_batches_round check (num_nulls(round, round_xid, round_id) in (0, 3))
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
comment on table  coordinator.relay_batches            is 'How far the relay is: the newest row counts, outbox_prune deletes the others. Appended by relay_step.';
comment on column coordinator.relay_batches.id         is 'Order of the batches.';
comment on column coordinator.relay_batches.head_seq   is 'Last seq that was given out.';
comment on column coordinator.relay_batches.base       is 'Every outbox row that this snapshot saw is in the log.';
comment on column coordinator.relay_batches.round      is 'A snapshot whose rows are being copied in several batches; null between rounds.';
comment on column coordinator.relay_batches.round_xid  is 'With round_id: the last row of the round that was copied.';
comment on column coordinator.relay_batches.round_id   is 'See round_xid.';
comment on column coordinator.relay_batches.stamped_at is 'When the batch was numbered (database clock).';
insert into coordinator.relay_batches (head_seq, base, stamped_at) values (0, pg_current_snapshot(), clock_timestamp());

-- A sequence because its last_value is read and set outside of transactions, at once, by everybody.
create sequence coordinator.relay_bell as bigint minvalue 0 start 0;
comment on sequence coordinator.relay_bell is 'The relay''s doorbell: last_value is the instant (milliseconds since 1970) until which writers ring because the relay sleeps; 0 while it is awake.';
select setval('coordinator.relay_bell', 0);
