-- Expiry: removing objects whose TTL has passed, or that were deleted or last used long enough ago.

create or replace function coordinator.document_expire(p_limit integer default 1000) returns setof coordinator.retention_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select (r::coordinator.retention_result).* from unnest(coordinator.project_each('document_expire', p_limit, $due$
    select d.project_id, d.id::text from coordinator.documents d
    where d.expires_at <= $1 and d.project_id <> all ($2) order by d.expires_at limit $3
  $due$)) r;
end
$$;
comment on function coordinator.document_expire(integer) is
  'Delete documents whose TTL has passed, and remove documents whose retention after deletion has passed. Return a row for each, at most p_limit. Repeat until there is none.';

create or replace function coordinator.document_expire_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now      timestamptz := coordinator.now_utc();
  v_document coordinator.documents;
  v_done     text[] := '{}';
begin
  for v_document in
    select * from coordinator.documents d where d.id = any (p_items::bigint[]) and d.expires_at <= v_now order by d.id for update skip locked
  loop
    if not v_document.deleted then
      perform coordinator.document_end(v_document.id, 'document.deleted', 'coordinator', v_now);
    elsif v_document.kept then
      update coordinator.documents d set expires_at = null where d.id = v_document.id;
    else
      delete from coordinator.document_versions v where v.document_id = v_document.id;
      delete from coordinator.documents d where d.id = v_document.id;
    end if;
    v_done := v_done || row('document', coordinator.retention_label('document', v_document.kind),
      (v_document.deleted and not v_document.kept)::integer)::coordinator.retention_result::text;
  end loop;
  return v_done;
end
$$;
comment on function coordinator.document_expire_in(bigint, text[], integer) is
  'Do the work of document_expire in a project: see project_each. Internal.';

create or replace function coordinator.session_kept(p_session_id bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (select from coordinator.logs l where l.session_id = p_session_id
                   and (l.kept or exists (select from coordinator.entries e where e.log_id = l.id and e.kept)))
      or exists (select from coordinator.documents d where d.session_id = p_session_id and d.kept)
      or exists (select from coordinator.artifacts a where a.session_id = p_session_id and a.kept)
$$;
comment on function coordinator.session_kept(bigint) is
  'Return whether a session contains something that is kept: then retention removes none of it. Internal.';

create or replace function coordinator.session_expire(p_limit integer default 100) returns setof coordinator.retention_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select (r::coordinator.retention_result).* from unnest(coordinator.project_each('session_expire', p_limit, $due$
    select s.project_id, s.id::text from coordinator.sessions s
    where s.trim_at <= $1 and s.project_id <> all ($2) order by s.trim_at limit $3
  $due$)) r;
end
$$;
comment on function coordinator.session_expire(integer) is
  'Delete a session of each project that has been idle for its maximum age, with its contents or a part of them, unless it contains something that is kept. Return a row for each session that was checked. Repeat until there is none.';

create or replace function coordinator.session_expire_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now     timestamptz := coordinator.now_utc();
  v_session coordinator.sessions;
  v_idle_at timestamptz;
  v_gone    boolean := false;
  v_done    text[] := '{}';
begin
  for v_session in
    select * from coordinator.sessions s where s.id = any (p_items::bigint[]) and s.trim_at <= v_now order by s.trim_at for update skip locked
  loop
    v_idle_at := v_session.updated_at + coordinator.retention_age(v_session.project_id, 'session', '*');
    if v_idle_at is null or v_idle_at > v_now then -- it has been used in the meantime
      update coordinator.sessions s set trim_at = v_idle_at where s.id = v_session.id;
    elsif coordinator.session_kept(v_session.id) then
      update coordinator.sessions s set trim_at = v_now + interval '1 day' where s.id = v_session.id;
    else
      v_gone := coordinator.session_remove(v_session.id, 'expired', 'coordinator', v_now, 100 * p_limit);
    end if;
    v_done := v_done || row('session', '*', v_gone::integer)::coordinator.retention_result::text;
    exit when v_idle_at <= v_now; -- the removal of one session is a batch
  end loop;
  return v_done;
end
$$;
comment on function coordinator.session_expire_in(bigint, text[], integer) is
  'Do the work of session_expire in a project, up to 100 entries for each of p_limit: see project_each. Internal.';

create or replace function coordinator.artifact_expire(p_limit integer default 100) returns setof coordinator.retention_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return query select (r::coordinator.retention_result).* from unnest(coordinator.project_each('artifact_expire', p_limit, $due$
    select a.project_id, a.id::text from coordinator.artifacts a
    where a.trim_at <= $1 and a.project_id <> all ($2) order by a.trim_at limit $3
  $due$)) r;
end
$$;
comment on function coordinator.artifact_expire(integer) is
  'Delete artifacts outside of sessions that have reached their maximum age, unless they are kept. Return a row for each artifact that was checked, at most p_limit. Repeat until there is none.';

create or replace function coordinator.artifact_expire_in(p_project_id bigint, p_items text[], p_limit integer) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now  timestamptz := coordinator.now_utc();
  v_due  bigint[];
  v_gone coordinator.artifacts;
begin
  v_due := array(select a.id from coordinator.artifacts a where a.id = any (p_items::bigint[]) and a.trim_at <= v_now for update skip locked);
  update coordinator.artifacts a set trim_at = coordinator.artifact_trim_at(a.project_id, a.session_id, a.kept, a.updated_at)
  where a.id = any (v_due) and a.trim_at is distinct from coordinator.artifact_trim_at(a.project_id, a.session_id, a.kept, a.updated_at);
  -- In one statement, because the usage of the project is locked after the contents.
  for v_gone in delete from coordinator.artifacts a where a.id = any (v_due) and a.trim_at <= v_now returning * loop
    perform coordinator.event_append('artifact.deleted', (select p.name from coordinator.projects p where p.id = v_gone.project_id), v_gone.name,
      'coordinator', v_now, jsonb_build_object('session', null, 'sha256', v_gone.sha256));
  end loop;
  return array(select row('artifact', '*', (not exists (select from coordinator.artifacts a where a.id = d.id))::integer)::coordinator.retention_result::text
               from unnest(v_due) d (id));
end
$$;
comment on function coordinator.artifact_expire_in(bigint, text[], integer) is
  'Do the work of artifact_expire in a project: see project_each. Internal.';
