-- What expires, and goes some time after it was deleted or last used.

create or replace function coordinator.document_expire(p_limit integer default 1000) returns setof coordinator.retention_result
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now      timestamptz := coordinator.now_utc();
  v_document coordinator.documents;
begin
  perform coordinator.check_page(p_limit);
  for v_document in
    select * from coordinator.documents d where d.expires_at <= v_now order by d.expires_at limit p_limit for update skip locked
  loop
    if not v_document.deleted then
      perform coordinator.document_end(v_document.id, 'document.deleted', 'coordinator', v_now);
    elsif v_document.kept then
      update coordinator.documents d set expires_at = null where d.id = v_document.id;
    else
      delete from coordinator.document_versions v where v.document_id = v_document.id;
      delete from coordinator.documents d where d.id = v_document.id;
    end if;
    return next row('document', coordinator.retention_label('document', v_document.kind),
      (v_document.deleted and not v_document.kept)::integer)::coordinator.retention_result;
  end loop;
end
$$;
comment on function coordinator.document_expire(integer) is
  'Delete documents whose TTL has passed, and remove those that were deleted long enough ago; returns a row for each of up to p_limit. Repeat until there is none.';
