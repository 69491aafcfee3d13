-- Knowledge: texts with a title and a source, for searches. An entry is a document of the kind knowledge.

insert into coordinator.rights (function, role) values
  ('knowledge_get',    'reader'),
  ('knowledge_list',   'reader'),
  ('knowledge_search', 'reader'),
  ('knowledge_delete', 'agent'),
  ('knowledge_put',    'agent');

insert into coordinator.transaction_verbs (function, part, entered_by, keyed_by) values
  ('knowledge_delete', 'write', 'document_enter', 'knowledge_keys'),
  ('knowledge_put', 'write', 'document_enter', 'knowledge_keys');

insert into coordinator.limits (name, value, unit, meaning) values
  ('knowledge_content',  1000000, 'characters', 'Content of a knowledge entry.'),
  ('knowledge_title',    500,     'characters', 'Title of a knowledge entry.'),
  ('knowledge_source',   2000,    'characters', 'Source URL of a knowledge entry.'),
  ('knowledge_type',     200,     'characters', 'Source type of a knowledge entry.'),
  ('knowledge_metadata', 100,     'members',    'Members in the metadata of a knowledge entry.');

create or replace view coordinator.knowledge_entries with (security_barrier) as
  select p.name as project, d.key, v.value ->> 'title' as title, v.value ->> 'content' as content, v.value ->> 'source_type' as source_type,
         v.value ->> 'source_url' as source_url, v.value -> 'metadata' as metadata, v.value ->> 'language' as language, d.version,
         lpad(to_hex(d.epoch), 8, '0') as epoch, d.actor, d.created_at, d.updated_at, d.id
  from coordinator.documents d
  join coordinator.document_versions v on v.document_id = d.id and v.version = d.version
  join coordinator.projects p on p.id = d.project_id
  where d.kind = 'knowledge' and not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc())
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.knowledge_entries             is 'Knowledge entries.';
comment on column coordinator.knowledge_entries.project     is 'Name of the project.';
comment on column coordinator.knowledge_entries.key         is 'Key, unique in its project.';
comment on column coordinator.knowledge_entries.title       is 'Title.';
comment on column coordinator.knowledge_entries.content     is 'The text.';
comment on column coordinator.knowledge_entries.source_type is 'Type of the source, chosen by callers, such as url or file; null: not given.';
comment on column coordinator.knowledge_entries.source_url  is 'URL of the source; null: not given.';
comment on column coordinator.knowledge_entries.metadata    is 'JSON object of the caller; searches can filter by the texts, numbers and booleans in it.';
comment on column coordinator.knowledge_entries.language    is 'Language in which its words are searched.';
comment on column coordinator.knowledge_entries.version     is 'Number of its version: 1, 2, 3.';
comment on column coordinator.knowledge_entries.epoch       is 'Epoch in which the version was written.';
comment on column coordinator.knowledge_entries.actor       is 'Who wrote the version.';
comment on column coordinator.knowledge_entries.created_at  is 'When it was first put.';
comment on column coordinator.knowledge_entries.updated_at  is 'When it was last put.';
comment on column coordinator.knowledge_entries.id          is 'Number of its document.';

