-- Origins: where a call comes from, and in which trace. The caller says so in two settings of its transaction, and the defaults of columns
-- read them, so that no function has to pass them on:
--
--   coordinator.origin       a JSON object; a daemon tells whose token a request had, and from which address it came
--   coordinator.traceparent  a W3C traceparent
--
-- A daemon sets them within the statement of the call. In psql: begin; set local coordinator.traceparent = '00-…'; …; commit.
--
-- Any role can set them. So events also have the role and the address of the session: nobody can forge the origin of a daemon without the role of
-- the daemon.

create or replace function coordinator.origin() returns text
language sql stable parallel safe
return nullif(left(current_setting('coordinator.origin', true), 1000), '');
comment on function coordinator.origin() is
  'Return what the caller says about where the call comes from; null: nothing. Internal: the default of columns; inlined.';

-- A regular expression would take 5 µs.
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
