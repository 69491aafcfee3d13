-- Artifacts: named bytes of a project or a session, such as logs, diffs and reports.
--
-- Guarantees
--   Readers see an artifact when it is complete and its SHA-256 is verified, and never a part of it. Storing a name again replaces its
--   content at once; whoever reads the former content by its hash finishes.
--   The same bytes are stored once for each project. Uploads of the same bytes at the same time are one: begun with their hash, they
--   share their parts; begun without it, all but the first to finish are dropped.
--   A part is written once. The same bytes for it again change nothing, so an upload can be repeated and resumed after any failure.
--
-- How it works. artifact_begin makes an upload, or finds the one of the same hash, and says which parts it has. artifact_write adds a
-- part. artifact_finish verifies the content and gives it a name. artifact_put does all that for one part. What nobody finished for an
-- hour, and what no name has had for an hour, artifact_prune deletes. Where a name changes, its former content becomes due.
--
-- Locks: the project, shared; the upload, or what it has become, shared; the session, shared; the artifact; its former content. So no
-- call waits for one content while it has another that somebody may wait for: an upload is the former content of no name.

insert into coordinator.event_types (type, key, data, meaning) values
  ('artifact.put',     'name of the artifact', '{session,media_type,bytes,sha256}', 'An artifact was stored, or its content replaced.'),
  ('artifact.changed', 'name of the artifact', '{session,kept}',                    'An artifact is kept from now on, or no longer.'),
  ('artifact.deleted', 'name of the artifact', '{session,sha256}',                  'An artifact was deleted.');

insert into coordinator.rights (function, role) values
  ('artifact_list',   'reader'),
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
  ('artifact_bytes',      67108864, 'bytes',      'An artifact.'),
  ('artifact_part_bytes', 1048576,  'bytes',      'A part of an artifact, and what one call reads.'),
  ('artifact_parts',      64,       'parts',      'Parts of an artifact.'),
  ('artifact_uploads',    100,      'uploads',    'Uploads in progress of a project.'),
  ('artifact_media_type', 200,      'characters', 'Media type of an artifact.');

create or replace view coordinator.artifacts_live with (security_barrier) as
  select p.name as project, a.name as artifact, s.key as session, a.media_type, a.bytes, a.sha256, a.kept, a.actor, a.created_at,
         a.updated_at, a.id
  from coordinator.artifacts a
  join coordinator.projects p on p.id = a.project_id
  left join coordinator.sessions s on s.id = a.session_id
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.artifacts_live            is 'The artifacts of the projects that the reader may use.';
comment on column coordinator.artifacts_live.project    is 'Name of the project.';
comment on column coordinator.artifacts_live.artifact   is 'Name of the artifact.';
comment on column coordinator.artifacts_live.session    is 'Key of the session that it belongs to; null: it belongs to the project.';
comment on column coordinator.artifacts_live.media_type is 'What the bytes are.';
comment on column coordinator.artifacts_live.bytes      is 'Size.';
comment on column coordinator.artifacts_live.sha256     is 'SHA-256 of the content, in hexadecimal.';
comment on column coordinator.artifacts_live.kept       is 'Whether retention leaves it.';
comment on column coordinator.artifacts_live.actor      is 'Who stored the present content.';
comment on column coordinator.artifacts_live.created_at is 'When the name was first used.';
comment on column coordinator.artifacts_live.updated_at is 'When the present content was stored.';
comment on column coordinator.artifacts_live.id         is 'Number of the artifact.';

create or replace function coordinator.artifact_due(p_now timestamptz) returns timestamptz
language sql immutable parallel safe
return p_now + interval '1 hour';
comment on function coordinator.artifact_due(timestamptz) is
  'Return until when the remains of an upload, and a content without a name, are left alone. Internal.';

create or replace function coordinator.artifact_check(p_artifact text, p_media_type text, p_bytes bigint, p_sha256 text) returns void
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
  end if;
end
$$;
comment on function coordinator.artifact_check(text, text, bigint, text) is
  'Reject an invalid name, media type, size or SHA-256 (ZC1) of an artifact; the last two may be null. Internal.';

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
  'Raise ZC221 for an artifact that the project or session does not have, with the name that was probably meant. Internal.';

