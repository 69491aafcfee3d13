-- Tickets are looked up by their place in the queue of a resource. No other index has an order of tickets, so that no plan made
-- while the table is small reads all earlier tickets of all resources.

drop function if exists coordinator.lock_overlapping(bigint, coordinator.lock_resource, boolean);
drop function if exists coordinator.lock_rows(boolean);

alter table coordinator.lock_waits drop constraint lock_waits_pkey;
drop index coordinator.lock_waits_resource_idx;
alter table coordinator.lock_waits add constraint lock_waits_pkey primary key (project_id, resource, ticket); -- who waits for what overlaps
create index lock_waits_ticket_idx on coordinator.lock_waits using hash (ticket); -- lock_poll
