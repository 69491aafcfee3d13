-- Documents: values under a kind and a key, in versions numbered 1, 2, 3.
--
-- Guarantees
--   Each write is a version, and a version is written once: its number, together with the epoch in which it was written, identifies one
--   content for ever, even if the database was restored to an earlier point. No number is reused while the document exists, or while it
--   is deleted and kept.
--   p_expect and p_epoch are the version and epoch that the caller has read: the write happens only if both are still current. p_expect
--   0: the document must be absent.
--   A deleted or expired document is absent for every reader and writer.
--   document_item and document_patch change the latest version, whatever it is: of two calls at the same time, neither fails, and no
--   change is lost.
--
-- How it works. The header (documents) has the number of the latest version. A writer updates it first, which locks the document. The
-- next statement sees what other transactions committed while the writer waited, so these functions need read committed. Then
-- document_write inserts the version and deletes those beyond the number that is kept.
--
-- Locks: the header, then its versions; several headers in the order of kind and key (document_hold). See sql/README.md.

insert into coordinator.event_types (type, key, data, meaning) values
  ('document.put',     'kind/key of the document', '{kind,version}', 'A version of a document was written.'),
  ('document.deleted', 'kind/key of the document', '{kind,version}', 'A document was deleted; version: the version number of the deletion.');

insert into coordinator.rights (function, role) values
  ('assert_document',  'agent'),
  ('document_diff',    'reader'),
  ('document_get',     'reader'),
  ('document_history', 'reader'),
  ('document_list',    'reader'),
  ('document_delete',  'agent'),
  ('document_item',    'agent'),
  ('document_keep',    'agent'),
  ('document_patch',   'agent'),
  ('document_put',     'agent'),
  ('document_restore', 'agent');

insert into coordinator.limits (name, value, unit, meaning) values
  ('document',      1048576, 'bytes', 'A document, measured both as the text that is written and as the text that readers get.'),
  ('document_body', 1179648, 'bytes', 'Body of a request that writes a document.'),
  ('document_path', 32,      'steps', 'Steps in a path into a document.');

insert into coordinator.transaction_verbs (function, part, entered_by) values
  ('assert_document',  'condition', 'document_enter'),
  ('document_delete',  'write', 'document_enter'),
  ('document_item',    'write', 'document_enter'),
  ('document_patch',   'write', 'document_enter'),
  ('document_put',     'write', 'document_enter'),
  ('document_restore', 'write', 'document_enter');

create or replace view coordinator.documents_live with (security_barrier) as
  select p.name as project, d.kind, d.key, d.version, lpad(to_hex(d.epoch), 8, '0') as epoch, s.key as session, d.kept, d.actor, d.created_at,
         d.updated_at, d.expires_at, v.value
  from coordinator.documents d
  join coordinator.projects p on p.id = d.project_id
  join coordinator.document_versions v on v.document_id = d.id and v.version = d.version
  left join coordinator.sessions s on s.id = d.session_id
  where not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc())
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.documents_live            is 'Current documents, with the latest version of each. Deleted and expired documents are excluded.';
comment on column coordinator.documents_live.project    is 'Name of the project.';
comment on column coordinator.documents_live.kind       is 'Kind: state, todo, features, or a kind chosen by callers.';
comment on column coordinator.documents_live.key        is 'Key, unique in its project and kind.';
comment on column coordinator.documents_live.version    is 'Number of the latest version.';
comment on column coordinator.documents_live.epoch      is 'Epoch in which this version was written.';
comment on column coordinator.documents_live.session    is 'Key of its session; null: none.';
comment on column coordinator.documents_live.kept       is 'True: exempt from retention.';
comment on column coordinator.documents_live.actor      is 'Who wrote this version.';
comment on column coordinator.documents_live.created_at is 'When it was first put, or put again after it was absent.';
comment on column coordinator.documents_live.updated_at is 'When this version was written.';
comment on column coordinator.documents_live.expires_at is 'When it expires; null: never.';
comment on column coordinator.documents_live.value      is 'The value; U+FFFD replaces what jsonb rejects. document_get returns the exact text.';

create or replace function coordinator.document_versions_kept(p_project_id bigint, p_kind text) returns bigint
language sql stable
return coordinator.retention_count(p_project_id, 'document', p_kind);
comment on function coordinator.document_versions_kept(bigint, text) is
  'Return how many versions of a document are kept; null: all. Internal.';

