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
      -- There is no row to lock. One that this transaction inserted and deleted makes others wait that want to insert theirs.
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
  'Keep documents of a kind as they are, there or absent, until the end of the transaction; give the keys in byte order. No event. Internal.';

create or replace function coordinator.document_enter(p_project_id bigint, p_parts jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_kind record;
begin
  -- Sessions before headers: a put that makes a document of a session shares the row of that.
  perform coordinator.session_enter(p_project_id, p.session, coordinator.now_utc()) from (
    select distinct coalesce(p ->> 'session', p ->> 'key') collate "C" as session from jsonb_array_elements(p_parts) p
    where p ? 'value' and (p ->> 'kind' = 'state' or p ->> 'session' is not null) and length(p ->> 'key') between 1 and 512
      and not exists (select from coordinator.documents d where d.project_id = p_project_id and d.kind = p ->> 'kind' and d.key = p ->> 'key')
    order by 1) p;
  -- What is malformed is left to the function that gets it.
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
