-- Waits are compared with the log in bounded portions: job_wait_listen also returns how far it came.

drop function if exists coordinator.job_wait_listen(coordinator.event_chunks, bigint, bigint, boolean, jsonb, timestamptz);
