-- job_end ends the attempts that a worker completes, too.
drop function if exists coordinator.job_end(
  uuid[], text, text, text, text, timestamptz, coordinator.jobs_running[], jsonb[], boolean, boolean, text);
