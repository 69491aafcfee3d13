-- Jobs that wait for something other than their time: for other jobs, a lock, a limit, an answer. A job in jobs_waiting holds nothing
-- and costs a claim nothing; whatever it waits for wakes it.

create table coordinator.jobs_waiting (
  id       uuid        not null constraint jobs_waiting_pkey primary key,
  class_id bigint      not null,
  cause    text        not null,
  due_at   timestamptz,
  constraint jobs_waiting_cause check (cause in ('jobs', 'lock', 'limit', 'wait', 'answer', 'tree')))
  with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index jobs_waiting_due_idx   on coordinator.jobs_waiting (due_at) where due_at is not null; -- job_wake_due
create index jobs_waiting_class_idx on coordinator.jobs_waiting (class_id);                        -- most waiting jobs of a queue
comment on table  coordinator.jobs_waiting          is 'Jobs that wait for something other than their time. Details of a cause are in tables of their own.';
comment on column coordinator.jobs_waiting.id       is 'The job.';
comment on column coordinator.jobs_waiting.class_id is 'The class.';
comment on column coordinator.jobs_waiting.cause    is 'What it waits for: jobs (the end of others), lock, limit, wait (a durable wait), answer (an approval), or tree (its tree is paused).';
comment on column coordinator.jobs_waiting.due_at   is 'When the loop looks at it at the latest; null: never.';

create table coordinator.job_dependencies (
  after_id uuid not null,
  job_id   uuid not null,
  constraint job_dependencies_pkey primary key (after_id, job_id)) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index job_dependencies_job_idx on coordinator.job_dependencies (job_id); -- what a job still waits for
comment on table  coordinator.job_dependencies          is 'What jobs still wait for: a row for each job whose end another one waits for.';
comment on column coordinator.job_dependencies.after_id is 'The job whose end is waited for.';
comment on column coordinator.job_dependencies.job_id   is 'The job that waits.';

create table coordinator.jobs_unsettled (
  id        uuid    not null constraint jobs_unsettled_pkey primary key,
  completed boolean not null);
comment on table  coordinator.jobs_unsettled           is 'Jobs that ended, and whose dependants have not all been told: more than one call tells, or another transaction had them. A loop continues.';
comment on column coordinator.jobs_unsettled.id        is 'The job.';
comment on column coordinator.jobs_unsettled.completed is 'Whether it completed.';

create type coordinator.job_branch as (
  parent_id uuid, root_id uuid, depth smallint, paused jsonb);
comment on type coordinator.job_branch is 'Where a job to enqueue is in its tree, and whether that is paused.';
