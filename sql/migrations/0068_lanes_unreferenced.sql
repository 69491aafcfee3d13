-- Each new lane checked its class, under the key of the queue, without which no class is deleted. Only functions write lanes.
-- squawk-ignore ban-drop-constraint
alter table coordinator.job_lanes drop constraint if exists job_lanes_class_fkey;
-- Permits of classes that were deleted before.
delete from coordinator.job_permits p where not exists (select from coordinator.job_classes c where c.id = p.class_id);
