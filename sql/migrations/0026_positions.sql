-- The recorded response of a request has the position of its change.

alter table coordinator.idempotency_keys add column position text;
comment on column coordinator.idempotency_keys.position is 'Position of the transaction that made the change, see position_now.';
