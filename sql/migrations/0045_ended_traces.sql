-- An ended job keeps the trace context of the call that enqueued it, so that its trace can be found; see 0041_trace_contexts.sql.

alter table coordinator.jobs_ended add column traceparent text;
comment on column coordinator.jobs_ended.traceparent is 'The W3C trace context of the call that enqueued it; null: there is none.';
