-- Which locks and tickets overlap a resource (see resource.sql).
--
-- An overlap is found by index, however many locks are held: what covers a path is looked up by name (covered_by), what is
-- below a directory is a range of the primary key, and only those globs are examined whose literal directory is above the
-- path or below the directory.

-- Two globs. lock_shape writes one so that texts can be compared: \x01 stands for * and for a class, \x02 for ?, and \x03 for **.
-- If both segments have a *, they meet if the texts before the first and after the last * agree, because what is between can
-- stand one after the other; the same holds for two globs that have a **. So nothing is searched but the place of one
-- segment's or glob's parts in another of fixed length, and one pair takes at most 32 * 32 comparisons of segments.

create or replace function coordinator.lock_shape(p_glob text) returns text
language sql immutable parallel safe
return translate(regexp_replace(replace(regexp_replace(p_glob, '^glob:', ''), '**', E'\x03'), '\[[!^]?[^/][^]/]*\]', E'\x01', 'g'), '*?', E'\x01\x02');
comment on function coordinator.lock_shape(text) is
  'Return a glob with \x01 for * and classes, \x02 for ? and \x03 for **. Internal.';

create or replace function coordinator.lock_like(p_shape text) returns text
language sql immutable parallel safe
return translate(regexp_replace(regexp_replace(p_shape, '([\\%_])', '\\\1', 'g'), E'/?\x03/?', '%', 'g'), E'\x01\x02', '%_');
comment on function coordinator.lock_like(text) is
  'Return a LIKE pattern that matches at least what a shape does: exactly that for a segment without classes. Internal.';

create or replace function coordinator.lock_starts_meet(p_a text, p_b text) returns boolean
language plpgsql immutable parallel safe
as $$
declare
  v_at integer;
begin
  p_a := left(p_a, length(p_b));
  p_b := left(p_b, length(p_a));
  loop
    v_at := coalesce(nullif(strpos(p_a, E'\x02'), 0), strpos(p_b, E'\x02'));
    exit when v_at = 0;
    p_a := overlay(p_a placing '' from v_at for 1);
    p_b := overlay(p_b placing '' from v_at for 1);
  end loop;
  return p_a = p_b;
end
$$;
comment on function coordinator.lock_starts_meet(text, text) is
  'Return whether two texts with \x02 for any character agree as far as the shorter goes. Internal.';

create or replace function coordinator.lock_segments_meet(p_a text, p_b text) returns boolean
language plpgsql immutable parallel safe
as $$
declare
  v_end integer;
begin
  if p_a = p_b or p_a = E'\x01' or p_b = E'\x01' then
    return true;
  elsif strpos(p_a, E'\x01') = 0 then
    if strpos(p_b, E'\x01') = 0 then
      return length(p_a) = length(p_b) and coordinator.lock_starts_meet(p_a, p_b);
    end if;
    return coordinator.lock_segments_meet(p_b, p_a);
  elsif strpos(p_b, E'\x01') = 0 then
    if strpos(p_b, E'\x02') = 0 then
      return p_b like coordinator.lock_like(p_a);
    elsif length(p_b) < length(replace(p_a, E'\x01', '')) then
      return false;
    end if;
  end if;
  return coordinator.lock_starts_meet(split_part(p_a, E'\x01', 1), split_part(p_b, E'\x01', 1))
     and coordinator.lock_starts_meet(split_part(reverse(p_a), E'\x01', 1), split_part(reverse(p_b), E'\x01', 1));
end
$$;
comment on function coordinator.lock_segments_meet(text, text) is
  'Return whether some text could match both segments, as lock_shape writes them. Internal.';

create or replace function coordinator.lock_globs_meet(p_a text, p_b text) returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_a     text[] := string_to_array(coordinator.lock_shape(p_a), '/');
  v_b     text[] := string_to_array(coordinator.lock_shape(p_b), '/');
  v_a_end integer := cardinality(v_a);
  v_b_end integer := cardinality(v_b);
  v_any   integer := 0; -- the last ** of a that was passed
  v_from  integer;
  i       integer := 1;
  j       integer := 1;
