-- Reading artifacts.

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
  return next coordinator.artifact_row(p_project, p_session, v_artifact);
end
$$;
comment on function coordinator.artifact_show(text, text, text) is
  'Show an artifact of the project or, with p_session, of a session. ZC221: there is no such artifact.';

create or replace function coordinator.artifact_part(
  p_project text, p_artifact text, p_session text default null, p_sha256 text default null, p_offset bigint default 0,
  p_length integer default 1048576)
returns setof coordinator.artifact_part
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_artifact coordinator.artifacts;
  v_blob     bigint;
  v_first    bigint;
  v_at       integer := p_offset % 1048576; -- position of the first byte in its part
  v_data     bytea;
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
  if p_sha256 <> v_artifact.sha256 or p_sha256 is not null and v_blob is null then -- an earlier content of the name
    select b.id into v_blob from coordinator.artifact_blobs b
    where b.project_id = v_project and b.sha256 = p_sha256 and b.finished;
  end if;
  if v_blob is null then
    perform coordinator.artifact_missing(p_project, p_artifact, p_session);
  end if;
  v_first := p_offset / 1048576;
  if (p_offset + p_length - 1) / 1048576 = v_first then
    -- The usual case. The result refers to the stored part, which is copied only once, when it is sent.
    return query
      select case when v_at = 0 and p_length >= octet_length(c.data) then c.data else substr(c.data, v_at + 1, p_length) end,
             null::text, null::text, p_offset, greatest(least(p_length, octet_length(c.data) - v_at), 0)
      from coordinator.artifact_chunks c where c.blob_id = v_blob and c.part = v_first + 1;
    if found then
      return;
    end if;
  end if;
  v_data := (
    select string_agg(case when p_offset > (c.part - 1) * 1048576::bigint or p_offset + p_length < c.part * 1048576::bigint
                           then substr(c.data, greatest(p_offset - (c.part - 1) * 1048576::bigint, 0)::integer + 1,
                                       (least(p_offset + p_length, c.part * 1048576::bigint) - greatest(p_offset, (c.part - 1) * 1048576::bigint))::integer)
                           else c.data end, '' order by c.part)
    from coordinator.artifact_chunks c
    where c.blob_id = v_blob and c.part between v_first + 1 and (p_offset + p_length - 1) / 1048576 + 1);
  if v_data is null then
    return query
      select null::bytea, o.store, o.key, p_offset, least(p_length, b.bytes - p_offset)::integer
      from coordinator.artifact_objects o join coordinator.artifact_blobs b on b.id = o.blob_id
      where o.blob_id = v_blob and o.stored_at is not null and p_offset < b.bytes;
    if found then
      return;
    end if;
    v_data := '';
  end if;
  return next row(v_data, null, null, p_offset, octet_length(v_data))::coordinator.artifact_part;
end
$$;
comment on function coordinator.artifact_part(text, text, text, text, bigint, integer) is
  'Read up to p_length bytes of an artifact from p_offset on; none at its end. If an object store has the content, data is null, and the bytes are the length bytes from first on of the object, whose key is relative to the store''s prefix. p_sha256: read this content, so that a reader can finish up to an hour after the artifact was replaced or deleted. ZC221: there is no such artifact or content.';

create or replace function coordinator.artifact_read(
  p_project text, p_artifact text, p_session text default null, p_sha256 text default null, p_offset bigint default 0,
  p_length integer default 1048576) returns bytea
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_part coordinator.artifact_part;
begin
  select * into v_part from coordinator.artifact_part(p_project, p_artifact, p_session, p_sha256, p_offset, p_length);
  if v_part.store is not null then
    raise exception using errcode = 'ZC801', message = format('the bytes of artifact "%s" are in the object store %s', p_artifact, v_part.store),
      detail = jsonb_build_object('store', v_part.store, 'object', v_part.object)::text,
      hint = format('Read it through a daemon: "coordinator artifact get %s", or GET /v1/artifacts/NAME.', coordinator.shell_word(p_artifact));
  end if;
  return v_part.data;
end
$$;
comment on function coordinator.artifact_read(text, text, text, text, bigint, integer) is
  'Return the bytes that artifact_part reads, for use in SQL. ZC801: the content is in an object store; read it through a daemon.';

create or replace function coordinator.artifact_list(
  p_project text, p_prefix text default '', p_session text default null, p_media_type text default null, p_after text[] default null,
  p_limit integer default 1000)
returns setof coordinator.artifacts_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_bitmapscan = off -- a page is the beginning of an index, ordered by name
set enable_sort = off
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
      select p_project, a.name, p_session, a.media_type, a.bytes, a.sha256, a.kept, a.actor, a.created_at, a.updated_at, a.id,
             (select o.store from coordinator.artifact_objects o where o.blob_id = a.blob_id and o.stored_at is not null)
      from coordinator.artifacts a
      where a.session_id = v_session and a.name >= v_prefix and a.name >= p_after[1] and a.name < v_prefix || U&'\+10FFFF'
        and (a.name, a.id) > (p_after[1], p_after[2]::bigint) and (v_type is null or a.media_type like v_type)
      order by a.name, a.id limit p_limit;
    return;
  end if;
  return query
    select p_project, a.name, (select s.key from coordinator.sessions s where s.id = a.session_id), a.media_type, a.bytes, a.sha256, a.kept, a.actor, a.created_at, a.updated_at, a.id,
           (select o.store from coordinator.artifact_objects o where o.blob_id = a.blob_id and o.stored_at is not null)
    from coordinator.artifacts a
    where a.project_id = v_project and a.name >= v_prefix and a.name >= p_after[1] and a.name < v_prefix || U&'\+10FFFF'
      and (a.name, a.id) > (p_after[1], p_after[2]::bigint) and (v_type is null or a.media_type like v_type)
    order by a.name, a.id limit p_limit;
end
$$;
comment on function coordinator.artifact_list(text, text, text, text, text[], integer) is
  'List the artifacts of a project and its sessions, or of one session, whose names begin with p_prefix, by name. p_media_type: only this type, or with text/* all types of text. p_after: array[artifact, id] of the last row read.';
