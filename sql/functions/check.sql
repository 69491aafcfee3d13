-- Checks of arguments that several nouns share. Each raises an error of class ZC1, before anything has changed.

insert into coordinator.limits (name, value, unit, meaning) values
  ('kind',    36,       'characters', 'Kind of a log or document: lower-case letters, digits, - and _.'),
  ('name',    200,      'characters', 'Name or role of an agent, name of an actor, a job type or a label.'),
  ('key',     512,      'characters', 'Key of a signal, directive or event.'),
  ('reason',  2000,     'characters', 'A reason.'),
  ('json',    262144,   'bytes',      'A JSON value, measured as the text that readers get.'),
  ('json_depth',  64,   'levels',     'Nesting depth of a JSON value.'),
  ('json_number', 400,  'characters', 'A number in a JSON value; it must also be finite as a double.'),
  ('ttl_min', 1,        'seconds',    'Shortest TTL.'),
  ('ttl_max', 31622400, 'seconds',    'Longest TTL: 366 days.'),
  ('list',    1000,     'items',      'Items in a list: job types or labels of an agent, signals that a rule clears, topics, keys or actors of a reader, tokens of one check.'),
  ('page',    10000,    'rows',       'Rows per page of a list or of events.');

create or replace function coordinator.check_text(p_what text, p_value text, p_max integer default 512) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value is null or p_value = '' then
    raise exception using errcode = 'ZC101', message = format('%s is empty', p_what),
      hint = 'Give at least one character.';
  elsif length(p_value) > p_max then
    raise exception using errcode = 'ZC102',
      message = format('%s has %s characters; at most %s are allowed', p_what, length(p_value), p_max),
      hint = 'Shorten it; put long text into a value.';
  end if;
end
$$;
comment on function coordinator.check_text(text, text, integer) is
  'Reject an empty text (ZC101) or one longer than p_max characters (ZC102).';

-- A name that people cannot tell from another one could be used to impersonate its owner. So a name contains no invisible characters,
-- and none that change the direction of the text after them. Variation selectors choose among emoji, and are invisible after letters.
create or replace function coordinator.name_plain(p_value text, p_max integer) returns boolean
language sql immutable parallel safe
return length(p_value) between 1 and p_max and p_value !~ '[^ -~]|^ | $';
comment on function coordinator.name_plain(text, integer) is
  'Return whether a name obviously passes check_name, as most do. Inlined: the hottest functions call it directly. Internal.';

create or replace function coordinator.check_name(p_what text, p_value text, p_max integer default 200) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if coordinator.name_plain(p_value, p_max) then
    return;
  end if;
  perform coordinator.check_text(p_what, p_value, p_max);
  if p_value ~ '[\u0001-\u001f\u007f-\u009f\u2028\u2029]' then
    raise exception using errcode = 'ZC103', message = format('%s contains a control character', p_what),
      hint = 'Remove line breaks, tabs and other control characters.';
  elsif p_value ~ ('[\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e'
                   '\u2060-\u206f\u2800\u3164\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3'
                   '\U0001d173-\U0001d17a\U000e0000-\U000e0fff]|(^|[\u0001-\u200a])[\ufe00-\ufe0f]') then
    raise exception using errcode = 'ZC103', message = format('%s contains a character that is invisible or changes the direction of text', p_what),
      hint = 'Remove it: copy the text as plain text, or type it again.';
  elsif p_value ~ '^[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]|[ \u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]$' then
    raise exception using errcode = 'ZC103', message = format('%s begins or ends with a space', p_what),
      hint = 'Remove the space.';
  end if;
end
$$;
comment on function coordinator.check_name(text, text, integer) is
  'Reject an invalid name: empty (ZC101), longer than p_max characters (ZC102), with control characters, invisible ones or surrounding spaces (ZC103).';

create or replace function coordinator.check_key(p_what text, p_value text) returns void
language sql immutable parallel safe
return coordinator.check_name(p_what, p_value, 512);
comment on function coordinator.check_key(text, text) is
  'Reject an invalid key: as check_name, with at most 512 characters.';

create or replace function coordinator.check_kind(p_value text) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(p_value, '') !~ '^[a-z][a-z0-9_-]{0,35}$' then
    raise exception using errcode = 'ZC103', message = format('invalid kind "%s"', left(p_value, 200)),
      hint = 'Use at most 36 lower-case letters, digits, - and _, starting with a letter.';
  end if;
end
$$;
comment on function coordinator.check_kind(text) is
  'Reject an invalid kind of a log or document (ZC103).';

