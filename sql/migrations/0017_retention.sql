-- Retention: how long logs, documents and sessions keep what they hold.

create table coordinator.retention (
  id         bigint      generated always as identity constraint retention_pkey primary key,
  project_id bigint      constraint retention_project_fkey references coordinator.projects (id) on delete cascade,
  subject    text        collate "C" not null,
  kind       text        collate "C" not null,
  max_age    interval,
  max_count  bigint,
  actor      text        not null,
  updated_at timestamptz not null,
  constraint retention_subject check (subject in ('log', 'document', 'session', 'artifact')),
  constraint retention_max_age check (extract(epoch from max_age) > 0), -- as retention_set measures it
  constraint retention_max_count check (max_count > 0)
);
create unique index retention_kind_key on coordinator.retention (subject, kind, coalesce(project_id, 0)); -- retention_of
comment on table  coordinator.retention            is 'How much is kept, and for how long: by project, subject and kind. Written by retention_set and retention_reset.';
comment on column coordinator.retention.id         is 'Internal number.';
comment on column coordinator.retention.project_id is 'The project to which it applies; null for all that have none of their own.';
comment on column coordinator.retention.subject    is 'log, document, session or artifact.';
comment on column coordinator.retention.kind       is 'Kind of the logs or documents; * for kinds without a policy of their own, and for sessions and artifacts.';
comment on column coordinator.retention.max_age    is 'Age at which an entry of a log goes, time after its deletion at which a document goes, time without activity after which a session goes, or time since its content was stored after which an artifact of no session goes; null: never.';
comment on column coordinator.retention.max_count  is 'Newest entries that a log keeps, or newest versions that a document keeps; null: all.';
comment on column coordinator.retention.actor      is 'Who set it: the name of an agent or of a database role.';
comment on column coordinator.retention.updated_at is 'When it was set (database clock).';

create table coordinator.retention_sweeps (
  id         bigint generated always as identity constraint retention_sweeps_pkey primary key,
  project_id bigint constraint retention_sweeps_project_fkey references coordinator.projects (id) on delete cascade,
  subject    text   not null,
  kind       text   not null,
  swept_to   bigint not null default 0
);
comment on table  coordinator.retention_sweeps            is 'Changes of retention that have not reached all logs, documents, sessions and artifacts yet. Written by retention_set and retention_reset, worked off by retention_sweep.';
comment on column coordinator.retention_sweeps.id         is 'Their order.';
comment on column coordinator.retention_sweeps.project_id is 'The project whose retention changed; null for all.';
comment on column coordinator.retention_sweeps.subject    is 'log, document, session or artifact.';
comment on column coordinator.retention_sweeps.kind       is 'The kind whose retention changed; * for any.';
comment on column coordinator.retention_sweeps.swept_to   is 'Internal number of the last log, document, session or artifact that the change has reached.';

create type coordinator.retention_policy as (
  project    text,
  subject    text,
  kind       text,
  max_age    interval,
  max_count  bigint,
  actor      text,
  updated_at timestamptz
);
comment on type coordinator.retention_policy is
  'A policy of retention: the project to which it applies (null: all), what it is of, its bounds (null: none), who set it and when.';

create type coordinator.retention_result as (
  subject text,
  kind    text,
  removed bigint
);
comment on type coordinator.retention_result is
  'What retention removed: entries of a log, documents, sessions or artifacts. kind: * where no policy for all projects names the kind.';

create type coordinator.retention_forecast as (
  project   text,
  subject   text,
  kind      text,
  reason    text,
  count     bigint,
  removed   bigint,
  oldest_at timestamptz
);
comment on type coordinator.retention_forecast is
  'What would go now: why (max_age, max_count, or the ttl of a document), from how many logs, documents, sessions or artifacts (count), how many entries, versions, documents, sessions or artifacts (removed), and since when the oldest of them has been there.';
