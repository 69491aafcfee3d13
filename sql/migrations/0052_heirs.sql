-- An owner above the one that leaves keeps its locks on files (file_leave), so both functions have a parameter more.

drop function if exists coordinator.lock_end_agent(bigint, text, uuid, text, text, text[]);
drop function if exists coordinator.file_leave(text, text, text, text[], boolean);
