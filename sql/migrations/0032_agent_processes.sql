-- An agent that joins may belong to a process.

drop function if exists coordinator.agent_join(text, text, text, jsonb, interval, boolean);
