-- Waits that end by time are handled project by project, and outcomes are set aside whatever obstructs their project.

comment on column coordinator.job_wait_log.held is 'Outcomes of waits that could not be stored yet, since another transaction had the job or something of its project, by job.';
