-- Loops pass the query of what is due to project_each, instead of calling a function that returns it.

drop function if exists
  coordinator.project_each(text, integer),
  coordinator.agent_reap_work(bigint[], integer),
  coordinator.artifact_expire_work(bigint[], integer),
  coordinator.document_expire_work(bigint[], integer),
  coordinator.job_expire_work(bigint[], integer),
  coordinator.job_promote_work(bigint[], integer),
  coordinator.job_rescue_work(bigint[], integer),
  coordinator.job_settle_due_work(bigint[], integer),
  coordinator.job_wait_due_work(bigint[], integer),
  coordinator.job_wake_due_work(bigint[], integer),
  coordinator.limit_prune_work(bigint[], integer),
  coordinator.lock_expire_work(bigint[], integer),
  coordinator.session_expire_work(bigint[], integer);
