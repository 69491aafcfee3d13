-- Deleting a session, with all its contents.

create or replace function coordinator.session_remove(p_session_id bigint, p_reason text, p_actor text, p_now timestamptz, p_entries bigint default 10000, p_bytes bigint default 268435456) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project text;
  v_key     text;
  v_left    bigint := p_entries;
  v_log     record;
  v_next    bigint;
  v_bytes   bigint := p_bytes;
  v_gone    record;
  v_ids     bigint[];
  v_id      bigint;
begin
  update coordinator.sessions s set status = 'archived' from coordinator.projects p
  where s.id = p_session_id and p.id = s.project_id
  returning s.key, p.name into v_key, v_project; -- no transaction can enter it from now on
  if not found then
    return true;
  end if;
  perform from coordinator.logs l where l.session_id = p_session_id order by l.kind, l.key for update;
  perform coordinator.session_close(p_session_id);
  perform from coordinator.documents d where d.session_id = p_session_id order by d.kind, d.key for update;
  for v_log in select * from coordinator.logs l where l.session_id = p_session_id order by l.kind, l.key loop
    while v_log.count > 0 loop
      if v_left = 0 or v_bytes <= 0 then
        return false;
      end if;
      -- Find the range first: a join with the rows is slow if statistics are old.
      select e.seq into v_next from coordinator.entries e where e.log_id = v_log.id order by e.seq offset least(100, v_left) limit 1;
      v_next := coalesce(v_next, v_log.last_seq + 1);
      with gone as (
        delete from coordinator.entries e where e.log_id = v_log.id and e.seq < v_next
        returning pg_column_size(e.data) + coalesce(pg_column_size(e.raw), 0) as bytes)
      select count(*) as count, coalesce(sum(g.bytes), 0) as bytes into v_gone from gone g;
      v_left := v_left - v_gone.count;
      v_bytes := v_bytes - v_gone.bytes;
      v_log.count := case when v_next > v_log.last_seq then 0 else v_log.count - v_gone.count end;
      update coordinator.logs l set first_seq = v_next, count = v_log.count where l.id = v_log.id;
    end loop;
    -- The header stays, hidden, until retention removes it, so that no number is reused.
    update coordinator.logs l
    set first_seq = l.last_seq + 1, count = 0, kept = false, deleted = true, session_id = null, updated_at = greatest(l.updated_at, p_now),
        trim_at = p_now + coordinator.retention_age(l.project_id, 'document', '*')
    where l.id = v_log.id;
  end loop;
  v_left := p_entries;
  for v_id in select d.id from coordinator.documents d where d.session_id = p_session_id order by d.kind, d.key loop
    if v_left = 0 or v_bytes <= 0 then
      return false;
    end if;
    v_left := v_left - 1;
    perform coordinator.document_end(v_id, 'document.deleted', p_actor, p_now);
    with gone as (
      delete from coordinator.document_versions v where v.document_id = v_id
      returning coalesce(pg_column_size(v.value), 0) + coalesce(pg_column_size(v.raw), 0) as bytes)
    select v_bytes - coalesce(sum(g.bytes), 0) into v_bytes from gone g;
    update coordinator.documents d set session_id = null, kept = false where d.id = v_id;
  end loop;
  v_ids := array(select a.id from coordinator.artifacts a where a.session_id = p_session_id order by a.name limit p_entries + 1);
  if cardinality(v_ids) > p_entries then
    delete from coordinator.artifacts a where a.id = any (v_ids[:p_entries]);
    return false;
  end if;
  delete from coordinator.sessions s where s.id = p_session_id;
  perform coordinator.event_append('session.deleted', v_project, v_key, p_actor, p_now, jsonb_build_object('reason', p_reason));
  return true;
end
$$;
comment on function coordinator.session_remove(bigint, text, text, timestamptz, bigint, bigint) is
  'Delete a session with its logs, documents and artifacts, and return true; or archive it, delete a part (up to p_entries entries, documents and artifacts each, until it has deleted p_bytes), and return false: call it again. p_reason: deleted or expired. Internal.';

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
  'Delete a session with its logs, documents and artifacts, and return true. If the session has more than 10,000 entries, documents or artifacts, or more than 256 MB, archive it, delete a part, and return false: call the function again. ZC215: there is no such session.';
