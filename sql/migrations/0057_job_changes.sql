-- Large trees are changed in portions, see job/tree.sql; job_cancel returns how many jobs it cancelled, and how many follow.

create table coordinator.job_changes (
  id           bigint generated always as identity constraint job_changes_pkey primary key,
  project_id   bigint not null,
  jobs         uuid[] not null,
  reason       text,
  actor        text not null,
  requested_at timestamptz not null
);
create index job_changes_project_idx on coordinator.job_changes (project_id); -- claims, enqueues and ends of a project
comment on table coordinator.job_changes is
  'Cancellations of trees that were too large for one call, until the loop has cancelled the rest.';
comment on column coordinator.job_changes.id is 'Number of the cancellation.';
comment on column coordinator.job_changes.project_id is 'Project of the jobs.';
comment on column coordinator.job_changes.jobs is 'These jobs and all jobs below them are cancelled.';
comment on column coordinator.job_changes.reason is 'Why, for the workers and the history.';
comment on column coordinator.job_changes.actor is 'Who cancelled them.';
comment on column coordinator.job_changes.requested_at is 'When the cancellation was requested.';

alter type coordinator.job_outcome add attribute cancelled integer, add attribute following integer;
comment on column coordinator.job_outcome.cancelled is 'Of a cancellation: how many jobs the call cancelled.';
comment on column coordinator.job_outcome.following is 'Of a cancellation: how many jobs of the tree will be cancelled soon.';

drop function if exists coordinator.job_cancel_tree(bigint, text, uuid[], text, text, timestamptz);
drop function if exists coordinator.job_members(bigint, uuid, boolean);
