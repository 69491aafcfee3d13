-- The end of an upload: its content is verified and gets a name. Also: a whole upload in one call.

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
      detail = jsonb_build_object('bytes', bytes)::text, hint = 'Compare it with the bytes that you meant to store, and upload them again.';
  end if;
  sha256 := encode(sha256(coalesce((select string_agg(c.data, '' order by c.part) from coordinator.artifact_chunks c where c.blob_id = p_blob), '')), 'hex');
  if p_sha256 <> sha256 then
    raise exception using errcode = 'ZC336', message = 'the SHA-256 of the upload is not the expected one',
      detail = jsonb_build_object('sha256', sha256)::text, hint = 'Compare it with the hash of the bytes that you meant to store, and upload them again.';
  end if;
  return next;
end
$$;
comment on function coordinator.artifact_verify(bigint, bigint, text) is
  'Return the size and SHA-256 of an upload. ZC336: parts are missing, or size or hash differ. Internal.';

create or replace function coordinator.artifact_expect(p_artifact text, p_expect text, p_sha256 text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_expect <> coalesce(p_sha256, '0') then
    raise exception using errcode = 'ZC301',
      message = case when p_sha256 is null then format('there is no artifact "%s"', p_artifact)
                     when p_expect = '0' then format('artifact "%s" already exists', p_artifact)
                     else format('artifact "%s" has other content', p_artifact) end,
      detail = jsonb_build_object('sha256', p_sha256)::text,
      hint = case when p_sha256 is null then 'Expect 0 to store a new one, or omit the expectation.'
                  when p_expect = '0' then 'Choose another name, or omit the expectation to replace it.'
                  else 'Read it again, and decide again.' end;
  end if;
end
$$;
comment on function coordinator.artifact_expect(text, text, text) is
  'Raise ZC301 unless an artifact has the expected SHA-256; 0: the artifact must be absent; null: anything. p_sha256: the current one; null: the artifact is absent. Internal.';

create or replace function coordinator.artifact_place(
  p_project_id bigint, p_project text, p_session text, p_artifact text, p_media_type text, p_blob bigint, p_bytes bigint, p_sha256 text,
  p_expect text, p_new boolean, p_actor text)
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
    select a.id, a.blob_id, a.sha256 into v_former from coordinator.artifacts a
    where a.project_id = p_project_id and a.name = p_artifact and a.session_id is not distinct from v_session for no key update;
    perform coordinator.artifact_expect(p_artifact, p_expect, v_former.sha256);
    if v_former.id is not null then
      update coordinator.artifacts a
      set media_type = p_media_type, bytes = p_bytes, sha256 = p_sha256, blob_id = p_blob, actor = v_actor, updated_at = v_now,
          trim_at = coordinator.artifact_trim_at(p_project_id, v_session, a.kept, v_now)
      where a.id = v_former.id and (a.blob_id <> p_blob or a.media_type <> p_media_type);
    else
      insert into coordinator.artifacts as a (project_id, session_id, name, media_type, bytes, sha256, actor, created_at, updated_at, trim_at, blob_id)
      values (p_project_id, v_session, p_artifact, p_media_type, p_bytes, p_sha256, v_actor, v_now, v_now,
              coordinator.artifact_trim_at(p_project_id, v_session, false, v_now), p_blob)
      on conflict on constraint artifacts_key do nothing;
      continue when not found; -- another transaction has inserted it
    end if;
    exit;
  end loop;
  if found then -- otherwise it was stored before: by an earlier call whose response was lost, or by another transaction
    perform coordinator.event_append('artifact.put', p_project, p_artifact, v_actor, v_now,
      jsonb_build_object('session', p_session, 'media_type', p_media_type, 'bytes', p_bytes, 'sha256', p_sha256));
  end if;
  if v_former.blob_id <> p_blob then
    update coordinator.artifact_blobs b set due_at = coordinator.artifact_due(v_now) where b.id = v_former.blob_id;
  end if;
  if p_new or v_former.id is null then
    perform coordinator.artifact_use(p_project_id, (v_former.id is null)::integer, case when p_new then p_bytes else 0 end);
  end if;
  select * into v_artifact from coordinator.artifacts a
  where a.project_id = p_project_id and a.name = p_artifact and a.session_id is not distinct from v_session;
  return next coordinator.artifact_row(p_project, p_session, v_artifact);
end
$$;
comment on function coordinator.artifact_place(bigint, text, text, text, text, bigint, bigint, text, text, boolean, text) is
  'Give a content a name, and replace the former content of that name. The caller has locked p_blob. p_new: this call finished it. Internal.';

create or replace function coordinator.artifact_finish(
  p_project text, p_upload uuid, p_artifact text, p_media_type text default 'application/octet-stream', p_session text default null,
  p_bytes bigint default null, p_sha256 text default null, p_expect text default null, p_actor text default null)
returns setof coordinator.artifacts_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_new      boolean := false;
  v_blob     coordinator.artifact_blobs;
  v_other    coordinator.artifact_blobs;
  v_verified record;
  v_again    record;
begin
  perform coordinator.artifact_check(p_artifact, p_media_type, p_bytes, p_sha256, p_expect);
  perform coordinator.check_isolation('artifacts are stored');
  perform coordinator.project_hold(v_project);
  select * into v_blob from coordinator.artifact_blobs b where b.upload = p_upload and b.project_id = v_project;
  if v_blob.id is not null and not v_blob.finished then
    -- Parts never change, so verify them without a lock. If another part is written meanwhile, the caller must finish again.
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
        v_new := true;
        exit;
      exception when unique_violation then -- another upload of the same content finished first: drop this one
        select * into v_other from coordinator.artifact_blobs b
        where b.project_id = v_project and b.sha256 = v_verified.sha256 and b.finished for key share;
        continue when not found; -- it has just been deleted
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
    raise exception using errcode = 'ZC336', message = 'the size or SHA-256 of the upload is not the expected one',
      detail = jsonb_build_object('bytes', v_blob.bytes, 'sha256', v_blob.sha256)::text, hint = 'Begin again.';
  end if;
  return query select * from coordinator.artifact_place(
    v_project, p_project, p_session, p_artifact, p_media_type, v_blob.id, v_blob.bytes, v_blob.sha256, p_expect, v_new, p_actor);
end
$$;
comment on function coordinator.artifact_finish(text, uuid, text, text, text, bigint, text, text, text) is
  'Verify that an upload is complete and has the size and SHA-256 given here or when it began; then store it under its name. Finishing it again changes nothing. p_expect: the SHA-256 of the content that the name must have now; 0: the artifact must not exist. ZC336: a part is missing, or size or hash differ; see the detail. ZC221: there is no such upload. ZC301: p_expect does not match; the detail has the current SHA-256.';

create or replace function coordinator.artifact_put(
  p_project text, p_artifact text, p_data bytea, p_media_type text default 'application/octet-stream', p_session text default null,
  p_sha256 text default null, p_expect text default null, p_actor text default null)
returns setof coordinator.artifacts_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_blob    coordinator.artifact_blobs;
begin
  perform coordinator.artifact_check(p_artifact, p_media_type, null, p_sha256, p_expect);
  if p_data is null then
    raise exception using errcode = 'ZC101', message = 'the content is missing', hint = 'Give the content; it may be empty.';
  elsif octet_length(p_data) > 1048576 then
    raise exception using errcode = 'ZC102', message = format('%s bytes; at most 1048576 are allowed in one call', octet_length(p_data)),
      hint = 'Upload it in parts: artifact_begin, artifact_write, artifact_finish.';
  end if;
  perform coordinator.project_hold(v_project);
  -- Under the actual hash of the data; if p_sha256 differs, the call is refused below.
  v_blob := coordinator.artifact_enter(v_project, encode(sha256(p_data), 'hex'), false);
  if not v_blob.finished and octet_length(p_data) > 0 then
    perform coordinator.artifact_write(p_project, v_blob.upload, 1, p_data, p_actor);
  end if;
  return query select * from coordinator.artifact_finish(
    p_project, v_blob.upload, p_artifact, p_media_type, p_session, octet_length(p_data), p_sha256, p_expect, p_actor);
end
$$;
comment on function coordinator.artifact_put(text, text, bytea, text, text, text, text, text) is
  'Store an artifact of at most 1,048,576 bytes, and replace the one with the same name. Storing the same content again changes nothing. p_expect: the SHA-256 of the content that the name must have now; 0: the artifact must not exist. ZC336: the content does not have the SHA-256 p_sha256. ZC301: p_expect does not match; the detail has the current SHA-256.';
