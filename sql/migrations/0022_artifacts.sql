-- Artifacts: names of stored bytes, the bytes, once for each content of a project, and uploads in progress.

create table coordinator.artifact_blobs (
  id          bigint      not null generated always as identity constraint artifact_blobs_pkey primary key,
  project_id  bigint      not null constraint artifact_blobs_project_fkey references coordinator.projects (id) on delete cascade,
  upload      uuid        not null default gen_random_uuid(),
  sha256      text        collate "C",
  bytes       bigint,
  finished_at timestamptz,
  finished    boolean     not null generated always as (finished_at is not null) stored,
  due_at      timestamptz,
  stored      boolean     not null default false,
  constraint artifact_blobs_upload_key unique (upload), -- artifact_write, artifact_finish
  constraint artifact_blobs_key unique (project_id, finished, sha256), -- artifact_begin, artifact_read: one content, and one upload of it
  constraint artifact_blobs_sha256 check (sha256 ~ '^[0-9a-f]{64}$'),
  constraint artifact_blobs_finished check (finished_at is null or sha256 is not null and bytes is not null)
);
create index artifact_blobs_due_idx on coordinator.artifact_blobs (due_at) where due_at is not null; -- artifact_prune
create index artifact_blobs_move_idx on coordinator.artifact_blobs (id) where finished_at is not null and not stored and bytes > 0; -- artifact_move
comment on table  coordinator.artifact_blobs             is 'Contents of artifacts: each content is there once for each project. Uploads in progress, too. Written by artifact_begin, artifact_write, artifact_finish and artifact_prune.';
comment on column coordinator.artifact_blobs.id          is 'Internal number.';
comment on column coordinator.artifact_blobs.project_id  is 'The project.';
comment on column coordinator.artifact_blobs.upload      is 'Id by which parts are written.';
comment on column coordinator.artifact_blobs.sha256      is 'SHA-256 of the content, in hexadecimal; null: an upload whose hash is not known yet.';
comment on column coordinator.artifact_blobs.bytes       is 'Size of the content; null in an upload in progress.';
comment on column coordinator.artifact_blobs.finished_at is 'When the content was complete and verified (database clock); null: an upload in progress, which no reader sees.';
comment on column coordinator.artifact_blobs.finished    is 'Whether it is complete and verified.';
comment on column coordinator.artifact_blobs.due_at      is 'When artifact_prune looks whether it is still needed; null while an artifact has it.';
comment on column coordinator.artifact_blobs.stored      is 'Whether the bytes are in an object store, as artifact_objects says; else they are in artifact_chunks.';

create table coordinator.artifact_chunks (
  blob_id bigint  not null constraint artifact_chunks_blob_fkey references coordinator.artifact_blobs (id) on delete cascade,
  part    integer not null,
  data    bytea   not null,
  constraint artifact_chunks_pkey primary key (blob_id, part), -- artifact_read, artifact_finish
  constraint artifact_chunks_part check (part between 1 and 64),
  constraint artifact_chunks_data check (octet_length(data) between 1 and 1048576)
);
comment on table  coordinator.artifact_chunks         is 'Parts of contents that are not in an object store. Each has 1,048,576 bytes, except for the last. A part is written once and never changed.';
comment on column coordinator.artifact_chunks.blob_id is 'The content.';
comment on column coordinator.artifact_chunks.part    is 'Number of the part, from 1.';
comment on column coordinator.artifact_chunks.data    is 'The bytes, compressed with lz4 where the server has it, else not at all.';
-- pglz takes 16 to 42 ms of the processor for a MiB of text, storing it as it is 3 ms, with random bytes 4 and 3 ms.
do $$
begin
  if (select 'lz4' = any (enumvals) from pg_settings where name = 'default_toast_compression') then
    alter table coordinator.artifact_chunks alter column data set compression lz4;
  else
    alter table coordinator.artifact_chunks alter column data set storage external;
  end if;
end
$$;

create table coordinator.artifacts (
  id         bigint      not null generated always as identity constraint artifacts_pkey primary key,
  project_id bigint      not null constraint artifacts_project_fkey references coordinator.projects (id) on delete cascade,
  session_id bigint      constraint artifacts_session_fkey references coordinator.sessions (id) on delete cascade,
  name       text        collate "C" not null,
  media_type text        not null,
  bytes      bigint      not null,
  sha256     text        not null,
  kept       boolean     not null default false,
  actor      text        not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  trim_at    timestamptz,
  blob_id    bigint      not null constraint artifacts_blob_fkey references coordinator.artifact_blobs (id) on delete cascade,
  constraint artifacts_name check (length(name) between 1 and 512),
  constraint artifacts_key unique nulls not distinct (project_id, name, session_id) -- artifact_show, artifact_list by prefix
);
create index artifacts_session_idx on coordinator.artifacts (session_id, name); -- artifact_list of a session, the end of a session
create index artifacts_trim_at_idx on coordinator.artifacts (trim_at) where trim_at is not null; -- artifact_expire
create index artifacts_blob_idx on coordinator.artifacts (blob_id); -- artifact_prune
comment on table  coordinator.artifacts            is 'Artifacts: logs, diffs, reports; the bytes are read with artifact_read. Written by artifact_put, artifact_finish, artifact_keep and artifact_delete.';
comment on column coordinator.artifacts.id         is 'Number of the artifact; another content of its name keeps it.';
comment on column coordinator.artifacts.project_id is 'The project.';
comment on column coordinator.artifacts.session_id is 'The session that it belongs to and ends with; null: it belongs to the project.';
comment on column coordinator.artifacts.name       is 'Name in the project or session; segments are separated by /. Ordered by bytes.';
comment on column coordinator.artifacts.media_type is 'What the bytes are, such as text/plain; charset=utf-8.';
comment on column coordinator.artifacts.bytes      is 'Size of the content.';
comment on column coordinator.artifacts.sha256     is 'SHA-256 of the content, in hexadecimal.';
comment on column coordinator.artifacts.kept       is 'Whether retention leaves it.';
comment on column coordinator.artifacts.actor      is 'Who stored the present content.';
comment on column coordinator.artifacts.created_at is 'When the name was first used (database clock).';
comment on column coordinator.artifacts.updated_at is 'When the present content was stored (database clock).';
comment on column coordinator.artifacts.trim_at    is 'When artifact_expire looks at it next; null: never.';
comment on column coordinator.artifacts.blob_id    is 'The content.';

-- Readers see this table as it is, without the rows of projects that are closed to them. The owner's functions see all rows.
alter table coordinator.artifacts enable row level security;
create policy artifacts_visible on coordinator.artifacts for select using (project_id in (select p.id from coordinator.projects p));

create type coordinator.artifact_upload as (
  upload   uuid,
  complete boolean,
  parts    integer[]
);
comment on type coordinator.artifact_upload is 'An upload in progress, as artifact_begin returns it.';
