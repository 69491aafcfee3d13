-- Sessions: conversations and runs of work. Their contents are in logs and documents, which store the session's number.
--
-- The first append or put under a session's key creates it (session_enter), and locks its row for share until the commit. Later ones only
-- check whether it is archived (session_continue), after they have locked their header. The usual append relies on such a check of an
-- earlier one for up to a minute (logs.open_until). session_archive changes the session's row first, and then waits for all headers of
-- the session and ends these minutes, so transactions that lock a header afterwards see that the session is archived.
-- Locks: the user, the project, the session, then headers of logs and documents. session_continue skips a session that another
-- transaction has locked.

insert into coordinator.event_types (type, key, data, meaning) values
  ('session.created',  'key of the session', '{username,status}', 'A session was created, explicitly or by the first append or put.'),
  ('session.changed',  'key of the session', '{fields,status}',   'A session was changed; fields: the changed fields.'),
  ('session.archived', 'key of the session', '{}',                'A session was archived. It accepts no more appends or puts.'),
  ('session.forked',   'key of the copy',    '{session,kind,seq}', 'A session was copied, as of the entry seq or, if seq is null, as of the call; session: the original.'),
  ('session.deleted',  'key of the session', '{reason}',           'A session was deleted with all its contents; reason: deleted (by a caller) or expired.');

insert into coordinator.rights (function, role) values
  ('session_list',    'reader'),
  ('session_show',    'reader'),
  ('session_archive', 'agent'),
  ('session_create',  'agent'),
  ('session_fork',    'agent'),
  ('session_set',     'agent'),
  ('session_delete',  'manager');

insert into coordinator.limits (name, value, unit, meaning) values
  ('session_title',   200,   'characters', 'Title of a session or project.'),
  ('session_mission', 20000, 'characters', 'Mission of a session.'),
  ('session_status',  36,    'characters', 'Status of a session: lower-case letters, digits, - and _.'),
  ('session_delete',  10000,  'entries',   'Entries deleted per call of session_delete; call it again for the rest.'),
  ('session_fork',    100000, 'entries',   'Entries copied by session_fork.');

create or replace view coordinator.sessions_live with (security_barrier) as
  select p.name as project, s.key as session, u.username, s.title, s.mission, s.status, s.context, s.forked_from, s.actor, s.created_at, s.updated_at
  from coordinator.sessions s
  join coordinator.projects p on p.id = s.project_id
  left join coordinator.users u on u.id = s.user_id
  where coalesce(p.name = any ((select coordinator.projects_visible())::text[]), true);
comment on view   coordinator.sessions_live             is 'Conversations and runs of work, with the names of their projects and users.';
comment on column coordinator.sessions_live.project     is 'Name of the project.';
comment on column coordinator.sessions_live.session     is 'Key of the session.';
comment on column coordinator.sessions_live.username    is 'User who owns the session; null: nobody.';
comment on column coordinator.sessions_live.title       is 'One-line title; may be empty.';
comment on column coordinator.sessions_live.mission     is 'What the session is to achieve; may be empty.';
comment on column coordinator.sessions_live.status      is 'active, archived (appends and puts are refused), or another word chosen by the caller.';
comment on column coordinator.sessions_live.context     is 'JSON object of the caller.';
comment on column coordinator.sessions_live.forked_from is 'Key of the session that it was copied from; null: none.';
comment on column coordinator.sessions_live.actor       is 'Who created it.';
comment on column coordinator.sessions_live.created_at  is 'When it was created.';
comment on column coordinator.sessions_live.updated_at  is 'When it last changed or got an append or put, to about a minute.';

