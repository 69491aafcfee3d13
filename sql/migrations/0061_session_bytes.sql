-- A portion of a session is bounded by bytes as well, so session_remove has a parameter more.

drop function if exists coordinator.session_remove(bigint, text, text, timestamptz, bigint);
