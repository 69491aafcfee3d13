-- The catalogue. This file empties its tables, and each of the following files inserts the events, rights, limits, metrics, checks and
-- transaction verbs of its own noun. All files run in one transaction, so readers never see the tables empty.

delete from coordinator.event_types;
delete from coordinator.rights;
delete from coordinator.limits;
delete from coordinator.transaction_verbs;
delete from coordinator.metrics;
delete from coordinator.checks;
