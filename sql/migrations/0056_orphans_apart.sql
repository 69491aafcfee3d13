-- lock_orphans takes the projects to omit, or the only one to look into.

drop function if exists coordinator.lock_orphans(integer);
