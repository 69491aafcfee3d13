-- Changing documents in one call: without reading them first, and without conflicts.

create or replace function coordinator.json_store_patch(p_patch json) returns coordinator.json_stored
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_patch coordinator.json_stored := coordinator.json_store('the patch', p_patch, 1048576);
begin
  if jsonb_typeof(v_patch.value) <> 'object' then
    raise exception using errcode = 'ZC105', message = format('the patch is a JSON %s, not an object', jsonb_typeof(v_patch.value)),
      hint = 'Give an object such as {"status": "COMPLETED"}; to replace the whole value, put it.';
  end if;
  return v_patch;
end
$$;
comment on function coordinator.json_store_patch(json) is
  'Check a patch, which is an object (ZC105). Internal.';

create or replace function coordinator.document_open(
  p_document coordinator.documents, p_patch coordinator.json_stored, out value jsonb, out patch jsonb, out armoured boolean)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_raw json;
begin
  -- A separate statement: it sees what was committed while document_step waited.
  select v.value, v.raw into value, v_raw from coordinator.document_versions v
  where v.document_id = p_document.id and v.version = p_document.version - 1;
  patch := p_patch.value;
  armoured := coalesce(coordinator.json_odd(v_raw::text), false) or coalesce(coordinator.json_odd(p_patch.raw::text), false);
  if armoured then
    value := coordinator.json_armour(coalesce(v_raw::text, value::text))::jsonb;
    patch := coordinator.json_armour(coalesce(p_patch.raw::text, patch::text))::jsonb;
  end if;
end
$$;
comment on function coordinator.document_open(coordinator.documents, coordinator.json_stored) is
  'Return the value before the version that document_step has counted, and a patch; both with json_armour if either has something that jsonb rejects. Internal.';

create or replace function coordinator.document_patch(
  p_project text, p_kind text, p_key text, p_patch json, p_expect bigint default null, p_epoch text default null, p_actor text default null)
returns setof coordinator.document_header
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_document coordinator.documents;
  v_patch    coordinator.json_stored;
  v_change   record;
begin
  perform coordinator.check_kind(p_kind);
  perform coordinator.check_key('the key', p_key);
  v_patch := coordinator.json_store_patch(p_patch);
  v_document := coordinator.document_step(v_project, p_project, p_kind, p_key, 'change', p_expect, p_epoch, null,
    coordinator.actor_name(p_actor), coordinator.now_utc());
  select * into v_change from coordinator.document_open(v_document, v_patch);
  if jsonb_typeof(v_change.value) <> 'object' then
    raise exception using errcode = 'ZC105',
      message = format('document "%s" of kind "%s" is a JSON %s, not an object', p_key, p_kind, jsonb_typeof(v_change.value)),
      hint = 'Put a new value; a patch merges objects.';
  end if;
  perform coordinator.document_write(v_document, p_project, coordinator.json_store_changed(
    'the changed document', coordinator.json_merge(v_change.value, v_change.patch), v_change.armoured, 1048576), 'document.put');
  return next coordinator.document_shown(v_document, p_project);
end
$$;
comment on function coordinator.document_patch(text, text, text, json, bigint, text, text) is
  'Apply a merge patch (RFC 7396) to a document: null deletes a key, objects are merged, any other value replaces. Concurrent patches do not overwrite each other. ZC217: the document is absent. p_expect: as in document_put.';

create or replace function coordinator.document_item(
  p_project text, p_kind text, p_key text, p_item text, p_patch json, p_path text[] default null, p_field text default 'id',
  p_expect bigint default null, p_epoch text default null, p_actor text default null)
returns setof coordinator.document_header
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_document coordinator.documents;
  v_patch    coordinator.json_stored;
  v_change   record;
  v_list     jsonb;
  v_places   bigint[];
