-- Projects share the entries that session_expire removes in one run, so session_remove has a parameter more.

drop function if exists coordinator.session_remove(bigint, text, text, timestamptz);