create or replace function coordinator.artifact_upload_missing(p_upload uuid) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'ZC221', message = format('there is no upload %s', p_upload),
    hint = 'Begin again: an upload ends when it is aborted, and when it was idle for an hour.';
end
$$;
comment on function coordinator.artifact_upload_missing(uuid) is
  'Raise ZC221: there is no such upload. Internal.';

create or replace function coordinator.artifact_release() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update coordinator.artifact_blobs b set due_at = coordinator.artifact_due(coordinator.now_utc())
  from (select o.id from coordinator.artifact_blobs o where o.id in (select blob_id from gone) order by o.id for no key update) held
  where b.id = held.id;
  return null;
end
$$;
comment on function coordinator.artifact_release() is
  'Let artifact_prune look at the contents of artifacts that were deleted, by whatever deleted them. Internal. No event: the trigger of artifacts.';

create or replace trigger artifacts_released after delete on coordinator.artifacts
  referencing old table as gone for each statement execute function coordinator.artifact_release();

create or replace function coordinator.artifact_enter(p_project_id bigint, p_sha256 text, p_longer boolean)
returns coordinator.artifact_blobs
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_due  timestamptz := coordinator.artifact_due(coordinator.now_utc());
  v_blob coordinator.artifact_blobs;
begin
  loop
    if p_sha256 is not null then
      if p_longer then
        update coordinator.artifact_blobs b set due_at = v_due
        where b.project_id = p_project_id and b.sha256 = p_sha256 and b.finished returning * into v_blob;
      else
        select * into v_blob from coordinator.artifact_blobs b
        where b.project_id = p_project_id and b.sha256 = p_sha256 and b.finished for key share;
      end if;
      exit when found;
      update coordinator.artifact_blobs b set due_at = v_due
      where b.project_id = p_project_id and b.sha256 = p_sha256 and not b.finished returning * into v_blob;
      exit when found;
    end if;
    if (select count(*) from coordinator.artifact_blobs b where b.project_id = p_project_id and not b.finished) >= 100 then
      raise exception using errcode = 'ZC102', message = 'the project has 100 uploads in progress',
        hint = 'Finish or abort some. Those that are idle for an hour end.';
    end if;
    insert into coordinator.artifact_blobs as b (project_id, sha256, due_at) values (p_project_id, p_sha256, v_due)
    on conflict on constraint artifact_blobs_key do nothing returning * into v_blob;
    exit when found;
  end loop;
  return v_blob;
end
$$;
comment on function coordinator.artifact_enter(bigint, text, boolean) is
  'Return the content of a hash, or the upload of it, or a new one. p_longer: a content without a name stays for another hour. No event. Internal.';

create or replace function coordinator.artifact_begin(
  p_project text, p_artifact text, p_media_type text default 'application/octet-stream', p_session text default null,
  p_bytes bigint default null, p_sha256 text default null, p_actor text default null)
returns setof coordinator.artifact_upload
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_blob    coordinator.artifact_blobs;
begin
  perform coordinator.artifact_check(p_artifact, p_media_type, p_bytes, p_sha256);
  perform coordinator.actor_name(p_actor);
  perform coordinator.project_hold(v_project);
  if p_session is not null then
    perform coordinator.check_key('the session', p_session);
    -- Refused now if it is archived, before anything is uploaded; artifact_finish looks again.
    perform coordinator.session_continue(s.id, coordinator.now_utc()) from coordinator.sessions s
    where s.project_id = v_project and s.key = p_session;
  end if;
  v_blob := coordinator.artifact_enter(v_project, p_sha256, true);
  return query
    select v_blob.upload, v_blob.finished,
           coalesce((select array_agg(c.part order by c.part) from coordinator.artifact_chunks c where c.blob_id = v_blob.id), '{}');
end
$$;
comment on function coordinator.artifact_begin(text, text, text, text, bigint, text, text) is
  'Begin to upload an artifact in parts of 1,048,576 bytes, or continue: with p_sha256, uploads of the same content are one, and parts says which ones are there; complete: all are. Write the others (artifact_write), in any order, then call artifact_finish. The upload ends when nothing was written for an hour. ZC332: the session is archived. No event: readers see nothing yet.';