begin
  if array_position(v_a, E'\x03') is null and array_position(v_b, E'\x03') is not null then
    return coordinator.lock_globs_meet(p_b, p_a);
  end if;
  -- After the last ** of each.
  loop
    exit when v_a_end = 0 or v_b_end = 0 or v_a[v_a_end] = E'\x03' or v_b[v_b_end] = E'\x03';
    if not coordinator.lock_segments_meet(v_a[v_a_end], v_b[v_b_end]) then
      return false;
    end if;
    v_a_end := v_a_end - 1;
    v_b_end := v_b_end - 1;
  end loop;
  -- The rest, from the start. Where b has a **, so has a, and nothing can keep them apart once both starts agree.
  loop
    exit when j > v_b_end;
    if v_b[j] = E'\x03' then
      return true;
    elsif i <= v_a_end and v_a[i] = E'\x03' then
      if array_position(v_b[j : v_b_end], E'\x03') is not null then
        return true;
      end if;
      v_any := i;
      v_from := j;
      i := i + 1;
    elsif i <= v_a_end and coordinator.lock_segments_meet(v_a[i], v_b[j]) then
      i := i + 1;
      j := j + 1;
    elsif v_any > 0 then
      i := v_any + 1;
      v_from := v_from + 1;
      j := v_from;
    else
      return false;
    end if;
  end loop;
  while i <= v_a_end and v_a[i] = E'\x03' loop
    i := i + 1;
  end loop;
  return i > v_a_end;
end
$$;
comment on function coordinator.lock_globs_meet(text, text) is
  'Return whether some path could match both globs: sometimes true when none does, never false when one does. Internal.';

create or replace function coordinator.lock_meets(
  p_r coordinator.lock_resource, p_reach text, p_kind text, p_resource text, p_pattern text) returns boolean
language sql immutable parallel safe
return case
  when p_kind = 'glob' and p_r.kind = 'path' then p_r.path ~ p_pattern
  when p_kind = 'glob' and p_r.kind = 'directory' then p_r.path ~ coordinator.lock_reach(p_resource)
  when p_kind = 'glob' then coordinator.lock_globs_meet(p_resource, p_r.resource)
  when p_r.kind = 'directory' then true
  when p_kind = 'path' then regexp_replace(p_resource, '^path:', '') ~ p_r.pattern
  else rtrim(regexp_replace(p_resource, '^path:', ''), '/') ~ p_reach end;
comment on function coordinator.lock_meets(coordinator.lock_resource, text, text, text, text) is
  'Return whether a resource overlaps another whose directory is above or below its own; p_reach: the lock_reach of the first if it is a glob. Internal.';

create or replace function coordinator.lock_overlaps(p_a coordinator.lock_resource, p_b coordinator.lock_resource) returns boolean
language sql immutable parallel safe
return p_a.resource = any (p_b.covered_by) or p_b.resource = any (p_a.covered_by) or case
  when 'name' in (p_a.kind, p_b.kind) then false
  when p_b.kind = 'glob' then
    coordinator.lock_meets(p_a, null, p_b.kind, p_b.resource, p_b.pattern) or p_a.kind = 'directory' and starts_with('/' || p_b.path || '/', rtrim('/' || p_a.path, '/') || '/')
  when p_a.kind = 'glob' then
    coordinator.lock_meets(p_b, null, p_a.kind, p_a.resource, p_a.pattern) or p_b.kind = 'directory' and starts_with('/' || p_a.path || '/', rtrim('/' || p_b.path, '/') || '/')
  else false end;
comment on function coordinator.lock_overlaps(coordinator.lock_resource, coordinator.lock_resource) is
  'Return whether two resources overlap. Internal.';

