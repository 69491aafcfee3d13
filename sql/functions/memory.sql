-- Memories: lessons that agents recorded for agents that meet the same context. A memory is a document of the kind memory. Its key is a
-- hash of scope, context, lesson and tool: if the same lesson is recorded twice, even at the same time, it is one memory, which the
-- second call reinforces.
--
-- The confidence is stored as it was when the memory was last reinforced. It halves every 90 days; readers compute this, so decay
-- writes nothing. Reinforcing combines the current confidence a with the new confidence b: 100 - (100 - a) * (100 - b) / 100.
--
-- A superseded memory is omitted from lists and searches unless they ask for it. For the order of locks, see
-- document/document.sql.

insert into coordinator.event_types (type, key, data, meaning) values
  ('memory.recorded',   'id of the memory', '{reinforcements}', 'A memory was recorded or reinforced.'),
  ('memory.superseded', 'id of the memory', '{superseded_by}',  'Another memory superseded this one.'),
  ('memory.forgotten',  'id of the memory', '{}',               'A memory was forgotten.');

insert into coordinator.rights (function, role) values
  ('memory_confidence', 'reader'), -- the view calls it with the rights of its reader
  ('memory_get',        'reader'),
  ('memory_list',       'reader'),
  ('memory_search',     'reader'),
  ('memory_forget',     'agent'),
  ('memory_record',     'agent'),
  ('memory_supersede',  'agent');

insert into coordinator.transaction_verbs (function, part, entered_by, keyed_by) values
  ('memory_forget', 'write', 'document_enter', 'memory_keys'),
  ('memory_record', 'write', 'document_enter', 'memory_keys'),
  ('memory_supersede', 'write', 'document_enter', 'memory_keys');

insert into coordinator.limits (name, value, unit, meaning) values
  ('memory_text',  8000, 'characters', 'Lesson or context of a memory.'),
  ('memory_scope', 200,  'characters', 'Scope or tool of a memory.');

create or replace function coordinator.memory_confidence(p_value jsonb, p_now timestamptz) returns double precision
language sql stable parallel safe
return round(((p_value ->> 'confidence')::double precision
  * 0.5::double precision ^ (greatest(extract(epoch from p_now - (p_value ->> 'reinforced_at')::timestamptz), 0)::double precision / 7776000))::numeric, 1)::double precision;
comment on function coordinator.memory_confidence(jsonb, timestamptz) is
  'Return the confidence of a memory at an instant: half as much for every 90 days since it was last reinforced. p_value: its document.';

create or replace view coordinator.memories with (security_barrier) as
  select p.name as project, d.key as memory_id, v.value ->> 'context' as context, v.value ->> 'lesson' as lesson, v.value ->> 'tool_name' as tool_name,
         coordinator.memory_confidence(v.value, coordinator.now_utc()) as confidence, (v.value ->> 'created_at')::timestamptz as created_at,
         v.value ->> 'scope' as scope, (v.value ->> 'reinforcements')::integer as reinforcements, v.value ->> 'language' as language,
         v.value ->> 'superseded_by' as superseded_by, d.actor, d.updated_at
  from coordinator.documents d
  join coordinator.document_versions v on v.document_id = d.id and v.version = d.version
  join coordinator.projects p on p.id = d.project_id
  where d.kind = 'memory' and not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc())
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.memories                is 'Memories, including superseded ones.';
comment on column coordinator.memories.project        is 'Name of the project.';
comment on column coordinator.memories.memory_id      is 'Hash of scope, context, lesson and tool.';
comment on column coordinator.memories.context        is 'When the lesson applies; may be empty.';
comment on column coordinator.memories.lesson         is 'What was learned.';
comment on column coordinator.memories.tool_name      is 'Tool that the lesson is about; null: none.';
comment on column coordinator.memories.confidence     is 'Current confidence, 0 to 100; it halves with every 90 days since the memory was last reinforced.';
comment on column coordinator.memories.created_at     is 'When it was first recorded.';
comment on column coordinator.memories.scope          is 'Whom it concerns, in words chosen by callers; empty: everybody in the project.';
comment on column coordinator.memories.reinforcements is 'How often it was recorded.';
comment on column coordinator.memories.language       is 'Language in which its words are searched.';
comment on column coordinator.memories.superseded_by  is 'Memory that superseded it; null: it is current.';
comment on column coordinator.memories.actor          is 'Who last recorded or superseded it.';
comment on column coordinator.memories.updated_at     is 'When it was last recorded or superseded.';

