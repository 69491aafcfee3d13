-- How much the artifacts of a project take up, so that a limit can be compared without counting.

create table coordinator.artifact_usage (
  project_id bigint not null constraint artifact_usage_project_fkey references coordinator.projects (id) on delete cascade,
  count      bigint not null default 0,
  bytes      bigint not null default 0,
  constraint artifact_usage_pkey primary key (project_id) -- artifact_use
);
comment on table  coordinator.artifact_usage            is 'How many artifacts a project has, and how many bytes their contents have. Written by artifact_use.';
comment on column coordinator.artifact_usage.project_id is 'The project.';
comment on column coordinator.artifact_usage.count      is 'Artifacts: names.';
comment on column coordinator.artifact_usage.bytes      is 'Bytes of finished contents, each counted once, in the database or in an object store; those that no artifact has count until artifact_prune deletes them.';
