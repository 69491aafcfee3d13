-- Artifacts are kept and deleted. Contents without an artifact are deleted an hour later.

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
  update coordinator.artifacts a
  set kept = v_kept, trim_at = coordinator.artifact_trim_at(v_project, a.session_id, v_kept, a.updated_at)
  where a.id = v_artifact.id and a.kept <> v_kept;
  if found then
    perform coordinator.event_append('artifact.changed', p_project, p_artifact, coordinator.actor_name(p_actor), coordinator.now_utc(),
      jsonb_build_object('session', p_session, 'kept', v_kept));
  end if;
  return query select * from coordinator.artifact_show(p_project, p_artifact, p_session);
end
$$;
comment on function coordinator.artifact_keep(text, text, text, boolean, text) is
  'Exempt an artifact from retention; with p_kept false, end the exemption. ZC221: there is no such artifact.';

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
  'Delete an artifact. Its content is deleted an hour later, unless another artifact has the same content. ZC221: there is no such artifact.';

create or replace function coordinator.artifact_release() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project record;
begin
  update coordinator.artifact_blobs b set due_at = coordinator.artifact_due(coordinator.now_utc())
  from (select o.id from coordinator.artifact_blobs o where o.id in (select blob_id from gone) order by o.id for no key update) held
  where b.id = held.id;
  for v_project in select g.project_id as id, count(*) as count from gone g group by 1 order by 1 loop
    perform coordinator.artifact_use(v_project.id, -v_project.count, 0);
  end loop;
  return null;
end
$$;
comment on function coordinator.artifact_release() is
  'Make the contents of deleted artifacts due for artifact_prune, however they were deleted. Internal. No event: the trigger of artifacts.';

create or replace trigger artifacts_released after delete on coordinator.artifacts
  referencing old table as gone for each statement execute function coordinator.artifact_release();

create or replace function coordinator.artifact_prune(p_limit integer default 10) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now     timestamptz := coordinator.now_utc();
  v_blobs   bigint[];
  v_project record;
begin
  perform coordinator.check_page(p_limit);
  v_blobs := array(select id from coordinator.artifact_blobs where due_at <= v_now order by due_at limit p_limit for update skip locked);
  -- The locks prevent new references; each further statement sees everything that was committed before it.
  update coordinator.artifact_blobs b set due_at = null
  where b.id = any (v_blobs) and exists (select from coordinator.artifacts a where a.blob_id = b.id);
  for v_project in
    with gone as (delete from coordinator.artifact_blobs b where b.id = any (v_blobs) and b.due_at is not null returning b.project_id, b.bytes)
    select g.project_id as id, sum(g.bytes) as bytes from gone g group by 1 having sum(g.bytes) > 0 order by 1
  loop
    perform coordinator.artifact_use(v_project.id, 0, (-v_project.bytes)::bigint);
  end loop;
  return cardinality(v_blobs);
end
$$;
comment on function coordinator.artifact_prune(integer) is
  'Delete up to p_limit uploads that were idle for an hour, and contents that no artifact has had for an hour; returns how many were examined. Repeat until 0. No events: readers did not see them.';