create or replace function coordinator.document_leaves_at(p_project_id bigint, p_kind text, p_now timestamptz) returns timestamptz
language sql stable
return p_now + coordinator.retention_age(p_project_id, 'document', p_kind);
comment on function coordinator.document_leaves_at(bigint, text, timestamptz) is
  'Return when retention removes a document that is deleted at p_now; null: never. Internal.';

create or replace function coordinator.document_restorable(p_project text, p_kind text, p_key text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format('It %s; "coordinator document restore %s %s" brings it back.', case when d.deleted then 'was deleted' else 'has expired' end,
    coordinator.shell_word(p_kind), coordinator.shell_word(p_key))
  from coordinator.documents d
  where d.project_id = coordinator.project_id(p_project) and d.kind = p_kind and d.key = p_key
    and (d.deleted or d.expires_at <= coordinator.now_utc())
    and exists (select from coordinator.document_versions v where v.document_id = d.id and v.value is not null)
$$;
comment on function coordinator.document_restorable(text, text, text) is
  'Return a hint if document_restore can restore an absent document; null: it cannot. Internal.';

create or replace function coordinator.document_missing(p_project text, p_kind text, p_key text) returns void
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.name_missing('ZC217', p_project, 'document', p_key, array(
    select d.key from coordinator.documents d
    where d.project_id = coordinator.project_id(p_project) and d.kind = p_kind and not d.deleted
      and (d.expires_at is null or d.expires_at > coordinator.now_utc())
    order by d.key limit 1000),
    coalesce(coordinator.document_restorable(p_project, p_kind, p_key), format('No document of kind "%s" has this key; the first put creates it.', p_kind)), 512)
$$;
comment on function coordinator.document_missing(text, text, text) is
  'Raise ZC217 for an absent document, and suggest a similar key. Internal.';

create or replace function coordinator.document_refuse(
  p_kind text, p_key text, p_expect bigint, p_epoch text, p_present coordinator.documents) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_epoch text := coordinator.epoch_text(p_present.epoch);
begin
  raise exception using errcode = 'ZC301',
    message = format('document "%s" of kind "%s" ', p_key, p_kind)
      || case when p_present.id is null then format('is absent, and version %s was expected', p_expect)
              when p_expect = 0 then format('exists already, at version %s', p_present.version)
              when p_expect <> p_present.version then format('is at version %s, not %s', p_present.version, p_expect)
              else format('is at version %s of epoch %s, not of epoch %s', p_present.version, v_epoch, p_epoch) end,
    detail = jsonb_build_object('version', p_present.version, 'epoch', v_epoch)::text,
    hint = case when p_present.id is null
                then 'Expect 0 to create it. If this version was read, the document has been deleted or has expired, or the database has been restored to an earlier state.'
                when p_expect >= p_present.version
                then 'Read the document and decide again. If the expected version was read, the database has been restored to an earlier state, or this server is no longer the primary.'
                else 'Read it and decide again; expect 0 for a document that must not exist.' end;
end
$$;
comment on function coordinator.document_refuse(text, text, bigint, text, coordinator.documents) is
  'Raise an error because a document does not have the expected version; p_present.id is null if the document is absent. Internal.';

create or replace function coordinator.document_step(
  p_project_id bigint, p_project text, p_kind text, p_key text, p_verb text, p_expect bigint, p_epoch text, p_expires_at timestamptz,
  p_actor text, p_now timestamptz, p_session text default null)
returns coordinator.documents
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_expected integer := coordinator.epoch_given(p_epoch);
  v_document coordinator.documents;
  v_present  coordinator.documents;
  v_session  bigint;
begin
  loop
    update coordinator.documents d
    set version = d.version + 1, epoch = coordinator.epoch_stamp(), actor = p_actor, updated_at = greatest(d.updated_at, p_now),
        created_at = case when d.version = 0 or d.deleted or d.expires_at <= p_now then p_now else d.created_at end,
        expires_at = case when p_verb = 'change' then d.expires_at else p_expires_at end,
        deleted = p_verb = 'delete'
    where d.project_id = p_project_id and d.kind = p_kind and d.key = p_key
      and case when d.version = 0 or d.deleted or d.expires_at <= p_now then p_verb in ('put', 'restore') and coalesce(p_expect, 0) = 0
               else (p_expect is null or d.version = p_expect) and (v_expected is null or p_expect is null or d.epoch = v_expected) end
    returning d.* into v_document;
    exit when found;
    select * into v_present from coordinator.documents d
    where d.project_id = p_project_id and d.kind = p_kind and d.key = p_key
      and d.version > 0 and not d.deleted and (d.expires_at is null or d.expires_at > p_now);
    if found then
      continue when p_expect is null or v_present.version = p_expect and coalesce(v_present.epoch = v_expected, true); -- it has just been created
      perform coordinator.document_refuse(p_kind, p_key, p_expect, p_epoch, v_present);
    elsif p_verb in ('change', 'delete') or p_verb = 'restore' and not exists (
        select from coordinator.documents d where d.project_id = p_project_id and d.kind = p_kind and d.key = p_key) then
      perform coordinator.document_missing(p_project, p_kind, p_key);
    elsif p_expect <> 0 then
      perform coordinator.document_refuse(p_kind, p_key, p_expect, p_epoch, v_present);
    end if;
    if p_session is not null then
      v_session := coordinator.session_enter(p_project_id, p_session, p_now, p_actor);
    end if;
    insert into coordinator.documents (project_id, kind, key, session_id, version, epoch, actor, created_at, updated_at)
    values (p_project_id, p_kind, p_key, v_session, 0, 0, p_actor, p_now, p_now)
    on conflict on constraint documents_key do nothing; -- the loser of this race repeats the loop
  end loop;
  if v_document.session_id is not null then
    perform coordinator.session_continue(v_document.session_id, p_now);
  elsif p_session is not null and v_session is null and v_document.created_at = p_now then -- the document was deleted with its session
    v_document.session_id := coordinator.session_enter(p_project_id, p_session, p_now, p_actor);
    update coordinator.documents set session_id = v_document.session_id where id = v_document.id;
  end if;
  return v_document;
end
$$;
comment on function coordinator.document_step(bigint, text, text, text, text, bigint, text, timestamptz, text, timestamptz, text) is
  'Lock a document, check the expectation, and increment its version. p_verb: put creates an absent document; restore needs a header; change and delete need a document. No event: document_write emits it. Internal.';

create or replace function coordinator.document_write(p_document coordinator.documents, p_project text, p_stored coordinator.json_stored, p_event text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kept bigint := case when p_document.version > 1 then coordinator.document_versions_kept(p_document.project_id, p_document.kind) end;
begin
  perform coordinator.document_check_shape(p_document.kind, p_stored.value);
  insert into coordinator.document_versions (document_id, version, epoch, actor, written_at, expires_at, value, raw)
  values (p_document.id, p_document.version, p_document.epoch, p_document.actor, p_document.updated_at,
          case when not p_document.deleted then p_document.expires_at end, p_stored.value, p_stored.raw);
  if p_document.version > v_kept then
    delete from coordinator.document_versions v where v.document_id = p_document.id and v.version <= p_document.version - v_kept;
  end if;
  perform coordinator.document_index(p_document.id, p_document.project_id, p_document.kind, p_stored.value, p_document.updated_at);
  insert into coordinator.events (type, project, key, actor, at, data)
  values (p_event, p_project, p_document.kind || '/' || p_document.key, p_document.actor, p_document.updated_at,
          jsonb_build_object('kind', p_document.kind, 'version', p_document.version));
end
$$;
comment on function coordinator.document_write(coordinator.documents, text, coordinator.json_stored, text) is
  'Write the version that document_step has counted; its value is null if the document is deleted. All versions are written here. Internal.';

create or replace function coordinator.document_shown(p_document coordinator.documents, p_project text) returns coordinator.document_header
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_session text;
begin
  if p_document.session_id is not null then
    v_session := (select s.key from coordinator.sessions s where s.id = p_document.session_id);
  end if;
  return row(p_project, p_document.kind, p_document.key, p_document.version, coordinator.epoch_text(p_document.epoch), v_session,
             p_document.kept, p_document.actor, p_document.created_at, p_document.updated_at, p_document.expires_at)::coordinator.document_header;
end
$$;
comment on function coordinator.document_shown(coordinator.documents, text) is
  'Return the header of a document as callers see it. Internal.';

create or replace function coordinator.document_session(p_kind text, p_key text, p_session text) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_session is null then
    return case when p_kind = 'state' then p_key end;
  end if;
  perform coordinator.check_key('the session', p_session);
  if p_key <> p_session and (p_kind = 'state' or not starts_with(p_key, p_session || '/')) then
    raise exception using errcode = 'ZC105', message = format('the key "%s" is not that of a document of session "%s"', p_key, p_session),
      hint = case when p_kind = 'state' then 'The key of a state is that of its session: omit the session.'
                  else format('Use the key "%s", or one that begins with "%s/".', p_session, p_session) end;
  end if;
  return p_session;
end
$$;
comment on function coordinator.document_session(text, text, text) is
  'Return the session to which a new document belongs; null: none. ZC105: the document''s key does not begin with the session''s key. Internal.';

create or replace function coordinator.document_put(
  p_project text, p_kind text, p_key text, p_value json, p_expect bigint default null, p_epoch text default null, p_ttl interval default null,
  p_session text default null, p_actor text default null)
returns setof coordinator.document_header
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_now      timestamptz := coordinator.now_utc();
  v_stored   coordinator.json_stored;
  v_document coordinator.documents;
begin
  perform coordinator.check_kind(p_kind);
  perform coordinator.check_key('the key', p_key);
  v_stored := coordinator.json_store('the value', p_value, 1048576);
  if p_kind = 'features' then -- features are returned as they were written, until one is changed
    v_stored.raw := p_value;
  end if;
  if p_ttl is not null then
    perform coordinator.check_ttl(p_ttl);
  end if;
  p_session := coordinator.document_session(p_kind, p_key, p_session);
  v_document := coordinator.document_step(v_project, p_project, p_kind, p_key, 'put', p_expect, p_epoch, v_now + p_ttl,
    coordinator.actor_name(p_actor), v_now, p_session);
  perform coordinator.document_write(v_document, p_project, v_stored, 'document.put');
  return next coordinator.document_shown(v_document, p_project);
end
$$;
comment on function coordinator.document_put(text, text, text, json, bigint, text, interval, text, text) is
  'Write a version of a document, which never expires unless p_ttl is given. A new document belongs to p_session, whose key must be a prefix of the document''s key; a document of kind state belongs to the session with the same key. p_expect: write only if this is the current version and, if given, p_epoch its epoch (0: only if the document is absent), else ZC301 with the current version.';

create or replace function coordinator.document_delete(
  p_project text, p_kind text, p_key text, p_expect bigint default null, p_epoch text default null, p_actor text default null)
returns setof coordinator.document_header
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_now      timestamptz := coordinator.now_utc();
  v_document coordinator.documents;
begin
  perform coordinator.check_kind(p_kind);
  perform coordinator.check_key('the key', p_key);
  v_document := coordinator.document_step(v_project, p_project, p_kind, p_key, 'delete', p_expect, p_epoch,
    coordinator.document_leaves_at(v_project, p_kind, v_now), coordinator.actor_name(p_actor), v_now);
  perform coordinator.document_write(v_document, p_project, null, 'document.deleted');
  return next coordinator.document_shown(v_document, p_project);
end
$$;
comment on function coordinator.document_delete(text, text, text, bigint, text, text) is
  'Delete a document: write a version without a value. Its history is kept until retention removes it (7 days); until then, document_restore restores it. ZC217: the document is absent. ZC301: it has another version.';

create or replace function coordinator.document_end(p_document_id bigint, p_event text, p_actor text, p_now timestamptz) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_document coordinator.documents;
begin
  update coordinator.documents d
  set version = d.version + 1, epoch = coordinator.epoch_stamp(), actor = p_actor, updated_at = greatest(d.updated_at, p_now), deleted = true,
      expires_at = coordinator.document_leaves_at(d.project_id, d.kind, p_now)
  where d.id = p_document_id and not d.deleted
  returning d.* into v_document;
  if not found then
    return false;
  end if;
  perform coordinator.document_write(v_document, p.name, null, p_event) from coordinator.projects p where p.id = v_document.project_id;
  return found;
end
$$;
comment on function coordinator.document_end(bigint, text, text, timestamptz) is
  'Delete a document whose row the caller has locked, and emit an event of this type; return false if it is already deleted. Internal.';

create or replace function coordinator.document_keep(
  p_project text, p_kind text, p_key text, p_kept boolean default true, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_kept    boolean := coalesce(p_kept, true);
begin
  perform coordinator.check_kind(p_kind);
  perform coordinator.check_key('the key', p_key);
  perform coordinator.actor_name(p_actor);
  update coordinator.documents d
  set kept = v_kept,
      expires_at = case when d.deleted and not v_kept then coordinator.document_leaves_at(v_project, p_kind, coordinator.now_utc()) else d.expires_at end
  where d.project_id = v_project and d.kind = p_kind and d.key = p_key and d.kept <> v_kept;
  if found then
    return true;
  end if;
  perform from coordinator.documents d where d.project_id = v_project and d.kind = p_kind and d.key = p_key;
  if not found then
    perform coordinator.document_missing(p_project, p_kind, p_key);
  end if;
  return false;
end
$$;
comment on function coordinator.document_keep(text, text, text, boolean, text) is
  'Exempt a document, even a deleted one, from retention; with p_kept false, end the exemption. Return whether anything changed. ZC217: there is no such document. No event: the document does not change.';
