-- Steps of jobs: what an attempt has finished, for the attempts after it. sql/functions/job/step.sql says how they are used.

create table coordinator.job_steps_open (
  job_id      uuid        not null,
  place       integer     not null,
  name        text        collate "C" not null,
  ordinal     integer     not null,
  kind        text        not null,
  result      jsonb       not null,
  fence       bigint      not null,
  actor       text        not null,
  finished_at timestamptz not null,
  bytes       bigint      not null,
  constraint job_steps_open_pkey primary key (job_id, place), -- job_steps, job_end
  constraint job_steps_open_key unique (job_id, name, ordinal), -- job_step: a step that is finished already
  constraint job_steps_open_kind check (kind in ('step', 'wait', 'answer'))
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
comment on table  coordinator.job_steps_open             is 'Finished steps of jobs that have not ended. Inserted once, and moved to jobs_ended at the end of the job. Read them with the view job_steps.';
comment on column coordinator.job_steps_open.job_id      is 'The job.';
comment on column coordinator.job_steps_open.place       is 'Order in which its steps finished, from 1.';
comment on column coordinator.job_steps_open.name        is 'Name of the step.';
comment on column coordinator.job_steps_open.ordinal     is 'Which of its steps of this name, from 1.';
comment on column coordinator.job_steps_open.kind        is 'step: what a worker did; wait: how a wait ended; answer: the answer of a question.';
comment on column coordinator.job_steps_open.result      is 'What it returned.';
comment on column coordinator.job_steps_open.fence       is 'Fence of the attempt that finished it, or that began the wait.';
comment on column coordinator.job_steps_open.actor       is 'Who finished it: the worker, who answered, or coordinator.';
comment on column coordinator.job_steps_open.finished_at is 'When it finished.';
comment on column coordinator.job_steps_open.bytes       is 'Results of the job up to this one, as text.';
