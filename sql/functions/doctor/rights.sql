-- Checks of rights: missing roles, missing grants and excess grants. All of these occur after a restore without privileges.

insert into coordinator.checks (name, warning, critical, unit, fix, meaning) values
  ('grants', null, null, '', 'grants what is missing', 'Whether the roles coordinator_reader, _agent, _manager and _admin exist and have their privileges, and PUBLIC has none.');

create or replace function coordinator.doctor_grants(p_warning double precision, p_critical double precision)
returns table (severity text, message text, remedy text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  with findings (severity, message, remedy) as (
    select 'warning', 'Roles are missing.', format('As an administrator of the database, run: %s Then run "coordinator schema apply".', string_agg(r, ' '))
    from coordinator.role_statements() r having count(*) > 0
    union all
    select 'critical', format('Role %s lacks %s on objects of the schema: %s.', m.role, m.kind, m.count),
           'As the owner of the schema: coordinator doctor --fix' || case when length(m.statement) <= 500 then '; or in psql: ' || m.statement else '' end
    from coordinator.access_missing() m
    union all
    select 'critical', format('Functions of the schema that every role can call: %s, such as %s.', count(*), min(p.proname)),
           'revoke all on all routines in schema coordinator from public'
    from pg_proc p
    where p.pronamespace = 'coordinator'::regnamespace
      and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a where a.grantee = 0)
    having count(*) > 0)
  select f.severity, f.message, f.remedy from findings f
  union all
  select 'ok', 'Roles and grants are correct.', null where not exists (select from findings)
$$;
comment on function coordinator.doctor_grants(double precision, double precision) is
  'Check roles and grants. Internal.';

create or replace function coordinator.doctor_fix_grants() returns setof text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_missing record;
begin
  for v_missing in select * from coordinator.access_missing() loop
    execute v_missing.statement;
    return next format('granted %s on %s objects to %s', v_missing.kind, v_missing.count, v_missing.role);
  end loop;
end
$$;
comment on function coordinator.doctor_fix_grants() is
  'Grant missing privileges. Internal.';
