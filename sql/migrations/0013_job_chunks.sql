-- Output of jobs: what a worker hands out before the job ends. sql/functions/job/output.sql says how it is used.

create table coordinator.job_chunks_open (
  job_id     uuid        not null,
  seq        integer     not null,
  attempt    smallint    not null,
  chunk      jsonb       not null,
  written_at timestamptz not null,
  bytes      bigint      not null,
  constraint job_chunks_open_pkey primary key (job_id, seq) -- job_output, job_end
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
comment on table  coordinator.job_chunks_open            is 'Output of jobs that have not ended. Inserted once, and moved to jobs_ended at the end of the job.';
comment on column coordinator.job_chunks_open.job_id     is 'The job.';
comment on column coordinator.job_chunks_open.seq        is 'Number within the output of the job, from 1, without gaps.';
comment on column coordinator.job_chunks_open.attempt    is 'The attempt that wrote it.';
comment on column coordinator.job_chunks_open.chunk      is 'Any JSON value.';
comment on column coordinator.job_chunks_open.written_at is 'When it was written.';
comment on column coordinator.job_chunks_open.bytes      is 'Output of the job up to this chunk, as text.';

create type coordinator.job_chunk as (
  seq bigint, attempt integer, chunk jsonb, written_at timestamptz, status text);
comment on type coordinator.job_chunk is
  'A chunk of the output of a job; with status, the end of the output: the job has ended with this status, and chunk is null.';
