-- Who holds a lock is an owner: an agent itself, or one of the tasks, commands and jobs below it.

alter table coordinator.locks add column owner text collate "C" not null default '', add column requests uuid[];
alter table coordinator.lock_waits add column owner text collate "C" not null default '';
alter table coordinator.lock_breaks add column owner text collate "C" not null default '';
comment on column coordinator.locks.owner       is 'The holder below the agent, such as session/subagent; empty: the agent itself.';
comment on column coordinator.locks.requests    is 'The request id of each acquisition, if its owner acquired it several times; null: one.';
comment on column coordinator.lock_waits.owner  is 'Who waits below the agent, see locks.';
comment on column coordinator.lock_breaks.owner is 'The owner that lost it, see locks.';
comment on column coordinator.locks.slot        is '0: exclusive; 1 to slots: a slot of a counted lock; negative: shared, or exclusive within the lock of a parent owner. So the primary key alone keeps exclusive holders of one resource apart.';
create index lock_breaks_token_idx on coordinator.lock_breaks (fencing_token); -- lock_lost: who broke it, and why

drop view if exists coordinator.lock_waits_for;
drop function if exists coordinator.lock_acquire(text, text[], uuid, boolean, integer, interval, interval, interval, uuid);
drop function if exists coordinator.lock_acquire_any(text, text[], uuid, boolean, integer, interval, interval, interval, uuid);
drop function if exists coordinator.lock_blockers(bigint, uuid, bigint, coordinator.lock_resource, text, integer);
drop function if exists coordinator.lock_check(text, text[], uuid);
drop function if exists coordinator.lock_cycle(bigint, uuid);
drop function if exists coordinator.lock_enqueue(bigint, text, uuid, text, coordinator.lock_resource[], text, integer, interval, interval, interval, uuid);
drop function if exists coordinator.lock_is_behind(bigint);
drop function if exists coordinator.lock_overlapping(bigint, coordinator.lock_resource, boolean, bigint);
drop function if exists coordinator.lock_rows(boolean, bigint);
drop function if exists coordinator.lock_below(bigint, coordinator.lock_resource, boolean, bigint);
drop function if exists coordinator.lock_refuse(bigint, uuid, bigint, coordinator.lock_resource[], text, integer);
drop function if exists coordinator.lock_release(text, text[], uuid, bigint[]);
drop function if exists coordinator.lock_release_any(text, text[], uuid, bigint[]);
