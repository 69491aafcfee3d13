-- Jobs: one row that is written at the enqueue and deleted at the end, narrow tables for what changes in between, and history in
-- partitions by day. sql/functions/job/job.sql says how they belong together.

create sequence coordinator.job_fences;
comment on sequence coordinator.job_fences is 'Fences of jobs: a new number at each claim.';
create sequence coordinator.job_turns;
comment on sequence coordinator.job_turns is 'Places of permits in their line.';

create table coordinator.queues (
  project_id          bigint      not null constraint queues_project_fkey references coordinator.projects on delete cascade,
  name                text        collate "C" not null,
  ageing              interval,
  fair                boolean     not null default false,
  weights             jsonb       not null default '{}',
  max_waiting         integer,
  max_waiting_per_key integer,
  events              text        not null default 'call',
  paused_at           timestamptz,
  paused_by           text,
  pause_reason        text,
  actor               text        not null,
  created_at          timestamptz not null,
  updated_at          timestamptz not null,
  constraint queues_pkey primary key (project_id, name),
  constraint queues_events check (events in ('call', 'job')));
comment on table  coordinator.queues                     is 'Policies of queues of jobs: a row for each queue, inserted at its first use.';
comment on column coordinator.queues.project_id          is 'The project.';
comment on column coordinator.queues.name                is 'Name of the queue.';
comment on column coordinator.queues.ageing              is 'How long a job waits to gain one step of priority; null: strict priority.';
comment on column coordinator.queues.fair                is 'Whether keys take turns.';
comment on column coordinator.queues.weights             is 'Weights of keys in a fair queue; 1 for others.';
comment on column coordinator.queues.max_waiting         is 'Most jobs that wait in it; null: no limit.';
comment on column coordinator.queues.max_waiting_per_key is 'Most jobs of one key that wait in it; null: no limit.';
comment on column coordinator.queues.events              is 'call: one event for each call and transition; job: one for each job.';
comment on column coordinator.queues.paused_at           is 'When it was paused; null: it is not.';
comment on column coordinator.queues.paused_by           is 'Who paused it.';
comment on column coordinator.queues.pause_reason        is 'Why it was paused.';
comment on column coordinator.queues.actor               is 'Who created it or last changed it.';
comment on column coordinator.queues.created_at          is 'When it was first used or set.';
comment on column coordinator.queues.updated_at          is 'When it was last changed.';

create table coordinator.job_classes (
  id         bigint not null generated always as identity constraint job_classes_pkey primary key,
  project_id bigint not null,
  queue      text   collate "C" not null,
  type       text   collate "C" not null,
  labels     text[] collate "C" not null default '{}',
  limits     text[] collate "C" not null default '{}',
  limit_ids  bigint[] not null default '{}',
  keyed      boolean not null default false,
  locks      boolean not null default false,
  arranging  boolean not null default false,
  constraint job_classes_key unique (project_id, queue, type, labels, limits, locks), -- job_enqueue: the class of a job
  constraint job_classes_queue_fkey foreign key (project_id, queue) references coordinator.queues on delete cascade);
create index job_classes_type_idx on coordinator.job_classes (project_id, type); -- job_claim: the classes that a worker can run
comment on table  coordinator.job_classes            is 'Classes of jobs: what decides which workers can run a job. Few, and static.';
comment on column coordinator.job_classes.id         is 'Number of the class.';
comment on column coordinator.job_classes.project_id is 'The project.';
comment on column coordinator.job_classes.queue      is 'Name of the queue.';
comment on column coordinator.job_classes.type       is 'Type of the jobs.';
comment on column coordinator.job_classes.labels     is 'Labels that a worker needs, sorted.';
comment on column coordinator.job_classes.limits     is 'Names of the limits that its jobs ask for, sorted.';
comment on column coordinator.job_classes.keyed      is 'Whether one of the limits is per key.';
comment on column coordinator.job_classes.locks      is 'Whether the jobs have locks: other claims need not look.';
comment on column coordinator.job_classes.arranging  is 'Whether some of its queued jobs have their places by an earlier policy, see job_placements: claims look with and without lanes.';
comment on column coordinator.job_classes.limit_ids  is 'The limits that apply to its jobs, by number: those that they ask for, and those of the queue and the type.';

