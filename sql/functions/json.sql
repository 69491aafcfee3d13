-- JSON values: stored without loss, merged, compared.
--
-- What jsonb rejects or changes: it rejects the escapes of NUL and of unpaired surrogates, and rewrites numbers (1e16, -0). For such a
-- text, json_store keeps the text beside the jsonb value, in which U+FFFD replaces what jsonb rejects. Spaces, the order of keys, and
-- all but the last of repeated keys are lost. When a value is changed, json_armour encodes these escapes, and U+E000 itself, as U+E000
-- and four digits, so that jsonb accepts them and json_disarm can restore them.

create or replace function coordinator.json_armour(p_text text) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return coordinator.json_tame(
    case when p_text ~* '\\ue000' -- an escape only after an even number of backslashes, which are escaped backslashes
         then replace(regexp_replace(replace(replace(p_text, '\\', chr(1)), chr(57344), chr(57344) || 'e000'), '\\u[eE]000', chr(57344) || 'e000', 'g'), chr(1), '\\')
         else replace(p_text, chr(57344), chr(57344) || 'e000') end,
    chr(57344) || '\1');
end
$$;
comment on function coordinator.json_armour(text) is
  'Encode the escapes of a JSON text that jsonb rejects, and U+E000, as U+E000 and four hexadecimal digits. Internal.';

create or replace function coordinator.json_disarm(p_text text) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return case when strpos(p_text, chr(57344)) = 0 then p_text
              else regexp_replace(p_text, chr(57344) || '([0-9a-fA-F]{4})', '\\u\1', 'g') end;
end
$$;
comment on function coordinator.json_disarm(text) is
  'Restore the escapes that json_armour encoded. Internal.';

create or replace function coordinator.json_store(p_what text, p_value json, p_max integer) returns coordinator.json_stored
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text    text := p_value::text;
  v_numbers boolean; -- whether there are numbers with an exponent, -0, or long numbers
  v_stored  coordinator.json_stored;
begin
  if p_value is null then
    raise exception using errcode = 'ZC101', message = format('%s is missing', p_what),
      hint = 'Give a JSON value; write JSON null as ''null''.';
  elsif octet_length(v_text) > p_max then
    perform coordinator.json_refuse(p_what, 'json', p_max);
  end if;
  v_stored.value := coordinator.json_tame(v_text)::jsonb;
  v_numbers := v_text ~ '(^|[:,[\s])(-?[0-9.]+[eE]|-0)|[0-9.]{200}';
  if v_numbers then
    perform coordinator.json_refuse(p_what, coordinator.json_fault(v_stored.value, p_max), p_max);
  elsif jsonb_path_exists(v_stored.value, 'strict $.**{64} ? (@.type() == "array" || @.type() == "object")') then
    perform coordinator.json_refuse(p_what, 'json_depth');
  elsif octet_length(v_text) > p_max / 2 and octet_length(v_stored.value::text) > p_max then -- jsonb adds a space after each comma and colon
    perform coordinator.json_refuse(p_what, 'json', p_max);
  end if;
  if v_numbers or strpos(v_text, '\u') > 0 then
    v_stored.raw := p_value;
  end if;
  return v_stored;
end
$$;
comment on function coordinator.json_store(text, json, integer) is
  'Check a JSON value of at most p_max bytes, and return its stored form: as jsonb, and as the exact text if jsonb rejects or rewrites a string or a number. Internal.';

create or replace function coordinator.json_odd(p_text text) returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  return strpos(p_text, '\u') > 0 and p_text ~ '\\u(0000|[dD][89a-fA-F])';
end
$$;
comment on function coordinator.json_odd(text) is
  'Return whether a JSON text may have escapes that jsonb rejects. Internal.';

create or replace function coordinator.json_store_changed(p_what text, p_value jsonb, p_armoured boolean, p_max integer) returns coordinator.json_stored
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_armoured then
    return coordinator.json_store(p_what, coordinator.json_disarm(p_value::text)::json, p_max);
  end if;
  perform coordinator.json_refuse(p_what, coordinator.json_fault(p_value, p_max), p_max);
  return row(p_value, null)::coordinator.json_stored;
end
$$;
comment on function coordinator.json_store_changed(text, jsonb, boolean, integer) is
  'Check a value that was changed, perhaps in armour, and return how it is stored. Internal.';

create or replace function coordinator.json_merge(p_target jsonb, p_patch jsonb) returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_result jsonb := case when jsonb_typeof(p_target) = 'object' then p_target else '{}' end;
  v_key    text;
  v_part   jsonb;
begin
  if jsonb_typeof(p_patch) <> 'object' then
    return p_patch;
  end if;
  for v_key, v_part in select * from jsonb_each(p_patch) loop
    if jsonb_typeof(v_part) = 'null' then
      v_result := v_result - v_key;
    else
      v_result := v_result || jsonb_build_object(v_key,
        case when jsonb_typeof(v_part) = 'object' then coordinator.json_merge(v_result -> v_key, v_part) else v_part end);
    end if;
  end loop;
  return v_result;
end
$$;
comment on function coordinator.json_merge(jsonb, jsonb) is
  'Apply a merge patch (RFC 7396): keys of the patch replace those of the target, null deletes them, objects are merged. Internal.';

create or replace function coordinator.json_diff(p_from jsonb, p_to jsonb, p_path text default '') returns jsonb
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_whole jsonb := jsonb_build_array(jsonb_build_object('op', 'replace', 'path', p_path, 'value', p_to));
  v_parts jsonb;
begin
  if p_from = p_to then
    return '[]';
  elsif jsonb_typeof(p_from) = 'object' and jsonb_typeof(p_to) = 'object' then
    select coalesce(jsonb_agg(e order by c.key collate "C", n), '[]') into v_parts
    from (select key, f.value as old, t.value as new, p_path || '/' || replace(replace(key, '~', '~0'), '/', '~1') as path
          from jsonb_each(p_from) f full join jsonb_each(p_to) t using (key)) c
    cross join lateral jsonb_array_elements(case
      when c.new is null then jsonb_build_array(jsonb_build_object('op', 'remove', 'path', c.path))
      when c.old is null then jsonb_build_array(jsonb_build_object('op', 'add', 'path', c.path, 'value', c.new))
      else coordinator.json_diff(c.old, c.new, c.path) end) with ordinality e (e, n);
  elsif jsonb_typeof(p_from) = 'array' and jsonb_typeof(p_to) = 'array' then
    -- Compare item by item. Surplus items are removed from the end, so that the positions before them stay valid.
    select coalesce(jsonb_agg(e order by c.new is null, case when c.new is null then -place else place end, n), '[]') into v_parts
    from (select place, f.value as old, t.value as new, p_path || '/' || place - 1 as path
          from jsonb_array_elements(p_from) with ordinality f (value, place)
          full join jsonb_array_elements(p_to) with ordinality t (value, place) using (place)) c
    cross join lateral jsonb_array_elements(case
      when c.new is null then jsonb_build_array(jsonb_build_object('op', 'remove', 'path', c.path))
      when c.old is null then jsonb_build_array(jsonb_build_object('op', 'add', 'path', c.path, 'value', c.new))
      else coordinator.json_diff(c.old, c.new, c.path) end) with ordinality e (e, n);
  else
    return v_whole;
  end if;
  return case when pg_column_size(v_parts) <= pg_column_size(v_whole) then v_parts else v_whole end;
end
$$;
comment on function coordinator.json_diff(jsonb, jsonb, text) is
  'Return the JSON Patch (RFC 6902) that turns one value into another. A part is replaced as a whole if that is shorter. Internal.';
