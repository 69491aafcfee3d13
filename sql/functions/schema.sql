-- The schema's records about itself, and grants on it.

create or replace function coordinator.schema_record(p_kind text, p_name text, p_checksum text, p_program text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into coordinator.schema_files (kind, name, checksum, program) values (p_kind, p_name, p_checksum, p_program)
  on conflict (kind, name) do update
  set checksum = excluded.checksum, program = excluded.program, applied_at = clock_timestamp()
  where schema_files.checksum <> excluded.checksum
$$;
comment on function coordinator.schema_record(text, text, text, text) is
  'Record that an SQL file was applied. Called by "coordinator schema apply"; runs with the caller''s rights.';

create or replace function coordinator.schema_forget(p_kind text, p_names text[]) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  delete from coordinator.schema_files where kind = p_kind and name <> all (p_names)
$$;
comment on function coordinator.schema_forget(text, text[]) is
  'Forget files that are no longer part of the program. Called by "coordinator schema apply"; runs with the caller''s rights.';

create or replace function coordinator.schema_close() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_function regprocedure;
begin
  -- No caller waits for long, whatever the session sets.
  for v_function in
    select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'coordinator'::regnamespace and p.prosecdef and p.provolatile = 'v'
      and p.proname in (select function from coordinator.rights)
  loop
    execute format('alter function %s set lock_timeout = %L', v_function, '1s');
  end loop;
  perform coordinator.access_apply();
end
$$;
comment on function coordinator.schema_close() is
  'Bound to one second each wait for a lock in the functions that callers may use, revoke everything from PUBLIC, and grant again to the roles of schema_roles. Called by "coordinator schema apply"; runs with the caller''s rights.';

create or replace function coordinator.schema_grant(p_role text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (select from pg_roles where rolname = p_role) then
    raise exception using errcode = 'ZC206', message = format('there is no role "%s"', p_role), hint = 'Create it with: create role … login';
  end if;
  execute format('grant usage on schema coordinator to %I', p_role);
  execute format('grant execute on all routines in schema coordinator to %I', p_role);
  execute format('revoke execute on function coordinator.schema_record(text, text, text, text), coordinator.schema_forget(text, text[]), coordinator.schema_close(), coordinator.schema_grant(text), coordinator.access_apply() from %I', p_role);
  execute format('grant select on all tables in schema coordinator to %I', p_role);
  insert into coordinator.schema_roles (role) values (p_role) on conflict do nothing;
end
$$;
comment on function coordinator.schema_grant(text) is
  'Let a role run the daemon, call the functions and read the tables, without the right to change the schema. Runs with the caller''s rights: only the schema''s owner can call it.';