create table coordinator.job_lanes (
  id       bigint  not null generated always as identity constraint job_lanes_pkey primary key,
  class_id bigint  not null constraint job_lanes_class_fkey references coordinator.job_classes on delete cascade,
  key      text    collate "C" not null,
  weight   integer not null default 1,
  hash     bigint,
  constraint job_lanes_key unique (class_id, key)); -- job_enqueue: the lane of a key
create index job_lanes_hash_idx on coordinator.job_lanes (hash) where hash is not null; -- limit_unpark
comment on table  coordinator.job_lanes          is 'Lanes: the keys of a class in a fair queue, or with a limit per key, that have jobs to be claimed. The first job inserts one, and the claim that finds it empty deletes it.';
comment on column coordinator.job_lanes.id       is 'Number of the lane; 0 stands for no lane.';
comment on column coordinator.job_lanes.class_id is 'The class.';
comment on column coordinator.job_lanes.key      is 'The key; empty for jobs without one.';
comment on column coordinator.job_lanes.weight   is 'How many shares of a turn it gets.';
comment on column coordinator.job_lanes.hash     is 'Hash of project and key, if each key has slots of its own.';

create table coordinator.job_permits (
  class_id bigint not null,
  turn     bigint not null,
  lane_id  bigint not null,
  constraint job_permits_pkey primary key (class_id, turn)) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
comment on table  coordinator.job_permits          is 'The line of the lanes of a class: a permit for each. Rows are inserted and deleted, never updated.';
comment on column coordinator.job_permits.class_id is 'The class.';
comment on column coordinator.job_permits.turn     is 'Place in the line.';
comment on column coordinator.job_permits.lane_id  is 'The lane that may be served.';

