-- Every limit on what callers give, and the error that meets it. Errors are of class ZC1: nothing was changed.

insert into coordinator.limits (name, value, unit, meaning) values
  ('name',    200,      'characters', 'Name or role of an agent, actor, name of a job type.'),
  ('key',     512,      'characters', 'Key of a signal, key of a directive.'),
  ('reason',  2000,     'characters', 'A reason, a description.'),
  ('json',    262144,   'bytes',      'A JSON value as it is stored.'),
  ('ttl_min', 1,        'seconds',    'Shortest TTL.'),
  ('ttl_max', 31622400, 'seconds',    'Longest TTL: 366 days.'),
  ('list',    1000,     'items',      'Job types of an agent, signals that a rule clears, topics of a reader, tokens of one question.'),
  ('page',    10000,    'rows',       'One page of a list or of events.');

create or replace function coordinator.check_text(p_what text, p_value text, p_most integer) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value is null or p_value = '' then
    raise exception using errcode = 'ZC101', message = format('%s is empty', p_what),
      hint = 'Give at least one character.';
  elsif length(p_value) > p_most then
    raise exception using errcode = 'ZC102',
      message = format('%s has %s characters; at most %s are allowed', p_what, length(p_value), p_most),
      hint = 'Shorten it; what is long belongs into a value.';
  end if;
end
$$;
comment on function coordinator.check_text(text, text, integer) is
  'Refuse an empty text (ZC101) or one of more than p_most characters (ZC102).';

create or replace function coordinator.check_name(p_what text, p_value text, p_most integer default 200) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.check_text(p_what, p_value, p_most);
  if p_value ~ '[\u0001-\u001f\u007f-\u009f\u2028\u2029]' then
    raise exception using errcode = 'ZC103', message = format('%s has a control character in it', p_what),
      hint = 'Line ends, tabs and the like have no place in names and keys.';
  elsif p_value <> btrim(p_value) then
    raise exception using errcode = 'ZC103', message = format('%s begins or ends with a space', p_what),
      hint = 'Take the space away.';
  end if;
end
$$;
comment on function coordinator.check_name(text, text, integer) is
  'Refuse what is no name or key: empty (ZC101), too long (ZC102), with control characters or spaces around it (ZC103).';

create or replace function coordinator.check_list(p_what text, p_values text[]) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_value text;
begin
  if cardinality(p_values) > 1000 then
    raise exception using errcode = 'ZC102',
      message = format('%s items of %s; at most 1000 are allowed', cardinality(p_values), p_what),
      hint = 'Give fewer.';
  end if;
  foreach v_value in array coalesce(p_values, '{}') loop
    perform coordinator.check_name(p_what, v_value);
  end loop;
end
$$;
comment on function coordinator.check_list(text, text[]) is
  'Refuse a list of more than 1,000 items (ZC102) or with an item that is no name (see check_name).';

create or replace function coordinator.check_ttl(p_value interval, p_most_s double precision default 31622400) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value is null or extract(epoch from p_value) not between 1 and p_most_s then
    raise exception using errcode = 'ZC104',
      message = format('a TTL of %s is out of range', coalesce(p_value::text, 'null')),
      hint = format('It can be 1 second to %s.', make_interval(secs => p_most_s));
  end if;
end
$$;
comment on function coordinator.check_ttl(interval, double precision) is
  'Refuse a TTL below 1 second or above p_most_s seconds (ZC104).';

create or replace function coordinator.check_json(p_what text, p_value jsonb, p_object boolean default false) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_value is null then
    raise exception using errcode = 'ZC101', message = format('%s is missing', p_what),
      hint = 'Give a JSON value; JSON''s own null is ''null''.';
  elsif pg_column_size(p_value) > 262144 then
    raise exception using errcode = 'ZC102',
      message = format('%s takes %s bytes; at most 262144 are allowed', p_what, pg_column_size(p_value)),
      hint = 'Keep large things elsewhere and share where they are.';
  elsif p_object and jsonb_typeof(p_value) <> 'object' then
    raise exception using errcode = 'ZC105',
      message = format('%s is a JSON %s and must be an object', p_what, jsonb_typeof(p_value)),
      hint = 'Give something like {"key": "value"}.';
  end if;
end
$$;
comment on function coordinator.check_json(text, jsonb, boolean) is
  'Refuse a JSON value that is missing (ZC101), larger than 262,144 bytes as stored (ZC102) or, where p_object, no object (ZC105).';

create or replace function coordinator.check_page(
  p_limit integer, p_after text[] default null, p_kinds text[] default '{}') returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_limit is null or p_limit not between 1 and 10000 then
    raise exception using errcode = 'ZC104', message = format('a limit of %s is out of range', coalesce(p_limit::text, 'null')),
      hint = 'It can be 1 to 10000.';
  elsif p_after is null then
    return;
  elsif array_ndims(p_after) is distinct from 1 or array_lower(p_after, 1) <> 1 or cardinality(p_after) <> cardinality(p_kinds)
     or exists (select from unnest(p_after, p_kinds) u (value, kind)
                where value is null
                   or kind = 'number' and value !~ '^-?[0-9]{1,18}$'
                   or kind = 'id' and value !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$') then
    raise exception using errcode = 'ZC103', message = format('%s is no place in this list', left(p_after::text, 200)),
      hint = 'Give the cursor of the page before; in SQL, what its last row has in the columns that the list is ordered by.';
  end if;
end
$$;
comment on function coordinator.check_page(integer, text[], text[]) is
  'Refuse a page size that is not 1 to 10,000 (ZC104), and a place to go on from that has not a value of each of p_kinds (text, number, id) (ZC103).';

create or replace function coordinator.actor_name(p_actor text, p_agent_name text default null) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_actor is not null then
    perform coordinator.check_name('the actor', p_actor);
  end if;
  return coalesce(p_actor, p_agent_name, session_user::text);
end
$$;
comment on function coordinator.actor_name(text, text) is
  'Who does it: the name that was given, else the agent''s, else the role that is logged in.';
