-- Advisory locks, and the maximum time of each wait.
--
-- Anyone who may connect can hold the key of an advisory lock, since pg_locks shows the keys in use. So waits for advisory locks are
-- short, reads take none, and an error names the session that holds the lock. Waits for rows have the same limit: schema_close sets
-- lock_timeout in each function that callers may use.

create or replace function coordinator.advisory_await(p_key bigint, p_shared boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_shared then
    perform pg_advisory_xact_lock_shared(p_key);
  else
    perform pg_advisory_xact_lock(p_key);
  end if;
end
$$;
comment on function coordinator.advisory_await(bigint, boolean) is
  'Take an advisory lock until the end of the transaction; wait no longer than lock_timeout. Internal.';

create or replace function coordinator.advisory_await_a_second(p_key bigint, p_shared boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
begin
  perform coordinator.advisory_await(p_key, p_shared);
end
$$;
comment on function coordinator.advisory_await_a_second(bigint, boolean) is
  'Take an advisory lock until the end of the transaction; wait at most one second. Internal.';

create or replace function coordinator.advisory_enter(p_key bigint, p_shared boolean default false) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_holder record;
begin
  if p_shared and pg_try_advisory_xact_lock_shared(p_key) or not p_shared and pg_try_advisory_xact_lock(p_key) then
    return;
  end if;
  begin
    if current_setting('lock_timeout')::interval between '1 millisecond' and '999 milliseconds' then -- 0: no limit
      perform coordinator.advisory_await(p_key, p_shared);
    else
      perform coordinator.advisory_await_a_second(p_key, p_shared);
    end if;
  exception when lock_not_available then
    select a.pid, a.usename into v_holder
    from pg_locks l join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.granted and l.objsubid = 1 and a.datname = current_database()
      and l.database = (select oid from pg_database where datname = current_database())
      and l.classid = (p_key >> 32 & 4294967295)::oid and l.objid = (p_key & 4294967295)::oid
    order by a.xact_start limit 1;
    raise exception using errcode = 'lock_not_available', message = 'another transaction blocked this call for too long',
      detail = jsonb_build_object('pid', v_holder.pid, 'role', v_holder.usename)::text,
      hint = case when v_holder.pid is null then 'Try again.'
        else format('Session %s of role "%s" holds it. Try again, or end that session: select pg_terminate_backend(%1$s)',
                    v_holder.pid, v_holder.usename) end;
  end;
end
$$;
comment on function coordinator.advisory_enter(bigint, boolean) is
  'Take an advisory lock until the end of the transaction. Waits at most one second, or lock_timeout if that is shorter; then 55P03 names the session that holds it. Internal.';

create or replace function coordinator.advisory_inherit(p_class integer, p_object integer) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
begin
  perform pg_terminate_backend(a.pid)
  from pg_locks l join pg_stat_activity a on a.pid = l.pid
  where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and a.usename = session_user
    and l.database = (select oid from pg_database where datname = current_database())
    and l.classid = p_class::oid and l.objid = p_object::oid;
  if not found then
    return pg_try_advisory_lock(p_class, p_object);
  end if;
  perform pg_advisory_lock(p_class, p_object);
  return true;
exception when lock_not_available or insufficient_privilege then -- the owner of the schema may not be allowed to end it
  return false;
end
$$;
comment on function coordinator.advisory_inherit(integer, integer) is
  'End the session of the same role that holds an advisory lock, and take the lock as soon as it is free, until this session ends. Waits at most one second. Returns whether this session has the lock. Internal.';

-- A loop that works for all projects handles one project after the other, each in a savepoint, and waits at most 0.1 seconds for what another
-- transaction holds. So a transaction that stays open, or a row that cannot be handled, obstructs its own project only. A run passes over five
-- projects at most, because it holds meanwhile what it has locked of the others.
create or replace function coordinator.project_passed_over(p_loop text, p_project_id bigint, p_error text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise warning using message = format('%s passes over project "%s" until its next run: %s', p_loop,
    (select p.name from coordinator.projects p where p.id = p_project_id), left(p_error, 500));
end
$$;
comment on function coordinator.project_passed_over(text, bigint, text) is
  'Warn that a loop omits a project until its next run, because of an error. Internal.';
