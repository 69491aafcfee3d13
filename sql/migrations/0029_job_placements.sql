-- Classes whose queued jobs get other places, since the policy of their queue or a limit per key was changed.

create table coordinator.job_placements (
  class_id     bigint      not null constraint job_placements_pkey primary key constraint job_placements_class_fkey references coordinator.job_classes on delete cascade,
  ageings      interval[]  not null,
  began_at     timestamptz not null,
  total_count  bigint,
  placed_count bigint      not null default 0,
  lane_id      bigint      not null default -1,
  rank         bigint      not null default 0,
  id           uuid        not null default '00000000-0000-0000-0000-000000000000',
  again        boolean     not null default false);
comment on table  coordinator.job_placements              is 'Classes whose queued jobs get other places, batch by batch (queue_place). The row is deleted when all have theirs.';
comment on column coordinator.job_placements.class_id     is 'The class.';
comment on column coordinator.job_placements.ageings      is 'The ageing of earlier policies, by which some jobs still have their places; null in it: strict priority.';
comment on column coordinator.job_placements.began_at     is 'When the policy was changed.';
comment on column coordinator.job_placements.total_count  is 'Queued jobs when the first batch was placed; null: none was yet.';
comment on column coordinator.job_placements.placed_count is 'Jobs that were looked at since.';
comment on column coordinator.job_placements.lane_id      is 'Lane of the last job that was looked at.';
comment on column coordinator.job_placements.rank         is 'Its rank.';
comment on column coordinator.job_placements.id           is 'Its id.';
comment on column coordinator.job_placements.again        is 'Whether a job was passed over, since another transaction had it: the class is looked at again.';
