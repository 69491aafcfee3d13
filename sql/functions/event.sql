-- Events: inserted into the log in the transaction of the change, and read from it by cursor.
--
-- Guarantees: an event is in the log if and only if its transaction committed. A reader that resumes after the last cursor it received
-- misses nothing. NOTIFY is only a hint. The relay numbers events (relay.sql): it groups them in chunks, and a reader derives seq from
-- the chunk.

insert into coordinator.event_types (type, key, data, meaning) values
  ('custom.*', 'the caller''s choice', '{}', 'A custom event, emitted by event_emit with the caller''s data.'),
  ('event.configured', 'always "payloads"', '{payloads}', 'The content of notifications was reconfigured. The event''s project is "default".');

insert into coordinator.rights (function, role) values
  ('event_head',      'reader'),
  ('events_since',    'reader'),
  ('event_emit',      'agent'),
  ('event_configure', 'admin');

insert into coordinator.transaction_verbs (function, part) values
  ('event_emit', 'write');

-- The default of events.id while the doorbell is armed. It is evaluated after the insert has locked the table; relay_arm checks for
-- that lock after it has armed the doorbell.
create or replace function coordinator.event_ring() returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_sequence_last_value('coordinator.relay_bell') > extract(epoch from clock_timestamp()) * 1000
     and coalesce(current_setting('coordinator.doorbell', true), '') <> 'off' then
    perform coordinator.relay_notify('coordinator.bell', '', 0.5);
  end if;
  return nextval('coordinator.event_ids');
end
$$;
comment on function coordinator.event_ring() is
  'Ring the doorbell if the relay sleeps, and return the id of the next event. Internal: the default of events.id. A transaction that will be prepared (two-phase commit) must not NOTIFY: set coordinator.doorbell = off in it.';

-- The first case is the usual one: the relay is awake. The default is set only once, since this blocks all writers; a migration changes it.
do $$
begin
  if not (select atthasdef from pg_attribute where attrelid = 'coordinator.events'::regclass and attname = 'id') then
    alter table coordinator.events alter column id set default
      case when pg_sequence_last_value('coordinator.relay_bell') = 0 then nextval('coordinator.event_ids') else coordinator.event_ring() end;
  end if;
end
$$;

-- Without a search_path of its own, since it runs within that of its callers: setting one costs half as much as the rest. The most
-- frequently called functions contain the same insert themselves, which saves 1.4 µs; a test compares them.
create or replace function coordinator.event_append(
  p_type text, p_project text, p_key text, p_actor text, p_at timestamptz, p_data jsonb) returns void
language plpgsql volatile
as $$
begin
  insert into coordinator.events (type, project, key, actor, at, data) values (p_type, p_project, p_key, p_actor, p_at, p_data);
end
$$;
comment on function coordinator.event_append(text, text, text, text, timestamptz, jsonb) is
  'Insert an event into the log, in the caller''s transaction. Internal: every function that changes something calls it, or writes the same insert.';

create or replace function coordinator.event_refuse() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'ZC701', message = format('the event log has no partition for event %s', new.id),
    hint = 'No daemon has created one for a long time. Start a daemon, or run: select coordinator.event_extend()';
end
$$;
comment on function coordinator.event_refuse() is
  'Refuse an event for which there is no partition (ZC701). Internal: the trigger of events_beyond.';

create or replace trigger events_beyond_refused before insert on coordinator.events_beyond
  for each row execute function coordinator.event_refuse();

create or replace function coordinator.event_emit(
  p_project text, p_type text, p_key text default null, p_data jsonb default '{}', p_actor text default null) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.project_id(p_project);
  if coalesce(p_type, '') !~ '^custom\.[a-z0-9_]+(\.[a-z0-9_]+)*$' or length(p_type) > 200 then
    raise exception using errcode = 'ZC103', message = format('invalid type "%s" of a custom event', left(p_type, 200)),
      hint = 'Write a type such as custom.build_finished: lower-case letters, digits, _ and dots.';
  end if;
  if p_key is not null then
    perform coordinator.check_key('the key', p_key);
  end if;
  perform coordinator.check_json('the data', p_data, p_object => true);
  perform coordinator.event_append(p_type, p_project, p_key, coordinator.actor_name(p_actor), coordinator.now_utc(), p_data);
end
$$;
comment on function coordinator.event_emit(text, text, text, jsonb, text) is
  'Emit a custom event (type custom.…) in the caller''s transaction.';

