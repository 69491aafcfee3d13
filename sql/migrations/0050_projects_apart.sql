-- What one project holds obstructs no other one: loops handle each project apart, see project_each.

drop function if exists coordinator.lock_expire_in(bigint, text, timestamptz, integer);

alter table coordinator.audit_cursor add column late jsonb not null default '{}';
comment on column coordinator.audit_cursor.late is 'Projects whose trails could not be written, and the number up to which their events were copied.';

alter table coordinator.retention_sweeps add column swept_until bigint;
comment on column coordinator.retention_sweeps.swept_until is 'Number of the last log, document, session or artifact that it concerns; null: all. A sweep leaves rows that another transaction has locked to a sweep of their own.';
