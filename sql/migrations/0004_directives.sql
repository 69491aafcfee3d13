-- Directives, and who acknowledged them.

create table coordinator.directives (
  id         bigint      generated always as identity constraint directives_pkey primary key,
  project_id bigint      not null constraint directives_project_fkey references coordinator.projects (id) on delete cascade,
  to_agent   text        collate "C",
  to_role    text        collate "C",
  to_job     uuid,
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
  constraint directives_target check (num_nonnulls(to_agent, to_role, to_job) <= 1),
  constraint directives_status check (status in ('open', 'revoked', 'superseded', 'expired')),
  constraint directives_ended check ((status = 'open') = (ended_at is null)),
  constraint directives_body check (length(body) between 1 and 65536)
);
create index directives_open_idx on coordinator.directives (project_id, (-priority), id) where status = 'open'; -- directive_inbox, directive_pending
create index directives_project_idx on coordinator.directives (project_id, id); -- directive_list; project_delete
create unique index directives_key_idx on coordinator.directives (project_id, key, coalesce('a' || to_agent, 'r' || to_role, 'j' || to_job, '')) where status = 'open' and key is not null; -- directive_send: supersede
create index directives_job_idx on coordinator.directives (to_job) where status = 'open' and to_job is not null; -- directive_expire
create index directives_expires_at_idx on coordinator.directives (expires_at) where status = 'open'; -- directive_expire
create index directives_ended_at_idx on coordinator.directives (ended_at) where status <> 'open'; -- directive_prune
comment on table  coordinator.directives            is 'Instructions from managers to agents. Written by directive_send, directive_revoke and directive_expire; pruned some time after they end.';
comment on column coordinator.directives.id         is 'Number of the directive, in the order of sending.';
comment on column coordinator.directives.project_id is 'See projects.';
comment on column coordinator.directives.to_agent   is 'Name of the agent that it addresses.';
comment on column coordinator.directives.to_role    is 'Role of the agents that it addresses.';
comment on column coordinator.directives.to_job     is 'Job whose worker it addresses. All null: everyone in the project, now or later.';
comment on column coordinator.directives.body       is 'The text; at most 65,536 characters.';
comment on column coordinator.directives.data       is 'A JSON object for programs; may be empty.';
comment on column coordinator.directives.priority   is '-100 to 100; higher comes first in an inbox, then in the order of sending.';
comment on column coordinator.directives.key        is 'A newer directive with the same key and target supersedes the older; may be null.';
comment on column coordinator.directives.status     is 'open, revoked, superseded or expired.';
comment on column coordinator.directives.reason     is 'Why it was revoked; may be null.';
comment on column coordinator.directives.actor      is 'Who sent it: the name of an agent or of a database role.';
comment on column coordinator.directives.sent_at    is 'When it was sent (database clock).';
comment on column coordinator.directives.ended_at   is 'When it stopped being open.';
comment on column coordinator.directives.expires_at is 'No agent receives it after this.';

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
comment on column coordinator.directive_receipts.reason          is 'Why it was refused, or a remark on done.';
comment on column coordinator.directive_receipts.seen_at         is 'When it was first acknowledged (database clock).';
comment on column coordinator.directive_receipts.acknowledged_at is 'When the current status was set (database clock).';

-- What directive_send returns: a row of directives_sent, and who receives it now.
create type coordinator.directive_dispatch as (
  id bigint, project text, to_agent text, to_role text, to_job uuid, body text, data jsonb, priority integer, key text, status text, actor text,
  sent_at timestamptz, expires_at timestamptz, recipients integer, meant text);
comment on type coordinator.directive_dispatch is 'A directive that was just sent. recipients: registered agents that receive it now. meant: if there are none, the name or role that was probably meant.';
