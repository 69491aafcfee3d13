-- Events say where they come from, and in which trace. Their defaults are in functions/origin.sql.

alter table coordinator.events
  add column role        text,
  add column address     inet,
  add column origin      text,
  add column traceparent text;
comment on column coordinator.events.role        is 'The database role that logged in (session_user), such as that of the daemon; no caller chooses it. Null before there was this column.';
comment on column coordinator.events.address     is 'From where it connected to the database; null: through a unix socket.';
comment on column coordinator.events.origin      is 'What the role says about the origin of the call, as JSON: a daemon gives token (id) and name of the token, address (of the client), process or loop. Null: nothing. Only that of a role that is trusted with this is worth anything.';
comment on column coordinator.events.traceparent is 'The W3C trace context of the call; null: there is none.';

drop function if exists coordinator.chunk_events(coordinator.event_chunks, bigint, text, text, text[], text[], text[]);