create or replace function coordinator.check_reason(p_value text) returns void
language sql immutable parallel safe
return case when p_value is not null then coordinator.check_text('the reason', p_value, 2000) end;
comment on function coordinator.check_reason(text) is
  'Reject a reason that is empty (ZC101) or longer than 2,000 characters (ZC102); null is accepted.';

create or replace function coordinator.check_list(p_what text, p_values text[]) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_value text;
begin
  if cardinality(p_values) > 1000 then
    raise exception using errcode = 'ZC102',
      message = format('%s items in %s; at most 1000 are allowed', cardinality(p_values), p_what),
      hint = 'Give at most 1000 items.';
  elsif array_ndims(p_values) > 1 or array_lower(p_values, 1) <> 1 then
    raise exception using errcode = 'ZC103', message = format('%s are not a plain list', p_what),
      hint = 'Give a one-dimensional array whose subscripts begin at 1.';
  end if;
  foreach v_value in array coalesce(p_values, '{}') loop
    perform coordinator.check_name('one of ' || p_what, v_value);
  end loop;
end
$$;
comment on function coordinator.check_list(text, text[]) is
  'Reject a list of more than 1,000 items (ZC102), of more than one dimension (ZC103) or with an invalid name (see check_name). p_what is a plural: ''the topics''.';

create or replace function coordinator.check_isolation(p_what text, p_hint text default 'Run it in a transaction of its own.') returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using errcode = 'ZC105', message = format('%s only in read committed transactions', p_what),
      hint = 'A snapshot from before a wait would hide what others have done. ' || p_hint;
  end if;
end
$$;
comment on function coordinator.check_isolation(text, text) is
  'Reject (ZC105) a transaction whose snapshot may be older than the lock under which an operation runs, for instance p_what => ''locks change''. Internal.';

create or replace function coordinator.duration_text(p_value interval) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case
    when not isfinite(p_value) then p_value::text
    else coalesce(nullif(concat(
      case when seconds < 0 then '-' end,
      nullif(div(abs(seconds), 86400), 0) || 'd',
      nullif(div(mod(abs(seconds), 86400), 3600), 0) || 'h',
      nullif(div(mod(abs(seconds), 3600), 60), 0) || 'm',
      nullif(trim_scale(mod(abs(seconds), 60)), 0) || 's'), ''), '0s')
  end
  from (select extract(epoch from p_value) as seconds) as length
$$;
comment on function coordinator.duration_text(interval) is
  'Format a duration as users write it and all interfaces accept it: 1h30m, 0.5s, 366d. Internal.';

create or replace function coordinator.check_ttl(p_value interval, p_max_s double precision default 31622400) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value is null or extract(epoch from p_value) not between 1 and p_max_s then
    raise exception using errcode = 'ZC104',
      message = format('a TTL of %s is out of range', case when p_value is null then 'null' else coordinator.duration_text(p_value) end),
      hint = format('Give 1s to %s.', coordinator.duration_text(make_interval(secs => p_max_s)));
  end if;
end
$$;
comment on function coordinator.check_ttl(interval, double precision) is
  'Reject a TTL below 1 second or above p_max_s seconds (ZC104).';

