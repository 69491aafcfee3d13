-- Which locks and tickets overlap a resource (see resource.sql).
--
-- An overlap is found by index, however many locks are held: what covers a path is looked up by name (covered_by), what is
-- below a directory is a range of the primary key, and only those globs are examined whose literal directory is above the
-- path or below the directory.

create or replace function coordinator.lock_segments_meet(p_a text, p_b text) returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_a    text[];
  v_b    text[];
  v_row  boolean[]; -- v_row[j + 1]: whether the rest of a from i and the rest of b from j can match the same text
  v_next boolean[];
  v_meet boolean;
  i      integer;
  j      integer;
begin
  if p_a = p_b or p_a = '*' or p_b = '*' then
    return true;
  elsif p_a !~ '[*?[]' and p_b !~ '[*?[]' then
    return false;
  end if;
  v_a := coordinator.lock_segment_tokens(p_a);
  v_b := coordinator.lock_segment_tokens(p_b);
  for i in reverse cardinality(v_a) .. 0 loop
    v_row := array_fill(false, array[cardinality(v_b) + 1]);
    for j in reverse cardinality(v_b) .. 0 loop
      v_meet := case
        when i = cardinality(v_a) and j = cardinality(v_b) then true
        when i < cardinality(v_a) and v_a[i + 1] = '*' then v_next[j + 1] or j < cardinality(v_b) and v_row[j + 2]
        when j < cardinality(v_b) and v_b[j + 1] = '*' then v_row[j + 2] or i < cardinality(v_a) and v_next[j + 1]
        when i = cardinality(v_a) or j = cardinality(v_b) then false
        when not v_next[j + 2] then false
        when v_a[i + 1] = '?' or v_b[j + 1] = '?' or v_a[i + 1] = v_b[j + 1] then true
        when v_a[i + 1] like '=%' and v_b[j + 1] like '=%' then false
        when v_a[i + 1] like '=%' then substr(v_a[i + 1], 2) ~ v_b[j + 1]
        when v_b[j + 1] like '=%' then substr(v_b[j + 1], 2) ~ v_a[i + 1]
        else true -- two classes: assume they meet
      end;
      v_row[j + 1] := v_meet;
    end loop;
    v_next := v_row;
  end loop;
  return v_next[1];
end
$$;
comment on function coordinator.lock_segments_meet(text, text) is
  'Return whether some text could match both segments of globs. Internal.';

create or replace function coordinator.lock_globs_meet(p_a text, p_b text) returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_a    text[] := string_to_array(regexp_replace(p_a, '^glob:', ''), '/');
  v_b    text[] := string_to_array(regexp_replace(p_b, '^glob:', ''), '/');
  v_row  boolean[];
  v_next boolean[];
  i      integer;
  j      integer;
begin
  for i in reverse cardinality(v_a) .. 0 loop
    v_row := array_fill(false, array[cardinality(v_b) + 1]);
    for j in reverse cardinality(v_b) .. 0 loop
      v_row[j + 1] := case
        when i = cardinality(v_a) and j = cardinality(v_b) then true
        when i < cardinality(v_a) and v_a[i + 1] = '**' then v_next[j + 1] or j < cardinality(v_b) and v_row[j + 2]
        when j < cardinality(v_b) and v_b[j + 1] = '**' then v_row[j + 2] or i < cardinality(v_a) and v_next[j + 1]
        when i = cardinality(v_a) or j = cardinality(v_b) then false
        when not v_next[j + 2] then false
        else coordinator.lock_segments_meet(v_a[i + 1], v_b[j + 1])
      end;
    end loop;
    v_next := v_row;
  end loop;
  return v_next[1];
end
$$;
comment on function coordinator.lock_globs_meet(text, text) is
  'Return whether some path could match both globs: sometimes true when none does, never false when one does. Internal.';

create or replace function coordinator.lock_globs_may_meet(p_a text, p_b text) returns boolean
language sql immutable parallel safe
return (starts_with(substring(p_a from '^(?:glob:)?([^*?[]*)'), substring(p_b from '^(?:glob:)?([^*?[]*)'))
        or starts_with(substring(p_b from '^(?:glob:)?([^*?[]*)'), substring(p_a from '^(?:glob:)?([^*?[]*)')))
   and (starts_with(reverse(substring(p_a from '[^]*?/]*$')), reverse(substring(p_b from '[^]*?/]*$')))
        or starts_with(reverse(substring(p_b from '[^]*?/]*$')), reverse(substring(p_a from '[^]*?/]*$'))));
comment on function coordinator.lock_globs_may_meet(text, text) is
  'Return false if the text before the first and after the last wildcard shows that no path matches both globs: far cheaper than lock_globs_meet. Internal.';

