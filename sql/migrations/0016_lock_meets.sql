-- A parameter of lock_meets has a new name, which "create or replace" refuses.

drop function if exists coordinator.lock_meets(coordinator.lock_resource, text, text, text, text) cascade;