create or replace function coordinator.memory_check(p_value jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fault text := case
    when jsonb_typeof(p_value) <> 'object' then 'is not an object'
    when exists (select from unnest('{lesson,context,scope,language,created_at,reinforced_at}'::text[]) n
                 where jsonb_typeof(p_value -> n) is distinct from 'string') then 'lacks a text: lesson, context, scope, language, created_at or reinforced_at'
    when exists (select from unnest('{tool_name,superseded_by}'::text[]) n where jsonb_typeof(p_value -> n) not in ('string', 'null'))
      then 'has a tool_name or superseded_by that is not a text'
    when jsonb_typeof(p_value -> 'confidence') is distinct from 'number' or (p_value ->> 'confidence')::numeric not between 0 and 100 then 'lacks a confidence of 0 to 100'
    when jsonb_typeof(p_value -> 'reinforcements') is distinct from 'number' or p_value ->> 'reinforcements' !~ '^[1-9][0-9]{0,8}$'
      then 'lacks a number of reinforcements'
    when exists (select from unnest('{created_at,reinforced_at}'::text[]) n
                 where p_value ->> n !~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?Z$'
                   and p_value ->> n !~ '^[0-9]{4}-(0[13-9]|1[0-2])-30T|^[0-9]{4}-(0[13578]|1[02])-31T') then 'has an instant that is malformed'
  end;
begin
  if v_fault is not null then
    raise exception using errcode = 'ZC105', message = format('the memory %s', v_fault), hint = 'Record memories with memory_record, which writes their documents.';
  end if;
  perform coordinator.search_language(p_value ->> 'language');
end
$$;
comment on function coordinator.memory_check(jsonb) is
  'Reject (ZC105) a document that is not a memory. Internal.';

create or replace function coordinator.memory_rows(p_project text, p_project_id bigint, p_keys text[]) returns setof coordinator.memories
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- as in search_recent
set plan_cache_mode = force_generic_plan -- as in document_search
as $$
begin
  return query
    select p_project, d.key, v.value ->> 'context', v.value ->> 'lesson', v.value ->> 'tool_name',
           coordinator.memory_confidence(v.value, coordinator.now_utc()), (v.value ->> 'created_at')::timestamptz,
           v.value ->> 'scope', (v.value ->> 'reinforcements')::integer, v.value ->> 'language', v.value ->> 'superseded_by', d.actor, d.updated_at
    from unnest(p_keys) k (key) -- as in document_search
    cross join lateral (select * from coordinator.documents l where l.project_id = p_project_id and l.kind = 'memory' and l.key = k.key offset 0) d
    cross join lateral (select l.value from coordinator.document_versions l where l.document_id = d.id and l.version = d.version offset 0) v
    where not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc());
end
$$;
comment on function coordinator.memory_rows(text, bigint, text[]) is
  'Return the memories with these ids, in no order. Internal.';

create or replace function coordinator.memory_value(p_project_id bigint, p_key text) returns jsonb
language plpgsql stable -- not in SQL: as in agent_joined
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select v.value
    from coordinator.documents d
    join coordinator.document_versions v on v.document_id = d.id and v.version = d.version
    where d.project_id = p_project_id and d.kind = 'memory' and d.key = p_key
      and not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc()));
end
$$;
comment on function coordinator.memory_value(bigint, text) is
  'Return the document of a memory; null: there is none. Internal.';

create or replace function coordinator.memory_missing(p_project text, p_memory text) returns void
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.name_missing('ZC222', p_project, 'memory', p_memory, '{}', 'It was never recorded, or was forgotten.', 512)
$$;
comment on function coordinator.memory_missing(text, text) is
  'Raise ZC222 for a memory that does not exist. Internal.';

create or replace function coordinator.memory_key(p_scope text, p_context text, p_lesson text, p_tool_name text) returns text
language sql stable parallel safe
return left(encode(sha256(convert_to(jsonb_build_array(p_scope, p_context, p_lesson, p_tool_name)::text, 'UTF8')), 'hex'), 32);
comment on function coordinator.memory_key(text, text, text, text) is
  'Return the id of a memory. Internal.';

