-- Notes: short texts that agents of a project leave for each other, until their TTL passes.

insert into coordinator.event_types (type, key, data, meaning) values
  ('note.written', 'key of the note', '{expires_at}', 'A note was written, or replaced one with the same key.'),
  ('note.deleted', 'key of the note', '{}',           'A note was deleted by a caller.'),
  ('note.expired', 'key of the note', '{}',           'The TTL of a note passed.');

insert into coordinator.rights (function, role) values
  ('note_list',   'reader'),
  ('note_write',  'agent'),
  ('note_delete', 'agent');

insert into coordinator.limits (name, value, unit, meaning) values
  ('note_text', 4000, 'characters', 'Text of a note.');

create or replace view coordinator.notes_live with (security_barrier) as
  select p.name as project, n.key, n.text, n.actor, n.written_at, n.expires_at
  from coordinator.notes n join coordinator.projects p on p.id = n.project_id
  where n.expires_at > coordinator.now_utc()
    and coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.notes_live            is 'Notes that readers see.';
comment on column coordinator.notes_live.project    is 'Name of the project.';
comment on column coordinator.notes_live.key        is 'What the note is about.';
comment on column coordinator.notes_live.text       is 'The text.';
comment on column coordinator.notes_live.actor      is 'Who wrote it.';
comment on column coordinator.notes_live.written_at is 'When it was written (database clock).';
comment on column coordinator.notes_live.expires_at is 'When readers stop seeing it.';

create or replace function coordinator.note_write(
  p_project text, p_key text, p_text text, p_ttl interval default '1 day', p_actor text default null)
returns setof coordinator.notes_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_actor   text := coordinator.actor_name(p_actor);
begin
  perform coordinator.check_key('the key', p_key);
  perform coordinator.check_text('the note', p_text, 4000);
  perform coordinator.check_ttl(p_ttl);
  insert into coordinator.notes (project_id, key, text, actor, written_at, expires_at)
  values (v_project, p_key, p_text, v_actor, v_now, v_now + p_ttl)
  on conflict (project_id, key) do update
  set text = excluded.text, actor = excluded.actor, written_at = excluded.written_at, expires_at = excluded.expires_at;
  perform coordinator.event_append('note.written', p_project, p_key, v_actor, v_now, jsonb_build_object('expires_at', v_now + p_ttl));
  return query select p_project, p_key, p_text, v_actor, v_now, v_now + p_ttl;
end
$$;
comment on function coordinator.note_write(text, text, text, interval, text) is
  'Write a note, or replace the one with the same key.';

create or replace function coordinator.note_list(p_project text, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.notes_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_page(p_limit, p_after, '{text}');
  return query
    select p_project, n.key, n.text, n.actor, n.written_at, n.expires_at from coordinator.notes n
    where n.project_id = v_project and n.key > coalesce(p_after[1], '') and n.expires_at > coordinator.now_utc()
    order by n.key limit p_limit;
end
$$;
comment on function coordinator.note_list(text, text[], integer) is
  'The notes of a project in byte order of their keys. p_after: array[key] of the row before.';

create or replace function coordinator.note_delete(p_project text, p_key text, p_actor text default null) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
begin
  perform coordinator.check_key('the key', p_key);
  delete from coordinator.notes where project_id = v_project and key = p_key and expires_at > coordinator.now_utc();
  if not found then
    raise exception using errcode = 'ZC203', message = format('there is no note "%s"', p_key), hint = 'See "coordinator note list".';
  end if;
  perform coordinator.event_append('note.deleted', p_project, p_key, coordinator.actor_name(p_actor), coordinator.now_utc(), '{}');
  return true;
end
$$;
comment on function coordinator.note_delete(text, text, text) is
  'Delete a note.';

create or replace function coordinator.note_expire(p_limit integer default 1000) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_now   timestamptz := coordinator.now_utc();
  v_note  record;
  v_count integer := 0;
begin
  perform coordinator.check_page(p_limit);
  for v_note in
    with due as (
      select project_id, key from coordinator.notes where expires_at <= v_now
      order by expires_at limit p_limit for update skip locked)
    delete from coordinator.notes n using due, coordinator.projects p
    where n.project_id = due.project_id and n.key = due.key and p.id = n.project_id
    returning n.key, p.name as project
  loop
    perform coordinator.event_append('note.expired', v_note.project, v_note.key, 'coordinator', v_now, '{}');
    v_count := v_count + 1;
  end loop;
  return v_count;
end
$$;
comment on function coordinator.note_expire(integer) is
  'Delete notes whose TTL has passed. Internal: called by a loop until it returns 0.';