create or replace function coordinator.lock_ranges(p_r coordinator.lock_resource) returns text[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Whatever a glob matches begins with the text before its first wildcard; if that text has no successor, with its directory.
  v_low  text := case p_r.kind when 'glob' then substring(p_r.resource from '^(?:glob:)?([^*?[]*)') else p_r.path || '/' end;
  v_high text;
begin
  if right(v_low, 1) !~ '^[ -z]$' then
    v_low := case when p_r.path = '' then '' else p_r.path || '/' end;
  end if;
  if v_low = '' then
    return array[['', U&'\+10FFFF']];
  end if;
  v_high := left(v_low, -1) || chr(ascii(right(v_low, 1)) + 1);
  return array[[v_low, v_high], ['path:' || v_low, 'path:' || v_high]];
end
$$;
comment on function coordinator.lock_ranges(coordinator.lock_resource) is
  'Return the ranges (from, before) of the texts of paths and directories that a directory or glob could contain. Internal.';

create or replace function coordinator.lock_rows(p_waiting boolean, p_from bigint, p_before bigint) returns setof coordinator.locks
language sql stable
begin atomic
  select * from coordinator.locks where not p_waiting
  union all
  select project_id, resource, null, kind, prefix, pattern, mode, slots, agent_id, agent_name, null, ttl, delay, request_id, ticket,
         false, enqueued_at, expires_at, expires_at, null, owner, null
  from coordinator.lock_waits where p_waiting and ticket >= p_from and ticket < p_before;
end;
comment on function coordinator.lock_rows(boolean, bigint, bigint) is
  'Return all locks or, with p_waiting, the tickets from p_from to before p_before in the shape of locks. The planner inlines it, so indexes are used. Internal.';

create or replace function coordinator.lock_below(
  p_project_id bigint, p_r coordinator.lock_resource, p_waiting boolean, p_from bigint default 0, p_before bigint default 9223372036854775807)
returns setof coordinator.locks
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
set plan_cache_mode = force_generic_plan -- half of each query is constant, so a plan for its arguments always looks cheaper
as $$
declare
  v_reach  text := case when p_r.kind = 'glob' then coordinator.lock_reach(p_r.resource) end;
  v_ranges text[] := coordinator.lock_ranges(p_r);
begin
  return query -- globs below: 0 follows /
    select l.* from coordinator.lock_rows(p_waiting, p_from, p_before) l
    where l.project_id + 0 = p_project_id and l.kind = 'glob' and l.prefix <> p_r.path
      and l.prefix >= case when p_r.path = '' then '' else p_r.path || '/' end
      and l.prefix < case when p_r.path = '' then U&'\+10FFFF' else p_r.path || '0' end
      and (p_r.kind = 'directory' or coordinator.lock_meets(p_r, v_reach, l.kind, l.resource, l.pattern))
    union all
    select l.* from generate_subscripts(v_ranges, 1) n, lateral (
      select * from coordinator.lock_rows(p_waiting, p_from, p_before) l
      where l.project_id = p_project_id and l.resource >= v_ranges[n][1] and l.resource < v_ranges[n][2] offset 0) l
    where l.kind in ('path', 'directory') and l.resource <> all (p_r.covered_by)
      and coordinator.lock_meets(p_r, v_reach, l.kind, l.resource, l.pattern);
end
$$;
comment on function coordinator.lock_below(bigint, coordinator.lock_resource, boolean, bigint, bigint) is
  'Return the locks, or with p_waiting the tickets, that overlap a directory or glob and whose own directory is below its. Internal.';

create or replace function coordinator.lock_overlapping(
  p_project_id bigint, p_r coordinator.lock_resource, p_waiting boolean, p_from bigint default 0, p_before bigint default 9223372036854775807)
returns setof coordinator.locks
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
set plan_cache_mode = force_generic_plan -- half of each query is constant, so a plan for its arguments always looks cheaper
as $$
begin
  return query
    select x.* from unnest(p_r.covered_by) c, lateral ( -- one lookup each: before PostgreSQL 17 a list may become a filter
      select * from coordinator.lock_rows(p_waiting, p_from, p_before) l where l.project_id = p_project_id and l.resource = c offset 0) x;
  if p_r.kind = 'name' then
    return;
  end if;
  return query
    select l.* from unnest(p_r.above || p_r.path) c, lateral (
      select * from coordinator.lock_rows(p_waiting, p_from, p_before) g where g.project_id + 0 = p_project_id and g.prefix = c and g.kind = 'glob' offset 0) l
    where coordinator.lock_meets(p_r, null, l.kind, l.resource, l.pattern);
  if p_r.kind <> 'path' then
    return query select * from coordinator.lock_below(p_project_id, p_r, p_waiting, p_from, p_before);
  end if;
end
$$;
comment on function coordinator.lock_overlapping(bigint, coordinator.lock_resource, boolean, bigint, bigint) is
  'Return the locks on resources that overlap one, expired locks included; with p_waiting the tickets from p_from to before p_before, as lock_rows shows them. Internal.';

-- One glob after the other, the foremost first: its expression is compiled once for all paths, and matched (10 to 30 µs) only
-- against those that no glob before it holds and that pass LIKE (0.2 µs).
create or replace function coordinator.lock_foremost(p_project_id bigint, p_all coordinator.lock_resource[], p_agent uuid)
returns table (place bigint, mine boolean, lock coordinator.locks)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
as $$
#variable_conflict use_column
declare
  v_now   timestamptz := coordinator.now_utc();
  v_glob  coordinator.locks;
  v_left  bigint[];
  v_kinds text[];
  v_paths text[];
  v_texts text[];
  v_like  text;
  v_reach text;
  v_hits  bigint[];
begin
  select array_agg(r.n), array_agg(r.kind), array_agg(r.path), array_agg(r.resource) into v_left, v_kinds, v_paths, v_texts
  from unnest(p_all) with ordinality r (resource, kind, path, above, covered_by, pattern, n) where r.kind <> 'name';
  for v_glob in
    select l.* from (select distinct a from unnest(p_all) r, unnest(r.above || r.path) a where r.kind <> 'name' offset 0) c, lateral (
      select * from coordinator.locks g where g.project_id + 0 = p_project_id and g.prefix = c.a and g.kind = 'glob' offset 0) l
    where l.free_at > v_now order by l.agent_id is not distinct from p_agent and l.expires_at > v_now, l.expires_at desc
  loop
    v_like := coordinator.lock_like(coordinator.lock_shape(v_glob.resource));
    v_reach := coordinator.lock_reach(v_glob.resource);
    v_hits := array(
      select u.n from unnest(v_left, v_kinds, v_paths, v_texts) u (n, kind, path, resource)
      where case u.kind when 'path' then u.path like v_like and u.path ~ v_glob.pattern
                        when 'directory' then starts_with(u.path || '/', v_glob.prefix) and u.path ~ v_reach
                        else coordinator.lock_globs_meet(u.resource, v_glob.resource) end);
    continue when v_hits = '{}';
    select array_agg(u.n), array_agg(u.kind), array_agg(u.path), array_agg(u.resource) into v_left, v_kinds, v_paths, v_texts
    from unnest(v_left, v_kinds, v_paths, v_texts) u (n, kind, path, resource) where u.n <> all (v_hits);
    return query select h, v_glob.agent_id is not distinct from p_agent and v_glob.expires_at > v_now, v_glob from unnest(v_hits) h;
    exit when v_left is null;
  end loop;
  return query
    select distinct on (x.n) x.n, x.own, x.l from (
      select x.n, (x.l).agent_id is not distinct from p_agent and (x.l).expires_at > v_now as own, x.l from (
        select r.n, y.l from unnest(p_all) with ordinality r (resource, kind, path, above, covered_by, pattern, n), unnest(r.covered_by) c, lateral (
          select l from coordinator.locks l where l.project_id = p_project_id and l.resource = c offset 0) y
        union all
        select n.n, l::coordinator.locks from generate_series(1::bigint, cardinality(p_all)) n (n),
          lateral coordinator.lock_below(p_project_id, p_all[n.n], false) l where p_all[n.n].kind in ('directory', 'glob')) x (n, l)
      where (x.l).free_at > v_now) x
    order by x.n, x.own, (x.l).expires_at desc;
end
$$;
comment on function coordinator.lock_foremost(bigint, coordinator.lock_resource[], uuid) is
  'Return, with the place of each resource in the list, the lock of another agent that overlaps it and ends last, or else one of p_agent: one of globs above it, and one of the others. Internal.';
