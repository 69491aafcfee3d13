-- The log of audits: what managers and administrators did. One log in each project, and one for what concerns no project.

create or replace function coordinator.audit_append(
  p_project_id bigint, p_action text, p_subject text, p_actor text, p_now timestamptz, p_detail jsonb default '{}') returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coalesce(p_project_id, 0);
  v_epoch   integer := coordinator.epoch_stamp();
  v_log     record;
begin
  loop
    update coordinator.logs l set last_seq = l.last_seq + 1, count = l.count + 1, epoch = v_epoch, updated_at = greatest(l.updated_at, p_now)
    where l.project_id = v_project and l.kind = 'audit' and l.key = 'audit'
    returning l.id, l.last_seq, l.updated_at into v_log;
    exit when found;
    insert into coordinator.logs (project_id, kind, key, epoch, updated_at, trim_at)
    values (v_project, 'audit', 'audit', v_epoch, p_now, p_now + coordinator.retention_age(v_project, 'log', 'audit')) on conflict do nothing;
  end loop;
  insert into coordinator.entries (log_id, seq, epoch, actor, created_at, data)
  values (v_log.id, v_log.last_seq, v_epoch, p_actor, v_log.updated_at,
          json_build_object('action', p_action, 'subject', p_subject, 'detail', p_detail));
  if p_project_id is not null then
    perform coordinator.event_append('log.appended', (select name from coordinator.projects where id = p_project_id), 'audit/audit', p_actor,
      v_log.updated_at, jsonb_build_object('kind', 'audit', 'name', 'audit', 'first_seq', v_log.last_seq, 'last_seq', v_log.last_seq));
  end if;
end
$$;
comment on function coordinator.audit_append(bigint, text, text, text, timestamptz, jsonb) is
  'Record what somebody did: the function as p_action, what it did that to, and details without secrets. The last row lock of a function: its header is locked until the commit. p_project_id null: it concerns no project. Internal.';

create or replace view coordinator.audit_trail with (security_barrier) as
  select p.name as project, e.seq, lpad(to_hex(e.epoch), 8, '0') as epoch, e.data ->> 'action' as action, e.data ->> 'subject' as subject,
         e.data -> 'detail' as detail, e.actor, e.created_at
  from coordinator.logs l
  left join coordinator.projects p on p.id = l.project_id
  join coordinator.entries e on e.log_id = l.id
  where l.kind = 'audit' and (p.id is not null or l.project_id = 0)
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), (select coordinator.projects_visible()) is null);
comment on view   coordinator.audit_trail            is 'What managers and administrators did: users, roles, tokens, projects, broken locks, retention, and what was deleted.';
comment on column coordinator.audit_trail.project    is 'Name of the project; null: it concerns no single project.';
comment on column coordinator.audit_trail.seq        is 'Number within the log of audits of the project.';
comment on column coordinator.audit_trail.epoch      is 'The epoch in which it was written.';
comment on column coordinator.audit_trail.action     is 'The function.';
comment on column coordinator.audit_trail.subject    is 'What it did that to.';
comment on column coordinator.audit_trail.detail     is 'More about it, as an object.';
comment on column coordinator.audit_trail.actor      is 'Who did it.';
comment on column coordinator.audit_trail.created_at is 'When.';
