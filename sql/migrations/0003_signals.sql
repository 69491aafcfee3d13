-- Signals, and the rules by which one clears others.

create sequence coordinator.signal_versions;
comment on sequence coordinator.signal_versions is 'Versions of all signals. A version is never used twice, not even for a key that was deleted and set again.';

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
comment on table  coordinator.signals            is 'Signals, including expired ones that are not deleted yet: read signals_live. Written by signal_set, signal_delete and signal_expire.';
comment on column coordinator.signals.project_id is 'See projects.';
comment on column coordinator.signals.key        is 'At most 512 characters; segments are separated by /. Ordered by bytes.';
comment on column coordinator.signals.value      is 'Any JSON value.';
comment on column coordinator.signals.version    is 'Grows with each set; unique across all signals and all time. Compare for equality only.';
comment on column coordinator.signals.critical   is 'True: never expires.';
comment on column coordinator.signals.agent_id   is 'The agent with which an ephemeral signal ends; null for others.';
comment on column coordinator.signals.actor      is 'Who last set it: the name of an agent or of a database role.';
comment on column coordinator.signals.created_at is 'When the key was created (database clock).';
comment on column coordinator.signals.updated_at is 'When it was last set (database clock).';
comment on column coordinator.signals.expires_at is 'Absent for readers from then on; null if critical.';

create table coordinator.signal_rules (
  id         bigint      generated always as identity constraint signal_rules_pkey primary key,
  project_id bigint      constraint signal_rules_project_fkey references coordinator.projects (id) on delete cascade,
  when_set   text        collate "C" not null,
  clears     text[]      not null,
  created_at timestamptz not null,
  constraint signal_rules_when_set check (length(when_set) between 1 and 512 and strpos(when_set, '/') = 0)
);
create unique index signal_rules_when_set_key on coordinator.signal_rules (when_set, coalesce(project_id, 0)); -- signal_set
comment on table  coordinator.signal_rules            is 'Which signals are cleared when one is set, in the same transaction. A rule names the last segment of a key and clears keys beside it: with the default rule, setting task/7/REJECTED deletes task/7/COMPLETED and task/7/QA_PASSED. Written by rule_set and rule_delete.';
comment on column coordinator.signal_rules.id         is 'Internal number.';
comment on column coordinator.signal_rules.project_id is 'The project to which it applies; null for all.';
comment on column coordinator.signal_rules.when_set   is 'Last segment of the key whose setting triggers the rule.';
comment on column coordinator.signal_rules.clears     is 'Last segments of the keys that are deleted then.';
comment on column coordinator.signal_rules.created_at is 'When the rule was created or last changed (database clock).';
insert into coordinator.signal_rules (when_set, clears, created_at)
values ('REJECTED', '{COMPLETED,QA_PASSED}', clock_timestamp());
