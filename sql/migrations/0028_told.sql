-- A step of the relay writes its notifications while it finds its events. The function files create the functions again.

drop function if exists coordinator.event_json(text, bigint, text, text, text, text, timestamptz, jsonb, text, boolean, bigint);
drop function if exists coordinator.relay_payloads(coordinator.event_chunks, text, boolean, bigint);
drop function if exists coordinator.relay_tell(bigint);

drop function if exists coordinator.lock_check_isolation(); -- check_isolation does it for all
