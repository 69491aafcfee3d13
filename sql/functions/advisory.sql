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

create or replace function coordinator.advisory_claim(p_class integer, p_object integer) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if not pg_try_advisory_lock(p_class, p_object) then
    return false;
  end if;
  perform pg_advisory_lock_shared(p_class, p_object), pg_advisory_unlock(p_class, p_object); -- in this order
  return true;
end
$$;
comment on function coordinator.advisory_claim(integer, integer) is
  'Share an advisory lock that no other session has, until this session ends. Returns whether this session has it. Internal.';

-- The lock is shared, so the new session takes it before the former one releases it, and it is free at no moment.
create or replace function coordinator.advisory_inherit(p_class integer, p_object integer) returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
  v_pids   integer[];
  v_others boolean;
  v_shares boolean := false;
begin
  select coalesce(array_agg(a.pid), '{}'), coalesce(bool_or(a.usename <> session_user), false) into v_pids, v_others
  from pg_locks l join pg_stat_activity a on a.pid = l.pid
  where l.locktype = 'advisory' and l.granted and l.objsubid = 2 and l.pid <> pg_backend_pid()
    and l.database = (select oid from pg_database where datname = current_database())
    and l.classid = p_class::oid and l.objid = p_object::oid;
  if v_others then
    return false;
  end if;
  v_shares := pg_try_advisory_lock_shared(p_class, p_object);
  perform pg_terminate_backend(p) from unnest(v_pids) p;
  if not v_shares then -- a session of an earlier release has not shared it
    perform pg_advisory_lock_shared(p_class, p_object);
  end if;
  return true;
exception when lock_not_available or insufficient_privilege then -- the owner of the schema may not be allowed to end it
  return v_shares;
end
$$;
comment on function coordinator.advisory_inherit(integer, integer) is
  'Share an advisory lock until this session ends, and end the other sessions of the same role that hold it. Waits at most one second. Returns whether this session has the lock; false if a session of another role has it. Internal.';

