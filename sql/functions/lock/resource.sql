-- Resources: what the text of a lock means, and when two of them overlap.
--
-- A resource stands for a set of names:
--   name:deploy       the name "deploy" itself; the only kind that can have slots
--   src/a.py          one path
--   src/              a directory: "src" and every path below it
--   src/**/*.py       a glob (anything with *, ? or [): the paths it matches. ? and * stay within a segment, [ab-d] and
--                     [!ab-d] match one character of it, ** matches any number of whole segments, including none; a trailing
--                     / is short for /**. A * also matches a leading dot.
--                     Brackets also stand for themselves: many files have names such as app/[id]/page.tsx. So a glob matches
--                     its own text, and a lock on a text always includes the file with this name.
--   path:app/[id]/x   a path (or directory) taken literally, for names that contain *, ? or [; glob:… is its counterpart
-- Paths are relative to the project; a leading "./" is dropped. lock_texts applies the project's rule for paths (project_set), and
-- lock_parse gives each resource its one spelling: that is compared byte by byte. Two resources overlap if a name is in both sets. Two globs may be reported to overlap when they do not (a class
-- counts as a * there), but never the reverse.

create or replace function coordinator.paths_have_case() returns boolean
language sql volatile parallel unsafe
return pg_sequence_last_value('coordinator.caseless_paths') = 0;
comment on function coordinator.paths_have_case() is
  'Return whether no project ever ignored the case of paths. Only for functions that write: a standby cannot read the sequence this way. Internal.';

-- Collations are looked up when a statement first runs, because which ones exist depends on the server.
create or replace function coordinator.lock_fold(p_text text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if getdatabaseencoding() <> 'UTF8' then
    return lower(p_text);
  elsif current_setting('server_version_num')::integer >= 170000 then
    return normalize(lower(upper(normalize(p_text) collate "pg_c_utf8")));
  elsif exists (select from pg_collation where collname = 'und-x-icu') then
    return normalize(lower(upper(normalize(p_text) collate "und-x-icu")));
  end if;
  return normalize(lower(upper(normalize(p_text))));
end
$$;
comment on function coordinator.lock_fold(text) is
  'Return a text in Unicode normal form C and without case: by Unicode rules from PostgreSQL 17 on or with ICU, otherwise by the database''s locale. Internal.';

create or replace function coordinator.lock_texts(p_project text, p_texts text[]) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rule text;
begin
  -- Most texts have only lower-case ASCII letters, and are the same under each rule.
  if array_to_string(p_texts, '') collate "C" ~ '^[ -@[-~]*$' then
    return p_texts;
  end if;
  select p.paths into v_rule from coordinator.projects p where p.name = p_project;
  return array(
    select case
      when t is null or getdatabaseencoding() <> 'UTF8' and v_rule <> 'caseless' or v_rule = 'exact' and t not like 'name:%' then t
      when v_rule <> 'caseless' or t like 'name:%' then normalize(t)
      when t !~ '^(path|glob):' and coordinator.lock_fold(t) ~ '^(name|path|glob):' then './' || coordinator.lock_fold(t)
      else coordinator.lock_fold(t) end
    from unnest(p_texts) with ordinality u (t, n) order by n);
end
$$;
comment on function coordinator.lock_texts(text, text[]) is
  'Return the texts of resources as the project compares them: in normal form C, paths also without case, or unchanged. Internal.';

create or replace function coordinator.lock_quote(p_text text) returns text
language sql immutable parallel safe
return regexp_replace(p_text, '([!-/:-@\[-`{-~])', '\\\1', 'g');
comment on function coordinator.lock_quote(text) is
  'Quote text for a regular expression, also within its brackets. Internal.';

create or replace function coordinator.lock_segment_pattern(p_segment text) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_pattern text := '';
  v_literal text;
  v_empty   boolean;
  v_char    text;
  v_at      integer := 1;
  v_length  integer := length(p_segment);
begin
  if p_segment ~ '[*][*]' then
    raise exception using errcode = 'ZC103', message = format('the glob segment "%s" combines ** with other characters', p_segment),
      hint = '** matches whole segments: write src/**/*.py, not src/**.py.';
  end if;
  v_literal := replace(replace(coordinator.lock_quote(p_segment), '\*', '[^/]*'), '\?', '[^/]');
  if strpos(p_segment, '[') = 0 then
    return v_literal;
  end if;
  while v_at <= v_length loop
    v_char := substr(p_segment, v_at, 1);
    if v_char = '[' then
      v_pattern := v_pattern || '[';
      v_at := v_at + 1;
      if substr(p_segment, v_at, 1) in ('!', '^') then
        v_pattern := v_pattern || '^/';
        v_at := v_at + 1;
      end if;
      v_empty := true;
      loop
        v_char := substr(p_segment, v_at, 1);
        if v_char = '' then
          raise exception using errcode = 'ZC103', message = format('the glob segment "%s" has an unclosed [', p_segment),
            hint = 'Close it with ], or write path: before a path whose name contains [.';
        end if;
        exit when v_char = ']' and not v_empty;
        v_empty := false;
        v_pattern := v_pattern || coordinator.lock_quote(v_char);
        if substr(p_segment, v_at + 1, 1) = '-' and substr(p_segment, v_at + 2, 1) not in (']', '') then
          if v_char collate "C" > substr(p_segment, v_at + 2, 1) collate "C" then
            raise exception using errcode = 'ZC103',
              message = format('the glob segment "%s" has the reversed range %s', p_segment, substr(p_segment, v_at, 3)),
              hint = 'Write the smaller character first, or write path: before a path whose name contains [.';
          end if;
          v_pattern := v_pattern || '-' || coordinator.lock_quote(substr(p_segment, v_at + 2, 1));
          v_at := v_at + 2;
        end if;
        v_at := v_at + 1;
      end loop;
      v_pattern := v_pattern || ']';
    else
      v_pattern := v_pattern || case v_char when '*' then '[^/]*' when '?' then '[^/]' else coordinator.lock_quote(v_char) end;
    end if;
    v_at := v_at + 1;
  end loop;
  return '(?:' || v_pattern || '|' || v_literal || ')';
end
$$;
comment on function coordinator.lock_segment_pattern(text) is
  'Return the regular expression of a segment of a glob, whose brackets match as classes or literally. ZC103: it is not a glob. Internal.';

create or replace function coordinator.lock_reach(p_glob text) returns text
language plpgsql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_pattern text := '^';
  v_end     text := '$';
  v_segment text;
begin
  foreach v_segment in array string_to_array(regexp_replace(p_glob, '^glob:', ''), '/') loop
    if v_segment = '**' then
      return v_pattern || case when v_pattern = '^' then '.*' else '(?:/.*)?' end || v_end;
    elsif v_pattern = '^' then
      v_pattern := v_pattern || coordinator.lock_segment_pattern(v_segment);
    else
      v_pattern := v_pattern || '(?:/' || coordinator.lock_segment_pattern(v_segment);
      v_end := ')?' || v_end;
    end if;
  end loop;
  return v_pattern || v_end;
end
$$;
comment on function coordinator.lock_reach(text) is
  'Return the regular expression of the directories that a glob reaches into: it matches them or something below them. Internal.';

create or replace function coordinator.lock_path_text(p_path text, p_directory boolean) returns text
language sql immutable parallel safe
return case when p_path ~ '[*?[]|^(name|path|glob):' then 'path:' else '' end || p_path || case when p_directory then '/' else '' end;
comment on function coordinator.lock_path_text(text, boolean) is
  'Return the one spelling of a path or directory. Internal.';

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
  v_separator text := '';
  v_self      coordinator.lock_resource;
begin
  -- Most resources are plain paths, which need only this check.
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
      raise exception using errcode = 'ZC103', message = format('"%s" is not a path within the project', p_resource),
        hint = 'Write ** for all paths of the project.';
    elsif v_path like '/%' then
      raise exception using errcode = 'ZC103', message = format('"%s" is an absolute path', p_resource),
        hint = 'Give a path relative to the root of the project.';
    elsif strpos(v_path, '\') > 0 then
      raise exception using errcode = 'ZC103', message = format('"%s" contains a \', p_resource),
        hint = 'Separate segments with /; to use *, ? or [ literally, write path: before the path.';
    end if;
    v_glob := v_glob or not v_literal and v_path ~ '[*?[]';
    v_literal := not v_glob;
  end if;

  v_segments := string_to_array(case when v_directory then left(v_path, -1) else v_path end, '/');
  if cardinality(v_segments) > 32 then
    raise exception using errcode = 'ZC102', message = format('"%s" has %s segments; at most 32 are allowed', p_resource, cardinality(v_segments)),
      hint = 'Lock a directory above it.';
  elsif v_segments && array['', '.', '..'] then
    raise exception using errcode = 'ZC103', hint = 'Write it relative to the root of the project, as in src/app.py.',
      message = format('"%s" %s', p_resource, case when '..' = any (v_segments) then 'leads out of a directory with ".."'
                                                   when '.' = any (v_segments) then 'contains the segment "."'
                                                   else 'has an empty segment' end);
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
  if regexp_count(v_path, '[*]{1,2}|[?[]') > 16 then
    raise exception using errcode = 'ZC102', message = format('"%s" has more than 16 wildcards', p_resource),
      hint = 'Lock the directory above it, or write path: before a path whose name contains *, ? or [.';
  end if;
  v_self.kind := 'glob';
  v_self.pattern := '^';
  for v_i in 1 .. cardinality(v_segments) loop
    v_segment := v_segments[v_i];
    -- The literal directory above all matches: the segments before the first with a wildcard.
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
      v_self.pattern := v_self.pattern || v_separator || coordinator.lock_segment_pattern(v_segment);
      v_separator := '/';
    end if;
    v_self.resource := coalesce(v_self.resource || '/', '') || v_segment;
  end loop;
  v_self.pattern := v_self.pattern || '$';
  if v_at is null then
    return coordinator.lock_parse('path:' || v_self.resource); -- a plain path after glob:
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
  'Parse the text of a lock: name:deploy, src/a.py, src/ or src/**/*.py (at most 16 wildcards); after path:, the characters *, ? and [ are literal. ZC101 to ZC103: the text is malformed.';

create or replace function coordinator.lock_spelling(p_resource text) returns text
language sql immutable parallel safe
return case when coordinator.lock_is_plain(p_resource) then p_resource else (coordinator.lock_parse(p_resource)).resource end;
comment on function coordinator.lock_spelling(text) is
  'Return the one spelling of a resource, as locks have it. Internal; inlined.';

create or replace function coordinator.lock_read(p_project text, p_resource text) returns coordinator.lock_resource
language sql stable
set search_path = pg_catalog, pg_temp
as $$ select coordinator.lock_parse((coordinator.lock_texts(p_project, array[p_resource]))[1]) $$;
comment on function coordinator.lock_read(text, text) is
  'Parse the text of a lock as a project compares paths. Internal.';