begin
  perform coordinator.check_kind(p_kind);
  perform coordinator.check_key('the key', p_key);
  perform coordinator.check_text('the id of the item', p_item);
  perform coordinator.check_text('the field of the id', p_field);
  perform coordinator.check_path(p_path);
  v_patch := coordinator.json_store_patch(p_patch);
  if v_patch.value ? p_field and v_patch.value ->> p_field is distinct from p_item then
    raise exception using errcode = 'ZC105', message = format('the patch changes "%s" of the item', left(p_field, 100)),
      hint = format('Omit "%s" from the patch; the id of an item stays.', left(p_field, 100));
  end if;
  v_document := coordinator.document_step(v_project, p_project, p_kind, p_key, 'change', p_expect, p_epoch, null,
    coordinator.actor_name(p_actor), coordinator.now_utc());
  select * into v_change from coordinator.document_open(v_document, v_patch);
  p_path := coalesce(p_path, coordinator.document_items_path(p_kind, v_change.value));
  if v_change.armoured then
    p_path := array(select replace(s, chr(57344), chr(57344) || 'e000') from unnest(p_path) with ordinality u (s, o) order by o);
  end if;
  v_list := v_change.value #> p_path;
  if jsonb_typeof(v_list) is distinct from 'array' then
    raise exception using errcode = case when v_list is null then 'ZC219' else 'ZC105' end,
      message = format('document "%s" of kind "%s" ', p_key, p_kind)
        || case when cardinality(p_path) = 0 then format('is a JSON %s, not a list', jsonb_typeof(v_list))
                else concat('has no list at the path ', left(array_to_string(p_path, '/'), 100), ', but a JSON ' || jsonb_typeof(v_list)) end,
      hint = 'Give the path to the list, each step separately: keys, and positions in lists from 0.';
  end if;
  select array_agg(place - 1 order by place) into v_places
  from jsonb_array_elements(v_list) with ordinality e (item, place)
  where item ->> case when v_change.armoured then replace(p_field, chr(57344), chr(57344) || 'e000') else p_field end
      = case when v_change.armoured then replace(p_item, chr(57344), chr(57344) || 'e000') else p_item end;
  if v_places is null then
    raise exception using errcode = 'ZC219',
      message = format('document "%s" of kind "%s" has no item whose "%s" is "%s"', p_key, p_kind, left(p_field, 100), left(p_item, 100)),
      hint = coalesce('Did you mean "' || coordinator.nearest(p_item, array(
                        select item ->> p_field from jsonb_array_elements(v_list) item where length(item ->> p_field) < 200 limit 1000)) || '"? ', '')
             || 'Read the document to see its items.';
  elsif cardinality(v_places) > 1 then
    raise exception using errcode = 'ZC333',
      message = format('%s items of document "%s" of kind "%s" have the %s "%s"', cardinality(v_places), p_key, p_kind, left(p_field, 100), left(p_item, 100)),
      detail = jsonb_build_object('item', left(p_item, 100), 'count', cardinality(v_places))::text,
      hint = 'Give each item its own id, and put the document again.';
  end if;
  p_path := p_path || v_places[1]::text;
  perform coordinator.document_write(v_document, p_project, coordinator.json_store_changed('the changed document',
    jsonb_set(v_change.value, p_path, coordinator.json_merge(v_list -> v_places[1]::integer, v_change.patch)), v_change.armoured, 1048576),
    'document.put');
  return next coordinator.document_shown(v_document, p_project);
end
$$;
comment on function coordinator.document_item(text, text, text, text, json, text[], text, bigint, text, text) is
  'Merge an object into one item of a list in a document. The item is found by its id. Concurrent calls do not overwrite each other. p_path: path of the list; by default the usual place in todo lists and features, otherwise the document itself. p_field: the key of the ids. ZC219: there is no such item; ZC333: there are several.';

create or replace function coordinator.document_restore(
  p_project text, p_kind text, p_key text, p_version bigint default null, p_expect bigint default null, p_epoch text default null,
  p_ttl interval default null, p_actor text default null)
returns setof coordinator.document_header
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_now      timestamptz := coordinator.now_utc();
  v_document coordinator.documents;
  v_before   coordinator.documents;
  v_version  coordinator.document_versions;
begin
  perform coordinator.check_kind(p_kind);
  perform coordinator.check_key('the key', p_key);
  if p_ttl is not null then
    perform coordinator.check_ttl(p_ttl);
  end if;
  v_document := coordinator.document_step(v_project, p_project, p_kind, p_key, 'restore', p_expect, p_epoch, v_now + p_ttl,
    coordinator.actor_name(p_actor), v_now);
  v_before := v_document;
  v_before.version := v_document.version - 1;
  v_version := coordinator.document_version_at(v_before, coalesce(p_version, (
    select max(v.version) from coordinator.document_versions v where v.document_id = v_document.id and v.value is not null), v_before.version), null);
  perform coordinator.document_write(v_document, p_project, row(v_version.value, v_version.raw)::coordinator.json_stored, 'document.put');
  return next coordinator.document_shown(v_document, p_project);
end
$$;
comment on function coordinator.document_restore(text, text, text, bigint, bigint, text, interval, text) is
  'Write the value of an earlier version as a new version; by default the latest value, which restores a deleted or expired document. ZC217: there is no such version; ZC218: it is no longer kept. p_expect: as in document_put.';

create or replace function coordinator.document_diff(p_project text, p_kind text, p_key text, p_version bigint, p_other bigint default null) returns json
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_document coordinator.documents := coordinator.document_find(v_project, p_project, p_kind, p_key);
  v_from     coordinator.document_versions;
  v_to       coordinator.document_versions;
begin
  if p_version is null then
    raise exception using errcode = 'ZC101', message = 'no version is given', hint = 'Give the version to begin with.';
  end if;
  v_from := coordinator.document_version_at(v_document, p_version, null);
  v_to := coordinator.document_version_at(v_document, coalesce(p_other, v_document.version), null);
  if coordinator.json_odd(coalesce(v_from.raw::text, '')) or coordinator.json_odd(coalesce(v_to.raw::text, '')) then
    return coordinator.json_disarm(coordinator.json_diff(
      coordinator.json_armour(coalesce(v_from.raw::text, v_from.value::text))::jsonb,
      coordinator.json_armour(coalesce(v_to.raw::text, v_to.value::text))::jsonb)::text)::json;
  end if;
  return to_json(coordinator.json_diff(v_from.value, v_to.value));
end
$$;
comment on function coordinator.document_diff(text, text, text, bigint, bigint) is
  'Return the JSON Patch (RFC 6902) from one version of a document to another, by default the latest: a list of add, remove and replace operations. ZC217: there is no such version; ZC218: it is no longer kept.';