create or replace function coordinator.event_configure(p_payloads text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.everywhere_check();
  if p_payloads is null or p_payloads not in ('full', 'pointer', 'head') then
    raise exception using errcode = 'ZC105', message = format('invalid payloads "%s"', left(p_payloads, 200)),
      hint = 'Use full (events), pointer (their cursors and types) or head (one cursor for each step).';
  end if;
  update coordinator.relay set payloads = p_payloads where payloads <> p_payloads;
  if not found then
    return false;
  end if;
  perform coordinator.event_append('event.configured', 'default', 'payloads', coordinator.actor_name(p_actor),
    coordinator.now_utc(), jsonb_build_object('payloads', p_payloads));
  return true;
end
$$;
comment on function coordinator.event_configure(text, text) is
  'Choose what NOTIFY carries from the relay''s next step on: full (each event), pointer (the cursor and type of each event; read it with events_since) or head (only the newest cursor, on channel coordinator). Any role that may connect to the database can LISTEN to every project: with pointer it learns which events happen, with head only that events happen. Return false if nothing changed.';

create or replace function coordinator.cursor_text(p_seq bigint) returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select epoch || '.' || p_seq from coordinator.relay);
end
$$;
comment on function coordinator.cursor_text(bigint) is
  'Return the cursor after event p_seq. Callers must treat cursors as opaque.';

create or replace function coordinator.event_head() returns text
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  return coordinator.cursor_text((select last_seq from coordinator.event_chunks order by first_seq desc limit 1));
end
$$;
comment on function coordinator.event_head() is
  'Return the cursor after the newest event. Read it before you take a snapshot: then there is no gap between the snapshot and the events after the cursor. The cursor is never inside a transaction.';

