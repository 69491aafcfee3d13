-- Epochs are a history: cursors of an earlier epoch continue exactly up to its end.

create table coordinator.epochs (
  number   bigint      not null generated always as identity constraint epochs_pkey primary key, -- event_prune, event_end: in their order
  id       text        collate "C" not null constraint epochs_id_key unique, -- event_end: the epoch of a cursor
  last_seq bigint      not null,
  ended_at timestamptz not null
);
comment on table  coordinator.epochs          is 'The epochs of the log that have ended; the present one is in relay. Written by relay_recover, deleted by event_prune.';
comment on column coordinator.epochs.number   is 'Their order.';
comment on column coordinator.epochs.id       is 'First part of the cursors of this epoch.';
comment on column coordinator.epochs.last_seq is 'The last event that the present log shares with this epoch: a cursor of it up to here continues exactly, a later one receives a reset.';
comment on column coordinator.epochs.ended_at is 'When the next epoch began (database clock).';

-- Unlogged: a crash, a promotion and a copy of a running server forget it. Its value is set and read outside of transactions.
create unlogged sequence coordinator.epoch_mark as bigint minvalue -9223372036854775808 start 1;
comment on sequence coordinator.epoch_mark is 'The present epoch: its id, drawn at random (upper 32 bits), and a hash of the run of the server and of the database in which it began (lower 32 bits). Set by epoch_begin.';

update coordinator.relay set identity = ''; -- relay.sql adopts the present epoch
comment on column coordinator.relay.epoch    is 'First part of every cursor; the present epoch as far as the relay knows, see event_epoch.';
comment on column coordinator.relay.identity is 'Cluster, database and table in whose transaction ids the log is written; empty until the schema is applied.';
