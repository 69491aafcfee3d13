-- Functions whose name or parameters changed: the function files create their successors.

drop function if exists coordinator.events_since(text, text, text[], integer, boolean); -- p_cursor became p_after
drop function if exists coordinator.token_check(text); -- became token_authenticate
