-- Limits of jobs: what is set, and the free permits of slots and tokens of rates. sql/functions/limit/limit.sql says how claims use them.

create table coordinator.job_limits (
  id           bigint           not null generated always as identity constraint job_limits_pkey primary key,
  project_id   bigint           not null constraint job_limits_project_fkey references coordinator.projects on delete cascade,
  name         text             collate "C" not null,
  kind         text             collate "C" not null,
  queue        text             collate "C",
  type         text             collate "C",
  per_key      boolean          not null default false,
  tree         uuid,
  slots        integer,
  surplus      integer          not null default 0,
  rate         double precision,
  per          interval,
  burst        integer,
  budget       bigint,
  period       text,
  reserve      bigint,
  on_exhausted text,
  held_until   timestamptz,
  held_by      text,
  hold_reason  text,
  actor        text             not null,
  created_at   timestamptz      not null,
  updated_at   timestamptz      not null,
  constraint job_limits_key unique (project_id, name), -- limit_show, job_enqueue
  constraint job_limits_kind check (kind in ('slots', 'rate', 'budget')),
  constraint job_limits_period check (period in ('hour', 'day', 'ever')),
  constraint job_limits_on_exhausted check (on_exhausted in ('stop', 'cancel')));
create unique index job_limits_tree_idx on coordinator.job_limits (project_id, tree, kind) where tree is not null; -- job_claim: the limits of a tree
create index job_limits_keys_idx on coordinator.job_limits (project_id) where per_key and kind <> 'slots'; -- job_claim: rates and budgets per key
comment on table  coordinator.job_limits              is 'Limits of what runs: the number of jobs at once (slots), tokens per interval (rate), or a sum (budget).';
comment on column coordinator.job_limits.id           is 'Number of the limit.';
comment on column coordinator.job_limits.project_id   is 'The project.';
comment on column coordinator.job_limits.name         is 'Name of the limit, by which jobs may ask for it.';
comment on column coordinator.job_limits.kind         is 'slots, rate or budget.';
comment on column coordinator.job_limits.queue        is 'It applies to the jobs of this queue; null: of all.';
comment on column coordinator.job_limits.type         is 'It applies to the jobs of this type; null: of all. Without queue and type, it applies to jobs that name it.';
comment on column coordinator.job_limits.per_key      is 'Whether each key has a limit of its own. Jobs without a key then have none.';
comment on column coordinator.job_limits.tree         is 'It applies to the jobs of the tree that has this root; null: to those of no tree.';
comment on column coordinator.job_limits.slots        is 'Maximum of jobs that run at once.';
comment on column coordinator.job_limits.surplus      is 'Permits beyond slots: it was lowered while more ran. Claims retire them.';
comment on column coordinator.job_limits.rate         is 'Tokens per interval; a job takes one, or what it says it costs.';
comment on column coordinator.job_limits.per          is 'The interval of the rate.';
comment on column coordinator.job_limits.burst        is 'Maximum of tokens that are saved up.';
comment on column coordinator.job_limits.budget       is 'Maximum sum in a period, in units of your choice: tokens, micro-dollars, calls.';
comment on column coordinator.job_limits.period       is 'hour, day (both in UTC) or ever.';
comment on column coordinator.job_limits.reserve      is 'What a claim reserves for a job that does not say what it costs.';
comment on column coordinator.job_limits.on_exhausted is 'What happens to running jobs when the budget is exhausted: nothing (stop: no job starts), or cancel.';
comment on column coordinator.job_limits.held_until   is 'No job that needs it starts before; null: it is not held.';
comment on column coordinator.job_limits.held_by      is 'Who held it.';
comment on column coordinator.job_limits.hold_reason  is 'Why it is held.';
comment on column coordinator.job_limits.actor        is 'Who created it or last changed it.';
comment on column coordinator.job_limits.created_at   is 'When it was first set.';
comment on column coordinator.job_limits.updated_at   is 'When it was last changed.';

create table coordinator.job_slots (
  limit_id bigint not null,
  turn     bigint not null,
  constraint job_slots_pkey primary key (limit_id, turn)) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
