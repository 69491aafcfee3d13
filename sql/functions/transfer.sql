-- Export and import of a project as lines of JSON.
--
-- The first line names the format, the version and the export. Each other line has a type: project, retention, rule, signal, session,
-- log, entry, document, version, part, content, artifact; the last line has the type end. JSON content is a string with its exact text,
-- so it is restored byte for byte. Entries and versions keep their numbers. Epochs are not exported: in the importing project, the
-- content belongs to that project's current epoch.
--
-- An export is read in pages, each in its own snapshot: a change made meanwhile may be missing, but each row is consistent. Not
-- exported are passwords and tokens; agents, jobs, locks and directives; the audit trail, which belongs to the database where the
-- events happened; signals that end with an agent; and content that is deleted or has expired. tests/sql/test_transfer_columns.py lists
-- each excluded table and column, with the reason.
--
-- An import goes into a project without content, in batches of lines. Each batch is one transaction, which also counts the lines. So an
-- interrupted import continues where it stopped, and a repeated batch changes nothing. Values that the project already has, such as a
-- title, are kept. Users are not exported; owners are found by username.
--
-- Locks: users, the project, its row in project_imports, the root of its paths if their rule changes, then the inserted rows. Headers
-- of logs and documents are inserted before their rows.

insert into coordinator.event_types (type, key, data, meaning) values
  ('project.imported', 'name of the project', '{lines}', 'An export was imported into the project.');

insert into coordinator.rights (function, role) values
  ('project_export', 'reader'),
  ('project_import', 'manager');

insert into coordinator.limits (name, value, unit, meaning) values
  ('import_lines', 1000,    'lines', 'Lines per call of project_import.'),
  ('import_body',  8388608, 'bytes', 'Body of an import request.');

