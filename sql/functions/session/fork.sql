-- Forking a session: a copy as it is now, or as it was when an entry was appended.

create or replace function coordinator.session_fork(
  p_project text, p_session text, p_seq bigint default null, p_kind text default 'message', p_copy text default null, p_title text default null,
  p_actor text default null)
returns setof coordinator.sessions_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_now      timestamptz := coordinator.now_utc();
  v_actor    text := coordinator.actor_name(p_actor);
  v_epoch    integer := coordinator.epoch_stamp();
  v_copy     text := coalesce(p_copy, gen_random_uuid()::text);
  v_source   coordinator.sessions;
  v_log      record;
  v_document record;
  v_version  record;
  v_id       bigint;
  v_new      bigint;
  v_at       timestamptz;
  v_copied   record;
  v_left     bigint := 100000;
  v_count    bigint;
begin
  perform coordinator.check_kind(p_kind);
  perform coordinator.check_key('the key of the copy', v_copy);
  perform coordinator.session_check(p_title, null, null, null);
  perform coordinator.project_hold(v_project); -- before the rows of the project, as project_delete does
  select s.* into v_source from coordinator.sessions s where s.project_id = v_project and s.key = p_session for share;
  if not found then
    perform coordinator.session_missing(v_project, p_session);
  end if;
  perform coordinator.session_hold(v_source.id);

  select l.id, l.last_seq into v_log from coordinator.logs l
  where l.project_id = v_project and l.kind = p_kind and l.key = p_session and l.session_id = v_source.id and not l.deleted;
  select e.created_at into v_at from coordinator.entries e where e.log_id = v_log.id and e.seq = p_seq;
  if p_seq is null then
    v_at := 'infinity'; -- as it is now
  elsif v_at is null then
    raise exception using errcode = 'ZC335',
      message = case when v_log.id is null then format('session "%s" has no log of kind "%s"', p_session, p_kind)
                     when p_seq > v_log.last_seq then format('entry %s is beyond the end of log "%s": its last entry is %s', p_seq, p_session, v_log.last_seq)
                     when p_seq < 1 then format('log "%s" has no entry %s: numbers start at 1', p_session, p_seq)
                     else format('entry %s of log "%s" is no longer there', p_seq, p_session) end,
      detail = jsonb_build_object('last_seq', v_log.last_seq)::text, hint = 'Give the number of an entry that the log has; see "coordinator log read".';
  end if;

  v_id := coordinator.session_begin(v_project, v_copy, v_source.user_id, coalesce(p_title, v_source.title), v_source.mission, 'active',
                                    v_source.context, p_session, v_actor, v_now);
  if v_id is null then
    perform coordinator.session_taken(v_copy);
  end if;

  for v_log in
    select l.*, v_copy || substr(l.key, length(p_session) + 1) as copy from coordinator.logs l
    where l.session_id = v_source.id and not l.deleted order by l.kind, l.key
  loop
    perform coordinator.check_key('the key of the copy', v_log.copy);
    insert into coordinator.logs (project_id, kind, key, session_id, epoch, updated_at, trim_at)
    values (v_project, v_log.kind, v_log.copy, v_id, v_epoch, v_now, v_now + coordinator.retention_age(v_project, 'log', v_log.kind))
    on conflict do nothing returning id into v_new;
    if v_new is null then
      perform coordinator.session_taken(v_log.copy);
    end if;
    with copied as (
      insert into coordinator.entries (log_id, seq, uid, role, tokens, epoch, needs_seq, links, kept, actor, created_at, data, raw)
      select v_new, e.seq, e.uid, e.role, e.tokens, v_epoch, e.needs_seq, e.links, e.kept, e.actor, e.created_at, e.data, e.raw
      from coordinator.entries e
      where e.log_id = v_log.id and case when v_log.kind = p_kind and v_log.key = p_session then e.seq <= coalesce(p_seq, e.seq) else e.created_at <= v_at end
      order by e.seq limit v_left + 1
      returning seq)
    select count(*) as count, min(c.seq) as first, max(c.seq) as last into v_copied from copied c;
    v_left := v_left - v_copied.count;
    if v_left < 0 then
      raise exception using errcode = 'ZC102', message = format('session "%s" has more than 100000 entries', p_session),
        hint = 'Fork it at an earlier entry.';
    elsif v_copied.count = 0 then
      delete from coordinator.logs where id = v_new;
    else
      update coordinator.logs set first_seq = v_copied.first, last_seq = v_copied.last, count = v_copied.count where id = v_new;
    end if;
  end loop;

  for v_document in
    select d.*, v_copy || substr(d.key, length(p_session) + 1) as copy from coordinator.documents d
    where d.session_id = v_source.id order by d.kind, d.key
  loop
    select v.* into v_version from coordinator.document_versions v
    where v.document_id = v_document.id and v.written_at <= v_at order by v.version desc limit 1;
    if not found then
      if not v_document.deleted
         and (select min(v.version) from coordinator.document_versions v where v.document_id = v_document.id) > 1 then
        raise exception using errcode = 'ZC335',
          message = format('the version that document "%s" of kind "%s" had then is no longer kept', v_document.key, v_document.kind),
          detail = jsonb_build_object('kind', v_document.kind, 'key', v_document.key)::text,
          hint = 'Fork the session at a later entry; "coordinator retention show" lists how many versions are kept.';
      end if;
      continue;
    end if;
    continue when v_version.value is null and v_version.raw is null or v_version.expires_at <= v_now; -- absent
    perform coordinator.check_key('the key of the copy', v_document.copy);
    insert into coordinator.documents (project_id, kind, key, session_id, version, epoch, kept, actor, created_at, updated_at, expires_at)
    values (v_project, v_document.kind, v_document.copy, v_id, v_version.version, v_epoch, v_document.kept, v_version.actor,
            least(v_document.created_at, v_version.written_at), v_version.written_at, v_version.expires_at)
    on conflict do nothing returning id into v_new;
    if v_new is null then
      perform coordinator.session_taken(v_document.copy);
    end if;
    insert into coordinator.document_versions (document_id, version, epoch, actor, written_at, expires_at, value, raw)
    select v_new, v.version, v_epoch, v.actor, v.written_at, v.expires_at, v.value, v.raw
    from coordinator.document_versions v where v.document_id = v_document.id and v.version <= v_version.version;
    perform coordinator.document_index(v_new, v_project, v_document.kind, v_version.value, v_version.written_at);
  end loop;

  -- Earlier contents of artifacts are not kept, so the copy lacks artifacts that were stored since then.
  insert into coordinator.artifacts (project_id, session_id, name, media_type, bytes, sha256, kept, actor, created_at, updated_at, blob_id)
  select a.project_id, v_id, a.name, a.media_type, a.bytes, a.sha256, a.kept, a.actor, a.created_at, a.updated_at, a.blob_id
  from coordinator.artifacts a where a.session_id = v_source.id and a.updated_at <= v_at;
  get diagnostics v_count = row_count;
  if v_count > 0 then
    perform coordinator.artifact_use(v_project, v_count, 0);
  end if;

  perform coordinator.event_append('session.forked', p_project, v_copy, v_actor, v_now,
    jsonb_build_object('session', p_session, 'kind', p_kind, 'seq', p_seq));
  return query select * from coordinator.session_show(p_project, v_copy);
end
$$;
comment on function coordinator.session_fork(text, text, bigint, text, text, text, text) is
  'Copy a session as it is now, or as it was when the entry p_seq of its log of p_kind was appended: its logs up to then, with their numbers, its documents, with their versions, and the artifacts that were not stored since. p_copy: the key of the copy, by default a new UUID. Later changes to one do not affect the other. ZC335: the entry does not exist (any more), or a version of that time is no longer kept. ZC301: the key is taken.';
