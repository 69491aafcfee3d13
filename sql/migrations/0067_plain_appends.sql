-- What the usual append needs to know of the session and of retention is in the header, so it looks at neither. Null: not known yet.
alter table coordinator.logs
  add column open_until timestamptz,
  add column open_to bigint;
comment on column coordinator.logs.open_until is 'Until then, an append need not look at the session (log_open); archiving and deleting the session set it to null. Null: the next append looks.';
comment on column coordinator.logs.open_to is 'Up to this number, an append need not look at retention (log_open); null: the next append looks.';
