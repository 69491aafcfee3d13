-- log_clear leaves what is kept, unless it is told to delete that, too: it has another parameter.

drop function if exists coordinator.log_clear(text, text, text, bigint, text, text);
drop function if exists coordinator.log_empty(coordinator.logs, boolean, timestamptz);
