-- An idempotency key belongs to one caller.

alter table coordinator.idempotency_keys add column caller text collate "C" not null default '';
comment on column coordinator.idempotency_keys.caller is 'Whose key it is: the id of a token; empty where access is open.';
alter table coordinator.idempotency_keys drop constraint idempotency_keys_pkey;
alter table coordinator.idempotency_keys add constraint idempotency_keys_pkey primary key (project, caller, key); -- idempotency_claim, idempotency_store
drop function if exists coordinator.idempotency_claim(text, text, text, interval); -- the key has a caller
drop function if exists coordinator.idempotency_store(text, text, text);
