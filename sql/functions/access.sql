-- Access: who may call which functions, and in which projects.
--
-- There are four roles, each of which includes the ones before it: reader, agent, manager, admin. Tokens (HTTP) and database roles
-- (coordinator_reader and so on: groups without login) use the same four roles and the same table: rights.
--
-- Only coordinator_admin and the daemon may read tables and call functions that are not in rights. Every role may read views, and
-- tables with row-level security. A role that is bound to projects (role_bind) uses and sees only these. session_user counts, the role
-- that logged in: functions run with the owner's rights, so current_user is always the owner, and SET ROLE cannot leave a project. A
-- role without a binding, the owner and superusers see everything.
--
-- Limitation: NOTIFY has no access control. Any role that may connect to the database can LISTEN on any channel. If projects must not
-- see each other's events, run: select coordinator.event_configure('pointer'), or 'head'.

insert into coordinator.event_types (type, key, data, meaning) values
  ('role.bound',   'name of the role', '{}', 'A database role was restricted to the project.'),
  ('role.unbound', 'name of the role', '{}', 'A database role is no longer restricted to the project.');

insert into coordinator.rights (function, role) values
  ('role_bind',   'admin'),
  ('role_unbind', 'admin');

insert into coordinator.limits (name, value, unit, meaning) values
  ('role_name', 63, 'characters', 'Name of a database role, as PostgreSQL limits it.');

create or replace function coordinator.roles_unbound() returns boolean
language sql volatile parallel unsafe
return pg_sequence_last_value('coordinator.role_bindings') = 0;
comment on function coordinator.roles_unbound() is
  'Return whether no role was ever bound to a project, so that callers need not look for bindings. Only for functions that write: a standby cannot read the sequence this way. Internal.';

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
  'Record, before the first binding commits, that bindings must be looked up from now on. Internal.';

create or replace trigger role_projects_bound after insert or update on coordinator.role_projects
  for each statement execute function coordinator.role_bound();

