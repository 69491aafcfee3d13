-- Jobs that wait for locks.

create table coordinator.job_lock_waits (
  job_id     uuid   not null constraint job_lock_waits_job_fkey references coordinator.jobs_waiting (id) on delete cascade,
  project_id bigint not null,
  blocker    text   collate "C" not null,
  wanted     text   collate "C" not null,
  class_id   bigint not null,
  rank       bigint not null,
  constraint job_lock_waits_pkey primary key (job_id));
create index job_lock_waits_blocker_idx on coordinator.job_lock_waits (project_id, blocker, wanted, class_id, rank, job_id); -- job_lock_wake
comment on table  coordinator.job_lock_waits            is 'Jobs that wait for a lock: what wakes them. A job has one row, whatever else is in its way; it ends with the row in jobs_waiting.';
comment on column coordinator.job_lock_waits.job_id     is 'The job.';
comment on column coordinator.job_lock_waits.project_id is 'The project.';
comment on column coordinator.job_lock_waits.blocker    is 'The resource whose release wakes it: of the lock or ticket in its way or, once that has gone, what it wants itself.';
comment on column coordinator.job_lock_waits.wanted     is 'Which of its own resources overlaps that.';
comment on column coordinator.job_lock_waits.class_id   is 'Its class: of each, the first job in order is woken.';
comment on column coordinator.job_lock_waits.rank       is 'Order within the class, see job_rank.';

create table coordinator.job_lock_turns (
  project_id bigint      not null,
  resource   text        collate "C" not null,
  job_id     uuid        not null,
  since      timestamptz not null,
  until      timestamptz not null,
  constraint job_lock_turns_pkey primary key (project_id, resource));
create index job_lock_turns_since_idx on coordinator.job_lock_turns (project_id, since, job_id); -- job_lock_turn
comment on table  coordinator.job_lock_turns            is 'Jobs that have waited long for a lock: later jobs do not take what overlaps it before them. A row that has lapsed means nothing.';
comment on column coordinator.job_lock_turns.project_id is 'The project.';
comment on column coordinator.job_lock_turns.resource   is 'What the job wants and others have.';
comment on column coordinator.job_lock_turns.job_id     is 'The job.';
comment on column coordinator.job_lock_turns.since      is 'Since when it could have started: of several, the earliest goes first.';
comment on column coordinator.job_lock_turns.until      is 'When its turn lapses, unless it looks for the lock again before.';
