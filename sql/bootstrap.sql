-- What must exist before the first migration: the schema and its records about itself. Every statement can be run again.

create schema if not exists coordinator;
comment on schema coordinator is
  'The coordination plane: signals, locks, directives, agents and events. Every change is one function call; to read, use the views. Start with: select * from coordinator.event_types; select * from coordinator.limits;';

create table if not exists coordinator.schema_files (
  kind       text        not null,
  name       text        not null,
  checksum   text        not null,
  program    text        not null,
  applied_at timestamptz not null default clock_timestamp(),
  constraint schema_files_pkey primary key (kind, name),
  constraint schema_files_kind check (kind in ('migration', 'functions'))
);
comment on table coordinator.schema_files is
  'The SQL files that made this schema, written by "coordinator schema apply".';
comment on column coordinator.schema_files.kind       is 'migration (applied once, never edited) or functions (applied again whenever any file changed).';
comment on column coordinator.schema_files.name       is 'File name within migrations/ or functions/, such as 0001_foundation.sql or lock/acquire.sql.';
comment on column coordinator.schema_files.checksum   is 'SHA-256 of the file''s bytes, hexadecimal.';
comment on column coordinator.schema_files.program    is 'Version of the program that applied the file.';
comment on column coordinator.schema_files.applied_at is 'When it was last applied (database clock).';

create table if not exists coordinator.schema_roles (
  role text not null constraint schema_roles_pkey primary key
);
comment on table  coordinator.schema_roles      is 'Roles that coordinator.schema_grant admitted to the schema; granted again after every apply.';
comment on column coordinator.schema_roles.role is 'Name of a PostgreSQL role.';

create table if not exists coordinator.schema_compatibility (
  singleton boolean not null default true constraint schema_compatibility_pkey primary key,
  oldest    integer not null,
  constraint schema_compatibility_singleton check (singleton)
);
comment on table  coordinator.schema_compatibility           is 'Which programs this schema serves; one row. A migration that removes what earlier releases use raises oldest.';
comment on column coordinator.schema_compatibility.singleton is 'Always true.';
comment on column coordinator.schema_compatibility.oldest    is 'Number of the newest migration that a program must know to run on this schema.';
insert into coordinator.schema_compatibility (oldest) values (36) on conflict do nothing;
