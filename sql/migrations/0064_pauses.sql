-- Large trees are paused and resumed in portions, as they are cancelled: see job/tree.sql.

alter table coordinator.job_changes
  add column change  text not null default 'cancel' constraint job_changes_change_check check (change in ('cancel', 'pause', 'resume')),
  add column tree    boolean not null default true,
  add column paused  jsonb,
  add column root_id uuid;
comment on table coordinator.job_changes is
  'Cancellations, pauses and resumptions of trees that were too large for one call, until the loop has changed the rest.';
comment on column coordinator.job_changes.id is 'Number of the change.';
comment on column coordinator.job_changes.jobs is 'These jobs and all jobs below them are changed.';
comment on column coordinator.job_changes.reason is 'Why, for workers, people and the history.';
comment on column coordinator.job_changes.actor is 'Who changes them.';
comment on column coordinator.job_changes.requested_at is 'When the change was requested.';
comment on column coordinator.job_changes.change is 'cancel, pause or resume.';
comment on column coordinator.job_changes.tree is 'Whether the jobs below are changed as well.';
comment on column coordinator.job_changes.paused is 'Of a pause: what jobs_open.paused will say.';
comment on column coordinator.job_changes.root_id is 'Of a pause or a resumption: the root of the tree; changes of one tree take place in order.';

comment on column coordinator.job_outcome.following is 'How many jobs of the tree will follow soon.';

drop function if exists coordinator.job_doomed(bigint, uuid[]);
drop function if exists coordinator.job_change_pause(text, uuid, boolean, jsonb, text, jsonb, text);
