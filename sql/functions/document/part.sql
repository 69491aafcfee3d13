-- Documents as parts of a transaction.

create or replace function coordinator.document_hold(p_project_id bigint, p_kind text, p_keys text[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text;
begin
  foreach v_key in array p_keys loop
    loop
      perform from coordinator.documents where project_id = p_project_id and kind = p_kind and key = v_key for update;
      exit when found;
      -- There is no row to lock. So insert and delete one: other transactions that want to insert theirs then wait.
      insert into coordinator.documents (project_id, kind, key, version, epoch, actor, created_at, updated_at)
      values (p_project_id, p_kind, v_key, 0, 0, 'coordinator', coordinator.now_utc(), coordinator.now_utc())
      on conflict on constraint documents_key do nothing;
      if found then
        delete from coordinator.documents where project_id = p_project_id and kind = p_kind and key = v_key;
        exit;
      end if;
    end loop;
  end loop;
end
$$;
comment on function coordinator.document_hold(bigint, text, text[]) is
  'Prevent changes to documents of a kind, present or absent, until the end of the transaction; keys must be given in byte order. No event. Internal.';

create or replace function coordinator.document_enter(p_project_id bigint, p_parts jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kind record;
begin
  -- The function that receives a malformed part rejects it.
  for v_kind in
    select kind, array_agg(key order by key) as keys
    from (select distinct p ->> 'kind' collate "C" as kind, p ->> 'key' collate "C" as key from jsonb_array_elements(p_parts) p
          where p ->> 'kind' ~ '^[a-z][a-z0-9_-]{0,35}$' and length(p ->> 'key') between 1 and 512) named
    group by kind order by kind
  loop
    perform coordinator.document_hold(p_project_id, v_kind.kind, v_kind.keys);
  end loop;
end
$$;
comment on function coordinator.document_enter(bigint, jsonb) is
  'Take the locks of all parts of a transaction that concern documents: their headers, by kind and key in byte order. Internal.';

create or replace function coordinator.assert_document(
  p_project text, p_kind text, p_key text, p_version bigint, p_epoch text default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_epoch    integer := coordinator.epoch_given(p_epoch);
  v_document coordinator.documents;
begin
  perform coordinator.check_kind(p_kind);
  perform coordinator.check_key('the key', p_key);
  if p_version is null then
    raise exception using errcode = 'ZC101', message = format('no version is given for document "%s"', p_key),
      hint = 'Give the version that it must have, or 0 if it must be absent.';
  end if;
  perform coordinator.document_hold(v_project, p_kind, array[p_key]);
  select * into v_document from coordinator.documents d
  where d.project_id = v_project and d.kind = p_kind and d.key = p_key
    and not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc());
  if coalesce(v_document.version, 0) <> p_version or p_version > 0 and v_document.epoch <> v_epoch then
    perform coordinator.document_refuse(p_kind, p_key, p_version, p_epoch, v_document);
  end if;
end
$$;
comment on function coordinator.assert_document(text, text, text, bigint, text) is
  'Guard a transaction: require that the document has this version and, if given, this epoch (0: it is absent), and prevent writes to it until the transaction ends. ZC301: it has another version; the detail has the current one.';

create or replace function coordinator.document_prune() returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  -- One index lookup for each project that has documents, however many documents it has.
  with recursive used as (
    (select project_id from coordinator.documents order by project_id limit 1)
    union all
    select (select d.project_id from coordinator.documents d where d.project_id > u.project_id order by d.project_id limit 1)
    from used u where u.project_id is not null
  ), gone as (
    delete from coordinator.documents
    where project_id in (select u.project_id from used u left join coordinator.projects p on p.id = u.project_id
                         where u.project_id is not null and p.id is null)
    returning id)
  delete from coordinator.document_versions v using gone g where v.document_id = g.id;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;
comment on function coordinator.document_prune() is
  'Delete documents that were put while their project was being deleted; returns how many versions. No events: the project is gone.';