create table coordinator.jobs_open (
  id           uuid        not null constraint jobs_open_pkey primary key,
  project_id   bigint      not null,
  class_id     bigint      not null,
  queue        text        collate "C" not null,
  type         text        collate "C" not null,
  key          text        collate "C",
  priority     smallint    not null default 0,
  payload      jsonb       not null,
  labels       text[]      not null default '{}',
  limits       jsonb,
  locks        text[],
  max_attempts smallint    not null default 3,
  backoff      interval,
  start_by     timestamptz,
  deadline     interval,
  stall        interval,
  rescue       text,
  dedupe_key   text        collate "C",
  parent_id    uuid,
  root_id      uuid,
  depth        smallint,
  after        uuid[],
  after_mode   text,
  on_failure   text,
  awaited      boolean     not null default false,
  paused       jsonb,
  retry_of     uuid,
  actor        text        not null,
  created_at   timestamptz not null,
  scheduled_at timestamptz not null,
  attempts     smallint    not null default 0,
  deaths       smallint    not null default 0,
  checkpoint   jsonb,
  error        text,
  past         jsonb,
  constraint jobs_open_rescue check (rescue in ('resume', 'fail')),
  constraint jobs_open_after_mode check (after_mode = 'any'),
  constraint jobs_open_on_failure check (on_failure in ('ignore', 'run'))
) with (fillfactor = 90, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index jobs_open_project_idx  on coordinator.jobs_open (project_id, id); -- job_list, project_delete
create index jobs_open_key_idx      on coordinator.jobs_open (project_id, key, id) where key is not null; -- job_list, most waiting jobs of a key
create index jobs_open_root_idx     on coordinator.jobs_open (root_id, parent_id) where root_id is not null; -- a tree, most children
create index jobs_open_start_by_idx on coordinator.jobs_open (start_by) where start_by is not null; -- job_expire
comment on table  coordinator.jobs_open              is 'Jobs that have not ended, and those that are running. Inserted once and deleted at the end; only an attempt that fails updates a row.';
comment on column coordinator.jobs_open.id           is 'UUID, ordered by time.';
comment on column coordinator.jobs_open.project_id   is 'The project.';
comment on column coordinator.jobs_open.class_id     is 'Its class: project, queue, type, labels.';
comment on column coordinator.jobs_open.queue        is 'Name of the queue.';
comment on column coordinator.jobs_open.type         is 'Type: what a worker must have in its job_types.';
comment on column coordinator.jobs_open.key          is 'Key by which queues are fair; may be null.';
comment on column coordinator.jobs_open.priority     is 'Higher comes first.';
comment on column coordinator.jobs_open.payload      is 'Any JSON value.';
comment on column coordinator.jobs_open.labels       is 'Labels that a worker needs.';
comment on column coordinator.jobs_open.locks        is 'Resources that it has locked while it runs; null: none.';
comment on column coordinator.jobs_open.limits       is 'Limits that it asks for by name, and what it costs of each; null: none.';
comment on column coordinator.jobs_open.max_attempts is 'Most attempts.';
comment on column coordinator.jobs_open.backoff      is 'Wait after the first failed attempt, doubled by each; null: the default.';
comment on column coordinator.jobs_open.start_by     is 'It expires unless an attempt began before.';
comment on column coordinator.jobs_open.deadline     is 'Longest run of an attempt; null: a day.';
comment on column coordinator.jobs_open.stall        is 'Longest time without progress; null: no limit.';
comment on column coordinator.jobs_open.rescue       is 'What follows an attempt that was lost: resume from the checkpoint, or fail; null: retry from the beginning.';
comment on column coordinator.jobs_open.dedupe_key   is 'Its key in job_dedupes.';
comment on column coordinator.jobs_open.parent_id    is 'The job that enqueued it.';
comment on column coordinator.jobs_open.root_id      is 'The root of its tree; null: it has no parent.';
comment on column coordinator.jobs_open.depth        is 'How many jobs are above it; null: it has no parent.';
comment on column coordinator.jobs_open.after        is 'The jobs that it starts after; may be null.';
comment on column coordinator.jobs_open.after_mode   is 'any: it starts after one of them; null: after all.';
comment on column coordinator.jobs_open.on_failure   is 'What follows if one of them does not complete: ignore or run; null: it is cancelled.';
comment on column coordinator.jobs_open.paused       is 'By whom, when and why it was paused, and whether with its tree; null: it is not.';
comment on column coordinator.jobs_open.awaited      is 'Whether other jobs wait for its end, or did.';
comment on column coordinator.jobs_open.retry_of     is 'The ended job that it repeats.';
comment on column coordinator.jobs_open.actor        is 'Who enqueued it.';
comment on column coordinator.jobs_open.created_at   is 'When it was enqueued.';
comment on column coordinator.jobs_open.scheduled_at is 'When it may start at the earliest.';
comment on column coordinator.jobs_open.attempts     is 'Attempts that ended and count.';
comment on column coordinator.jobs_open.deaths       is 'Attempts in a row whose worker died.';
comment on column coordinator.jobs_open.checkpoint   is 'What the last attempt left for the next one.';
comment on column coordinator.jobs_open.error        is 'Error of the last attempt.';
comment on column coordinator.jobs_open.past         is 'Attempts that ended, as an array, newest last.';

create table coordinator.jobs_ready (
  class_id bigint not null,
  lane_id  bigint not null,
  rank     bigint not null,
  id       uuid   not null,
  constraint jobs_ready_pkey primary key (class_id, lane_id, rank, id)) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
comment on table  coordinator.jobs_ready          is 'Jobs that can be claimed. Inserted and deleted, never updated.';
comment on column coordinator.jobs_ready.class_id is 'The class.';
comment on column coordinator.jobs_ready.lane_id  is 'The lane; 0 where the queue is not fair.';
comment on column coordinator.jobs_ready.rank     is 'Order within the lane, see job_rank.';
comment on column coordinator.jobs_ready.id       is 'The job.';

create table coordinator.jobs_later (
  id       uuid        not null constraint jobs_later_pkey primary key,
  class_id bigint      not null,
  due_at   timestamptz not null) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index jobs_later_due_idx   on coordinator.jobs_later (due_at);   -- job_promote
create index jobs_later_class_idx on coordinator.jobs_later (class_id); -- most waiting jobs of a queue
comment on table  coordinator.jobs_later          is 'Jobs that become ready at an instant: scheduled, snoozed, or backing off.';
comment on column coordinator.jobs_later.id       is 'The job.';
comment on column coordinator.jobs_later.class_id is 'The class.';
comment on column coordinator.jobs_later.due_at   is 'When it becomes ready.';

create table coordinator.jobs_running (
  id            uuid        not null constraint jobs_running_pkey primary key,
  fence         bigint      not null,
  agent_id      uuid        not null,
  class_id      bigint      not null,
  attempt       smallint    not null,
  started_at    timestamptz not null,
  deadline_at   timestamptz not null,
  stall_at      timestamptz,
  request_id    uuid,
  slots         bigint[],
  key_hash      bigint,
  charged       boolean     not null default false,
  percent       double precision,
  message       text,
  progress_at   timestamptz,
  checkpoint    jsonb,
  tokens        jsonb,
  cancel_at     timestamptz,
  cancelled_by  text,
  cancel_reason text) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index jobs_running_agent_idx on coordinator.jobs_running (agent_id); -- agent_end, job_reconcile, job_rescue
create index jobs_running_due_idx   on coordinator.jobs_running (least(deadline_at, stall_at, cancel_at)); -- job_rescue
create index jobs_running_key_idx   on coordinator.jobs_running (key_hash) where key_hash is not null; -- limit_rooms
create index agents_covered_idx     on coordinator.agents (heartbeat_at) where expires_at - heartbeat_at > ttl; -- job_rescue: who lives by its locks alone
comment on table  coordinator.jobs_running               is 'Attempts that run: a row for each job that a worker has.';
comment on column coordinator.jobs_running.id            is 'The job.';
comment on column coordinator.jobs_running.fence         is 'Number of the claim; every verb of the worker must give it.';
comment on column coordinator.jobs_running.agent_id      is 'The worker.';
comment on column coordinator.jobs_running.class_id      is 'The class.';
comment on column coordinator.jobs_running.attempt       is 'Number of the attempt, from 1.';
comment on column coordinator.jobs_running.started_at    is 'When it was claimed.';
comment on column coordinator.jobs_running.deadline_at   is 'The attempt ends at this instant.';
comment on column coordinator.jobs_running.stall_at      is 'The attempt ends at this instant without progress; null: no limit.';
comment on column coordinator.jobs_running.request_id     is 'Id of the claim''s request.';
comment on column coordinator.jobs_running.key_hash      is 'Hash of project and key, if each key has slots of its own.';
comment on column coordinator.jobs_running.slots         is 'Limits of which it has a slot; null: none.';
comment on column coordinator.jobs_running.charged       is 'Whether it has rows in job_charges.';
comment on column coordinator.jobs_running.percent       is 'Progress, 0 to 100.';
comment on column coordinator.jobs_running.message       is 'Progress, in words.';
comment on column coordinator.jobs_running.progress_at   is 'When progress was last reported.';
comment on column coordinator.jobs_running.checkpoint    is 'What a next attempt continues from.';
comment on column coordinator.jobs_running.tokens        is 'Fencing tokens of its locks, by resource; null: it has none.';
comment on column coordinator.jobs_running.cancel_at     is 'When the fence is revoked, if a cancellation was requested.';
comment on column coordinator.jobs_running.cancelled_by  is 'Who requested it.';
comment on column coordinator.jobs_running.cancel_reason is 'Why it was requested.';

create table coordinator.job_dedupes (
  project_id bigint      not null,
  key        text        collate "C" not null,
  job_id     uuid        not null,
  expires_at timestamptz,
  failed     boolean     not null default false,
  constraint job_dedupes_pkey primary key (project_id, key));
create index job_dedupes_expires_idx on coordinator.job_dedupes (expires_at); -- job_dedupe_prune
comment on table  coordinator.job_dedupes            is 'Dedupe keys: the job that answers for a key.';
comment on column coordinator.job_dedupes.project_id is 'The project.';
comment on column coordinator.job_dedupes.key        is 'The key.';
comment on column coordinator.job_dedupes.job_id     is 'The job.';
comment on column coordinator.job_dedupes.expires_at is 'End of the window; null: it ends with the job.';
comment on column coordinator.job_dedupes.failed     is 'Whether the job answers for the key even if it failed.';

create table coordinator.jobs_ended (
  id           uuid        not null,
  project_id   bigint      not null,
  queue        text        collate "C" not null,
  type         text        collate "C" not null,
  key          text        collate "C",
  priority     smallint    not null,
  payload      jsonb       not null,
  labels       text[]      not null,
  limits       jsonb,
  locks        text[],
  max_attempts smallint    not null,
  dedupe_key   text,
  parent_id    uuid,
  retry_of     uuid,
  actor        text        not null,
  created_at   timestamptz not null,
  scheduled_at timestamptz not null,
  status       text        not null,
  reason       text,
  attempts     smallint    not null,
  agent_id     uuid,
  worker       text,
  fence        bigint,
  started_at   timestamptz,
  completed_at timestamptz not null,
  ended_by     text        not null,
  result       jsonb,
  error        text,
  checkpoint   jsonb,
  past         jsonb,
  steps        jsonb,
  chunks       jsonb,
  backoff      interval,
  deadline     interval,
  stall        interval,
  rescue       text,
  retried_as   uuid,
  root_id      uuid,
  depth        smallint,
  after        uuid[],
  after_mode   text,
  on_failure   text,
  awaited      boolean) partition by list ((status = 'completed'));
comment on table  coordinator.jobs_ended              is 'Jobs that ended, in partitions by retention (completed, all other ends) and by the day of their end. Read them with the view jobs.';
comment on column coordinator.jobs_ended.id           is 'UUID, ordered by time.';
comment on column coordinator.jobs_ended.project_id   is 'The project.';
comment on column coordinator.jobs_ended.queue        is 'Name of the queue.';
comment on column coordinator.jobs_ended.type         is 'Type.';
comment on column coordinator.jobs_ended.key          is 'Key by which queues are fair; may be null.';
comment on column coordinator.jobs_ended.priority     is 'Higher comes first.';
comment on column coordinator.jobs_ended.payload      is 'Any JSON value.';
comment on column coordinator.jobs_ended.labels       is 'Labels that a worker needed.';
comment on column coordinator.jobs_ended.locks        is 'Resources that it had locked while it ran; null: none.';
comment on column coordinator.jobs_ended.limits       is 'Limits that it asked for by name, and what it cost of each; null: none.';
comment on column coordinator.jobs_ended.max_attempts is 'Most attempts.';
comment on column coordinator.jobs_ended.dedupe_key   is 'Its dedupe key; may be null.';
comment on column coordinator.jobs_ended.parent_id    is 'The job that enqueued it.';
comment on column coordinator.jobs_ended.retry_of     is 'The ended job that it repeated.';
comment on column coordinator.jobs_ended.actor        is 'Who enqueued it.';
comment on column coordinator.jobs_ended.created_at   is 'When it was enqueued.';
comment on column coordinator.jobs_ended.scheduled_at is 'When it was to start at the earliest.';
comment on column coordinator.jobs_ended.status       is 'completed, failed, cancelled or expired.';
comment on column coordinator.jobs_ended.reason       is 'Why it did not complete: error, worker_lost, stalled, deadline, crash_loop, cancelled, replaced, dependency, start_by.';
comment on column coordinator.jobs_ended.attempts     is 'How many attempts counted.';
comment on column coordinator.jobs_ended.agent_id     is 'Who ran it last.';
comment on column coordinator.jobs_ended.worker       is 'Name of who ran it last.';
comment on column coordinator.jobs_ended.fence        is 'Fence of the last attempt.';
comment on column coordinator.jobs_ended.started_at   is 'When the last attempt began.';
comment on column coordinator.jobs_ended.completed_at is 'When it ended.';
comment on column coordinator.jobs_ended.ended_by     is 'Who ended it.';
comment on column coordinator.jobs_ended.result       is 'What the last attempt returned.';
comment on column coordinator.jobs_ended.error        is 'Error of the last attempt.';
comment on column coordinator.jobs_ended.checkpoint   is 'What the last attempt left.';
comment on column coordinator.jobs_ended.past         is 'Earlier attempts, as an array, newest last.';
comment on column coordinator.jobs_ended.steps        is 'Finished steps, as an array, in their order; null: none.';
comment on column coordinator.jobs_ended.chunks       is 'Output, as an array, in its order; null: none.';
comment on column coordinator.jobs_ended.backoff      is 'Wait after the first failed attempt; null: the default.';
comment on column coordinator.jobs_ended.deadline     is 'Longest run of an attempt; null: a day.';
comment on column coordinator.jobs_ended.stall        is 'Longest time without progress; null: no limit.';
comment on column coordinator.jobs_ended.rescue       is 'What followed an attempt that was lost; null: retry from the beginning.';
comment on column coordinator.jobs_ended.retried_as   is 'The job that repeats it; may be null.';
comment on column coordinator.jobs_ended.root_id      is 'The root of its tree; null: it had no parent.';
comment on column coordinator.jobs_ended.depth        is 'How many jobs were above it; null: it had no parent.';
comment on column coordinator.jobs_ended.after        is 'The jobs that it started after; may be null.';
comment on column coordinator.jobs_ended.after_mode   is 'any: it started after one of them; null: after all.';
comment on column coordinator.jobs_ended.on_failure   is 'What followed if one of them did not complete: ignore or run; null: it was cancelled.';
comment on column coordinator.jobs_ended.awaited      is 'true: other jobs waited for its end; else null.';
create table coordinator.jobs_completed   partition of coordinator.jobs_ended for values in (true)  partition by range (completed_at);
create table coordinator.jobs_uncompleted partition of coordinator.jobs_ended for values in (false) partition by range (completed_at);
create table coordinator.jobs_completed_default   partition of coordinator.jobs_completed default;
create table coordinator.jobs_uncompleted_default partition of coordinator.jobs_uncompleted default;
comment on table coordinator.jobs_completed           is 'Jobs that completed, in partitions by day.';
comment on table coordinator.jobs_uncompleted         is 'Jobs that failed, expired or were cancelled, in partitions by day.';
comment on table coordinator.jobs_completed_default   is 'Jobs that completed on a day without a partition.';
comment on table coordinator.jobs_uncompleted_default is 'Jobs that ended otherwise on a day without a partition.';
create index jobs_ended_project_idx on coordinator.jobs_ended (project_id, id); -- job_list, a stale fence
create index jobs_ended_root_idx    on coordinator.jobs_ended (project_id, root_id, id) where root_id is not null; -- a tree
create index jobs_completed_default_idx   on coordinator.jobs_completed_default (completed_at);   -- job_prune, job_extend
create index jobs_uncompleted_default_idx on coordinator.jobs_uncompleted_default (completed_at); -- job_prune, job_extend

create type coordinator.job_order as (
  place integer, type text, payload jsonb, queue text, key text, priority integer, at timestamptz, delay interval, start_by timestamptz,
  max_attempts integer, backoff interval, deadline interval, stall interval, rescue text, labels text[],
  dedupe_key text, dedupe_for interval, on_duplicate text, dedupe_failed boolean, parent text, after text[],
  after_mode text, on_failure text, limits jsonb, locks text[]);
comment on type coordinator.job_order is 'A job to enqueue: its place in the call, and the parameters of job_enqueue.';

create type coordinator.job_receipt as (
  id uuid, queue text, type text, status text, scheduled_at timestamptz, created boolean);
comment on type coordinator.job_receipt is
  'A job that was enqueued: queued, scheduled for scheduled_at, or waiting; with created false, the job that answered for its dedupe key.';

create type coordinator.job_grant as (
  id uuid, fence bigint, type text, queue text, key text, attempt integer, payload jsonb, checkpoint jsonb, deadline_at timestamptz, stale boolean,
  steps integer, tokens jsonb);
comment on type coordinator.job_grant is
  'A job that a claim gives to a worker; with stale, one that the worker named as finished and no longer had, of which only the id and the fence are given. steps: how many of its steps are finished.';

create type coordinator.job_lease as (
  id uuid, fence bigint, deadline_at timestamptz, stall_at timestamptz, cancel_at timestamptz, cancel_reason text);
comment on type coordinator.job_lease is
  'Until when a worker may have a job; with cancel_at, a cancellation was requested, and the fence is revoked then.';

create type coordinator.job_outcome as (
  id uuid, status text, reason text, due_at timestamptz);
comment on type coordinator.job_outcome is
  'What became of a job: its status, the reason of an end, and when it starts again or, while it runs, when its fence is revoked.';

create type coordinator.job_verdict as (
  fence bigint, id uuid, verdict text);
comment on type coordinator.job_verdict is
  'What a worker has to know of a fence: lost, if the worker no longer has the job; cancel, if it must stop; released, if it did not know that it had the job.';
