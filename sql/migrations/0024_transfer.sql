-- Imports of projects.

create table coordinator.project_imports (
  project_id  bigint      constraint project_imports_pkey primary key
                          constraint project_imports_project_fkey references coordinator.projects (id) on delete cascade,
  export      text        not null,
  lines       bigint      not null,
  updated_at  timestamptz not null,
  finished_at timestamptz
);
comment on table  coordinator.project_imports             is 'Projects that were imported, or are being. Written by project_import.';
comment on column coordinator.project_imports.project_id  is 'The project.';
comment on column coordinator.project_imports.export      is 'Id of the export, from its first line: only the same one continues.';
comment on column coordinator.project_imports.lines       is 'Lines that are imported; the next call continues after them.';
comment on column coordinator.project_imports.updated_at  is 'When the last lines were imported (database clock).';
comment on column coordinator.project_imports.finished_at is 'When the last line was imported; null: it is not.';

create type coordinator.export_line as (
  section integer,
  kind    text,
  key     text,
  number  bigint,
  line    text
);
comment on type coordinator.export_line is
  'A line of an export, and its place: section, then what it is of, then the number of the entry, version or part.';

create type coordinator.import_progress as (
  project  text,
  export   text,
  lines    bigint,
  finished boolean
);
comment on type coordinator.import_progress is
  'How far an import is: the id of the export, and how many of its lines are in the project.';