-- The limits apply to the text of a value, since readers receive text: 1e131071 takes 16 bytes in a table and 128 kB for every reader.
-- But a value of 8 kB can become 70 MB of text, and a larger one more than PostgreSQL can allocate. So the numbers of larger values are
-- measured one by one. jsonpath stops at the requested level, so deep values cannot exhaust the stack.
create or replace function coordinator.json_fault(
  p_value jsonb, p_max integer default 262144,
  p_too_deep jsonpath default 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")') returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_stored integer := pg_column_size(p_value #> '{}'); -- without compression
  v_text   text;
begin
  if v_stored <= 8192 then
    v_text := p_value::text;
    if octet_length(v_text) < 130 then
      return null;
    end if;
  elsif v_stored > 5 * p_max then -- arrays of digits are the worst case: they take four times the bytes of their text
    return 'json';
  end if;
  if jsonb_path_exists(p_value, p_too_deep) then
    return 'json_depth';
  elsif (v_text is null or octet_length(v_text) > 308 and v_text ~ '[0-9.]{60}') and exists (
      select from jsonb_path_query(p_value, 'strict $.** ? (@.type() == "number")') n
      where case when octet_length(n::text) > 400 then true
                 when octet_length(n::text) > 308 then abs(n::numeric) > 1.7976931348623157e308 end) then
    return 'json_number';
  elsif octet_length(coalesce(v_text, p_value::text)) > p_max then
    return 'json';
  end if;
  return null;
end
$$;
comment on function coordinator.json_fault(jsonb, integer, jsonpath) is
  'Return the name of the limit that a JSON value exceeds, json_depth, json_number or json (p_max bytes of text), or null. Internal.';

-- A JSON text that is stored unchanged (type json) is checked as text: jsonb would cost more than storing it, drops repeated keys, and
-- rejects some texts. Usually both first tests find nothing, so the strings need not be removed.
create or replace function coordinator.json_text_fault(p_text text, p_max integer, p_depth integer default 64) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_deep   boolean := octet_length(p_text) - octet_length(replace(replace(p_text, '[', ''), '{', '')) > p_depth;
  v_number boolean := p_text ~ '[0-9.]{200}|[0-9.][eE][+-]?[0-9]{3}';
  v_bare   text;
begin
  if octet_length(p_text) > p_max then
    return 'json';
  elsif not (v_deep or v_number) then
    return null;
  end if;
  v_bare := regexp_replace(p_text, '"(?:[^"\\]|\\.)*"', '', 'g');
  if v_number then
    begin
      if exists (select from regexp_matches(v_bare, '-?[0-9][0-9.eE+-]*', 'g') n
                 where length(n[1]) > 400 or (n[1] ~ '[eE]' or length(n[1]) > 200) and abs(n[1]::numeric) > 1.7976931348623157e308) then
        return 'json_number';
      end if;
    exception when numeric_value_out_of_range then -- too large for numeric
      return 'json_number';
    end;
  end if;
  if v_deep then
    v_bare := translate(regexp_replace(v_bare, '[^][{}]+', '', 'g'), '{}', '[]');
    for level in 1 .. p_depth loop -- each round removes the innermost level
      v_bare := replace(v_bare, '[]', '');
      exit when v_bare = '';
    end loop;
    if v_bare <> '' then
      return 'json_depth';
    end if;
  end if;
  return null;
end
$$;
comment on function coordinator.json_text_fault(text, integer, integer) is
  'Return the name of the limit that the text of a JSON value exceeds, as json_fault does for jsonb: json (p_max bytes), json_number, json_depth, or null. Internal.';

-- Control characters never occur in valid JSON, so they can mark what must stay: escaped backslashes and pairs of surrogates.
create or replace function coordinator.json_tame(p_text text, p_to text default '\\ufffd') returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if strpos(p_text, '\u') = 0 or p_text !~ '\\u(0000|[dD][89a-fA-F])' then
    return p_text;
  end if;
  p_text := replace(p_text, '\\', chr(1));
  p_text := regexp_replace(p_text, '\\(u[dD][89abAB][0-9a-fA-F]{2})\\(u[dD][c-fC-F][0-9a-fA-F]{2})', chr(2) || '\1' || chr(2) || '\2', 'g');
  p_text := regexp_replace(p_text, '\\u(0000|[dD][89a-fA-F][0-9a-fA-F]{2})', p_to, 'g');
  return replace(replace(p_text, chr(2), '\'), chr(1), '\\');
end
$$;
comment on function coordinator.json_tame(text, text) is
  'Replace NUL and lone surrogates in a JSON text, which PostgreSQL can store but not parse; p_to is a replacement for regexp_replace, in which \1 is the four digits. Internal.';

create or replace function coordinator.json_refuse(p_what text, p_fault text, p_max integer default 262144) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_fault = 'json_depth' then
    raise exception using errcode = 'ZC102', message = format('%s is nested more than 64 levels deep', p_what),
      hint = 'Nest arrays and objects at most 64 levels deep; put deeper data into a string.';
  elsif p_fault = 'json_number' then
    raise exception using errcode = 'ZC104',
      message = format('%s contains a number that is not finite as a double, or longer than 400 characters', p_what),
      hint = 'Give at most 1.7976931348623157e308 in at most 400 characters, or put the number into a string.';
  elsif p_fault is not null then
    raise exception using errcode = 'ZC102', message = format('%s takes more than %s bytes as text', p_what, p_max),
      hint = 'Store large data elsewhere and share its location.';
  end if;
end
$$;
comment on function coordinator.json_refuse(text, text, integer) is
  'Raise ZC102 or ZC104 for the limit that json_fault returned; null is accepted. Internal.';

create or replace function coordinator.check_json(p_what text, p_value jsonb, p_object boolean default false) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fault text := coordinator.json_fault(p_value);
begin
  if p_value is null then
    raise exception using errcode = 'ZC101', message = format('%s is missing', p_what),
      hint = 'Give a JSON value; write JSON null as ''null''.';
  elsif v_fault is not null then
    perform coordinator.json_refuse(p_what, v_fault);
  elsif p_object and jsonb_typeof(p_value) <> 'object' then
    raise exception using errcode = 'ZC105',
      message = format('%s is a JSON %s, not an object', p_what, jsonb_typeof(p_value)),
      hint = 'Give an object such as {"key": "value"}.';
  end if;
end
$$;
comment on function coordinator.check_json(text, jsonb, boolean) is
  'Reject a JSON value that is missing (ZC101), larger than 262,144 bytes as text or nested more than 64 levels (ZC102), has a number that is not finite as a double or longer than 400 characters (ZC104) or, with p_object, is not an object (ZC105).';

create or replace function coordinator.check_page(
  p_limit integer, p_after text[] default null, p_kinds text[] default '{}') returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_limit is null or p_limit not between 1 and 10000 then
    raise exception using errcode = 'ZC104', message = format('a limit of %s is out of range', coalesce(p_limit::text, 'null')),
      hint = 'Give 1 to 10000.';
  elsif p_after is null then
    return;
  elsif array_ndims(p_after) is distinct from 1 or array_lower(p_after, 1) <> 1 or cardinality(p_after) <> cardinality(p_kinds)
     or exists (select from unnest(p_after, p_kinds) u (value, kind)
                where value is null
                   or kind = 'number' and value !~ '^-?[0-9]{1,18}$'
                   or kind = 'real' and value !~ '^[0-9]{1,6}(\.[0-9]{1,25})?(e-?[0-9]{1,2})?$'
                   or kind = 'instant' and value !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(\+00(:00)?|Z)$'
                   or kind = 'id' and value !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$') then
    raise exception using errcode = 'ZC103', message = format('%s is not a position in this list', left(p_after::text, 200)),
      hint = 'Give the cursor of the previous page; in SQL, the values of the ordering columns in its last row.';
  end if;
end
$$;
comment on function coordinator.check_page(integer, text[], text[]) is
  'Reject a page size outside 1 to 10,000 (ZC104), and a position without one value for each of p_kinds: text, number, real, id, instant in UTC (ZC103).';

create or replace function coordinator.nearest(p_word text, p_words text[]) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select w from unnest(p_words) w cross join lateral (
    select 2.0 * count(*) / (length(left(p_word, 100)) + length(w) - 2) as likeness
    from (select substr(left(p_word, 100), i, 2) from generate_series(1, length(left(p_word, 100)) - 1) i
          intersect
          select substr(w, i, 2) from generate_series(1, length(w) - 1) i) pairs) l
  where length(p_word) > 1 and length(w) > 1 and likeness >= 0.5
  order by likeness desc, w limit 1
$$;
comment on function coordinator.nearest(text, text[]) is
  'Return the word most similar to p_word by pairs of letters, for a hint "Did you mean"; null if none is similar. Internal.';

create or replace function coordinator.shell_word(p_text text) returns text
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  select case when t ~ '^[A-Za-z0-9_./:@%+,=-]+$' then t else '''' || replace(t, '''', '''\''''') || '''' end from (select left(p_text, 200)) w (t)
$$;
comment on function coordinator.shell_word(text) is
  'Return the first 200 characters of a text, quoted as one shell word, for the command in a hint. Internal.';

create or replace function coordinator.name_missing(
  p_code text, p_project text, p_noun text, p_name text, p_names text[], p_hint text default null, p_max integer default 200) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_name('the name of the ' || p_noun, p_name, p_max);
  raise exception using errcode = p_code, message = format('project "%s" has no %s "%s"', p_project, p_noun, p_name),
    hint = concat_ws(' ', 'Did you mean "' || coordinator.nearest(p_name, p_names) || '"?', format('See "coordinator %s list".', p_noun), p_hint);
end
$$;
comment on function coordinator.name_missing(text, text, text, text, text[], text, integer) is
  'Raise p_code for something that does not exist in a project, for instance p_noun => ''queue'', and suggest a similar name from p_names. Internal.';

create or replace function coordinator.actor_checked(p_actor text) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_name('the actor', p_actor);
  return p_actor;
end
$$;
comment on function coordinator.actor_checked(text) is
  'Return the name of an actor if it is valid; see check_name. Internal.';

create or replace function coordinator.actor_name(p_actor text, p_agent_name text default null) returns text
language sql stable parallel safe
return coalesce(case when coordinator.name_plain(p_actor, 200) then p_actor when p_actor is not null then coordinator.actor_checked(p_actor) end,
                p_agent_name, session_user::text);
comment on function coordinator.actor_name(text, text) is
  'Return the name of the actor: the given name, else the agent''s, else the logged-in role.';