create or replace function coordinator.lock_directory_glob(p_path text) returns text
language sql immutable parallel safe
return case when p_path like 'glob:%' then 'glob:' else '' end || regexp_replace(p_path, '([*?[])', '[\1]', 'g') || '/**';
comment on function coordinator.lock_directory_glob(text) is
  'Return the glob that matches what is below a directory. Internal.';

create or replace function coordinator.lock_meets(
  p_r coordinator.lock_resource, p_glob text, p_kind text, p_resource text, p_pattern text) returns boolean
language sql immutable parallel safe
return case
  when p_kind = 'glob' and p_r.kind = 'path' then p_r.path ~ p_pattern
  when p_kind = 'glob' then coordinator.lock_globs_may_meet(p_resource, p_glob) and coordinator.lock_globs_meet(p_resource, p_glob)
  when p_r.kind = 'directory' then true
  when p_kind = 'path' then regexp_replace(p_resource, '^path:', '') ~ p_r.pattern
  else coordinator.lock_globs_meet(p_glob, coordinator.lock_directory_glob(regexp_replace(rtrim(p_resource, '/'), '^path:', ''))) end;
comment on function coordinator.lock_meets(coordinator.lock_resource, text, text, text, text) is
  'Return whether a resource overlaps another whose directory is above or below its own; p_glob: the glob that is equivalent to the first. Internal.';

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

create or replace function coordinator.lock_rows(p_waiting boolean, p_before bigint) returns setof coordinator.locks
language sql stable
begin atomic
  select * from coordinator.locks where not p_waiting
  union all
  select project_id, resource, null, kind, prefix, pattern, mode, slots, agent_id, agent_name, null, ttl, delay, request_id, ticket,
         false, enqueued_at, expires_at, expires_at, null
  from coordinator.lock_waits where p_waiting and ticket < p_before;
end;
comment on function coordinator.lock_rows(boolean, bigint) is
  'Return all locks or, with p_waiting, the tickets before p_before in the shape of locks. The planner inlines it, so indexes are used. Internal.';

create or replace function coordinator.lock_overlapping(
  p_project_id bigint, p_r coordinator.lock_resource, p_waiting boolean, p_before bigint default 9223372036854775807)
returns setof coordinator.locks
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans made while the tables are small must also serve large ones
set plan_cache_mode = force_generic_plan -- half of each query is constant, so a plan for its arguments always looks cheaper
as $$
declare
  v_glob   text := case p_r.kind when 'glob' then p_r.resource when 'directory' then coordinator.lock_directory_glob(p_r.path) end;
  v_ranges text[];
begin
  return query
    select x.* from unnest(p_r.covered_by) c, lateral ( -- one lookup each: before PostgreSQL 17 a list may become a filter
      select * from coordinator.lock_rows(p_waiting, p_before) l where l.project_id = p_project_id and l.resource = c offset 0) x;
  if p_r.kind = 'name' then
    return;
  end if;
  return query
    select l.* from unnest(p_r.above || p_r.path) c, lateral (
      select * from coordinator.lock_rows(p_waiting, p_before) g where g.project_id + 0 = p_project_id and g.prefix = c and g.kind = 'glob' offset 0) l
    where coordinator.lock_meets(p_r, v_glob, l.kind, l.resource, l.pattern);
  if p_r.kind = 'path' then
    return;
  end if;
  v_ranges := coordinator.lock_ranges(p_r);
  return query -- globs below: 0 follows /
    select l.* from coordinator.lock_rows(p_waiting, p_before) l
    where l.project_id + 0 = p_project_id and l.kind = 'glob' and l.prefix <> p_r.path
      and l.prefix >= case when p_r.path = '' then '' else p_r.path || '/' end
      and l.prefix < case when p_r.path = '' then U&'\+10FFFF' else p_r.path || '0' end
      and (p_r.kind = 'directory' or coordinator.lock_meets(p_r, v_glob, l.kind, l.resource, l.pattern))
    union all
    select l.* from generate_subscripts(v_ranges, 1) n, lateral (
      select * from coordinator.lock_rows(p_waiting, p_before) l
      where l.project_id = p_project_id and l.resource >= v_ranges[n][1] and l.resource < v_ranges[n][2] offset 0) l
    where l.kind in ('path', 'directory') and l.resource <> all (p_r.covered_by)
      and coordinator.lock_meets(p_r, v_glob, l.kind, l.resource, l.pattern);
end
$$;
comment on function coordinator.lock_overlapping(bigint, coordinator.lock_resource, boolean, bigint) is
  'Return the locks on resources that overlap one, expired locks included; with p_waiting the tickets before p_before, as lock_rows shows them. Internal.';
