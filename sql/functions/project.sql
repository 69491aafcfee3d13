-- Projects: everything else belongs to a project, and access is granted by project.

insert into coordinator.event_types (type, key, data, meaning) values
  ('project.created', 'name of the project', '{description}', 'A project was created.'),
  ('project.changed', 'name of the project', '{fields,paths}', 'The project was changed; fields: the changed fields.'),
  ('project.deleted', 'name of the project', '{}',            'A project was deleted with all its contents.');

insert into coordinator.rights (function, role) values
  ('projects_visible', 'reader'), -- views call it with the rights of their reader
  ('project_list',     'reader'),
  ('project_show',     'reader'),
  ('project_create',   'admin'),
  ('project_set',      'admin'),
  ('project_delete',   'admin');

insert into coordinator.limits (name, value, unit, meaning) values
  ('project_name',        36,   'characters', 'Name of a project: lower-case letters, digits, - and _.'),
  ('project_description', 2000, 'characters', 'Description of a project.');

create or replace function coordinator.projects_visible() returns text[]
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- every read of a view runs this, like project_id
as $$
begin
  return (select array_agg(project) from coordinator.role_projects where role = session_user::text);
end
$$;
comment on function coordinator.projects_visible() is
  'Return the names of the projects to which the logged-in role is restricted; null: all projects.';

create or replace function coordinator.project_check(p_project text) returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- as in project_id
as $$
declare
  v_role constant text := session_user;
begin
  if not (select bool_or(project = p_project) from coordinator.role_projects where role = v_role) then
    raise exception using errcode = '42501',
      message = format('role "%s" may not use project "%s"', session_user, left(p_project, 200)),
      hint = 'An administrator can allow it: select coordinator.role_bind(ROLE, PROJECT).';
  end if;
end
$$;
comment on function coordinator.project_check(text) is
  'Reject (42501) a project that the logged-in role may not use, whether or not the project exists. Internal.';

create or replace function coordinator.everywhere_check() returns void
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if coordinator.projects_visible() is not null then
    raise exception using errcode = '42501',
      message = format('role "%s" is restricted to projects and may not change what applies to all', session_user),
      hint = 'Ask an administrator, or change it in one project.';
  end if;
end
$$;
comment on function coordinator.everywhere_check() is
  'Reject (42501) a change to all projects by a role that is restricted to some. Internal.';

create or replace view coordinator.projects_live with (security_barrier) as
  select p.name as project, p.description, p.created_at, p.paths, u.username, p.title, p.settings, p.updated_at
  from coordinator.projects p left join coordinator.users u on u.id = p.user_id
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.projects_live             is 'The projects that the reader may use.';
comment on column coordinator.projects_live.project     is 'Name of the project.';
comment on column coordinator.projects_live.description is 'One-line description; may be empty.';
comment on column coordinator.projects_live.created_at  is 'When it was created.';
comment on column coordinator.projects_live.paths       is 'How locks compare paths: exact, normal (in Unicode normal form C) or caseless.';
comment on column coordinator.projects_live.username    is 'User who owns the project; null: nobody.';
comment on column coordinator.projects_live.title       is 'One-line title; may be empty.';
comment on column coordinator.projects_live.settings    is 'JSON object of the caller.';
comment on column coordinator.projects_live.updated_at  is 'When it was last changed.';

create or replace function coordinator.project_row(p_project_id bigint) returns setof coordinator.projects_live
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select p.name, p.description, p.created_at, p.paths, u.username, p.title, p.settings, p.updated_at
  from coordinator.projects p left join coordinator.users u on u.id = p.user_id where p.id = p_project_id
$$;
comment on function coordinator.project_row(bigint) is
  'Return a project as callers see it. Internal.';

create or replace function coordinator.project_check_parts(
  p_description text, p_title text, p_settings jsonb, p_paths text default null) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_description <> '' then
    perform coordinator.check_name('the description', p_description, 2000);
  end if;
  if p_title <> '' then
    perform coordinator.check_name('the title', p_title);
  end if;
  if p_settings is not null then
    perform coordinator.check_json('the value of settings', p_settings, true);
  end if;
  if p_paths not in ('exact', 'normal', 'caseless') then
    raise exception using errcode = 'ZC105', message = format('invalid rule for paths "%s"', left(p_paths, 200)),
      hint = 'Use exact, normal or caseless.';
  end if;
end
$$;
comment on function coordinator.project_check_parts(text, text, jsonb, text) is
  'Reject an invalid part of a project; what is null is not checked. Internal.';

create or replace function coordinator.project_id(p_project text) returns bigint
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- every call runs this: reading a few hundred bindings would cost more than the rest
as $$
declare
  v_id bigint;
