-- Contents in an object store. The leading daemon moves finished contents there, and deletes the objects of contents that no longer
-- exist.
--
-- Guarantees
--   A content always has its bytes: the transaction that makes it refer to the object also deletes its parts in the database. The
--   object was read back before. An object is deleted only when its row can no longer get a content.
--   No object is forgotten: its row is committed before the first attempt to write it, and deleted after the object. If a daemon is
--   killed, paused or replaced at any step, it leaves a row that a leader finds.
--   A key is never used twice, so the deletion of an object cannot affect another content, even if the same bytes are uploaded
--   meanwhile.
--
-- How it works. artifact_move selects a content and creates the row of its object. The daemon writes the object and reads it back.
-- artifact_moved makes the content refer to it and deletes the parts. Another attempt writes the same object again, with the same
-- bytes. However a content is deleted, its end sets blob_id to null. artifact_object_delete also sets it to null in rows whose objects
-- were not completed within an hour, so a late writer cannot refer to an object that is about to be deleted. Then the daemon deletes
-- the objects and calls artifact_object_deleted.
--
-- Locks: the content, then its object.

create or replace function coordinator.artifact_move(p_store text) returns setof coordinator.artifact_object
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now  timestamptz := coordinator.now_utc();
  v_blob record;
begin
  select b.id, b.project_id, b.bytes, b.sha256 into v_blob from coordinator.artifact_blobs b
  where b.finished_at is not null and not b.stored and b.bytes > 0
    -- An attempt that failed, an hour before due_at, is repeated after 1 second, later after up to a minute: meanwhile others have their turn.
    and not exists (
      select from coordinator.artifact_objects o
      where o.blob_id = b.id and o.store = p_store
        and v_now < o.due_at - interval '1 hour' + least(interval '1 minute', greatest(interval '1 second', o.due_at - interval '1 hour' - o.created_at)))
  order by b.id limit 1 for key share skip locked;
  if not found then
    return;
  end if;
  update coordinator.artifact_objects o set blob_id = null where o.blob_id = v_blob.id and o.store <> p_store; -- the store in the settings has changed
  return query
    insert into coordinator.artifact_objects as o (blob_id, store, key, created_at, due_at)
    values (v_blob.id, p_store, format('%s/%s/%s', v_blob.project_id, v_blob.sha256, gen_random_uuid()), v_now, v_now + interval '1 hour')
    on conflict on constraint artifact_objects_blob_key do update set due_at = excluded.due_at
    returning o.id, o.key, v_blob.bytes, v_blob.sha256;
end
$$;
comment on function coordinator.artifact_move(text) is
  'Return a content to move to the object store, with the key of its object; no row: there is none. The object must be written within an hour. No event.';

create or replace function coordinator.artifact_chunk(p_object bigint, p_number integer) returns bytea
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select c.data from coordinator.artifact_objects o join coordinator.artifact_chunks c on c.blob_id = o.blob_id and c.part = p_number
  where o.id = p_object
$$;
comment on function coordinator.artifact_chunk(bigint, integer) is
  'Return a part of the content that is being written to an object; null: the content is gone.';

create or replace function coordinator.artifact_moved(p_object bigint) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now  timestamptz := coordinator.now_utc();
  v_blob bigint := (select o.blob_id from coordinator.artifact_objects o where o.id = p_object);
begin
  perform from coordinator.artifact_blobs b where b.id = v_blob and not b.stored for no key update;
  if not found then
    return false;
  end if;
  update coordinator.artifact_objects o set stored_at = v_now, due_at = v_now where o.id = p_object and o.blob_id = v_blob;
  if not found then -- the attempt took more than an hour, so its object is about to be deleted
    return false;
  end if;
  update coordinator.artifact_blobs b set stored = true where b.id = v_blob;
  delete from coordinator.artifact_chunks c where c.blob_id = v_blob;
  return true;
end
$$;
comment on function coordinator.artifact_moved(bigint) is
  'Use a verified object instead of the parts in the database, and delete the parts; return false if the content is gone or already moved, or the attempt took more than an hour. No event: readers see the same bytes.';

create or replace function coordinator.artifact_object_delete(p_store text, p_limit integer default 100) returns setof coordinator.artifact_object
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := coordinator.now_utc();
begin
  perform coordinator.check_page(p_limit);
  return query
    update coordinator.artifact_objects o set blob_id = null, due_at = v_now + interval '1 minute'
    from (select d.id from coordinator.artifact_objects d
          where (d.blob_id is null or d.stored_at is null) and d.due_at <= v_now and d.store = p_store
          order by d.due_at limit p_limit for update skip locked) due
    where o.id = due.id
    returning o.id, o.key, null::bigint, null::text;
end
$$;
comment on function coordinator.artifact_object_delete(text, integer) is
  'Return up to p_limit objects to delete from the object store, because their contents are gone or they were not completed within an hour. No content can use them any more. Objects are returned again after a minute unless artifact_object_deleted was called for them. No event.';

create or replace function coordinator.artifact_object_deleted(p_objects bigint[]) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  delete from coordinator.artifact_objects o where o.id = any (p_objects) and o.blob_id is null;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function coordinator.artifact_object_deleted(bigint[]) is
  'Remove the records of objects that were deleted from the object store; returns how many. No event.';

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_artifact_bytes', 'artifact_sample', 'gauge', '{}', 'bytes', 'Total size of artifact contents, in the database or in the object store.'),
  ('coordinator_artifact_objects_waiting', 'artifact_sample', 'gauge', '{}', '', 'Objects waiting to be moved to the object store or deleted from it; at most 10,000 are counted.');

create or replace function coordinator.artifact_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select 'coordinator_artifact_bytes', '{}'::text[], coalesce(sum(u.bytes), 0)::double precision from coordinator.artifact_usage u
    union all
    select 'coordinator_artifact_objects_waiting', '{}', count(*)::double precision
    from (select from coordinator.artifact_objects o where o.blob_id is null or o.stored_at is null limit 10000) first;
end
$$;
comment on function coordinator.artifact_sample(timestamptz) is
  'Sample the metrics of artifacts. Internal.';
