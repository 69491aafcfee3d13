-- Events: appended to the outbox in the transaction of the change, read from the log by cursor.
--
-- Guarantees: an event is in the log if and only if its transaction committed; a reader that resumes after the last cursor it
-- received misses nothing; NOTIFY carries no truth. The relay numbers events (relay.sql).

insert into coordinator.event_types (type, key, data, meaning) values
  ('custom.*', 'the caller''s choice', '{}', 'A custom event, emitted by event_emit with the caller''s data.'),
  ('event.configured', 'always "payloads"', '{payloads}', 'What notifications carry was changed; the event''s project is "default".');

insert into coordinator.rights (function, role) values
  ('event_head',      'reader'),
  ('events_since',    'reader'),
  ('event_emit',      'agent'),
  ('event_configure', 'admin');

insert into coordinator.transaction_verbs (function, part) values
  ('event_emit', 'write');

-- Without a search_path of its own, since it runs within its callers': setting one costs half as much as the rest.
create or replace function coordinator.outbox_append(
  p_type text, p_project text, p_key text, p_actor text, p_at timestamptz, p_data jsonb) returns void
language plpgsql volatile
as $$
begin
  insert into coordinator.outbox (type, project, key, actor, at, data)
  values (p_type, p_project, p_key, p_actor, p_at, p_data);
  -- Read after the insert: the relay looks for the insert's table lock once it has armed the bell.
  if pg_sequence_last_value('coordinator.relay_bell') > 0 then -- nearly always 0, and the rest costs more
    if pg_sequence_last_value('coordinator.relay_bell') > extract(epoch from clock_timestamp()) * 1000
       and coalesce(current_setting('coordinator.doorbell', true), '') <> 'off'
       and pg_notification_queue_usage() < 0.5 then
      perform pg_notify('coordinator.bell', '');
    end if;
  end if;
end
$$;
comment on function coordinator.outbox_append(text, text, text, text, timestamptz, jsonb) is
  'Append an event in the caller''s transaction, and ring if the relay sleeps. Internal: every function that changes something calls it. A transaction that will be prepared (two-phase commit) must not NOTIFY: set coordinator.doorbell = off in it.';

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
  perform coordinator.outbox_append(p_type, p_project, p_key, coordinator.actor_name(p_actor), coordinator.now_utc(), p_data);
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
      hint = 'Use full (events), pointer (their cursors and types) or head (one cursor for each batch).';
  end if;
  update coordinator.relay set payloads = p_payloads where payloads <> p_payloads;
  if not found then
    return false;
  end if;
  perform coordinator.outbox_append('event.configured', 'default', 'payloads', coordinator.actor_name(p_actor),
    coordinator.now_utc(), jsonb_build_object('payloads', p_payloads));
  return true;
end
$$;
comment on function coordinator.event_configure(text, text) is
  'Choose what NOTIFY carries from the next batch on: full (each event), pointer (the cursor and type of each; read it with events_since) or head (only the cursor of the newest, on channel coordinator). Any role that may connect to the database can LISTEN to every project; with pointer it learns which events happen, with head only that some do. Returns false if nothing changed.';

create or replace function coordinator.cursor_text(p_seq bigint) returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select epoch || '.' || p_seq from coordinator.relay
$$;
comment on function coordinator.cursor_text(bigint) is
  'Return the cursor after event p_seq. To callers, cursors are opaque.';

create or replace function coordinator.event_head() returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select coordinator.cursor_text(coalesce((select head_seq from coordinator.relay_batches order by id desc limit 1), 0))
$$;
comment on function coordinator.event_head() is
  'Return the cursor after the newest event. Read it before taking a snapshot: then there is no gap between the snapshot and the events after the cursor.';

create or replace function coordinator.event_json(
  p_epoch text, p_seq bigint, p_type text, p_project text, p_key text, p_actor text, p_at timestamptz, p_data jsonb) returns text
language sql stable parallel safe
return json_build_object(
  'cursor', p_epoch || '.' || p_seq, 'seq', p_seq, 'type', p_type, 'project', p_project, 'key', p_key,
  'actor', p_actor, 'at', to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'data', p_data)::text;
comment on function coordinator.event_json(text, bigint, text, text, text, text, timestamptz, jsonb) is
  'Write an event in its one form: a JSON object of cursor, seq, type, project, key, actor, at, data.';

create or replace function coordinator.event_data_checked(p_data jsonb) returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A value is within the data, beside other fields.
  v_fault text := coordinator.json_fault(p_data, 1048576, 'strict $.**{65} ? (@.type() == "array" || @.type() == "object")');
begin
  return case when v_fault is null then p_data else jsonb_build_object('unreadable', v_fault) end;
