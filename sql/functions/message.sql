-- Messages: the log of kind message whose key is a session's; how messages depend on each other; windows of a conversation.
--
-- A model rejects the result of a tool without its call, and a call or an answer without the reasoning that led to it. So each entry of
-- such a log stores which messages it depends on, and a window never begins between two messages that belong together:
--   links      +id  it calls a tool              -id  it has the result of a call
--              ~    it is reasoning              =    it follows reasoning, and needs it
--   needs_seq  the earliest entry that it needs: the call, the reasoning, or the entry that its writer names
-- Both are computed when the message is written (message_traits), so the primary key is enough to find a window (message_window_start).
-- Known formats: chat completions (OpenAI and others), Responses items, Anthropic's content blocks, LangChain's serialised messages.
-- The call of a result is the newest earlier one with the same id, because providers reuse ids. It may be any distance away, with at
-- most 1,000 entries with links in between.
--
-- Locks: those of log_append.

insert into coordinator.rights (function, role) values
  ('message_window', 'reader'),
  ('message_append', 'agent');

insert into coordinator.transaction_verbs (function, part, entered_by, keyed_by) values
  ('message_append', 'write', 'log_enter', 'message_keys');

insert into coordinator.limits (name, value, unit, meaning) values
  ('window',       10000,   'messages', 'Messages per window.'),
  ('window_bytes', 4194304, 'bytes',    'Total size of messages per window, as text.');

-- It calls no internal function, since a view calls functions with the rights of its reader. The body has the content in every format.
create or replace view coordinator.messages with (security_barrier) as
  select concat(e.log_id, '.', e.seq) as id, l.session_id, e.seq, e.role,
         coalesce(b.body ->> 'content', b.body ->> 'output', b.body ->> 'arguments') as content,
         case when json_typeof(b.body -> 'tool_calls') = 'array' and b.body #> '{tool_calls,0}' is not null then b.body -> 'tool_calls'
              when b.body #>> '{function_call,name}' is not null then json_build_array(b.body -> 'function_call')
              when b.body ->> 'type' ~ '_call$' then json_build_array(b.body)
              when json_typeof(b.body -> 'content') = 'array' then (
                select json_agg(part) from json_array_elements(b.body -> 'content') part
                where part ->> 'type' in ('tool_use', 'server_tool_use', 'mcp_tool_use', 'tool_call')) end as tool_calls,
         b.body -> 'metadata' as metadata, e.created_at,
         p.name as project, l.key as session, e.uid, e.tokens, e.needs_seq as needs, e.actor, e.data, e.raw
  from coordinator.logs l
  join coordinator.projects p on p.id = l.project_id
  join coordinator.entries e on e.log_id = l.id
  cross join lateral (
    select case when json_typeof(e.data) <> 'object' then json_build_object('content', e.data)
                when e.data ->> 'lc' is not null and json_typeof(e.data -> 'kwargs') = 'object' then e.data -> 'kwargs'
                when e.data ->> 'role' is null and e.data ->> 'type' is not null and json_typeof(e.data -> 'data') = 'object' then e.data -> 'data'
                else e.data end as body) b
  where l.kind = 'message' and not l.deleted and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.messages            is 'Messages of all sessions. Filter by project and session; otherwise all are read.';
comment on column coordinator.messages.id         is 'Unique id of the message.';
comment on column coordinator.messages.session_id is 'Session; see sessions.';
comment on column coordinator.messages.seq        is 'Number within the session.';
comment on column coordinator.messages.role       is 'Role of its author: user, assistant, tool (the sender of a result) or another; null: not given.';
comment on column coordinator.messages.content    is 'The content: text, or a JSON list of parts.';
comment on column coordinator.messages.tool_calls is 'Tool calls in it, as written; null: none.';
comment on column coordinator.messages.metadata   is 'Its metadata field; null: none.';
comment on column coordinator.messages.created_at is 'When it was appended.';
comment on column coordinator.messages.project    is 'Name of the project.';
comment on column coordinator.messages.session    is 'Key of the session.';
comment on column coordinator.messages.uid        is 'Unique id chosen by the caller; null: none.';
comment on column coordinator.messages.tokens     is 'Number of model tokens, as given by its writer; by default one for four bytes.';
comment on column coordinator.messages.needs      is 'Earliest message without which it is of no use, such as the call for a result; null: none.';
comment on column coordinator.messages.actor      is 'Who appended it.';
comment on column coordinator.messages.data       is 'The whole message. U+FFFD replaces NUL and lone surrogates.';
comment on column coordinator.messages.raw        is 'Exact text if it differs from data; otherwise null.';

