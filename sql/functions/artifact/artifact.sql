-- Artifacts: named bytes of a project or a session, such as logs, diffs and reports.
--
-- Guarantees
--   An artifact becomes visible when it is complete and its SHA-256 is verified; readers never see a part of it. Storing a name again
--   replaces its content at once; a reader that reads the former content by its hash can finish.
--   The same bytes are stored once for each project. Simultaneous uploads of the same bytes share their parts if they name the hash at
--   the beginning. Otherwise the first one to finish is kept, and the others are dropped.
--   A part is written once. Writing the same bytes again changes nothing, so an upload can be repeated and resumed after any failure.
--
-- How it works. artifact_begin creates an upload, or finds the one with the same hash, and returns which parts it has. artifact_write
-- adds a part. artifact_finish verifies the content and gives it a name. artifact_put does all of this for a single part.
-- artifact_prune deletes uploads without writes for an hour, and contents without a name for an hour: when a name gets another content,
-- the former one becomes due. If there is an object store, a loop of the leading daemon moves finished contents to it: see object.sql.
--
-- Locks: the project (shared); the upload or the content that it became (shared); the session (shared); the artifact; its former
-- content; the usage of the project. So no call waits for one content while it holds another one that somebody may wait for: an upload
-- is never the former content of a name. A transaction that holds the usage of a project waits only for the usage of other projects, in
-- the order of their numbers.

insert into coordinator.event_types (type, key, data, meaning) values
  ('artifact.put',     'name of the artifact', '{session,media_type,bytes,sha256}', 'An artifact was stored, or its content was replaced.'),
  ('artifact.changed', 'name of the artifact', '{session,kept}',                    'An artifact was exempted from retention, or is no longer exempt.'),
  ('artifact.deleted', 'name of the artifact', '{session,sha256}',                  'An artifact was deleted.');

insert into coordinator.rights (function, role) values
  ('artifact_list',   'reader'),
  ('artifact_part',   'reader'),
  ('artifact_read',   'reader'),
  ('artifact_show',   'reader'),
  ('artifact_abort',  'agent'),
  ('artifact_begin',  'agent'),
  ('artifact_delete', 'agent'),
  ('artifact_finish', 'agent'),
  ('artifact_keep',   'agent'),
  ('artifact_put',    'agent'),
  ('artifact_write',  'agent');

insert into coordinator.limits (name, value, unit, meaning) values
  ('artifact_bytes',      67108864, 'bytes',      'Size of an artifact.'),
  ('artifact_part_bytes', 1048576,  'bytes',      'Size of a part of an artifact, and of one read.'),
  ('artifact_parts',      64,       'parts',      'Parts per artifact.'),
  ('artifact_uploads',    100,      'uploads',    'Uploads in progress per project.'),
  ('artifacts',           100000,   'artifacts',  'Artifacts per project.'),
  ('artifacts_bytes',     68719476736, 'bytes',   'Total size of artifact contents per project; each content counts once, and for another hour after it is deleted.'),
  ('artifact_media_type', 200,      'characters', 'Media type of an artifact.');

create or replace view coordinator.artifacts_live with (security_barrier) as
  select p.name as project, a.name as artifact, s.key as session, a.media_type, a.bytes, a.sha256, a.kept, a.actor, a.created_at,
         a.updated_at, a.id, o.store
  from coordinator.artifacts a
  join coordinator.projects p on p.id = a.project_id
  left join coordinator.sessions s on s.id = a.session_id
  left join coordinator.artifact_objects o on o.blob_id = a.blob_id and o.stored_at is not null
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.artifacts_live            is 'Artifacts of the projects that the reader may use.';
comment on column coordinator.artifacts_live.project    is 'Name of the project.';
comment on column coordinator.artifacts_live.artifact   is 'Name of the artifact.';
comment on column coordinator.artifacts_live.session    is 'Key of its session; null: it belongs to the project.';
comment on column coordinator.artifacts_live.media_type is 'Media type of the content.';
comment on column coordinator.artifacts_live.bytes      is 'Size of the content.';
comment on column coordinator.artifacts_live.sha256     is 'SHA-256 of the content, in hexadecimal.';
comment on column coordinator.artifacts_live.kept       is 'True: exempt from retention.';
comment on column coordinator.artifacts_live.actor      is 'Who stored the current content.';
comment on column coordinator.artifacts_live.created_at is 'When the name was first used.';
comment on column coordinator.artifacts_live.updated_at is 'When the current content was stored.';
comment on column coordinator.artifacts_live.id         is 'Number of the artifact.';
comment on column coordinator.artifacts_live.store      is 'Object store of the content; null: the database.';

create or replace function coordinator.artifact_due(p_now timestamptz) returns timestamptz
language sql stable parallel safe
return p_now + interval '1 hour';
comment on function coordinator.artifact_due(timestamptz) is
  'Return until when abandoned uploads, and contents without a name, are kept. Internal.';

create or replace function coordinator.artifact_room(p_count bigint, p_bytes bigint) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_count > 100000 then
    raise exception using errcode = 'ZC102', message = 'the project has 100000 artifacts; no more are allowed',
      hint = 'Delete some, or let retention delete the old ones: "coordinator retention set artifact --max-age 30d".';
  elsif p_bytes > 68719476736 then
    raise exception using errcode = 'ZC102',
      message = format('the artifacts of the project would have %s bytes; at most 68719476736 are allowed', p_bytes),
      hint = 'Delete some; their bytes are freed an hour later. Or let retention delete the old ones: "coordinator retention set artifact --max-age 30d".';
  end if;
