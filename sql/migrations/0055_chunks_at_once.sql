-- events_since reads several chunks by one statement: chunk_events takes the bounds of their ids.

drop function if exists coordinator.chunk_events(coordinator.event_chunks, bigint, text, text, text[], text[], text[]);
