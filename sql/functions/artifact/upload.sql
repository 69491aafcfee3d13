-- Uploads in progress: they begin, are written part by part, and may be aborted.

create or replace function coordinator.artifact_upload_missing(p_upload uuid) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'ZC221', message = format('there is no upload %s', p_upload),
    hint = 'Begin again: an upload ends when it is aborted or has been idle for an hour.';
end
$$;
comment on function coordinator.artifact_upload_missing(uuid) is
  'Raise ZC221: there is no such upload. Internal.';

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
        hint = 'Finish or abort some. An upload also ends when it has been idle for an hour.';
    end if;
    insert into coordinator.artifact_blobs as b (project_id, sha256, due_at) values (p_project_id, p_sha256, v_due)
    on conflict on constraint artifact_blobs_key do nothing returning * into v_blob;
    exit when found;
  end loop;
  return v_blob;
end
$$;
comment on function coordinator.artifact_enter(bigint, text, boolean) is
  'Return the content with a hash, or its upload, or a new upload. p_longer: keep a content without a name for another hour. No event. Internal.';

create or replace function coordinator.artifact_begin(
  p_project text, p_artifact text, p_media_type text default 'application/octet-stream', p_session text default null,
  p_bytes bigint default null, p_sha256 text default null, p_expect text default null, p_actor text default null)
returns setof coordinator.artifact_upload
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_blob    coordinator.artifact_blobs;
  v_session bigint;
  v_sha256  text;
  v_usage   coordinator.artifact_usage;
begin
  perform coordinator.artifact_check(p_artifact, p_media_type, p_bytes, p_sha256, p_expect);
  perform coordinator.actor_name(p_actor);
  perform coordinator.project_hold(v_project);
  if p_session is not null then
    perform coordinator.check_key('the session', p_session);
    select s.id into v_session from coordinator.sessions s where s.project_id = v_project and s.key = p_session;
  end if;
  -- Refuse now what artifact_finish would refuse, before anything is uploaded. It checks again.
  if v_session is not null then
    perform coordinator.session_continue(v_session, coordinator.now_utc());
  end if;
  if p_session is null or v_session is not null then
    select a.sha256 into v_sha256 from coordinator.artifacts a
    where a.project_id = v_project and a.name = p_artifact and a.session_id is not distinct from v_session;
  end if;
  perform coordinator.artifact_expect(p_artifact, p_expect, v_sha256);
  v_blob := coordinator.artifact_enter(v_project, p_sha256, true);
  select * into v_usage from coordinator.artifact_usage u where u.project_id = v_project;
  perform coordinator.artifact_room(case when v_sha256 is null then v_usage.count + 1 end,
                                    case when not v_blob.finished then coalesce(v_usage.bytes, 0) + coalesce(p_bytes, 0) end);
  return query
    select v_blob.upload, v_blob.finished,
           case when v_blob.finished then array(select generate_series(1, ((v_blob.bytes + 1048575) / 1048576)::integer))
                else array(select c.part from coordinator.artifact_chunks c where c.blob_id = v_blob.id order by c.part) end;
end
$$;
comment on function coordinator.artifact_begin(text, text, text, text, bigint, text, text, text) is
  'Begin to upload an artifact in parts of 1,048,576 bytes, or continue an upload. With p_sha256, uploads of the same content share their parts: parts lists those that are stored, and complete says whether all are. Write the others with artifact_write, in any order, then call artifact_finish. An upload ends after an hour without writes. p_expect: as for artifact_finish, which checks it again. ZC332: the session is archived. ZC301: p_expect does not match. No event: readers see nothing yet.';

create or replace function coordinator.artifact_write(
  p_project text, p_upload uuid, p_number integer, p_data bytea, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_blob    bigint;
  v_stored  boolean := false;
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
    select b.id, b.stored and p_number <= (b.bytes + 1048575) / 1048576 into v_blob, v_stored from coordinator.artifact_blobs b
    where b.upload = p_upload and b.project_id = v_project for key share;
    if not found then
      perform coordinator.artifact_upload_missing(p_upload);
    end if;
  end if;
  if v_stored or exists (select from coordinator.artifact_chunks c where c.blob_id = v_blob and c.part = p_number and c.data = p_data) then
    return false; -- a content in an object store is complete and verified
  end if;
  raise exception using errcode = 'ZC336', message = format('part %s already exists with other bytes', p_number),
    hint = 'The content has changed since the upload began, or another one has the same hash by mistake. Abort the upload and begin again.';
end
$$;
comment on function coordinator.artifact_write(text, uuid, integer, bytea, text) is
  'Write a part of an upload; return false if the part is already stored. ZC221: there is no such upload. ZC336: the stored part has other bytes. No event: readers see nothing yet.';

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
  'Abort an upload and delete its parts; return false if there is no such upload or it is finished. No event: readers never saw it.';