create or replace function coordinator.role_bind(p_role text, p_project text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint;
begin
  perform coordinator.everywhere_check();
  perform coordinator.check_name('the role', p_role, 63);
  v_project := coordinator.project_id(p_project);
  if not exists (select from pg_roles where rolname = p_role) then
    raise exception using errcode = 'ZC206', message = format('there is no role "%s"', p_role), hint = 'Create it with: create role … login';
  end if;
  insert into coordinator.role_projects (role, project) values (p_role, p_project) on conflict do nothing;
  if not found then
    return false;
  end if;
  perform coordinator.event_append('role.bound', p_project, p_role, coordinator.actor_name(p_actor), coordinator.now_utc(), '{}');
  return true;
end
$$;
comment on function coordinator.role_bind(text, text, text) is
  'Bind a database role to a project. A bound role may use only the projects to which it is bound, from its next call on. Return false if it is already bound. The binding belongs to the role''s name: bind the role again after you rename it.';

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
  perform coordinator.event_append('role.unbound', p_project, p_role, coordinator.actor_name(p_actor), coordinator.now_utc(), '{}');
  return true;
end
$$;
comment on function coordinator.role_unbind(text, text, text) is
  'Remove the binding of a role to a project; return false if there is none. A role without any binding may use all projects: to lock it out, drop it or revoke its group.';

create or replace function coordinator.role_statements() returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select format('create role %I nologin;', r.name)
  from unnest(array['coordinator_reader', 'coordinator_agent', 'coordinator_manager', 'coordinator_admin']) with ordinality r (name, place)
  where not exists (select from pg_roles where rolname = r.name) order by r.place
$$;
comment on function coordinator.role_statements() is
  'List the statements that a database administrator must run before the next "coordinator schema apply" if the schema''s owner may not create roles; no rows: all roles exist.';

-- A view calls functions with the rights of its reader, so a view that calls internal functions is for administrators only. A view that
-- is itself internal shows all projects.
create or replace function coordinator.access_views() returns setof oid
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select c.oid
  from pg_class c
  where c.relnamespace = 'coordinator'::regnamespace
    and (c.relkind = 'v' or c.relrowsecurity or c.relname in ('event_types', 'rights', 'limits', 'checks', 'transaction_verbs'))
    and coalesce(obj_description(c.oid, 'pg_class'), '') !~ '\mInternal\M'
    and not exists (
      select from pg_rewrite w
      join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid and d.refclassid = 'pg_proc'::regclass
      join pg_proc p on p.oid = d.refobjid and p.pronamespace = 'coordinator'::regnamespace
      where w.ev_class = c.oid and p.proname not in (select function from coordinator.rights))
$$;
comment on function coordinator.access_views() is
  'List the views and tables that every role may read. Internal.';

create or replace function coordinator.access_wanted() returns table (role text, kind text, object oid)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with ladder (role, place) as (
    select l.role, l.place from unnest(array['reader', 'agent', 'manager', 'admin']) with ordinality l (role, place)),
  groups as (
    select g.rolname, l.place from ladder l join pg_roles g on g.rolname = 'coordinator_' || l.role where l.place < 4),
  whole as (
    select g.rolname from pg_roles g where g.rolname = 'coordinator_admin' or g.rolname in (select s.role from coordinator.schema_roles s))
  select g.rolname, 'usage', null::oid from (select rolname from groups union select rolname from whole) g
  union all
  select g.rolname, 'execute', p.oid
  from groups g
  join coordinator.rights r on (select l.place from ladder l where l.role = r.role) <= g.place
  join pg_proc p on p.proname = r.function and p.pronamespace = 'coordinator'::regnamespace
  union all
  select w.rolname, 'execute', p.oid
  from whole w join pg_proc p on p.pronamespace = 'coordinator'::regnamespace
  where p.proname not in ('schema_record', 'schema_forget', 'schema_close', 'schema_grant', 'access_apply')
  union all
  select g.rolname, 'select', v.oid from groups g cross join coordinator.access_views() v (oid)
  union all -- to read a partitioned table, a role needs no right on its partitions
  select w.rolname, 'select', c.oid
  from whole w join pg_class c on c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p', 'v') and not c.relispartition
$$;
comment on function coordinator.access_wanted() is
  'List the privileges granted by rights and schema_roles: each with its role, its kind (usage, execute, select) and its object. Internal.';

create or replace function coordinator.access_missing() returns table (role text, kind text, count bigint, statement text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select w.role, w.kind, count(*),
         case w.kind when 'usage' then format('grant usage on schema coordinator to %I', w.role)
                     when 'execute' then format('grant execute on routine %s to %I', string_agg(w.object::regprocedure::text, ', ' order by w.object::regprocedure::text), w.role)
                     else format('grant select on %s to %I', string_agg(w.object::regclass::text, ', ' order by w.object::regclass::text), w.role) end
  from coordinator.access_wanted() w
  where not case w.kind when 'usage' then has_schema_privilege(w.role, 'coordinator', 'usage')
                        when 'execute' then has_function_privilege(w.role, w.object, 'execute')
                        else has_table_privilege(w.role, w.object, 'select') end
  group by w.role, w.kind
$$;
comment on function coordinator.access_missing() is
  'List the privileges granted by rights and schema_roles that the roles of the schema lack, with the statements that grant them: one for each role and kind (usage, execute, select). Internal.';

-- PostgreSQL grants every new function to PUBLIC. A revoke writes a version of each object even if it changes nothing, so only existing
-- privileges are revoked.
create or replace function coordinator.access_surplus() returns setof text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with granted (role, kind, object, privilege) as (
    select coalesce(g.rolname, 'public'), 'execute', p.oid, a.privilege_type
    from pg_proc p
    cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    left join pg_roles g on g.oid = a.grantee
    where p.pronamespace = 'coordinator'::regnamespace
    union all
    select g.rolname, 'select', c.oid, a.privilege_type
    from pg_class c
    cross join aclexplode(c.relacl) a
    join pg_roles g on g.oid = a.grantee
    where c.relnamespace = 'coordinator'::regnamespace and c.relkind in ('r', 'p', 'v'))
  select case g.kind when 'execute' then format('revoke all on routine %s from %s', string_agg(distinct g.object::regprocedure::text, ', '), g.role)
                     else format('revoke all on %s from %s', string_agg(distinct g.object::regclass::text, ', '), g.role) end
  from granted g
  left join coordinator.access_wanted() w on w.role = g.role and w.kind = g.kind and w.object = g.object and w.kind = lower(g.privilege)
  where g.role in ('public', 'coordinator_reader', 'coordinator_agent', 'coordinator_manager') and w.role is null
  group by g.role, g.kind
$$;
comment on function coordinator.access_surplus() is
  'List statements that revoke what rights does not grant: from PUBLIC, all routines; from the roles coordinator_reader, _agent and _manager, the objects on which they have other privileges. Internal.';

create or replace function coordinator.access_apply() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_statement text;
begin
  if (select rolcreaterole or rolsuper from pg_roles where rolname = current_user) then
    for v_statement in select * from coordinator.role_statements() loop
      begin
        execute v_statement;
      exception when duplicate_object or unique_violation then
        null; -- roles belong to the whole cluster: a schema apply of another database has just created this one
      end;
    end loop;
  end if;
  for v_statement in select * from coordinator.access_surplus() loop
    execute v_statement;
  end loop;
  for v_statement in select m.statement from coordinator.access_missing() m loop
    execute v_statement;
  end loop;
end
$$;
comment on function coordinator.access_apply() is
  'Create the roles coordinator_reader, _agent, _manager and _admin if the caller may, grant to those that exist exactly what rights lists, and revoke every routine from PUBLIC. Called by "coordinator schema apply"; runs with the caller''s rights.';
