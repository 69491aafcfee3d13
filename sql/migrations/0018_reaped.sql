-- agent_reap says which agents it reaped.

drop function if exists coordinator.agent_reap(integer);
