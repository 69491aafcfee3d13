-- Rules: which signals are cleared when one is set, in the same transaction. A project's own rule precedes one for all projects.

insert into coordinator.event_types (type, key, data, meaning) values
  ('rule.set',     'when_set of the rule', '{clears,everywhere}', 'A rule was created or changed; everywhere: it applies to all projects.'),
  ('rule.deleted', 'when_set of the rule', '{everywhere}',        'A rule was deleted.');

insert into coordinator.rights (function, role) values
  ('rule_list',   'reader'),
  ('rule_delete', 'manager'),
  ('rule_set',    'manager');

create or replace view coordinator.rules with (security_barrier) as
  select p.name as project, r.when_set, r.clears, r.created_at
  from coordinator.signal_rules r left join coordinator.projects p on p.id = r.project_id
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.rules            is 'Rules of the projects that the reader may use, and rules for all projects.';
comment on column coordinator.rules.project    is 'Project to which it applies; null: all projects.';
comment on column coordinator.rules.when_set   is 'Last segment of the key that triggers the rule when it is set.';
comment on column coordinator.rules.clears     is 'Last segments of the neighbouring keys that are then deleted.';
comment on column coordinator.rules.created_at is 'When the rule was created or last changed.';

create or replace function coordinator.rule_set(
  p_project text, p_when_set text, p_clears text[], p_everywhere boolean default false, p_actor text default null)
returns setof coordinator.rules
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_key     text;
begin
  p_everywhere := coalesce(p_everywhere, false);
  if p_everywhere then
    perform coordinator.everywhere_check();
  end if;
  if coalesce(cardinality(p_clears), 0) = 0 then
    raise exception using errcode = 'ZC101', message = 'the rule clears nothing', hint = 'Name at least one signal that it clears.';
  end if;
  perform coordinator.check_list('the cleared signals', p_clears);
  foreach v_key in array array_prepend(p_when_set, p_clears) loop
    perform coordinator.check_key('the signal of a rule', v_key);
    if strpos(v_key, '/') > 0 then
      raise exception using errcode = 'ZC103', message = format('"%s" contains a /', v_key),
        hint = 'A rule names the last segments of keys, and clears keys beside the one that is set.';
    end if;
  end loop;
  perform coordinator.project_hold(v_project);
  insert into coordinator.signal_rules (project_id, when_set, clears, created_at)
  values (case when not p_everywhere then v_project end, p_when_set, p_clears, v_now)
  on conflict (when_set, coalesce(project_id, 0)) do update set clears = excluded.clears, created_at = excluded.created_at;
  perform coordinator.event_append('rule.set', p_project, p_when_set, coordinator.actor_name(p_actor), v_now,
    jsonb_build_object('clears', p_clears, 'everywhere', p_everywhere));
  return query select case when not p_everywhere then p_project end, p_when_set, p_clears, v_now;
end
$$;
comment on function coordinator.rule_set(text, text, text[], boolean, text) is
  'Create or change the rule that runs when p_when_set is set: it clears the signals p_clears with the same prefix, in this project or p_everywhere.';

create or replace function coordinator.rule_list(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.rules
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{text,text}');
  return query
    select case when r.project_id is not null then p_project end, r.when_set, r.clears, r.created_at
    from coordinator.signal_rules r
    where (r.project_id is null or r.project_id = v_project)
      and (r.when_set, r.project_id is null) > (coalesce(p_after[1], ''), p_after[2] = '')
    order by r.when_set, r.project_id is null limit p_limit;
end
$$;
comment on function coordinator.rule_list(text, text[], integer) is
  'List the rules that apply to a project, by when_set, the project''s own rules first; project null: all projects. p_after: array[when_set, project] of the last row read, '''' for null.';

create or replace function coordinator.rule_delete(
  p_project text, p_when_set text, p_everywhere boolean default false, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  p_everywhere := coalesce(p_everywhere, false);
  if p_everywhere then
    perform coordinator.everywhere_check();
  end if;
  perform coordinator.check_key('the signal of a rule', p_when_set);
  delete from coordinator.signal_rules
  where when_set = p_when_set and project_id is not distinct from case when not p_everywhere then v_project end;
  if not found then
    raise exception using errcode = 'ZC205', message = format('there is no rule for setting "%s"', p_when_set),
      hint = 'See "coordinator rule list"; delete a rule for all projects with --everywhere.';
  end if;
  perform coordinator.event_append('rule.deleted', p_project, p_when_set, coordinator.actor_name(p_actor), coordinator.now_utc(),
    jsonb_build_object('everywhere', p_everywhere));
  return true;
end
$$;
comment on function coordinator.rule_delete(text, text, boolean, text) is
  'Delete the rule that runs when p_when_set is set, in this project or p_everywhere.';
