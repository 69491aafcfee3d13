-- Reading documents: a version, or a part of it; lists; the history.

create or replace function coordinator.document_find(p_project_id bigint, p_project text, p_kind text, p_key text) returns coordinator.documents
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_document coordinator.documents;
begin
  perform coordinator.check_kind(p_kind);
  perform coordinator.check_key('the key', p_key);
  select * into v_document from coordinator.documents d where d.project_id = p_project_id and d.kind = p_kind and d.key = p_key;
  if not found then
    perform coordinator.document_missing(p_project, p_kind, p_key);
  end if;
  return v_document;
end
$$;
comment on function coordinator.document_find(bigint, text, text, text) is
  'Return the header of a document, even if it is deleted or expired. ZC217: there is none. Internal.';

create or replace function coordinator.document_version_at(
  p_document coordinator.documents, p_version bigint, p_at timestamptz) returns coordinator.document_versions
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_version coordinator.document_versions;
begin
  if p_version is not null then
    select * into v_version from coordinator.document_versions v where v.document_id = p_document.id and v.version = p_version;
  else
    select * into v_version from coordinator.document_versions v where v.document_id = p_document.id and v.written_at <= p_at
    order by v.version desc limit 1;
  end if;
  if found and v_version.value is not null and (p_at is null or v_version.expires_at is null or v_version.expires_at > p_at) then
    return v_version;
  elsif found then
    raise exception using errcode = 'ZC217',
      message = format('document "%s" of kind "%s" was absent then', p_document.key, p_document.kind),
      detail = jsonb_build_object('version', v_version.version)::text,
      hint = format('Version %s deleted it, or it expired after that version. Read another version; see "coordinator document history".', v_version.version);
  elsif coalesce(p_version > p_document.version, false)
     or p_version is null and exists (select from coordinator.document_versions v where v.document_id = p_document.id and v.version = 1) then
    raise exception using errcode = 'ZC217',
      message = format('document "%s" of kind "%s" has no version %s', p_document.key, p_document.kind, coalesce(p_version::text, 'from then')),
      hint = case when p_version is null then 'It was first put later.' else format('Its latest version is %s.', p_document.version) end;
  end if;
  raise exception using errcode = 'ZC218',
    message = format('%s of document "%s" of kind "%s" is no longer kept',
                     coalesce('version ' || p_version, 'the version from then'), p_document.key, p_document.kind),
    hint = format('See "coordinator document history". The newest %s versions are kept.',
                  coordinator.document_versions_kept(p_document.project_id, p_document.kind));
end
$$;
comment on function coordinator.document_version_at(coordinator.documents, bigint, timestamptz) is
  'Return a version of a document, by number or instant. ZC217: there was none; ZC218: it is no longer kept. Internal.';

create or replace function coordinator.document_get(
  p_project text, p_kind text, p_key text, p_version bigint default null, p_at timestamptz default null, p_path text[] default null)
returns setof coordinator.document
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_document coordinator.documents;
  v_version  bigint;
begin
  if p_version is null and p_at is null then
    perform coordinator.check_kind(p_kind);
    perform coordinator.check_key('the key', p_key);
    return query
      select p_project, p_kind, p_key, d.version, coordinator.epoch_text(d.epoch),
             case when d.session_id is not null then (select s.key from coordinator.sessions s where s.id = d.session_id) end,
             d.kept, d.actor, d.created_at, d.updated_at, d.expires_at,
             case when p_path is not null then coordinator.document_part(v.value, v.raw, p_path) else coalesce(v.raw, to_json(v.value)) end
      from coordinator.documents d join coordinator.document_versions v on v.document_id = d.id and v.version = d.version
      where d.project_id = v_project and d.kind = p_kind and d.key = p_key
        and not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc());
    if not found then
      perform coordinator.document_missing(p_project, p_kind, p_key);
    end if;
    return;
  elsif p_version is not null and p_at is not null then
    raise exception using errcode = 'ZC105', message = 'both a version and an instant are given', hint = 'Give one of them.';
  elsif p_version < 1 then
    raise exception using errcode = 'ZC104', message = format('a version of %s is out of range', p_version), hint = 'Versions begin at 1.';
  end if;
  v_document := coordinator.document_find(v_project, p_project, p_kind, p_key);
  v_version := (coordinator.document_version_at(v_document, p_version, p_at)).version;
  return query
    select p_project, p_kind, p_key, v.version, coordinator.epoch_text(v.epoch), (select s.key from coordinator.sessions s where s.id = v_document.session_id),
           v_document.kept, v.actor, v_document.created_at, v.written_at, v.expires_at,
           case when p_path is not null then coordinator.document_part(v.value, v.raw, p_path) else coalesce(v.raw, to_json(v.value)) end
    from coordinator.document_versions v where v.document_id = v_document.id and v.version = v_version;
end
$$;
comment on function coordinator.document_get(text, text, text, bigint, timestamptz, text[]) is
  'Read a document: the latest version, version p_version, or the version at the instant p_at. p_path: return only the part at this path (keys, and list positions from 0). ZC217: the document is absent; ZC218: the version is no longer kept; ZC219: nothing is at the path.';

create or replace function coordinator.check_path(p_path text[]) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if array_ndims(p_path) > 1 or array_position(p_path, null) is not null then
    raise exception using errcode = 'ZC103', message = 'the path is not a plain list of keys', hint = 'Give keys, and places in lists from 0.';
  elsif cardinality(p_path) > 32 then
    raise exception using errcode = 'ZC102', message = format('the path has %s steps; at most 32 are allowed', cardinality(p_path)),
      hint = 'Give a shorter path, and take the rest from the value.';
  end if;
