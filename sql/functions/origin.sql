-- Origins: where a call comes from, and to which trace it belongs. The caller sets this in two settings of its transaction. Defaults of
-- columns read them, so functions need not pass them on:
--
--   coordinator.origin       a JSON object; a daemon writes the owner of the request's token and the address of the client
--   coordinator.traceparent  a W3C traceparent
--
-- A daemon sets them in the statement of the call. In psql: begin; set local coordinator.traceparent = '00-…'; …; commit.
--
-- Any role can set them. So events also store the role and the address of the session: to forge the origin of a daemon, one needs the
-- daemon's role.

create or replace function coordinator.origin() returns text
language sql stable parallel safe
return nullif(left(current_setting('coordinator.origin', true), 1000), '');
comment on function coordinator.origin() is
  'Return what the caller says about where the call comes from; null: nothing. Internal: the default of columns; inlined.';

-- Without a regular expression, which would take 5 µs.
create or replace function coordinator.traceparent() returns text
language sql stable parallel safe
return case when length(current_setting('coordinator.traceparent', true)) = 55
                 and translate(current_setting('coordinator.traceparent', true), '0123456789abcdef', '') = '---'
            then current_setting('coordinator.traceparent', true) end;
comment on function coordinator.traceparent() is
  'Return the W3C trace context of the call; null: there is none, or it is malformed. Internal: the default of columns; inlined.';

alter table coordinator.events
  alter column role set default session_user,
  alter column address set default inet_client_addr(),
  alter column origin set default coordinator.origin(),
  alter column traceparent set default coordinator.traceparent();
alter table coordinator.jobs_open alter column traceparent set default coordinator.traceparent();
alter table coordinator.directives alter column traceparent set default coordinator.traceparent();
