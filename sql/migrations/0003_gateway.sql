-- What HTTP keeps in the database: answers of requests that may come again.

create table coordinator.idempotency_keys (
  project    text        collate "C" not null,
  key        text        collate "C" not null,
  request    text        not null,
  response   text,
  created_at timestamptz not null,
  expires_at timestamptz not null,
  constraint idempotency_keys_pkey primary key (project, key), -- idempotency_claim, idempotency_store
  constraint idempotency_keys_key check (length(key) between 1 and 200)
);
create index idempotency_keys_expires_at_idx on coordinator.idempotency_keys (expires_at); -- idempotency_prune
comment on table  coordinator.idempotency_keys            is 'Answers of requests with an Idempotency-Key, written in the transaction of the change by idempotency_claim and idempotency_store, deleted by idempotency_prune.';
comment on column coordinator.idempotency_keys.project    is 'Name of the project; empty for requests that name none.';
comment on column coordinator.idempotency_keys.key        is 'The caller''s key, at most 200 characters.';
comment on column coordinator.idempotency_keys.request    is 'Digest of the request: the key stands for this one only.';
comment on column coordinator.idempotency_keys.response   is 'The answer, JSON as it was sent; null only within the transaction that claimed the key.';
comment on column coordinator.idempotency_keys.created_at is 'When the key was claimed (database clock).';
comment on column coordinator.idempotency_keys.expires_at is 'The key can be claimed anew from here on (database clock).';
