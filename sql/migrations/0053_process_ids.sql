-- Ids of processes are integers, since they are halves of keys of advisory locks. They begin again after the last one.

alter table coordinator.processes alter column id set cycle;
