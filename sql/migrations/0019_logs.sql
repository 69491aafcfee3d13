-- Logs: append-only lists of entries, by kind and key. A header, whose row lock gives the numbers, and rows that are written once.

-- No foreign keys to projects, as with signals: project_delete deletes the rows, log_prune those that raced with it. Appends change no
-- column that is indexed, so headers are updated in their page (HOT).
create table coordinator.logs (
  id         bigint      not null generated always as identity constraint logs_pkey primary key,
  project_id bigint      not null,
  kind       text        collate "C" not null,
  key        text        collate "C" not null,
  session_id bigint,
  first_seq  bigint      not null default 1,
  last_seq   bigint      not null default 0,
  count      bigint      not null default 0,
  epoch      integer     not null,
  kept       boolean     not null default false,
  deleted    boolean     not null default false,
  updated_at timestamptz not null,
  trim_at    timestamptz,
  trim_from  bigint      not null default 1,
  constraint logs_kind check (kind ~ '^[a-z][a-z0-9_-]{0,35}$'),
  constraint logs_project_key unique (project_id, kind, key) -- log_append, log_list
) with (fillfactor = 70);
create index logs_trim_idx on coordinator.logs (trim_at) where trim_at is not null; -- retention
create index logs_session_idx on coordinator.logs (session_id) where session_id is not null; -- what belongs to a session
comment on table  coordinator.logs            is 'Logs: their headers, including those of deleted logs. Read logs_live. Written by log_append, log_pop, log_clear, log_keep, log_delete and retention.';
comment on column coordinator.logs.id         is 'Internal number.';
comment on column coordinator.logs.project_id is 'See projects; 0 for what concerns no project.';
comment on column coordinator.logs.kind       is 'What its entries are: message, step, observation, audit, or any kind of the caller''s.';
comment on column coordinator.logs.key        is 'At most 512 characters; segments are separated by /. Ordered by bytes.';
comment on column coordinator.logs.session_id is 'The session that it belongs to; null: none.';
comment on column coordinator.logs.first_seq  is 'Entries below are gone, except kept ones. Never decreases.';
comment on column coordinator.logs.last_seq   is 'The last number given: without gaps, in commit order, and never given again.';
comment on column coordinator.logs.count      is 'How many entries there are.';
comment on column coordinator.logs.epoch      is 'The epoch in which last_seq was given, as in entries.';
comment on column coordinator.logs.kept       is 'True: retention deletes no entry of it.';
comment on column coordinator.logs.deleted    is 'True: absent for readers; the row is left so that no number is given again.';
comment on column coordinator.logs.updated_at is 'When it was last appended to or changed (database clock). Not indexed.';
comment on column coordinator.logs.trim_at    is 'When retention looks at it next; null: never.';
comment on column coordinator.logs.trim_from  is 'Retention has seen the entries below, and left only those that are kept or needed.';

create table coordinator.entries (
  log_id     bigint      not null,
  seq        bigint      not null,
  uid        text        collate "C",
  role       text        collate "C",
  tokens     integer,
  epoch      integer     not null,
  needs_seq  bigint,
  links      text[],
  kept       boolean     not null default false,
  actor      text        not null,
  created_at timestamptz not null,
  data       json        not null,
  raw        text,
  constraint entries_pkey primary key (log_id, seq) include (role, tokens, needs_seq) -- a window of a conversation from the index alone
) with (autovacuum_vacuum_insert_scale_factor = 0.05);
create unique index entries_uid_key on coordinator.entries (log_id, uid) where uid is not null; -- log_append: repetitions
create index entries_kept_idx on coordinator.entries (log_id, seq) where kept; -- retention
create index entries_links_idx on coordinator.entries (log_id, seq) where links is not null; -- what a message needs
comment on table  coordinator.entries            is 'Entries of logs, written once by log_append. Read entries_live or log_read.';
comment on column coordinator.entries.log_id     is 'The log.';
comment on column coordinator.entries.seq        is 'Number within the log.';
comment on column coordinator.entries.uid        is 'The caller''s name for it, unique within the log: a repeated append does nothing.';
comment on column coordinator.entries.role       is 'Whose it is in a conversation, such as user or assistant; null: not said.';
comment on column coordinator.entries.tokens     is 'How many tokens of a model it takes; null: not known.';
comment on column coordinator.entries.epoch      is 'The epoch in which it was written: 32 bits of epoch_id. Number and epoch name one content for ever.';
comment on column coordinator.entries.needs_seq  is 'The earliest entry without which it is of no use, such as the call of a tool''s result; null: none.';
comment on column coordinator.entries.links      is 'What ties it to other entries, such as ids of calls; null: nothing.';
comment on column coordinator.entries.kept       is 'True: retention leaves it.';
comment on column coordinator.entries.actor      is 'Who appended it.';
comment on column coordinator.entries.created_at is 'When it was appended (database clock); never less than that of an earlier entry.';
comment on column coordinator.entries.data       is 'The content, as exact text; where that has NUL or a lone surrogate, which no SQL function can read, U+FFFD stands in its place.';
comment on column coordinator.entries.raw        is 'The exact text where it differs from data; else null.';

create type coordinator.log_draft as (
  uid text, role text, tokens integer, needs bigint, data json, raw text);
comment on type coordinator.log_draft is 'An entry to append: the fields of an entry as log_append takes them.';

create type coordinator.log_receipt as (
  kind text, key text, first_seq bigint, last_seq bigint, epoch text, appended integer);
comment on type coordinator.log_receipt is
  'What was appended to a log: the numbers of the entries given, with the epoch of the last one; appended: how many of them were not there yet.';

create type coordinator.log_entry as (
  seq bigint, epoch text, uid text, role text, tokens integer, needs bigint, kept boolean, actor text, created_at timestamptz, data json);
comment on type coordinator.log_entry is
  'An entry of a log. data is the exact text, also where it has NUL or a lone surrogate: then SQL can pass it on, but not look into it; see entries_live.';
