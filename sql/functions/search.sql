-- Search: by words, and by embedding where the extension vector is installed; one mechanism for memories and knowledge.
--
-- Each vector contains a lexeme that names project and kind. No text can contain it, because no parser returns a word with U+0001. So one
-- GIN index serves all projects, and no search leaves its own. Fields that can restrict a search are lexemes of the same form.
--
-- There are two paths, because ranking reads every match. (1) The newest 2,000 documents of the project, by index. If more than 200 of them
-- match, the words are common: the newest 200 are ranked, and the rows say that they are partial. If texts are long, this path reads fewer
-- documents, up to 2 MB of words. (2) Otherwise, all matches are read from the GIN index, at most 500.
--
-- Only ranked matches can be paged through, so each page costs the same. Snippets are made only for the page.

insert into coordinator.limits (name, value, unit, meaning) values
  ('search_words', 500,  'characters', 'Words to search for.'),
  ('embedding',    4000, 'numbers',    'Dimensions of an embedding.');

create or replace function coordinator.search_language(p_language text) returns regconfig
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_found regconfig;
begin
  select c.oid into v_found from pg_ts_config c where c.cfgname = p_language and c.cfgnamespace = 'pg_catalog'::regnamespace;
  if v_found is null then
    raise exception using errcode = 'ZC105', message = format('unknown language "%s"', left(p_language, 100)),
      hint = coalesce('Did you mean "' || coordinator.nearest(p_language, array(select c.cfgname::text from pg_ts_config c)) || '"? ', '')
             || 'Give a name such as english or german, or simple for text in any other language; see \dF in psql.';
  end if;
  return v_found;
end
$$;
comment on function coordinator.search_language(text) is
  'Return the text search configuration of a language. ZC105: there is none. Internal.';

create or replace function coordinator.search_text(p_kind text, p_value jsonb) returns coordinator.document_text
language sql immutable parallel safe
return row(
  left(p_value ->> case p_kind when 'memory' then 'lesson' else 'title' end, 100000),
  left(case p_kind when 'memory' then (p_value ->> 'context') || E'\n' || coalesce(p_value ->> 'tool_name', '') else p_value ->> 'content' end, 100000),
  p_value ->> 'language')::coordinator.document_text;
comment on function coordinator.search_text(text, jsonb) is
  'Return the text of a memory or an entry of knowledge that a search compares. Internal.';

