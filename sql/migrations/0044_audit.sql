-- The audit trail is copied from the log of events, and chained by hashes.

alter table coordinator.entries add column hash bytea;
comment on column coordinator.entries.hash is 'Of an entry of the audit trail: the hash of its content and of the hash before it, see functions/audit.sql; else null.';

create table coordinator.audit_cursor (
  only_row   boolean     not null default true constraint audit_cursor_pkey primary key constraint audit_cursor_only_row check (only_row),
  seq        bigint      not null,
  copied_at  timestamptz not null
);
comment on table  coordinator.audit_cursor           is 'How far the log of events was copied into the audit trails. One row. Written by audit_copy.';
comment on column coordinator.audit_cursor.only_row  is 'Always true.';
comment on column coordinator.audit_cursor.seq       is 'Events up to this number were copied, or are not audited.';
comment on column coordinator.audit_cursor.copied_at is 'When that was so (database clock).';
-- From now on: what was audited before was written with the change.
insert into coordinator.audit_cursor (seq, copied_at)
select coalesce((select last_seq from coordinator.event_chunks order by first_seq desc limit 1), 0), clock_timestamp();

create table coordinator.audit_anchors (
  log_id bigint not null constraint audit_anchors_pkey primary key constraint audit_anchors_log_id_fkey references coordinator.logs on delete cascade,
  seq    bigint not null,
  hash   bytea  not null
);
comment on table  coordinator.audit_anchors        is 'Where the chains of audit trails begin of which retention has removed entries. An entry of the trail says the same. Written by log_trim.';
comment on column coordinator.audit_anchors.log_id is 'The log of the trail.';
comment on column coordinator.audit_anchors.seq    is 'Number of the last entry that was removed.';
comment on column coordinator.audit_anchors.hash   is 'Its hash.';

create table coordinator.audit_policies (
  project_id bigint      not null constraint audit_policies_pkey primary key constraint audit_policies_project_id_fkey references coordinator.projects on delete cascade,
  topics     text[]      not null,
  actor      text        not null,
  updated_at timestamptz not null
);
comment on table  coordinator.audit_policies            is 'Which events of a project are audited, where that is not the default. Written by audit_set and audit_reset.';
comment on column coordinator.audit_policies.project_id is 'The project.';
comment on column coordinator.audit_policies.topics     is 'The topics; none: only what is always audited.';
comment on column coordinator.audit_policies.actor      is 'Who set it.';
comment on column coordinator.audit_policies.updated_at is 'When (database clock).';

create table coordinator.audit_applied (
  project_id bigint not null constraint audit_applied_pkey primary key constraint audit_applied_project_id_fkey references coordinator.projects on delete cascade,
  pattern    text
);
comment on table  coordinator.audit_applied            is 'The policy of a project as of the last event that was copied: what happened before a change is audited by the former policy. Written by audit_copy.';
comment on column coordinator.audit_applied.project_id is 'The project.';
comment on column coordinator.audit_applied.pattern    is 'Its topics as a regular expression; null: none.';

create type coordinator.audit_entry as (seq bigint, epoch text, hash text, entry json);
comment on type coordinator.audit_entry is 'An entry of an audit trail. entry: the content, whose exact text was hashed; hash: in hexadecimal digits, null for an entry from before there were hashes.';

create type coordinator.audit_state as (
  project text, topics text[], is_default boolean, first_seq bigint, last_seq bigint, count bigint, epoch text, hash text,
  anchor_seq bigint, anchor_hash text, copied_at timestamptz, behind bigint);
comment on type coordinator.audit_state is
  'An audit trail. hash: of entry last_seq, which is of epoch; anchor_seq and anchor_hash: of the last entry that retention has removed, null if none; behind: events that were not copied yet, copied_at: when it was last looked.';

drop function if exists coordinator.audit_append(bigint, text, text, text, timestamptz, jsonb);
