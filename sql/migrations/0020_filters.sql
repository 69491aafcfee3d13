-- Readers of events filter by key and actor: two more parameters each. The function files create them again.

drop function if exists coordinator.events_since(text, text, text[], integer, boolean);
drop function if exists coordinator.chunk_events(coordinator.event_chunks, bigint, text, text, text[]);
