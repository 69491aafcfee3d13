-- A claim asks first whether its request was answered before. By the agent alone, it read all attempts of the agent, and those that had ended since the last vacuum.
drop index coordinator.jobs_running_agent_idx;
create index jobs_running_agent_idx on coordinator.jobs_running (agent_id, request_id); -- job_claim; agent_end, job_reconcile, job_rescue
