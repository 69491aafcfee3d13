-- Documents of built-in kinds, as tables for people.

create or replace view coordinator.states with (security_barrier) as
  select d.id, d.session_id, v.value as state_json, d.version, d.updated_at as "timestamp", p.name as project, d.key as session
  from coordinator.documents d
  join coordinator.projects p on p.id = d.project_id
  join coordinator.document_versions v on v.document_id = d.id and v.version = d.version
  where d.kind = 'state' and not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc())
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.states             is 'Current state of each session.';
comment on column coordinator.states.id          is 'Number of the document.';
comment on column coordinator.states.session_id  is 'Session; see sessions.';
comment on column coordinator.states.state_json  is 'The state; U+FFFD replaces what jsonb rejects. document_get returns the exact text.';
comment on column coordinator.states.version     is 'Number of the latest version.';
comment on column coordinator.states."timestamp" is 'When it was saved.';
comment on column coordinator.states.project     is 'Name of the project.';
comment on column coordinator.states.session     is 'Key of the session.';

create or replace view coordinator.todo_lists with (security_barrier) as
  select d.key as todolist_id, d.session_id, v.value as plan_json,
         coalesce(case when jsonb_typeof(v.value) = 'object' then v.value ->> 'status' end,
           (select case when count(*) filter (where i.status in ('completed', 'done')) = count(*) then 'COMPLETED'
                        when count(*) filter (where coalesce(i.status, 'pending') <> 'pending') > 0 then 'IN_PROGRESS'
                        else 'PENDING' end
            from (select lower(item ->> 'status') as status
                  from jsonb_array_elements(case when jsonb_typeof(v.value) = 'array' then v.value else v.value -> 'items' end) item) i)) as status,
         d.created_at, d.updated_at, p.name as project, d.version
  from coordinator.documents d
  join coordinator.projects p on p.id = d.project_id
  join coordinator.document_versions v on v.document_id = d.id and v.version = d.version
  where d.kind = 'todo' and not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc())
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.todo_lists             is 'Current todo lists.';
comment on column coordinator.todo_lists.todolist_id is 'Key of the list.';
comment on column coordinator.todo_lists.session_id  is 'Session that it belongs to; null: none.';
comment on column coordinator.todo_lists.plan_json   is 'The list; U+FFFD replaces what jsonb rejects. document_get returns the exact text.';
comment on column coordinator.todo_lists.status      is 'Status of the list, or the status derived from its items: COMPLETED (all are), PENDING (none has begun) or IN_PROGRESS.';
comment on column coordinator.todo_lists.created_at  is 'When it was first put.';
comment on column coordinator.todo_lists.updated_at  is 'When it was last changed.';
comment on column coordinator.todo_lists.project     is 'Name of the project.';
comment on column coordinator.todo_lists.version     is 'Number of the latest version.';

create or replace view coordinator.project_features with (security_barrier) as
  select d.id, v.value as content, d.updated_at, p.name as project, d.key as list, d.version
  from coordinator.documents d
  join coordinator.projects p on p.id = d.project_id
  join coordinator.document_versions v on v.document_id = d.id and v.version = d.version
  where d.kind = 'features' and not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc())
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.project_features            is 'Current feature lists of projects.';
comment on column coordinator.project_features.id         is 'Number of the document.';
comment on column coordinator.project_features.content    is 'The list; U+FFFD replaces what jsonb rejects. document_get returns the exact text.';
comment on column coordinator.project_features.updated_at is 'When it was last changed.';
comment on column coordinator.project_features.project    is 'Name of the project.';
comment on column coordinator.project_features.list       is 'Key of the list.';
comment on column coordinator.project_features.version    is 'Number of the latest version.';