comment on table  coordinator.job_slots          is 'Free permits of slots. A claim deletes one for each job, and the end of the attempt inserts another, so with those that run they are always as many as the slots.';
comment on column coordinator.job_slots.limit_id is 'The limit.';
comment on column coordinator.job_slots.turn     is 'Order in which permits are taken.';

create table coordinator.job_buckets (
  limit_id bigint           not null constraint job_buckets_pkey primary key,
  level    double precision not null,
  level_at timestamptz      not null) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_cost_delay = 0);
comment on table  coordinator.job_buckets          is 'Tokens of rates. A claim that takes some has the row to the end of its transaction.';
comment on column coordinator.job_buckets.limit_id is 'The limit.';
comment on column coordinator.job_buckets.level    is 'Tokens that were there at level_at.';
comment on column coordinator.job_buckets.level_at is 'When the level was computed.';

create table coordinator.job_limit_waits (
  limit_id bigint      not null constraint job_limit_waits_pkey primary key,
  due_at   timestamptz,
  classes  bigint[]    not null default '{}') with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_cost_delay = 0);
comment on table  coordinator.job_limit_waits          is 'Limits that a claim lacked: whoever frees some of them wakes workers, and deletes the row.';
comment on column coordinator.job_limit_waits.limit_id is 'The limit.';
comment on column coordinator.job_limit_waits.due_at   is 'When the loop wakes workers; null: when there is a free permit.';
comment on column coordinator.job_limit_waits.classes  is 'With slots per key: classes of which no lane was in the line; the loop wakes workers when one is.';

create table coordinator.job_tree_waits (
  job_id   uuid   not null constraint job_tree_waits_job_fkey references coordinator.jobs_waiting (id) on delete cascade,
  limit_id bigint not null,
  class_id bigint not null,
  rank     bigint not null,
  constraint job_tree_waits_pkey primary key (job_id)) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index job_tree_waits_limit_idx on coordinator.job_tree_waits (limit_id, class_id, rank, job_id); -- limit_wake_trees
comment on table  coordinator.job_tree_waits          is 'Jobs that wait for a limit of their tree. A row ends with that in jobs_waiting.';
comment on column coordinator.job_tree_waits.job_id   is 'The job.';
comment on column coordinator.job_tree_waits.limit_id is 'The limit: of several, the first that had too little left.';
comment on column coordinator.job_tree_waits.class_id is 'Its class: of each, the first jobs in order are woken.';
comment on column coordinator.job_tree_waits.rank     is 'Order within the class, see job_rank.';

create table coordinator.job_keys (
  limit_id     bigint           not null,
  hash         bigint           not null,
  key          text             collate "C",
  level        double precision,
  level_at     timestamptz,
  due_at       timestamptz,
  parked       boolean          not null default false,
  exhausted_at timestamptz,
  constraint job_keys_pkey primary key (limit_id, hash)) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index job_keys_due_idx on coordinator.job_keys (limit_id, due_at) where due_at is not null; -- limit_unpark_due, limit_wake_keys
comment on table  coordinator.job_keys              is 'Keys of limits per key that have lanes, or whose bucket is not full. Claims lock a row to start jobs of the key.';
comment on column coordinator.job_keys.limit_id     is 'The limit.';
comment on column coordinator.job_keys.hash         is 'Hash of project and key.';
comment on column coordinator.job_keys.key          is 'The key; null until a rate or budget was used.';
comment on column coordinator.job_keys.level        is 'Tokens that were in the bucket of the key at level_at; null: it is full, or the limit is not a rate.';
comment on column coordinator.job_keys.level_at     is 'When the level was computed.';
comment on column coordinator.job_keys.due_at       is 'When the key can pay for its next job; null: it can, or nobody knows; infinity: when an attempt ends that frees some.';
comment on column coordinator.job_keys.parked       is 'Whether lanes of the key have left the line until due_at.';
comment on column coordinator.job_keys.exhausted_at is 'Start of the last period in which the budget of the key was exhausted.';
