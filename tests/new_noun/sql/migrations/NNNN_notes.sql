-- Notes: short texts that agents of a project leave for each other.

create table coordinator.notes (
  project_id bigint      not null constraint notes_project_fkey references coordinator.projects (id) on delete cascade,
  key        text        collate "C" not null,
  text       text        not null,
  actor      text        not null,
  written_at timestamptz not null,
  expires_at timestamptz not null,
  constraint notes_pkey primary key (project_id, key)
);
create index notes_expires_at on coordinator.notes (expires_at); -- note_expire, work_due
comment on table  coordinator.notes            is 'Short texts that agents of a project leave for each other. Written by note_write.';
comment on column coordinator.notes.project_id is 'The project.';
comment on column coordinator.notes.key        is 'What the note is about.';
comment on column coordinator.notes.text       is 'The text.';
comment on column coordinator.notes.actor      is 'Who wrote it.';
comment on column coordinator.notes.written_at is 'When it was written (database clock).';
comment on column coordinator.notes.expires_at is 'When readers stop seeing it.';