create or replace function coordinator.artifact_write(
  p_project text, p_upload uuid, p_number integer, p_data bytea, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_blob    bigint;
begin
  perform coordinator.actor_name(p_actor);
  if p_number is null or p_number not between 1 and 64 then
    raise exception using errcode = 'ZC102', message = format('an artifact has no part %s; at most 64 are allowed', coalesce(p_number::text, 'null')),
      hint = 'Parts have 1048576 bytes and the numbers 1, 2, 3, up to 64. Compress or split a larger artifact.';
  elsif octet_length(p_data) > 1048576 then
    raise exception using errcode = 'ZC102', message = format('the part has %s bytes; at most 1048576 are allowed', octet_length(p_data)),
      hint = 'Each part has 1048576 bytes, except for the last.';
  elsif coalesce(octet_length(p_data), 0) = 0 then
    raise exception using errcode = 'ZC101', message = 'the part is empty', hint = 'Give at least one byte; an empty artifact has no parts.';
  end if;
  update coordinator.artifact_blobs b set due_at = coordinator.artifact_due(coordinator.now_utc())
  where b.upload = p_upload and b.project_id = v_project and not b.finished returning b.id into v_blob;
  if found then
    insert into coordinator.artifact_chunks (blob_id, part, data) values (v_blob, p_number, p_data)
    on conflict on constraint artifact_chunks_pkey do nothing;
    if found then
      return true;
    end if;
  else
    select b.id into v_blob from coordinator.artifact_blobs b where b.upload = p_upload and b.project_id = v_project for key share;
    if not found then
      perform coordinator.artifact_upload_missing(p_upload);
    end if;
  end if;
  if exists (select from coordinator.artifact_chunks c where c.blob_id = v_blob and c.part = p_number and c.data = p_data) then
    return false;
  end if;
  raise exception using errcode = 'ZC336', message = format('part %s is there with other bytes', p_number),
    hint = 'The content has changed since the upload began, or another one has the same hash by mistake. Abort the upload and begin again.';
end
$$;
comment on function coordinator.artifact_write(text, uuid, integer, bytea, text) is
  'Write a part of an upload; return false if it was there already. ZC221: there is no such upload. ZC336: the part is there with other bytes. No event: readers see nothing yet.';

create or replace function coordinator.artifact_verify(p_blob bigint, p_bytes bigint, p_sha256 text)
returns table (bytes bigint, sha256 text)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_last    integer;
  v_short   integer[];
  v_missing integer[];
begin
  select coalesce(max(c.part), 0), coalesce(sum(octet_length(c.data)), 0) into v_last, bytes
  from coordinator.artifact_chunks c where c.blob_id = p_blob;
  v_last := greatest(v_last, (p_bytes + 1048575) / 1048576);
  v_missing := array(select n from generate_series(1, v_last) n except select c.part from coordinator.artifact_chunks c where c.blob_id = p_blob
                     order by 1);
  v_short := array(select c.part from coordinator.artifact_chunks c
                   where c.blob_id = p_blob and c.part < v_last and octet_length(c.data) < 1048576 order by 1);
  if v_missing <> '{}' or v_short <> '{}' then
    raise exception using errcode = 'ZC336',
      message = format('the upload is not complete: %s', case when v_missing <> '{}' then format('parts %s are missing', array_to_string(v_missing, ', '))
                                                              else format('parts %s are too short', array_to_string(v_short, ', ')) end),
      detail = jsonb_build_object('missing', v_missing, 'short', v_short)::text,
      hint = case when v_missing <> '{}' then 'Write the missing parts, then finish again.'
                  else 'Abort the upload and begin again; each part has 1048576 bytes, except for the last.' end;
  elsif p_bytes <> bytes then
    raise exception using errcode = 'ZC336', message = format('the upload has %s bytes, not %s', bytes, p_bytes),
      detail = jsonb_build_object('bytes', bytes)::text, hint = 'Abort the upload and begin again.';
  end if;
  sha256 := encode(sha256(coalesce((select string_agg(c.data, '' order by c.part) from coordinator.artifact_chunks c where c.blob_id = p_blob), '')), 'hex');
  if p_sha256 <> sha256 then
    raise exception using errcode = 'ZC336', message = 'the upload has another SHA-256 than expected',
      detail = jsonb_build_object('sha256', sha256)::text, hint = 'Abort the upload and begin again.';
  end if;
  return next;
end
$$;
comment on function coordinator.artifact_verify(bigint, bigint, text) is
  'Return the size and SHA-256 of what was uploaded. ZC336: parts are missing, or size or hash differ. Internal.';

create or replace function coordinator.artifact_place(
  p_project_id bigint, p_project text, p_session text, p_artifact text, p_media_type text, p_blob bigint, p_bytes bigint, p_sha256 text,
  p_actor text)
returns setof coordinator.artifacts_live
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now      timestamptz := coordinator.now_utc();
  v_actor    text := coordinator.actor_name(p_actor);
  v_session  bigint;
  v_former   record;
  v_artifact coordinator.artifacts;
begin
  if p_session is not null then
    v_session := coordinator.session_enter(p_project_id, p_session, v_now, v_actor);
  end if;
  loop
    select a.id, a.blob_id, a.media_type into v_former from coordinator.artifacts a
    where a.project_id = p_project_id and a.name = p_artifact and a.session_id is not distinct from v_session for no key update;
    if found then
      update coordinator.artifacts a
      set media_type = p_media_type, bytes = p_bytes, sha256 = p_sha256, blob_id = p_blob, actor = v_actor, updated_at = v_now
      where a.id = v_former.id and (a.blob_id <> p_blob or a.media_type <> p_media_type);
    else
      insert into coordinator.artifacts as a (project_id, session_id, name, media_type, bytes, sha256, actor, created_at, updated_at, blob_id)
      values (p_project_id, v_session, p_artifact, p_media_type, p_bytes, p_sha256, v_actor, v_now, v_now, p_blob)
      on conflict on constraint artifacts_key do nothing;
      continue when not found; -- another transaction was first
    end if;
    exit;
  end loop;
  if found then -- else it was stored before: the answer was lost, or another has stored the same
    perform coordinator.event_append('artifact.put', p_project, p_artifact, v_actor, v_now,
      jsonb_build_object('session', p_session, 'media_type', p_media_type, 'bytes', p_bytes, 'sha256', p_sha256));
  end if;
  if v_former.blob_id <> p_blob then
    update coordinator.artifact_blobs b set due_at = coordinator.artifact_due(v_now) where b.id = v_former.blob_id;
  end if;
  select * into v_artifact from coordinator.artifacts a
  where a.project_id = p_project_id and a.name = p_artifact and a.session_id is not distinct from v_session;
  return query select p_project, v_artifact.name, p_session, v_artifact.media_type, v_artifact.bytes, v_artifact.sha256, v_artifact.kept,
    v_artifact.actor, v_artifact.created_at, v_artifact.updated_at, v_artifact.id;
end
$$;
comment on function coordinator.artifact_place(bigint, text, text, text, text, bigint, bigint, text, text) is
  'Give a content a name, in place of what has it; p_blob is locked. Internal.';

create or replace function coordinator.artifact_finish(
  p_project text, p_upload uuid, p_artifact text, p_media_type text default 'application/octet-stream', p_session text default null,
  p_bytes bigint default null, p_sha256 text default null, p_actor text default null)
returns setof coordinator.artifacts_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_blob     coordinator.artifact_blobs;
  v_other    coordinator.artifact_blobs;
  v_verified record;
  v_again    record;
begin
  perform coordinator.artifact_check(p_artifact, p_media_type, p_bytes, p_sha256);
  perform coordinator.check_isolation('artifacts are stored');
  perform coordinator.project_hold(v_project);
  select * into v_blob from coordinator.artifact_blobs b where b.upload = p_upload and b.project_id = v_project;
  if v_blob.id is not null and not v_blob.finished then
    -- Parts never change, so nobody waits while they are read; whoever has written another part meanwhile makes this repeat it.
    select * into v_verified from coordinator.artifact_verify(v_blob.id, p_bytes, coalesce(p_sha256, v_blob.sha256));
    perform from coordinator.artifact_blobs b where b.id = v_blob.id for no key update;
    if not found then
      perform coordinator.artifact_upload_missing(p_upload);
    end if;
    select coalesce(sum(octet_length(c.data)), 0) as bytes into v_again from coordinator.artifact_chunks c where c.blob_id = v_blob.id;
    if v_again.bytes <> v_verified.bytes then
      raise exception using errcode = 'ZC336', message = 'a part was written while the upload was verified', hint = 'Finish again.';
    end if;
    loop
      begin
        update coordinator.artifact_blobs b
        set finished_at = coordinator.now_utc(), bytes = v_verified.bytes, sha256 = v_verified.sha256, due_at = null
        where b.id = v_blob.id and not b.finished;
        exit;
      exception when unique_violation then -- another upload of the same content was first: this one goes
        select * into v_other from coordinator.artifact_blobs b
        where b.project_id = v_project and b.sha256 = v_verified.sha256 and b.finished for key share;
        continue when not found; -- it was deleted a moment ago
        update coordinator.artifact_blobs b set due_at = coordinator.now_utc() where b.id = v_blob.id;
        v_blob := v_other;
        exit;
      end;
    end loop;
  end if;
  select * into v_blob from coordinator.artifact_blobs b where b.id = v_blob.id for key share;
  if v_blob.id is null then
    perform coordinator.artifact_upload_missing(p_upload);
  elsif p_bytes <> v_blob.bytes or p_sha256 <> v_blob.sha256 then
    raise exception using errcode = 'ZC336', message = 'the upload has another size or SHA-256 than expected',
      detail = jsonb_build_object('bytes', v_blob.bytes, 'sha256', v_blob.sha256)::text, hint = 'Begin again.';
  end if;
  return query select * from coordinator.artifact_place(
    v_project, p_project, p_session, p_artifact, p_media_type, v_blob.id, v_blob.bytes, v_blob.sha256, p_actor);
end
$$;
comment on function coordinator.artifact_finish(text, uuid, text, text, text, bigint, text, text) is
  'Verify that an upload is complete, and has this size and SHA-256 if they are given here or were when it began; then store it under its name. Finishing again changes nothing. ZC336: a part is missing, or size or hash differ; the detail says so. ZC221: there is no such upload.';

create or replace function coordinator.artifact_put(
  p_project text, p_artifact text, p_data bytea, p_media_type text default 'application/octet-stream', p_session text default null,
  p_sha256 text default null, p_actor text default null)
returns setof coordinator.artifacts_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_blob    coordinator.artifact_blobs;
begin
  perform coordinator.artifact_check(p_artifact, p_media_type, null, p_sha256);
  if p_data is null then
    raise exception using errcode = 'ZC101', message = 'there are no bytes', hint = 'Give the content; it may be empty.';
  elsif octet_length(p_data) > 1048576 then
    raise exception using errcode = 'ZC102', message = format('%s bytes; at most 1048576 are allowed in one call', octet_length(p_data)),
      hint = 'Upload it in parts: artifact_begin, artifact_write, artifact_finish.';
  end if;
  perform coordinator.project_hold(v_project);
  -- By the hash that it has; one that differs from the expected one is refused below.
  v_blob := coordinator.artifact_enter(v_project, encode(sha256(p_data), 'hex'), false);
  if not v_blob.finished and octet_length(p_data) > 0 then
    perform coordinator.artifact_write(p_project, v_blob.upload, 1, p_data, p_actor);
  end if;
  return query select * from coordinator.artifact_finish(
    p_project, v_blob.upload, p_artifact, p_media_type, p_session, octet_length(p_data), p_sha256, p_actor);
end
$$;
comment on function coordinator.artifact_put(text, text, bytea, text, text, text, text) is
  'Store an artifact of at most 1,048,576 bytes, in place of what has its name. Storing the same again changes nothing. ZC336: it has another SHA-256 than p_sha256.';

create or replace function coordinator.artifact_abort(p_project text, p_upload uuid, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.actor_name(p_actor);
  delete from coordinator.artifact_blobs b where b.upload = p_upload and b.project_id = v_project and not b.finished;
  return found;
end
$$;
comment on function coordinator.artifact_abort(text, uuid, text) is
  'End an upload and delete its parts; false: there is none, or it is finished. No event: readers never saw it.';

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

create or replace function coordinator.artifact_show(p_project text, p_artifact text, p_session text default null)
returns setof coordinator.artifacts_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_artifact coordinator.artifacts := coordinator.artifact_find(coordinator.project_id(p_project), p_artifact, p_session);
begin
  if v_artifact.id is null then
    perform coordinator.artifact_missing(p_project, p_artifact, p_session);
  end if;
  return query select p_project, v_artifact.name, p_session, v_artifact.media_type, v_artifact.bytes, v_artifact.sha256, v_artifact.kept,
    v_artifact.actor, v_artifact.created_at, v_artifact.updated_at, v_artifact.id;
end
$$;
comment on function coordinator.artifact_show(text, text, text) is
  'Show an artifact of the project, or with p_session of a session. ZC221: there is none of this name.';

create or replace function coordinator.artifact_read(
  p_project text, p_artifact text, p_session text default null, p_sha256 text default null, p_offset bigint default 0,
  p_length integer default 1048576) returns bytea
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_artifact coordinator.artifacts;
  v_blob     bigint;
  v_first    bigint;
begin
  if p_offset is null or p_offset not between 0 and 67108864 then
    raise exception using errcode = 'ZC104', message = format('an offset of %s is out of range', coalesce(p_offset::text, 'null')),
      hint = 'Give 0 to 67108864.';
  elsif p_length is null or p_length not between 1 and 1048576 then
    raise exception using errcode = 'ZC104', message = format('a length of %s is out of range', coalesce(p_length::text, 'null')),
      hint = 'Give 1 to 1048576, and read more in further calls.';
  end if;
  v_artifact := coordinator.artifact_find(v_project, p_artifact, p_session);
  v_blob := v_artifact.blob_id;
  if p_sha256 <> v_artifact.sha256 or p_sha256 is not null and v_blob is null then -- the content that the name had
    select b.id into v_blob from coordinator.artifact_blobs b
    where b.project_id = v_project and b.sha256 = p_sha256 and b.finished;
  end if;
  if v_blob is null then
    perform coordinator.artifact_missing(p_project, p_artifact, p_session);
  end if;
  v_first := p_offset / 1048576;
  return coalesce((
    select string_agg(case when p_offset > (c.part - 1) * 1048576::bigint or p_offset + p_length < c.part * 1048576::bigint
                           then substr(c.data, greatest(p_offset - (c.part - 1) * 1048576::bigint, 0)::integer + 1,
                                       (least(p_offset + p_length, c.part * 1048576::bigint) - greatest(p_offset, (c.part - 1) * 1048576::bigint))::integer)
                           else c.data end, '' order by c.part)
    from coordinator.artifact_chunks c
    where c.blob_id = v_blob and c.part between v_first + 1 and (p_offset + p_length - 1) / 1048576 + 1), '');
end
$$;
comment on function coordinator.artifact_read(text, text, text, text, bigint, integer) is
  'Read up to p_length bytes of an artifact from p_offset on; none at its end. With p_sha256, that content: whoever has begun to read it finishes, even if the name has been replaced or deleted since, up to an hour ago. ZC221: there is none.';

create or replace function coordinator.artifact_list(
  p_project text, p_prefix text default '', p_session text default null, p_media_type text default null, p_after text[] default null,
  p_limit integer default 1000)
returns setof coordinator.artifacts_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_session bigint;
  v_prefix  text := coalesce(p_prefix, '');
  v_type    text;
begin
  if v_prefix <> '' then
    perform coordinator.check_text('the prefix', v_prefix);
  end if;
  if p_media_type is not null then
    perform coordinator.check_text('the media type', p_media_type, 200);
    v_type := regexp_replace(p_media_type, '([\\%_])', '\\\1', 'g');
    v_type := regexp_replace(v_type, '/\*$', '/%');
  end if;
  perform coordinator.check_page(p_limit, p_after, '{text,number}');
  p_after := coalesce(p_after, array['', '0']);
  if p_session is not null then
    v_session := coordinator.session_find(v_project, p_session);
    return query
      select p_project, a.name, p_session, a.media_type, a.bytes, a.sha256, a.kept, a.actor, a.created_at, a.updated_at, a.id
      from coordinator.artifacts a
      where a.session_id = v_session and a.name >= v_prefix and a.name >= p_after[1] and a.name < v_prefix || U&'\+10FFFF'
        and (a.name, a.id) > (p_after[1], p_after[2]::bigint) and (v_type is null or a.media_type like v_type)
      order by a.name, a.id limit p_limit;
    return;
  end if;
  return query
    select p_project, a.name, s.key, a.media_type, a.bytes, a.sha256, a.kept, a.actor, a.created_at, a.updated_at, a.id
    from coordinator.artifacts a left join coordinator.sessions s on s.id = a.session_id
    where a.project_id = v_project and a.name >= v_prefix and a.name >= p_after[1] and a.name < v_prefix || U&'\+10FFFF'
      and (a.name, a.id) > (p_after[1], p_after[2]::bigint) and (v_type is null or a.media_type like v_type)
    order by a.name, a.id limit p_limit;
end
$$;
comment on function coordinator.artifact_list(text, text, text, text, text[], integer) is
  'List the artifacts of a project and of its sessions, or of one session, whose names begin with p_prefix, by name; p_media_type: of this type, or of all types of text/*. p_after: array[artifact, id] of the last row read.';

create or replace function coordinator.artifact_keep(
  p_project text, p_artifact text, p_session text default null, p_kept boolean default true, p_actor text default null)
returns setof coordinator.artifacts_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_artifact coordinator.artifacts := coordinator.artifact_find(v_project, p_artifact, p_session);
  v_kept     boolean := coalesce(p_kept, true);
begin
  update coordinator.artifacts a set kept = v_kept where a.id = v_artifact.id and a.kept <> v_kept;
  if found then
    perform coordinator.event_append('artifact.changed', p_project, p_artifact, coordinator.actor_name(p_actor), coordinator.now_utc(),
      jsonb_build_object('session', p_session, 'kept', v_kept));
  end if;
  return query select * from coordinator.artifact_show(p_project, p_artifact, p_session);
end
$$;
comment on function coordinator.artifact_keep(text, text, text, boolean, text) is
  'Keep an artifact: retention leaves it; with p_kept false, no longer. ZC221: there is none of this name.';

create or replace function coordinator.artifact_delete(
  p_project text, p_artifact text, p_session text default null, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_artifact coordinator.artifacts := coordinator.artifact_find(coordinator.project_id(p_project), p_artifact, p_session);
begin
  delete from coordinator.artifacts a where a.id = v_artifact.id returning * into v_artifact;
  if not found then
    perform coordinator.artifact_missing(p_project, p_artifact, p_session);
  end if;
  perform coordinator.event_append('artifact.deleted', p_project, p_artifact, coordinator.actor_name(p_actor), coordinator.now_utc(),
    jsonb_build_object('session', p_session, 'sha256', v_artifact.sha256));
  return true;
end
$$;
comment on function coordinator.artifact_delete(text, text, text, text) is
  'Delete an artifact. Its bytes go an hour later, unless another one has them. ZC221: there is none of this name.';

create or replace function coordinator.artifact_prune(p_limit integer default 10) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_blob  bigint;
  v_count integer := 0;
begin
  perform coordinator.check_page(p_limit);
  for v_blob in
    select id from coordinator.artifact_blobs where due_at <= v_now order by due_at limit p_limit for update skip locked
  loop
    -- The lock keeps others from referring to it; each statement sees what was committed before.
    if exists (select from coordinator.artifacts a where a.blob_id = v_blob) then
      update coordinator.artifact_blobs set due_at = null where id = v_blob;
    else
      delete from coordinator.artifact_blobs where id = v_blob;
    end if;
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;
comment on function coordinator.artifact_prune(integer) is
  'Delete up to p_limit uploads that were idle for an hour, and contents that no artifact has had for an hour; returns how many it looked at. Repeat until 0. No events: readers did not see them.';