end
$$;
comment on function coordinator.artifact_room(bigint, bigint) is
  'Refuse (ZC102) artifacts or bytes beyond what a project may have. Internal.';

create or replace function coordinator.artifact_use(p_project_id bigint, p_count bigint, p_bytes bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_usage coordinator.artifact_usage;
begin
  update coordinator.artifact_usage u set count = u.count + p_count, bytes = u.bytes + p_bytes
  where u.project_id = p_project_id returning * into v_usage;
  if not found and (p_count > 0 or p_bytes > 0) then
    insert into coordinator.artifact_usage as u (project_id, count, bytes) values (p_project_id, p_count, p_bytes)
    on conflict (project_id) do update set count = u.count + excluded.count, bytes = u.bytes + excluded.bytes returning * into v_usage;
  end if;
  perform coordinator.artifact_room(case when p_count > 0 then v_usage.count end, case when p_bytes > 0 then v_usage.bytes end);
end
$$;
comment on function coordinator.artifact_use(bigint, bigint, bigint) is
  'Update the number of artifacts and bytes that a project uses; the last lock of a call. ZC102: the project would have too many. No event. Internal.';

create or replace function coordinator.artifact_trim_at(p_project_id bigint, p_session_id bigint, p_kept boolean, p_stored_at timestamptz)
returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case when p_session_id is null and not p_kept then p_stored_at + coordinator.retention_age(p_project_id, 'artifact', '*') end
$$;
comment on function coordinator.artifact_trim_at(bigint, bigint, boolean, timestamptz) is
  'Return when retention checks an artifact; null: never, because it is kept, it ends with its session, or no policy applies. Internal.';

create or replace function coordinator.artifact_check(
  p_artifact text, p_media_type text, p_bytes bigint, p_sha256 text, p_expect text default null) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_key('the name of the artifact', p_artifact);
  perform coordinator.check_text('the media type', p_media_type, 200);
  if p_media_type ~ '[^ -~]' or p_media_type !~ ('^[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*'
     '( ?; ?[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]*=([a-zA-Z0-9!#$&^_.+-]+|"[^"\\]*"))*$') then
    raise exception using errcode = 'ZC103', message = format('invalid media type "%s"', p_media_type),
      hint = 'Write a type such as text/plain, application/json or text/plain; charset=utf-8.';
  elsif p_bytes < 0 then
    raise exception using errcode = 'ZC104', message = format('an artifact cannot have %s bytes', p_bytes), hint = 'Give 0 or more.';
  elsif p_bytes > 67108864 then
    raise exception using errcode = 'ZC102', message = format('the artifact has %s bytes; at most 67108864 are allowed', p_bytes),
      hint = 'Compress or split it.';
  elsif p_sha256 !~ '^[0-9a-f]{64}$' then
    raise exception using errcode = 'ZC103', message = format('invalid SHA-256 "%s"', left(p_sha256, 200)),
      hint = 'Write it as 64 lower-case hexadecimal digits.';
  elsif p_expect !~ '^(0|[0-9a-f]{64})$' then
    raise exception using errcode = 'ZC103', message = format('invalid expectation "%s"', left(p_expect, 200)),
      hint = 'Give the SHA-256 that the artifact must have, as 64 lower-case hexadecimal digits; or 0 if it must not exist.';
  end if;
end
$$;
comment on function coordinator.artifact_check(text, text, bigint, text, text) is
  'Reject an invalid name, media type, size, SHA-256 or expectation of an artifact (ZC1); the last three may be null. Internal.';

create or replace function coordinator.artifact_missing(p_project text, p_artifact text, p_session text) returns void
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.name_missing('ZC221', p_project, 'artifact', p_artifact, array(
    select a.artifact from coordinator.artifacts_live a
    where a.project = p_project and a.session is not distinct from p_session order by a.artifact limit 1000),
    'Those of a session are found with the session.', 512)
$$;
comment on function coordinator.artifact_missing(text, text, text) is
  'Raise ZC221 for an artifact that does not exist in the project or session, and suggest a similar name. Internal.';

create or replace function coordinator.artifact_find(p_project_id bigint, p_artifact text, p_session text) returns coordinator.artifacts
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_session  bigint;
  v_artifact coordinator.artifacts;
begin
  perform coordinator.check_key('the name of the artifact', p_artifact);
  if p_session is not null then
    v_session := coordinator.session_find(p_project_id, p_session);
  end if;
  select * into v_artifact from coordinator.artifacts a
  where a.project_id = p_project_id and a.name = p_artifact and a.session_id is not distinct from v_session;
  return v_artifact;
end
$$;
comment on function coordinator.artifact_find(bigint, text, text) is
  'Return an artifact; a row of nulls if there is none. ZC215: there is no such session. Internal.';

create or replace function coordinator.artifact_row(p_project text, p_session text, p_artifact coordinator.artifacts)
returns coordinator.artifacts_live
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select row(p_project, p_artifact.name, p_session, p_artifact.media_type, p_artifact.bytes, p_artifact.sha256, p_artifact.kept,
             p_artifact.actor, p_artifact.created_at, p_artifact.updated_at, p_artifact.id,
             (select o.store from coordinator.artifact_objects o where o.blob_id = p_artifact.blob_id and o.stored_at is not null)
         )::coordinator.artifacts_live
$$;
comment on function coordinator.artifact_row(text, text, coordinator.artifacts) is
  'Return an artifact as readers see it. Internal.';
