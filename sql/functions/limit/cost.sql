-- The costs of jobs in the limits that they name (see limit.sql).

create or replace function coordinator.limit_costs(p_limits jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return case when p_limits in ('null', '[]', '{}') then null
            when jsonb_typeof(p_limits) = 'array' and not jsonb_path_exists(p_limits, '$[*] ? (@.type() != "string")')
              then (select jsonb_object_agg(n, null::integer) from jsonb_array_elements_text(p_limits) n)
            else p_limits end;
comment on function coordinator.limit_costs(jsonb) is
  'Convert the limits of a job into an object of names and costs; a cost that the job does not state is null. Internal.';

create or replace function coordinator.limit_priced(p_project_id bigint, p_limits jsonb) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_object_agg(a.key, case when a.value <> 'null' then a.value else to_jsonb(coordinator.limit_cost(l, null)) end)
    from jsonb_each(p_limits) a join coordinator.job_limits l on l.project_id = p_project_id and l.name = a.key);
end
$$;
comment on function coordinator.limit_priced(bigint, jsonb) is
  'Fill in the costs that a job does not state: the reserve of a budget, otherwise 1. Internal.';

create or replace function coordinator.limit_names(p_limits jsonb) returns text[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return array(select k from jsonb_object_keys(p_limits) k order by k collate "C");
comment on function coordinator.limit_names(jsonb) is
  'Return the names of the limits that a job names, sorted. Internal.';

create or replace function coordinator.limit_check_costs(p_project_id bigint, p_limits jsonb) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_asked record;
begin
  if jsonb_typeof(p_limits) <> 'object' then
    raise exception using errcode = 'ZC103', message = 'the limits are neither an array of names nor an object of names and costs',
      hint = 'Write them like ["openai"] or {"openai": 1200}.';
  elsif (select count(*) from jsonb_object_keys(p_limits)) > 16 then
    raise exception using errcode = 'ZC102', message = format('the job asks for %s limits', (select count(*) from jsonb_object_keys(p_limits))),
      hint = 'Give at most 16.';
  end if;
  for v_asked in
    select a.key as name, a.value as cost, l.id, l.kind,
           l.tree, case l.kind when 'slots' then 1 when 'rate' then l.burst else l.budget end as most, case l.kind when 'budget' then 0 else 1 end as least
    from jsonb_each(p_limits) a left join coordinator.job_limits l on l.project_id = p_project_id and l.name = a.key order by 1
  loop
    if v_asked.id is null then
      perform coordinator.limit_missing((select p.name from coordinator.projects p where p.id = p_project_id), v_asked.name);
    elsif v_asked.tree is not null then
      raise exception using errcode = 'ZC105', message = format('limit "%s" applies to a tree of jobs, so a job cannot name it', v_asked.name),
        detail = jsonb_build_object('limit', v_asked.name, 'tree', v_asked.tree)::text,
        hint = format('Enqueue the job below job %s, or omit the limit.', v_asked.tree);
    elsif v_asked.cost <> 'null' and (case when jsonb_typeof(v_asked.cost) <> 'number' then true
               else v_asked.cost::numeric % 1 <> 0 or v_asked.cost::numeric not between v_asked.least and v_asked.most end) then
      raise exception using errcode = 'ZC104',
        message = format('a cost of %s of limit "%s" is out of range', left(v_asked.cost::text, 100), v_asked.name),
        detail = jsonb_build_object('limit', v_asked.name, 'kind', v_asked.kind, 'max', v_asked.most)::text,
        hint = case v_asked.kind when 'slots' then 'A job takes one slot: give 1, or only the name.'
                 else format('Give a whole number from %s to %s, which is all of it.', v_asked.least, v_asked.most) end;
    end if;
  end loop;
end
$$;
comment on function coordinator.limit_check_costs(bigint, jsonb) is
  'Reject the limits of a job if they are malformed (ZC103), too many (ZC102), unknown (ZC211) or of a tree (ZC105), or if a cost exceeds the whole limit (ZC104). Internal.';