end
$$;
comment on function coordinator.event_data_checked(jsonb) is
  'Do what event_data does, for any data. Internal.';

-- Inlined. 66 levels take more than 512 bytes, and a number that is too large more than 308 characters: most need no further look.
create or replace function coordinator.event_data(p_data jsonb) returns jsonb
language sql immutable parallel safe
return case when pg_column_size(p_data #> '{}') <= 512 and octet_length(p_data::text) <= 308 then p_data
            else coordinator.event_data_checked(p_data) end;
comment on function coordinator.event_data(jsonb) is
  'Return the data of an event; if readers could not take them, {"unreadable": the limit that they exceed} in their place: functions refuse such values, but the log may be older than the limit. Internal.';

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
  'Turn topics (signal.set, signal.*, *) into one regular expression; no topics give null, which means all.';

create or replace function coordinator.events_since(
  p_after text default null, p_project text default null, p_topics text[] default null,
  p_limit integer default 1000, p_bookmarks boolean default false)
returns table (cursor text, seq bigint, type text, project text, key text, actor text, at timestamptz, data jsonb)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column
declare
  v_relay   coordinator.relay;
  v_head    bigint;
  v_after   bigint;
  v_reason  text;
  v_pattern text := coordinator.topic_pattern(p_topics);
  v_visible text[] := coordinator.projects_visible();
  v_window  bigint := least(greatest(p_limit, 1000), 10000);
  v_left    integer := p_limit;
  v_found   integer;
  v_scanned bigint := 0;
  v_last    bigint;
begin
  perform coordinator.check_page(p_limit);
  if p_project is not null then
    perform coordinator.check_name('the project', p_project);
    perform coordinator.project_check(p_project);
  end if;
  select * into v_relay from coordinator.relay;
  select head_seq into v_head from coordinator.relay_batches order by id desc limit 1;
  if p_after is null then
    v_after := v_relay.floor_seq;
    v_last := v_after;  -- after an empty page the reader would have no cursor
  elsif p_after = 'now' then
    v_after := v_head;
  elsif p_after !~ '^[0-9a-z]{1,16}\.[0-9]{1,18}$' then
    raise exception using errcode = 'ZC103', message = format('invalid cursor "%s"', left(p_after, 100)),
      hint = 'Give the cursor of an event, "now", or nothing for all that is retained.';
  else
    v_after := split_part(p_after, '.', 2)::bigint;
    v_reason := case
      when split_part(p_after, '.', 1) <> v_relay.epoch then 'restored'
      when v_after < v_relay.floor_seq                   then 'pruned'
      when v_after > v_head                              then 'ahead'
    end;
    if v_reason is not null then
      -- Never silent: the events in between are gone. The reader takes a new snapshot and resumes from here.
      v_after := case v_reason when 'pruned' then v_relay.floor_seq else v_head end;
      return query select v_relay.epoch || '.' || v_after, v_after, 'reset', p_project, null::text, 'coordinator',
        clock_timestamp(), jsonb_build_object('reason', v_reason, 'floor', v_relay.floor_seq, 'head', v_head);
      v_left := v_left - 1;
    end if;
  end if;
  -- Numbers have no gaps, so a page is a range in at most two partitions, whatever the filter.
  while v_left > 0 and v_after < v_head loop
    return query
      select v_relay.epoch || '.' || e.seq, e.seq, e.type, e.project, e.key, e.actor, e.at, coordinator.event_data(e.data)
      from coordinator.events e
      where e.seq > v_after and e.seq <= least(v_after + v_window, v_head)
        and (p_project is null or e.project = p_project)
        and (v_visible is null or e.project = any (v_visible))
        and (v_pattern is null or e.type ~ v_pattern)
      order by e.seq
      limit v_left;
    get diagnostics v_found = row_count;
    v_left := v_left - v_found;
    v_last := least(v_after + v_window, v_head);
    v_after := v_last;
    v_scanned := v_scanned + v_window;
    exit when p_bookmarks and (v_found > 0 or v_scanned >= 50000);
  end loop;
  if p_bookmarks and v_left > 0 and v_last is not null then
    return query select v_relay.epoch || '.' || v_last, v_last, 'bookmark', p_project, null::text, 'coordinator',
      clock_timestamp(), '{}'::jsonb;
  end if;
end
$$;
comment on function coordinator.events_since(text, text, text[], integer, boolean) is
  'Read up to p_limit events of the log after a cursor (null: all that is retained; now: nothing yet), filtered by project and topics. Resume after the cursor of the last row. A row of type reset means that events are gone (data: reason pruned, restored or ahead; floor; head): take a new snapshot and resume from it. With p_bookmarks the last row may be of type bookmark: nothing matched up to its cursor; and without a cursor there is always a row to resume after.';
