-- Budgets: what jobs reserve and spend. sql/functions/limit/budget.sql says how.

create table coordinator.job_budgets (
  limit_id     bigint      not null constraint job_budgets_pkey primary key,
  lacking      bigint,
  exhausted_at timestamptz) with (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_cost_delay = 0);
comment on table  coordinator.job_budgets              is 'State of budgets. Claims that reserve of a budget, and reports of what was spent, have its row to the end of their transaction.';
comment on column coordinator.job_budgets.limit_id     is 'The limit.';
comment on column coordinator.job_budgets.lacking      is 'What the job needed that last had to wait for it; null: none had to.';
comment on column coordinator.job_budgets.exhausted_at is 'Start of the last period in which it was exhausted.';

create table coordinator.job_charges (
  limit_id  bigint      not null,
  period_at timestamptz not null,
  job_id    uuid,
  hash      bigint,
  reserved  bigint      not null default 0,
  spent     bigint) with (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index job_charges_period_idx on coordinator.job_charges (limit_id, period_at, hash); -- job_claim, limit_show: the sum of a period, or of one of its keys
create unique index job_charges_job_idx on coordinator.job_charges (job_id, limit_id) where job_id is not null; -- job_spend, the end of an attempt
comment on table  coordinator.job_charges           is 'What jobs reserve and spend of budgets: a row for each running attempt and budget. The end of the attempt settles it; claims add settled rows up.';
comment on column coordinator.job_charges.limit_id  is 'The budget.';
comment on column coordinator.job_charges.period_at is 'Start of the period in which the attempt was claimed; -infinity for a budget for ever.';
comment on column coordinator.job_charges.job_id    is 'The job that runs; null: settled.';
comment on column coordinator.job_charges.hash      is 'Hash of project and key, if each key has a budget of its own.';
comment on column coordinator.job_charges.reserved  is 'What its claim reserved; 0 when settled.';
comment on column coordinator.job_charges.spent     is 'What the attempt reported with job_spend; null: nothing.';

create type coordinator.job_charge as (
  id uuid, budget text, spent bigint, reserved bigint, free bigint, cancel_at timestamptz);
comment on type coordinator.job_charge is
  'What a job has spent of a budget and what its claim reserved, and what is free for others in the period; with cancel_at, a cancellation was requested, and the fence is revoked then.';