create or replace function coordinator.event_data_checked(p_data jsonb) returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fault text;
begin
  if pg_column_size(p_data #> '{}') <= 8192 and octet_length(p_data::text) <= 65536 then -- for example the ids of many jobs
    return p_data;
  end if;
  -- A value is part of the data, beside other fields, so the limits are higher than those of values.
  v_fault := coordinator.json_fault(p_data, 1048576, 'strict $.**{65} ? (@.type() == "array" || @.type() == "object")');
  return case when v_fault is null then p_data else jsonb_build_object('unreadable', v_fault) end;
end
$$;
comment on function coordinator.event_data_checked(jsonb) is
  'Do what event_data does, for any data. Internal.';

-- Inlined, which "immutable" would prevent. Small data is not checked, since checking costs as much as reading it. Its text has at most
-- 20 MB, so the statement that reads it succeeds, and the reader replaces what it cannot decode.
create or replace function coordinator.event_data(p_data jsonb) returns jsonb
language sql stable parallel safe
return case when pg_column_size(p_data) <= 2000 and pg_column_compression(p_data) is null then p_data
            else coordinator.event_data_checked(p_data) end;
comment on function coordinator.event_data(jsonb) is
  'Return the data of an event, or {"unreadable": the exceeded limit} if readers could not parse it: functions refuse such values, but the log may be older than the limit. Internal.';

create or replace function coordinator.event_text_checked(p_data jsonb) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_data constant jsonb := p_data #> '{}'; -- decompressed once
  v_text text;
begin
  if pg_column_size(v_data) <= 8192 then
    v_text := v_data::text;
    if octet_length(v_text) <= 65536 then
      return v_text;
    end if;
  end if;
  return coordinator.event_data_checked(v_data)::text;
end
$$;
comment on function coordinator.event_text_checked(jsonb) is
  'Do what event_text does, for any data. Internal.';

-- event_data(p_data)::text would convert data to text twice, once to measure it: for the ids of 150 jobs, 90 µs each time.
create or replace function coordinator.event_text(p_data jsonb) returns text
language sql stable parallel safe
return case when pg_column_size(p_data) <= 2000 and pg_column_compression(p_data) is null then p_data::text
            else coordinator.event_text_checked(p_data) end;
comment on function coordinator.event_text(jsonb) is
  'Return the data of an event as text, replaced as by event_data. Internal.';

-- Concatenated, because json_build_object takes twice as long. Epoch, type and project need no quoting.
create or replace function coordinator.event_members(
  p_epoch text, p_seq bigint, p_type text, p_project text, p_key text, p_actor text, p_at timestamptz, p_data jsonb,
  p_transaction text, p_more boolean, p_traceparent text) returns text
language sql stable parallel safe
return '"cursor": "' || p_epoch || '.' || p_seq || '", "seq": ' || p_seq || ', "type": "' || p_type || '", "project": "' || p_project
  || '", "key": ' || coalesce(to_json(p_key)::text, 'null') || ', "actor": ' || to_json(p_actor)::text || ', "at": "'
  || to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') || '", "data": ' || coordinator.event_text(p_data) || ', "transaction": "'
  || p_transaction || '", "more": ' || p_more || ', "traceparent": ' || coalesce('"' || p_traceparent || '"', 'null');
comment on function coordinator.event_members(text, bigint, text, text, text, text, timestamptz, jsonb, text, boolean, text) is
  'Format an event as the members of a JSON object: cursor, seq, type, project, key, actor, at, data, transaction, more, traceparent. Data that readers could not parse is replaced, as by event_data. All interfaces use this format. Internal.';

create or replace function coordinator.topic_pattern(p_topics text[]) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_topic text;
begin
  if p_topics is null or cardinality(p_topics) = 0 then
    return null;
  end if;
  perform coordinator.check_list('the topics', p_topics);
  foreach v_topic in array p_topics loop
    if v_topic !~ '^(\*|[a-z0-9_]+(\.[a-z0-9_]+)*(\.\*)?)$' then
      raise exception using errcode = 'ZC103', message = format('invalid topic "%s"', v_topic),
        hint = 'Write a type such as signal.set, a pattern such as signal.*, or * for all.';
    end if;
  end loop;
  return '^(' || (select string_agg(replace(replace(t, '.', '\.'), '*', '.*'), '|') from unnest(p_topics) t) || ')$';
end
$$;
comment on function coordinator.topic_pattern(text[]) is
  'Convert topics (signal.set, signal.*, *) to one regular expression; null, which means all, if there are no topics.';

create or replace function coordinator.check_topics(p_topics text[]) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_unknown text;
begin
  perform coordinator.topic_pattern(p_topics);
  select t into v_unknown from unnest(p_topics) t
  where t <> '*' and not starts_with(t, 'custom.') and not exists (
    select from coordinator.event_types e where e.type = t or right(t, 2) = '.*' and starts_with(e.type, left(t, -1))) limit 1;
  if found then
    raise exception using errcode = 'ZC103', message = format('unknown topic "%s"', v_unknown),
      hint = concat_ws(' ', 'Did you mean "' || coordinator.nearest(v_unknown, array(select e.type from coordinator.event_types e)) || '"?',
        'Give a type that the table coordinator.event_types has, a pattern such as signal.*, or * for all. Types of your own begin with "custom.".');
  end if;
end
$$;
comment on function coordinator.check_topics(text[]) is
  'Reject topics that no event can have (ZC103): what waits for them would wait forever. Internal.';

create or replace function coordinator.key_patterns(p_keys text[]) returns text[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text;
begin
  if p_keys is null or cardinality(p_keys) = 0 then
    return null;
  elsif cardinality(p_keys) > 1000 then
    raise exception using errcode = 'ZC102', message = format('%s patterns of keys; at most 1000 are allowed', cardinality(p_keys)),
      hint = 'Give fewer, or use * for any text.';
  end if;
  foreach v_key in array p_keys loop
    perform coordinator.check_text('the pattern of keys', v_key);
  end loop;
  return array(select replace(replace(replace(replace(k, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%') from unnest(p_keys) k);
end
$$;
comment on function coordinator.key_patterns(text[]) is
  'Convert key patterns, in which * stands for any text, to LIKE patterns; null, which means all, if there are none.';

-- Inlined, so that its filters and bounds become part of the caller's statement; so without a search_path.
create or replace function coordinator.chunk_events(
  p_chunk coordinator.event_chunks, p_after bigint default 0, p_project text default null, p_pattern text default null,
  p_visible text[] default null, p_keys text[] default null, p_actors text[] default null, p_first_id bigint default null, p_last_id bigint default null)
returns table (seq bigint, transaction text, more boolean, type text, project text, key text, actor text, at timestamptz, data jsonb,
               traceparent text, origin text, role text, address inet)
language sql stable
as $$
  select n.seq, n.xid::text, n.more, n.type, n.project, n.key, n.actor, n.at, n.data, n.traceparent, n.origin, n.role, n.address
  from (select p_chunk.first_seq - 1 + row_number() over place as seq, l.*,
               coalesce(lead(l.xid) over place = l.xid, p_chunk.more) as more
        from coordinator.events l
        -- Bound the id on both sides, so that only the partitions of the chunk are read.
        where l.xid between p_chunk.xids[1] and p_chunk.xids[cardinality(p_chunk.xids)]
          and l.xid = any (p_chunk.xids) and l.id between p_chunk.first_id and p_chunk.last_id
          and (p_first_id is null or l.id between p_first_id and p_last_id)
        window place as (order by l.xid, l.id)) n
  where n.seq > p_after
    and (p_project is null or n.project = p_project)
    and (p_visible is null or n.project = any (p_visible))
    and (p_pattern is null or n.type ~ p_pattern)
    and (p_keys is null or n.key like any (p_keys))
    and (p_actors is null or n.actor = any (p_actors))
$$;
comment on function coordinator.chunk_events(coordinator.event_chunks, bigint, text, text, text[], text[], text[], bigint, bigint) is
  'Return the numbered events of a chunk, after p_after and filtered. Filters do not change numbers. p_first_id, p_last_id: bounds of several chunks that one statement reads. Internal: this function defines the content of a chunk.';

create or replace function coordinator.event_end(p_epoch text) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select min(l.last_seq) from coordinator.epochs e join coordinator.epochs l on l.number >= e.number where e.id = p_epoch
$$;
comment on function coordinator.event_end(text) is
  'Return the last event that the current log shares with a past epoch; null for an unknown epoch. Internal.';

create or replace function coordinator.events_since(
  p_after text default null, p_project text default null, p_topics text[] default null,
  p_limit integer default 1000, p_bookmarks boolean default false, p_keys text[] default null, p_actors text[] default null)
returns table (cursor text, seq bigint, type text, project text, key text, actor text, at timestamptz, data jsonb,
               transaction text, more boolean, traceparent text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the log is small must also serve a large one
set jit = off -- before PostgreSQL 18, a small table without an index then looks expensive enough for JIT
as $$
#variable_conflict use_column
declare
  v_epoch   text;
  v_of      text;
  v_head    bigint;
  v_floor   bigint;
  v_after   bigint;
  v_reason  text;
  v_pattern text := coordinator.topic_pattern(p_topics);
  v_keys    text[] := coordinator.key_patterns(p_keys);
  v_actors  text[] := nullif(p_actors, '{}');
  v_visible text[] := coordinator.projects_visible();
  v_left    integer := p_limit;
  v_found   integer;
  v_scanned bigint := 0;
  v_last    bigint;
  v_chunks  coordinator.event_chunks[];
  v_chunk   coordinator.event_chunks;
  v_until   bigint;
  v_low     bigint; -- ids of the chunks: the plan reads, and locks, only their partitions
  v_high    bigint;
begin
  perform coordinator.check_page(p_limit);
  perform coordinator.check_list('the actors', p_actors);
  if p_project is not null then
    perform coordinator.check_name('the project', p_project);
    perform coordinator.project_check(p_project);
  end if;
  -- Lock the log: from here on, no partition can be dropped. Events that were dropped since this snapshot was taken are below the
  -- floor, which is read outside of the snapshot. Otherwise, if one partition of a chunk was gone, its remaining events would get wrong
  -- numbers.
  perform from coordinator.events where false;
  select last_value into v_floor from coordinator.event_floor;
  select epoch into v_epoch from coordinator.relay;
  select last_seq into v_head from coordinator.event_chunks order by first_seq desc limit 1;
  if p_after is null then
    v_after := v_floor;
    v_last := v_after;  -- otherwise the reader would have no cursor after an empty page
  elsif p_after = 'now' then
    v_after := v_head;
  elsif p_after !~ '^[0-9a-z]{1,16}\.[0-9]{1,18}$' then
    raise exception using errcode = 'ZC103', message = format('invalid cursor "%s"', left(p_after, 100)),
      hint = 'Give the cursor of an event, "now", or nothing for all that is retained.';
  else
    v_after := split_part(p_after, '.', 2)::bigint;
    v_of := split_part(p_after, '.', 1);
    v_reason := case
      when v_of <> v_epoch and (v_after <= coordinator.event_end(v_of)) is not true then 'restored'
      when v_after < v_floor                                                        then 'pruned'
      when v_after > v_head                                                         then 'ahead'
    end;
    if v_reason = 'restored' then
      perform coordinator.check_epoch(p_after);
    elsif v_reason = 'ahead' and (pg_is_in_recovery() or v_of = coordinator.epoch_id()) then
      -- Not replayed yet, or not visible yet: a commit that waits for a standby becomes visible there first.
      perform coordinator.refuse_behind(p_after);
    end if;
    if v_reason is not null then
      -- Report the loss: the events in between are gone. The reader takes a new snapshot and resumes from here.
      v_after := case v_reason when 'pruned' then v_floor else v_head end;
      return query select v_epoch || '.' || v_after, v_after, 'reset', p_project, null::text, 'coordinator',
        clock_timestamp(), jsonb_build_object('reason', v_reason, 'floor', v_floor, 'head', v_head), null::text, false, null::text;
      v_left := v_left - 1;
    elsif v_of <> v_epoch then
      v_last := v_after; -- so that a bookmark gives the reader a cursor of the current epoch
    end if;
  end if;
  while v_left > 0 loop
    -- One statement reads all chunks that fit the page: planning it takes longer than reading a small chunk.
    v_chunks := array(
      select n.chunk
      from (select c as chunk, row_number() over place, sum(c.last_seq - greatest(v_after, c.first_seq - 1)) over place as events
            from coordinator.event_chunks c
            where c.first_seq >= (select max(f.first_seq) from coordinator.event_chunks f where f.first_seq <= v_after + 1)
              and c.last_seq > v_after
            window place as (order by c.first_seq) limit 500) n
      where n.row_number = 1 or n.events <= v_left);
    exit when cardinality(v_chunks) = 0;
    select min(c.first_id), max(c.last_id) into v_low, v_high from unnest(v_chunks) c;
    v_until := null;
    v_chunk := v_chunks[1];
    if v_chunk.last_seq - greatest(v_after, v_chunk.first_seq - 1) > v_left then
      -- The chunk may exceed the page. A page ends between transactions, or within a transaction if it contains no other.
      select case when count(*) > v_left then coalesce(max(m.seq) filter (where m.place <= v_left and m.ends),
                                                       max(m.seq) filter (where m.place <= v_left and v_left = p_limit), v_after) end
      into v_until
      from (select e.seq, row_number() over w as place, lead(e.transaction) over w is distinct from e.transaction as ends
            from coordinator.chunk_events(v_chunk, v_after, p_project, v_pattern, v_visible, v_keys, v_actors) e window w as (order by e.seq)) m;
    end if;
    v_chunk := v_chunks[cardinality(v_chunks)];
    return query
      select v_epoch || '.' || e.seq, e.seq, e.type, e.project, e.key, e.actor, e.at, coordinator.event_data(e.data), e.transaction, e.more, e.traceparent
      from unnest(v_chunks) c
      cross join lateral coordinator.chunk_events(c, v_after, p_project, v_pattern, v_visible, v_keys, v_actors, v_low, v_high) e
      where e.seq <= coalesce(v_until, v_chunk.last_seq)
      order by e.seq;
    get diagnostics v_found = row_count;
    v_left := case when v_until is null then v_left - v_found else 0 end;
    v_scanned := v_scanned + v_chunk.last_seq - greatest(v_after, v_chunks[1].first_seq - 1);
    v_last := v_chunk.last_seq;
    v_after := v_last;
    exit when p_bookmarks and v_scanned >= case when v_left < p_limit then least(greatest(p_limit, 1000), 10000) else 50000 end;
  end loop;
  if p_bookmarks and v_left > 0 and v_last is not null then
    return query select v_epoch || '.' || v_last, v_last, 'bookmark', p_project, null::text, 'coordinator',
      clock_timestamp(), '{}'::jsonb, null::text, false, null::text;
  end if;
end
$$;
comment on function coordinator.events_since(text, text, text[], integer, boolean, text[], text[]) is
  'Read up to p_limit events after a cursor (null: from the oldest retained event; now: none yet). Filters: project, topics, key patterns (* stands for any text) and actors. Continue after the cursor of the last row until no row is returned. transaction: the id of the transaction that wrote the event; more: whether more events of this transaction follow; traceparent: the W3C trace context of the call, if any. A page ends between transactions, unless one of them exceeds the page or 500 events. A row of type reset means that events are gone (data: reason pruned, restored or ahead; floor; head): take a new snapshot and resume from it. ZC710: this server has not reached the cursor yet, and nothing is lost; try again. With p_bookmarks, the last row may be of type bookmark: nothing matched up to its cursor; and a call without a cursor always returns a row to resume after.';
