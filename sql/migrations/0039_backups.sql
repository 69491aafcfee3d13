-- Backups that were made of this database, by whatever program, and what became of them.

create table coordinator.backups (
  backup       text        collate "C" not null,
  tool         text        not null,
  started_at   timestamptz not null,
  ended_at     timestamptz not null,
  bytes        bigint,
  error        text,
  verified_at  timestamptz,
  verify_error text,
  restored_at  timestamptz,
  constraint backups_pkey primary key (backup)
);
comment on table  coordinator.backups              is 'The newest 1,000 backups of this database. Written by backup_record, backup_verified and backup_restored.';
comment on column coordinator.backups.backup       is 'Name of the backup.';
comment on column coordinator.backups.tool         is 'What made it: dump (coordinator backup create), or another program, such as pgbackrest.';
comment on column coordinator.backups.started_at   is 'When it began: a restore brings back what had been committed then (database clock).';
comment on column coordinator.backups.ended_at     is 'When it was recorded as complete, or as failed (database clock).';
comment on column coordinator.backups.bytes        is 'Its size; null: unknown.';
comment on column coordinator.backups.error        is 'Why it failed; null: it is complete.';
comment on column coordinator.backups.verified_at  is 'When it was last restored and compared (database clock).';
comment on column coordinator.backups.verify_error is 'What differed then, or why it could not be restored; null: nothing.';
comment on column coordinator.backups.restored_at  is 'When this database was restored from it (database clock).';
