-- The end of attempts passes on which slots it frees, instead of the attempts.
drop function if exists coordinator.job_end(
  uuid[], text, text, text, text, timestamptz, coordinator.jobs_running[], boolean, boolean, uuid, bigint[], jsonb[]);
drop function if exists coordinator.limit_leave(coordinator.jobs_running[], text, text, timestamptz);
-- Lanes with limits per key are taken from the line as others are.
drop function if exists coordinator.job_take_turns(bigint, integer, integer, bigint);
