-- Durable waits and questions of jobs: details of the rows of jobs_waiting whose cause is "wait" or "answer", deleted with these.
-- sql/functions/job/suspend.sql says how they are used.

create table coordinator.job_waits (
  job_id     uuid        not null constraint job_waits_pkey primary key constraint job_waits_job_fkey references coordinator.jobs_waiting on delete cascade,
  project_id bigint      not null,
  name       text        collate "C" not null,
  ordinal    integer     not null,
  conditions jsonb       not null,
  question   text,
  options    text[],
  fallback   jsonb,
  fence      bigint      not null,
  worker     text        not null,
  began_at   timestamptz not null,
  due_at     timestamptz,
  after_seq  bigint      not null,
  behind     boolean);
create index job_waits_due_idx      on coordinator.job_waits (due_at) where due_at is not null;           -- job_wait_match: what is due
create index job_waits_behind_idx   on coordinator.job_waits (began_at, job_id) where behind;             -- job_wait_match: the next one that is behind
create index job_waits_after_idx    on coordinator.job_waits (after_seq) where behind is not null;        -- job_wait_match: where to begin, and what was pruned
create index job_waits_question_idx on coordinator.job_waits (project_id, job_id) where question is not null; -- job_questions
comment on table  coordinator.job_waits            is 'What jobs wait for that were suspended, or asked a question.';
comment on column coordinator.job_waits.job_id     is 'The job.';
comment on column coordinator.job_waits.project_id is 'The project.';
comment on column coordinator.job_waits.name       is 'Name of the step that its outcome becomes.';
comment on column coordinator.job_waits.ordinal    is 'Which of the steps of this name.';
comment on column coordinator.job_waits.conditions is 'The conditions, as job_suspend takes them; the first that is met ends the wait.';
comment on column coordinator.job_waits.question   is 'The question to be answered by a manager; null: it waits for conditions.';
comment on column coordinator.job_waits.options    is 'The possible answers; null: any.';
comment on column coordinator.job_waits.fallback   is 'The answer if nobody gives one until due_at; null: none.';
comment on column coordinator.job_waits.fence      is 'Fence of the attempt that began the wait.';
comment on column coordinator.job_waits.worker     is 'Name of the worker that began it.';
comment on column coordinator.job_waits.began_at   is 'When it began.';
comment on column coordinator.job_waits.due_at     is 'When it ends at the latest; null: never.';
comment on column coordinator.job_waits.after_seq  is 'Events up to this one do not concern it.';
comment on column coordinator.job_waits.behind     is 'Whether events between after_seq and the place of the loop have not been compared with it yet; null: no event concerns it.';

create table coordinator.job_watches (
  project text collate "C" not null,
  topic   text collate "C" not null,
  key     text collate "C" not null,
  job_id  uuid not null constraint job_watches_job_fkey references coordinator.job_waits on delete cascade,
  constraint job_watches_pkey primary key (project, topic, key, job_id)); -- job_wait_match: who waits for an event
create index job_watches_job_idx on coordinator.job_watches (job_id); -- the end of a wait
comment on table  coordinator.job_watches         is 'Events that may end waits: what job_wait_match finds a wait by.';
comment on column coordinator.job_watches.project is 'Name of the project.';
comment on column coordinator.job_watches.topic   is 'Type of the event, or a pattern such as signal.*; "job": the end of a job.';
comment on column coordinator.job_watches.key     is 'Key of the event, or the job that ends; empty: any.';
comment on column coordinator.job_watches.job_id  is 'The job that waits.';

create table coordinator.job_wait_log (
  singleton boolean not null default true constraint job_wait_log_pkey primary key,
  seq       bigint  not null,
  held      jsonb   not null default '{}',
  constraint job_wait_log_singleton check (singleton)) with (fillfactor = 50);
comment on table  coordinator.job_wait_log           is 'Where the loop that compares the log with waits is. Whoever compares locks the row.';
comment on column coordinator.job_wait_log.singleton is 'Always true: there is one row.';
comment on column coordinator.job_wait_log.seq       is 'Events up to this one were compared with all waits that are not behind.';
comment on column coordinator.job_wait_log.held      is 'Outcomes of waits whose jobs another transaction had in that moment, by job.';
insert into coordinator.job_wait_log (seq) values (0);

create type coordinator.job_suspension as (
  id uuid, status text, due_at timestamptz, result jsonb);
comment on type coordinator.job_suspension is
  'What became of a job that its worker suspended: waiting, until due_at at the latest; or still running, because the wait is over, with its result.';
