-- Jobs and directives keep the trace context of the call that made them, and events show theirs. Defaults are in functions/origin.sql.

alter table coordinator.jobs_open add column traceparent text;
comment on column coordinator.jobs_open.traceparent is 'The W3C trace context of the call that enqueued it, which its attempts continue; null: there is none.';
alter type coordinator.job_grant add attribute traceparent text;

alter table coordinator.directives add column traceparent text;
comment on column coordinator.directives.traceparent is 'The W3C trace context of the call that sent it; null: there is none.';
alter type coordinator.directive_dispatch add attribute traceparent text;

drop function if exists coordinator.event_members(text, bigint, text, text, text, text, timestamptz, jsonb, text, boolean);
drop function if exists coordinator.events_since(text, text, text[], integer, boolean, text[], text[]);
