-- agent_register refuses reserved names on demand. The function file creates it again.

drop function if exists coordinator.agent_register(text, text, text, text[], jsonb, interval, integer);
