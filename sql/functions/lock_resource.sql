-- What the text of a lock means, and when two of them overlap.
--
-- A resource stands for a set of names:
--   name:deploy       the name "deploy" itself; the only kind that can have slots
--   src/a.py          one path
--   src/              a directory: "src" and every path below it
--   src/**/*.py       a glob (anything with *, ? or [): the paths it matches. ? and * stay within a segment, [ab-d] and
--                     [!ab-d] are one character of it, ** is any number of whole segments, none included; a / at the end
--                     is short for /**. A * also matches what begins with a dot.
--   path:app/[id]/x   the path (or directory) as it stands, for names with *, ? or [ in them; glob:… is its counterpart
-- Paths are relative to the project, compared byte by byte; "./" before one is dropped. lock_parse gives each its one
-- spelling. Two overlap if some name is in both sets; globs may be said to overlap where they do not (two character
-- classes that share nothing), never the other way round.
--
-- An overlap is found by index, however many locks are held: what covers a path is asked for by name (covered_by), what
-- is below a directory is a range of the primary key, and of globs only those whose literal directory is above the path
-- or below the directory are looked at.

create or replace function coordinator.lock_segment_tokens(p_segment text) returns text[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tokens text[] := '{}';
  v_class  text;
  v_char   text;
  v_at     integer := 1;
  v_length integer := length(p_segment);
begin
  while v_at <= v_length loop
    v_char := substr(p_segment, v_at, 1);
    if v_char = '[' then
      v_class := '[';
      v_at := v_at + 1;
      if substr(p_segment, v_at, 1) in ('!', '^') then
        v_class := '[^/';
        v_at := v_at + 1;
      end if;
      loop
        v_char := substr(p_segment, v_at, 1);
        if v_char = '' then
          raise exception using errcode = 'ZC103', message = format('the glob segment "%s" has a [ that is not closed', p_segment),
            hint = 'Close it with ], or write path: before a path that has a [ in its name.';
        end if;
        exit when v_char = ']' and v_class not in ('[', '[^/');
        if substr(p_segment, v_at + 1, 1) = '-' and substr(p_segment, v_at + 2, 1) not in (']', '') then
          if v_char collate "C" > substr(p_segment, v_at + 2, 1) collate "C" then
            raise exception using errcode = 'ZC103',
              message = format('the glob segment "%s" has the range %s, which is upside down', p_segment, substr(p_segment, v_at, 3)),
              hint = 'Write the smaller character first.';
          end if;
          v_class := v_class || regexp_replace(v_char, '([!-/:-@\[-`{-~])', '\\\1') || '-'
                     || regexp_replace(substr(p_segment, v_at + 2, 1), '([!-/:-@\[-`{-~])', '\\\1');
          v_at := v_at + 3;
        else
          v_class := v_class || regexp_replace(v_char, '([!-/:-@\[-`{-~])', '\\\1');
          v_at := v_at + 1;
        end if;
      end loop;
      v_tokens := v_tokens || (v_class || ']');
    elsif v_char = '*' then
      if v_tokens[cardinality(v_tokens)] = '*' then
        raise exception using errcode = 'ZC103', message = format('the glob segment "%s" has ** beside other characters', p_segment),
          hint = '** stands for whole segments: write src/**/*.py, not src/**.py.';
      end if;
      v_tokens := v_tokens || v_char;
    elsif v_char = '?' then
      v_tokens := v_tokens || v_char;
    else
      v_tokens := v_tokens || ('=' || v_char);
    end if;
    v_at := v_at + 1;
  end loop;
  return v_tokens;
end
$$;
comment on function coordinator.lock_segment_tokens(text) is
  'Part a segment of a glob into * and ?, classes as regular expressions, and literal characters with = before them; ZC103 where it is no glob. Internal.';

create or replace function coordinator.lock_segments_meet(p_a text, p_b text) returns boolean
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_a    text[];
  v_b    text[];
  v_row  boolean[]; -- v_row[j + 1]: what is left of a from i on and of b from j on can be the same text
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
        else true -- two classes: not worth knowing
      end;
      v_row[j + 1] := v_meet;
    end loop;
    v_next := v_row;
  end loop;
  return v_next[1];
end
$$;
comment on function coordinator.lock_segments_meet(text, text) is
  'Whether some text could match both segments of globs. Internal.';

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
  'Whether some path could match both globs: true where it cannot be told, never false where one does. Internal.';

create or replace function coordinator.lock_globs_may_meet(p_a text, p_b text) returns boolean
language sql immutable parallel safe
return (starts_with(substring(p_a from '^(?:glob:)?([^*?[]*)'), substring(p_b from '^(?:glob:)?([^*?[]*)'))
        or starts_with(substring(p_b from '^(?:glob:)?([^*?[]*)'), substring(p_a from '^(?:glob:)?([^*?[]*)')))
   and (starts_with(reverse(substring(p_a from '[^]*?/]*$')), reverse(substring(p_b from '[^]*?/]*$')))
        or starts_with(reverse(substring(p_b from '[^]*?/]*$')), reverse(substring(p_a from '[^]*?/]*$'))));
comment on function coordinator.lock_globs_may_meet(text, text) is
  'False where what stands before the first and after the last wildcard of two globs shows that no path matches both: far cheaper than lock_globs_meet. Internal.';

create or replace function coordinator.lock_path_text(p_path text, p_directory boolean) returns text
language sql immutable parallel safe
return case when p_path ~ '[*?[]|^(name|path|glob):' then 'path:' else '' end || p_path || case when p_directory then '/' else '' end;
comment on function coordinator.lock_path_text(text, boolean) is
  'The one spelling of a path or directory. Internal.';

create or replace function coordinator.lock_directory_glob(p_path text) returns text
language sql immutable parallel safe
return case when p_path like 'glob:%' then 'glob:' else '' end || regexp_replace(p_path, '([*?[])', '[\1]', 'g') || '/**';
comment on function coordinator.lock_directory_glob(text) is
  'The glob that stands for a directory. Internal.';

create or replace function coordinator.lock_parse(p_resource text) returns coordinator.lock_resource
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_path      text := p_resource;
  v_literal   boolean := false;
  v_glob      boolean := false;
  v_directory boolean;
  v_segments  text[];
  v_segment   text;
  v_at        text;
  v_i         integer;
  v_token     text;
  v_separator text := '';
  v_self      coordinator.lock_resource;
begin
  -- Most are plain paths: one look, and none of the rest.
  if p_resource ~ '^[A-Za-z0-9_+@-][A-Za-z0-9_.+@-]*(/[A-Za-z0-9_+@-][A-Za-z0-9_.+@-]*)*/?$' and length(p_resource) <= 1024 then
    v_directory := right(v_path, 1) = '/';
  else
    perform coordinator.check_name('the resource', p_resource, 1024);
    if octet_length(p_resource) > 1024 then
      raise exception using errcode = 'ZC102', hint = 'Shorten it, or lock a directory above it.',
        message = format('the resource has %s bytes; at most 1024 are allowed', octet_length(p_resource));
    end if;
    if v_path like 'name:%' then
      perform coordinator.check_name('the name', substr(v_path, 6), 1024);
      v_self.resource := v_path;
      v_self.kind := 'name';
      v_self.path := v_path;
      v_self.above := '{}';
      v_self.covered_by := array[v_path];
      return v_self;
    elsif v_path like 'path:%' then
      v_literal := true;
      v_path := substr(v_path, 6);
    elsif v_path like 'glob:%' then
      v_path := substr(v_path, 6);
      v_glob := true;
    end if;
    while v_path like './%' loop
      v_path := substr(v_path, 3);
    end loop;
    v_directory := right(v_path, 1) = '/';
    if v_path in ('', '.', '/') then
      raise exception using errcode = 'ZC103', message = format('"%s" is no path within the project', p_resource),
        hint = 'Write ** for all paths of the project.';
    elsif v_path like '/%' then
      raise exception using errcode = 'ZC103', message = format('"%s" is an absolute path', p_resource),
        hint = 'Give paths relative to the root of the project.';
    elsif strpos(v_path, '\') > 0 then
      raise exception using errcode = 'ZC103', message = format('"%s" has a \ in it', p_resource),
        hint = 'Part segments by /; to have *, ? or [ taken as they stand, write path: before the path.';
    end if;
    v_glob := v_glob or not v_literal and v_path ~ '[*?[]';
    v_literal := not v_glob;
  end if;

  v_segments := string_to_array(case when v_directory then left(v_path, -1) else v_path end, '/');
  if cardinality(v_segments) > 32 then
    raise exception using errcode = 'ZC102', message = format('"%s" has %s segments; at most 32 are allowed', p_resource, cardinality(v_segments)),
      hint = 'Lock a directory above it.';
  elsif v_segments && array['', '.', '..'] then
    raise exception using errcode = 'ZC103', message = format('"%s" has an empty segment, . or .. in it', p_resource),
      hint = 'Write the path in its shortest form, relative to the root of the project.';
  end if;

  v_self.above := '{}';
  v_self.covered_by := '{}';
  if not v_glob then
    v_self.kind := case when v_directory then 'directory' else 'path' end;
    foreach v_segment in array v_segments loop
      v_self.above := v_self.above || coalesce(v_at, '');
      v_at := coalesce(v_at || '/', '') || v_segment;
      v_self.covered_by := v_self.covered_by || (case when v_literal then coordinator.lock_path_text(v_at, true) else v_at || '/' end);
    end loop;
    v_self.path := v_at;
    v_at := case when v_literal then coordinator.lock_path_text(v_at, false) else v_at end;
    v_self.covered_by := v_self.covered_by || v_at;
    v_self.resource := case when v_directory then v_self.covered_by[cardinality(v_segments)] else v_at end;
    return v_self;
  end if;

  if v_directory and v_segments[cardinality(v_segments)] <> '**' then
    v_segments := v_segments || '**'::text;
  end if;
  v_self.kind := 'glob';
  v_self.pattern := '^';
  for v_i in 1 .. cardinality(v_segments) loop
    v_segment := v_segments[v_i];
    -- The directory that all it matches is below: the segments before the first that is none by itself.
    if v_at is null and v_segment ~ '[*?[]' then
      v_at := array_to_string(v_segments[1 : v_i - 1], '/');
    end if;
    if v_segment = '**' then
      continue when v_segments[v_i + 1] = '**';
      v_self.pattern := v_self.pattern || case
        when v_i < cardinality(v_segments) then v_separator || '(?:[^/]+/)*'
        when v_separator = '' then '.*'
        else '(?:/[^/]+)*' end;
      v_separator := '';
    else
      v_self.pattern := v_self.pattern || v_separator;
      foreach v_token in array coordinator.lock_segment_tokens(v_segment) loop
        v_self.pattern := v_self.pattern || case
          when v_token = '*' then '[^/]*'
          when v_token = '?' then '[^/]'
          when v_token like '[%' then v_token
          when v_token ~ '^=[A-Za-z0-9_]' or ascii(substr(v_token, 2)) > 127 then substr(v_token, 2)
          else '\' || substr(v_token, 2) end;
      end loop;
      v_separator := '/';
    end if;
    v_self.resource := coalesce(v_self.resource || '/', '') || v_segment;
  end loop;
  v_self.pattern := v_self.pattern || '$';
  if v_at is null then
    return coordinator.lock_parse('path:' || v_self.resource); -- glob: before a plain path
  end if;
  v_self.path := v_at;
  if v_self.resource ~ '^(name|path|glob):' then
    v_self.resource := 'glob:' || v_self.resource;
  end if;
  if v_at <> '' then
    v_segments := string_to_array(v_at, '/');
    v_at := null;
    foreach v_segment in array v_segments loop
      v_self.above := v_self.above || coalesce(v_at, '');
      v_at := coalesce(v_at || '/', '') || v_segment;
      v_self.covered_by := v_self.covered_by || coordinator.lock_path_text(v_at, true);
    end loop;
    if v_at ~ v_self.pattern then
      v_self.covered_by := v_self.covered_by || coordinator.lock_path_text(v_at, false);
    end if;
  end if;
  return v_self;
end
$$;
comment on function coordinator.lock_parse(text) is
  'Say what the text of a lock means: name:deploy, src/a.py, src/ or src/**/*.py; path:… takes *, ? and [ as they stand. ZC101 to ZC103 where it is none of them.';

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
  'Whether a resource overlaps another one, whose directory lies above or below its own; p_glob: the glob that the first stands for. Internal.';

create or replace function coordinator.lock_ranges(p_r coordinator.lock_resource) returns text[]
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  -- All that a glob matches begins with what stands before its first wildcard. Where there is no next character, its directory does.
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
  'Of a directory or glob: ranges, from and before, of the texts of paths and directories that it could hold. Internal.';

create or replace function coordinator.lock_held_overlapping(p_project_id bigint, p_r coordinator.lock_resource)
returns setof coordinator.locks
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans are made while the table is small, and must do when it is not
as $$
declare
  v_glob  text := case p_r.kind when 'glob' then p_r.resource when 'directory' then coordinator.lock_directory_glob(p_r.path) end;
  v_range text[];
begin
  return query
    select x.* from unnest(p_r.covered_by) c, lateral ( -- one by one: before PostgreSQL 17 a list may be read as a filter
      select * from coordinator.locks l where l.project_id = p_project_id and l.resource = c offset 0) x;
  if p_r.kind = 'name' then
    return;
  end if;
  return query
    select l.* from unnest(p_r.above || p_r.path) c, lateral (
      select * from coordinator.locks g where g.project_id + 0 = p_project_id and g.prefix = c and g.kind = 'glob' offset 0) l
    where coordinator.lock_meets(p_r, v_glob, l.kind, l.resource, l.pattern);
  if p_r.kind = 'path' then
    return;
  end if;
  return query -- globs below: 0 comes after /
    select l.* from coordinator.locks l
    where l.project_id + 0 = p_project_id and l.kind = 'glob' and l.prefix <> p_r.path
      and l.prefix >= case when p_r.path = '' then '' else p_r.path || '/' end
      and l.prefix < case when p_r.path = '' then U&'\+10FFFF' else p_r.path || '0' end
      and (p_r.kind = 'directory' or coordinator.lock_meets(p_r, v_glob, l.kind, l.resource, l.pattern));
  foreach v_range slice 1 in array coordinator.lock_ranges(p_r) loop -- one by one: joined, they would be read by whatever plan is guessed
    return query
      select l.* from coordinator.locks l
      where l.project_id = p_project_id and l.resource >= v_range[1] and l.resource < v_range[2] and l.kind in ('path', 'directory')
        and l.resource <> all (p_r.covered_by) and coordinator.lock_meets(p_r, v_glob, l.kind, l.resource, l.pattern);
  end loop;
end
$$;
comment on function coordinator.lock_held_overlapping(bigint, coordinator.lock_resource) is
  'Locks, expired ones included, on what overlaps a resource. Internal.';

create or replace function coordinator.lock_waits_overlapping(p_project_id bigint, p_r coordinator.lock_resource)
returns setof coordinator.lock_waits
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off -- plans are made while the table is small, and must do when it is not
as $$
declare
  v_glob  text := case p_r.kind when 'glob' then p_r.resource when 'directory' then coordinator.lock_directory_glob(p_r.path) end;
  v_range text[];
begin
  return query
    select x.* from unnest(p_r.covered_by) c, lateral ( -- one by one: before PostgreSQL 17 a list may be read as a filter
      select * from coordinator.lock_waits w where w.project_id = p_project_id and w.resource = c offset 0) x;
  if p_r.kind = 'name' then
    return;
  end if;
  return query
    select w.* from unnest(p_r.above || p_r.path) c, lateral (
      select * from coordinator.lock_waits g where g.project_id + 0 = p_project_id and g.prefix = c and g.kind = 'glob' offset 0) w
    where coordinator.lock_meets(p_r, v_glob, w.kind, w.resource, w.pattern);
  if p_r.kind = 'path' then
    return;
  end if;
  return query -- globs below: 0 comes after /
    select w.* from coordinator.lock_waits w
    where w.project_id + 0 = p_project_id and w.kind = 'glob' and w.prefix <> p_r.path
      and w.prefix >= case when p_r.path = '' then '' else p_r.path || '/' end
      and w.prefix < case when p_r.path = '' then U&'\+10FFFF' else p_r.path || '0' end
      and (p_r.kind = 'directory' or coordinator.lock_meets(p_r, v_glob, w.kind, w.resource, w.pattern));
  foreach v_range slice 1 in array coordinator.lock_ranges(p_r) loop -- one by one: joined, they would be read by whatever plan is guessed
    return query
      select w.* from coordinator.lock_waits w
      where w.project_id = p_project_id and w.resource >= v_range[1] and w.resource < v_range[2] and w.kind in ('path', 'directory')
        and w.resource <> all (p_r.covered_by) and coordinator.lock_meets(p_r, v_glob, w.kind, w.resource, w.pattern);
  end loop;
end
$$;
comment on function coordinator.lock_waits_overlapping(bigint, coordinator.lock_resource) is
  'Tickets, those whose time passed included, on what overlaps a resource. Internal.';
