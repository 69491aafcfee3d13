-- Deleting a session, with all its contents.

create or replace function coordinator.session_remove(p_session_id bigint, p_reason text, p_actor text, p_now timestamptz, p_entries bigint default 10000) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project text;
  v_key     text;
  v_left    bigint := p_entries;
  v_log     record;
  v_next    bigint;
begin
  update coordinator.sessions s set status = 'archived' from coordinator.projects p
  where s.id = p_session_id and p.id = s.project_id
  returning s.key, p.name into v_key, v_project; -- no transaction can enter it from now on
  if not found then
    return true;
  end if;
  perform from coordinator.logs l where l.session_id = p_session_id order by l.kind, l.key for update;
  perform from coordinator.documents d where d.session_id = p_session_id order by d.kind, d.key for update;
  for v_log in select * from coordinator.logs l where l.session_id = p_session_id order by l.kind, l.key loop
    if v_log.count <= v_left then
      delete from coordinator.entries e where e.log_id = v_log.id;
      v_left := v_left - v_log.count;
    else
      -- Find the range first: a join with the rows is slow if statistics are old.
      select e.seq into v_next from coordinator.entries e where e.log_id = v_log.id order by e.seq offset v_left limit 1;
      delete from coordinator.entries e where e.log_id = v_log.id and e.seq < v_next;
      update coordinator.logs l set first_seq = v_next, count = l.count - v_left where l.id = v_log.id;
      return false;
    end if;
    -- The header stays, hidden, until retention removes it, so that no number is reused.
    update coordinator.logs l
    set first_seq = l.last_seq + 1, count = 0, kept = false, deleted = true, session_id = null, updated_at = greatest(l.updated_at, p_now),
        trim_at = p_now + coordinator.retention_age(l.project_id, 'document', '*')
    where l.id = v_log.id;
  end loop;
  perform coordinator.document_end(d.id, 'document.deleted', p_actor, p_now) from coordinator.documents d where d.session_id = p_session_id;
  delete from coordinator.document_versions v using coordinator.documents d where v.document_id = d.id and d.session_id = p_session_id;
  update coordinator.documents d set session_id = null, kept = false where d.session_id = p_session_id;
  delete from coordinator.sessions s where s.id = p_session_id;
  perform coordinator.event_append('session.deleted', v_project, v_key, p_actor, p_now, jsonb_build_object('reason', p_reason));
  return true;
end
$$;
comment on function coordinator.session_remove(bigint, text, text, timestamptz, bigint) is
  'Delete a session with its logs, documents and artifacts, and return true; or up to p_entries of its entries, archive it, and return false: call it again. p_reason: deleted or expired. Internal.';

create or replace function coordinator.session_delete(p_project text, p_session text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
  v_id      bigint;
begin
  select s.id into v_id from coordinator.sessions s where s.project_id = v_project and s.key = p_session for update;
  if not found then
    perform coordinator.session_missing(v_project, p_session);
  end if;
  if not coordinator.session_remove(v_id, 'deleted', v_actor, coordinator.now_utc()) then
    return false;
  end if;
  return true;
end
$$;
comment on function coordinator.session_delete(text, text, text) is
  'Delete a session with its logs, documents and artifacts, and return true. If the session has more than 10,000 entries, archive it, delete 10,000 entries, and return false: call the function again. ZC215: there is no such session.';
