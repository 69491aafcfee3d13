-- Crons: jobs that are enqueued at times that recur.

create table coordinator.crons (
  project_id   bigint      not null constraint crons_project_fkey references coordinator.projects on delete cascade,
  name         text        collate "C" not null,
  schedule     text        not null,
  zone         text        not null,
  missed       text        not null,
  job          jsonb       not null,
  next_at      timestamptz not null,
  due_at       timestamptz,
  last_at      timestamptz,
  last_job     uuid,
  error        text,
  paused_at    timestamptz,
  paused_by    text,
  pause_reason text,
  actor        text        not null,
  created_at   timestamptz not null,
  updated_at   timestamptz not null,
  constraint crons_pkey primary key (project_id, name),
  constraint crons_missed check (missed in ('skip', 'once', 'all')));
create index crons_due_idx on coordinator.crons (due_at); -- cron_fire
comment on table  coordinator.crons              is 'Jobs that are enqueued at times that recur.';
comment on column coordinator.crons.project_id   is 'The project.';
comment on column coordinator.crons.name         is 'Name of the cron.';
comment on column coordinator.crons.schedule     is 'Minute, hour, day, month and weekday.';
comment on column coordinator.crons.zone         is 'Time zone of the schedule.';
comment on column coordinator.crons.missed       is 'What follows when times were missed: skip them, fire once for all of them, or fire for each.';
comment on column coordinator.crons.job          is 'The job, as an object of job_enqueue_many; {fire_at} in it stands for the time.';
comment on column coordinator.crons.next_at      is 'The first time for which it has not fired.';
comment on column coordinator.crons.due_at       is 'When the loop looks at it: next_at, or later after an error; null: it is paused.';
comment on column coordinator.crons.last_at      is 'The last time for which it fired.';
comment on column coordinator.crons.last_job     is 'The job of that time.';
comment on column coordinator.crons.error        is 'Why the job of next_at could not be enqueued; it is tried again every minute.';
comment on column coordinator.crons.paused_at    is 'When it was paused; null: it is not.';
comment on column coordinator.crons.paused_by    is 'Who paused it.';
comment on column coordinator.crons.pause_reason is 'Why it was paused.';
comment on column coordinator.crons.actor        is 'Who created it or last changed it.';
comment on column coordinator.crons.created_at   is 'When it was created.';
comment on column coordinator.crons.updated_at   is 'When it was last changed.';

create type coordinator.cron_fields as (
  minutes integer[], hours integer[], days integer[], months integer[], weekdays integer[], either boolean, hourly boolean);
comment on type coordinator.cron_fields is
  'A schedule: the values of its fields; either: day or weekday must match, otherwise both; hourly: the hour begins with *.';

create type coordinator.cron_time as (at timestamptz, local text);
comment on type coordinator.cron_time is
  'A time of a schedule, and the same in the time zone of the schedule.';