create or replace function coordinator.memory_keys(p_project text, p_part jsonb) returns setof jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_old jsonb; -- the superseded memory; omitted arguments take its values
begin
  if p_part ->> 'memory' is not null then
    v_old := coordinator.memory_value(coordinator.project_id(p_project), p_part ->> 'memory');
    return next jsonb_build_object('kind', 'memory', 'key', p_part -> 'memory');
  end if;
  if p_part ->> 'lesson' is not null then
    return next jsonb_build_object('kind', 'memory', 'key', coordinator.memory_key(
      coalesce(p_part ->> 'memory_scope', v_old ->> 'scope', ''), coalesce(p_part ->> 'context', v_old ->> 'context', ''), p_part ->> 'lesson',
      coalesce(p_part ->> 'tool_name', v_old ->> 'tool_name')));
  end if;
end
$$;
comment on function coordinator.memory_keys(text, jsonb) is
  'Return the kind and keys of the documents of a part of a transaction that records, supersedes or forgets a memory. Internal.';

create or replace function coordinator.memory_write(
  p_project text, p_project_id bigint, p_key text, p_value jsonb, p_confidence double precision, p_current boolean, p_embedding real[], p_actor text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_at    text := to_char(v_now at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
  v_old   jsonb := coordinator.memory_value(p_project_id, p_key);
  v_by    text := v_old ->> 'superseded_by';
  v_count integer := coalesce((v_old ->> 'reinforcements')::integer, 0) + 1;
begin
  if p_current or coordinator.memory_value(p_project_id, v_by) is null then -- the memory that superseded it was forgotten
    v_by := null;
  end if;
  perform coordinator.document_put(p_project, 'memory', p_key, (p_value || jsonb_build_object(
    'confidence', round((100 - (100 - coalesce(coordinator.memory_confidence(v_old, v_now), 0)) * (100 - p_confidence) / 100)::numeric, 4),
    'created_at', coalesce(v_old ->> 'created_at', v_at), 'reinforced_at', v_at, 'reinforcements', v_count, 'superseded_by', v_by))::json,
    p_actor => p_actor);
  perform coordinator.document_embed(p_project_id, 'memory', p_key, p_embedding);
  perform coordinator.event_append('memory.recorded', p_project, p_key, p_actor, v_now, jsonb_build_object('reinforcements', v_count));
end
$$;
comment on function coordinator.memory_write(text, bigint, text, jsonb, double precision, boolean, real[], text) is
  'Record or reinforce a memory whose key is held. p_current: even if another one superseded it. Internal.';

create or replace function coordinator.memory_new(p_lesson text, p_context text, p_tool_name text, p_confidence double precision, p_scope text, p_language text)
returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_text('the lesson', p_lesson, 8000);
  if p_context <> '' then
    perform coordinator.check_text('the context', p_context, 8000);
  end if;
  if p_scope <> '' then
    perform coordinator.check_name('the scope', p_scope, 200);
  end if;
  if p_tool_name is not null then
    perform coordinator.check_name('the tool', p_tool_name, 200);
  end if;
  if p_confidence is null or p_confidence not between 0 and 100 then
    raise exception using errcode = 'ZC104', message = format('a confidence of %s is out of range', coalesce(p_confidence::text, 'null')),
      hint = 'Give 0 to 100.';
  end if;
  perform coordinator.search_language(p_language);
  return jsonb_build_object('scope', coalesce(p_scope, ''), 'context', coalesce(p_context, ''), 'lesson', p_lesson, 'tool_name', p_tool_name, 'language', p_language);
end
$$;
comment on function coordinator.memory_new(text, text, text, double precision, text, text) is
  'Check the parts of a memory, and return its document without what the database adds. Internal.';

create or replace function coordinator.memory_record(
  p_project text, p_lesson text, p_context text default '', p_tool_name text default null, p_confidence double precision default 50, p_memory_scope text default '',
  p_language text default 'english', p_embedding double precision[] default null, p_actor text default null)
returns setof coordinator.memories
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project   bigint := coordinator.project_id(p_project);
  v_actor     text := coordinator.actor_name(p_actor);
  v_value     jsonb := coordinator.memory_new(p_lesson, p_context, p_tool_name, p_confidence, p_memory_scope, p_language);
  v_key       text := coordinator.memory_key(coalesce(p_memory_scope, ''), coalesce(p_context, ''), p_lesson, p_tool_name);
  v_embedding real[] := coordinator.check_embedding(p_embedding);
begin
  perform coordinator.document_hold(v_project, 'memory', array[v_key]);
  perform coordinator.memory_write(p_project, v_project, v_key, v_value, p_confidence, false, v_embedding, v_actor);
  return query select * from coordinator.memory_rows(p_project, v_project, array[v_key]);
end
$$;
comment on function coordinator.memory_record(text, text, text, text, double precision, text, text, double precision[], text) is
  'Record a lesson, with the context in which it applies, the tool that it is about, and a scope. If it was recorded before with the same context, tool and scope, that memory is reinforced: its confidence a becomes 100 - (100 - a) * (100 - p_confidence) / 100. p_confidence: 0 to 100; it halves with every 90 days without another record. p_embedding: the embedding of lesson and context, for searches by embedding.';

create or replace function coordinator.memory_supersede(
  p_project text, p_memory text, p_lesson text, p_context text default null, p_tool_name text default null, p_confidence double precision default 50,
  p_memory_scope text default null, p_language text default null, p_embedding double precision[] default null, p_actor text default null)
returns setof coordinator.memories
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project   bigint := coordinator.project_id(p_project);
  v_actor     text := coordinator.actor_name(p_actor);
  v_old       jsonb := coordinator.memory_value(v_project, p_memory);
  v_value     jsonb;
  v_key       text;
  v_embedding real[] := coordinator.check_embedding(p_embedding);
begin
  if v_old is null then
    perform coordinator.memory_missing(p_project, p_memory);
  end if;
  v_value := coordinator.memory_new(p_lesson, coalesce(p_context, v_old ->> 'context'), coalesce(p_tool_name, v_old ->> 'tool_name'), p_confidence,
                                    coalesce(p_memory_scope, v_old ->> 'scope'), coalesce(p_language, v_old ->> 'language'));
  v_key := coordinator.memory_key(v_value ->> 'scope', v_value ->> 'context', v_value ->> 'lesson', v_value ->> 'tool_name');
  if v_key = p_memory then
    raise exception using errcode = 'ZC105', message = 'the new lesson is the same as the one it would supersede',
      hint = 'Give another lesson, context, tool or scope; to reinforce a memory, record it again.';
  end if;
  perform coordinator.document_hold(v_project, 'memory', array(select k collate "C" from unnest(array[p_memory, v_key]) k order by 1));
  v_old := coordinator.memory_value(v_project, p_memory);
  if v_old is null then
    perform coordinator.memory_missing(p_project, p_memory);
  elsif v_old ->> 'superseded_by' <> v_key then
    raise exception using errcode = 'ZC301', message = format('memory "%s" is already superseded by "%s"', p_memory, v_old ->> 'superseded_by'),
      detail = jsonb_build_object('superseded_by', v_old -> 'superseded_by')::text, hint = 'Read that memory, and supersede it instead.';
  end if;
  perform coordinator.memory_write(p_project, v_project, v_key, v_value, p_confidence, true, v_embedding, v_actor);
  if v_old ->> 'superseded_by' is null then
    perform coordinator.document_put(p_project, 'memory', p_memory, (v_old || jsonb_build_object('superseded_by', v_key))::json, p_actor => v_actor);
    perform coordinator.event_append('memory.superseded', p_project, p_memory, v_actor, coordinator.now_utc(), jsonb_build_object('superseded_by', v_key));
  end if;
  return query select * from coordinator.memory_rows(p_project, v_project, array[v_key]);
end
$$;
comment on function coordinator.memory_supersede(text, text, text, text, text, double precision, text, text, double precision[], text) is
  'Record a lesson that replaces a memory, and return it. Lists and searches omit the old memory unless they ask for it. Null parameters are taken from the old memory. ZC222: there is no such memory. ZC301: another memory has already superseded it.';

create or replace function coordinator.memory_forget(p_project text, p_memory text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_actor   text := coordinator.actor_name(p_actor);
begin
  perform coordinator.check_key('the id of the memory', p_memory);
  perform coordinator.document_hold(v_project, 'memory', array[p_memory]);
  if coordinator.memory_value(v_project, p_memory) is null then
    perform coordinator.memory_missing(p_project, p_memory);
  end if;
  perform coordinator.document_delete(p_project, 'memory', p_memory, p_actor => v_actor);
  perform coordinator.event_append('memory.forgotten', p_project, p_memory, v_actor, coordinator.now_utc(), '{}');
  return true;
end
$$;
comment on function coordinator.memory_forget(text, text, text) is
  'Forget a memory. Its document can be restored until retention removes it. ZC222: there is no such memory.';

create or replace function coordinator.memory_get(p_project text, p_memory text) returns setof coordinator.memories
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  return query select * from coordinator.memory_rows(p_project, v_project, array[p_memory]);
  if not found then
    perform coordinator.memory_missing(p_project, p_memory);
  end if;
end
$$;
comment on function coordinator.memory_get(text, text) is
  'Read a memory, even a superseded one. ZC222: there is no such memory.';

create or replace function coordinator.memory_list(
  p_project text, p_memory_scope text default null, p_tool_name text default null, p_superseded boolean default false,
  p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.memories
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_within  tsquery := coordinator.search_within(v_project, 'memory',
    jsonb_strip_nulls(jsonb_build_object('scope', p_memory_scope, 'tool_name', p_tool_name)), coalesce(p_superseded, false));
  v_keys    text[] := coordinator.search_list(v_project, 'memory', v_within, p_after, p_limit);
begin
  return query select r.* from coordinator.memory_rows(p_project, v_project, v_keys) r order by r.updated_at desc, r.memory_id;
end
$$;
comment on function coordinator.memory_list(text, text, text, boolean, text[], integer) is
  'List memories, most recently recorded first. Filters: a scope and a tool; p_superseded: include superseded memories. p_after: array[updated_at, memory_id] of the last row read.';

create or replace function coordinator.memory_search(
  p_project text, p_words text default null, p_memory_scope text default null, p_tool_name text default null, p_superseded boolean default false,
  p_language text default 'english', p_embedding double precision[] default null, p_after text[] default null, p_limit integer default 20)
returns setof coordinator.memory_match
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- as in search_recent
set jit = off
set plan_cache_mode = force_generic_plan
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_query   tsquery := coordinator.search_query(p_language, p_words, p_embedding);
  v_within  tsquery := coordinator.search_within(v_project, 'memory',
    jsonb_strip_nulls(jsonb_build_object('scope', p_memory_scope, 'tool_name', p_tool_name)), coalesce(p_superseded, false));
  v_rank    double precision;
  v_day     timestamptz := date_trunc('day', coordinator.now_utc(), 'UTC'); -- of the day, so that ranks do not change from page to page
begin
  perform coordinator.check_page(p_limit, p_after, '{real,text}');
  v_rank := p_after[1]::double precision;
  return query
    with page as (
      select r.rank, r.partial, r.key, r.id, r.version
      from (select s.rank, s.partial, d.key, d.id, d.version
            from coordinator.document_search(v_project, 'memory', v_query, v_within, p_embedding, v_day) s
            cross join lateral (select * from coordinator.documents l where l.id = s.document_id offset 0) d -- as in document_search
            where not d.deleted and (d.expires_at is null or d.expires_at > coordinator.now_utc())) r
      where v_rank is null or r.rank < v_rank or r.rank = v_rank and r.key > p_after[2]
      order by r.rank desc, r.key limit p_limit)
    select m.project, m.memory_id, m.context, m.lesson, m.tool_name, m.confidence, m.created_at, m.scope, m.reinforcements, m.language, m.superseded_by,
           m.actor, m.updated_at, p.rank, coordinator.search_snippet(p_language, 'memory', v.value, v_query), p.partial
    from page p
    join coordinator.memory_rows(p_project, v_project, array(select key from page)) m on m.memory_id = p.key
    cross join lateral (select l.value from coordinator.document_versions l where l.document_id = p.id and l.version = p.version offset 0) v
    order by p.rank desc, p.key;
end
$$;
comment on function coordinator.memory_search(text, text, text, text, boolean, text, double precision[], text[], integer) is
  'Search memories by words (word other, "a phrase", or, -without), an embedding, or both. Filters: a scope and a tool; p_superseded: include superseded memories. The rank by words is multiplied by the confidence at the start of the day. With an embedding, the rank is the sum of 1 / (60 + place) in the rankings by words and by distance (reciprocal rank fusion). ZC101: there are only stop words. ZC105: the language is unknown, or an embedding is given without the extension vector. p_after: array[rank, memory_id] of the last row read.';
