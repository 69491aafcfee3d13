-- Projects share the outcomes that a run of job_wait_match collects, so job_wait_listen has more parameters.

drop function if exists coordinator.job_wait_listen(coordinator.event_chunks, bigint, bigint, boolean, jsonb, timestamptz);
