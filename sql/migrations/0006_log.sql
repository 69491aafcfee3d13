-- The event log, which writers insert into and the relay numbers; the relay; and epochs, which tell one history of the log from another.

-- Sequences, because their last_value is read and set outside of transactions, at once, by everybody. Without a cache: an idle
-- session would keep ids of a partition that was dropped.
create sequence coordinator.event_ids as bigint minvalue 0 start 0 cache 1;
select setval('coordinator.event_ids', 0);
comment on sequence coordinator.event_ids   is 'Ids of events. Every event that is visible has an id up to last_value.';
create sequence coordinator.event_floor as bigint minvalue 0 start 0;
select setval('coordinator.event_floor', 0);
comment on sequence coordinator.event_floor is 'last_value: events up to and including this seq are pruned. Set by event_prune before it drops a partition.';

create table coordinator.events (
  xid     xid8        not null default pg_current_xact_id(), -- before id: whoever gets an id has its xid already
  id      bigint      not null, -- its default is in sql/functions/event.sql
  type    text        not null,
  project text        not null,
  key     text,
  actor   text        not null,
  at      timestamptz not null,
  data    jsonb       not null
) partition by range (id);
create index events_xid_idx on coordinator.events (xid, id); -- relay_step: what the last chunk did not see; chunk_events
comment on table  coordinator.events         is 'The event log, partitioned by id. Events are inserted in the transaction of the change and never changed; event_prune drops whole partitions. event_chunks numbers them; read them with events_since.';
comment on column coordinator.events.xid     is 'The writing transaction.';
comment on column coordinator.events.id      is 'Order within the transaction. The default also rings the relay''s doorbell if the relay sleeps.';
comment on column coordinator.events.type    is 'See event_types.';
comment on column coordinator.events.project is 'Name of the project.';
comment on column coordinator.events.key     is 'What the event is about: the key of a signal, the id of a directive or agent, the name of a project.';
comment on column coordinator.events.actor   is 'Who did it: the name of an agent or of a database role.';
comment on column coordinator.events.at      is 'When it happened (database clock).';
comment on column coordinator.events.data    is 'See event_types.';
-- Ids of many jobs make a row of several kilobytes.
do $$
begin
  if (select 'lz4' = any (enumvals) from pg_settings where name = 'default_toast_compression') then
    alter table coordinator.events alter column data set compression lz4;
  end if;
end
$$;

-- Where an event goes when its partition does not exist: a trigger refuses it.
create table coordinator.events_beyond partition of coordinator.events default;
comment on table  coordinator.events_beyond is 'Always empty: refuses events for which no partition exists, see event_extend.';

create table coordinator.event_chunks (
  first_seq  bigint      not null constraint event_chunks_pkey primary key, -- events_since: the chunk of a cursor; relay_step: the newest
  last_seq   bigint      not null,
  xids       xid8[]      not null,
  first_id   bigint      not null,
  last_id    bigint      not null,
  more       boolean     not null,
  base       pg_snapshot not null,
  base_id    bigint      not null,
  read_id    bigint      not null,
  step_xid   xid8,
  stamped_at timestamptz not null,
  constraint event_chunks_seq check (last_seq >= first_seq)
);
alter table coordinator.event_chunks alter column xids set storage plain; -- up to 4,000 bytes, which need not leave the row
create index event_chunks_step_xid_idx on coordinator.event_chunks (step_xid); -- event_id_before
create index event_chunks_first_id_idx on coordinator.event_chunks (first_id); -- event_prune: what a partition holds
comment on table  coordinator.event_chunks            is 'The numbers of events: a chunk holds whole transactions, ordered by (xid, id), and numbers them from first_seq on. Appended by relay_step, deleted by event_prune.';
comment on column coordinator.event_chunks.first_seq  is 'Number of its first event.';
comment on column coordinator.event_chunks.last_seq   is 'Number of its last event.';
comment on column coordinator.event_chunks.xids       is 'Its transactions, ascending.';
comment on column coordinator.event_chunks.first_id   is 'Smallest id of its events.';
comment on column coordinator.event_chunks.last_id    is 'Greatest id of its events.';
comment on column coordinator.event_chunks.more       is 'True: the next chunk continues its only transaction.';
comment on column coordinator.event_chunks.base       is 'Every event that this snapshot sees has a number.';
comment on column coordinator.event_chunks.base_id    is 'Events of transactions from xmax of base on have greater ids.';
comment on column coordinator.event_chunks.read_id    is 'Last id before step_xid was assigned: transactions after step_xid have greater ids.';
comment on column coordinator.event_chunks.step_xid   is 'The transaction of the step; null in chunks of another cluster.';
comment on column coordinator.event_chunks.stamped_at is 'When its events were numbered (database clock); retention goes by this.';
-- No event, head 0.
insert into coordinator.event_chunks values (0, 0, '{}', 1, 0, false, pg_current_snapshot(), 0, 0, '3', clock_timestamp());

create table coordinator.relay (
  singleton boolean not null default true constraint relay_pkey primary key,
  epoch     text    not null,
  identity  text    not null default '',
  payloads  text    not null default 'full',
  constraint relay_singleton check (singleton),
  constraint relay_payloads check (payloads in ('full', 'pointer', 'head'))
);
comment on table  coordinator.relay           is 'The relay''s lock, and what rarely changes. relay_step locks the table for its transaction.';
comment on column coordinator.relay.singleton is 'Always true: there is one row.';
comment on column coordinator.relay.epoch     is 'First part of every cursor; the present epoch as far as the relay knows, see event_epoch.';
comment on column coordinator.relay.identity  is 'Cluster, database and table in whose transaction ids the log is written; empty until the schema is applied.';
comment on column coordinator.relay.payloads  is 'What NOTIFY carries: full (the event), pointer (only its cursor and type) or head (only the cursor of the newest event). Any role that may connect can LISTEN. Written by event_configure.';
insert into coordinator.relay (epoch) values (substr(md5(gen_random_uuid()::text), 1, 8)); -- relay.sql adopts the present epoch

create sequence coordinator.relay_bell as bigint minvalue 0 start 0;
comment on sequence coordinator.relay_bell is 'The relay''s doorbell. last_value is the instant (milliseconds since 1970) until which writers ring because the relay sleeps; 0 while it is awake.';
select setval('coordinator.relay_bell', 0);

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
