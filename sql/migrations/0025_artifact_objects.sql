-- Objects of an object store, which have contents of artifacts, will have them, or have to be deleted.

create table coordinator.artifact_objects (
  id         bigint      not null generated always as identity constraint artifact_objects_pkey primary key,
  blob_id    bigint      constraint artifact_objects_blob_fkey references coordinator.artifact_blobs (id) on delete set null,
  store      text        collate "C" not null,
  key        text        collate "C" not null,
  created_at timestamptz not null,
  stored_at  timestamptz,
  due_at     timestamptz not null,
  constraint artifact_objects_blob_key unique (blob_id), -- artifact_part, artifact_list, artifact_move: a content has one object
  constraint artifact_objects_key unique (store, key) -- artifact_move: no key is used twice
);
create index artifact_objects_due_idx on coordinator.artifact_objects (due_at) where blob_id is null or stored_at is null; -- artifact_object_delete
comment on table  coordinator.artifact_objects            is 'Objects of an object store that have the bytes of a content, will have them, or have to be deleted. A row is there before its object, and goes after it. Written by artifact_move, artifact_moved, artifact_object_delete and artifact_object_deleted.';
comment on column coordinator.artifact_objects.id         is 'Number of the object.';
comment on column coordinator.artifact_objects.blob_id    is 'The content; null: it is gone, or will not use the object, which has to be deleted. Once null, it stays null.';
comment on column coordinator.artifact_objects.store      is 'The store, as the setting artifact_store names it.';
comment on column coordinator.artifact_objects.key        is 'Key of the object below the prefix of the store; never used twice.';
comment on column coordinator.artifact_objects.created_at is 'When the first attempt to write it began (database clock).';
comment on column coordinator.artifact_objects.stored_at  is 'When it was verified, and the parts in the database were deleted (database clock); null: the content is still in the database.';
comment on column coordinator.artifact_objects.due_at     is 'Not before this instant is an object deleted that has no content, or never was verified: an attempt to write it may be in progress. Then, when its deletion is tried again.';

create type coordinator.artifact_part as (
  data   bytea,
  store  text,
  object text,
  first  bigint,
  length integer
);
comment on type coordinator.artifact_part is 'Bytes of an artifact, or where they are, as artifact_part returns them.';

create type coordinator.artifact_object as (
  object bigint,
  key    text,
  bytes  bigint,
  sha256 text
);
comment on type coordinator.artifact_object is 'An object to write or to delete, for the leading daemon.';