create or replace view coordinator.conversations with (security_barrier) as
  select s.id, s.title, l.count as message_count,
         (select e.created_at from coordinator.entries e where e.log_id = l.id order by e.seq desc limit 1) as last_message_at,
         p.name as project, s.key as session, s.status
  from coordinator.sessions s
  join coordinator.projects p on p.id = s.project_id
  join coordinator.logs l on l.project_id = s.project_id and l.kind = 'message' and l.key = s.key and not l.deleted
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.conversations                 is 'Sessions with messages.';
comment on column coordinator.conversations.id              is 'Number of the session; see sessions.';
comment on column coordinator.conversations.title           is 'Title of the session.';
comment on column coordinator.conversations.message_count   is 'Number of messages.';
comment on column coordinator.conversations.last_message_at is 'When the last message was appended; null: there is none.';
comment on column coordinator.conversations.project         is 'Name of the project.';
comment on column coordinator.conversations.session         is 'Key of the session.';
comment on column coordinator.conversations.status          is 'Status of the session.';

-- Inlined, so without a search_path. A message without any of these strings has no links and needs no other message; a letter of a name
-- may be escaped. A regular expression takes ten times as long.
create or replace function coordinator.message_linked(p_text text) returns boolean
language sql immutable parallel safe
return strpos(p_text, '"type"') > 0 or strpos(p_text, '"tool') > 0 or strpos(p_text, '"function') > 0 or strpos(p_text, '\u005') > 0
       or strpos(p_text, '\u006') > 0 or strpos(p_text, '\u007') > 0;
comment on function coordinator.message_linked(text) is
  'Return whether messages, as the text of their JSON, may have links: cheap, and false for most. Internal.';

create or replace function coordinator.message_trait(p_data jsonb) returns coordinator.message_trait
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_message jsonb := p_data;
  v_type    text := p_data ->> 'type';
  v_role    text;
  v_blocks  jsonb;
  v_links   text[];