create or replace function coordinator.knowledge_check(p_value jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fault text := case
    when jsonb_typeof(p_value) <> 'object' then 'is not an object'
    when exists (select from unnest('{title,content,language}'::text[]) n where jsonb_typeof(p_value -> n) is distinct from 'string')
      then 'lacks a text: title, content or language'
    when exists (select from unnest('{source_type,source_url}'::text[]) n where jsonb_typeof(p_value -> n) not in ('string', 'null'))
      then 'has a source_type or source_url that is not a text'
    when jsonb_typeof(p_value -> 'metadata') is distinct from 'object' then 'lacks the object metadata'
  end;
begin
  if v_fault is not null then
    raise exception using errcode = 'ZC105', message = format('the entry of knowledge %s', v_fault),
      hint = 'Give {"title": "…", "content": "…", "language": "english", "metadata": {}}, or put it with knowledge_put.';
  elsif (select count(*) from jsonb_object_keys(p_value -> 'metadata')) > 100 then
    raise exception using errcode = 'ZC102', message = 'the metadata has more than 100 members', hint = 'Nest the members that you do not search by in one of them.';
  end if;
  perform coordinator.search_language(p_value ->> 'language');
end
$$;
comment on function coordinator.knowledge_check(jsonb) is
  'Reject a document that is not an entry of knowledge (ZC105), or has too many members in its metadata (ZC102). Internal.';

create or replace function coordinator.knowledge_missing(p_project text, p_key text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.name_missing('ZC222', p_project, 'knowledge', p_key, array(
    select d.key from coordinator.documents d
    where d.project_id = coordinator.project_id(p_project) and d.kind = 'knowledge' and not d.deleted order by d.key limit 1000),
    coordinator.document_restorable(p_project, 'knowledge', p_key), 512);
end
$$;
comment on function coordinator.knowledge_missing(text, text) is
  'Raise ZC222 for an entry of knowledge that does not exist, with the key that was probably meant. Internal.';

create or replace function coordinator.knowledge_rows(p_project text, p_project_id bigint, p_keys text[]) returns setof coordinator.knowledge_entries
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- as in search_recent
set plan_cache_mode = force_generic_plan -- as in document_search
as $$
begin
  return query
    select p_project, d.key, v.value ->> 'title', v.value ->> 'content', v.value ->> 'source_type', v.value ->> 'source_url', v.value -> 'metadata',
           v.value ->> 'language', d.version, lpad(to_hex(d.epoch), 8, '0'), d.actor, d.created_at, d.updated_at, d.id
    from unnest(p_keys) k (key) -- as in document_search
    cross join lateral (select * from coordinator.documents l where l.project_id = p_project_id and l.kind = 'knowledge' and l.key = k.key offset 0) d
    cross join lateral (select l.value from coordinator.document_versions l where l.document_id = d.id and l.version = d.version offset 0) v
    where not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc());
end
$$;
comment on function coordinator.knowledge_rows(text, bigint, text[]) is
  'Return the entries of knowledge with these keys, in no order. Internal.';

create or replace function coordinator.knowledge_keys(p_project text, p_part jsonb) returns setof jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select p_part || jsonb_build_object('kind', 'knowledge', 'key', p_part -> 'key')
$$;
comment on function coordinator.knowledge_keys(text, jsonb) is
  'Return an entry of knowledge of a transaction with the kind and key of its document. Internal.';

create or replace function coordinator.knowledge_put(
  p_project text, p_key text, p_content text, p_title text default null, p_source_type text default null, p_source_url text default null,
  p_metadata jsonb default '{}', p_language text default 'english', p_embedding double precision[] default null,
  p_expect bigint default null, p_epoch text default null, p_actor text default null)
returns setof coordinator.knowledge_entries
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project   bigint := coordinator.project_id(p_project);
  v_actor     text := coordinator.actor_name(p_actor);
  v_embedding real[] := coordinator.check_embedding(p_embedding);
begin
  perform coordinator.check_key('the key', p_key);
  perform coordinator.check_text('the content', p_content, 1000000);
  perform coordinator.check_name('the title', coalesce(p_title, left(p_key, 500)), 500);
  if p_source_type is not null then
    perform coordinator.check_name('the type of the source', p_source_type, 200);
  end if;
  if p_source_url is not null then
    perform coordinator.check_name('the address of the source', p_source_url, 2000);
  end if;
  perform coordinator.check_json('the metadata', coalesce(p_metadata, '{}'), p_object => true);
  perform coordinator.document_put(p_project, 'knowledge', p_key, jsonb_build_object(
    'title', coalesce(p_title, left(p_key, 500)), 'content', p_content, 'source_type', p_source_type, 'source_url', p_source_url,
    'metadata', coalesce(p_metadata, '{}'), 'language', p_language)::json, p_expect => p_expect, p_epoch => p_epoch, p_actor => v_actor);
  perform coordinator.document_embed(v_project, 'knowledge', p_key, v_embedding);
  return query select * from coordinator.knowledge_rows(p_project, v_project, array[p_key]);
end
$$;
comment on function coordinator.knowledge_put(text, text, text, text, text, text, jsonb, text, double precision[], bigint, text, text) is
  'Put a knowledge entry, and replace the one with the same key. p_title: by default the key. p_language: the language in which its words are searched; ZC105: it is unknown. p_embedding: the embedding of title and content, for searches by embedding; an earlier one is kept while title and content do not change. p_expect, p_epoch: only if this is its version (0: only if it does not exist), else ZC301 with the current version.';

create or replace function coordinator.knowledge_get(p_project text, p_key text) returns setof coordinator.knowledge_entries
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  return query select * from coordinator.knowledge_rows(p_project, v_project, array[p_key]);
  if not found then
    perform coordinator.knowledge_missing(p_project, p_key);
  end if;
end
$$;
comment on function coordinator.knowledge_get(text, text) is
  'Read a knowledge entry. ZC222: there is no such entry.';

create or replace function coordinator.knowledge_list(
  p_project text, p_source_type text default null, p_source_url text default null, p_metadata jsonb default null,
  p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.knowledge_entries
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_within  tsquery := coordinator.search_within(v_project, 'knowledge', coordinator.knowledge_fields(p_source_type, p_source_url, p_metadata));
  v_keys    text[] := coordinator.search_list(v_project, 'knowledge', v_within, p_after, p_limit);
begin
  return query select r.* from coordinator.knowledge_rows(p_project, v_project, v_keys) r order by r.updated_at desc, r.key;
end
$$;
comment on function coordinator.knowledge_list(text, text, text, jsonb, text[], integer) is
  'List knowledge entries, most recently put first. Filters: a source, and members of the metadata. p_after: array[updated_at, key] of the last row read.';

create or replace function coordinator.knowledge_delete(
  p_project text, p_key text, p_expect bigint default null, p_epoch text default null, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_key('the key', p_key);
  perform coordinator.document_hold(v_project, 'knowledge', array[p_key]);
  if not exists (select from coordinator.knowledge_rows(p_project, v_project, array[p_key])) then
    perform coordinator.knowledge_missing(p_project, p_key);
  end if;
  perform coordinator.document_delete(p_project, 'knowledge', p_key, p_expect => p_expect, p_epoch => p_epoch, p_actor => p_actor);
  return true;
end
$$;
comment on function coordinator.knowledge_delete(text, text, bigint, text, text) is
  'Delete a knowledge entry; with p_expect and p_epoch, only at that version, else ZC301. Its document can be restored until retention removes it. ZC222: there is no such entry.';

create or replace function coordinator.knowledge_search(
  p_project text, p_words text default null, p_source_type text default null, p_source_url text default null, p_metadata jsonb default null,
  p_language text default 'english', p_embedding double precision[] default null, p_after text[] default null, p_limit integer default 20)
returns setof coordinator.knowledge_match
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- as in search_recent
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_query   tsquery := coordinator.search_query(p_language, p_words, p_embedding);
  v_within  tsquery := coordinator.search_within(v_project, 'knowledge', coordinator.knowledge_fields(p_source_type, p_source_url, p_metadata));
  v_rank    double precision;
begin
  perform coordinator.check_page(p_limit, p_after, '{real,text}');
  v_rank := p_after[1]::double precision;
  return query
    select p_project, r.key, v.value ->> 'title', v.value ->> 'source_type', v.value ->> 'source_url', v.value -> 'metadata', v.value ->> 'language',
           r.version, r.actor, r.created_at, r.updated_at, r.rank, coordinator.search_snippet(p_language, 'knowledge', v.value, v_query), r.partial
    from (select s.rank, s.partial, d.id, d.key, d.version, d.actor, d.created_at, d.updated_at
          from coordinator.document_search(v_project, 'knowledge', v_query, v_within, p_embedding) s
          cross join lateral (select * from coordinator.documents l where l.id = s.document_id offset 0) d -- as in document_search
          where not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc())
            and (v_rank is null or s.rank < v_rank or s.rank = v_rank and d.key > p_after[2])
          order by s.rank desc, d.key limit p_limit) r
    cross join lateral (select l.value from coordinator.document_versions l where l.document_id = r.id and l.version = r.version offset 0) v
    order by r.rank desc, r.key;
end
$$;
comment on function coordinator.knowledge_search(text, text, text, text, jsonb, text, double precision[], text[], integer) is
  'Search knowledge by words (word other, "a phrase", or, -without), an embedding, or both. Filters: a source, and members of the metadata. With both, the rank is the sum of 1 / (60 + place) in the two rankings (reciprocal rank fusion). ZC101: there are only stop words. ZC105: the language is unknown, or an embedding is given without the extension vector. p_after: array[rank, key] of the last row read.';

create or replace function coordinator.knowledge_fields(p_source_type text, p_source_url text, p_metadata jsonb) returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_json('the metadata', coalesce(p_metadata, '{}'), p_object => true);
  if exists (select from jsonb_each(p_metadata) m where jsonb_typeof(m.value) not in ('string', 'number', 'boolean')) then
    raise exception using errcode = 'ZC105', message = 'entries can only be selected by texts, numbers and booleans in their metadata',
      hint = 'Give members such as {"team": "core", "reviewed": true}.';
  elsif (select count(*) from jsonb_object_keys(p_metadata)) > 100 then
    raise exception using errcode = 'ZC102', message = 'the metadata has more than 100 members', hint = 'Give fewer.';
  end if;
  return jsonb_strip_nulls(jsonb_build_object('source_type', p_source_type, 'source_url', p_source_url)) || jsonb_build_object('metadata', p_metadata);
end
$$;
comment on function coordinator.knowledge_fields(text, text, jsonb) is
  'Check and return the fields by which a list or search of knowledge is restricted. Internal.';