end
$$;
comment on function coordinator.check_path(text[]) is
  'Reject a path into a document of more than 32 steps (ZC102), of more than one dimension or with null (ZC103). Internal.';

create or replace function coordinator.document_part(p_value jsonb, p_raw json, p_path text[]) returns json
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_part json;
begin
  perform coordinator.check_path(p_path);
  if p_raw is null then
    v_part := to_json(p_value #> p_path);
  else
    v_part := coordinator.json_disarm((coordinator.json_armour(p_raw::text)::json #> coordinator.json_armour(p_path::text)::text[])::text)::json;
  end if;
  if v_part is null then
    raise exception using errcode = 'ZC219', message = format('nothing is at the path %s', left(array_to_string(p_path, '/'), 200)),
      hint = 'Give each step of the path separately: keys, and positions in lists from 0. Read the whole document to see them.';
  end if;
  return v_part;
end
$$;
comment on function coordinator.document_part(jsonb, json, text[]) is
  'Return the part of a document at a path, as exact text. ZC219: nothing is there. Internal.';

create or replace function coordinator.document_list(
  p_project text, p_kind text default null, p_prefix text default '', p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.document_header
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
begin
  if p_kind is not null then
    perform coordinator.check_kind(p_kind);
  end if;
  if coalesce(p_prefix, '') <> '' then
    perform coordinator.check_text('the prefix', p_prefix);
  end if;
  perform coordinator.check_page(p_limit, p_after, '{text,text}');
  if p_kind is not null and coalesce(p_after[1], p_kind) = p_kind then -- a separate statement, so that key and prefix bound the index scan
    return query
      select p_project, d.kind, d.key, d.version, coordinator.epoch_text(d.epoch), (select s.key from coordinator.sessions s where s.id = d.session_id),
             d.kept, d.actor, d.created_at, d.updated_at, d.expires_at
      from coordinator.documents d
      where d.project_id = v_project and d.kind = p_kind and d.key > coalesce(p_after[2], '')
        -- In byte order: from the prefix up to the prefix with the greatest character appended.
        and d.key >= coalesce(p_prefix, '') and d.key < coalesce(p_prefix, '') || U&'\+10FFFF'
        and not d.deleted and (d.expires_at is null or d.expires_at > v_now)
      order by d.key limit p_limit;
  elsif p_kind is null then
    return query
      select p_project, d.kind, d.key, d.version, coordinator.epoch_text(d.epoch), (select s.key from coordinator.sessions s where s.id = d.session_id),
             d.kept, d.actor, d.created_at, d.updated_at, d.expires_at
      from coordinator.documents d
      where d.project_id = v_project and (d.kind, d.key) > (coalesce(p_after[1], ''), coalesce(p_after[2], ''))
        and starts_with(d.key, coalesce(p_prefix, ''))
        and not d.deleted and (d.expires_at is null or d.expires_at > v_now)
      order by d.kind, d.key limit p_limit;
  end if;
end
$$;
comment on function coordinator.document_list(text, text, text, text[], integer) is
  'List the documents of a project, without values, by kind and key in byte order. Filters: a kind, and keys that begin with p_prefix. p_after: array[kind, key] of the last row read.';

create or replace function coordinator.document_history(
  p_project text, p_kind text, p_key text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.document_version
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_document coordinator.documents := coordinator.document_find(v_project, p_project, p_kind, p_key);
begin
  perform coordinator.check_page(p_limit, p_after, '{number}');
  return query
    select v.version, coordinator.epoch_text(v.epoch), v.value is null, octet_length(coalesce(v.raw::text, v.value::text)), v.actor, v.written_at, v.expires_at
    from coordinator.document_versions v
    where v.document_id = v_document.id and (p_after is null or v.version < p_after[1]::bigint)
    order by v.version desc limit p_limit;
end
$$;
comment on function coordinator.document_history(text, text, text, text[], integer) is
  'List the kept versions of a document, newest first, even if it is deleted or expired. p_after: array[version] of the last row read.';

insert into coordinator.metrics (name, sampler, kind, labels, unit, meaning) values
  ('coordinator_documents', 'document_sample', 'gauge', '{project,kind}', '', 'Documents, except deleted ones; kinds beyond the 50 with the most documents are combined as "other".');

create or replace function coordinator.document_sample(p_since timestamptz) returns table (name text, labels text[], value double precision)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_share double precision := coordinator.metric_share('coordinator.documents');
begin
  return query
    with counted as (
      select d.project_id, d.kind, count(*) / v_share as n
      from coordinator.documents d tablesample system (100 * v_share) where not d.deleted group by d.project_id, d.kind),
    placed as (
      select c.*, row_number() over (order by c.n desc, c.project_id, c.kind) as place from counted c),
    shown as (
      select array[coordinator.metric_label(coalesce(p.name, ''), c.place), coordinator.metric_label(c.kind, c.place)] as labels, c.n
      from placed c left join coordinator.projects p on p.id = c.project_id and c.place <= 50)
    select 'coordinator_documents', s.labels, sum(s.n) from shown s group by s.labels;
end
$$;
comment on function coordinator.document_sample(timestamptz) is
  'Sample the metrics of documents. Internal.';
