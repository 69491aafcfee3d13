-- Access: who may call what, and in which projects.
--
-- Four roles, each of which may do what the one before may: reader, agent, manager, admin. Tokens (HTTP) and roles of
-- the database (coordinator_reader and so on: groups without login) have the same four, by the same table: rights.
--
-- A function that is not in rights is closed to all but coordinator_admin and the daemon. Tables are closed to all but
-- these, too; the views are open to every role, and show a role that is kept to projects (role_bind) these projects only.
-- That goes by session_user, the role that logged in: functions run with the owner's rights, so current_user says
-- nothing, and SET ROLE cannot leave a project. A role without a binding, the owner and superusers see all.
--
-- What this does not do: NOTIFY has no access control. Any role that may connect to the database can LISTEN on any
-- channel; where projects must not see each other's events, say select coordinator.relay_configure('pointer').

insert into coordinator.event_types (type, key, data, meaning) values
  ('role.bound',   'name of the role', '{}', 'A role of the database was kept to the project.'),
  ('role.unbound', 'name of the role', '{}', 'A role of the database was no longer kept to the project.');

insert into coordinator.rights (function, role) values
  ('role_bind',   'admin'),
  ('role_unbind', 'admin');

create or replace function coordinator.roles_unbound() returns boolean
language sql volatile parallel unsafe
return pg_sequence_last_value('coordinator.role_bindings') = 0;
comment on function coordinator.roles_unbound() is
  'Whether no role was ever kept to a project: then nobody need look what the caller''s is kept to. Only for what writes: the sequence cannot be read so on a standby. Internal.';

create or replace function coordinator.role_bound() returns trigger
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform setval('coordinator.role_bindings', 1);
  return null;
end
$$;
comment on function coordinator.role_bound() is
  'Say, before the first binding commits, that bindings are to be looked at. Internal.';

create or replace trigger role_projects_bound after insert or update on coordinator.role_projects
  for each statement execute function coordinator.role_bound();

create or replace function coordinator.role_bind(p_role text, p_project text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.everywhere_check();
  perform coordinator.check_name('the role', p_role, 63);
  perform coordinator.project_id(p_project);
  if not exists (select from pg_roles where rolname = p_role) then
    raise exception using errcode = 'ZC206', message = format('there is no role "%s"', p_role), hint = 'Make it with: create role … login';
  end if;
  insert into coordinator.role_projects (role, project) values (p_role, p_project) on conflict do nothing;
  if not found then
    return false;
  end if;
  perform coordinator.outbox_append('role.bound', p_project, p_role, coordinator.actor_name(p_actor), coordinator.now_utc(), '{}');
  return true;
end
$$;
comment on function coordinator.role_bind(text, text, text) is
  'Keep a role of the database to a project, and to others that it is bound to; false if it is already. Holds from its next call on. The binding goes by the role''s name: bind anew after renaming it.';

create or replace function coordinator.role_unbind(p_role text, p_project text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.everywhere_check();
  perform coordinator.check_name('the role', p_role, 63);
  delete from coordinator.role_projects where role = p_role and project = p_project;
  if not found then
    return false;
  end if;
  perform coordinator.outbox_append('role.unbound', p_project, p_role, coordinator.actor_name(p_actor), coordinator.now_utc(), '{}');
  return true;
end
$$;
comment on function coordinator.role_unbind(text, text, text) is
  'End the binding of a role to a project; false if there is none. A role whose last binding ends may use all projects: drop it, or revoke its group, to shut it out.';

create or replace function coordinator.role_statements() returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format('create role %I nologin;', r.name)
  from unnest(array['coordinator_reader', 'coordinator_agent', 'coordinator_manager', 'coordinator_admin']) with ordinality r (name, place)
  where not exists (select from pg_roles where rolname = r.name) order by r.place
$$;
comment on function coordinator.role_statements() is
  'What a database administrator has to run, before the next "coordinator schema apply", where the schema''s owner may not create roles; no rows: all roles are there.';

create or replace function coordinator.access_apply() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_ladder    constant text[] := array['reader', 'agent', 'manager', 'admin'];
  v_statement text;
  v_place     integer;
  v_group     text;
  v_functions text;
  v_views     text;
begin
  if (select rolcreaterole or rolsuper from pg_roles where rolname = current_user) then
    for v_statement in select * from coordinator.role_statements() loop
      begin
        execute v_statement;
      exception when duplicate_object or unique_violation then
        null; -- roles belong to the cluster: another database's apply made it meanwhile
      end;
    end loop;
  end if;
  -- A view calls its functions with the rights of who reads it: one that calls internal ones stays with administrators.
  select string_agg(format('coordinator.%I', c.relname), ', ') into v_views
  from pg_class c
  where c.relnamespace = 'coordinator'::regnamespace
    and (c.relkind = 'v' or c.relname in ('event_types', 'rights', 'limits'))
    and not exists (
      select from pg_rewrite w
      join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_proc'::regclass
      join pg_proc p on p.oid = d.refobjid and p.pronamespace = 'coordinator'::regnamespace
      where w.ev_class = c.oid and p.proname not in (select function from coordinator.rights));
  for v_place in 1 .. 4 loop
    v_group := 'coordinator_' || v_ladder[v_place];
    continue when not exists (select from pg_roles where rolname = v_group);
    if v_ladder[v_place] = 'admin' then
      perform coordinator.schema_grant(v_group);
      continue;
    end if;
    execute format('revoke all on all functions in schema coordinator from %I', v_group);
    execute format('revoke all on all tables in schema coordinator from %I', v_group);
    select string_agg(p.oid::regprocedure::text, ', ') into v_functions
    from pg_proc p join coordinator.rights r on r.function = p.proname
    where p.pronamespace = 'coordinator'::regnamespace and array_position(v_ladder, r.role) <= v_place;
    execute format('grant usage on schema coordinator to %I', v_group);
    execute format('grant execute on function %s to %I', v_functions, v_group);
    execute format('grant select on %s to %I', v_views, v_group);
  end loop;
end
$$;
comment on function coordinator.access_apply() is
  'Create the roles coordinator_reader, _agent, _manager and _admin where the caller may, and grant to those that are there exactly what rights says. Called by "coordinator schema apply"; runs with the caller''s rights.';
