-- Documents: values under a kind and a key, of which each version is a row that is written once.

create table coordinator.documents (
  id          bigint      generated always as identity constraint documents_pkey primary key,
  project_id  bigint      not null,
  kind        text        collate "C" not null,
  key         text        collate "C" not null,
  session_id  bigint,
  version     bigint      not null,
  epoch       integer     not null,
  kept        boolean     not null default false,
  actor       text        not null,
  created_at  timestamptz not null,
  updated_at  timestamptz not null,
  expires_at  timestamptz,
  deleted     boolean     not null default false,
  constraint documents_key unique (project_id, kind, key)) with (fillfactor = 70); -- every call, and lists
-- updated_at has no index, so that a put is a HOT update.
create index documents_expires_idx on coordinator.documents (expires_at) where expires_at is not null; -- what expires, and what retention takes
create index documents_session_idx on coordinator.documents (session_id) where session_id is not null; -- a session that is deleted or forked
comment on table  coordinator.documents            is 'Headers of documents. The lock of the header is that of the document: whoever writes a version updates it first.';
comment on column coordinator.documents.id         is 'Number of the document, of which its versions have a copy.';
comment on column coordinator.documents.project_id is 'The project. Not a foreign key: all writers would lock its row.';
comment on column coordinator.documents.kind       is 'What the document is: state, todo, features, or a kind of the callers.';
comment on column coordinator.documents.key        is 'Key, unique in its project and kind.';
comment on column coordinator.documents.session_id is 'The session that it belongs to; null: none.';
comment on column coordinator.documents.version    is 'Number of the latest version: 1, 2, 3. 0: never committed.';
comment on column coordinator.documents.epoch      is 'Epoch in which the latest version was written.';
comment on column coordinator.documents.kept       is 'True: retention does not take it.';
comment on column coordinator.documents.actor      is 'Who wrote the latest version.';
comment on column coordinator.documents.created_at is 'When it was first put, or first put after it was absent.';
comment on column coordinator.documents.updated_at is 'When the latest version was written.';
comment on column coordinator.documents.expires_at is 'From then on it counts as absent; of one that was deleted: when retention takes it; null: never.';
comment on column coordinator.documents.deleted    is 'True: it was deleted. The row stays until retention takes it, so that no version is given twice.';

create table coordinator.document_versions (
  document_id bigint      not null,
  version     bigint      not null,
  epoch       integer     not null,
  actor       text        not null,
  written_at  timestamptz not null,
  expires_at  timestamptz,
  value       jsonb,
  raw         json,
  constraint document_versions_pkey primary key (document_id, version));
comment on table  coordinator.document_versions             is 'Versions of documents, written once. The newest are kept, as many as document_versions_kept says.';
comment on column coordinator.document_versions.document_id is 'The document.';
comment on column coordinator.document_versions.version     is 'Number of the version.';
comment on column coordinator.document_versions.epoch       is 'Epoch in which it was written: with the version, it names one content for ever.';
comment on column coordinator.document_versions.actor       is 'Who wrote it.';
comment on column coordinator.document_versions.written_at  is 'When it was written.';
comment on column coordinator.document_versions.expires_at  is 'When the document expires that has this version; null: never.';
comment on column coordinator.document_versions.value       is 'The value, with U+FFFD for what jsonb refuses; null: the document was deleted.';
comment on column coordinator.document_versions.raw         is 'The text as it was given, where jsonb refuses or rewrites a string or a number.';

create type coordinator.document_header as (
  project text, kind text, key text, version bigint, epoch text, session text, kept boolean, actor text, created_at timestamptz,
  updated_at timestamptz, expires_at timestamptz);
comment on type coordinator.document_header is
  'A document without its value. epoch: of this version; session: key of the session that it belongs to; actor, updated_at: of this version.';

create type coordinator.document as (
  project text, kind text, key text, version bigint, epoch text, session text, kept boolean, actor text, created_at timestamptz,
  updated_at timestamptz, expires_at timestamptz, value json);
comment on type coordinator.document is
  'A version of a document: the columns of document_header, and its value, or the part of it that was asked for.';

create type coordinator.document_version as (
  version bigint, epoch text, deleted boolean, text_bytes integer, actor text, written_at timestamptz, expires_at timestamptz);
comment on type coordinator.document_version is
  'A version of a document that is kept. deleted: there is no value, the document was deleted; text_bytes: length of its value as text.';

create type coordinator.json_stored as (value jsonb, raw json);
comment on type coordinator.json_stored is
  'A JSON text as it is stored: as jsonb, and as text where that is not the same.';