create or replace function coordinator.search_lexeme(p_project_id bigint, p_kind text, p_field text default '', p_value jsonb default null) returns text
language sql immutable parallel safe
return chr(1) || p_project_id::text || '/' || p_kind || case when p_field <> '' then
  '/' || md5(p_field || '=' || case jsonb_typeof(p_value) when 'number' then trim_scale((p_value #>> '{}')::numeric)::text else p_value::text end) else '' end;
comment on function coordinator.search_lexeme(bigint, text, text, jsonb) is
  'Return the lexeme that marks documents of a project and kind or, with a field, documents with this value in it. Internal.';

create or replace function coordinator.search_fields(p_project_id bigint, p_kind text, p_value jsonb) returns text[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(coordinator.search_lexeme(p_project_id, p_kind, f.name, f.value))
    from (select e.key, e.value from jsonb_each(p_value) e where e.key = any ('{scope,tool_name,source_type,source_url}')
          union all
          select 'metadata.' || m.key, m.value from jsonb_each(case jsonb_typeof(p_value -> 'metadata') when 'object' then p_value -> 'metadata' end) m
         ) f (name, value)
    where jsonb_typeof(f.value) in ('string', 'number', 'boolean'));
end
$$;
comment on function coordinator.search_fields(bigint, text, jsonb) is
  'Return the lexemes of the fields that can restrict a search: scope, tool_name, source_type, source_url, and the texts, numbers and booleans of metadata; null: none. Internal.';

create or replace function coordinator.search_within(p_project_id bigint, p_kind text, p_fields jsonb, p_superseded boolean default false) returns tsquery
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select string_agg(quote_literal(l), ' & ')::tsquery
    from unnest(coordinator.search_fields(p_project_id, p_kind, p_fields)
                || coordinator.search_lexeme(p_project_id, p_kind, case when p_superseded then '' else 'current' end, 'true')) l);
end
$$;
comment on function coordinator.search_within(bigint, text, jsonb, boolean) is
  'Return the query for the documents of a project and kind that have these fields; with p_superseded, also superseded ones. Internal.';

create or replace function coordinator.search_vector(p_language regconfig, p_text coordinator.document_text) returns tsvector
language plpgsql stable
set search_path = pg_catalog, pg_temp
set client_min_messages = warning -- a notice for each word of more than 2 kB
as $$
begin
  -- U+0001 never becomes part of a word. What an installed parser does with it is not known.
  return setweight(to_tsvector(p_language, translate(coalesce(p_text.heading, ''), chr(1), ' ')), 'A')
      || setweight(to_tsvector(p_language, translate(coalesce(p_text.body, ''), chr(1), ' ')), 'B');
exception when program_limit_exceeded then -- more than 1 MB of words: each is longer than its text, as are parts of addresses
  return coordinator.search_vector(p_language,
    row(left(p_text.heading, length(p_text.heading) / 4), left(p_text.body, length(p_text.body) / 4), null)::coordinator.document_text);
end
$$;
comment on function coordinator.search_vector(regconfig, coordinator.document_text) is
  'Return the words of a text, or of its beginning if they exceed the size of a vector. Internal.';

create or replace function coordinator.document_index(
  p_document_id bigint, p_project_id bigint, p_kind text, p_value jsonb, p_now timestamptz) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text   coordinator.document_text;
  v_fields tsvector;
begin
  if p_kind not in ('memory', 'knowledge') then
    return;
  elsif p_value is null then
    delete from coordinator.document_words where document_id = p_document_id;
    delete from coordinator.document_embeddings where document_id = p_document_id;
    return;
  elsif p_kind = 'memory' then
    perform coordinator.memory_check(p_value);
  else
    perform coordinator.knowledge_check(p_value);
  end if;
  v_text := coordinator.search_text(p_kind, p_value);
  v_fields := array_to_tsvector(array_remove(
    coordinator.search_fields(p_project_id, p_kind, p_value) || coordinator.search_lexeme(p_project_id, p_kind)
    || case when p_value ->> 'superseded_by' is null then coordinator.search_lexeme(p_project_id, p_kind, 'current', 'true') end, null));
  insert into coordinator.document_words as w (document_id, project_id, kind, updated_at, words)
  values (p_document_id, p_project_id, p_kind, p_now, coordinator.search_vector(coordinator.search_language(v_text.language), v_text) || v_fields)
  on conflict on constraint document_words_pkey do update set updated_at = excluded.updated_at, words = excluded.words;
  delete from coordinator.document_embeddings where document_id = p_document_id and digest <> md5(v_text::text);
  update coordinator.document_embeddings set updated_at = p_now, fields = v_fields where document_id = p_document_id;
end
$$;
comment on function coordinator.document_index(bigint, bigint, text, jsonb, timestamptz) is
  'Check and index a version of a memory or an entry of knowledge that was just written; null: it was deleted. Documents of other kinds are not searchable. No event: the write has one. Internal.';

create or replace function coordinator.check_embedding(p_embedding double precision[]) returns real[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_embedding is null then
    return null;
  elsif cardinality(p_embedding) not between 1 and 4000 or array_ndims(p_embedding) is distinct from 1 then
    raise exception using errcode = 'ZC102', message = format('the embedding has %s numbers; 1 to 4000 are allowed', cardinality(p_embedding)),
      hint = 'Give a list of numbers, as the model returned it.';
  elsif exists (select from unnest(p_embedding) e where e is null or e in ('nan', 'infinity', '-infinity') or abs(e) > 1e30)
     or not exists (select from unnest(p_embedding) e where abs(e) > 1e-30) then
    raise exception using errcode = 'ZC104', message = 'the embedding consists of zeros, or contains a number that is out of range',
      hint = 'Give finite numbers up to 1e30, at least one of them not 0.';
  end if;
  return array(select case when abs(e) > 1e-30 then e::real else 0 end from unnest(p_embedding) with ordinality u (e, o) order by o);
end
$$;
comment on function coordinator.check_embedding(double precision[]) is
  'Return an embedding in single precision; null stays null. Reject an embedding that is empty or has more than 4,000 numbers (ZC102), and numbers that are not finite, or all 0 (ZC104). Internal.';

create or replace function coordinator.document_embed(p_project_id bigint, p_kind text, p_key text, p_embedding real[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_embedding is not null then
    insert into coordinator.document_embeddings (document_id, project_id, kind, updated_at, fields, digest, embedding)
    select d.id, p_project_id, p_kind, w.updated_at, array_to_tsvector(array(select l.lexeme from unnest(w.words) l where l.lexeme like chr(1) || '%')),
           md5(coordinator.search_text(p_kind, v.value)::text), p_embedding
    from coordinator.documents d
    join coordinator.document_words w on w.document_id = d.id
    join coordinator.document_versions v on v.document_id = d.id and v.version = d.version
    where d.project_id = p_project_id and d.kind = p_kind and d.key = p_key
    on conflict on constraint document_embeddings_pkey do update set digest = excluded.digest, embedding = excluded.embedding;
  end if;
end
$$;
comment on function coordinator.document_embed(bigint, text, text, real[]) is
  'Store the embedding of the latest version of a document; null: do nothing. No event: the write has one. Internal.';

create or replace function coordinator.search_query(p_language text, p_words text, p_embedding double precision[] default null) returns tsquery
language plpgsql stable
set search_path = pg_catalog, pg_temp
set client_min_messages = warning -- a notice for stop words
as $$
declare
  v_language regconfig := coordinator.search_language(p_language);
  v_query    tsquery;
begin
  if p_words is null and p_embedding is not null then
    return null;
  end if;
  perform coordinator.check_text('the search', p_words, 500);
  v_query := websearch_to_tsquery(v_language, translate(p_words, chr(1), ' '));
  if numnode(v_query) = 0 then
    raise exception using errcode = 'ZC101', message = format('the search "%s" contains no words to look for', left(p_words, 100)),
      hint = format('Stop words of the language %s are ignored; give at least one other word.', p_language);
  end if;
  return v_query;
end
$$;
comment on function coordinator.search_query(text, text, double precision[]) is
  'Parse the words of a search: word other, "a phrase", or, -without. Null: there are no words, but an embedding. ZC101: there are only stop words. ZC105: unknown language. Internal.';

create or replace function coordinator.search_recent(p_project_id bigint, p_kind text, p_query tsquery) returns bigint[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the table is small must also serve a large one
set enable_bitmapscan = off
set enable_sort = off
set jit = off -- the disabled scans look expensive enough for JIT
as $$
begin
  return array(
    select n.document_id
    from (select w.document_id, w.words, sum(pg_column_size(w.words)) over (order by w.updated_at desc rows unbounded preceding) as bytes
          from coordinator.document_words w
          where w.project_id = p_project_id and w.kind = p_kind order by w.updated_at desc limit 2000) n
    where n.bytes <= 2097152 and n.words @@ p_query limit 201);
end
$$;
comment on function coordinator.search_recent(bigint, text, tsquery) is
  'Return the matching documents among the newest 2,000 of a project and kind, or the newest 2 MB of words: newest first, at most 201. Internal.';

create or replace function coordinator.search_rare(p_query tsquery) returns bigint[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- as in search_recent
set enable_indexscan = off
set jit = off
as $$
begin
  return array(select w.document_id from coordinator.document_words w where w.words @@ p_query limit 501);
end
$$;
comment on function coordinator.search_rare(tsquery) is
  'Return the matching documents from the GIN index, at most 501. The query must name project and kind. Internal.';

create or replace function coordinator.search_near(p_project_id bigint, p_kind text, p_within tsquery, p_embedding real[]) returns bigint[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- as in search_recent
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_schema text;
  v_ids    bigint[];
begin
  select e.extnamespace::regnamespace::text into v_schema from pg_extension e where e.extname = 'vector';
  if v_schema is null then
    raise exception using errcode = 'ZC105', message = 'a search by embedding needs the extension pgvector',
      hint = 'Search by words, or let an administrator of the database run: create extension vector.';
  end if;
  execute format(
    'select array_agg(n.document_id order by n.distance, n.document_id)
     from (select e.document_id, e.embedding::%1$s.vector operator(%1$s.<=>) $4::%1$s.vector as distance
           from (select r.document_id, r.embedding, r.fields from coordinator.document_embeddings r
                 where r.project_id = $1 and r.kind = $2 order by r.updated_at desc limit 10000) e
           where e.fields @@ $3 and cardinality(e.embedding) = cardinality($4)
           order by distance, e.document_id limit 200) n', v_schema)
  into v_ids using p_project_id, p_kind, p_within, p_embedding;
  return coalesce(v_ids, '{}');
end
$$;
comment on function coordinator.search_near(bigint, text, tsquery, real[]) is
  'Return the 200 documents whose embeddings are nearest by cosine distance, nearest first, among the newest 10,000 of a project and kind. ZC105: the extension vector is not installed. Internal.';

create or replace function coordinator.document_search(
  p_project_id bigint, p_kind text, p_query tsquery, p_within tsquery, p_embedding double precision[] default null, p_day timestamptz default null)
returns table (document_id bigint, rank double precision, partial boolean)
language plpgsql stable rows 100
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- as in search_recent
set jit = off
set plan_cache_mode = force_generic_plan -- the length of an array does not justify planning each call again
as $$
#variable_conflict use_column
declare
  v_found   bigint[];
  v_near    bigint[];
  v_partial boolean := false;
begin
  if p_query is not null then
    v_found := coordinator.search_recent(p_project_id, p_kind, p_within && p_query);
    if cardinality(v_found) > 200 then
      v_found := v_found[:200];
      v_partial := true;
    else
      v_found := coordinator.search_rare(p_within && p_query);
      v_partial := cardinality(v_found) > 500;
      v_found := v_found[:500];
    end if;
  end if;
  if p_embedding is not null then
    v_near := coordinator.search_near(p_project_id, p_kind, p_within, coordinator.check_embedding(p_embedding));
  end if;
  return query
    with matched as (
      select w.document_id as id, ts_rank(w.words, p_query)::double precision * coalesce(c.confidence / 100, 1) as score
      from unnest(v_found) f (id) -- offset 0: looked up one by one, whatever the statistics say
      cross join lateral (select * from coordinator.document_words l where l.document_id = f.id offset 0) w
      left join lateral (select coordinator.memory_confidence(v.value, p_day) as confidence
                         from (select l.id, l.version from coordinator.documents l where p_day is not null and l.id = w.document_id offset 0) d
                         cross join lateral (select l.value from coordinator.document_versions l
                                             where l.document_id = d.id and l.version = d.version offset 0) v) c on true
      where w.project_id = p_project_id and w.kind = p_kind
    ), placed as (
      select m.id, m.score, row_number() over (order by m.score desc, m.id) as place from matched m
    )
    -- Reciprocal rank fusion: Cormack, Clarke and Büttcher, SIGIR 2009, whose constant is 60.
    select coalesce(p.id, n.id),
           case when p_embedding is null then p.score else coalesce(1.0 / (60 + p.place), 0) + coalesce(1.0 / (60 + n.place), 0) end::double precision,
           v_partial
    from placed p full join unnest(v_near) with ordinality n (id, place) on n.id = p.id;
end
$$;
comment on function coordinator.document_search(bigint, text, tsquery, tsquery, double precision[], timestamptz) is
  'Return the ranked matches of p_query within p_within (see search_within), in no order, at most 500. partial: more documents matched, and only the newest or some of them were ranked. With p_embedding, the ranks by words and by distance are merged by reciprocal rank fusion: the sum of 1 / (60 + place). p_day: the documents are memories, and their ranks by words are multiplied by their confidence at this time; null: they have none. Internal.';

create or replace function coordinator.search_snippet(p_language text, p_kind text, p_value jsonb, p_query tsquery) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_whole constant coordinator.document_text := coordinator.search_text(p_kind, p_value);
  -- ts_headline takes quadratic time if words repeat.
  v_text  constant text := left(case p_kind when 'memory' then v_whole.heading || E'\n' || v_whole.body else v_whole.body end, 4000);
begin
  -- The language was looked up when the query was parsed.
  return regexp_replace(case when p_query is null then left(v_text, 200) else
    ts_headline(quote_ident(p_language)::regconfig, v_text, p_query, 'StartSel="**", StopSel="**", '
                || case when length(v_text) <= 200 then 'HighlightAll=true' else 'MaxFragments=2, MaxWords=12, MinWords=4' end) end, '\s+', ' ', 'g');
end
$$;
comment on function coordinator.search_snippet(text, text, jsonb, tsquery) is
  'Return an excerpt of the beginning of a text on one line, with the words of the search between **; without words, the beginning of the text. Internal.';

create or replace function coordinator.search_list(p_project_id bigint, p_kind text, p_within tsquery, p_after text[], p_limit integer) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- as in search_recent
set enable_bitmapscan = off
set enable_sort = off
set jit = off
as $$
declare
  v_at timestamptz;
begin
  perform coordinator.check_page(p_limit, p_after, '{instant,text}');
  v_at := p_after[1]::timestamptz;
  return array(
    select r.key
    from (select w.updated_at, d.key from coordinator.document_words w -- in the order of the index; of one instant, all
          cross join lateral (select * from coordinator.documents l where l.id = w.document_id offset 0) d
          where w.project_id = p_project_id and w.kind = p_kind and w.words @@ p_within and not d.deleted
            and (d.expires_at is null or d.expires_at > coordinator.now_utc())
            and w.updated_at <= coalesce(v_at, 'infinity') and (v_at is null or w.updated_at < v_at or d.key > p_after[2])
          order by w.updated_at desc fetch first (p_limit) rows with ties) r
    order by r.updated_at desc, r.key limit p_limit);
end
$$;
comment on function coordinator.search_list(bigint, text, tsquery, text[], integer) is
  'Return the keys of a page of documents, the most recently written first. Internal.';
