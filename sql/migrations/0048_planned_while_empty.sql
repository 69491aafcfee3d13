-- While statistics say that a table is empty, the planner takes a search of a whole index for as cheap as one look at another. An index that
-- serves only "column = $1", which implies "column is not null", is no candidate for any other search.
-- Open jobs are few beside those that ended: an index of a million of them takes a second.

-- squawk-ignore require-concurrent-index-deletion
drop index if exists coordinator.jobs_open_project_idx;
-- squawk-ignore require-concurrent-index-creation
create index jobs_open_project_idx on coordinator.jobs_open (project_id, id) where project_id is not null;

-- squawk-ignore require-concurrent-index-deletion
drop index if exists coordinator.jobs_later_class_idx;
-- squawk-ignore require-concurrent-index-creation
create index jobs_later_class_idx on coordinator.jobs_later (class_id) where class_id is not null;

-- squawk-ignore require-concurrent-index-deletion
drop index if exists coordinator.jobs_waiting_class_idx;
-- squawk-ignore require-concurrent-index-creation
create index jobs_waiting_class_idx on coordinator.jobs_waiting (class_id) where class_id is not null;
