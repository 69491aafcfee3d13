-- job_pause and job_resume return what every outcome has and how many jobs follow; only a cancellation also counts what it cancelled.
-- squawk-ignore ban-drop-column -- released programs do not know the attribute
alter type coordinator.job_outcome drop attribute cancelled, add attribute cancelled integer;
comment on column coordinator.job_outcome.cancelled is 'Of a cancellation: how many jobs the call cancelled.';
