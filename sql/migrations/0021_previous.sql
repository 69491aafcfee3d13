-- Notifications name the event before them on their channel: one more parameter each. The function files create them again.

drop function if exists coordinator.event_json(text, bigint, text, text, text, text, timestamptz, jsonb, text, boolean);
drop function if exists coordinator.relay_payloads(coordinator.event_chunks, text, boolean);
