-- A request for locks names the owners that wait with it. The function files create the functions again.

alter table coordinator.lock_waits add column within text[] not null default '{}';
comment on column coordinator.lock_waits.within is 'Owners of the agent that wait, too, until this request is served: the blocks around it.';

drop function if exists coordinator.lock_acquire(text, text[], uuid, boolean, integer, interval, interval, interval, uuid, text);
drop function if exists coordinator.lock_acquire_any(text, text[], uuid, boolean, integer, interval, interval, interval, uuid, text);
drop function if exists coordinator.lock_enqueue(bigint, text, uuid, text, text, coordinator.lock_resource[], text, integer, interval, interval, interval, uuid);
drop function if exists coordinator.lock_cycle(bigint, uuid, text);