begin
  if jsonb_typeof(p_data) <> 'object' then
    return null;
  elsif p_data ? 'lc' and jsonb_typeof(p_data -> 'kwargs') = 'object' then -- LangChain's dumpd
    v_message := p_data -> 'kwargs';
    v_type := coalesce(v_message ->> 'type', p_data #>> '{id,-1}');
  elsif v_type is not null and not p_data ? 'role' and jsonb_typeof(p_data -> 'data') = 'object' then -- LangChain's message_to_dict
    v_message := p_data -> 'data';
  end if;
  v_blocks := jsonb_build_array(v_message || jsonb_build_object('type', v_type))
              || case jsonb_typeof(v_message -> 'content') when 'array' then v_message -> 'content' else '[]' end;
  v_role := coalesce(case jsonb_typeof(v_message -> 'role') when 'string' then left(v_message ->> 'role', 200) end, case
    when v_type ~ '^(human|Human)' then 'user'
    when v_type ~ '^(ai$|AI)' or v_type ~ '_call$' or v_type in ('reasoning', 'mcp_list_tools', 'mcp_approval_request') then 'assistant'
    when v_type ~ '^(system|System)' then 'system'
    when v_type ~ '^(tool|Tool|function$|Function)' or v_type ~ '_output$' or v_type = 'mcp_approval_response' then 'tool' end);

  if p_data::text ~ 'tool|call|function|approval' then
    select array_agg(distinct l.link) into v_links
    from (
      select case
          when b ->> 'type' in ('tool_use', 'server_tool_use', 'mcp_tool_use', 'tool_call', 'mcp_approval_request') then '+' || (b ->> 'id')
          when b ->> 'type' ~ '_call$' then '+' || (b ->> 'call_id')
          when b ->> 'type' = 'local_shell_call_output' then '-' || coalesce(b ->> 'call_id', b ->> 'id')
          when b ->> 'type' ~ '_output$' then '-' || (b ->> 'call_id')
          when b ->> 'type' ~ '_result$' then '-' || (b ->> 'tool_use_id') end as link
      from jsonb_array_elements(v_blocks) b
      union all
      select '-' || (b ->> 'approval_request_id') from jsonb_array_elements(v_blocks) b
      union all
      select '+' || coalesce(c ->> 'id', 'function:' || coalesce(c #>> '{function,name}', c ->> 'name'))
      from unnest(array[v_message -> 'tool_calls', v_message -> 'invalid_tool_calls', v_message #> '{additional_kwargs,tool_calls}']) t
      cross join lateral jsonb_array_elements(case jsonb_typeof(t) when 'array' then t else '[]' end) c
      union all
      select '+function:' || (f ->> 'name') from unnest(array[v_message -> 'function_call', v_message #> '{additional_kwargs,function_call}']) f
      union all
      select '-' || coalesce(v_message ->> 'tool_call_id', 'function:' || coalesce(v_message ->> 'tool_name', v_message ->> 'name'))
      where v_message ? 'tool_call_id' or v_role in ('tool', 'function') and v_message ? 'content'
    ) l where length(l.link) > 1;
    -- A tool that the provider's server runs has its call and its result in one message.
    select array_agg(l order by l) into v_links
    from unnest(v_links) l where not translate(left(l, 1), '+-', '-+') || substr(l, 2) = any (v_links);
  end if;

  if v_type = 'reasoning' or v_role = 'assistant' and jsonb_array_length(v_blocks) > 1 and not exists (
      select from jsonb_array_elements(v_blocks) with ordinality u (b, o)
      where o > 1 and coalesce(b ->> 'type', '') not in ('thinking', 'redacted_thinking')) then
    v_links := array_append(v_links, '~');
  end if;
  if v_role = 'assistant' and (v_type is not null or jsonb_array_length(v_blocks) > 1) then
    v_links := array_append(v_links, '='); -- only if reasoning precedes it
  elsif v_role = 'user' and v_links is not null then
    v_role := 'tool'; -- Anthropic's format for results of tools
  end if;
  return row(v_role, null, v_links)::coordinator.message_trait;
end
$$;
comment on function coordinator.message_trait(jsonb) is
  'Return the role of a message and its links to others, for every known format; needs_seq is null, and = applies only if reasoning precedes the message. Internal.';

create or replace function coordinator.message_traits(p_log bigint, p_first bigint, p_data json[]) returns coordinator.message_trait[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- read the index in the order of the numbers, however few rows the planner expects
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_traits coordinator.message_trait[];
  v_trait  coordinator.message_trait;
  v_before record; -- seq, needs_seq and links of the previous entry
  v_data   json;
  v_at     integer := 0;
  v_result record;
  v_ids    text[]; -- ids of calls that are not among p_data, while their results are
  v_ats    integer[];
  v_reach  integer;
  v_found  integer;
begin
  foreach v_data in array p_data loop
    v_at := v_at + 1;
    v_trait := coordinator.message_trait(v_data::jsonb);
    if '=' = any (v_trait.links) then
      if v_at = 1 then
        select e.seq, e.needs_seq, e.links into v_before
        from coordinator.entries e where e.log_id = p_log and e.seq < p_first order by e.seq desc limit 1;
      else
        select p_first + v_at - 2 as seq, t.needs_seq, t.links into v_before from unnest(v_traits[v_at - 1:v_at - 1]) t;
      end if;
      if '~' = any (v_before.links) then
        v_trait.needs_seq := v_before.seq;
      elsif '=' = any (v_before.links) and '~' <> all (v_trait.links) then
        v_trait.needs_seq := v_before.needs_seq;
      else
        v_trait.links := nullif(array_remove(v_trait.links, '='), '{}');
      end if;
    end if;
    v_traits[v_at] := v_trait;
  end loop;

  for v_result in
    select r.at, r.id, r.call_at
    from (select t.at, substr(l, 2) as id, left(l, 1) as sign,
                 max(t.at) filter (where l like '+%') over (partition by substr(l, 2) order by t.at range between unbounded preceding and 1 preceding) as call_at
          from unnest(v_traits) with ordinality t (role, needs_seq, links, at) cross join lateral unnest(t.links) l) r
    where r.sign = '-'
  loop
    if v_result.call_at is null then
      v_ids := v_ids || v_result.id;
      v_ats := v_ats || v_result.at::integer;
    else
      v_traits[v_result.at].needs_seq := least(v_traits[v_result.at].needs_seq, p_first - 1 + v_result.call_at);
    end if;
  end loop;
  if v_ids is null then
    return v_traits;
  end if;
  foreach v_reach in array '{20,1000}'::integer[] loop -- the call is nearly always close
    v_found := 0;
    for v_result in
      select r.at, r.id, max(c.seq) as call_seq
      from unnest(v_ats, v_ids) r (at, id)
      join (select e.seq, l.link
            from (select e.seq, e.links from coordinator.entries e
                  where e.log_id = p_log and e.seq < p_first and e.links is not null order by e.seq desc limit v_reach) e
            cross join lateral unnest(e.links) l (link)) c on c.link = '+' || r.id
      group by 1, 2
    loop
      v_traits[v_result.at].needs_seq := least(v_traits[v_result.at].needs_seq, v_result.call_seq);
      v_found := v_found + 1;
    end loop;
    exit when v_found = cardinality(v_ids);
  end loop;
  return v_traits;
end
$$;
comment on function coordinator.message_traits(bigint, bigint, json[]) is
  'Return who speaks in messages that are about to be appended to a log, from number p_first on, what ties them to others, and the earliest entry that each needs. Internal.';

create or replace function coordinator.message_window_start(
  p_log bigint, p_last integer, p_turns integer, p_tokens bigint, p_from bigint default 0) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_entry  record;
  v_count  integer := 0;
  v_turns  integer := 0;
  v_tokens bigint := 0;
  v_needs  bigint := 9223372036854775807; -- the earliest entry that the visited entries need
  v_start  bigint;                        -- the earliest entry at which a window may begin
  v_turn   bigint;                        -- the same, among entries that begin a turn
  v_cut    boolean;
begin
  for v_entry in -- an index-only scan of the primary key
    select e.seq, e.role, e.tokens, e.needs_seq from coordinator.entries e
    where e.log_id = p_log and e.seq >= p_from order by e.seq desc limit 10001
  loop
    v_count := v_count + 1;
    v_tokens := v_tokens + coalesce(v_entry.tokens, 0);
    v_turns := v_turns + coalesce(v_entry.role = 'user', false)::integer;
    v_cut := v_count > least(p_last, 10000) or coalesce(v_tokens > p_tokens, false) or coalesce(v_turns > p_turns, false);
    exit when v_cut;
    v_needs := least(v_needs, v_entry.needs_seq);
    if v_needs >= v_entry.seq then
      v_start := v_entry.seq;
      v_turn := case v_entry.role when 'user' then v_entry.seq else v_turn end;
    end if;
  end loop;
  return case when p_turns is null or not v_cut and p_from = 0 and v_start = v_entry.seq then v_start else coalesce(v_turn, v_start) end;
end
$$;
comment on function coordinator.message_window_start(bigint, integer, integer, bigint, bigint) is
  'Return the number at which the longest window within these limits begins, not below p_from; null: there is none. Internal.';

create or replace function coordinator.message_unpaired(p_log bigint, p_start bigint) returns bigint[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_links coordinator.message_link[];
  v_left  bigint[] := '{}';
  v_more  bigint[];
begin
  v_links := array(
    select row(l.seq, l.link, case when l.link ~ '^[-=]' then
        max(l.seq) filter (where l.link ~ '^[+~]') over (partition by substr(l.link, 2) order by l.seq range between unbounded preceding and 1 preceding) end)::coordinator.message_link
    from (select e.seq, unnest(e.links) as link from coordinator.entries e
          where e.log_id = p_log and e.seq >= p_start and e.links is not null) l
    union all
    select row(e.seq, null, e.needs_seq)::coordinator.message_link from coordinator.entries e where e.log_id = p_log and e.seq >= p_start and e.needs_seq is not null);
  loop
    v_more := array(
      select l.seq from unnest(v_links) l
      where l.seq <> all (v_left) and (l.link is null or l.link ~ '^[-=]') and (l.on_seq is null or l.on_seq = any (v_left))
      union
      select l.seq from unnest(v_links) l
      left join unnest(v_links) a on a.on_seq = l.seq and substr(a.link, 2) = substr(l.link, 2) and a.seq <> all (v_left)
      where l.seq <> all (v_left) and l.link ~ '^[+~]' and a.seq is null);
    exit when v_more = '{}';
    v_left := v_left || v_more;
  end loop;
  return v_left;
end
$$;
comment on function coordinator.message_unpaired(bigint, bigint) is
  'Return which entries of the window that begins at p_start a model refuses: calls without a result, results without a call, reasoning that leads to nothing, and what needs one of them. Internal.';

create or replace function coordinator.message_keys(p_project text, p_part jsonb) returns setof jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select p_part || jsonb_build_object('kind', 'message', 'key', p_part -> 'session')
$$;
comment on function coordinator.message_keys(text, jsonb) is
  'Return a message of a transaction with the kind and key of its log. Internal.';

create or replace function coordinator.message_append(
  p_project text, p_session text, p_content json, p_role text default null, p_tokens integer default null, p_uid text default null,
  p_needs bigint default null, p_expect bigint default null, p_epoch text default null, p_actor text default null)
returns setof coordinator.log_receipt
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_content is null then
    raise exception using errcode = 'ZC101', message = 'the message has no content', hint = 'Give a role and a content, or a whole message.';
  elsif p_role is null and json_typeof(p_content) <> 'object' then
    raise exception using errcode = 'ZC105', message = format('the message is a JSON %s without a role', json_typeof(p_content)),
      hint = 'Say who speaks, or give a whole message such as {"role": "user", "content": "Hello"}.';
  elsif p_role is not null then
    perform coordinator.check_name('the role', p_role);
  end if;
  return query
    select * from coordinator.log_append(p_project, 'message', p_session, concat(
        '[{"data": ', case when p_role is null then p_content::text else concat('{"role": ', to_json(p_role), ', "content": ', p_content, '}') end,
        ', "tokens": ' || p_tokens, ', "uid": ' || to_json(p_uid)::text, ', "needs": ' || p_needs, '}]')::json,
      p_expect, p_epoch, p_actor => p_actor);
end
$$;
comment on function coordinator.message_append(text, text, json, text, integer, text, bigint, bigint, text, text) is
  'Append a message to a session, which is created if it does not exist. With p_role, p_content is the text of the message; without it, p_content is a whole message: an object of any shape. Either is returned byte for byte. p_tokens: the number of tokens, by default one for four bytes; p_uid: makes a repeated call harmless; p_needs: the earliest message without which this one is of no use, or -1 for the one before it, if its shape does not say so. p_expect, p_epoch and further errors: as in log_append, which appends several messages.';

create or replace function coordinator.message_window(
  p_project text, p_session text, p_last integer default null, p_turns integer default null, p_tokens bigint default null,
  p_complete boolean default false)
returns setof coordinator.log_entry
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_log     bigint;
  v_start   bigint;
  v_fits    bigint;
  v_left    bigint[] := '{}';
begin
  select l.id into v_log from coordinator.logs l
  where l.project_id = v_project and l.kind = 'message' and l.key = p_session and not l.deleted;
  if not found then
    perform coordinator.session_find(v_project, p_session);
  end if;
  if num_nonnulls(p_last, p_turns, p_tokens) = 0 then
    raise exception using errcode = 'ZC101', message = 'the window has no limit', hint = 'Give the maximum number of messages, turns or tokens.';
  elsif not coalesce(p_last between 1 and 10000, true) or not coalesce(p_turns between 1 and 10000, true)
        or not coalesce(p_tokens between 1 and 1000000000, true) then
    raise exception using errcode = 'ZC104', message = format('a window of %s is out of range', concat_ws(' and ',
        p_last || ' messages', p_turns || ' turns', p_tokens || ' tokens')),
      hint = 'Give 1 to 10000 messages or turns, 1 to 1000000000 tokens.';
  end if;
  v_start := coordinator.message_window_start(v_log, p_last, p_turns, p_tokens);
  select min(b.seq) into v_fits
  from (select e.seq, sum(octet_length(coalesce(e.raw, e.data::text))) over (order by e.seq desc) as bytes
        from coordinator.entries e where e.log_id = v_log and e.seq >= v_start) b
  where b.bytes <= 4194304;
  if v_fits > v_start then
    v_start := coordinator.message_window_start(v_log, p_last, p_turns, p_tokens, v_fits);
  end if;
  if p_complete then
    v_left := coordinator.message_unpaired(v_log, v_start);
  end if;
  return query
    select e.seq, coordinator.epoch_text(e.epoch), e.uid, e.role, e.tokens, e.needs_seq, e.kept, e.actor, e.created_at, coalesce(e.raw::json, e.data)
    from coordinator.entries e
    where e.log_id = v_log and e.seq >= v_start and e.seq <> all (v_left)
    order by e.seq;
end
$$;
comment on function coordinator.message_window(text, text, integer, integer, bigint, boolean) is
  'Return the longest end of a conversation within p_last messages, p_turns turns (each begins with a message of a user, and so does the window) and p_tokens tokens, at most 10,000 messages and 4,194,304 bytes. The window does not begin between a tool call and its result, or between reasoning and the messages that need it. p_complete: omit calls without a result, results without a call, and the messages that need them. ZC215: there is no such session.';