create or replace function coordinator.session_missing(p_project_id bigint, p_session text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  perform coordinator.name_missing('ZC215', (select p.name from coordinator.projects p where p.id = p_project_id), 'session', p_session,
    array(select s.key from coordinator.sessions s where s.project_id = p_project_id order by s.updated_at desc limit 1000),
    'The first message creates it, as does "coordinator session create".');
end
$$;
comment on function coordinator.session_missing(bigint, text) is
  'Raise ZC215 for a session that the project does not have. Internal.';

create or replace function coordinator.session_find(p_project_id bigint, p_session text) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := (select s.id from coordinator.sessions s where s.project_id = p_project_id and s.key = p_session);
begin
  if v_id is null then
    perform coordinator.session_missing(p_project_id, p_session);
  end if;
  return v_id;
end
$$;
comment on function coordinator.session_find(bigint, text) is
  'Return the number of a session. ZC215: there is no such session. Internal.';

create or replace function coordinator.session_refuse(p_session_id bigint) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_key text := (select s.key from coordinator.sessions s where s.id = p_session_id);
begin
  raise exception using errcode = 'ZC332', message = format('session "%s" is archived', v_key),
    hint = format('Give it another status to continue it ("coordinator session set %s --status active"), or fork it.', coordinator.shell_word(v_key));
end
$$;
comment on function coordinator.session_refuse(bigint) is
  'Raise ZC332 for an append or put in an archived session. Internal.';

create or replace function coordinator.session_taken(p_key text) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using errcode = 'ZC301', message = format('a session, log or document "%s" already exists', p_key),
    hint = 'Choose another key, or use the existing one. A recently deleted session, log or document keeps its key until retention removes it.';
end
$$;
comment on function coordinator.session_taken(text) is
  'Raise ZC301 for the key of a new session. Internal.';

create or replace function coordinator.session_begin(
  p_project_id bigint, p_session text, p_user_id bigint, p_title text, p_mission text, p_status text, p_context jsonb,
  p_forked_from text, p_actor text, p_now timestamptz) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id      bigint;
  v_project text;
begin
  perform coordinator.check_key('the session', p_session);
  perform coordinator.project_hold(p_project_id);
  insert into coordinator.sessions (project_id, key, user_id, title, mission, status, context, forked_from, actor, created_at, updated_at, trim_at)
  values (p_project_id, p_session, p_user_id, p_title, p_mission, p_status, p_context, p_forked_from, p_actor, p_now, p_now,
          p_now + coordinator.retention_age(p_project_id, 'session', '*'))
  on conflict on constraint sessions_key do nothing
  returning id into v_id;
  if v_id is not null then
    select p.name into v_project from coordinator.projects p where p.id = p_project_id;
    perform coordinator.event_append('session.created', v_project, p_session, p_actor, p_now,
      jsonb_build_object('username', (select u.username from coordinator.users u where u.id = p_user_id), 'status', p_status));
  end if;
  return v_id;
end
$$;
comment on function coordinator.session_begin(bigint, text, bigint, text, text, text, jsonb, text, text, timestamptz) is
  'Insert a session with its event, and return its number; null if its key is taken. Internal.';

create or replace function coordinator.session_enter(p_project_id bigint, p_key text, p_now timestamptz, p_actor text default null) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id     bigint;
  v_status text;
begin
  loop
    select s.id, s.status into v_id, v_status from coordinator.sessions s
    where s.project_id = p_project_id and s.key = p_key for share; -- session_archive and session_delete wait for this
    exit when found;
    v_id := coordinator.session_begin(p_project_id, p_key, null, '', '', 'active', '{}', null, coordinator.actor_name(p_actor), p_now);
    exit when v_id is not null; -- otherwise another transaction created it in between
  end loop;
  if v_status = 'archived' then
    perform coordinator.session_refuse(v_id);
  end if;
  return v_id;
end
$$;
comment on function coordinator.session_enter(bigint, text, timestamptz, text) is
  'Return the number of the session with this key, and create it if there is none. Nobody can archive or delete it before the transaction ends. A function that creates a log or document of a session calls this before it inserts the header. ZC332: the session is archived. Internal.';

-- Each append and put calls it, so it inherits the search_path of its callers.
create or replace function coordinator.session_continue(p_session_id bigint, p_now timestamptz) returns void
language plpgsql volatile
as $$
declare
  v_status     text;
  v_updated_at timestamptz;
begin
  select s.status, s.updated_at into v_status, v_updated_at from coordinator.sessions s where s.id = p_session_id;
  if v_status = 'archived' then
    perform coordinator.session_refuse(p_session_id);
  elsif v_updated_at < p_now - interval '1 minute' then
    update coordinator.sessions set updated_at = p_now
    where id = (select s.id from coordinator.sessions s where s.id = p_session_id for no key update skip locked);
  end if;
end
$$;
comment on function coordinator.session_continue(bigint, timestamptz) is
  'Reject (ZC332) an archived session, and record once a minute that it is used. An append or put calls this in a statement after the one that locked its header. No event. Internal.';

create or replace function coordinator.session_hold(p_session_id bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  -- In the lock order.
  perform from coordinator.logs l where l.session_id = p_session_id order by l.kind, l.key for share;
  perform from coordinator.documents d where d.session_id = p_session_id order by d.kind, d.key for share;
end
$$;
comment on function coordinator.session_hold(bigint) is
  'Wait for those who append or put in a session that the caller has locked, and keep others from it until the transaction ends. Internal.';

create or replace function coordinator.session_close(p_session_id bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from coordinator.logs l where l.session_id = p_session_id order by l.kind, l.key for no key update;
  -- In a statement after that: an append that it waited for may have opened the log.
  update coordinator.logs set open_until = null where session_id = p_session_id and open_until is not null;
end
$$;
comment on function coordinator.session_close(bigint) is
  'Make appends to the logs of a session look at it, after the caller has archived it: wait for those that are running, and undo log_open. No event. Internal.';

create or replace function coordinator.session_check(p_title text, p_mission text, p_status text, p_context jsonb) returns void
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_title <> '' then
    perform coordinator.check_name('the title', p_title);
  end if;
  if p_mission <> '' then
    perform coordinator.check_text('the mission', p_mission, 20000);
  end if;
  if p_status !~ '^[a-z][a-z0-9_-]{0,35}$' then
    raise exception using errcode = 'ZC103', message = format('invalid status "%s"', left(p_status, 200)),
      hint = 'Use at most 36 lower-case letters, digits, - and _, starting with a letter, such as active or done.';
  elsif p_status = 'archived' then
    raise exception using errcode = 'ZC105', message = 'the status "archived" cannot be set directly', hint = 'Use "coordinator session archive".';
  end if;
  if p_context is not null then
    perform coordinator.check_json('the context', p_context, true);
  end if;
end
$$;
comment on function coordinator.session_check(text, text, text, jsonb) is
  'Reject an invalid part of a session; what is null is not checked. Internal.';

create or replace function coordinator.session_create(
  p_project text, p_session text default null, p_username text default null, p_title text default '', p_mission text default '',
  p_status text default 'active', p_context jsonb default '{}', p_actor text default null)
returns setof coordinator.sessions_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_actor   text := coordinator.actor_name(p_actor);
  v_session text := coalesce(p_session, gen_random_uuid()::text);
  v_user    bigint;
  v_id      bigint;
begin
  p_title := coalesce(p_title, '');
  p_mission := coalesce(p_mission, '');
  p_status := coalesce(p_status, 'active');
  perform coordinator.session_check(p_title, p_mission, p_status, p_context);
  v_user := coordinator.user_hold(p_username);
  v_id := coordinator.session_begin(v_project, v_session, v_user, p_title, p_mission, p_status, coalesce(p_context, '{}'), null, v_actor, v_now);
  if v_id is null then
    perform coordinator.session_taken(v_session);
  end if;
  return query select * from coordinator.sessions_live l where l.project = p_project and l.session = v_session;
end
$$;
comment on function coordinator.session_create(text, text, text, text, text, text, jsonb, text) is
  'Create a session with a key, by default a new UUID. The first append or put with a key does the same. ZC301: the key is taken. ZC220: there is no such user.';

create or replace function coordinator.session_show(p_project text, p_session text)
returns setof coordinator.sessions_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_id bigint := coordinator.session_find(coordinator.project_id(p_project), p_session);
begin
  return query
    select p_project, s.key, u.username, s.title, s.mission, s.status, s.context, s.forked_from, s.actor, s.created_at, s.updated_at
    from coordinator.sessions s left join coordinator.users u on u.id = s.user_id where s.id = v_id;
end
$$;
comment on function coordinator.session_show(text, text) is
  'Show a session. ZC215: there is no such session.';

create or replace function coordinator.session_list(
  p_project text, p_username text default null, p_status text default null, p_after text[] default null, p_limit integer default 1000)
returns setof coordinator.sessions_live
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan -- each filter has an index of its own
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_user    bigint;
begin
  perform coordinator.check_page(p_limit, p_after, '{instant,text}');
  if p_username is not null then
    v_user := coordinator.user_find(p_username);
  end if;
  return query
    select p_project, s.key, u.username, s.title, s.mission, s.status, s.context, s.forked_from, s.actor, s.created_at, s.updated_at
    from coordinator.sessions s left join coordinator.users u on u.id = s.user_id
    where s.project_id = v_project and (v_user is null or s.user_id = v_user) and (p_status is null or s.status = p_status)
      and (p_after is null or (s.updated_at, s.key) < (p_after[1]::timestamptz, p_after[2]))
    order by s.updated_at desc, s.key desc limit p_limit;
end
$$;
comment on function coordinator.session_list(text, text, text, text[], integer) is
  'List the sessions of a project, most recently used first. Filters: a user and a status. p_after: array[updated_at, session] of the last row read. ZC220: there is no such user.';

create or replace function coordinator.session_set(
  p_project text, p_session text, p_username text default null, p_title text default null, p_mission text default null,
  p_status text default null, p_context jsonb default null, p_actor text default null)
returns setof coordinator.sessions_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_actor   text := coordinator.actor_name(p_actor);
  v_user    bigint;
  v_old     coordinator.sessions;
  v_new     coordinator.sessions;
  v_fields  text[];
begin
  perform coordinator.session_check(p_title, p_mission, p_status, p_context);
  v_user := coordinator.user_hold(p_username);
  select s.* into v_old from coordinator.sessions s where s.project_id = v_project and s.key = p_session for no key update;
  if not found then
    perform coordinator.session_missing(v_project, p_session);
  end if;
  update coordinator.sessions s
  set user_id = coalesce(v_user, s.user_id), title = coalesce(p_title, s.title), mission = coalesce(p_mission, s.mission),
      status = coalesce(p_status, s.status), context = coalesce(p_context, s.context), updated_at = v_now
  where s.id = v_old.id
    and (s.user_id, s.title, s.mission, s.status, s.context)
        is distinct from (coalesce(v_user, s.user_id), coalesce(p_title, s.title), coalesce(p_mission, s.mission), coalesce(p_status, s.status),
                          coalesce(p_context, s.context))
  returning s.* into v_new;
  if found then
    v_fields := array_remove(array[
      case when v_new.user_id is distinct from v_old.user_id then 'username' end, case when v_new.title <> v_old.title then 'title' end,
      case when v_new.mission <> v_old.mission then 'mission' end, case when v_new.status <> v_old.status then 'status' end,
      case when v_new.context <> v_old.context then 'context' end], null);
    perform coordinator.event_append('session.changed', p_project, p_session, v_actor, v_now,
      jsonb_build_object('fields', v_fields, 'status', v_new.status));
  end if;
  return query select * from coordinator.session_show(p_project, p_session);
end
$$;
comment on function coordinator.session_set(text, text, text, text, text, text, jsonb, text) is
  'Change parts of a session; null parameters change nothing. Another status makes an archived session usable again. ZC215: there is no such session. ZC220: there is no such user.';

create or replace function coordinator.session_archive(p_project text, p_session text, p_actor text default null)
returns setof coordinator.sessions_live
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_project bigint := coordinator.project_id(p_project);
  v_now     timestamptz := coordinator.now_utc();
  v_actor   text := coordinator.actor_name(p_actor);
  v_id      bigint;
  v_status  text;
begin
  select s.id, s.status into v_id, v_status from coordinator.sessions s where s.project_id = v_project and s.key = p_session for no key update;
  if not found then
    perform coordinator.session_missing(v_project, p_session);
  elsif v_status <> 'archived' then
    update coordinator.sessions s set status = 'archived', updated_at = v_now where s.id = v_id;
    perform coordinator.session_close(v_id);
    perform coordinator.session_hold(v_id);
    perform coordinator.event_append('session.archived', p_project, p_session, v_actor, v_now, '{}');
  end if;
  return query select * from coordinator.session_show(p_project, p_session);
end
$$;
comment on function coordinator.session_archive(text, text, text) is
  'Archive a session: it stays readable, but refuses appends and puts (ZC332). Archiving it again changes nothing. ZC215: there is no such session.';