-- A loop that works for all projects handles one after the other, each in a savepoint, and waits at most 0.1 seconds for what another
-- transaction holds, and half as long after each project that it passed over. So a transaction that stays open, or a row that cannot be
-- handled, obstructs its own project only; and however much is due in a project, each of the others gets an equal share of a run.
--
-- The setting coordinator.loops of the session stores, for each loop, what its next run needs:
--   passed  If a run found as many projects as its limit, those in which it could do nothing. The next runs omit them, until one finds
--           fewer projects. So obstructed projects do not hide others, however many they are.
--   until   To find what is due behind a flood, a run steps over the whole flood. If this took more than 50 ms, it is repeated only after
--           ten times as long (in seconds since 1970), so it takes at most a tenth of the time.
--   after   A run begins no further project after five seconds. The next run begins with the project after this one.
create or replace function coordinator.project_each(p_loop text, p_limit integer, p_due text) returns text[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set lock_timeout = '100ms'
as $$
declare
  v_loops    constant jsonb := coalesce(nullif(current_setting('coordinator.loops', true), ''), '{}');
  v_passed   bigint[] := array(select p::bigint from jsonb_array_elements_text(v_loops #> array[p_loop, 'passed']) p);
  v_until    double precision := (v_loops #>> array[p_loop, 'until'])::double precision;
  v_projects bigint[] := '{}'; -- of each item
  v_items    text[] := '{}';
  v_found    record;
  v_full     bigint[];
  v_began    double precision;
  v_after    bigint := (v_loops #>> array[p_loop, 'after'])::bigint;
  v_end      timestamptz;
  v_of       record;
  v_handled  text[];
  v_all      text[] := '{}';
begin
  perform coordinator.check_page(p_limit);
  for v_round in 1..20 loop -- the items of a project may hide those of others behind the limit
    if v_round = 2 then
      v_began := extract(epoch from clock_timestamp());
      exit when v_began < v_until;
    end if;
    v_found := coordinator.project_due(p_due, v_passed || array(select distinct p from unnest(v_projects) p), p_limit);
    exit when v_found.projects is null;
    -- Projects with less than a share may have more: what was found of them is found again, without what hid the rest.
    v_full := array(select p from unnest(v_found.projects) p group by p
                    having v_round = 20 or cardinality(v_found.projects) < p_limit or v_round = 1 and extract(epoch from clock_timestamp()) < v_until
                           or count(*) >= p_limit / (select count(distinct o) from unnest(v_found.projects) o));
    select v_projects || array_agg(u.project_id order by u.place), v_items || array_agg(u.item order by u.place) into v_projects, v_items
    from unnest(v_found.projects, v_found.items) with ordinality u (project_id, item, place) where u.project_id = any (v_full);
    exit when cardinality(v_found.projects) < p_limit or (select count(distinct p) from unnest(v_projects) p) >= p_limit;
  end loop;
  v_began := extract(epoch from clock_timestamp()) - v_began;
  if v_began > 0.05 then
    v_until := extract(epoch from clock_timestamp()) + 10 * v_began;
  end if;
  if (select count(distinct p) from unnest(v_projects) p) < p_limit then
    v_passed := '{}';
  end if;
  v_end := clock_timestamp() + interval '5 seconds';
  for v_of in -- in the order of projects, as all callers lock them
    select u.project_id, array_agg(u.item order by u.place) as items, greatest(1, p_limit / count(*) over ())::integer as share, count(*) over () as count
    from unnest(v_projects, v_items) with ordinality u (project_id, item, place) group by 1 order by u.project_id <= v_after, 1
  loop
    begin
      v_handled := '{}';
      execute format('select coordinator.%I($1, $2, $3)', p_loop || '_in') into v_handled using v_of.project_id, v_of.items[:v_of.share], v_of.share;
      v_all := v_all || v_handled;
    exception when others then
      perform coordinator.project_passed_over(p_loop, v_of.project_id, sqlerrm);
    end;
    if v_of.count >= p_limit and v_handled <@ '{0}' then -- nothing, or a count of 0
      v_passed := v_passed || v_of.project_id;
    end if;
    v_after := v_of.project_id;
    exit when clock_timestamp() > v_end;
    v_after := null;
  end loop;
  if v_passed <> '{}' or v_until is not null or v_after is not null or v_loops ? p_loop then
    perform set_config('coordinator.loops',
      (v_loops || jsonb_build_object(p_loop, jsonb_build_object('passed', v_passed, 'until', v_until, 'after', v_after)))::text, false);
  end if;
  return v_all;
end
$$;
comment on function coordinator.project_each(text, integer, text) is
  'Handle due items, up to p_limit in total, one project after the other, and return the handled ones. p_due: see project_due. <p_loop>_in(project, items, limit) handles items of a project. If it fails, the project is passed over until the next run. Internal.';

create or replace function coordinator.project_due(p_due text, p_except bigint[], p_limit integer, out projects bigint[], out items text[])
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
as $$
begin
  execute format('select array_agg(d.project_id), array_agg(d.item) from (%s) d (project_id, item)', p_due)
    into projects, items using coordinator.now_utc(), p_except, p_limit;
end
$$;
comment on function coordinator.project_due(text, bigint[], integer) is
  'Run a query of due items, which returns their projects and the items, the most urgent first: of items that are due at $1, of all projects except $2, up to $3. It must find them by an index, whatever the statistics say. Internal.';

create or replace function coordinator.project_passed_over(p_loop text, p_project_id bigint, p_error text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  raise warning using message = format('%s passes over project "%s" until its next run: %s', p_loop,
    (select p.name from coordinator.projects p where p.id = p_project_id), left(p_error, 500));
  perform set_config('lock_timeout', greatest(1, extract(milliseconds from current_setting('lock_timeout')::interval)::integer / 2)::text, true);
end
$$;
comment on function coordinator.project_passed_over(text, bigint, text) is
  'Warn that a loop omits a project until its next run, because of an error, and let it wait half as long for others. Internal.';
