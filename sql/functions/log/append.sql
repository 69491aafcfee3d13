-- Appending to a log.

create or replace function coordinator.log_refuse(p_place integer, p_code text, p_message text, p_hint text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = p_code, message = format('entry %s: %s', p_place, p_message),
    detail = jsonb_build_object('entry', p_place)::text, hint = p_hint;
end
$$;
comment on function coordinator.log_refuse(integer, text, text, text) is
  'Raise an error about an entry of a batch, by its position from 0. Internal.';

create or replace function coordinator.log_role(p_data json) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  return case when json_typeof(p_data -> 'role') = 'string' and length(p_data ->> 'role') between 1 and 200 then p_data ->> 'role' end;
end
$$;
comment on function coordinator.log_role(json) is
  'Return the role that the data of an entry names; null: none, or not a text of 1 to 200 characters. Internal.';

-- Reads the usual batch in one statement: the loop of log_drafts costs three times as much. Each append calls it, so it inherits the
-- search_path of its callers. If an entry begins with its data and is nine bytes longer than that, or ten with a space, it has no other fields.
create or replace function coordinator.log_plain_drafts(p_kind text, p_entries json) returns coordinator.log_draft[]
language plpgsql immutable
as $$
declare
  v_drafts coordinator.log_draft[];
  v_plain  boolean;
begin
  if strpos(p_entries::text, '\u') = 0 and octet_length(p_entries::text) <= 1048576
     and p_entries::text !~ '[0-9]{40}|[0-9.][eE][+-]?[0-9]{3}'
     and octet_length(p_entries::text) - octet_length(replace(replace(p_entries::text, '[', ''), '{', '')) <= 64
     and json_typeof(p_entries) = 'array' then
    select array_agg(row(
             null, case when length(d.role) between 1 and 200 then d.role end,
             case p_kind when 'message' then (octet_length(d.data::text) + 3) / 4 end, null, d.data, null)::coordinator.log_draft),
           bool_and(starts_with(d.entry::text, '{"data":') and octet_length(d.entry::text) <= octet_length(d.data::text) + 10)
    into v_drafts, v_plain
    from (select g.entry, g.data, -- a role at the beginning, as in most messages, is found without parsing the data
                 case when starts_with(g.data::text, '{"role":"') and split_part(g.data::text, '"role"', 3) = ''
                           and strpos(split_part(g.data::text, '"', 4), '\') = 0 then split_part(g.data::text, '"', 4)
                      when json_typeof(g.data -> 'role') = 'string' then g.data ->> 'role' end as role
          from (select e as entry, e -> 'data' as data from json_array_elements(p_entries) e offset 0) g offset 0) d;
  end if;
  return case when v_plain and cardinality(v_drafts) <= 1000 then v_drafts end;
end
$$;
comment on function coordinator.log_plain_drafts(text, json) is
  'Read the entries of an append if they have only data; null if one has more or needs a closer look: then log_drafts reads them. Internal.';

create or replace function coordinator.log_drafts(p_kind text, p_entries json) returns coordinator.log_draft[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_given  constant text := p_entries::text;
  v_mark   text;       -- replaces the \u of escapes that PostgreSQL cannot read
  v_sound  boolean;    -- no entry exceeds a limit of JSON
  v_entry  json;
  v_field  text;
  v_type   text;
  v_place  integer := -1;
  v_draft  coordinator.log_draft;
  v_empty  coordinator.log_draft;
  v_drafts coordinator.log_draft[] := '{}';
  v_text   text;
  v_hint   text;
begin
  if octet_length(v_given) > 4194304 then
    raise exception using errcode = 'ZC102', message = 'the entries take more than 4194304 bytes as text',
      hint = 'Append them in several batches.';
  end if;
  if strpos(v_given, '\u') > 0 and coordinator.json_tame(v_given) <> v_given then
    v_mark := 'u' || replace(gen_random_uuid()::text, '-', '');
    p_entries := coordinator.json_tame(v_given, v_mark || '\1')::json;
  end if;
  if p_entries is null or json_typeof(p_entries) <> 'array' then
    raise exception using errcode = 'ZC103', message = 'the entries are not a list',
      hint = 'Give an array of objects such as [{"data": {"role": "user", "content": "Hello"}}].';
  end if;
  v_sound := coordinator.json_text_fault(v_given, 1048576) is null;
  for v_entry in select value from json_array_elements(p_entries) loop
    v_place := v_place + 1;
    v_draft := v_empty;
    if v_place >= 1000 then
      raise exception using errcode = 'ZC102', message = format('%s entries; at most 1000 are allowed', json_array_length(p_entries)),
        hint = 'Append them in several batches.';
    elsif json_typeof(v_entry) <> 'object' then
      perform coordinator.log_refuse(v_place, 'ZC103', 'it is not an object', 'Write it like {"data": {"role": "user", "content": "Hello"}}.');
    end if;
    for v_field in select json_object_keys(v_entry) loop
      if v_field = 'data' then
        v_draft.data := v_entry -> 'data';
        continue;
      end if;
      v_type := json_typeof(v_entry -> v_field);
      continue when v_type = 'null' and v_field in ('uid', 'role', 'tokens', 'needs');
      v_text := v_entry ->> v_field;
      if v_field in ('uid', 'role') then
        if v_type <> 'string' then
          perform coordinator.log_refuse(v_place, 'ZC103', format('the %s is not a text', v_field), 'Give a string, or omit it.');
        end if;
        if strpos(v_text, v_mark) > 0 then
          perform coordinator.log_refuse(v_place, 'ZC103', format('the %s contains NUL or half of a surrogate pair', v_field), 'Remove it.');
        end if;
        begin
          perform coordinator.check_name('the ' || v_field, v_text, case v_field when 'uid' then 512 else 200 end);
        exception when others then
          get stacked diagnostics v_hint = pg_exception_hint;
          perform coordinator.log_refuse(v_place, sqlstate, sqlerrm, v_hint);
        end;
        if v_field = 'uid' then
          v_draft.uid := v_text;
        else
          v_draft.role := v_text;
        end if;
      elsif v_field in ('tokens', 'needs') then
        if v_type <> 'number' or v_text !~ '^-?[0-9]{1,18}$' or v_field = 'tokens' and v_text::bigint not between 0 and 2147483647 then
          perform coordinator.log_refuse(v_place, 'ZC104', format('%s of %s are out of range', v_field, left(v_text, 100)),
            case v_field when 'tokens' then 'Give a whole number from 0 to 2147483647, or omit it.'
                         else 'Give the number of an earlier entry, or -1 for the entry before this one; or omit it.' end);
        elsif v_field = 'tokens' then
          v_draft.tokens := v_text::integer;
        else
          v_draft.needs := v_text::bigint;
        end if;
      else
        perform coordinator.log_refuse(v_place, 'ZC105', format('it has an unknown field "%s"', left(v_field, 100)),
          'The content goes into data. An entry has the fields data, uid, role, tokens and needs.');
      end if;
    end loop;
    if v_draft.data is null then
      perform coordinator.log_refuse(v_place, 'ZC101', 'it has no data', 'Write it like {"data": {"role": "user", "content": "Hello"}}.');
    end if;
    v_text := v_draft.data::text;
    if v_mark is not null then
      v_draft.raw := replace(v_text, v_mark, '\u');
      v_draft.data := regexp_replace(v_text, v_mark || '[0-9a-fA-F]{4}', '\\ufffd', 'g')::json;
      v_text := v_draft.raw;
      v_draft.raw := nullif(v_draft.raw, v_draft.data::text);
    end if;
    if not v_sound then
      begin
        perform coordinator.json_refuse('the data', coordinator.json_text_fault(v_text, 1048576), 1048576);
      exception when others then
        get stacked diagnostics v_hint = pg_exception_hint;
        perform coordinator.log_refuse(v_place, sqlstate, sqlerrm, v_hint);
      end;
    end if;
    if v_draft.role is null and json_typeof(v_draft.data) = 'object' and strpos(v_text, '"role"') > 0 then
      v_draft.role := coordinator.log_role(v_draft.data);
    end if;
    if v_draft.tokens is null and p_kind = 'message' then
      v_draft.tokens := (octet_length(v_text) + 3) / 4;
    end if;
    v_drafts := v_drafts || v_draft;
  end loop;
  if v_place < 0 then
    raise exception using errcode = 'ZC101', message = 'no entries are given', hint = 'Give at least one.';
  end if;
  return v_drafts;
end
$$;
comment on function coordinator.log_drafts(text, json) is
  'Read and check the entries of an append. An error names the entry by its position from 0, which is also entry in its detail. Internal.';

create or replace function coordinator.log_repeated(p_log_id bigint, p_drafts coordinator.log_draft[])
returns table (place bigint, seq bigint, epoch integer)
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_other record;
begin
  select d.place, e.seq, d.uid into v_other
  from unnest(p_drafts) with ordinality d (uid, role, tokens, needs, data, raw, place)
  join coordinator.entries e on e.log_id = p_log_id and e.uid = d.uid
  where coalesce(e.raw, e.data::text) <> coalesce(d.raw, d.data::text)
  order by d.place limit 1;
  if found then
    raise exception using errcode = 'ZC331',
      message = format('entry %s: the uid "%s" belongs to other content, in entry %s of the log', v_other.place - 1, v_other.uid, v_other.seq),
      detail = jsonb_build_object('entry', v_other.place - 1, 'seq', v_other.seq)::text, hint = 'Use a new uid for a new entry.';
  end if;
  return query
    select d.place, e.seq, e.epoch
    from unnest(p_drafts) with ordinality d (uid, role, tokens, needs, data, raw, place)
    join coordinator.entries e on e.log_id = p_log_id and e.uid = d.uid;
end
$$;
comment on function coordinator.log_repeated(bigint, coordinator.log_draft[]) is
  'Return which entries of an append are already in the log, by their uid. ZC331: one of them has other content. Internal.';

-- After the statement that has locked the header, and after the session was found not to be archived.
create or replace function coordinator.log_open(p_log_id bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  update coordinator.logs l
  set open_to = l.last_seq | 255, -- log_append_any compares the number of entries with the policy once in 256 entries
      open_until = case when l.session_id is not null -- as long as session_continue has nothing to record
                        then (select s.updated_at + interval '1 minute' from coordinator.sessions s where s.id = l.session_id)
                        when l.kind not in ('message', 'step') then 'infinity' end -- a null session was deleted: the next append creates another
  where l.id = p_log_id;
end
$$;
comment on function coordinator.log_open(bigint) is
  'Let the next appends to a log do without looking at its session and at retention. session_close undoes this. No event. Internal.';

-- What log_append does not do itself. It is called by nothing else, so it inherits the search_path.
create or replace function coordinator.log_append_any(
  p_project text, p_kind text, p_key text, p_entries json, p_expect bigint, p_epoch text, p_session text, p_actor text)
returns setof coordinator.log_receipt
language plpgsql volatile
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_actor    text := coordinator.actor_name(p_actor);
  v_expected integer := case when p_epoch is not null then coordinator.epoch_given(p_epoch) end;
  v_epoch    integer := coordinator.epoch_stamp();
  v_drafts   coordinator.log_draft[];
  v_count    integer;
  v_session  bigint;
  v_draft    coordinator.log_draft;
  v_uids     integer := 0;
  v_needs    integer := 0;
  v_held     boolean;
  v_log      record;
  v_known    bigint[] := '{}'; -- positions of entries that are already there
  v_earlier  record;
  v_place    bigint;
  v_seq      bigint;
  v_first    bigint; -- of the entries that are already there
  v_base     bigint;
  v_traits   coordinator.message_trait[]; -- of messages with links
begin
  if p_kind is null or p_kind = 'audit' or p_kind !~ '^[a-z][a-z0-9_-]{0,35}$' then
    perform coordinator.log_check_writer(p_kind);
  end if;
  if coordinator.name_plain(p_key, 512) is not true then
    perform coordinator.check_key('the key', p_key);
  end if;
  if p_kind in ('message', 'step') then
    p_session := coalesce(p_session, p_key);
  end if;
  if p_session <> p_key then
    perform coordinator.check_key('the key of the session', p_session);
    if p_kind in ('message', 'step') or not starts_with(p_key, p_session || '/') then
      raise exception using errcode = 'ZC105', message = format('the key "%s" does not belong to session "%s"', p_key, p_session),
        hint = case when p_kind in ('message', 'step') then format('Logs of kind "%s" have the key of their session.', p_kind)
                    else 'Use the key of the session, or one that begins with it and "/".' end;
    end if;
  end if;
  v_drafts := coordinator.log_plain_drafts(p_kind, p_entries);
  if v_drafts is null then
    v_drafts := coordinator.log_drafts(p_kind, p_entries);
    foreach v_draft in array v_drafts loop -- a query over them would take longer
      v_uids := v_uids + (v_draft.uid is not null)::integer;
      v_needs := v_needs + (v_draft.needs is not null)::integer;
    end loop;
    if v_uids > 1 and (select count(distinct d.uid) < v_uids from unnest(v_drafts) d) then
      select d.place - 1 into v_place from (
        select place, count(*) over (partition by uid order by place) as n
        from unnest(v_drafts) with ordinality u (uid, role, tokens, needs, data, raw, place) where uid is not null) d
      where d.n > 1 order by d.place limit 1;
      perform coordinator.log_refuse(v_place::integer, 'ZC331', 'its uid belongs to an earlier entry of the batch', 'Give each entry a uid of its own.');
    end if;
  end if;
  v_count := cardinality(v_drafts);

  loop
    if v_uids > 0 then
      -- Under the lock: a repeated call waits for the first one while that is still running.
      select l.id, l.last_seq into v_log from coordinator.logs l
      where l.project_id = v_project and l.kind = p_kind and l.key = p_key for no key update;
      v_held := found;
      if v_held then
        select min(r.seq) as first, max(r.seq) as last, coalesce(array_agg(r.place), '{}') as places,
               (array_agg(r.epoch order by r.seq desc))[1] as epoch
        into v_earlier from coordinator.log_repeated(v_log.id, v_drafts) r;
        v_known := v_earlier.places;
        if cardinality(v_known) = v_count then
          return query select p_kind, p_key, v_earlier.first, v_earlier.last, coordinator.epoch_text(v_earlier.epoch), 0;
          return;
        end if;
        v_first := v_earlier.first;
      end if;
    end if;
    if v_uids = 0 or v_held then -- otherwise another call may have created the log in between, with these uids
      update coordinator.logs l
      set last_seq = l.last_seq + v_count - cardinality(v_known), count = l.count + v_count - cardinality(v_known), epoch = v_epoch, deleted = false,
          updated_at = greatest(l.updated_at, coordinator.now_utc()),
          trim_at = case when l.deleted then coordinator.now_utc() + coordinator.retention_age(v_project, 'log', p_kind)
                         when l.last_seq >> 8 < (l.last_seq + v_count - cardinality(v_known)) >> 8 -- checked once in 256 entries
                              and l.count + v_count > coordinator.retention_count(v_project, 'log', p_kind)
                         then least(l.trim_at, coordinator.now_utc()) -- never later, because log_trim, which waits for this lock, would miss it
                         else l.trim_at end
      where l.project_id = v_project and l.kind = p_kind and l.key = p_key
        and (p_expect is null or case when l.deleted then p_expect = 0
                                      else l.last_seq = p_expect and (v_expected is null or p_expect = 0 or l.epoch = v_expected) end)
      returning l.id, l.last_seq, l.updated_at, l.session_id, l.count, l.open_until, l.open_to into v_log;
      exit when found;
      select l.last_seq, l.epoch into v_log from coordinator.logs l
      where l.project_id = v_project and l.kind = p_kind and l.key = p_key and not l.deleted;
      continue when v_log.last_seq = p_expect and (v_expected is null or v_log.epoch = v_expected); -- another call has just appended it
      if found and p_expect is not null or p_expect <> 0 then
        perform coordinator.log_conflict(p_kind, p_key, p_expect, p_epoch, nullif(v_log.last_seq, 0), v_log.epoch);
      end if;
    end if;
    if p_session is not null then
      v_session := coordinator.session_enter(v_project, p_session, coordinator.now_utc(), v_actor);
    end if;
    insert into coordinator.logs (project_id, kind, key, session_id, epoch, updated_at, trim_at)
    values (v_project, p_kind, p_key, v_session, v_epoch, coordinator.now_utc(),
            coordinator.now_utc() + coordinator.retention_age(v_project, 'log', p_kind)) on conflict do nothing; -- the loser of the race repeats the loop
  end loop;

  if v_log.session_id is not null then
    if not exists (select from coordinator.sessions s
                   where s.id = v_log.session_id and s.status <> 'archived' and s.updated_at >= v_log.updated_at - interval '1 minute') then
      perform coordinator.session_continue(v_log.session_id, v_log.updated_at);
    end if;
  elsif p_session is not null and v_session is null and v_log.count = v_count - cardinality(v_known) then -- the log was deleted with its session
    v_session := coordinator.session_enter(v_project, p_session, v_log.updated_at, v_actor);
    update coordinator.logs set session_id = v_session where id = v_log.id;
  end if;
  if p_session is not null and v_session is null and p_kind not in ('message', 'step') then
    if not exists (select from coordinator.sessions s where s.id = v_log.session_id and s.project_id = v_project and s.key = p_session) then
      raise exception using errcode = 'ZC105', message = format('log "%s" exists, and does not belong to session "%s"', p_key, p_session),
        hint = 'Omit the session, or use another key.';
    end if;
  end if;
  if v_log.open_until >= v_log.updated_at is not true or v_log.open_to is distinct from v_log.last_seq | 255 then
    perform coordinator.log_open(v_log.id);
  end if;
  v_count := v_count - cardinality(v_known);
  v_base := v_log.last_seq - v_count;
  if v_needs > 0 then
    for v_place in 1 .. cardinality(v_drafts) loop
      continue when v_drafts[v_place].needs is null or v_place = any (v_known);
      v_seq := v_base + v_place - (select count(*) from unnest(v_known) k where k < v_place);
      if v_drafts[v_place].needs < 0 then
        v_drafts[v_place].needs := v_seq + v_drafts[v_place].needs;
      end if;
      if v_drafts[v_place].needs not between 1 and v_seq - 1 then
        perform coordinator.log_refuse(v_place::integer - 1, 'ZC104', 'it needs an entry that is not before it',
          'Give the number of an earlier entry, or -1 for the entry before this one.');
      end if;
    end loop;
  end if;
  if v_known <> '{}' then
    v_drafts := array(select row(d.uid, d.role, d.tokens, d.needs, d.data, d.raw)::coordinator.log_draft
                      from unnest(v_drafts) with ordinality d (uid, role, tokens, needs, data, raw, place)
                      where d.place <> all (v_known) order by d.place);
  end if;
  if p_kind = 'message' and coordinator.message_linked(p_entries::text) then
    v_traits := coordinator.message_traits(v_log.id, v_base + 1, array(select d.data from unnest(v_drafts) d));
  end if;
  insert into coordinator.entries (log_id, seq, uid, role, tokens, epoch, needs_seq, links, actor, created_at, data, raw)
  select v_log.id, v_base + d.place, d.uid,
         case when (v_traits[d.place]).role = 'tool' then 'tool' else coalesce(d.role, (v_traits[d.place]).role) end,
         d.tokens, v_epoch, least(d.needs, (v_traits[d.place]).needs_seq), (v_traits[d.place]).links, v_actor, v_log.updated_at, d.data, d.raw
  from unnest(v_drafts) with ordinality d (uid, role, tokens, needs, data, raw, place);
  insert into coordinator.events (type, project, key, actor, at, data)
  values ('log.appended', p_project, p_kind || '/' || p_key, v_actor, v_log.updated_at,
          jsonb_build_object('kind', p_kind, 'name', p_key, 'first_seq', v_base + 1, 'last_seq', v_log.last_seq));
  return next row(p_kind, p_key, least(v_base + 1, v_first), v_log.last_seq, coordinator.epoch_text(v_epoch), v_count)::coordinator.log_receipt;
end
$$;
comment on function coordinator.log_append_any(text, text, text, json, bigint, text, text, text) is
  'Do what log_append does, for any append. Internal.';

-- The usual append is done here: entries that have only data, as programs write them (without spaces), to a log that exists, without
-- a condition, and without links between messages. Each statement, and each function that an expression names, costs an append 1 to 20 µs;
-- log_append_any does the rest, and everything that fails.
create or replace function coordinator.log_append(
  p_project text, p_kind text, p_key text, p_entries json, p_expect bigint default null, p_epoch text default null,
  p_session text default null, p_actor text default null)
returns setof coordinator.log_receipt
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
as $$
declare
  v_text  constant text := p_entries::text;
  v_data  json[];
  v_count integer;
  v_actor text;
  v_log   record;
begin
  if p_expect is null and p_epoch is null and p_session is null and p_kind <> 'audit'
     and starts_with(v_text, '[{"data":') and octet_length(v_text) <= 1048576
     -- No escapes to examine, numbers that may be out of range, or messages that may have links (message_linked).
     -- Short alternatives: the fewer states a regular expression has, the less it takes.
     and v_text !~ (case p_kind when 'message' then '\\u|[0-9]{20}|[0-9][eE][+-]?[0-9]{3}|"(typ|too|fun)' else '\\u|[0-9]{20}|[0-9][eE][+-]?[0-9]{3}' end)
     -- Nor is anything deeply nested.
     and octet_length(v_text) - octet_length(replace(replace(v_text, '[', ''), '{', '')) <= 64 then
    v_data := array(select e -> 'data' from json_array_elements(p_entries) e);
    -- So there are no other fields. There are at most 32 entries, since each has a bracket of its own.
    if v_text = '[{"data":' || array_to_string(v_data, '},{"data":') || '}]' then
      v_count := cardinality(v_data);
      if p_actor is null then
        v_actor := session_user;
      else
        v_actor := coordinator.actor_name(p_actor);
      end if;
      update coordinator.logs l
      set last_seq = l.last_seq + v_count, count = l.count + v_count, epoch = coordinator.epoch_stamp(),
          updated_at = greatest(l.updated_at, coordinator.now_utc())
      where l.project_id = (select p.id from coordinator.projects p where p.name = p_project) and coordinator.roles_unbound() -- as project_id
        and l.kind = p_kind and l.key = p_key and not l.deleted
        -- Archiving the session locks the header as well, so this is checked again after a wait for it.
        and l.open_until >= coordinator.now_utc() and l.last_seq + v_count <= l.open_to
      returning l.id, l.last_seq - v_count as base, l.last_seq, l.epoch, l.updated_at into v_log;
      if found then
        insert into coordinator.entries (log_id, seq, role, tokens, epoch, actor, created_at, data)
        select v_log.id, v_log.base + d.place,
               -- A usual role at the beginning is found without parsing the data.
               case when starts_with(d.text, '{"role":"') and split_part(d.text, '"role"', 3) = ''
                         and split_part(d.text, '"', 4) in ('user', 'assistant', 'system', 'developer', 'tool') then split_part(d.text, '"', 4)
                    when strpos(d.text, '"role"') > 0 then coordinator.log_role(d.data) end,
               case p_kind when 'message' then (octet_length(d.text) + 3) / 4 end, v_log.epoch, v_actor, v_log.updated_at, d.data
        from (select u.data, u.data::text as text, u.place from unnest(v_data) with ordinality u (data, place) offset 0) d;
        insert into coordinator.events (type, project, key, actor, at, data)
        values ('log.appended', p_project, p_kind || '/' || p_key, v_actor, v_log.updated_at,
                jsonb_build_object('kind', p_kind, 'name', p_key, 'first_seq', v_log.base + 1, 'last_seq', v_log.last_seq));
        return next row(p_kind, p_key, v_log.base + 1, v_log.last_seq, coordinator.epoch_text(v_log.epoch), v_count)::coordinator.log_receipt;
        return;
      end if;
    end if;
  end if;
  return query select * from coordinator.log_append_any(p_project, p_kind, p_key, p_entries, p_expect, p_epoch, p_session, p_actor);
end
$$;
comment on function coordinator.log_append(text, text, text, json, bigint, text, text, text) is
  'Append entries to a log, all or none; the first append creates the log. An entry is an object: data, any JSON value, which is returned byte for byte; uid, its name in this log: an entry that is already there is not appended again (ZC331: the uid belongs to other content); role, by default that of data; tokens; needs, the number of the earliest entry without which it is of no use, or -1 for the entry before it. p_session: the session that a new log belongs to; the log''s key is the session''s key, or begins with it and /. Logs of kind message and step have the key of their session, and the first append creates the session. p_expect: append only if this is the last number given (0: only if there is no such log) and, if p_epoch is given, its epoch; else ZC301 with the current values. An error names the entry by its position from 0, which is also entry in its detail.';
