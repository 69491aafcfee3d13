-- The shape of documents of built-in kinds. state: an object. todo and features: a list of items, or an object with that list under
-- "items" or "features"; an item is an object with an id and, optionally, a status and passes.

create or replace function coordinator.document_items_path(p_kind text, p_value jsonb) returns text[]
language sql immutable parallel safe
return case when jsonb_typeof(p_value) = 'array' then '{}'::text[] when p_kind = 'todo' then '{items}' when p_kind = 'features' then '{features}'
            else '{}' end;
comment on function coordinator.document_items_path(text, jsonb) is
  'Return the path of a document''s list of items, which may be below a key in todo lists and features. Internal.';

create or replace function coordinator.document_check_shape(p_kind text, p_value jsonb) returns void
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_list jsonb;
  v_item record;
begin
  if p_kind not in ('state', 'todo', 'features') or p_value is null then
    return;
  end if;
  v_list := p_value #> coordinator.document_items_path(p_kind, p_value);
  if p_kind = 'state' and jsonb_typeof(p_value) <> 'object' then
    raise exception using errcode = 'ZC105', message = format('a state is a JSON %s, not an object', jsonb_typeof(p_value)),
      hint = 'Give an object such as {"step": 2}.';
  elsif p_kind = 'state' then
    return;
  elsif jsonb_typeof(v_list) is distinct from 'array' then
    raise exception using errcode = 'ZC105', message = format('a document of kind "%s" has no list of items', p_kind),
      hint = format('Give a list such as [{"id": 1, "status": "PENDING"}], or an object with such a list as "%s".',
                    case p_kind when 'todo' then 'items' else 'features' end);
  end if;
  select place - 1 as place,
         case when jsonb_typeof(item) <> 'object' then 'is not an object'
              when coalesce(jsonb_typeof(item -> 'id'), '') not in ('string', 'number') then 'has no "id" that is a text or a number'
              when jsonb_typeof(item -> 'status') not in ('string', 'null') then 'has a "status" that is not a text'
              when jsonb_typeof(item -> 'passes') not in ('boolean', 'null') then 'has a "passes" that is not true or false' end as fault
  into v_item
  from jsonb_array_elements(v_list) with ordinality e (item, place)
  where jsonb_typeof(item) <> 'object' or coalesce(jsonb_typeof(item -> 'id'), '') not in ('string', 'number')
     or jsonb_typeof(item -> 'status') not in ('string', 'null') or jsonb_typeof(item -> 'passes') not in ('boolean', 'null')
  order by place limit 1;
  if found then
    raise exception using errcode = 'ZC105', message = format('item %s of a document of kind "%s" %s', v_item.place, p_kind, v_item.fault),
      detail = jsonb_build_object('place', v_item.place)::text,
      hint = 'Write items such as {"id": 1, "status": "PENDING", "passes": false}; other keys are yours.';
  end if;
  select item ->> 'id' as id, count(*) as count into v_item
  from jsonb_array_elements(v_list) item group by 1 having count(*) > 1 order by 1 limit 1;
  if found then
    raise exception using errcode = 'ZC333', message = format('%s items have the id "%s"', v_item.count, left(v_item.id, 100)),
      detail = jsonb_build_object('item', left(v_item.id, 100), 'count', v_item.count)::text, hint = 'Give each item its own id.';
  end if;
end
$$;
comment on function coordinator.document_check_shape(text, jsonb) is
  'Reject a state that is not an object, a todo list or features without a list of items with ids (ZC105), or with a duplicate id (ZC333). Internal.';
