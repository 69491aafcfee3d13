-- One function finds what overlaps a resource, whether locks or tickets: lock_overlapping.

drop function if exists coordinator.lock_held_overlapping(bigint, coordinator.lock_resource);
drop function if exists coordinator.lock_waits_overlapping(bigint, coordinator.lock_resource);