create or replace function coordinator.project_export(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.export_line
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set intervalstyle = 'iso_8601'
set enable_seqscan = off -- pages use indexes, even if the statistics are outdated
set jit = off -- before PostgreSQL 18, a table or sequence without an index looks expensive enough for JIT
set enable_sort = off
set extra_float_digits = 1 -- embeddings keep their exact numbers
as $$
#variable_conflict use_column
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_section integer;
  v_kind    text := coalesce(p_after[2], '');
  v_key     text := coalesce(p_after[3], '');
  v_number  bigint;
  v_left    integer := p_limit;
  v_count   bigint;
  v_part    record;
  v_line    text;
  v_bytes   bigint := 0;
begin
  perform coordinator.check_page(p_limit, p_after, '{number,text,text,number}');
  v_section := case when p_after is null then 0 else greatest(least(p_after[1]::bigint, 10), 0) end;
  v_number := coalesce(p_after[4]::bigint, -1);
  while v_left > 0 and v_section <= 9 loop
    case v_section
      when 0 then
        return query
          select 0, ''::text, ''::text, l.number, l.line::text
          from (select 0::bigint as number, json_build_object('format', 'coordinator-project', 'version', 1,
                  'export', md5(concat_ws(' ', v_project, coordinator.event_epoch(), pg_current_snapshot())), 'project', p_project) as line
                union all
                select 1, json_build_object('type', 'project', 'description', p.description, 'title', p.title, 'settings', p.settings::text,
                  'paths', p.paths, 'username', u.username)
                from coordinator.projects p left join coordinator.users u on u.id = p.user_id where p.id = v_project) l
          where l.number > v_number order by l.number limit v_left;
      when 1 then
        return query
          select 1, r.subject::text, r.kind::text, 0::bigint, json_build_object('type', 'retention', 'subject', r.subject, 'kind', r.kind,
            'max_age', r.max_age, 'max_count', r.max_count, 'actor', r.actor, 'updated_at', r.updated_at)::text
          from coordinator.retention r where r.project_id = v_project and (r.subject, r.kind) > (v_kind, v_key)
          order by r.subject, r.kind limit v_left;
      when 2 then
        return query
          select 2, ''::text, r.when_set::text, 0::bigint, json_build_object('type', 'rule', 'when_set', r.when_set, 'clears', r.clears,
            'created_at', r.created_at)::text
          from coordinator.signal_rules r where r.project_id = v_project and r.when_set > v_key order by r.when_set limit v_left;
      when 3 then
        return query
          select 3, ''::text, s.key::text, 0::bigint, json_build_object('type', 'signal', 'key', s.key, 'value', s.value::text, 'actor', s.actor,
            'created_at', s.created_at, 'updated_at', s.updated_at, 'expires_at', s.expires_at)::text
          from coordinator.signals s
          where s.project_id = v_project and s.key > v_key and s.agent_id is null and coalesce(s.expires_at > v_now, true)
          order by s.key limit v_left;
      when 4 then
        return query
          select 4, ''::text, s.key::text, 0::bigint, json_build_object('type', 'session', 'key', s.key, 'username', u.username, 'title', s.title,
            'mission', s.mission, 'status', s.status, 'context', s.context::text, 'forked_from', s.forked_from, 'actor', s.actor,
            'created_at', s.created_at, 'updated_at', s.updated_at)::text
          from coordinator.sessions s left join coordinator.users u on u.id = s.user_id
          where s.project_id = v_project and s.key > v_key order by s.key limit v_left;
      when 5 then
        return query
          select 5, l.kind::text, l.key::text, e.number, e.line
          from coordinator.logs l cross join lateral (
            select 0::bigint as number, json_build_object('type', 'log', 'kind', l.kind, 'key', l.key,
              'session', (select s.key from coordinator.sessions s where s.id = l.session_id), 'first_seq', l.first_seq, 'last_seq', l.last_seq,
              'kept', l.kept, 'updated_at', l.updated_at)::text as line
            where (l.kind, l.key) > (v_kind, v_key) or v_number < 0
            union all
            (select e.seq, json_build_object('type', 'entry', 'kind', l.kind, 'key', l.key, 'seq', e.seq, 'uid', e.uid, 'role', e.role,
               'tokens', e.tokens, 'needs', e.needs_seq, 'links', e.links, 'kept', e.kept, 'actor', e.actor, 'created_at', e.created_at,
               'data', coalesce(e.raw, e.data::text))::text
             from coordinator.entries e
             where e.log_id = l.id and e.seq > case when (l.kind, l.key) = (v_kind, v_key) then greatest(v_number, 0) else 0 end
             order by e.seq limit v_left)) e
          where l.project_id = v_project and not l.deleted and l.kind <> 'audit' and (l.kind, l.key) >= (v_kind, v_key)
          order by l.kind, l.key, e.number limit v_left;
      when 6 then
        return query
          select 6, d.kind::text, d.key::text, v.number, v.line
          from coordinator.documents d cross join lateral (
            select 0::bigint as number, json_build_object('type', 'document', 'kind', d.kind, 'key', d.key,
              'session', (select s.key from coordinator.sessions s where s.id = d.session_id), 'version', d.version, 'kept', d.kept, 'actor', d.actor,
              'created_at', d.created_at, 'updated_at', d.updated_at, 'expires_at', d.expires_at)::text as line
            where (d.kind, d.key) > (v_kind, v_key) or v_number < 0
            union all
            (select v.version, json_build_object('type', 'version', 'kind', d.kind, 'key', d.key, 'version', v.version, 'actor', v.actor,
               'written_at', v.written_at, 'expires_at', v.expires_at, 'value', coalesce(v.raw::text, v.value::text),
               'embedding', (select b.embedding from coordinator.document_embeddings b where b.document_id = d.id and v.version = d.version))::text
             from coordinator.document_versions v
             where v.document_id = d.id and v.version > case when (d.kind, d.key) = (v_kind, v_key) then greatest(v_number, 0) else 0 end
             order by v.version limit v_left)) v
          where d.project_id = v_project and not d.deleted and coalesce(d.expires_at > v_now, true) and (d.kind, d.key) >= (v_kind, v_key)
          order by d.kind, d.key, v.number limit v_left;
      when 7 then
        v_count := 0;
        -- Row by row: only the parts that a page has room for are read and encoded.
        for v_part in
          select b.sha256, c.number, c.data, c.line
          from coordinator.artifact_blobs b cross join lateral (
            (select c.part::bigint as number, c.data, null::text as line
             from coordinator.artifact_chunks c
             where c.blob_id = b.id and c.part > case when b.sha256 = v_key then greatest(v_number, 0) else 0 end
             order by c.part limit v_left)
            union all
            (select n, null, json_build_object('type', 'part', 'sha256', b.sha256, 'part', n, 'store', o.store, 'object', o.key,
               'bytes', least(1048576, b.bytes - (n - 1) * 1048576))::text
             from coordinator.artifact_objects o,
                  generate_series(case when b.sha256 = v_key then greatest(v_number, 0) else 0 end + 1, (b.bytes + 1048575) / 1048576) n
             where o.blob_id = b.id and o.stored_at is not null
             order by n limit v_left)
            union all
            select 1000, null, json_build_object('type', 'content', 'sha256', b.sha256, 'bytes', b.bytes, 'finished_at', b.finished_at)::text
            where b.sha256 > v_key or v_number < 1000) c
          where b.project_id = v_project and b.finished_at is not null and b.sha256 >= v_key
            and exists (select from coordinator.artifacts a where a.blob_id = b.id)
          order by b.sha256, c.number limit v_left
        loop
          v_line := coalesce(v_part.line, json_build_object('type', 'part', 'sha256', v_part.sha256, 'part', v_part.number,
            'data', translate(encode(v_part.data, 'base64'), E'\n', ''))::text);
          return query select 7, ''::text, v_part.sha256::text, v_part.number, v_line;
          if v_bytes >= 1048576 then -- the size of a page: its reader leaves out this line, and so knows that it is not the last
            return;
          end if;
          v_bytes := v_bytes + octet_length(v_line);
          v_count := v_count + 1;
        end loop;
      when 8 then
        return query
          select 8, coalesce(s.key, '')::text, a.name::text, 0::bigint, json_build_object('type', 'artifact', 'session', s.key, 'name', a.name,
            'media_type', a.media_type, 'sha256', a.sha256, 'kept', a.kept, 'actor', a.actor, 'created_at', a.created_at, 'updated_at', a.updated_at)::text
          from coordinator.artifacts a left join coordinator.sessions s on s.id = a.session_id
          where a.project_id = v_project and (coalesce(s.key, ''), a.name) > (v_kind, v_key)
          order by coalesce(s.key, ''), a.name limit v_left;
      else
        return query select 9, ''::text, ''::text, 0::bigint, '{"type" : "end"}'::text where v_number < 0;
    end case;
    if v_section <> 7 then
      get diagnostics v_count = row_count;
    end if;
    v_left := v_left - v_count;
    v_section := v_section + 1;
    v_kind := '';
    v_key := '';
    v_number := -1;
  end loop;
end
$$;
comment on function coordinator.project_export(text, text[], integer) is
  'Export a project as lines of JSON for project_import, page by page: its own fields, rules, signals, sessions, logs, documents, artifacts and retention policies. p_after: array[section, kind, key, number] of the last row read. Changes made between two pages may be missing from the export.';

create or replace function coordinator.import_open(p_project_id bigint, p_project text, p_header jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_header ->> 'format' is distinct from 'coordinator-project' then
    raise exception using errcode = 'ZC105', message = 'line 1: this is not an export of a project',
      hint = 'Give what "coordinator project export" printed, from its first line.';
  elsif p_header ->> 'version' is distinct from '1' then
    raise exception using errcode = 'ZC105', message = format('line 1: version %s of the format is unknown', left(p_header ->> 'version', 20)),
      hint = 'This program reads version 1. Import it with the program that exported it, or a newer one.';
  elsif coalesce(p_header ->> 'export', '') !~ '^[0-9a-f]{32}$' then
    raise exception using errcode = 'ZC103', message = 'line 1: the id of the export is missing', hint = 'Export the project again.';
  elsif exists (select from coordinator.signals where project_id = p_project_id) or exists (select from coordinator.sessions where project_id = p_project_id)
     or exists (select from coordinator.logs where project_id = p_project_id and kind <> 'audit')
     or exists (select from coordinator.documents where project_id = p_project_id) or exists (select from coordinator.artifacts where project_id = p_project_id) then
    raise exception using errcode = 'ZC301', message = format('project "%s" has content of its own', p_project),
      hint = 'Import into a new project: "coordinator project create NAME".';
  end if;
  insert into coordinator.project_imports (project_id, export, lines, updated_at) values (p_project_id, p_header ->> 'export', 1, coordinator.now_utc());
end
$$;
comment on function coordinator.import_open(bigint, text, jsonb) is
  'Begin an import, given the first line of the export. ZC105: it is not one that this program reads. ZC301: the project has content. No event: its end has one. Internal.';

create or replace function coordinator.import_line(p_project_id bigint, p_line jsonb, p_allow_missing_users boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now     timestamptz := coordinator.now_utc();
  v_epoch   integer := coordinator.epoch_stamp();
  v_actor   text := p_line ->> 'actor';
  v_kind    text := p_line ->> 'kind';
  v_key     text := p_line ->> 'key';
  v_text    text;
  v_tamed   text;
  v_id      bigint;
  v_session bigint;
  v_user    bigint;
  v_old     coordinator.projects;
  v_version bigint;
  v_data    bytea;
  v_stored  coordinator.json_stored;
begin
  if v_actor is not null then
    perform coordinator.check_name('the actor', v_actor);
  end if;
  if p_line ->> 'type' in ('log', 'entry', 'document', 'version') then
    perform coordinator.check_kind(v_kind);
    perform coordinator.check_key('the key', v_key);
    if v_kind = 'audit' and p_line ->> 'type' in ('log', 'entry') then
      raise exception using errcode = '42501', message = 'only the product may write logs of kind "audit"', hint = 'Remove the line.';
    end if;
  end if;
  if p_line ->> 'session' is not null then
    select s.id into v_session from coordinator.sessions s where s.project_id = p_project_id and s.key = p_line ->> 'session';
    if v_session is null then -- it was created during the export
      v_session := coordinator.session_enter(p_project_id, p_line ->> 'session', v_now, v_actor);
    end if;
  end if;
  if p_line ->> 'username' is not null then
    select u.id into v_user from coordinator.users u where u.username = p_line ->> 'username';
    if v_user is null and not p_allow_missing_users then
      raise exception using errcode = 'ZC220', message = format('there is no user "%s"', left(p_line ->> 'username', 64)),
        hint = format('Create it ("coordinator user create %s") and continue; or allow missing users (--allow-missing-users): then what they own has no owner.',
          coordinator.shell_word(left(p_line ->> 'username', 64)));
    end if;
  end if;
  case coalesce(p_line ->> 'type', '')
    when 'project' then -- values that the project already has are kept
      select p.* into v_old from coordinator.projects p where p.id = p_project_id for no key update;
      perform coordinator.project_check_parts(p_line ->> 'description', p_line ->> 'title', (p_line ->> 'settings')::jsonb, p_line ->> 'paths');
      if v_old.paths = 'normal' and p_line ->> 'paths' <> 'normal' then
        perform coordinator.project_free_paths(p_project_id, v_old.name, p_line ->> 'paths');
        v_old.paths := p_line ->> 'paths';
      end if;
      update coordinator.projects p
      set description = coalesce(nullif(p.description, ''), p_line ->> 'description', ''), title = coalesce(nullif(p.title, ''), p_line ->> 'title', ''),
          settings = coalesce(nullif(p.settings, '{}'), (p_line ->> 'settings')::jsonb, '{}'), user_id = coalesce(p.user_id, v_user),
          paths = v_old.paths, updated_at = v_now
      where p.id = p_project_id;
    when 'retention' then
      perform coordinator.retention_check(p_line ->> 'subject', v_kind, (p_line ->> 'max_age')::interval, (p_line ->> 'max_count')::bigint);
      insert into coordinator.retention (project_id, subject, kind, max_age, max_count, actor, updated_at)
      values (p_project_id, p_line ->> 'subject', v_kind, (p_line ->> 'max_age')::interval,
              (p_line ->> 'max_count')::bigint, v_actor, (p_line ->> 'updated_at')::timestamptz)
      on conflict (subject, kind, coalesce(project_id, 0)) do update
      set max_age = excluded.max_age, max_count = excluded.max_count, actor = excluded.actor, updated_at = excluded.updated_at;
    when 'rule' then
      perform coordinator.check_key('the signal of a rule', p_line ->> 'when_set');
      insert into coordinator.signal_rules (project_id, when_set, clears, created_at)
      values (p_project_id, p_line ->> 'when_set', array(select jsonb_array_elements_text(p_line -> 'clears')), (p_line ->> 'created_at')::timestamptz)
      on conflict (when_set, coalesce(project_id, 0)) do update set clears = excluded.clears, created_at = excluded.created_at;
    when 'signal' then
      perform coordinator.check_key('the key', v_key);
      perform coordinator.check_json('the value', (p_line ->> 'value')::jsonb);
      insert into coordinator.signals (project_id, key, value, version, critical, actor, created_at, updated_at, expires_at)
      values (p_project_id, v_key, (p_line ->> 'value')::jsonb, coordinator.epoch_number('coordinator.signal_versions'),
              p_line ->> 'expires_at' is null, v_actor, (p_line ->> 'created_at')::timestamptz, (p_line ->> 'updated_at')::timestamptz,
              (p_line ->> 'expires_at')::timestamptz);
    when 'session' then
      perform coordinator.check_key('the session', v_key);
      perform coordinator.check_json('the context', (p_line ->> 'context')::jsonb, true);
      insert into coordinator.sessions (project_id, key, user_id, title, mission, status, context, forked_from, actor, created_at, updated_at, trim_at)
      values (p_project_id, v_key, v_user, p_line ->> 'title',
              p_line ->> 'mission', p_line ->> 'status', (p_line ->> 'context')::jsonb, p_line ->> 'forked_from', v_actor,
              (p_line ->> 'created_at')::timestamptz, (p_line ->> 'updated_at')::timestamptz,
              v_now + coordinator.retention_age(p_project_id, 'session', '*'));
    when 'log' then
      insert into coordinator.logs (project_id, kind, key, session_id, first_seq, last_seq, epoch, kept, updated_at, trim_at)
      values (p_project_id, v_kind, v_key, v_session, (p_line ->> 'first_seq')::bigint, (p_line ->> 'last_seq')::bigint, v_epoch,
              (p_line ->> 'kept')::boolean, (p_line ->> 'updated_at')::timestamptz, v_now + coordinator.retention_age(p_project_id, 'log', v_kind));
    when 'entry' then
      v_text := p_line ->> 'data';
      perform coordinator.json_refuse('the data', coordinator.json_text_fault(v_text, 1048576), 1048576);
      v_tamed := coordinator.json_tame(v_text);
      v_id := (select l.id from coordinator.logs l where l.project_id = p_project_id and l.kind = v_kind and l.key = v_key);
      insert into coordinator.entries (log_id, seq, uid, role, tokens, epoch, needs_seq, links, kept, actor, created_at, data, raw)
      values (v_id, (p_line ->> 'seq')::bigint, p_line ->> 'uid', p_line ->> 'role', (p_line ->> 'tokens')::integer, v_epoch,
              (p_line ->> 'needs')::bigint, case when jsonb_typeof(p_line -> 'links') = 'array' then array(select jsonb_array_elements_text(p_line -> 'links')) end,
              (p_line ->> 'kept')::boolean, v_actor, (p_line ->> 'created_at')::timestamptz, v_tamed::json, nullif(v_text, v_tamed));
    when 'document' then
      insert into coordinator.documents (project_id, kind, key, session_id, version, epoch, kept, actor, created_at, updated_at, expires_at)
      values (p_project_id, v_kind, v_key, v_session, (p_line ->> 'version')::bigint, v_epoch, (p_line ->> 'kept')::boolean, v_actor,
              (p_line ->> 'created_at')::timestamptz, (p_line ->> 'updated_at')::timestamptz, (p_line ->> 'expires_at')::timestamptz);
    when 'version' then
      if p_line ->> 'value' is not null then
        v_stored := coordinator.json_store('the value', (p_line ->> 'value')::json, 1048576);
      end if;
      perform coordinator.document_check_shape(v_kind, v_stored.value);
      update coordinator.documents d set version = greatest(d.version, (p_line ->> 'version')::bigint)
      where d.project_id = p_project_id and d.kind = v_kind and d.key = v_key returning d.id, d.version into v_id, v_version;
      if v_version = (p_line ->> 'version')::bigint then
        perform coordinator.document_index(v_id, p_project_id, v_kind, v_stored.value, (p_line ->> 'written_at')::timestamptz);
      end if;
      insert into coordinator.document_versions (document_id, version, epoch, actor, written_at, expires_at, value, raw)
      values (v_id, (p_line ->> 'version')::bigint, v_epoch, v_actor, (p_line ->> 'written_at')::timestamptz, (p_line ->> 'expires_at')::timestamptz,
              v_stored.value, v_stored.raw);
      if jsonb_typeof(p_line -> 'embedding') = 'array' then
        perform coordinator.document_embed(p_project_id, v_kind, v_key,
          coordinator.check_embedding(array(select jsonb_array_elements_text(p_line -> 'embedding'))::double precision[]));
      end if;
    when 'part' then
      if p_line ->> 'data' is null then
        raise exception using errcode = 'ZC103', message = 'the bytes of a part of an artifact are missing: an object store has them',
          hint = 'Export the project again through a daemon: "coordinator project export".';
      end if;
      select b.id into v_id from coordinator.artifact_blobs b
      where b.project_id = p_project_id and b.sha256 = p_line ->> 'sha256' and b.finished_at is null;
      if v_id is null then
        insert into coordinator.artifact_blobs (project_id, sha256, due_at) values (p_project_id, p_line ->> 'sha256', v_now + interval '1 day')
        returning id into v_id;
      end if;
      insert into coordinator.artifact_chunks (blob_id, part, data) values (v_id, (p_line ->> 'part')::integer, decode(p_line ->> 'data', 'base64'));
    when 'content' then
      select b.id into v_id from coordinator.artifact_blobs b
      where b.project_id = p_project_id and b.sha256 = p_line ->> 'sha256' and b.finished_at is null;
      if v_id is null then -- the artifact is empty
        insert into coordinator.artifact_blobs (project_id, sha256) values (p_project_id, p_line ->> 'sha256') returning id into v_id;
      end if;
      v_data := coalesce((select string_agg(c.data, '' order by c.part) from coordinator.artifact_chunks c where c.blob_id = v_id), '');
      if encode(sha256(v_data), 'hex') <> p_line ->> 'sha256' then
        raise exception using errcode = 'ZC336', message = format('the SHA-256 of the artifact''s bytes is not %s', p_line ->> 'sha256'),
          hint = 'The export is damaged: export the project again.';
      end if;
      update coordinator.artifact_blobs b
      set bytes = octet_length(v_data), finished_at = (p_line ->> 'finished_at')::timestamptz, due_at = v_now + interval '1 day' where b.id = v_id;
    when 'artifact' then
      perform coordinator.check_key('the name of the artifact', p_line ->> 'name');
      insert into coordinator.artifacts (project_id, session_id, name, media_type, bytes, sha256, kept, actor, created_at, updated_at, trim_at, blob_id)
      select p_project_id, v_session, p_line ->> 'name', p_line ->> 'media_type', b.bytes, b.sha256, (p_line ->> 'kept')::boolean, v_actor,
             (p_line ->> 'created_at')::timestamptz, (p_line ->> 'updated_at')::timestamptz,
             coordinator.artifact_trim_at(p_project_id, v_session, (p_line ->> 'kept')::boolean, (p_line ->> 'updated_at')::timestamptz), b.id
      from coordinator.artifact_blobs b where b.project_id = p_project_id and b.sha256 = p_line ->> 'sha256' and b.finished_at is not null;
      if not found then
        raise exception using errcode = 'ZC103', message = 'the bytes of the artifact are missing', hint = 'The export is damaged: export the project again.';
      end if;
    else
      raise exception using errcode = 'ZC105', message = format('unknown type "%s"', left(p_line ->> 'type', 100)),
        hint = 'The export is damaged, or of a newer program.';
  end case;
end
$$;
comment on function coordinator.import_line(bigint, jsonb, boolean) is
  'Insert the content of a line of an export. ZC220: it belongs to a user who does not exist here. No event: the content was written elsewhere. Internal.';

create or replace function coordinator.project_import(
  p_project text, p_export text, p_lines jsonb, p_done bigint default 0, p_allow_missing_users boolean default false, p_actor text default null)
returns setof coordinator.import_progress
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project  bigint := coordinator.project_id(p_project);
  v_now      timestamptz := coordinator.now_utc();
  v_actor    text := coordinator.actor_name(p_actor);
  v_import   coordinator.project_imports;
  v_place    bigint := p_done;
  v_before   bigint;
  v_finished boolean := false;
  v_line     jsonb;
  v_message  text;
  v_hint     text;
  v_used     record;
begin
  if jsonb_typeof(p_lines) is distinct from 'array' or p_done is null or p_done < 0 then
    raise exception using errcode = 'ZC103', message = 'the lines are not a list, or their place is missing',
      hint = 'Give an array of the lines of an export, and how many lines are before them.';
  elsif jsonb_array_length(p_lines) > 1000 then
    raise exception using errcode = 'ZC102', message = format('%s lines; at most 1000 are allowed', jsonb_array_length(p_lines)),
      hint = 'Import them in several calls.';
  elsif octet_length(p_lines::text) > 8388608 then
    raise exception using errcode = 'ZC102', message = 'the lines take more than 8388608 bytes as text', hint = 'Import them in several calls.';
  end if;
  perform from coordinator.users u
  where u.username in (select e ->> 'username' from jsonb_array_elements(p_lines) e) order by u.id for key share;
  perform coordinator.project_hold(v_project);
  select * into v_import from coordinator.project_imports i where i.project_id = v_project for update;
  if not found then
    if p_done > 0 then
      raise exception using errcode = 'ZC301', message = format('no import into project "%s" has begun', p_project),
        detail = '{"lines": 0}', hint = 'Begin with the first line of the export.';
    end if;
    perform coordinator.import_open(v_project, p_project, coalesce(p_lines -> 0, '{}'));
    select * into v_import from coordinator.project_imports i where i.project_id = v_project;
  end if;
  if v_import.export is distinct from p_export then
    raise exception using errcode = 'ZC301', message = format('another export was imported into project "%s"', p_project),
      detail = jsonb_build_object('lines', v_import.lines, 'export', v_import.export)::text, hint = 'Import into a new project.';
  elsif p_done > v_import.lines then
    raise exception using errcode = 'ZC301', message = format('%s lines are imported, not %s', v_import.lines, p_done),
      detail = jsonb_build_object('lines', v_import.lines)::text, hint = 'Continue after the lines that are imported.';
  end if;
  v_before := case when v_import.finished_at is null then v_import.lines else p_done + 1000 end;
  for v_line in select value from jsonb_array_elements(p_lines) with ordinality u (value, place) order by place loop
    v_place := v_place + 1;
    continue when v_place <= v_before; -- already imported
    if v_line ->> 'type' = 'end' then
      v_finished := true;
      v_import.lines := v_place;
      exit;
    end if;
    begin
      perform coordinator.import_line(v_project, v_line, coalesce(p_allow_missing_users, false));
    exception
      when data_exception or integrity_constraint_violation then
        v_message := sqlerrm;
        raise exception using errcode = 'ZC103', message = format('line %s: %s', v_place, v_message),
          hint = 'The export is damaged, or others write to the project meanwhile.';
      when others then
        if sqlstate not like 'ZC%' then
          raise;
        end if;
        get stacked diagnostics v_message = message_text, v_hint = pg_exception_hint;
        raise exception using errcode = sqlstate, message = format('line %s: %s', v_place, v_message), hint = v_hint;
    end;
    v_import.lines := v_place;
  end loop;
  update coordinator.logs l set count = l.count + e.count, last_seq = greatest(l.last_seq, e.last_seq)
  from (select u.value ->> 'kind' as kind, u.value ->> 'key' as key, count(*) as count, max((u.value ->> 'seq')::bigint) as last_seq
        from jsonb_array_elements(p_lines) with ordinality u (value, place)
        where u.value ->> 'type' = 'entry' and p_done + u.place > v_before and p_done + u.place <= v_import.lines group by 1, 2) e
  where l.project_id = v_project and l.kind = e.kind and l.key = e.key;
  select count(*) filter (where u.value ->> 'type' = 'artifact') as count, sum(b.bytes) as bytes into v_used
  from jsonb_array_elements(p_lines) with ordinality u (value, place)
  left join coordinator.artifact_blobs b
    on u.value ->> 'type' = 'content' and b.project_id = v_project and b.sha256 = u.value ->> 'sha256' and b.finished
  where p_done + u.place > v_before and p_done + u.place <= v_import.lines;
  if v_used.count > 0 or v_used.bytes > 0 then
    perform coordinator.artifact_use(v_project, v_used.count, coalesce(v_used.bytes, 0)::bigint);
  end if;
  update coordinator.project_imports i
  set lines = v_import.lines, updated_at = v_now, finished_at = coalesce(i.finished_at, case when v_finished then v_now end)
  where i.project_id = v_project;
  if v_finished then
    perform coordinator.event_append('project.imported', p_project, p_project, v_actor, v_now,
      jsonb_build_object('lines', v_import.lines));
  end if;
  return query select p_project, v_import.export, v_import.lines, v_finished or v_import.finished_at is not null;
end
$$;
comment on function coordinator.project_import(text, text, jsonb, bigint, boolean, text) is
  'Import lines of an export into a project without content. p_export: the id in the first line; p_done: the number of lines before these. Return how many lines are imported. Lines that are already imported change nothing, so you can repeat a call whose response was lost, and continue an interrupted import after the lines that it returns. p_allow_missing_users: content of users who do not exist here is imported without a user; else ZC220. An error names the line; nothing of the call is imported then. ZC105: another format or version. ZC301: the project has content, or other lines were imported.';
