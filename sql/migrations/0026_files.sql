-- Files as agents have seen them, so that no edit is based on what somebody else has changed since.

-- No foreign key to projects, whose row all writers would lock; project_delete takes the rows away.
create table coordinator.files_seen (
  project_id bigint      not null,
  path       text        collate "C" not null,
  agent_name text        collate "C" not null,
  owner      text        collate "C" not null,
  hash       text        collate "C",
  seen_at    timestamptz not null,
  wrote_at   timestamptz,
  reading    boolean     not null default false,
  told       text        collate "C",
  constraint files_seen_pkey primary key (project_id, path, agent_name, owner), -- file_edit, file_list: who has seen it, who changed it
  constraint files_seen_hash check (length(hash) <= 128)
);
create index files_seen_at_idx on coordinator.files_seen (seen_at); -- file_prune
comment on table  coordinator.files_seen            is 'The content of files as each agent, and each owner below it, last saw it. Read file_views. Written by file_record, file_edit and file_prune.';
comment on column coordinator.files_seen.project_id is 'The project. Not a foreign key: all writers would lock its row.';
comment on column coordinator.files_seen.path       is 'The file, as locks spell it.';
comment on column coordinator.files_seen.agent_name is 'Name of the agent; it stays the same when the agent registers again.';
comment on column coordinator.files_seen.owner      is 'Who saw it below the agent, see locks; empty: the agent itself.';
comment on column coordinator.files_seen.hash       is 'Hash of the content; -: there was no such file; null: unknown.';
comment on column coordinator.files_seen.seen_at    is 'When it read or wrote that content (database clock).';
comment on column coordinator.files_seen.wrote_at   is 'When it last wrote the file; null: it never did.';
comment on column coordinator.files_seen.reading    is 'True: a read has begun and is not reported as done.';
comment on column coordinator.files_seen.told       is 'Hash of the changed content of which file_edit has told it; null: of none.';

create type coordinator.file_grant as (
  path          text,
  state         text,
  agent_id      uuid,
  expires_at    timestamptz,
  ticket        bigint,
  holder_id     uuid,
  holder        text,
  holder_owner  text,
  holder_task   text,
  held          text,
  held_since    timestamptz,
  held_until    timestamptz,
  waiting       bigint,
  changed_by    text,
  changed_at    timestamptz,
  elsewhere     text
);
comment on type coordinator.file_grant is
  'What file_edit decides about one file. state: granted; stale: granted, but its content is not what the caller last saw; free, held, waiting (with a ticket) or deadlock: nothing was granted. holder…: who holds it, with the task in the metadata of that agent; held: the resource that it holds; waiting: how many tickets wait for it; changed_by: the agent that recorded the change, if one did. elsewhere: who holds the same file in other work trees, in the call that grants the lease; null: nobody.';