begin
  if not pg_is_in_recovery() and coordinator.roles_unbound() then -- half as much as looking for bindings
    select id into v_id from coordinator.projects where name = p_project;
  else
    select id into v_id from coordinator.projects
    where name = p_project and not exists (select from coordinator.role_projects where role = session_user::text);
  end if;
  if v_id is null then -- it does not exist, or the role is restricted to projects
    perform coordinator.project_check(p_project);
    select id into v_id from coordinator.projects where name = p_project;
  end if;
  if v_id is null then
    raise exception using errcode = 'ZC201', message = format('there is no project "%s"', left(p_project, 200)),
      hint = format('List projects with "coordinator project list"; create one with "coordinator project create %s".', coordinator.shell_word(p_project));
  end if;
  return v_id;
end
$$;
comment on function coordinator.project_id(text) is
  'Return the id of a project. ZC201: there is no such project. 42501: the caller''s role may not use it. Internal.';

create or replace function coordinator.project_hold(p_project_id bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from coordinator.projects where id = p_project_id for key share;
  if not found then
    raise exception using errcode = 'ZC201', message = 'the project was deleted a moment ago', hint = 'See "coordinator project list".';
  end if;
end
$$;
comment on function coordinator.project_hold(bigint) is
  'Keep a project from being deleted until the end of the transaction. For each function that inserts a row with a foreign key to it, before it locks rows of the project: project_delete locks the project first, then its rows. ZC201: it was deleted. Internal.';

create or replace function coordinator.project_create(
  p_project text, p_description text default '', p_username text default null, p_title text default '', p_settings jsonb default '{}',
  p_actor text default null)
returns setof coordinator.projects_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_actor text := coordinator.actor_name(p_actor);
  v_user  bigint;
  v_id    bigint;
begin
  p_description := coalesce(p_description, '');
  p_title := coalesce(p_title, '');
  if coalesce(p_project, '') !~ '^[a-z0-9][a-z0-9_-]{0,35}$' then
    raise exception using errcode = 'ZC103', message = format('invalid project name "%s"', left(p_project, 200)),
      hint = 'Use at most 36 lower-case letters, digits, - and _, starting with a letter or digit.';
  end if;
  perform coordinator.project_check_parts(p_description, p_title, p_settings);
  v_user := coordinator.user_hold(p_username);
  insert into coordinator.projects as p (name, description, created_at, user_id, title, settings, updated_at)
  values (p_project, p_description, v_now, v_user, p_title, coalesce(p_settings, '{}'), v_now) on conflict (name) do nothing
  returning p.id into v_id;
  if v_id is null then
    raise exception using errcode = 'ZC301', message = format('project "%s" already exists', p_project),
      hint = 'Choose another name, or use the existing project.';
  end if;
  perform coordinator.event_append('project.created', p_project, p_project, v_actor, v_now, jsonb_build_object('description', p_description));
  return query select * from coordinator.project_row(v_id);
end
$$;
comment on function coordinator.project_create(text, text, text, text, jsonb, text) is
  'Create a project. ZC301: the name is taken. ZC220: there is no such user.';

create or replace function coordinator.project_list(p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.projects_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_visible text[] := coordinator.projects_visible();
begin
  perform coordinator.check_page(p_limit, p_after, '{text}');
  return query -- not from the view, whose security barrier would keep the condition out of the index
    select p.name, p.description, p.created_at, p.paths, u.username, p.title, p.settings, p.updated_at
    from coordinator.projects p left join coordinator.users u on u.id = p.user_id
    where p.name > coalesce(p_after[1], '') and (v_visible is null or p.name = any (v_visible))
    order by p.name limit p_limit;
end
$$;
comment on function coordinator.project_list(text[], integer) is
  'List the projects that the caller may use, by name. p_after: array[name] of the last row read.';

create or replace function coordinator.project_show(p_project text)
returns table (project text, description text, created_at timestamptz, agent_count bigint, signal_count bigint, directive_count bigint,
               lock_count bigint, paths text, username text, title text, settings jsonb, updated_at timestamptz)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  return query
    select p.name, p.description, p.created_at,
           (select count(*) from coordinator.agents where project_id = v_project),
           (select count(*) from coordinator.signals where project_id = v_project),
           (select count(*) from coordinator.directives where project_id = v_project and status = 'open'),
           (select count(*) from coordinator.locks where project_id = v_project and expires_at > coordinator.now_utc()), p.paths,
           u.username, p.title, p.settings, p.updated_at
    from coordinator.projects p left join coordinator.users u on u.id = p.user_id where p.id = v_project;
end
$$;
comment on function coordinator.project_show(text) is
  'Show a project with the number of its agents, signals, open directives and held locks.';

create or replace function coordinator.project_free_paths(p_project_id bigint, p_project text, p_paths text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now timestamptz := coordinator.now_utc();
begin
  perform coordinator.check_isolation('locks change', 'assert_fence works at every isolation level.');
  -- The root's key, which every change to a path shares: see lock.sql. The next transaction that gets it reads the new rule.
  perform coordinator.advisory_enter(coordinator.lock_key(p_project_id, ''));
  if exists (select from coordinator.locks l where l.project_id = p_project_id and l.kind <> 'name' and l.free_at > v_now)
     or exists (select from coordinator.lock_waits w where w.project_id = p_project_id and w.kind <> 'name' and w.expires_at > v_now) then
    raise exception using errcode = 'ZC316', message = format('paths of project "%s" are locked', p_project),
      hint = 'Change the rule when no path is locked; see "coordinator lock list".';
  end if;
  if p_paths = 'caseless' then
    perform setval('coordinator.caseless_paths', 1);
  end if;
end
$$;
comment on function coordinator.project_free_paths(bigint, text, text) is
  'Prepare a project, whose row the caller has locked, for another rule for paths: no path is locked until the transaction ends. ZC316: one is. Internal.';

create or replace function coordinator.project_set(
  p_project text, p_paths text default null, p_description text default null, p_username text default null, p_title text default null,
  p_settings jsonb default null, p_actor text default null)
returns setof coordinator.projects_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_actor   text := coordinator.actor_name(p_actor);
  v_user    bigint;
  v_old     coordinator.projects;
  v_fields  text[];
begin
  perform coordinator.project_check_parts(p_description, p_title, p_settings, p_paths);
  v_user := coordinator.user_hold(p_username);
  select p.* into v_old from coordinator.projects p where p.id = v_project for no key update;
  if p_paths <> v_old.paths then
    perform coordinator.project_free_paths(v_project, p_project, p_paths);
  end if;
  v_fields := array_remove(array[
    case when p_paths <> v_old.paths then 'paths' end, case when p_description <> v_old.description then 'description' end,
    case when v_user is distinct from v_old.user_id and v_user is not null then 'username' end, case when p_title <> v_old.title then 'title' end,
    case when p_settings <> v_old.settings then 'settings' end], null);
  if v_fields <> '{}' then
    update coordinator.projects p
    set paths = coalesce(p_paths, p.paths), description = coalesce(p_description, p.description), user_id = coalesce(v_user, p.user_id),
        title = coalesce(p_title, p.title), settings = coalesce(p_settings, p.settings), updated_at = v_now
    where p.id = v_project;
    perform coordinator.event_append('project.changed', p_project, p_project, v_actor, v_now,
      jsonb_build_object('fields', v_fields, 'paths', coalesce(p_paths, v_old.paths)));
  end if;
  return query select * from coordinator.project_row(v_project);
end
$$;
comment on function coordinator.project_set(text, text, text, text, text, jsonb, text) is
  'Change parts of a project; null parameters change nothing. p_paths: how locks compare paths. exact: byte by byte; normal: in Unicode normal form C (the default); caseless: like normal, and without case, as the file systems of macOS and Windows do. ZC316: paths are locked. ZC220: there is no such user.';

create or replace function coordinator.project_delete(p_project text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  if p_project = 'default' then
    raise exception using errcode = 'ZC105', message = 'the project "default" cannot be deleted',
      hint = 'It is used when no project is named.';
  end if;
  perform from coordinator.projects where id = v_project for update;
  if not found then
    raise exception using errcode = 'ZC201', message = format('there is no project "%s"', p_project),
      hint = 'It was deleted a moment ago; see "coordinator project list".';
  end if;
  perform coordinator.job_end_project(v_project);
  perform coordinator.log_end_project(v_project);
  delete from coordinator.projects where id = v_project;
  delete from coordinator.signals where project_id = v_project;
  delete from coordinator.document_versions v using coordinator.documents d where v.document_id = d.id and d.project_id = v_project;
  delete from coordinator.documents where project_id = v_project;
  delete from coordinator.lock_waits where project_id = v_project;
  delete from coordinator.locks where project_id = v_project;
  delete from coordinator.agents_ended where project_id = v_project;
  delete from coordinator.files_seen where project_id = v_project;
  delete from coordinator.briefings where project_id = v_project;
  perform coordinator.event_append('project.deleted', p_project, p_project, coordinator.actor_name(p_actor),
    coordinator.now_utc(), '{}');
  return true;
end
$$;
comment on function coordinator.project_delete(text, text) is
  'Delete a project with all its contents: agents, signals, directives, rules, locks, jobs. Its events remain in the log until they are pruned.';
